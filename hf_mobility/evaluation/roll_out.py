"""RAW as a predictor of trajectory tasks."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np

from ..data.trajectory_tasks import TrajectoryTask


class RollOut:
    """A `RawForTrajectoryPrediction` as a predictor.

    Args:
        model: anything with its `generate`, `__call__` and `device`; put into evaluation mode.
        batch_size: series at one time. bfloat16: autocast; the first and the last matrix stay in float32.
    """

    def __init__(self, model: Any, *, batch_size: int = 64, bfloat16: bool = False, name: str = "RAW") -> None:
        self.model, self.batch_size, self.bfloat16, self.name = model.eval(), batch_size, bfloat16, name

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        """(N, H, 2) float32 box units."""
        steps = int(task.steps[-1])
        made = self._in_batches(
            lambda points, day: self.model.generate(points, steps=steps, start_weekday=day),
            task.known,
            task.start_weekday,
        )
        return made[:, task.steps - 1]

    def next_points(self, points: np.ndarray, start_weekday: np.ndarray | None = None) -> np.ndarray:
        """The point after each but the last: (N, T, 2) -> (N, T - 1, 2) float32."""
        return self._in_batches(
            lambda batch, day: self.model(batch, start_weekday=day).predictions, points[:, :-1], start_weekday
        )

    def _in_batches(self, call: Any, points: np.ndarray, start_weekday: np.ndarray | None) -> np.ndarray:
        import torch

        parts, device = [], self.model.device
        autocast = torch.autocast(device.type, dtype=torch.bfloat16) if self.bfloat16 else nullcontext()
        with torch.inference_mode(), autocast:
            for first in range(0, len(points), self.batch_size):
                some = slice(first, first + self.batch_size)
                day = None if start_weekday is None else torch.as_tensor(start_weekday[some], device=device)
                batch = torch.as_tensor(points[some], dtype=torch.float32, device=device)
                parts.append(call(batch, day).float().cpu().numpy())
        return np.concatenate(parts)


__all__ = ["RollOut"]
