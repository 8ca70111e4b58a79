"""Trivial completions of partly known weeks: the same hour of other days, the last known place, home.

What they fill in is the best guess that needs no training. A model that completes weeks is shown next to them. All are
used alike: `Baseline().complete(cells)`; weeks are rows of cell ids, -1 = unknown hour, and known hours stay as they
are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.week_arrays import check_weeks, day_type, split_days
from ..tokenization.errors import DataError
from ..tokenization.weeks import home_and_work


class SameHour:
    """The same hour of the nearest day of its kind (Monday to Friday, or weekend), of two equally near the earlier.

    An hour that is known on no such day takes the last known place of its own day, and home (`home_and_work`) where the
    day has none yet.

    Args:
        slots_per_day: columns per day; column 0 is midnight of a Monday.

    Example:
        >>> SameHour(slots_per_day=2).complete([[3, 4, -1, 5]]).tolist()
        [[3, 4, 3, 5]]
    """

    name = "SameHour"

    def __init__(self, *, slots_per_day: int = 24) -> None:
        self.slots_per_day = slots_per_day

    def complete(self, cells: Any) -> np.ndarray:
        """int32 (N, L) weeks without unknown hours.

        Args:
            cells: integer (N, L), -1 = unknown.

        Raises:
            DataError: faulty weeks, days that do not divide them, or weeks without a known hour.
        """
        cells = _checked(cells)
        days = split_days(cells, self.slots_per_day).reshape(len(cells), -1, self.slots_per_day)
        kind = day_type(cells.shape[1], slots_per_day=self.slots_per_day)[:: self.slots_per_day]
        out = days.copy()
        for day in range(len(kind)):
            others = [other for other in np.flatnonzero(kind == kind[day]) if other != day]
            if others:
                nearest = days[:, sorted(others, key=lambda other: (abs(other - day), other))]
                out[:, day] = np.where(out[:, day] < 0, self._chosen(nearest), out[:, day])
        last = _last_known(out.reshape(-1, self.slots_per_day))
        home = home_and_work(cells, slots_per_day=self.slots_per_day)[0].astype(np.int32)
        return np.where(last < 0, np.repeat(home, len(kind))[:, None], last).reshape(cells.shape)

    def _chosen(self, days: np.ndarray) -> np.ndarray:
        """Other days of the kind, nearest first, (N, D, S) -> the place that is taken, (N, S), -1 = none is known."""
        first = (days >= 0).argmax(axis=1)[:, None]
        return np.asarray(np.take_along_axis(days, first, axis=1)[:, 0])


class CommonHour(SameHour):
    """The place where the user is most often at this hour on days of its kind, of equal ones that of the nearest day.

    All else as `SameHour`.

    Example:
        >>> CommonHour(slots_per_day=2).complete([[3, 4, 3, 5, -1, 5, 6, 5]]).tolist()
        [[3, 4, 3, 5, 3, 5, 6, 5]]
    """

    name = "CommonHour"

    def _chosen(self, days: np.ndarray) -> np.ndarray:
        agree = ((days[:, :, None] == days[:, None]) & (days >= 0)[:, :, None]).sum(axis=2)
        return np.asarray(np.take_along_axis(days, agree.argmax(axis=1)[:, None], axis=1)[:, 0])


class CarryForward:
    """The last known place; before the first known hour, the first known place.

    Example:
        >>> CarryForward().complete([[-1, 4, -1, 5]]).tolist()
        [[4, 4, 4, 5]]
    """

    name = "CarryForward"

    def complete(self, cells: Any) -> np.ndarray:
        """int32 (N, L) weeks without unknown hours; arguments and errors as `SameHour.complete`."""
        cells = _checked(cells)
        last, first = _last_known(cells), (cells >= 0).argmax(axis=1)
        return np.where(last < 0, cells[np.arange(len(cells)), first][:, None], last)


class StayHome:
    """Home (`home_and_work`) in every unknown hour.

    Args:
        slots_per_day: columns per day.

    Example:
        >>> StayHome(slots_per_day=4).complete([[4, 4, 5, -1]]).tolist()
        [[4, 4, 5, 4]]
    """

    name = "StayHome"

    def __init__(self, *, slots_per_day: int = 24) -> None:
        self.slots_per_day = slots_per_day

    def complete(self, cells: Any) -> np.ndarray:
        """int32 (N, L) weeks without unknown hours; arguments and errors as `SameHour.complete`."""
        cells = _checked(cells)
        home = home_and_work(cells, slots_per_day=self.slots_per_day)[0].astype(np.int32)
        return np.where(cells < 0, home[:, None], cells)


def _last_known(cells: np.ndarray) -> np.ndarray:
    """The last known cell of the row up to each column, -1 before the first."""
    at = np.maximum.accumulate(np.where(cells >= 0, np.arange(cells.shape[1]), -1), axis=1)
    return np.where(at < 0, -1, np.take_along_axis(cells, at.clip(min=0), axis=1))


def _checked(cells: Any) -> np.ndarray:
    cells = check_weeks(cells)
    empty = np.flatnonzero((cells < 0).all(axis=1))
    if len(empty):
        raise DataError(
            f"cells: {len(empty)} of {len(cells)} weeks have no known hour to complete from (first rows: "
            f"{empty[:5].tolist()}); leave them out."
        )
    return cells
