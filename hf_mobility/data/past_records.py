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
        points: float32 (S, 2) box units, the slots of all windows one after the other. recorded: int64 (P,), which of
            them hold a record. offsets: int64 (W + 1,) of the windows, `first_slot`: int64 (W,), the slot of the local
            clock since 1970 at their first midnight. All four are shared by the tasks of one series.
        begin, end: int64 (N,); series i has the records `recorded[begin[i]:end[i]]`.
        origin: int64 (N,), the slot since 1970 of a series' first midnight.
    """

    points: np.ndarray
    recorded: np.ndarray
    offsets: np.ndarray
    first_slot: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    origin: np.ndarray

    @classmethod
    def of_series(cls, series: Any, rows: np.ndarray, *, known: int, slots_per_day: int) -> PastRecords:
        """What was recorded of the users of these `rows` of a `RawSeries` up to the first `known` slots of each."""
        first_slot = series.window_start // (DAY_SECONDS // slots_per_day)
        first_row = np.searchsorted(series.user_index, series.user_index[rows])  # windows of a user lie side by side
        return cls(
            points=series.coordinates,
            recorded=series.recorded,
            offsets=series.offsets,
            first_slot=first_slot,
            begin=np.searchsorted(series.recorded, series.offsets[first_row]),
            end=np.searchsorted(series.recorded, series.offsets[rows] + known),
            origin=first_slot[rows],
        )

    @classmethod
    def of_points(cls, known: np.ndarray) -> PastRecords:
        """Series (N, T, 2) of which every point is a record, and before which nothing is known."""
        number, length = known.shape[:2]
        offsets, zeros = np.arange(number + 1) * length, np.zeros(number, np.int64)
        every = np.arange(number * length)
        return cls(known.reshape(-1, 2), every, offsets, zeros, offsets[:-1], offsets[1:], zeros)

    def of(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Slots since 1970 (R,), ascending, and points (R, 2) of one series."""
        flat = self.recorded[self.begin[row] : self.end[row]]
        window = np.searchsorted(self.offsets, flat, side="right") - 1
        return self.first_slot[window] + flat - self.offsets[window], self.points[flat]

    def distinct(self) -> np.ndarray:
        """(any, 2): the points of all series, each record once."""
        change = np.bincount(self.begin, minlength=len(self.recorded) + 1)
        change -= np.bincount(self.end, minlength=len(self.recorded) + 1)
        return self.points[self.recorded[np.cumsum(change[:-1]) > 0]]

    def take(self, rows: np.ndarray) -> PastRecords:
        return replace(self, begin=self.begin[rows], end=self.end[rows], origin=self.origin[rows])
