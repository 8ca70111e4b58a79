"""Baselines of trajectory prediction that read a user's own records and nobody else's; nothing is learned.

They read the whole known past, `TrajectoryTask.records`: slots that were filled in do not count, and windows before
the task's own one do. All predict box units and are deterministic.
"""

from __future__ import annotations

import numpy as np

from ..data.trajectory_tasks import TrajectoryTask
from .geometric_median import geometric_median
from .trajectories import CopyLast

REACH_MINUTES = 30.0


class HourMean:
    """The mean of a user's recorded points at that time of the day; where there are none, the last point.

    Args:
        reach_minutes: records at most this much earlier or later in the day count.
    """

    name = "HourMean"

    def __init__(self, *, reach_minutes: float = REACH_MINUTES) -> None:
        self.reach_minutes = reach_minutes

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        """(N, H, 2) float32 box units."""
        predicted = CopyLast().predict(task)
        day, reach = task.slots_per_day, int(self.reach_minutes / task.interval_minutes)
        for row in range(len(task)):
            slot, points = task.records.of(row)
            wanted = task.records.origin[row] + task.known.shape[1] - 1 + task.steps
            apart = np.abs(slot - wanted[:, None]) % day
            counted = np.minimum(apart, day - apart) <= reach
            steps = np.flatnonzero(counted.any(axis=1))
            if len(steps):
                predicted[row, steps] = self._middle(points, counted[steps], task.metres_per_unit)
        return predicted

    def _middle(self, points: np.ndarray, counted: np.ndarray, metres_per_unit: np.ndarray) -> np.ndarray:
        """(H, 2): of points (R, 2), of which each horizon counts some, bool (H, R)."""
        return counted @ points.astype(np.float64) / counted.sum(axis=1, keepdims=True)


class HourMedian(HourMean):
    """The geometric median of a user's recorded points at that time of the day; where there are none, the last point.

    A mean lies between home and work; the median is one of them, and errors are distances.
    """

    name = "HourMedian"

    def _middle(self, points: np.ndarray, counted: np.ndarray, metres_per_unit: np.ndarray) -> np.ndarray:
        some = counted.any(axis=0)
        return geometric_median(points[some], metres_per_unit, counted[:, some])


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
        predicted = CopyLast().predict(task)
        for row in range(len(task)):
            slot, points = task.records.of(row)
            now = task.records.origin[row] + task.known.shape[1] - 1
            distance = self._distance(slot - now, points, task.known[row, -1], task)
            near = np.flatnonzero(distance <= self.reach)
            near = near[np.argsort(distance[near], kind="stable")]
            later = slot[near] + task.steps[:, None]
            place = np.searchsorted(slot, later).clip(max=len(slot) - 1)
            known = (slot[place] == later) if len(near) else np.zeros(later.shape, bool)
            votes = known & (np.cumsum(known, axis=1) <= self.neighbours)
            steps = np.flatnonzero(votes.any(axis=1))
            if len(steps):
                followed = np.concatenate([points[place[steps]], predicted[row, steps, None]], axis=1)
                counted = np.concatenate([votes[steps], np.ones((len(steps), 1), bool)], axis=1)
                predicted[row, steps] = geometric_median(followed, task.metres_per_unit, counted)
        return predicted

    def _distance(self, before: np.ndarray, points: np.ndarray, here: np.ndarray, task: TrajectoryTask) -> np.ndarray:
        """(R,) of each record from now, `before` slots away."""
        km = np.linalg.norm((points - here) * task.metres_per_unit, axis=-1) / 1000
        apart = before % task.slots_per_day
        hours = np.minimum(apart, task.slots_per_day - apart) * task.interval_minutes / 60
        return np.asarray(km + hours)


__all__ = ["HourMean", "HourMedian", "NearestPast"]
