"""Errors of trajectory prediction per horizon, over all users and over those who move.

Errors along an axis are box units times the box's metres per unit; `error_km` and who is moving are great-circle
distances. The authors take 100 km for every unit of the box, 11 to 13 % too much in Beijing; `paper_scale` does as they
did. Correlation is taken across users, axis by axis; theirs correlates the first two users. The copied last point
belongs in every table, because most users stand still.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ..data.trajectory_tasks import TrajectoryTask
from ..tokenization.grid import PAPER_METRES_PER_UNIT, haversine_km

MOVING_METRES = 500.0
AXIS_METRICS = ("mae_m", "mae_lon_m", "mae_lat_m", "mse_km2", "mse_lon_km2", "mse_lat_km2", "pcc", "pcc_lon", "pcc_lat")
KM_METRICS = ("error_km", "median_km", "user_error_km")
DIFFERENCE = ("difference_km", "difference_low", "difference_high")


class TrajectoryPredictor(Protocol):
    """Anything that predicts the future points of a task."""

    name: str

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        """(N, H, 2) box units from what is known, at `task.steps`; `task.future` is not to be looked at."""
        ...


def horizon_table(
    predictors: TrajectoryPredictor | Sequence[TrajectoryPredictor] | Mapping[str, Any],
    tasks: TrajectoryTask | Sequence[TrajectoryTask],
    *,
    moving_metres: float = MOVING_METRES,
    paper_scale: bool = False,
    recorded_only: bool = False,
    rival: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Errors at each horizon of the tasks.

    Args:
        predictors: one or several, or names with predictions made before: (N, H, 2) in box units, for several tasks a
            list of them.
        tasks: one task, or several of one box and with the same horizons, which are taken together: windows that end
            at other hours, say.
        moving_metres: whose true distance from their last known point exceeds this at a horizon is "moving" there.
        paper_scale: metres by the authors' 100,000 per unit, for comparison with their figures only; great-circle
            errors and who is moving stay true.
        recorded_only: count only points that come from a record; a filled-in one is the answer of a rule.
        rival: name of the model that the others are compared with.
        bootstrap, seed: how often users are drawn for the interval of that comparison, and from which seed.

    Returns:
        One row per model, subset ("all", "moving") and horizon:

        - `model`, `subset`, `horizon` (slots), `minutes`; `windows` (points that count) and `users` (who they are of).
        - `error_km`: mean great-circle error over windows. `median_km`: the median, of which a few far ones say
          nothing. `user_error_km`: mean over users of their own means, so that nobody counts for much data.
        - `mae_m` (mean |d| over windows and both axes, metres), `mae_lon_m`, `mae_lat_m`; `mse_km2`, `mse_lon_km2`,
          `mse_lat_km2` (mean d squared); `pcc`, `pcc_lon`, `pcc_lat` (Pearson correlation of predicted and true
          coordinate, and their mean; NaN where one does not vary).
        - with `rival`: `difference_km`, the mean error less the rival's over the same windows (below zero: nearer), and
          `difference_low`, `difference_high`, a 95 % interval that draws users.

        NaN where no window counts.

    Raises:
        ValueError: predictions of another shape or that are not finite, tasks that do not fit together, or a rival
            that is no model of the table.

    Example:
        >>> horizon_table([CopyLast(), RollOut(model)], task, recorded_only=True, rival="CopyLast")  # doctest: +SKIP
    """
    several = [tasks] if isinstance(tasks, TrajectoryTask) else list(tasks)
    task = _checked_together(several)
    predictions = _predictions(predictors, tasks, several)
    if rival is not None and rival not in predictions:
        raise ValueError(f"rival is {rival!r}; the models are {list(predictions)}.")
    metres = np.full(2, PAPER_METRES_PER_UNIT) if paper_scale else task.metres_per_unit
    truth = np.concatenate([each.future for each in several]).astype(np.float64)
    lat, lon = task.degrees(truth)
    start_lat, start_lon = task.degrees(np.concatenate([each.known[:, -1:] for each in several]))
    moving = haversine_km(start_lat, start_lon, lat, lon) * 1000 > moving_metres
    counted = np.concatenate([each.recorded for each in several]) if recorded_only else np.ones_like(moving)
    user = np.unique(np.concatenate([each.users for each in several]), return_inverse=True)[1]
    errors = {name: haversine_km(*task.degrees(made), lat, lon) for name, made in predictions.items()}
    table: list[dict[str, Any]] = []
    for name, predicted in predictions.items():
        deviation = (predicted - truth) * metres
        for subset, mask in (("all", np.ones_like(moving)), ("moving", moving)):
            for column, step in enumerate(task.steps.tolist()):
                rows = mask[:, column] & counted[:, column]
                row = {"model": name, "subset": subset, "horizon": step, "minutes": step * task.interval_minutes}
                row |= {"windows": int(rows.sum()), "users": len(np.unique(user[rows]))}
                row |= _distances(errors[name][rows, column], user[rows])
                row |= _axes(deviation[rows, column], predicted[rows, column], truth[rows, column])
                if rival is not None:
                    gap = errors[name][rows, column] - errors[rival][rows, column]
                    row |= _paired(gap, user[rows], bootstrap=0 if name == rival else bootstrap, seed=seed)
                table.append(row)
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


