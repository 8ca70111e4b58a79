"""RAW's positions of held-out users beside standing still and the mean of the hour."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..baselines import CopyLast, HourMean
from ..data.parts import split_users
from ..data.trajectory_tasks import TrajectoryTask
from ..evaluation.trajectories import RollOut, horizon_table
from ..pipelines.trajectory_prediction import TrajectoryPredictionPipeline
from ..tokenization.errors import DataError
from ..tokenization.tokenization_raw import RawTokenizer
from .unseen import Checkpoint


def evaluate_raw(checkpoint: Checkpoint, points: Any, *, test_fraction: float, seed: int) -> pd.DataFrame:
    """The table of `horizon_table` for ten slots; `points` are points or stays."""
    if not isinstance(points, pd.DataFrame):
        raise DataError("RAW is evaluated on points or stays (user_id, time, lat, lon), not on weeks of cells.")
    pipe = checkpoint.pipeline(TrajectoryPredictionPipeline)
    tokenizer = pipe.tokenizer
    _, held_out = split_users(points, test_fraction=test_fraction, seed=seed)
    task = TrajectoryTask.from_series(tokenizer.encode_points(held_out), tokenizer)
    table = horizon_table([CopyLast(), HourMean(), RollOut(pipe.model, batch_size=pipe.batch_size)], task)
    if RawTokenizer.from_points(points, timezone=tokenizer.timezone).bounds == tokenizer.bounds:
        table.attrs["notes"] = [
            "the model's bounds are those of all these points: unless it was trained with the same test_fraction (and "
            "seed), it has seen its test users."
        ]
    return table
