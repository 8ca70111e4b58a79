"""RAW's `extended` variant as a predictor of trajectory tasks."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.record_contexts import contexts_of
from ..data.trajectory_tasks import TrajectoryTask
from .roll_out import RollOut


class DirectHorizons:
    """A `RawExtendedForTrajectoryPrediction` as a predictor: each horizon is asked for by itself.

    It reads the user's recorded past, also before the task's window.

    Args:
        model: put into evaluation mode.
        batch_size: predictions at one time.
    """

    def __init__(self, model: Any, *, batch_size: int = 128, name: str = "RAW extended") -> None:
        self.model, self.batch_size, self.name = model.eval(), batch_size, name

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        """(N, H, 2) float32 box units."""
        import torch

        now = task.records.origin + task.known.shape[1] - 1
        targets = torch.from_numpy(now[:, None] + task.steps)
        parts = []
        with torch.inference_mode():
            for first in range(0, len(task), self.batch_size):
                rows = np.arange(first, min(first + self.batch_size, len(task)))
                inputs = contexts_of(task.records, task.metres_per_unit, rows, self.model.config.context_records)
                inputs = {name: values.to(self.model.device) for name, values in inputs.items()}
                asked = targets[rows].to(self.model.device)
                parts.append(self.model(**inputs, target_slots=asked).predictions.cpu().numpy())
        return np.asarray(np.concatenate(parts) * 1000 / task.metres_per_unit, np.float32)


def trajectory_predictor(model: Any, **options: Any) -> RollOut | DirectHorizons:
    """The predictor of a RAW model's variant; `options` go to it."""
    form = DirectHorizons if model.config.variant == "extended" else RollOut
    return form(model, **options)


__all__ = ["DirectHorizons", "trajectory_predictor"]
