"""Predictions that start from a record, at full hours of the week; which of the end points hold one is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..data.trajectory_tasks import TrajectoryTask
from ..tokenization.errors import DataError

DAYS = range(6)  # Monday to Saturday: a day ahead still lies in a window of a week


def record_tasks(
    series: Any,
    tokenizer: Any,
    *,
    users: np.ndarray,
    steps: Sequence[int],
    start_hours: Sequence[int],
    most: int,
    seed: int = 0,
) -> list[TrajectoryTask]:
    """One task for each hour that has predictions.

    Args:
        series: what `tokenizer.encode_points` returned, windows of a week from Monday on.
        users: bool (U,), which of `series.users` are wanted.
        steps: slots ahead. start_hours: the last known slot is the one before these hours of Monday to Saturday.
        most: predictions that are drawn at most, by `seed`.

    Raises:
        DataError: nobody has a record at these hours.
    """
    day = tokenizer.slots_per_day
    starts = [number * day + hour * day // 24 for number in DAYS for hour in start_hours]

    def tasks() -> Iterator[TrajectoryTask]:
        for start in filter(None, starts):
            try:
                task = TrajectoryTask.from_series(
                    series, tokenizer, steps=list(steps), end_slot=start + steps[-1], from_record=True
                )
            except DataError:  # nobody at that hour
                continue
            wanted = np.isin(task.users, series.users[users])
            if wanted.any():
                yield task.take(wanted)

    sizes = np.array([len(task) for task in tasks()], dtype=np.int64)
    if not len(sizes):
        raise DataError(f"None of {int(users.sum())} users has a record before one of these hours.")
    drawn = np.zeros(sizes.sum(), dtype=bool)
    drawn[np.random.default_rng(seed).permutation(len(drawn))[:most]] = True
    parts = np.split(drawn, np.cumsum(sizes)[:-1])
    return [task.take(rows) for task, rows in zip(tasks(), parts, strict=True) if rows.any()]
