"""`benchmark`: a model and the baselines on one protocol, each result saved as it is made and not made again."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..checkpoints.evaluate import kind_of
from ..data.training_record import TrainingRecord
from ..tokenization.errors import DataError
from ..version import __version__
from .bench import Bench
from .completion import CompletionBench
from .datasets import data_folder, joint_hash
from .flows import FlowBench
from .next_location import NextLocationBench
from .predictors import Candidate, resolve, source_hash
from .protocol import Protocol
from .regions import RegionBench
from .results import Result, load_results, path_of, to_csv
from .scores import over_draws, rounded
from .seen import Seen, baseline_seen, seen_by_files, seen_by_record, seen_by_sources, unknown
from .trajectories import TrajectoryBench
from .weeks import WeekBench

BENCHES: dict[str, type[Bench]] = {
    "next_location": NextLocationBench,
    "weeks": WeekBench,
    "trajectories": TrajectoryBench,
    "completion": CompletionBench,
    "regions": RegionBench,
    "flows": FlowBench,
}
MODEL_TYPES = {
    "next_location": "mobility_samoe",
    "weeks": "mobility_mstar",
    "trajectories": "mobility_raw",
    "completion": "mobility_mstar",
    "regions": "mobility_raw",
    "flows": "mobility_flows",
}
CODE = ("hf_mobility", "modeling", "tokenization")  # of a checkout: a change there marks its commit


def benchmark(
    protocol: str | Path | Protocol,
    model: Any = None,
    *,
    data: str | Path | None = None,
    output: str | Path | None = None,
    again: bool = False,
    command: str = "",
    progress: Callable[[str], None] | None = None,
) -> list[Result]:
    """Rank a model beside the baselines of a protocol.

    Args:
        protocol: a name (`protocol_names()`), the path of a `.json` file, or a `Protocol`.
        model: a folder or Hub id, an entry point `file.py:Class` or `module:Class`, or an object or class with the
            task's method (see `predictors`); None for the baselines alone.
        data: folder of the files; by default HF_MOBILITY_DATA.
        output: folder of results. What lies there for the same protocol, data and model is not made again.
        again: make it again all the same.
        command: stands first in each result; by default the call.
        progress: is told what is done.

    Returns:
        The results of the protocol: baselines first, then all models in `output`, this one last.

    Raises:
        DataError: files other than the protocol's, or a model that does not answer as its task asks.
        FileNotFoundError: a file that is not there.
        ValueError: a name of a baseline, or an unknown protocol.

    Example:
        >>> results = benchmark("simulated-city", "checkpoints/samoe-small")  # doctest: +SKIP
    """
    known = protocol if isinstance(protocol, Protocol) else Protocol.load(protocol)
    candidate = None if model is None else resolve(model)
    if candidate is not None and candidate.name in known.baselines:
        raise ValueError(f"{candidate.name!r} is the name of a baseline of {known.name}; give the model another one.")
    if candidate is not None and candidate.kind == "checkpoint":
        _check_kind(candidate, known)
    bench = BENCHES[known.task](known, data_folder(data))
    run = _Run(bench, command or _call(known, candidate), progress or (lambda text: None))
    if output is not None:
        return run.all(candidate, Path(output), again=again)
    with TemporaryDirectory() as scratch:
        return run.all(candidate, Path(scratch), again=False)


class _Run:
    """One call: outcomes of the reference are kept for the paired differences."""

    def __init__(self, bench: Bench, command: str, tell: Callable[[str], None]) -> None:
        self.bench, self.protocol, self.command, self.tell = bench, bench.protocol, command, tell
        self.files = bench.hashes["test"] | bench.hashes["train"]

    def all(self, candidate: Candidate | None, output: Path, *, again: bool) -> list[Result]:
        makers = self.bench.baselines()
        absent = [name for name in self.protocol.baselines if name not in makers]
        if absent:
            raise DataError(
                f"{self.protocol.name}: there is no baseline {', '.join(absent)}; there are {', '.join(makers)}."
            )
        for name in self.protocol.baselines:
            made = makers[name]()
            self._one(Candidate(name, "baseline", source_hash(made), made), output, again=again)
        if candidate is not None:
            self._one(candidate, output, again=again)
        results = load_results(output, self.protocol)
        to_csv(results, output / f"{self.protocol.name}.csv", command=self.command)
        return results if candidate is None else sorted(results, key=lambda one: one.model == candidate.name)

    def _one(self, candidate: Candidate, output: Path, *, again: bool) -> None:
        path = path_of(output, self.protocol.name, candidate.name)
        if not again and self._is_there(path, candidate):
            self.tell(f"{candidate.name}: as saved")
            return
        start = time.perf_counter()
        result = self._measured(candidate)
        seconds = time.perf_counter() - start
        Result(**{**vars(result), "seconds": round(seconds, 1)}).save(output)
        self.tell(f"{candidate.name}: {seconds:.0f} s")

    def _is_there(self, path: Path, candidate: Candidate) -> bool:
        if not path.is_file():
            return False
        saved = Result.load(path)
        hashes = (saved.protocol_hash, saved.data_hash, saved.model_hash)
        return hashes == (self.protocol.hash, joint_hash(self.files), candidate.hash)

    def _measured(self, candidate: Candidate) -> Result:
        predictor = self._made(candidate)
        outcomes = self._reference if candidate.name == self.protocol.reference else self._outcomes(predictor)
        if candidate.kind == "entry point":
            self.bench.check(predictor, self.bench.cases[-1])  # for which it is fitted now
        pairs = list(zip(self.bench.cases, outcomes))
        scores = over_draws(score for case, outcome in pairs for score in self.bench.scores(case, outcome))
        differs = [] if candidate.name == self.protocol.reference else self._differences(outcomes)
        return Result(
            command=self.command,
            protocol=self.protocol.name,
            version=self.protocol.version,
            protocol_hash=self.protocol.hash,
            data_hash=joint_hash(self.files),
            split_hash=self.bench.split_hash,
            files=self.files,
            model=candidate.name,
            kind=candidate.kind,
            source=candidate.source,
            model_hash=candidate.hash,
            package=__version__,
            commit=_commit(),
            date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            seconds=0.0,
            has_seen=vars(self._seen(candidate, predictor)),
            scores=scores,
            reference=self.protocol.reference if differs else "",
            differences=differs,
        )

    def _made(self, candidate: Candidate) -> Any:
        if candidate.kind == "checkpoint":
            return self.bench.checkpoint(candidate.folder, name=candidate.name)
        return candidate.made

    def _outcomes(self, predictor: Any) -> list[Any]:
        found = []
        for case in self.bench.cases:
            if hasattr(predictor, "fit"):
                predictor.fit(case.train)
            found.append(self.bench.outcome(predictor, case))
        return found

    @cached_property
    def _reference(self) -> list[Any]:
        return self._outcomes(self.bench.baselines()[self.protocol.reference]())

    def _differences(self, outcomes: list[Any]) -> list[dict[str, Any]]:
        """Ours minus the reference, means over the draws."""
        groups: dict[tuple[str, str], list[Any]] = {}
        for case, ours, theirs in zip(self.bench.cases, outcomes, self._reference):
            for metric, found in self.bench.differences(case, ours, theirs).items():
                groups.setdefault((case.name, metric), []).append(found)
        rows = []
        for (name, metric), some in groups.items():
            mean, low, high = (rounded(value) for value in np.mean(some, axis=0))
            rows.append({"case": name, "metric": metric, "mean": mean, "low": low, "high": high})
        return rows

    def _seen(self, candidate: Candidate, predictor: Any) -> Seen:
        if candidate.kind == "baseline":
            return baseline_seen()
        declared = getattr(predictor, "seen", None)
        record = declared if isinstance(declared, TrainingRecord) else None
        if candidate.kind == "checkpoint" and Path(candidate.folder).is_dir():
            record = TrainingRecord.load(candidate.folder)
        parts = None if record is None else self.bench.parts()
        if record is not None and parts is not None:
            return seen_by_record(record, test=parts[0], train=parts[1])
        if declared is not None and record is None:
            return seen_by_files(declared, self.bench.hashes)
        if candidate.kind != "checkpoint":
            return unknown()
        names = {role: [one.name for one in self.protocol.role(role)] for role in ("test", "train")}
        found = seen_by_sources(candidate.folder, names)
        pipe = getattr(predictor, "pipe", None)
        return found or self.bench.seen_by_tokenizer(getattr(pipe, "tokenizer", None)) or unknown()


def _check_kind(candidate: Candidate, protocol: Protocol) -> None:
    """Before the work, not after the baselines."""
    kind, wanted = kind_of(candidate.folder), MODEL_TYPES[protocol.task]
    if kind != wanted:
        raise DataError(f"{candidate.name} is a {kind}; {protocol.name} ranks a {wanted}, or an entry point.")


def _call(protocol: Protocol, candidate: Candidate | None) -> str:
    return (
        f"benchmark({protocol.name!r}, {candidate.source or candidate.name!r})"
        if candidate
        else f"benchmark({protocol.name!r})"
    )


def _commit() -> str | None:
    """Of the checkout that this code runs from, with "-changed" where its code is; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)

    found = git("rev-parse", "--short=12", "HEAD").stdout.strip()
    changed = git("diff", "--quiet", "HEAD", "--", *CODE).returncode == 1
    return f"{found}{'-changed' if changed else ''}" if found else None
