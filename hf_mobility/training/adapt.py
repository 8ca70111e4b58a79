"""Adaptation to a new city: a LoRA adapter on a few percent of its visits, by a strength that the visits themselves
choose.

The default first asks whether adapting helps at all. The users are split into halves; each strength is tuned on one
half and scored on the other, both ways, and must gain more than two standard errors over users. On check-ins the answer
is usually "nothing"; on data of a kind that no training had "strong" pays (docs/results/adaptation.md). When nothing
helps, the adapter is the identity and the report says so.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from peft import LoraConfig

from ..data.parts import training_part
from ..data.sequences import FIELDS, CitySequences
from ..hub.device import check_device
from ..hub.loading import adapter_base, load_model, saved_config
from ..modeling.configuration_mstar import MstarConfig
from ..modeling.configuration_raw import RawConfig
from ..modeling.modeling_raw_extended import RawExtendedForTrajectoryPrediction
from ..modeling.modeling_samoe import SamoeForNextLocation
from ..pipelines.slot_generation import SlotGenerationPipeline
from ..tokenization.city import City
from ..tokenization.poi import popularity_levels
from ..tokenization.tokenization_samoe import CONTEXT, SamoeTokenizer
from .adapt_records import adapt_records
from .adapt_weeks import adapt_weeks
from .adaptation import NO_REPORT, Adaptation, compare, gain_of, shrink, visits_and_city, with_lora
from .corpus import NUM_SPECIAL, CityBatchSampler, CityCollator, CityCorpus, TrainingCity
from .fit import callers_random_state, fit, nothing, on_device, on_stderr
from .presets import training_arguments
from .result import earlier_record

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
EVERYWHERE = (
    *ATTENTION,
    *("up_proj", "down_proj", "query_proj", "state_proj", "visit_proj", "pair_weights", "head_weights", "gate"),
    *("distance", "same_place", "activity", "deep_up", "deep_down", "out_proj", "poi", "geo"),
)
TEMPERATURES = np.geomspace(0.5, 2.0, 15)  # tried on held-out users, in steps of 10 %
ENOUGH_VISITS = 2_000  # of each half, to fit a temperature
TOKENS = 512  # of a batch, see `adapt`
MIN_USERS_FOR_FOLDS, MAX_USERS_FOR_FOLDS = 4, 400
CHECK_STEPS = 250  # of one tuning of the check
_OF_OTHERS: dict[type, Callable[..., Adaptation]] = {
    SlotGenerationPipeline: adapt_weeks,
    RawExtendedForTrajectoryPrediction: adapt_records,
}


@dataclass(frozen=True)
class Strength:
    """How hard to tune.

    target_modules: linear layers that carry LoRA. epochs: passes over the visits, but at most `max_steps` batches, and
    250 in the check of `auto`.
    learning_rate: highest. rank: of LoRA. dropout: on the adapter's input. shrink: the part of the way from the base to
    the tuned weights that is kept (Wortsman et al., arXiv 2109.01903). Dropout and shrinking lose what was learned of a
    few users only.
    """

    target_modules: tuple[str, ...]
    epochs: float
    learning_rate: float = 3e-3
    rank: int = 8
    max_steps: int = 1500
    dropout: float = 0.0
    shrink: float = 1.0

    def lora_config(self) -> LoraConfig:
        return LoraConfig(
            r=self.rank,
            lora_alpha=2 * self.rank,
            lora_dropout=self.dropout,
            target_modules=list(self.target_modules),
            task_type="CAUSAL_LM",
        )


STRENGTHS: dict[str, Strength | None] = {
    "none": None,
    "weak": Strength(ATTENTION, epochs=1),
    "strong": Strength(EVERYWHERE, epochs=10, learning_rate=1e-3, dropout=0.2, shrink=0.75),
}


def adapt(
    model: SamoeForNextLocation | SlotGenerationPipeline | RawExtendedForTrajectoryPrediction | str | Path,
    data: Any,
    *old_order: Any,
    city: City | None = None,
    timezone: str | None = None,
    strength: str | Strength = "auto",
    test_fraction: float = 0.0,
    tokens_per_batch: int = TOKENS,
    window: int = CONTEXT,
    seed: int = 0,
    unknown: str = "error",
    device: Any = None,
    progress: bool = False,
    **columns: str,
) -> Adaptation:
    """Fit a LoRA adapter of SAMoE, of M-STAR's weeks of slots or of RAW's variant `extended`, for a city; the base
    model is left untouched.

    For SAMoE the check on held-out users also fits the temperature of the city's tokenizer, which pipelines use. For
    weeks the distribution of traits in the tokenizer is matched to that of the users, from five users on.

    Args:
        model: a `SamoeForNextLocation` (not a PEFT model around one) or where to load one from. For weeks, a
            `SlotGenerationPipeline` or its folder; for positions, a `RawExtendedForTrajectoryPrediction` or its folder.
        data: visits with `location_id`, as a frame, dataset, Arrow table or path (see `validate_visits`);
            for positions, points are enough.
        city: a `City`, whose popularity should come from training data only; by default the places that occur in
            `data`.
        timezone: IANA name: of a new city, and of naive times.
        strength: `auto` (the two-fold user check), `none`, `weak` or `strong`. Of SAMoE: attention, one epoch, or every
            linear layer, ten epochs; or a `Strength` of your own, which the report calls `custom`. Of weeks 40 or 120
            steps, of positions 60 or 240.
        test_fraction: of each user's visits (of the users, for weeks and positions), left out for
            `evaluate_checkpoint` with the same fraction; the city's popularity then counts the others only.
        tokens_per_batch: bound on a batch of training, padding included.
        window: longest context in training, in visits; at most what the model has positions for.
        seed: of the folds, the adapter's initialisation and the order of batches; the caller's generators are left as
            they were.
        unknown: `error`, `nearest` or `drop`: what to do with places the city does not list.
        device: `cpu` or `cuda`; by default where the model is.
        progress: say on stderr which strength is tried, and which one was chosen before the last tuning begins.
        columns: other names of the columns, as in `user_id="uid"`.

    Raises:
        ValueError: for an unknown strength, a device that is not there, an adapter in place of a model, or visits in
            which nobody has two (unless the strength is `none`).
        TypeError: for another kind of model.

    Example:
        >>> local = adapt("checkpoints/samoe-small", visits, timezone="Europe/Berlin")  # doctest: +SKIP
        >>> local.save_pretrained("my-city")  # doctest: +SKIP
    """
    if old_order:
        warnings.warn(
            "adapt(model, city, visits) becomes adapt(model, visits, city=city).", FutureWarning, stacklevel=2
        )
        city, (data,) = data, old_order
    if isinstance(strength, str) and strength != "auto" and strength not in STRENGTHS:
        raise ValueError(f"strength must be 'auto' or one of {sorted(STRENGTHS)}, got {strength!r}.")
    if not isinstance(model, (*_OF_OTHERS, SamoeForNextLocation, str, Path)):
        raise TypeError(
            "model must be a SamoeForNextLocation, a SlotGenerationPipeline, a RawExtendedForTrajectoryPrediction or "
            f"where to load one from, got {type(model).__name__}."
        )
    check_device(device)
    other = _other_system(model)
    if other is not None:
        if window != CONTEXT or tokens_per_batch != TOKENS or unknown != "error" or isinstance(strength, Strength):
            raise ValueError("window, tokens_per_batch, unknown and a Strength are for SAMoE only.")
        given: dict[str, Any] = {"test_fraction": test_fraction, "seed": seed, "device": device, "progress": progress}
        given |= columns
        return other(model, data, city=city, timezone=timezone, strength=strength, **given)
    start = time.perf_counter()
    base = _load_base(model)
    visits, city = visits_and_city(data, city, timezone, columns)
    if test_fraction:
        visits = training_part("samoe", visits, test_fraction=test_fraction, seed=0)
        city = city.with_popularity(visits)
    tokenizer = SamoeTokenizer.from_city(city, base.config)
    sequences = CitySequences.from_visits(visits, tokenizer, unknown=unknown)
    window = min(window, (base.config.max_position_embeddings or window + 1) - 1)
    settings = {"tokens_per_batch": tokens_per_batch, "window": window, "seed": seed, "device": device}
    tell = on_stderr if progress else nothing
    with callers_random_state():
        report, chosen, reason, temperature = _choose(base, tokenizer, sequences, strength, settings, tell)
        tell(f"strength: {chosen}; {reason}")
        tokenizer = SamoeTokenizer.from_city(city, base.config, temperature=temperature)
        recipe = strength if isinstance(strength, Strength) else STRENGTHS[chosen]
        adapted, history = _tune(base, TrainingCity.build(sequences, tokenizer), recipe, settings)
    return Adaptation.of(
        *(adapted, tokenizer, history),
        choice=(report, chosen, reason),
        visits=visits,
        learned=f"{len(visits):,} visits of {visits['user_id'].nunique():,} users",
        earlier=earlier_record(base),
        split={"system": "samoe", "test_fraction": test_fraction, "seed": seed},
        start=start,
    )


def _other_system(model: Any) -> Callable[..., Adaptation] | None:
    """What adapts a model that is no SAMoE; no weight is read."""
    for kind, adapts in _OF_OTHERS.items():
        if isinstance(model, kind):
            return adapts
    if isinstance(model, SamoeForNextLocation) or adapter_base(model) is not None:
        return None
    config = saved_config(model)
    if config.model_type == MstarConfig.model_type and config.num_poi_features:
        return adapt_weeks
    return adapt_records if config.model_type == RawConfig.model_type and config.variant == "extended" else None


def _load_base(model: Any) -> SamoeForNextLocation:
    if not isinstance(model, SamoeForNextLocation):
        base = adapter_base(model)
        if base is not None:
            raise ValueError(
                f"{model} is an adapter: adapt from its base model {base!r}, or merge it first (PeftModel's "
                "`merge_and_unload`), save the result and adapt from that."
            )
        return load_model(SamoeForNextLocation, model, reader="adapt", kwargs={})
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError("the model carries an adapter already: adapt from its base, or merge and save it first.")
    return model


def _choose(
    base: SamoeForNextLocation,
    tokenizer: SamoeTokenizer,
    sequences: CitySequences,
    strength: str | Strength,
    settings: dict[str, Any],
    tell: Callable[[str], None],
) -> tuple[pd.DataFrame, str, str, float]:
    """The report, the strength and why, and the temperature."""
    if isinstance(strength, Strength):
        return NO_REPORT.copy(), "custom", f"{strength} was asked for.", 1.0
    if strength != "auto":
        return NO_REPORT.copy(), strength, f"strength {strength!r} was asked for.", 1.0
    users = np.flatnonzero(np.diff(sequences.offsets) > 1)  # one visit alone is nothing to learn from, or to score
    if len(users) < MIN_USERS_FOR_FOLDS:
        return (
            NO_REPORT.copy(),
            "weak",
            f"{len(users)} users with two visits are too few for a two-fold check (it needs {MIN_USERS_FOR_FOLDS}), "
            "so 'weak' was used.",
            1.0,
        )
    order = np.random.default_rng(settings["seed"]).permutation(len(users))[:MAX_USERS_FOR_FOLDS]
    halves = np.array_split(users[order], 2)
    scores: dict[str, list[np.ndarray]] = {name: [] for name in STRENGTHS}
    tempered: dict[str, list[np.ndarray]] = {name: [] for name in STRENGTHS}
    for half, (tuned_on, scored_on) in enumerate((halves, halves[::-1]), 1):
        training = _with_own_popularity(TrainingCity.build(sequences.subset(tuned_on), tokenizer))
        held_out = replace(training, sequences=sequences.subset(scored_on))
        for name, candidate in STRENGTHS.items():
            tell(f"trying strength {name!r} on half {half} of the users")
            short = candidate and replace(candidate, max_steps=min(candidate.max_steps, CHECK_STEPS))
            tuned, _ = _tune(base, training, short, settings)
            scores[name].append(nll_by_person(tuned, held_out, window=settings["window"]))
            tempered[name].append(nll_by_temperature(tuned, held_out, window=settings["window"]))
    report = compare(scores)
    chosen = str(report["strength"][report["chosen"]].item())
    best = report.set_index("strength").loc[chosen]
    temperature = _best_temperature(tempered[chosen])
    if chosen == "none":
        return (
            report,
            chosen,
            "no strength predicted held-out users better than the base model by more than two standard errors over "
            "users, so the adapter is the identity.",
            temperature,
        )
    return (
        report,
        chosen,
        f"{chosen!r} predicted held-out users best, by {best['gain']:.3f} nats per visit over no adaptation "
        f"(standard error over users {best['gain_se']:.3f}).",
        temperature,
    )


def _with_own_popularity(city: TrainingCity) -> TrainingCity:
    """Popularity from this half's users alone: the other half must stay unseen."""
    features = city.location_features.clone()
    levels = popularity_levels(np.asarray(city.visit_counts.sum(0)).ravel())
    features[NUM_SPECIAL:, city.num_poi + 2] = torch.from_numpy(levels).float()
    return replace(city, location_features=features)


