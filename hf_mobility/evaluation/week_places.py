"""Places of a week by the hours spent there: home, second place, and whole weeks cut into days.

These readings belong to the measures of generated weeks. What the models call home and work is `home_and_work`, which
breaks ties otherwise and looks at other hours.
"""

from __future__ import annotations

import numpy as np

from ..data.week_arrays import place_hours
from ..tokenization.errors import DataError

HOURS = 24
WEEKDAYS = 5  # Monday to Friday
NIGHT = 6  # hours 0..5


def days_of_week(cells: np.ndarray, slots_per_day: int = HOURS) -> np.ndarray:
    """Weeks (N, 7 * slots_per_day) as (N, 7, slots_per_day), Monday first.

    Raises:
        DataError: windows that are no whole weeks, or slots that do not divide an hour.
    """
    if slots_per_day % HOURS or cells.shape[1] != 7 * slots_per_day:
        raise DataError(
            f"These measures need weeks of seven days of whole hours, not {cells.shape[1]} slots with slots_per_day="
            f"{slots_per_day}."
        )
    return cells.reshape(len(cells), 7, slots_per_day)


def at_hour(cells: np.ndarray, day: int, hour: int, slots_per_day: int = HOURS) -> np.ndarray:
    """Cells (N,) in the first slot of an hour; day 0 is Monday."""
    return days_of_week(cells, slots_per_day)[:, day, hour * (slots_per_day // HOURS)]


def ranked_places(cells: np.ndarray, ranks: int) -> np.ndarray:
    """int64 (N, ranks): the cells with most hours of each row, ties to the smaller id; -1 where there are fewer."""
    owner, cell, hours = place_hours(cells)
    order = np.lexsort((cell, -hours, owner))
    owner, cell = owner[order], cell[order]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    out = np.full((len(cells), ranks), -1, dtype=np.int64)
    some = rank < ranks
    out[owner[some], rank[some]] = cell[some]
    return out


def night_home(cells: np.ndarray, *, slots_per_day: int = HOURS) -> np.ndarray:
    """int64 (N,): the commonest cell of the hours 0-5 of all days, ties to the smaller id; -1 where none is known."""
    nights = days_of_week(cells, slots_per_day)[:, :, : NIGHT * slots_per_day // HOURS]
    return ranked_places(nights.reshape(len(cells), -1), 1)[:, 0]


def second_place(cells: np.ndarray, home: np.ndarray) -> np.ndarray:
    """int64 (N,): the commonest cell of the week besides `home` (N,), ties to the smaller id; -1 without any."""
    return ranked_places(np.where(cells == home[:, None], -1, cells), 1)[:, 0]
