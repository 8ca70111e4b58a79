"""A protocol is a small JSON file: data with checksums, split, draws, metrics, baselines.

The file names readers, baselines and metrics of this package, never code. Its hash covers all that changes a number, so
two results with one hash can be compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "protocols"
TEXTS = ("question", "where", "notes")  # which change no number
TASKS = ("next_location", "trajectories", "weeks", "completion", "regions", "flows")
ROLES = ("test", "train")


@dataclass(frozen=True)
class ProtocolSet:
    """One data set of a protocol.

    Fields:
        name: of the table's column. reader: a key of `datasets.READERS`.
        files: file or folder below the data folder -> SHA-256, or None where it is recorded and not checked.
        role: "test", or "train" for sets that models may learn from.
        options: of the reader. about: what the task needs to know of the set, such as `timezone`.
    """

    name: str
    reader: str
    files: dict[str, str | None] = field(default_factory=dict)
    role: str = "test"
    options: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """What a table is made of.

    Fields:
        name, version: the version rises when the evaluation changes and the file does not.
        task: one of `TASKS`.
        question: that the table answers, one sentence.
        sets: the data. split: options of the split. known: what a model may learn of the test city.
        metrics: of the table; the first one is the main one. reference: the baseline that others are compared with.
        baselines: their names, in the order of the table. draws: repetitions, each with a seed of its own.
        bootstrap: resamplings behind an interval.
        where: addresses from which users get the data. notes: what limits the comparison.

    Example:
        >>> Protocol.load("simulated-city").metrics[0]
        'mrr'
    """

    name: str
    version: int
    task: str
    question: str
    sets: tuple[ProtocolSet, ...]
    metrics: tuple[str, ...]
    baselines: tuple[str, ...]
    reference: str
    split: dict[str, Any] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)
    draws: int = 1
    bootstrap: int = 500
    where: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, name: str | Path) -> Protocol:
        """A shipped protocol by its name, or one of your own by the path of its `.json` file.

        Raises:
            ValueError: an unknown name, or a file with unknown or missing fields.
            FileNotFoundError: a path that does not exist.
        """
        path = Path(name)
        if path.suffix != ".json":
            path = FOLDER / f"{name}.json"
            if str(name) not in protocol_names():
                raise ValueError(f"There is no protocol {str(name)!r}; there are {', '.join(protocol_names())}.")
        try:
            return cls.of(json.loads(path.read_text(encoding="utf-8")))
        except (json.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path.name} is no protocol: {error}.") from error

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Protocol:
        """From the content of a file.

        Raises:
            ValueError, TypeError: unknown, missing or contradicting fields.
        """
        given = dict(content)
        given["sets"] = tuple(ProtocolSet(**one) for one in given["sets"])
        for name in ("metrics", "baselines", "where", "notes"):
            given[name] = tuple(given.get(name, ()))
        found = cls(**given)
        roles = {one.role for one in found.sets}
        faults = {
            f"task {found.task!r} is none of {', '.join(TASKS)}": found.task not in TASKS,
            f"a set has a role that is none of {', '.join(ROLES)}": not roles <= set(ROLES),
            "no set is for the test": "test" not in roles,
            f"the reference {found.reference!r} is no baseline": found.reference not in found.baselines,
            "it has no metric": not found.metrics,
            "draws must be at least 1": found.draws < 1,
        }
        for fault, there in faults.items():
            if there:
                raise ValueError(f"Protocol {found.name!r}: {fault}.")
        return found

    @property
    def hash(self) -> str:
        """SHA-256 of all fields but the texts."""
        content = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in TEXTS}
        text = json.dumps(content, sort_keys=True, default=vars)
        return hashlib.sha256(text.encode()).hexdigest()

    def role(self, role: str) -> list[ProtocolSet]:
        """The sets of one role."""
        return [one for one in self.sets if one.role == role]


def protocol_names() -> list[str]:
    """Names of the shipped protocols, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))