def _tune(
    base: SamoeForNextLocation, city: TrainingCity, strength: Strength | None, settings: dict[str, Any]
) -> tuple[Any, pd.DataFrame]:
    """A PEFT model around a copy of `base`, tuned on one city, and its history; the identity adapter for `None`."""
    torch.manual_seed(settings["seed"])
    adapted = with_lora(base, (strength or Strength(ATTENTION, epochs=0)).lora_config())
    if strength is None:
        return adapted, pd.DataFrame()
    corpus, batching = CityCorpus([city]), {key: settings[key] for key in ("tokens_per_batch", "window")}
    steps_per_epoch = len(CityBatchSampler(corpus, seed=settings["seed"], **batching))
    epochs = min(strength.epochs, strength.max_steps / steps_per_epoch)
    where = {"use_cpu": base.device.type == "cpu"} if settings["device"] is None else on_device(settings["device"])
    with tempfile.TemporaryDirectory() as scratch:
        arguments = training_arguments(
            scratch,
            preset="adapt",
            num_train_epochs=epochs,
            # A warm-up as long as the training would leave the model as it was.
            warmup_steps=min(5, int(epochs * steps_per_epoch) // 10),
            learning_rate=strength.learning_rate,
            seed=settings["seed"],
            logging_first_step=True,
            **where,
        )
        adapted, history = fit(adapted, arguments, corpus, max_candidates=1500, **batching)
    shrink(adapted, strength.shrink)
    return adapted, history


def nll_by_person(model: Any, city: TrainingCity, *, window: int = CONTEXT) -> np.ndarray:
    """(users, 2) float64: the summed negative log-likelihood (nats) of a user's visits that have a past, over all
    places of the city, and their number."""
    found = np.zeros((len(city.sequences.users), 2))
    for logits, target, start in _scored(model, city, window):
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
        user = np.searchsorted(city.sequences.offsets, start, side="right") - 1
        for column, values in enumerate((loss.double().sum(1), (target != -100).sum(1))):
            found[:, column] += np.bincount(user, weights=values.cpu().numpy(), minlength=len(found))
    return found


def nll_by_temperature(model: Any, city: TrainingCity, *, window: int = CONTEXT) -> np.ndarray:
    """(users, temperatures + 1) float64: the summed negative log-likelihood (nats) of a user's visits that have a past,
    with the scores divided by each of `TEMPERATURES`, and their number. The first `ENOUGH_VISITS` suffice."""
    found, users = np.zeros((len(city.sequences.users), len(TEMPERATURES) + 1)), len(city.sequences.users)
    for logits, target, start in _scored(model, city, window):
        if found[:, -1].sum() >= ENOUGH_VISITS:
            break
        counted = target != -100
        scores, place = logits[counted][:, NUM_SPECIAL:].float(), target[counted] - NUM_SPECIAL
        row = np.searchsorted(city.sequences.offsets, start, side="right") - 1
        user = np.repeat(row, counted.sum(1).cpu().numpy())
        for column, temperature in enumerate(TEMPERATURES):
            losses = F.cross_entropy(scores / temperature, place, reduction="none").double().cpu().numpy()
            found[:, column] += np.bincount(user, losses, users)
        found[:, -1] += np.bincount(user, minlength=users)
    return found


def _best_temperature(halves: list[np.ndarray]) -> float:
    """The largest gain over a temperature of 1 less its standard error over users; 1 where none is above zero."""
    found = np.concatenate(halves)
    visits, reference = found[:, -1], found[:, int(np.abs(np.log(TEMPERATURES)).argmin())]
    clear = [np.subtract(*gain_of(reference - found[:, column], visits)) for column in range(len(TEMPERATURES))]
    return float(TEMPERATURES[int(np.argmax(clear))]) if max(clear) > 0 else 1.0


@torch.no_grad()
def _scored(model: Any, city: TrainingCity, window: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[int]]]:
    """By batches: scores (B, T, N + 2), the places that followed (B, T), -100 = none, and where each row begins."""
    corpus = CityCorpus([city])
    sampler = CityBatchSampler(corpus, tokens_per_batch=4096, window=window, shuffle=False)
    collator = CityCollator(corpus)
    model.eval()
    table = model.encode_locations(city.location_features.to(model.device))
    for keys in sampler:
        batch = collator([corpus[key] for key in keys])
        inputs = {name: batch[name].to(model.device) for name in (*FIELDS, "attention_mask")}
        target = batch["labels"][:, 1:].to(model.device)
        logits = model(**inputs, location_table=table).logits[:, :-1]
        yield logits, target, [key.start for key in keys]
