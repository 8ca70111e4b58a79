"""Does a next-location predictor look at what it is to predict? The last visit of each user is replaced, and nothing
else may change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ..data.tasks import NextLocationTask
from ..tokenization.errors import DataError

TOLERANCE = 1e-3  # of a probability; rounding in float16 is below it
LATER = pd.Timedelta(minutes=90)


def refuse_looking_ahead(predictor: Any, task: NextLocationTask) -> None:
    """Raise where the distributions of the users' last targets depend on these targets.

    Raises:
        DataError: how many do, and the first rows.
    """
    last = task.user_starts[1:] - 1  # targets, as every user has one
    given = bool(getattr(predictor, "arrival_time_given", False))
    before = _at(predictor, task, last)
    after = _at(predictor, with_other_targets(task, last, keep_time=given), last)
    differs = np.abs(before - after).max(axis=1) > TOLERANCE
    if differs.any():
        raise DataError(
            f"{predictor.name} looks ahead: the prediction of the last visit of {int(differs.sum())} of {len(last)} "
            f"users depends on that visit (first rows: {last[differs][:5].tolist()}); use the user's earlier rows only."
        )


def with_other_targets(task: NextLocationTask, rows: np.ndarray, *, keep_time: bool) -> NextLocationTask:
    """The task with another place, and another time, in some rows."""
    city = task.city
    place = (np.maximum(task.location[rows], 0) + 1) % len(city.location_ids)
    location, visits = task.location.copy(), task.visits.copy()
    location[rows] = place
    for name, values in (("location_id", city.location_ids), ("lat", city.lat), ("lon", city.lon)):
        column = visits[name].to_numpy(copy=True)
        column[rows] = np.asarray(values)[place]
        visits[name] = pd.Series(column, dtype=visits[name].dtype)
    if not keep_time:
        moved = np.zeros(len(visits), dtype=bool)
        moved[rows] = True
        visits["time"] = visits["time"].where(~moved, visits["time"] + LATER)
    return replace(task, location=location, visits=visits)


def _at(predictor: Any, task: NextLocationTask, wanted: np.ndarray) -> np.ndarray:
    """(rows, places): the distributions of some targets."""
    found = np.zeros((len(wanted), len(task.city.location_ids)), dtype=np.float32)
    for rows, p in predictor.probabilities(task):
        position = np.searchsorted(wanted, rows)
        inside = (position < len(wanted)) & (wanted[np.minimum(position, len(wanted) - 1)] == rows)
        found[position[inside]] = np.asarray(p)[inside]
    return found
