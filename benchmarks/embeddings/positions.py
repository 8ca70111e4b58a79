"""Roll-outs that end on Sundays, and the simple rivals of RAW there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.embeddings.series import LEAST_OBSERVED, SeriesSet
from hf_mobility.baselines import CityMedian, CopyLast, HourMean, HourMedian, NearestPast, Shrinkage
from hf_mobility.data import DataError
from hf_mobility.data.trajectory_tasks import TrajectoryTask
from hf_mobility.evaluation import horizon_table

THROUGHOUT, EVERY = "recorded", "every one"


def rivals(train: list[TrajectoryTask]) -> list[Any]:
    """All simple predictors; what can be fitted is fitted on these tasks of training users."""
    return [CopyLast(), CityMedian().fit(train), Shrinkage().fit(train), HourMean(), HourMedian(), NearestPast()]


def week_end_tasks(
    data: SeriesSet, which: np.ndarray, *, steps: int, end_hours: Sequence[int], recorded: bool
) -> list[TrajectoryTask]:
    """Roll-outs that end at these hours of a window's last day, of the users of the windows `which` (N, bool);
    `recorded` keeps only those of which every slot was recorded.
    """
    length, day = data.tokenizer.model_max_length, data.tokenizer.slots_per_day
    options = {"steps": steps, "observed_only": recorded, "least_observed": LEAST_OBSERVED}
    ends = [length - (24 - hour) * day // 24 for hour in end_hours]
    return _tasks(data, which, [{"end_slot": end, **options} for end in ends])


def compare(predictors: list[Any], tasks: list[TrajectoryTask], *, slots: str, rival: str) -> pd.DataFrame:
    """`horizon_table` of all tasks together; `slots` says which ones count."""
    return horizon_table(predictors, tasks, rival=rival).assign(slots=slots)


def _tasks(data: SeriesSet, which: np.ndarray, options: list[dict[str, Any]]) -> list[TrajectoryTask]:
    users, found = np.unique(data.users[which]), []
    for each in options:
        try:
            task = TrajectoryTask.from_series(data.series, data.tokenizer, **each)
            found.append(task.take(np.isin(task.users, users)))
        except DataError:  # nobody at that hour
            continue
    if not found:
        raise DataError(f"None of {len(users)} users has a window of this kind.")
    return found
