"""The coast around a city, without network: land of Natural Earth at 1:10 million, simplified.

`coast.npz` is made by `tools/make_coast.py`, which names its source. Natural Earth is in the public domain. The coast
is right to about a kilometre: it shows on what side the sea lies and no more. Lakes and rivers are not in it.
"""

from __future__ import annotations

import io
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

CREDIT = "coast: Natural Earth"
MARGIN = 3.0  # degrees of land around the box, for whoever zooms out


class _Land(NamedTuple):
    """Rings as slices of `points` (P, 2) degrees, and the box of each: (R, 2) least and largest latitude, longitude."""

    points: np.ndarray
    ends: np.ndarray
    least: np.ndarray
    largest: np.ndarray


def land_near(south: float, west: float, north: float, east: float, *, margin: float = MARGIN) -> list[np.ndarray]:
    """The land in a box of degrees and `margin` degrees around it.

    Returns:
        Rings (n, 2) of latitude and longitude, not closed. None where no coast lies in the box itself or within a tenth
        of its height or width: inland the picture stays as it is. A box over the 180th meridian has no coast.

    Example:
        >>> rings = land_near(37.6, -122.6, 37.9, -122.2)  # San Francisco
    """
    lower, upper = np.array([south, west]), np.array([north, east])
    close = 0.1 * (upper - lower)
    if not _has_coast(_clipped(lower - close, upper + close), lower - close, upper + close):
        return []
    return _clipped(lower - margin, upper + margin)


def _has_coast(rings: list[np.ndarray], lower: np.ndarray, upper: np.ndarray) -> bool:
    """Whether the box is neither all land nor all water."""
    land = sum(abs(_area(ring)) for ring in rings)
    return bool(0 < land < 0.999 * float(np.prod(upper - lower)))


def _area(ring: np.ndarray) -> float:
    y, x = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _clipped(lower: np.ndarray, upper: np.ndarray) -> list[np.ndarray]:
    land = _land()
    met = ((land.least < upper) & (land.largest > lower)).all(axis=1)
    found = []
    for index in np.flatnonzero(met):
        ring = land.points[land.ends[index] : land.ends[index + 1]]
        for axis in (0, 1):
            ring = _cut(_cut(ring, axis, lower[axis], 1), axis, upper[axis], -1)
        if len(ring) > 2:
            found.append(ring)
    return found


def _cut(ring: np.ndarray, axis: int, limit: float, sign: int) -> np.ndarray:
    """The part of a ring on one side of a line (Sutherland and Hodgman, 1974)."""
    inside = sign * (ring[:, axis] - limit) >= 0
    after = np.roll(ring, -1, axis=0)
    crosses = inside != np.roll(inside, -1)
    step = after[:, axis] - ring[:, axis]
    share = np.divide(limit - ring[:, axis], step, out=np.zeros(len(ring)), where=step != 0)
    pairs = np.stack([ring, ring + share[:, None] * (after - ring)], axis=1)
    return pairs[np.stack([inside, crosses], axis=1)]


@lru_cache(maxsize=1)
def _land() -> _Land:
    with np.load(io.BytesIO(files(__package__).joinpath("coast.npz").read_bytes())) as stored:
        steps, first, lengths = stored["steps"].astype(np.int64), stored["first"], stored["lengths"]
        unit = float(stored["unit"])
    ends = np.concatenate([[0], np.cumsum(lengths)])
    # Each ring is its first point and the steps from one point to the next; the sums begin anew in each ring.
    before = np.cumsum(steps, axis=0)
    offset = first - before[ends[:-1]]
    points = (before + np.repeat(offset, lengths, axis=0)) * unit
    least, largest = (reduce.reduceat(points, ends[:-1], axis=0) for reduce in (np.minimum, np.maximum))
    return _Land(points, ends, least, largest)
