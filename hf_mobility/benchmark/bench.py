"""What the tasks have in common: a protocol with its data, cases, baselines, outcomes and scores."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .datasets import file_hashes, read_set
from .protocol import Protocol, ProtocolSet
from .scores import Score
from .seen import Seen


@dataclass(frozen=True, eq=False)
class Case:
    """One test set and draw: what may be learned, and what is to be predicted."""

    name: str
    draw: int
    train: Any
    task: Any


class FittedBaseline:
    """A baseline that is made anew from the training of each case.

    Args:
        name: in tables. made_of: its class, whose source is hashed. make: a training -> the fitted object `made`.
    """

    def __init__(self, name: str, made_of: type, make: Callable[[Any], Any]) -> None:
        self.name, self.made_of, self.make = name, made_of, make
        self.made: Any = None

    def fit(self, train: Any) -> None:
        self.made = self.make(train)


class Bench(ABC):
    """A protocol with its data. A subclass knows one task; the data are read when the first case is asked for.

    Args:
        protocol: what is measured.
        folder: that holds the files.

    Raises:
        FileNotFoundError, DataError: files that are not there, or are others than the protocol's.
    """

    def __init__(self, protocol: Protocol, folder: Path) -> None:
        self.protocol, self.folder = protocol, folder
        self.hashes = {
            role: {
                name: one
                for entry in protocol.role(role)
                for name, one in file_hashes(entry, folder, protocol.where).items()
            }
            for role in ("test", "train")
        }

    def read(self, one: ProtocolSet) -> Any:
        """The data of a set."""
        return read_set(one, self.folder)

    @property
    def test_set(self) -> ProtocolSet:
        """The one set of role "test", of tasks that have no other."""
        (one,) = self.protocol.role("test")
        return one

    @property
    @abstractmethod
    def cases(self) -> list[Case]:
        """Every test set with every draw."""

    @abstractmethod
    def baselines(self) -> dict[str, Callable[[], Any]]:
        """Name -> what makes the baseline."""

    @abstractmethod
    def checkpoint(self, folder: str, *, name: str) -> Any:
        """A checkpoint of this package as a predictor."""

    @abstractmethod
    def outcome(self, predictor: Any, case: Case) -> Any:
        """What the predictor did, as `scores` and `differences` need it."""

    def check(self, predictor: Any, case: Case) -> None:
        """Of an outside model: raise a `DataError` where it looks at what it is to predict. Nothing, where it is not
        given that."""
        return

    @abstractmethod
    def scores(self, case: Case, outcome: Any) -> list[Score]:
        """The metrics of one outcome."""

    @abstractmethod
    def differences(self, case: Case, ours: Any, theirs: Any) -> dict[str, Any]:
        """Metric -> (mean, low, high) of ours minus theirs, paired; empty where that is not defined."""

    @abstractmethod
    def parts(self) -> tuple[Any, Any] | None:
        """Records of the test, and records that may be learned, for a `TrainingRecord`; None where data are no records
        of users."""

    def seen_by_tokenizer(self, tokenizer: Any) -> Seen | None:
        """From what a checkpoint's tokenizer counted of its training; None where that tells nothing."""
        return None

    @abstractmethod
    def split_content(self, case: Case) -> Sequence[np.ndarray]:
        """Arrays that tell which records are the test."""

    @cached_property
    def split_hash(self) -> str:
        """SHA-256 of the split of all cases."""
        digest = hashlib.sha256()
        for case in self.cases:
            digest.update(f"{case.name} {case.draw}\n".encode())
            for values in self.split_content(case):
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()
