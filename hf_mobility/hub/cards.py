"""Model cards and dataset cards, from one template each.

The snippet of a card is that of its class and checkpoint, and runs. The model index carries the baselines as well as
the model. What was not given is called "not recorded".
"""

from __future__ import annotations

import hashlib
import platform
import re
import shlex
import warnings
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData

from ..evaluation.listed import ListedCity
from ..evaluation.report import to_markdown
from ..tokenization.whole_files import whole_file
from ..version import __version__
from .card_facts import CardFacts, with_base_names, with_inherited
from .card_snippets import SNIPPETS, snippet
from .requests import HUB_ID

TEMPLATES = Path(__file__).parent
UNFILLED = "[More Information Needed]"  # stands in the generic cards that PEFT and huggingface_hub write
METRICS = {
    **{f"acc@{k}": f"Acc@{k}" for k in (1, 5, 10)},
    "mrr": "MRR",
    "nll": "negative log-likelihood, nats",
    "mean6": "mean of six Jensen-Shannon divergences, nats",
    "cpc": "common part of commuters",
    "accuracy": "accuracy",
    "whole week exact": "share of weeks without a wrong hour",
    "f1": "F1",
    "auc": "AUC",
    "mae_m": "mean absolute error per axis, metres",
    "error_km": "mean error, km",
    "median_km": "median error, km",
}


@dataclass(frozen=True)
class _System:
    paper: str
    what: str
    task: str
    tags: tuple[str, ...]
    intended: str


_SYSTEMS = {
    "mobility_samoe": _System(
        "SAMoE / TrajMoE (arXiv 2505.18670)",
        "predicts the next place of a user in any city: a city is a tokenizer, not a weight",
        "next-location-prediction",
        ("next-location",),
        "Research on human mobility: next places in cities with little or no data, and transfer between cities. "
        "Teaching, and a base for adaptation to your own data.",
    ),
    "mobility_mstar_codec": _System(
        "M-STAR's codec (arXiv 2512.07314)",
        "turns weeks of hourly cells into codes on several time scales, and back",
        "trajectory-reconstruction",
        ("trajectory-generation",),
        "As stage 1 of M-STAR, and for research on codes of trajectories, on the grid of cells it was trained on.",
    ),
    "mobility_mstar": _System(
        "M-STAR (arXiv 2512.07314)",
        "generates weeks of hourly cells, given home, work and a movement class, or from nothing",
        "trajectory-generation",
        ("trajectory-generation",),
        "Research on synthetic populations, teaching, and as a base for training on your own weeks. Audit weeks and "
        "city before publishing a model of real users.",
    ),
    "mobility_raw": _System(
        "RAW (arXiv 2311.10471)",
        "encodes users' positions every few minutes; embeds users and regions, and rolls positions forward",
        "trajectory-prediction",
        ("trajectory-embedding",),
        "Research on embeddings of users and regions, prediction of positions some hours ahead, teaching, and as a "
        "base for your own tasks.",
    ),
}
_PIPELINE_TAGS = {
    "SamoeModel": "feature-extraction",
    "RawModel": "feature-extraction",
    "RawExtendedModel": "feature-extraction",
    "RawForTrajectoryPrediction": "time-series-forecasting",
    "RawExtendedForTrajectoryPrediction": "time-series-forecasting",
}
OUT_OF_SCOPE = (
    "Following, finding or re-identifying a person; policing; any decision about an individual. Emergency or "
    "safety-critical planning from these figures alone. Cities or kinds of data far from the training data, without a "
    "check against the baselines there."
)


