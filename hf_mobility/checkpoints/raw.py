"""RAW's positions of held-out users beside standing still and the mean of the hour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..baselines import CopyLast, HourMean
from ..data.parts import split_users
from ..data.trajectory_tasks import TrajectoryTask
from ..evaluation.trajectories import RollOut, horizon_table
from ..pipelines.trajectory_prediction import TrajectoryPredictionPipeline
from ..tokenization.errors import DataError
from ..tokenization.tokenization_raw import RawTokenizer
from .unseen import Checkpoint

STEPS = 10  # slots ahead


def evaluate_raw(checkpoint: Checkpoint, points: Any, *, test_fraction: float, seed: int) -> pd.DataFrame:
    """The table of `horizon_table` for ten slots; `points` are points or stays. One window of each user, its end where
    most is recorded; slots without a record do not count."""
    if not isinstance(points, pd.DataFrame):
        raise DataError("RAW is evaluated on points or stays (user_id, time, lat, lon), not on weeks of cells.")
    pipe = checkpoint.pipeline(TrajectoryPredictionPipeline)
    tokenizer = pipe.tokenizer
    _, held_out = split_users(points, test_fraction=test_fraction, seed=seed)
    series = tokenizer.encode_points(held_out, outside="drop")
    task, end = _recorded_task(series, tokenizer)
    models: list[Any] = [CopyLast(), HourMean(), RollOut(pipe.model, batch_size=pipe.batch_size, name=checkpoint.name)]
    table = horizon_table(models, task, recorded_only=True)
    notes = [
        f"one window of {len(task)} users, {STEPS} slots to slot {end} of {int(np.diff(series.offsets).max())}: "
        f"{task.recorded.mean():.0%} of them hold a record, and only these count."
    ]
    if series.num_outside:
        notes.append(f"{series.num_outside:,} of {len(held_out):,} records lie outside the model's bounds: left out.")
    if checkpoint.record is None and _bounds_of(points, tokenizer) == tokenizer.bounds:
        notes.append(
            "the model's bounds are those of all these points: unless it was trained with the same test_fraction (and "
            "seed), it has seen its test users."
        )
    table.attrs["notes"] = notes
    return table


def _bounds_of(points: pd.DataFrame, tokenizer: RawTokenizer) -> Any:
    return RawTokenizer.from_points(points, timezone=tokenizer.timezone).bounds


def _recorded_task(series: Any, tokenizer: RawTokenizer) -> tuple[TrajectoryTask, int]:
    """The task with the end at which the most slots hold a record, the latest of several; and that end."""
    lengths = np.diff(series.offsets)
    if lengths.max() <= STEPS:
        raise DataError(f"The longest window has {lengths.max()} slots; {STEPS} are predicted, so it needs more.")
    ends = np.arange(STEPS + 1, lengths.max() + 1)
    total = np.zeros(len(ends), np.int64)
    for start, length in zip(series.offsets, lengths):
        recorded = _recorded_before(series, start, length)
        total[: max(0, length - STEPS)] += recorded[STEPS + 1 :] - recorded[1:-STEPS]
    end = int(ends[np.flatnonzero(total == total.max())[-1]])
    task = TrajectoryTask.from_series(series, tokenizer, steps=STEPS, end_slot=end)
    order = np.argsort(task.recorded.sum(axis=1), kind="stable")
    last = pd.Series(order, index=task.users[order]).groupby(level=0).last()  # the fullest window of each user
    return task.take(np.sort(last.to_numpy())), end


def _recorded_before(series: Any, start: int, length: int) -> np.ndarray:
    """(length + 1,): slots with a record before each slot of a window."""
    return np.concatenate([[0], np.cumsum(series.observed[start : start + length])])
