"""Tasks of trajectory prediction on a plane, whose unit is a kilometre."""

from __future__ import annotations

import numpy as np

from hf_mobility.data.trajectory_tasks import TrajectoryTask

KM = np.array([1000.0, 1000.0])  # metres of a unit


def plane_task(points: np.ndarray, steps: int, slots_per_day: int = 4) -> TrajectoryTask:
    """Points (N, T + steps, 2) of N users from a Monday on, all of them recorded."""
    points = np.asarray(points, dtype=np.float32)
    return TrajectoryTask(
        known=points[:, :-steps],
        future=points[:, -steps:],
        users=np.arange(len(points)),
        start_weekday=np.zeros(len(points), np.int64),
        slots_per_day=slots_per_day,
        metres_per_unit=KM,
        degrees=lambda units: (np.asarray(units)[..., 1], np.asarray(units)[..., 0]),
        recorded=np.ones((len(points), steps), bool),
    )