def model_card(
    model_or_config: Any,
    *,
    tokenizer: Any = None,
    name: str = "",
    facts: CardFacts | None = None,
    listed: ListedCity | None = None,
) -> ModelCard:
    """The card of a checkpoint.

    Args:
        model_or_config: a model of this package, a PEFT model around one, or a configuration that was saved with one.
        tokenizer: the one saved beside it.
        name: Hub id or folder from which the snippet loads; by default where the model was loaded from, its last part.
        facts: what cannot be read from the weights; what they leave out of licences and training data is taken from
            the card of the checkpoint that the model was loaded from.
        listed: what the saved city lists; by default what the tokenizer holds.

    Raises:
        ValueError: another kind of model, or results in which no row begins with `ours` or no known metric stands.
    """
    if listed is None and tokenizer is not None:
        listed = ListedCity.of_contents(tokenizer.contents(min_users=1))
    adapter = bool(getattr(model_or_config, "peft_config", None))
    model = model_or_config.get_base_model() if hasattr(model_or_config, "get_base_model") else model_or_config
    config = getattr(model, "config", model)
    facts = with_inherited(facts or CardFacts(), config, adapter=adapter)
    cls = _class_name(model, config)
    system = _SYSTEMS[config.model_type]
    name = name or Path(str(getattr(config, "name_or_path", "") or "model")).name
    title = name.rstrip("/").rsplit("/", 1)[-1]
    data = ModelCardData(
        library_name="hf_mobility",
        pipeline_tag=_PIPELINE_TAGS.get(cls),
        tags=["human-mobility", *system.tags, config.model_type, *(["lora", "peft"] if adapter else [])],
        base_model=_hub_id(model_or_config) if adapter else None,
        model_name=title,
        eval_results=None if facts.results is None else _eval_results(facts.results, facts.ours, system.task),
        license_code="apache-2.0",
        license_data=facts.data_license,
        license_weights=facts.weights_license,
        **_license(facts.weights_license),
    )
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATES / "card_template.md"),
        title=title,
        summary=facts.summary or _summary(cls, model, config, system, adapter=adapter),
        notes=facts.notes,
        usage_note=facts.usage_note,
        intended=system.intended,
        out_of_scope=OUT_OF_SCOPE,
        training_data=facts.training_data,
        bias=facts.bias,
        figures=_figures(facts),
        privacy=_privacy(facts.privacy),
        listed=[] if listed is None else listed.sentences(),
        command=f"`{_command(facts.command)}`" if facts.command else "not recorded",
        seed="not recorded" if facts.seed is None else facts.seed,
        versions=facts.versions or _versions(),
        snippet=snippet(cls, name, tokenizer),
        weights_license=facts.weights_license,
        data_license=facts.data_license,
    )


def write_card(
    folder: str | Path,
    model_or_config: Any,
    *,
    tokenizer: Any = None,
    name: str = "",
    facts: CardFacts | None = None,
    replace: bool = False,
) -> bool:
    """Write `README.md` into the folder of a saved checkpoint, and say whether it was written.

    A card that somebody wrote or changed stays, with a warning. One that was written here and not changed is replaced,
    and so is the unfilled one that PEFT leaves in an adapter's folder. `replace` is for folders that nobody wrote in.
    Other arguments as `model_card`; `name` is the folder's by default.
    """
    path = Path(folder) / "README.md"
    if path.exists() and not replace and not _is_ours(path.read_text(encoding="utf-8")):
        warnings.warn(
            f"{path.name} in {Path(folder).resolve().name} was changed, or written by another program or release, and "
            "stays: see that it is true of what is saved now.",
            UserWarning,
            stacklevel=3,
        )
        return False
    name, listed = name or Path(folder).resolve().name, ListedCity.of_folder(folder)
    card = model_card(model_or_config, tokenizer=tokenizer, name=name, facts=facts, listed=listed)
    text = str(card).rstrip("\n")
    with whole_file(path) as file:
        file.write_text(f"{text}\n\n{_mark(text)}\n", encoding="utf-8")
    return True


def _is_ours(text: str) -> bool:
    """Whether a card is as `write_card` or PEFT wrote it."""
    body, _, mark = text.rstrip("\n").rpartition("\n\n")
    return UNFILLED in text or mark == _mark(body)


def _mark(text: str) -> str:
    """The last line of a card: whether it still belongs to the text above tells whether somebody changed it."""
    checksum = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return f"<!-- Written by hf_mobility ({checksum}); a card that was changed is kept. -->"


