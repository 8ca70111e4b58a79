"""Rivals of learned region vectors: how many points a region holds, in all and by hour. Nothing is learned."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..tokenization.grid import SquareGrid

HOURS, DAYS = 24, 7


def hours_of_visits(points: pd.DataFrame, grid: SquareGrid, timezone: str) -> np.ndarray:
    """Points of each cell by local day of the week (Monday first) and hour: int64 (cells, 7, 24).

    Args:
        points: canonical frame with `time`, `lat`, `lon`; points outside the grid do not count.
        grid: whose cells are the regions.
        timezone: IANA name, of whose clock the hours are.

    Example:
        >>> hours_of_visits(points, grid, "America/Los_Angeles").sum(axis=(1, 2))  # doctest: +SKIP
    """
    cell = grid.cell(points["lat"], points["lon"])
    time = points["time"].dt.tz_convert(timezone).dt
    hour = time.day_of_week.to_numpy() * HOURS + time.hour.to_numpy()
    inside = cell >= 0
    slots = DAYS * HOURS
    counts = np.bincount(cell[inside] * slots + hour[inside], minlength=slots * len(grid))
    return counts.reshape(-1, DAYS, HOURS)


def region_counts(points: pd.DataFrame, grid: SquareGrid, timezone: str, users: np.ndarray) -> dict[str, np.ndarray]:
    """Features of the cells of a grid, as log(1 + n): name -> (cells, any).

    Args:
        points, grid, timezone: as in `hours_of_visits`. users: (cells,) distinct users in each cell.

    Returns:
        "number of visitors", "total points", "visits by hour of the day" and "visits by hour of the week".
    """
    visits = hours_of_visits(points, grid, timezone)
    counts = {
        "number of visitors": np.asarray(users)[:, None],
        "total points": visits.sum(axis=(1, 2))[:, None],
        "visits by hour of the day": visits.sum(axis=1),
        "visits by hour of the week": visits.reshape(len(visits), -1),
    }
    return {name: np.log1p(values) for name, values in counts.items()}


__all__ = ["hours_of_visits", "region_counts"]
