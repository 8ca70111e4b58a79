"""Baselines of trajectory prediction that read a user's own records and nobody else's; nothing is learned.

They read the whole known past, `TrajectoryTask.records`: slots that were filled in do not count, and windows before
the task's own one do. All predict box units and are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..data.trajectory_tasks import TrajectoryTask
from .geometric_median import geometric_median
from .trajectories import CopyLast

REACH_MINUTES = 30.0
NEWEST = 50


class HourMean:
    """The mean of a user's recorded points at that time of the day; where there are none, the last point.

    Args:
        reach_minutes: records at most this much earlier or later in the day count.
        newest: how many of them at most, the newest ones.
    """

    name = "HourMean"

    def __init__(self, *, reach_minutes: float = REACH_MINUTES, newest: int = NEWEST) -> None:
        self.reach_minutes, self.newest = reach_minutes, newest

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        """(N, H, 2) float32 box units."""
        day, reach = task.slots_per_day, int(self.reach_minutes / task.interval_minutes)
        votes = _Votes(task, self.newest)
        for row in range(len(task)):
            slot, points = task.records.of(row)
            apart = np.abs(slot - _now(task, row) - task.steps[:, None]) % day
            near = np.minimum(apart, day - apart) <= reach
            for column, own in enumerate(near):
                votes.cast(row, column, points[np.flatnonzero(own)[-self.newest :]])
        return votes.counted(self._middle)

    def _middle(self, points: np.ndarray, metres_per_unit: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """(n, 2): of points (n, K, 2), of which some count, bool (n, K)."""
        return (points * counted[..., None]).sum(axis=1) / counted.sum(axis=1, keepdims=True)


class HourMedian(HourMean):
    """The geometric median of a user's recorded points at that time of the day; where there are none, the last point.

    A mean lies between home and work; the median is one of them, and errors are distances.
    """

    name = "HourMedian"

    def _middle(self, points: np.ndarray, metres_per_unit: np.ndarray, counted: np.ndarray) -> np.ndarray:
        return geometric_median(points, metres_per_unit, counted)


class NearestPast:
    """Where the user was some time after moments like this one: the analogue forecast.

    Moments are alike where the user was near and the time of the day is close; `distance = km + hours`. For each
    horizon the nearest moments after which there is a record vote, and the last point votes once; the answer is the
    geometric median of the votes. So a user without a past stands still.

    Args:
        neighbours: how many moments vote at most.
        reach: distance of the farthest moment that votes.

    Source: E. N. Lorenz, "Atmospheric predictability as revealed by naturally occurring analogues" (1969).
    """

    name = "NearestPast"

    def __init__(self, *, neighbours: int = 10, reach: float = 1.0) -> None:
        self.neighbours, self.reach = neighbours, reach

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        """(N, H, 2) float32 box units."""
        votes = _Votes(task, self.neighbours + 1)
        for row in range(len(task)):
            slot, points = task.records.of(row)
            distance = self._distance(slot - _now(task, row), points, task.known[row, -1], task)
            near = np.flatnonzero(distance <= self.reach)
            near = near[np.argsort(distance[near], kind="stable")]
            later = slot[near] + task.steps[:, None]
            place = np.searchsorted(slot, later).clip(max=len(slot) - 1)
            for column in range(len(later)):
                known = place[column][slot[place[column]] == later[column]][: self.neighbours]
                votes.cast(row, column, np.append(points[known], task.known[row, -1:], axis=0))
        return votes.counted(geometric_median)

    def _distance(self, before: np.ndarray, points: np.ndarray, here: np.ndarray, task: TrajectoryTask) -> np.ndarray:
        """(R,) of each record from now, `before` slots away."""
        km = np.linalg.norm((points - here) * task.metres_per_unit, axis=-1) / 1000
        apart = before % task.slots_per_day
        hours = np.minimum(apart, task.slots_per_day - apart) * task.interval_minutes / 60
        return np.asarray(km + hours)


class _Votes:
    """Points that speak for each future point of a task, `most` at most."""

    def __init__(self, task: TrajectoryTask, most: int) -> None:
        shape = (*task.future.shape[:2], most)
        self.task, self.points, self.cast_by = task, np.zeros((*shape, 2)), np.zeros(shape, bool)

    def cast(self, row: int, column: int, points: np.ndarray) -> None:
        self.points[row, column, : len(points)] = points
        self.cast_by[row, column, : len(points)] = True

    def counted(self, middle: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """(N, H, 2) float32: the middle of the votes; without one, the last point."""
        predicted = CopyLast().predict(self.task)
        voted = self.cast_by.any(axis=-1)
        predicted[voted] = middle(self.points[voted], self.task.metres_per_unit, self.cast_by[voted])
        return predicted


def _now(task: TrajectoryTask, row: int) -> int:
    """The last known slot, counted since 1970."""
    return int(task.records.origin[row]) + task.known.shape[1] - 1


__all__ = ["HourMean", "HourMedian", "NearestPast"]
