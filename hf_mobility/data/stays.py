"""GPS points to stays to visits: jump filter, stay-point detection, and stays on a grid's cells.

A stay, in the words of Li et al. (2008): an anchor point and all points that follow it without leaving the circle of
`distance_metres` around it, if they cover at least `min_minutes`. Anchors are tried in order of time; after a stay
the search goes on with the first point outside, after a failed anchor with the next point. A stay lasts from its first
to its last point inside, and never spans a silence longer than `max_gap_minutes`.

The definition is sequential, the work is not: a vectorised test on where people are `min_minutes` after each point
rejects nearly all anchors, and the loop runs once per stay rather than once per point.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.errors import DataError
from ..tokenization.grid import EARTH_RADIUS_KM, SquareGrid, haversine_km
from .frames import validate_points

__all__ = ["detect_stays", "drop_jumps", "stays_to_visits"]

_MICROS_PER_MINUTE = 60_000_000
BLOCK = 2**17  # points whose values stay in the processor's cache
PROBES = (1.0, 0.5, 0.25, 0.75, 0.125, 0.375, 0.625, 0.875)  # of the least duration


def drop_jumps(points: Any, *, max_kmh: float = 200.0) -> pd.DataFrame:
    """Points frame without jumps of the positioning: no step between a user's points is faster than `max_kmh`.

    In rounds, a point that is reached too fast is dropped, unless the point before it is dropped in the same round; so
    of a single outlier only the outlier goes, not the way back from it. Extra columns of `points` are dropped.

    Args:
        points: anything that `validate_points` takes.
        max_kmh: positive speed.

    Raises:
        DataError: the points are no valid points frame, or `max_kmh` is not positive.
    """
    _positive("max_kmh", max_kmh)
    points = validate_points(points)
    lat, lon, time, user = _arrays(points)
    before = np.arange(-1, len(points) - 1)  # the kept point before each; -1 = none
    before[np.flatnonzero(np.diff(user, prepend=-1))] = -1
    after = np.full(len(points), -1)
    after[before[before >= 0]] = np.flatnonzero(before >= 0)
    kept = np.ones(len(points), dtype=bool)

    suspects = np.flatnonzero(before >= 0)
    while len(suspects):
        origin = before[suspects]
        km = haversine_km(lat[origin], lon[origin], lat[suspects], lon[suspects])
        hours = (time[suspects] - time[origin]) / (60 * _MICROS_PER_MINUTE)
        fast = suspects[km > max_kmh * hours]
        # Of a run of steps that are all too fast only every other point goes in one round: the run's odd members.
        gone = fast[_odd_members(fast, before)]
        kept[gone] = False
        origin, successor = before[gone], after[gone]
        after[origin] = successor
        bridged = successor >= 0
        before[successor[bridged]] = origin[bridged]
        suspects = successor[bridged]
    return points[kept].reset_index(drop=True)


def detect_stays(
    points: Any, *, distance_metres: float = 100.0, min_minutes: float = 10.0, max_gap_minutes: float = 60.0
) -> pd.DataFrame:
    """Stays of each user, as defined at the top of this file.

    Args:
        points: anything that `validate_points` takes.
        distance_metres: radius around the anchor.
        min_minutes: least duration.
        max_gap_minutes: a silence longer than this ends a stay.

    Returns:
        Visits frame without locations, sorted by user and time: `user_id`, `time` (of the first point), `lat`,
        `lon` (mean of the points), `duration` (seconds to the last point). No rows if nobody stays anywhere.

    Raises:
        DataError: the points are no valid points frame, or a threshold is not positive.
    """
    for name, value in (("distance_metres", distance_metres), ("min_minutes", min_minutes)):
        _positive(name, value)
    _positive("max_gap_minutes", max_gap_minutes)
    points = validate_points(points)
    lat, lon, time, user = _arrays(points)
    breaks = np.diff(user, prepend=-1) != 0
    breaks[1:] |= np.diff(time) > max_gap_minutes * _MICROS_PER_MINUTE
    first, stop = _find_runs(lat, lon, time, breaks, distance_metres / 1000, round(min_minutes * _MICROS_PER_MINUTE))

    size = stop - first
    stays = points[["user_id", "time"]].take(first).reset_index(drop=True)
    inside = np.repeat(first - np.concatenate([[0], np.cumsum(size)[:-1]]), size) + np.arange(size.sum())
    anchor = np.repeat(first, size)
    stay = np.repeat(np.arange(len(first)), size)
    # Means of offsets from the anchor, so that a stay on the antimeridian stays there.
    north = np.bincount(stay, lat[inside] - lat[anchor], minlength=len(first)) / size
    east = np.bincount(stay, (lon[inside] - lon[anchor] + 180) % 360 - 180, minlength=len(first)) / size
    stays["lat"] = lat[first] + north
    stays["lon"] = (lon[first] + east + 180) % 360 - 180
    stays["duration"] = (time[stop - 1] - time[first]) / 1e6
    return stays


def stays_to_visits(stays: pd.DataFrame, grid: SquareGrid, *, max_gap_minutes: float = 60.0) -> pd.DataFrame:
    """Visits to a grid's cells: stays of one user that follow each other in the same cell are merged.

    Args:
        stays: frame with `user_id`, `time`, `lat`, `lon`, `duration`, as `detect_stays` returns it.
        grid: stays outside it are left out (and keep the stays around them apart).
        max_gap_minutes: stays further apart than this are not merged.

    Returns:
        Canonical visits frame: `location_id` is the cell `r<row>c<col>`, `lat` and `lon` its centre,
        `duration` runs from the first stay's begin to the last one's end.

    Raises:
        DataError: a column is missing, or no stay lies inside the grid.
    """
    missing = [name for name in ("user_id", "time", "lat", "lon", "duration") if name not in stays.columns]
    if missing:
        raise DataError(f"The stays lack the column(s) {', '.join(missing)}; make them with detect_stays.")
    _positive("max_gap_minutes", max_gap_minutes)
    stays = stays.sort_values(["user_id", "time"], kind="stable", ignore_index=True)
    cell = grid.cell(stays["lat"], stays["lon"])
    if not (cell >= 0).any():
        raise DataError(f"None of the {len(stays)} stays lies inside the grid {grid}.")
    stays["time"] = stays["time"].dt.as_unit("us")
    start = stays["time"].astype("int64").to_numpy()
    end = start + np.round(stays["duration"].to_numpy() * 1e6).astype(np.int64)
    user = pd.factorize(stays["user_id"])[0]
    new = np.ones(len(stays), dtype=bool)
    new[1:] = (np.diff(user) != 0) | (np.diff(cell) != 0)
    new[1:] |= start[1:] - end[:-1] > max_gap_minutes * _MICROS_PER_MINUTE

    head = np.flatnonzero(new)
    last = np.append(head[1:], len(stays)) - 1
    visits = stays.loc[head, ["user_id", "time"]].reset_index(drop=True)
    visits["location_id"] = pd.Series(grid.cell_id(cell[head]))
    visits["lat"], visits["lon"] = grid.centre(cell[head])
    visits["duration"] = (end[last] - start[head]) / 1e6
    return visits[cell[head] >= 0].astype({"location_id": str}).reset_index(drop=True)


# ----------------------------------------------------------------------------------------------------------- the search


class _Circles:
    """Circles around points, on planes that touch the Earth there: exact enough for the size of a stay, and cheap."""

    def __init__(self, lat: np.ndarray, lon: np.ndarray, radius_km: float) -> None:
        self.north, self.east = np.radians(lat) * EARTH_RADIUS_KM, np.radians(lon) * EARTH_RADIUS_KM
        self.shrink = np.cos(np.radians(lat))
        # Only then may two points lie on the two sides of the date line.
        self.round = 2 * np.pi * EARTH_RADIUS_KM if np.ptp(lon) > 180 else None
        self.square = radius_km**2

    def leave(self, points: Any, anchors: Any) -> np.ndarray:
        """Which points lie outside the circles of their anchors."""
        north, east = self.north[points] - self.north[anchors], self.east[points] - self.east[anchors]
        if self.round is not None:
            east -= self.round * np.rint(east / self.round)
        east *= self.shrink[anchors]
        north *= north
        east *= east
        north += east
        return north > self.square

    def first_outside(self, anchor: int, goal: int, stop: int) -> int:
        """The first point after `anchor` outside its circle, or `stop`; looks at ever longer stretches."""
        begin, end = anchor + 1, min(goal + 1, stop)
        while begin < stop:
            outside = self.leave(slice(begin, end), anchor)
            found = int(outside.argmax())
            if outside[found]:
                return begin + found
            begin, end = end, min(end + 2 * (end - anchor), stop)
        return stop


def _find_runs(
    lat: np.ndarray, lon: np.ndarray, time: np.ndarray, breaks: np.ndarray, radius_km: float, least: int
) -> tuple[np.ndarray, np.ndarray]:
    """First point and one past the last point of each stay; `breaks` marks points that begin a new segment."""
    count, circles = len(lat), _Circles(lat, lon, radius_km)
    starts = np.flatnonzero(breaks)
    stops = np.append(starts[1:], count)
    stop = np.repeat(stops, stops - starts)

    # One ascending clock for all segments: each begins more than `least` after the end of the one before.
    step = np.diff(time, prepend=time[0])
    step[breaks] = least + 1
    clock = np.cumsum(step)
    goal = np.empty(count, dtype=np.int64)
    is_anchor = np.zeros(count, dtype=bool)
    for begin in range(0, count, BLOCK):
        block = slice(begin, begin + BLOCK)
        goal[block] = np.searchsorted(clock, clock[block] + least, side="left")
        anchors = begin + np.flatnonzero(goal[block] < stop[block])
        for share in PROBES:
            probe = anchors + np.ceil((goal[anchors] - anchors) * share).astype(np.int64)
            anchors = anchors[~circles.leave(probe, anchors)]
        is_anchor[anchors] = True

    anchors, before = np.flatnonzero(is_anchor), is_anchor.cumsum()  # how many up to each point
    first, past = [], []
    position = 0
    while position < len(anchors):
        anchor = int(anchors[position])
        exit_ = circles.first_outside(anchor, int(goal[anchor]), int(stop[anchor]))
        if exit_ > goal[anchor]:
            first.append(anchor)
            past.append(exit_)
            position = int(before[exit_ - 1])
        else:
            position += 1
    return np.array(first, dtype=np.int64), np.array(past, dtype=np.int64)


def _odd_members(fast: np.ndarray, before: np.ndarray) -> np.ndarray:
    """For each fast point, whether it is the 1st, 3rd, ... of a chain in which each follows the one before."""
    if not len(fast):
        return np.zeros(0, dtype=bool)
    begins = np.ones(len(fast), dtype=bool)
    begins[1:] = before[fast[1:]] != fast[:-1]
    head = np.maximum.accumulate(np.where(begins, np.arange(len(fast)), 0))
    return (np.arange(len(fast)) - head) % 2 == 0


def _arrays(points: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """lat, lon, time in microseconds, user code."""
    time = points["time"].dt.as_unit("us").astype("int64").to_numpy()
    return points["lat"].to_numpy(), points["lon"].to_numpy(), time, pd.factorize(points["user_id"])[0]


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise DataError(f"{name} must be positive, not {value}.")