def _checked_together(tasks: list[TrajectoryTask]) -> TrajectoryTask:
    if not tasks:
        raise ValueError("there is no task.")
    first = tasks[0]
    for task in tasks:
        if not np.array_equal(task.steps, first.steps) or not np.array_equal(
            task.metres_per_unit, first.metres_per_unit
        ):
            raise ValueError("tasks that are taken together need the same horizons and the same box.")
    return first


def _predictions(predictors: Any, given: Any, tasks: list[TrajectoryTask]) -> dict[str, np.ndarray]:
    """name -> (all windows, H, 2) float64."""
    if isinstance(predictors, Mapping):
        alone = isinstance(given, TrajectoryTask)
        found = {name: [np.asarray(each) for each in ([made] if alone else made)] for name, made in predictors.items()}
    else:
        several = predictors if isinstance(predictors, Sequence) else [predictors]
        names = [predictor.name for predictor in several]
        if len(set(names)) < len(names):
            raise ValueError(f"predictors need names of their own, not {names}.")
        found = {each.name: [np.asarray(each.predict(task)) for task in tasks] for each in several}
    return {
        name: np.concatenate([_checked(name, *pair) for pair in zip(made, tasks, strict=True)])
        for name, made in found.items()
    }


def _checked(name: str, values: np.ndarray, task: TrajectoryTask) -> np.ndarray:
    if values.shape != task.future.shape:
        raise ValueError(f"{name} predicts shape {values.shape}; expected (users, steps, 2) = {task.future.shape}.")
    bad = ~np.isfinite(values).all(axis=(1, 2))
    if bad.any():
        raise ValueError(
            f"{name}: predictions of {int(bad.sum())} of {len(bad)} series are not finite (first rows: "
            f"{np.flatnonzero(bad)[:5].tolist()})."
        )
    return values.astype(np.float64)


def _distances(error: np.ndarray, user: np.ndarray) -> dict[str, float]:
    """Of n windows: errors (n,) km, and whose they are (n,)."""
    if not len(error):
        return dict.fromkeys(KM_METRICS, np.nan)
    sums, windows = np.bincount(user, error), np.bincount(user)
    by_user = sums[windows > 0] / windows[windows > 0]
    return dict(zip(KM_METRICS, map(float, (error.mean(), np.median(error), by_user.mean())), strict=True))


def _axes(deviation: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Metrics along the axes; `deviation` (n, 2) in metres, the others (n, 2) box units."""
    if not len(truth):
        return dict.fromkeys(AXIS_METRICS, np.nan)
    mae, mse = np.abs(deviation).mean(axis=0), np.square(deviation / 1000).mean(axis=0)
    pcc = np.array([_correlation(predicted[:, axis], truth[:, axis]) for axis in (0, 1)])
    values = [value for pair in (mae, mse, pcc) for value in (pair.mean(), *pair)]
    return dict(zip(AXIS_METRICS, map(float, values), strict=True))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])


def _paired(gap: np.ndarray, user: np.ndarray, *, bootstrap: int, seed: int) -> dict[str, float]:
    """Mean of the differences (n,) and the interval of that mean where users are drawn with all their windows."""
    if not len(gap) or not bootstrap:
        return dict.fromkeys(DIFFERENCE, np.nan)
    windows = np.bincount(user)
    own = windows > 0
    sums, windows = np.bincount(user, gap)[own], windows[own]
    drawn = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=bootstrap)
    low, high = np.percentile((drawn @ sums) / (drawn @ windows), (2.5, 97.5))
    return dict(zip(DIFFERENCE, map(float, (gap.mean(), low, high)), strict=True))


__all__ = ["MOVING_METRES", "TrajectoryPredictor", "horizon_table", "one_step_table"]
