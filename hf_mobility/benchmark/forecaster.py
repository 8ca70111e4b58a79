"""A pipeline of trajectory prediction, asked as users ask it: records in, positions out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..data.trajectory_tasks import TrajectoryTask
from ..pipelines.trajectory_prediction import TrajectoryPredictionPipeline
from ..tokenization.errors import DataError
from ..tokenization.tokenization_raw import RawTokenizer

CLOCK = "UTC"  # a task's slots are already those of the local clock


class PipelineForecaster:
    """Any `TrajectoryPredictionPipeline` as a predictor of tasks that start from a record.

    It reads the user's whole recorded past and nothing that was filled in. What the pipeline does with it is its own
    affair: forms of RAW that predict in one step or in many are evaluated alike.

    Args:
        pipe: its box is that of the tasks, and its clock `CLOCK`. name: in tables.

    Example:
        >>> PipelineForecaster.in_box(pipe.model, bounds, name="RAW")  # doctest: +SKIP
    """

    def __init__(self, pipe: TrajectoryPredictionPipeline, *, name: str) -> None:
        self.pipe, self.name = pipe, name

    @classmethod
    def in_box(cls, model: Any, bounds: Sequence[float], *, name: str) -> PipelineForecaster:
        """A model in another box (south, west, north, east); a form that learns positions in a box keeps those of its
        own."""
        return cls(TrajectoryPredictionPipeline(model, box_tokenizer(bounds, model.config)), name=name)

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        """(N, H, 2) float32 box units.

        Raises:
            DataError: slots of another length than the model's, or a series whose last known slot holds no record.
        """
        if self.pipe.tokenizer.slots_per_day != task.slots_per_day:
            raise DataError(
                f"{self.name} has {self.pipe.tokenizer.slots_per_day} slots a day, the task {task.slots_per_day}."
            )
        hours = (task.steps * task.interval_minutes / 60).tolist()
        records = self._records(task)
        made = self.pipe.predict(records, horizon=hours, spread_samples=0)
        units = self.pipe.tokenizer.normalize(made["lat"].to_numpy(), made["lon"].to_numpy())
        return units.reshape(len(task), len(hours), 2).astype(np.float32)

    def _records(self, task: TrajectoryTask) -> pd.DataFrame:
        """A row per recorded slot; each series is a user of its own, as one user may have several."""
        records = [task.records.of(row) for row in range(len(task))]
        last = np.array([slots[-1] if len(slots) else -1 for slots, _ in records])
        wrong = last != task.records.origin + task.known.shape[1] - 1
        if wrong.any():
            raise DataError(
                f"{int(wrong.sum())} of {len(task)} series have no record in their last known slot (first rows: "
                f"{np.flatnonzero(wrong)[:5].tolist()}); make the task with from_record=True."
            )
        slot, point = (np.concatenate(parts) for parts in zip(*records, strict=True))
        lat, lon = task.degrees(point.astype(np.float64))
        seconds = slot * int(60 * task.interval_minutes)
        return pd.DataFrame(
            {
                "user_id": np.repeat(np.arange(len(task)), [len(slots) for slots, _ in records]),
                "time": pd.to_datetime(seconds, unit="s", utc=True),
                "lat": lat,
                "lon": lon,
            }
        )


def box_tokenizer(bounds: Sequence[float], config: Any) -> RawTokenizer:
    """Of a box (south, west, north, east), with the slots of a model, on the clock of the tasks."""
    return RawTokenizer.from_bounds(bounds, timezone=CLOCK, config=config)


__all__ = ["PipelineForecaster"]
