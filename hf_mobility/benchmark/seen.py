"""Whether a model has seen a protocol's data: what can be told, and from what."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.unseen import SEEN_SHARE
from ..data.training_record import TrainingRecord

SOURCES = "sources.txt"  # beside the weights: names of the sets that the model was trained on


@dataclass(frozen=True)
class Seen:
    """test, train: "yes", "no", "declared no" or "unknown". reason: one sentence."""

    test: str
    train: str
    reason: str


def seen_by_record(record: TrainingRecord, *, test: Any, train: Any) -> Seen:
    """From the hashes of a training, against the records of the test and of what may be learned."""
    shares = {name: record.share_of(part)["records"] for name, part in (("test", test), ("train", train))}
    answers = {name: _answer(share) for name, share in shares.items()}
    told = ", ".join(f"{name} {'unknown' if math.isnan(share) else f'{share:.0%}'}" for name, share in shares.items())
    return Seen(**answers, reason=f"Shares of records in the training record: {told}.")


def seen_by_files(trained_on: Collection[str], hashes: Mapping[str, Mapping[str, str]]) -> Seen:
    """From the SHA-256 sums that a model declares, against those of the protocol's files by role."""
    known = set(trained_on)
    hits = {role: sorted(name for name, one in files.items() if one in known) for role, files in hashes.items()}
    answers = {role: "yes" if hits.get(role) else "declared no" for role in ("test", "train")}
    named = [name for role in ("test", "train") for name in hits.get(role, ())]
    reason = (
        f"The model declares to be trained on {', '.join(named)}." if named else "No file that it declares is here."
    )
    return Seen(**answers, reason=reason)


def seen_by_sources(folder: str | Path, names: Mapping[str, Collection[str]]) -> Seen | None:
    """From the list of sets beside the weights; None where there is none."""
    path = Path(folder, SOURCES)
    if not path.is_file():
        return None
    trained_on = set(path.read_text(encoding="utf-8").split())
    answers = {role: "yes" if trained_on & set(names.get(role, ())) else "declared no" for role in ("test", "train")}
    return Seen(**answers, reason=f"By the names of its {len(trained_on)} training sets in {SOURCES}.")


def unknown(reason: str = "No record of the training lies beside the model, and it declares nothing.") -> Seen:
    return Seen("unknown", "unknown", reason)


def baseline_seen() -> Seen:
    """Of a baseline, which is fitted in the run itself."""
    return Seen("no", "yes", "Fitted in this run, on what the protocol allows.")


def _answer(share: float) -> str:
    if math.isnan(share):
        return "unknown"
    return "yes" if share > SEEN_SHARE else "no"
