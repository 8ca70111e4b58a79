"""Errors of trajectory prediction in metres per horizon, over all users and over those who move.

Errors along an axis are box units times the box's metres per unit; `error_km` and who is moving are great-circle
distances. The authors take 100 km for every unit of the box, 11 to 13 % too much in Beijing; `paper_scale` does as they
did. Correlation is taken across users, axis by axis; theirs correlates the first two users. The copied last point
belongs in every table, because most users stand still.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ..data.trajectory_tasks import TrajectoryTask
from ..tokenization.grid import PAPER_METRES_PER_UNIT, haversine_km

MOVING_METRES = 500.0


class TrajectoryPredictor(Protocol):
    """Anything that predicts the future points of a task."""

    name: str

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        """(N, H, 2) box units from `task.known`; `task.future` is not to be looked at."""
        ...


def horizon_table(
    predictors: TrajectoryPredictor | Sequence[TrajectoryPredictor] | Mapping[str, np.ndarray],
    task: TrajectoryTask,
    *,
    moving_metres: float = MOVING_METRES,
    paper_scale: bool = False,
    recorded_only: bool = False,
) -> pd.DataFrame:
    """Errors at each horizon j = 1..H.

    Args:
        predictors: one or several, or names with predictions made before, (N, H, 2) in box units.
        moving_metres: whose true distance from their last known point exceeds this at horizon j is "moving" at j.
        paper_scale: metres by the authors' 100,000 per unit, for comparison with their figures only; great-circle
            errors and who is moving stay true.
        recorded_only: count only points that come from a record; a filled-in one is the answer of a rule.

    Returns:
        One row per model, subset ("all", "moving") and horizon: `model`, `subset`, `horizon`, `minutes`, `users`;
        `mae_m` (mean |d| over people and both axes, metres), `mae_lon_m`, `mae_lat_m`; `mse_km2`, `mse_lon_km2`,
        `mse_lat_km2` (mean d squared); `pcc`, `pcc_lon`, `pcc_lat` (Pearson correlation across people of predicted
        and true coordinate, and their mean; NaN where one does not vary); `error_km` (mean great-circle error). NaN
        where `users` is 0.

    Raises:
        ValueError: predictions of another shape, or that are not finite.
    """
    metres = np.full(2, PAPER_METRES_PER_UNIT) if paper_scale else task.metres_per_unit
    truth = task.future.astype(np.float64)
    lat, lon = task.degrees(truth)
    start_lat, start_lon = task.degrees(task.known[:, -1:])
    moving = haversine_km(start_lat, start_lon, lat, lon) * 1000 > moving_metres
    counted = task.recorded if recorded_only else np.ones_like(moving)
    table: list[dict[str, Any]] = []
    for name, predicted in _predictions(predictors, task).items():
        deviation = (predicted - truth) * metres
        error = haversine_km(*task.degrees(predicted), lat, lon)
        for subset, mask in (("all", np.ones_like(moving)), ("moving", moving)):
            for step in range(truth.shape[1]):
                rows = mask[:, step] & counted[:, step]
                head = {"model": name, "subset": subset, "horizon": step + 1}
                head |= {"minutes": (step + 1) * task.interval_minutes, "users": int(rows.sum())}
                values = _row(deviation[rows, step], predicted[rows, step], truth[rows, step], error[rows, step])
                table.append(head | values)
    return pd.DataFrame(table)


def one_step_table(
    predictions: Mapping[str, np.ndarray],
    points: np.ndarray,
    *,
    metres_per_unit: np.ndarray,
    counted: np.ndarray | None = None,
    moving_metres: float = MOVING_METRES,
) -> pd.DataFrame:
    """Errors of the next point with all earlier ones known (teacher forcing).

    Args:
        predictions: name -> (N, T - 1, 2) box units: the point after each but the last.
        points: (N, T, 2) the series.
        metres_per_unit: (2,), `tokenizer.metres_per_unit()`.
        counted: bool (N, T - 1), which targets count; by default all.
        moving_metres: length of a step above which it is a "moving" one.

    Returns:
        `model`, `subset` ("all", "moving"), `points`, `mae_m` (mean |d| over both axes), `error_m` (mean length of d).
    """
    points = np.asarray(points, dtype=np.float64)
    truth = points[:, 1:]
    counted = np.ones(truth.shape[:2], dtype=bool) if counted is None else np.asarray(counted, dtype=bool)
    step = np.linalg.norm((truth - points[:, :-1]) * metres_per_unit, axis=-1)
    table = []
    for name, predicted in predictions.items():
        if np.shape(predicted) != truth.shape:
            raise ValueError(f"{name} has predictions of shape {np.shape(predicted)}; expected {truth.shape}.")
        deviation = (np.asarray(predicted, dtype=np.float64) - truth) * metres_per_unit
        for subset, mask in (("all", counted), ("moving", counted & (step > moving_metres))):
            own = deviation[mask]
            values = (np.abs(own).mean(), np.linalg.norm(own, axis=-1).mean()) if len(own) else (np.nan, np.nan)
            table.append(
                {"model": name, "subset": subset, "points": len(own), "mae_m": values[0], "error_m": values[1]}
            )
    return pd.DataFrame(table)


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
        steps = task.future.shape[1]
        return self._in_batches(
            lambda points, day: self.model.generate(points, steps=steps, start_weekday=day),
            task.known,
            task.start_weekday,
        )

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


def _predictions(predictors: Any, task: TrajectoryTask) -> dict[str, np.ndarray]:
    if isinstance(predictors, Mapping):
        found = {name: np.asarray(values) for name, values in predictors.items()}
    else:
        several = predictors if isinstance(predictors, Sequence) else [predictors]
        found = {predictor.name: np.asarray(predictor.predict(task)) for predictor in several}
        if len(found) < len(several):
            names = [predictor.name for predictor in several]
            raise ValueError(f"predictors need names of their own, not {names}.")
    for name, values in found.items():
        if values.shape != task.future.shape:
            raise ValueError(f"{name} predicts shape {values.shape}; expected (users, steps, 2) = {task.future.shape}.")
        bad = ~np.isfinite(values).all(axis=(1, 2))
        if bad.any():
            raise ValueError(
                f"{name}: predictions of {int(bad.sum())} of {len(bad)} series are not finite (first rows: "
                f"{np.flatnonzero(bad)[:5].tolist()})."
            )
    return {name: values.astype(np.float64) for name, values in found.items()}


def _row(deviation: np.ndarray, predicted: np.ndarray, truth: np.ndarray, error: np.ndarray) -> dict[str, float]:
    """Metrics of n people at one horizon; `deviation` (n, 2) in metres, the others (n, 2) and (n,) km."""
    names = ("mae_m", "mae_lon_m", "mae_lat_m", "mse_km2", "mse_lon_km2", "mse_lat_km2", "pcc", "pcc_lon", "pcc_lat")
    if not len(error):
        return dict.fromkeys((*names, "error_km"), np.nan)
    mae, mse = np.abs(deviation).mean(axis=0), np.square(deviation / 1000).mean(axis=0)
    pcc = np.array([_correlation(predicted[:, axis], truth[:, axis]) for axis in (0, 1)])
    values = [value for pair in (mae, mse, pcc) for value in (pair.mean(), *pair)]
    return dict(zip((*names, "error_km"), map(float, [*values, error.mean()]), strict=True))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])


__all__ = ["MOVING_METRES", "RollOut", "TrajectoryPredictor", "horizon_table", "one_step_table"]
