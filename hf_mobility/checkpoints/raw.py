"""RAW's positions of held-out users beside simple predictors, which are fitted on the other users."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..baselines import CityMedian, CopyLast, HourMean, HourMedian, NearestPast, Shrinkage
from ..data.parts import split_users
from ..data.trajectory_tasks import TrajectoryTask
from ..data.weeks import refuse_weeks
from ..evaluation.direct import trajectory_predictor
from ..evaluation.trajectories import horizon_table
from ..pipelines.trajectory_prediction import TrajectoryPredictionPipeline
from ..tokenization.errors import DataError
from ..tokenization.tokenization_raw import RawTokenizer
from .unseen import Checkpoint

STEPS = (1, 2, 4, 6, 10)  # slots ahead
LAST = STEPS[-1]
WINDOW = 7 * 96  # slots


def evaluate_raw(checkpoint: Checkpoint, points: Any, *, test_fraction: float, seed: int) -> pd.DataFrame:
    """The table of `horizon_table` up to ten slots ahead; `points` are points or stays. One window of each user, its
    end where most is recorded; slots without a record do not count, and intervals are against `Shrinkage`."""
    refuse_weeks(points, "evaluated")
    pipe = checkpoint.pipeline(TrajectoryPredictionPipeline)
    tokenizer = pipe.tokenizer
    if pipe.model.config.variant == "extended":  # in any box; of the saved city it needs the clock
        tokenizer = RawTokenizer.from_points(points, timezone=tokenizer.timezone, model_max_length=WINDOW)
    known, held_out = (
        tokenizer.encode_points(part, outside="drop")
        for part in split_users(points, test_fraction=test_fraction, seed=seed)
    )
    task, end = _recorded_task(held_out, tokenizer)
    models: list[Any] = [CopyLast(), *_fitted(known, tokenizer, end), HourMean(), HourMedian(), NearestPast()]
    models.append(trajectory_predictor(pipe.model, batch_size=pipe.batch_size, name=checkpoint.name))
    table = horizon_table(models, task, recorded_only=True, rival="Shrinkage", seed=seed)
    notes = [
        f"one window of {len(task)} users, {LAST} slots to slot {end} of {int(np.diff(held_out.offsets).max())}: "
        f"{task.recorded.mean():.0%} of them hold a record, and only these count."
    ]
    if held_out.num_outside:
        notes.append(f"{held_out.num_outside:,} test records lie outside the model's bounds: left out.")
    if checkpoint.record is None and _bounds_of(points, pipe.tokenizer) == pipe.tokenizer.bounds:
        notes.append(
            "the model's bounds are those of all these points: unless it was trained with the same test_fraction (and "
            "seed), it has seen its test users."
        )
    table.attrs["notes"] = notes
    return table


def _fitted(series: Any, tokenizer: RawTokenizer, end: int) -> tuple[CityMedian, Shrinkage]:
    """The two that learn from the training users, in windows that end at the same slot, or earlier in short data."""
    end = min(end, int(np.diff(series.offsets).max()))
    task = TrajectoryTask.from_series(series, tokenizer, steps=STEPS, end_slot=end)
    return CityMedian().fit(task), Shrinkage().fit(task)


def _bounds_of(points: pd.DataFrame, tokenizer: RawTokenizer) -> Any:
    return RawTokenizer.from_points(points, timezone=tokenizer.timezone).bounds


def _recorded_task(series: Any, tokenizer: RawTokenizer) -> tuple[TrajectoryTask, int]:
    """The task with the end at which the most slots hold a record, the latest of several; and that end."""
    lengths = np.diff(series.offsets)
    if lengths.max() <= LAST:
        raise DataError(f"The longest window has {lengths.max()} slots; {LAST} are predicted, so it needs more.")
    ends = np.arange(LAST + 1, lengths.max() + 1)
    total = np.zeros(len(ends), np.int64)
    for start, length in zip(series.offsets, lengths):
        recorded = _recorded_before(series, start, length)
        total[: max(0, length - LAST)] += recorded[LAST + 1 :] - recorded[1:-LAST]
    end = int(ends[np.flatnonzero(total == total.max())[-1]])
    task = TrajectoryTask.from_series(series, tokenizer, steps=STEPS, end_slot=end)
    order = np.argsort(task.recorded.sum(axis=1), kind="stable")
    last = pd.Series(order, index=task.users[order]).groupby(level=0).last()  # the fullest window of each user
    return task.take(np.sort(last.to_numpy())), end


def _recorded_before(series: Any, start: int, length: int) -> np.ndarray:
    """(length + 1,): slots with a record before each slot of a window."""
    return np.concatenate([[0], np.cumsum(series.observed[start : start + length])])
