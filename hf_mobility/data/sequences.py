"""Canonical visits to the sequences and windows that a model is trained on.

The tokenizer is an argument: any object with `encode_visits`. Visits stay flat arrays with offsets, and windows are
(start, stop) pairs into them, so new random cuts cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..tokenization.clock import DAY_SECONDS

if TYPE_CHECKING:
    import datasets

SCORES_PER_BATCH = 2**25  # of all places after all visits of a batch, 128 MiB
FIELDS = ("input_ids", "time_ids", "weekday_ids", "stay_ids", "timestamps")


@dataclass(frozen=True)
class CitySequences:
    """All people of one city. `fields`: int64 arrays (n,) of `FIELDS`; person u owns rows `offsets[u]:offsets[u +
    1]`; `users` (U,)."""

    fields: dict[str, np.ndarray]
    offsets: np.ndarray
    users: np.ndarray

    @classmethod
    def from_visits(cls, visits: pd.DataFrame, tokenizer: Any, *, unknown: str = "error") -> CitySequences:
        """Encode canonical visits with the city's tokenizer; `unknown` as in `SamoeTokenizer.encode_visits`."""
        encoded = tokenizer.encode_visits(visits, unknown=unknown)
        return cls({name: encoded[name] for name in FIELDS}, encoded["offsets"], encoded["users"])

    def __len__(self) -> int:
        return len(self.fields["input_ids"])

    def subset(self, people: np.ndarray) -> CitySequences:
        """Only these people (row numbers of `users`, in the order given)."""
        rows = np.concatenate([np.arange(self.offsets[u], self.offsets[u + 1]) for u in people])
        lengths = (self.offsets[1:] - self.offsets[:-1])[people]
        return CitySequences(
            {name: value[rows] for name, value in self.fields.items()},
            np.concatenate([[0], np.cumsum(lengths)]),
            self.users[people],
        )

    def windows(self, length: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """Windows of `length` inputs and their targets of every user, (W, 2) int64 of start and stop.

        Neighbouring windows share one visit (the last target of one is the first input of the next), so each visit but
        a user's first is a target exactly once. With `rng` the first cut is at a random place, else at `length`. Users
        with one visit give no window.
        """
        first = np.full(len(self.users), length) if rng is None else rng.integers(1, length + 1, len(self.users))
        pieces = []
        for start, stop, cut in zip(self.offsets[:-1], self.offsets[1:], first):
            starts = np.concatenate([[start], np.arange(start + cut, stop - 1, length)])
            stops = np.minimum(np.concatenate([starts[1:] + 1, [stop]]), starts + length + 1)
            pieces.append(np.stack([starts, stops], axis=1)[stops - starts > 1])
        return np.concatenate(pieces)


def visits_to_dataset(visits: pd.DataFrame, tokenizer: Any, *, max_length: int = 128) -> datasets.Dataset:
    """Windows of at most `max_length` + 1 visits as a `datasets.Dataset` with the columns of `FIELDS` and `labels`:
    for a plain `Trainer` with `data_collator=VisitCollator(tokenizer)`.

    One city per dataset. `labels` equal `input_ids` with -100 at the first visit, which has no past to be predicted
    from.
    """
    from datasets import Dataset

    sequences = CitySequences.from_visits(visits, tokenizer)
    windows = sequences.windows(max_length)
    columns = {name: [value[start:stop] for start, stop in windows] for name, value in sequences.fields.items()}
    columns["labels"] = [np.concatenate([[-100], ids[1:]]) for ids in columns["input_ids"]]
    return Dataset.from_dict(columns)


def day_windows(sequences: CitySequences, *, days: int = 3, min_visits: int = 5, max_visits: int = 144) -> np.ndarray:
    """The paper's windows: every `days` local days of a person, stride one day; (W, 2) start and stop.

    Windows with fewer than `min_visits` are left out, of longer ones the last `max_visits` are kept (144 half hours).
    """
    pieces = []
    for start, stop in zip(sequences.offsets[:-1], sequences.offsets[1:]):
        day = sequences.fields["timestamps"][start:stop] // DAY_SECONDS
        first_days = np.unique(day)
        begins = np.searchsorted(day, first_days)
        ends = np.searchsorted(day, first_days + days)
        begins = np.maximum(begins, ends - max_visits)
        pieces.append(np.stack([begins, ends], axis=1)[ends - begins >= min_visits] + start)
    return np.concatenate(pieces)


def pad_visits(
    sequences: Sequence[Mapping[str, np.ndarray]], *, fields: Iterable[str] = FIELDS, left: bool = False
) -> dict[str, np.ndarray]:
    """Int64 arrays (B, T) of every one of `fields`, padded on the right (or left), and `attention_mask`."""
    lengths = np.asarray([len(sequence["input_ids"]) for sequence in sequences])
    mask = np.arange(lengths.max()) < lengths[:, None]
    mask = mask[:, ::-1] if left else mask
    batch = {"attention_mask": mask.astype(np.int64)}
    for name in fields:
        batch[name] = np.zeros(mask.shape, np.int64)
        batch[name][mask] = np.concatenate([sequence[name] for sequence in sequences])
    return batch


def bounded_runs(*costs: tuple[np.ndarray, int], size: int | None = None) -> Iterator[slice]:
    """Rows in order of their costs -> slices of rows that are one batch each, of one row at least.

    Args:
        costs: pairs of what each row costs (n,), growing, and a bound on the number of rows of a batch times the cost
            of its last one: padded to it, all cost as much.
        size: rows of a batch, at most.
    """
    columns, start = [(cost.tolist(), bound) for cost, bound in costs], 0
    number = len(columns[0][0])
    for stop in range(1, number + 1):
        rows = stop + 1 - start
        is_open = stop < number and (size is None or rows <= size)
        if not (is_open and all(rows * cost[stop] <= bound for cost, bound in columns)):
            yield slice(start, stop)
            start = stop


WindowRule = Callable[[CitySequences, np.random.Generator], np.ndarray]
