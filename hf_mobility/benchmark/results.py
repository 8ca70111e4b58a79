"""One schema for every result: JSON per model, a CSV of all rows, entries for cards and for the Hub.

Nothing in a result is about a single user: counts, means and intervals only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..tokenization.whole_files import whole_file
from .protocol import Protocol
from .scores import NUMBERS, Score, as_rows, from_rows

SCHEMA = "hf_mobility.benchmark.result/1"
TASK_TYPES = {
    "next_location": "next-location-prediction",
    "weeks": "trajectory-generation",
    "trajectories": "trajectory-prediction",
    "completion": "trajectory-completion",
    "regions": "region-representation",
    "flows": "commuting-flow-prediction",
}
DIFFERENCE = ["case", "metric", "mean", "low", "high"]


@dataclass(frozen=True)
class Result:
    """One model on one protocol.

    Fields:
        command: that made it. protocol, version, protocol_hash: what was measured.
        data_hash: of the files. split_hash: of what is the test. files: name -> SHA-256.
        model, kind, source, model_hash: who; kind is "baseline", "checkpoint" or "entry point".
        package, commit: of this package. date: UTC. seconds: of the run, training included.
        has_seen: `test`, `train` and `reason`, see `seen`.
        scores: rows of `Score`. reference: the baseline of `differences`, whose rows are ours minus the reference.
    """

    command: str
    protocol: str
    version: int
    protocol_hash: str
    data_hash: str
    split_hash: str
    files: dict[str, str]
    model: str
    kind: str
    source: str
    model_hash: str
    package: str
    commit: str | None
    date: str
    seconds: float
    has_seen: dict[str, str]
    scores: list[Score]
    reference: str = ""
    differences: list[dict[str, Any]] = field(default_factory=list)

    def save(self, folder: str | Path) -> Path:
        """Write `<folder>/<protocol>/<model>.json`, and return the path."""
        path = path_of(folder, self.protocol, self.model)
        path.parent.mkdir(parents=True, exist_ok=True)
        head = {name: value for name, value in vars(self).items() if name not in ("command", "scores", "differences")}
        lines = {"command": self.command, "schema": SCHEMA, **head}
        text = json.dumps(lines, indent=1, ensure_ascii=False).removesuffix("\n}")
        for name, rows in (("scores", as_rows(self.scores)), ("differences", self.differences)):
            text += f',\n "{name}": [' + ",".join(f"\n  {json.dumps(row)}" for row in rows) + ("\n ]" if rows else "]")
        with whole_file(path) as file:
            file.write_text(f"{text}\n}}\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read what `save` wrote.

        Raises:
            ValueError: another file.
        """
        try:
            saved = json.loads(Path(path).read_text(encoding="utf-8"))
            if saved.pop("schema") != SCHEMA:
                raise ValueError(f"its schema is not {SCHEMA}")
            saved["scores"] = from_rows(saved["scores"])
            return cls(**saved)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no result of a benchmark: {error}.") from error

    def score(self, case: str, metric: str, subset: str = "all") -> Score | None:
        """The row of a case, subset and metric; None where there is none."""
        wanted = (case, subset, metric)
        return next((one for one in self.scores if (one.case, one.subset, one.metric) == wanted), None)


def path_of(folder: str | Path, protocol: str, model: str) -> Path:
    """Where the result of a model is saved; a name gives one file name."""
    return Path(folder) / protocol / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', model).strip('._') or 'model'}.json"


def load_results(folder: str | Path, protocol: Protocol) -> list[Result]:
    """The saved results of a protocol as it is now, baselines first in its order, then by name; of other data than the
    first one's, none."""
    found = [Result.load(path) for path in sorted(Path(folder, protocol.name).glob("*.json"))]
    found = [one for one in found if one.protocol_hash == protocol.hash]
    order = {name: number for number, name in enumerate(protocol.baselines)}
    found.sort(key=lambda one: (one.kind != "baseline", order.get(one.model, len(order)), one.model))
    return [one for one in found if one.data_hash == found[0].data_hash]


