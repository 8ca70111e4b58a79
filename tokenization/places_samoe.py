"""Positions of a city's places: the plane they are measured in, the nearest place, and whether records belong here.

Ids alone do not tell a city: simulated cities share theirs, and many data sets number places from 0. So coordinates,
where there are any, are compared with the places that the ids name.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from .errors import SHOWN
from .grid import ROUNDED_KM_PER_DEGREE, unwrapped, wrapped
from .poi import from_scipy

FAR_KM = 10.0  # no place to snap to, unless the city itself is wider
EQUALLY_NEAR = 8  # different points that may be as near as the nearest; on a grid there are four
NOISE_KM = 1.0  # check-ins are that far from their place, or as far as places are from one another


class Places:
    """The places of a city, `lat` and `lon` (N,) float64 degrees, in km east and north of their middle."""

    def __init__(self, lat: np.ndarray, lon: np.ndarray, name: str) -> None:
        self.lat0, self.lon0 = lat.mean(), unwrapped(lon).mean()
        self.called = f"the city {name!r}" if name else "this city"
        self.km = self.to_km(lat, lon)
        self.extent = np.ptp(self.km, axis=0)

    def to_km(self, lat: Any, lon: Any) -> np.ndarray:
        """(n,), (n,) degrees -> (n, 2) float64 (local equirectangular plane)."""
        lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
        scale = np.cos(np.radians(self.lat0))
        return ROUNDED_KM_PER_DEGREE * np.stack([wrapped(lon - self.lon0) * scale, lat - self.lat0], axis=1)

    def nearest(self, lat: Any, lon: Any, *, visits: int | None = None) -> np.ndarray:
        """Row of the place nearest to each point, degrees (n,), (n,) -> (n,) int64; the first of those equally near.

        Args:
            visits: how many visits there are, where these points are only those at unlisted places.

        Raises:
            ImportError: without scipy.
            ValueError: if more than half of the visits are farther from all places than the city is wide.
        """
        points = self.to_km(lat, lon)
        tree, first_rows = self._tree
        number = min(EQUALLY_NEAR, len(first_rows))
        near = first_rows[tree.query(points, number)[1].reshape(-1, number)]
        squared = ((self.km[near] - points[:, None]) ** 2).sum(-1)
        rows = np.where(squared == squared.min(1, keepdims=True), near, len(self.km)).min(1)
        limit = max(FAR_KM, float(np.hypot(*self.extent)))
        far = np.hypot(*(points - self.km[rows]).T) > limit
        self._refuse(far, visits or len(far), lat, lon, f"more than {limit:.0f} km from every place")
        return rows

    @cached_property
    def _tree(self) -> tuple[Any, np.ndarray]:
        """A tree of the different points, because it cannot split equal ones, and the first row of each."""
        different, first_rows = np.unique(self.km, axis=0, return_index=True)
        return from_scipy()[0](different), first_rows

    def check(self, rows: np.ndarray, lat: Any, lon: Any) -> None:
        """Compare points with the places that their ids name.

        Raises:
            ValueError: if most lie farther from them than the noise of check-ins and the spacing of places explain.
        """
        spacing = float(np.sqrt(self.extent.prod() / len(self.km)))
        limit = max(NOISE_KM, spacing)
        apart = np.hypot(*(self.to_km(lat, lon) - self.km[rows]).T)
        far = apart > limit
        self._refuse(far, len(far), lat, lon, f"more than {limit:.1f} km from the place that their location_id names")

    def _refuse(self, far: np.ndarray, visits: int, lat: Any, lon: Any, where: str) -> None:
        if 2 * int(far.sum()) <= visits:
            return
        first = np.flatnonzero(far)[:SHOWN]
        shown = ", ".join(f"({a:g}, {b:g})" for a, b in zip(np.asarray(lat)[first], np.asarray(lon)[first]))
        raise ValueError(
            f"{int(far.sum())} of {visits} visits lie {where} in {self.called} (first {shown}): they are of "
            "another city; build its City and pass it (city=, or --city on the command line)."
        )
