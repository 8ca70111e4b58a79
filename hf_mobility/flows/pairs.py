"""What a model may know of a pair of regions: distances, ranks and the opportunities between them.

All functions work on some rows (origins) at a time, so that an area of n regions never needs more than a block of
origins times n.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..tokenization.grid import haversine_km
from .task import FlowArea

MASSES = ("population", "points of interest")
PAIR_FEATURES = (
    "same region",
    "log distance",
    "log distance by spacing at the origin",
    "log distance by spacing at the destination",
    "log distance by size of the area",
    "log rank by distance",
    "share of nearer regions",
    *(f"{what} {mass}" for mass in MASSES for what in ("log intervening", "share of intervening", "log radiation of")),
)
BLOCK_PAIRS = 1 << 18  # pairs looked at together
LEAST_KM = 0.1  # added to distances before their logarithm
NEIGHBOURS = 3  # whose mean distance is the spacing of regions
FAR_KM, FAR_TIMES = 300.0, 10.0  # from the middle: further than both, a point cannot belong to the area


def blocks(area: FlowArea, pairs: int = BLOCK_PAIRS) -> Iterator[np.ndarray]:
    """Rows of an area, as many at a time as keep below so many pairs."""
    size = max(1, pairs // len(area))
    for first in range(0, len(area), size):
        yield np.arange(first, min(first + size, len(area)))


def misplaced(area: FlowArea) -> np.ndarray:
    """bool (n,): the point lies more than 300 km, and ten times as far as usual, from the middle of the area."""
    from_middle = haversine_km(area.lat, area.lon, np.median(area.lat), np.median(area.lon))
    return (from_middle > FAR_KM) & (from_middle > FAR_TIMES * np.median(from_middle))


def distances(area: FlowArea, rows: np.ndarray) -> np.ndarray:
    """Great-circle distances (len(rows), n) in km. A misplaced region is as far from all others as is usual there."""
    km = haversine_km(area.lat[rows, None], area.lon[rows, None], area.lat, area.lon)
    wrong = misplaced(area)
    if wrong.any():
        right = ~wrong
        middle = np.median(area.lat[right]), np.median(area.lon[right])
        usual = max(float(np.median(haversine_km(area.lat[right], area.lon[right], *middle))), LEAST_KM)
        km[wrong[rows]] = usual
        km[:, wrong] = usual
        km[rows[:, None] == np.arange(len(area))] = 0.0
    return km


class PairGeometry:
    """Features of pairs of one area.

    Args:
        area: n regions.
        masses: float64 (n, 2), population and points of interest; those of a nearer region intervene.
    """

    def __init__(self, area: FlowArea, masses: np.ndarray) -> None:
        self.area, self.masses = area, masses
        self.spacing = np.concatenate([self._spacing(rows) for rows in blocks(area)])  # (n,) km
        self.size = float(self.spacing.mean() * np.sqrt(len(area)))  # km

    def _spacing(self, rows: np.ndarray) -> np.ndarray:
        count = min(NEIGHBOURS, len(self.area) - 1)
        if not count:
            return np.ones(len(rows))
        nearest = np.partition(distances(self.area, rows), count, axis=1)[:, 1 : count + 1]
        return nearest.mean(axis=1) + LEAST_KM

    def features(self, rows: np.ndarray) -> np.ndarray:
        """float32 (len(rows), n, len(PAIR_FEATURES)), the origins being `rows`."""
        km = distances(self.area, rows) + LEAST_KM
        same = rows[:, None] == np.arange(len(self.area))
        order = np.argsort(np.where(same, -1.0, km), axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(len(self.area))[None].repeat(len(rows), axis=0), axis=1)
        columns = [same, np.log(km), np.log(km / self.spacing[rows, None]), np.log(km / self.spacing)]
        columns += [np.log(km / self.size), np.log1p(rank), rank / len(self.area)]
        for mass in self.masses.T:
            between = intervening(mass, order)
            own, total = mass[rows, None], max(mass.sum(), 1.0)
            chance = (own + 1) * (mass + 1) / ((own + between + 1) * (own + between + mass + 2))
            columns += [np.log1p(between), between / total, np.log(chance)]
        return np.stack(columns, axis=-1).astype(np.float32)


def intervening(mass: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Mass (rows, n) of the regions that are nearer to an origin than a destination, neither of them counted.

    Args:
        mass: (n,).
        order: (rows, n), destinations by distance, the origin first.
    """
    sorted_mass = mass[order]
    before = np.cumsum(sorted_mass, axis=1) - sorted_mass
    before[:, 1:] -= sorted_mass[:, :1]
    found = np.empty_like(before)
    np.put_along_axis(found, order, np.maximum(before, 0), axis=1)
    return found
