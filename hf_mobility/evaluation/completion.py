"""Completion of partly known weeks: whole weeks are hidden in part, filled in, and compared hour by hour.

Copying is the rival: most hours of a week are those of another day (`hf_mobility.baselines.CommonHour`, `SameHour`)
or of the hour before (`CarryForward`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..data.week_arrays import check_weeks
from ..tokenization.errors import DataError
from .report import order_rows
from .week_places import HOURS, days_of_week

COMPLETION_BASELINES = ("CommonHour", "SameHour", "CarryForward", "StayHome", "ExplorationReturn")


def completion_gaps(slots_per_day: int = HOURS) -> dict[str, np.ndarray]:
    """Name -> bool (7 * slots_per_day,): the hours of a week, Monday first, that are hidden."""
    day, hour = np.divmod(np.arange(7 * slots_per_day) * HOURS // slots_per_day, HOURS)
    return {
        "Wednesday": day == 2,
        "last four days": day >= 3,
        "Tuesday and Thursday 9-17 h": np.isin(day, (1, 3)) & (hour >= 9) & (hour < 17),
        "Thursday 12-24 h": (day == 3) & (hour >= 12),
        "every other hour": hour % 2 == 1,
    }


def completion_report(
    completions: Mapping[str, Callable[[np.ndarray], Any]], weeks: Any, *, slots_per_day: int = HOURS
) -> pd.DataFrame:
    """Accuracy on the hidden hours, one row per completion and gap, baselines first.

    Args:
        completions: name -> a function from weeks (N, L) with unknown hours (-1) to whole ones, such as
            `SameHour().complete`.
        weeks: integer (N, L) real weeks of users that nothing was fitted on; unknown hours are not counted.
        slots_per_day: a multiple of 24.

    Returns:
        Columns model, gap, weeks, hours (hidden and known to be right or wrong), accuracy, accuracy_low and
        accuracy_high: 95 % interval, twice the standard error over weeks.

    Raises:
        DataError: faulty weeks, weeks of which a gap leaves nothing, or a completion that changes a known hour, leaves
            one unknown or returns another shape.

    Example:
        >>> completion_report({"SameHour": SameHour().complete}, weeks)  # doctest: +SKIP
    """
    weeks = check_weeks(weeks, name="weeks")
    days_of_week(weeks, slots_per_day)
    rows = []
    for gap, hidden in completion_gaps(slots_per_day).items():
        for name, complete in completions.items():
            right, asked = right_hours(name, complete, weeks, hidden)
            low, accuracy, high = _ratio(right, asked)
            values = {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
            rows.append({"model": name, "gap": gap, "weeks": len(weeks), "hours": int(asked.sum()), **values})
    return order_rows(pd.DataFrame(rows), baselines=COMPLETION_BASELINES)


def right_hours(
    name: str, complete: Callable[[np.ndarray], Any], weeks: np.ndarray, hidden: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many hidden hours of each week are filled in rightly, and how many were asked: int (N,), (N,).

    Args:
        name: of the completion, for what is raised. complete: from weeks with unknown hours to whole ones.
        weeks: (N, L) real weeks; their unknown hours are not asked. hidden: bool (L,).

    Raises:
        DataError: a completion that changes a known hour, leaves one unknown or returns another shape.
    """
    given = np.where(hidden, -1, weeks)
    asked = hidden & (weeks >= 0)
    filled = _checked(name, complete(given.copy()), given)
    return ((filled == weeks) & asked).sum(axis=1), asked.sum(axis=1)


def _checked(name: str, filled: Any, given: np.ndarray) -> np.ndarray:
    filled = check_weeks(filled, name=name)
    if filled.shape != given.shape:
        raise DataError(f"{name} returned weeks of shape {filled.shape}, not {given.shape}.")
    left, changed = int((filled < 0).sum()), int(((given >= 0) & (filled != given)).sum())
    if left or changed:
        raise DataError(f"{name} left {left} hours unknown and changed {changed} known ones; it must do neither.")
    return filled


def _ratio(right: np.ndarray, asked: np.ndarray) -> tuple[float, float, float]:
    """Low, estimate and high of sum(right) / sum(asked), by the linearised standard error over weeks."""
    if not asked.sum():
        return (float("nan"),) * 3
    share = right.sum() / asked.sum()
    error = 1.96 * np.sqrt(((right - share * asked) ** 2).sum()) / asked.sum()
    return float(share - error), float(share), float(share + error)