def dataset_card(simulated: Any, *, seed: int, name: str = "", **options: Any) -> DatasetCard:
    """The card of a simulated city: simulator, seed, number of people, what is known of them.

    Args:
        simulated: a `SimulatedCity`.
        seed, options: the keywords that `simulate_city` was given, so that the card can say how to make it again.
        name: of the data set; by default the city's.
    """
    visits, people = simulated.visits, simulated.people
    local = visits["time"].dt.tz_convert(simulated.timezone)
    given = {"seed": seed, "name": simulated.name, "timezone": simulated.timezone, "shape": simulated.shape, **options}
    call = ", ".join([str(len(people)), *(f"{key}={value!r}" for key, value in given.items())])
    data = DatasetCardData(
        license="apache-2.0",
        pretty_name=name or f"{simulated.name} (simulated)",
        tags=["human-mobility", "synthetic", "simulated"],
    )
    return DatasetCard.from_template(
        data,
        template_path=str(TEMPLATES / "dataset_card_template.md"),
        visits=f"{len(visits):,}",
        people=f"{len(people):,}",
        places=f"{len(simulated.pois):,}",
        commuters=f"{int(people['is_commuter'].sum()):,}",
        first=local.min().date().isoformat(),
        last=local.max().date().isoformat(),
        timezone=simulated.timezone,
        shape=simulated.shape,
        seed=seed,
        version=__version__,
        snippet=f"from hf_mobility import simulate_city\n\nmade = simulate_city({call})",
    )


# ------------------------------------------------------------------------------------------------------------ the parts


def _class_name(model: Any, config: Any) -> str:
    cls = type(model).__name__ if model is not config else (getattr(config, "architectures", None) or [""])[0]
    if getattr(config, "model_type", None) not in _SYSTEMS or cls not in SNIPPETS:
        raise ValueError(
            f"There is no card for {cls or type(config).__name__}; give a model of hf_mobility, or the configuration "
            f"that was saved with one ({', '.join(SNIPPETS)})."
        )
    return cls


def _summary(cls: str, model: Any, config: Any, system: _System, *, adapter: bool) -> str:
    size = f"{config.num_hidden_layers} layers, width" if hasattr(config, "num_hidden_layers") else "Width"
    count = f", {model.num_parameters():,} parameters" if hasattr(model, "num_parameters") else ""
    lora = "A LoRA adapter for one city, around the model: " if adapter else ""
    return f"{lora}{system.paper} in hf_mobility, {cls}: {system.what}. {size} {config.hidden_size}{count}."


def _command(text: str) -> str:
    """Without the paths of a machine; the text as it is where there are none."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    shown = with_base_names(words)
    return text if shown == shlex.join(words) else shown


def _hub_id(adapted: Any) -> str | None:
    """The base's Hub id. Local paths are not published."""
    base = str(next(iter(adapted.peft_config.values())).base_model_name_or_path or "")
    return base if HUB_ID.fullmatch(base) and not Path(base).exists() else None


def _license(words: str) -> dict[str, Any]:
    """An identifier as it is; the first words of a sentence as a name."""
    if re.fullmatch(r"[a-z0-9.-]+", words):
        return {"license": words}
    return {"license": "other", "license_name": _slug(re.split(r"[,:;(]", words)[0])}


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def _eval_results(table: pd.DataFrame, ours: str, task: str) -> list[EvalResult]:
    own = table["model"].astype(str).str.startswith(ours) if ours else pd.Series(False, index=table.index)
    if not own.any():
        raise ValueError(f"No row of the results is this model's: no name begins with ours={ours!r}.")
    metrics = {column: title for column, title in METRICS.items() if column in table}
    if not metrics:
        raise ValueError(f"The results have no known metric; known are {', '.join(METRICS)}.")
    places = next((table[c].astype(str) for c in ("city", "data") if c in table), pd.Series("not named", table.index))
    found = []
    for row, mine, place in zip(table.to_dict("records"), own, places):
        who = row["model"] if mine else f"baseline {row['model']}"
        # huggingface_hub puts results of one type under one name, so each place is a type of its own.
        result = partial(EvalResult, task_type=task, dataset_type=_slug(place), dataset_name=place)
        for column, title in metrics.items():
            if not pd.isna(row[column]):
                value = round(float(row[column]), 4)
                found.append(result(metric_type=column, metric_value=value, metric_name=f"{title}: {who}"))
    return found


def _figures(facts: CardFacts) -> str:
    if facts.figures or facts.results is None:
        return facts.figures or "None measured."
    names = facts.results["model"].astype(str)
    baselines = tuple(dict.fromkeys(names[~names.str.startswith(facts.ours)]))
    return to_markdown(facts.results, baselines=baselines).rstrip("\n")


def _privacy(report: pd.DataFrame | str) -> str:
    if isinstance(report, str):
        return report
    lines = [f"- {sentence}" for sentence in report["sentence"]]
    return "\n".join([*lines, "", "Measured by `hf_mobility.evaluation.audit`; no proof of privacy."])


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    return f"python {platform.python_version()}, {packages}, hf_mobility {__version__}"
