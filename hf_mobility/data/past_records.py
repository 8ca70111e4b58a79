"""Everything that was recorded of a user before a series' future: also in the windows before its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..tokenization.clock import DAY_SECONDS

__all__ = ["PastRecords"]


@dataclass(frozen=True, eq=False)
class PastRecords:
    """Recorded slots before the futures of N series; slots that were filled in are left out.

    Fields:
        slot: int64 (P,), slots of the local clock since 1970, ascending within a user; the remainder by the slots of a
            day is the time of day. points: float32 (P, 2) box units.
        begin, end: int64 (N,); series i has the rows `begin[i]:end[i]` of both.
        origin: int64 (N,), the slot since 1970 of a series' first midnight.
    """

    slot: np.ndarray
    points: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    origin: np.ndarray

    @classmethod
    def of_series(cls, series: Any, rows: np.ndarray, *, known: int, slots_per_day: int) -> PastRecords:
        """What was recorded of the users of these `rows` of a `RawSeries` up to the first `known` slots of each."""
        flat = np.flatnonzero(series.observed)
        owner = np.searchsorted(series.offsets, flat, side="right") - 1
        origin = series.window_start // (DAY_SECONDS // slots_per_day)
        first_row = np.searchsorted(series.user_index, series.user_index[rows])  # windows of a user lie side by side
        return cls(
            slot=origin[owner] + flat - series.offsets[owner],
            points=series.coordinates[flat],
            begin=np.searchsorted(flat, series.offsets[first_row]),
            end=np.searchsorted(flat, series.offsets[rows] + known),
            origin=origin[rows],
        )

    @classmethod
    def of_points(cls, known: np.ndarray) -> PastRecords:
        """Series (N, T, 2) of which every point is a record, and before which nothing is known."""
        number, length = known.shape[:2]
        begin = np.arange(number) * length
        slot = np.tile(np.arange(length), number)
        return cls(slot, known.reshape(-1, 2), begin, begin + length, np.zeros(number, np.int64))

    def of(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Slots (R,) and points (R, 2) of one series."""
        own = slice(self.begin[row], self.end[row])
        return self.slot[own], self.points[own]

    def distinct(self) -> np.ndarray:
        """(any, 2): the points of all series, each record once."""
        change = np.bincount(self.begin, minlength=len(self.slot) + 1)
        change -= np.bincount(self.end, minlength=len(self.slot) + 1)
        return self.points[np.cumsum(change[:-1]) > 0]

    def take(self, rows: np.ndarray) -> PastRecords:
        return replace(self, begin=self.begin[rows], end=self.end[rows], origin=self.origin[rows])
