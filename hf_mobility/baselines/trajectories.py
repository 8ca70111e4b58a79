"""Baselines of trajectory prediction that know the last point or the city; they are deterministic.

The copied last point is hard to beat at 15 minutes. Hours ahead, one point in the middle of the city is hard to beat
where users rarely return; in between, the way from one to the other is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from ..data.trajectory_tasks import TrajectoryTask
from .geometric_median import geometric_median

T = TypeVar("T")
_SHARES = np.linspace(0, 1, 51)
_MOST = 100_000  # records that the city's median is taken of


class CopyLast:
    """The last known point, repeated."""

    name = "CopyLast"

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        """(N, H, 2) float32 box units."""
        return np.repeat(task.known[:, -1:], task.future.shape[1], axis=1)

    def next_points(self, points: np.ndarray) -> np.ndarray:
        """The point after each but the last: (N, T, 2) -> (N, T - 1, 2)."""
        return np.asarray(points)[:, :-1]


class CityMedian:
    """One point for everybody and always: the geometric median of what was recorded of the training users.

    Example:
        >>> horizon_table([CopyLast(), CityMedian().fit(training_task)], task)  # doctest: +SKIP
    """

    name = "CityMedian"

    def __init__(self) -> None:
        self.point: np.ndarray | None = None  # (2,) box units

    def fit(self, tasks: TrajectoryTask | Sequence[TrajectoryTask]) -> CityMedian:
        """Find the point from the recorded past of training users (100,000 records at most); returns self."""
        tasks = _as_list(tasks)
        points = np.concatenate([task.records.distinct() for task in tasks])
        self.point = geometric_median(points[:: 1 + len(points) // _MOST], tasks[0].metres_per_unit)
        return self

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        """(N, H, 2) float32 box units.

        Raises:
            ValueError: it is not fitted.
        """
        return np.broadcast_to(_fitted(self.point, self.name), task.future.shape).astype(np.float32)


class Shrinkage:
    """The last point, moved towards the city's median by a share of the way: `last + w (median - last)`.

    The share `w` of each horizon is the one of 0, 0.02, .. 1 with the least mean distance on training users. A model
    that is nearer than standing still, but not than this, has learned where the middle of the city is.

    Example:
        >>> Shrinkage().fit(training_task).predict(task)  # doctest: +SKIP
    """

    name = "Shrinkage"

    def __init__(self) -> None:
        self.city = CityMedian()
        self.shares: dict[int, float] | None = None  # slots ahead -> w

    def fit(self, tasks: TrajectoryTask | Sequence[TrajectoryTask]) -> Shrinkage:
        """Find the median and the share of each horizon on training users; returns self.

        Args:
            tasks: one or several, with the horizons that will be predicted. Filled futures do not count.
        """
        tasks = _as_list(tasks)
        middle = _fitted(self.city.fit(tasks).point, self.name)
        self.shares = {}
        for column, step in enumerate(tasks[0].steps):
            ends = [_ends(task, column) for task in tasks]
            last, wanted = (np.concatenate(points) for points in zip(*ends))
            made = last[:, None] + _SHARES[:, None] * (middle - last)[:, None]
            distance = np.linalg.norm((made - wanted[:, None]) * tasks[0].metres_per_unit, axis=-1)
            self.shares[int(step)] = float(_SHARES[distance.mean(axis=0).argmin()]) if len(distance) else 0.0
        return self

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        """(N, H, 2) float32 box units.

        Raises:
            ValueError: it is not fitted, or not for these horizons.
        """
        shares = _fitted(self.shares, self.name)
        unknown = [int(step) for step in task.steps if int(step) not in shares]
        if unknown:
            raise ValueError(f"{self.name} was fitted for {sorted(shares)} slots ahead, not for {unknown}.")
        share = np.array([shares[int(step)] for step in task.steps])[:, None]
        last = task.known[:, -1:]
        return np.asarray(last + share * (self.city.predict(task) - last), np.float32)


def _ends(task: TrajectoryTask, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Last known points (n, 2) and what was recorded afterwards (n, 2), one horizon."""
    rows = task.recorded[:, column]
    return task.known[rows, -1], task.future[rows, column]


def _as_list(tasks: TrajectoryTask | Sequence[TrajectoryTask]) -> list[TrajectoryTask]:
    return [tasks] if isinstance(tasks, TrajectoryTask) else list(tasks)


def _fitted(value: T | None, name: str) -> T:
    if value is None:
        raise ValueError(f"{name} is not fitted; call fit(tasks) first.")
    return value


__all__ = ["CityMedian", "CopyLast", "Shrinkage"]