def to_frame(results: Sequence[Result]) -> pd.DataFrame:
    """One row per model, case, subset and metric: protocol, version, hashes, model, kind, has_seen, package, commit,
    date, then the fields of `Score`."""
    rows = []
    for one in results:
        head: dict[str, Any] = {
            name: getattr(one, name)
            for name in (
                "protocol",
                "version",
                "protocol_hash",
                "data_hash",
                "split_hash",
                "model",
                "kind",
                "model_hash",
            )
        }
        head |= {"seen_test": one.has_seen["test"], "seen_train": one.has_seen["train"]}
        head |= {"package": one.package, "commit": one.commit, "date": one.date}
        rows += [head | asdict(score) for score in one.scores]
    frame = pd.DataFrame(rows)
    numbers = [*NUMBERS, "spread"]
    if not rows:
        return frame
    return frame.astype(dict.fromkeys(numbers, "float64")).assign(users=pd.to_numeric(frame["users"]))


def to_csv(results: Sequence[Result], path: str | Path, *, command: str) -> None:
    """Write `to_frame` below a comment line with the command."""
    text = to_frame(results).to_csv(index=False, lineterminator="\n")
    with whole_file(path) as file:
        file.write_text(f"# {command}\n{text}", encoding="utf-8")


def to_model_index(results: Sequence[Result], protocol: Protocol, *, model: str) -> list[Any]:
    """`EvalResult`s of the main metric of each case, for `ModelCardData(eval_results=...)`: of the model alone.
    The baselines belong into the text of the card.

    Raises:
        ValueError: no result of the model.

    Example:
        >>> to_model_index(results, protocol, model="my-model")  # doctest: +SKIP
    """
    from huggingface_hub import EvalResult

    if model not in [one.model for one in results]:
        raise ValueError(f"There is no result of {model!r}; there are {', '.join(one.model for one in results)}.")
    metric = protocol.metrics[0]
    return [
        EvalResult(
            task_type=TASK_TYPES[protocol.task],
            dataset_type=f"{protocol.name}-{score.case}",
            dataset_name=f"{protocol.name}, version {protocol.version}: {score.case}",
            metric_type=metric,
            metric_name=f"{_at(score)}: {model}",
            metric_value=score.value,
        )
        for one in results
        if one.model == model
        for score in _of_metric(one, metric)
    ]


def to_eval_results(result: Result, protocol: Protocol, *, dataset_id: str, source_url: str | None = None) -> str:
    """YAML for `.eval_results/<name>.yaml` of a model's repository, the Hub's form of results.

    Args:
        result: of the model.
        protocol: whose main metric is written, one entry a case.
        dataset_id: repository of the benchmark's data set on the Hub, which must be registered there as a benchmark.
        source_url: where the result can be read in full.

    Example:
        >>> text = to_eval_results(result, protocol, dataset_id="me/mobility")  # doctest: +SKIP
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    notes = (
        f"hf_mobility {result.package}, protocol version {result.version}, test data seen: {result.has_seen['test']}"
    )
    entries = [
        EvalResultEntry(
            dataset_id=dataset_id,
            task_id=re.sub(r"[^a-z0-9_-]+", "-", f"{protocol.name}_{score.case}_{_at(score)}".lower()),
            value=score.value,
            date=result.date,
            source_url=source_url,
            notes=notes,
        )
        for score in _of_metric(result, protocol.metrics[0])
    ]
    return str(yaml_dump(eval_result_entries_to_yaml(entries)))


def _of_metric(result: Result, metric: str) -> list[Score]:
    """The rows of all targets that have a value."""
    found = [one for one in result.scores if one.metric == metric and one.value is not None]
    return [one for one in found if one.subset == "all" or one.subset.startswith("all, ")]


def _at(score: Score) -> str:
    """The metric, and where it was taken: "error_km, 15 minutes"."""
    _, comma, where = score.subset.partition(", ")
    return f"{score.metric}{comma}{where}"
