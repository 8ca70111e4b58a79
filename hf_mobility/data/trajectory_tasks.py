"""The task of trajectory prediction: every user's known points, and the points that follow.

Positions are in box units ([longitude, latitude], as `RawTokenizer` makes them), because models read those. The task
also holds the size of a unit in metres and in degrees, so that errors are evaluated on the Earth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..tokenization.errors import DataError

__all__ = ["TrajectoryTask"]


@dataclass(frozen=True, eq=False)
class TrajectoryTask:
    """N series that all begin at a local midnight.

    Fields:
        known: float32 (N, T, 2), slots 0..T-1. future: float32 (N, H, 2), slots T..T+H-1.
        users: (N,) whose series it is.
        start_weekday: int64 (N,), day of the week of the first midnight, 0 = Monday.
        slots_per_day: slots of a day.
        metres_per_unit: float64 (2,), for longitude and latitude, true at the middle of the box.
        degrees: box units (..., 2) -> latitude, longitude (...).
        recorded: bool (N, H), which of the future points come from a record; the others are filled in.
    """

    known: np.ndarray
    future: np.ndarray
    users: np.ndarray
    start_weekday: np.ndarray
    slots_per_day: int
    metres_per_unit: np.ndarray
    degrees: Callable[[Any], tuple[np.ndarray, np.ndarray]]
    recorded: np.ndarray

    def __len__(self) -> int:
        return len(self.known)

    @property
    def interval_minutes(self) -> float:
        return 24 * 60 / self.slots_per_day

    @classmethod
    def from_series(
        cls,
        series: Any,
        tokenizer: Any,
        *,
        steps: int = 10,
        end_slot: int | None = None,
        observed_only: bool = False,
        least_observed: float = 0.0,
    ) -> TrajectoryTask:
        """The task of predicting the last points of windows (the paper: 10 of 959, which is 2.5 hours).

        Args:
            series: what `RawTokenizer.encode_points` returned; with windows that all start on the same weekday. Windows
                that are shorter than `end_slot` are left out.
            tokenizer: the `RawTokenizer` that made them.
            steps: H.
            end_slot: T + H; by default the length of the longest window.
            observed_only: keep only windows in which something was recorded in the last known slot and in all that
                follow; elsewhere the truth is itself a filled-in point.
            least_observed: keep only windows in which something was recorded in this share of the slots.

        Raises:
            DataError: if no window is long enough or observed, or fewer than one point would be known.
        """
        lengths = np.diff(series.offsets)
        end = int(lengths.max()) if end_slot is None else end_slot
        if steps < 1 or end <= steps:
            raise DataError(f"steps must be at least 1 and below the end of the roll-out ({end}), not {steps}.")
        rows = np.flatnonzero(lengths >= end)
        slots = series.offsets[rows][:, None] + np.arange(end)
        observed = series.observed[slots]
        kept = observed.mean(axis=1) >= least_observed
        if observed_only:
            kept &= observed[:, end - steps - 1 :].all(axis=1)
        rows, slots, observed = rows[kept], slots[kept], observed[kept]
        if not len(rows):
            wanted = "is observed to the end" if observed_only else "is long enough"
            wanted += f" and observed in {least_observed:.0%} of its slots" if least_observed else ""
            raise DataError(f"None of {len(lengths)} windows {wanted} (slots 0..{end - 1}); choose another end_slot.")
        points = series.coordinates[slots]
        return cls(
            known=points[:, : end - steps],
            future=points[:, end - steps :],
            users=series.user_ids[rows],
            start_weekday=series.start_weekday[rows],
            slots_per_day=tokenizer.slots_per_day,
            metres_per_unit=tokenizer.metres_per_unit(),
            degrees=tokenizer.denormalize,
            recorded=observed[:, end - steps :],
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
        )
        if not len(part):
            raise DataError(f"None of the {len(self)} series is left.")
        return part
