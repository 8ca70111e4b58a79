"""The task of trajectory prediction: every user's known points, and the points that follow.

Positions are in box units ([longitude, latitude], as `RawTokenizer` makes them), because models read those. The task
also holds the size of a unit in metres and in degrees, so that errors are evaluated on the Earth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..tokenization.errors import DataError
from .past_records import PastRecords

__all__ = ["TrajectoryTask"]


@dataclass(frozen=True, eq=False)
class TrajectoryTask:
    """N series that all begin at a local midnight.

    Fields:
        known: float32 (N, T, 2), slots 0..T-1. future: float32 (N, H, 2), slots T + steps - 1.
        users: (N,) whose series it is.
        start_weekday: int64 (N,), day of the week of the first midnight, 0 = Monday.
        slots_per_day: slots of a day.
        metres_per_unit: float64 (2,), for longitude and latitude, true at the middle of the box.
        degrees: box units (..., 2) -> latitude, longitude (...).
        recorded: bool (N, H), which of the future points come from a record; the others are filled in.
        ahead: int64 (H,) or None, how many slots after the last known one each future point lies; 1..H for None.
        past: what was recorded before the future, also in earlier windows of the user; None where every known point is
            a record, and nothing came before.
    """

    known: np.ndarray
    future: np.ndarray
    users: np.ndarray
    start_weekday: np.ndarray
    slots_per_day: int
    metres_per_unit: np.ndarray
    degrees: Callable[[Any], tuple[np.ndarray, np.ndarray]]
    recorded: np.ndarray
    ahead: np.ndarray | None = None
    past: PastRecords | None = None

    def __len__(self) -> int:
        return len(self.known)

    @property
    def interval_minutes(self) -> float:
        return 24 * 60 / self.slots_per_day

    @property
    def steps(self) -> np.ndarray:
        """int64 (H,): how many slots after the last known one each future point lies."""
        return np.arange(1, self.future.shape[1] + 1) if self.ahead is None else self.ahead

    @cached_property
    def records(self) -> PastRecords:
        """What was recorded of each user before the future."""
        return PastRecords.of_points(self.known) if self.past is None else self.past

    @classmethod
    def from_series(
        cls,
        series: Any,
        tokenizer: Any,
        *,
        steps: int | Sequence[int] = 10,
        end_slot: int | None = None,
        observed_only: bool = False,
        from_record: bool = False,
        least_observed: float = 0.0,
    ) -> TrajectoryTask:
        """The task of predicting the last points of windows (the paper: 10 of 959, which is 2.5 hours).

        Args:
            series: what `RawTokenizer.encode_points` returned; with windows that all start on the same weekday. Windows
                that are shorter than `end_slot` are left out.
            tokenizer: the `RawTokenizer` that made them.
            steps: how many of the last points, or which, as in (1, 4, 10) slots after the last known one.
            end_slot: T + the largest step; by default the length of the longest window.
            observed_only: keep only windows in which something was recorded in the last known slot and in all that
                follow up to the end; elsewhere the truth is itself a filled-in point.
            from_record: keep only windows in which something was recorded in the last known slot.
            least_observed: keep only windows in which something was recorded in this share of the slots.

        Raises:
            DataError: if no window is long enough or observed, or fewer than one point would be known.
        """
        ahead = np.arange(1, steps + 1) if isinstance(steps, int) else np.asarray(steps, np.int64)
        if (np.diff(ahead) < 1).any():
            raise DataError(f"steps must ascend, not {steps}.")
        lengths = np.diff(series.offsets)
        end = int(lengths.max()) if end_slot is None else end_slot
        if not len(ahead) or ahead[0] < 1 or ahead[-1] >= end:
            raise DataError(f"steps must be at least 1 and below the end of the roll-out ({end}), not {steps}.")
        known = end - int(ahead[-1])
        rows = np.flatnonzero(lengths >= end)
        slots = series.offsets[rows][:, None] + np.arange(end)
        observed = series.observed[slots]
        kept = observed.mean(axis=1) >= least_observed
        if observed_only:
            kept &= observed[:, known - 1 :].all(axis=1)
        if from_record:
            kept &= observed[:, known - 1]
        rows, slots, observed = rows[kept], slots[kept], observed[kept]
        if not len(rows):
            wanted = "is observed to the end" if observed_only else "is long enough"
            wanted += " and recorded in the last known slot" if from_record and not observed_only else ""
            wanted += f" and observed in {least_observed:.0%} of its slots" if least_observed else ""
            raise DataError(f"None of {len(lengths)} windows {wanted} (slots 0..{end - 1}); choose another end_slot.")
        points = series.coordinates[slots]
        return cls(
            known=points[:, :known],
            future=points[:, known - 1 + ahead],
            users=series.user_ids[rows],
            start_weekday=series.start_weekday[rows],
            slots_per_day=tokenizer.slots_per_day,
            metres_per_unit=tokenizer.metres_per_unit(),
            degrees=tokenizer.denormalize,
            recorded=observed[:, known - 1 + ahead],
            ahead=ahead,
            past=PastRecords.of_series(series, rows, known=known, slots_per_day=tokenizer.slots_per_day),
        )

    def take(self, rows: Any) -> TrajectoryTask:
        """The task of some of the series: a bool (N,) mask or row numbers.

        Raises:
            DataError: if none is left.
        """
        rows = np.asarray(rows)
        part = replace(
            self,
            known=self.known[rows],
            future=self.future[rows],
            users=self.users[rows],
            start_weekday=self.start_weekday[rows],
            recorded=self.recorded[rows],
            past=None if self.past is None else self.past.take(rows),
        )
        if not len(part):
            raise DataError(f"None of the {len(self)} series is left.")
        return part
