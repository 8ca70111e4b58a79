"""What a model may know of a region: its columns, its share of the area and what lies around it."""

from __future__ import annotations

import numpy as np

from ..tokenization.errors import DataError
from .pairs import LEAST_KM, MASSES, PairGeometry, blocks, distances
from .task import FlowArea

POPULATION = "total_population"
POI_PREFIX = "poi_"
RADII_KM = (2.0, 5.0, 15.0)
DERIVED = (
    *(
        f"{what} {mass}"
        for mass in MASSES
        for what in ("log share of", *(f"log share in {r:g} km of" for r in RADII_KM))
    ),
    *(f"log distance to the middle of {mass}" for mass in MASSES),
    "log spacing",
    "log size of the area",
    "log regions of the area",
    *(f"log {mass} of the area" for mass in MASSES),
)
_LEAST_SHARE = 1e-5


def masses_of(area: FlowArea) -> np.ndarray:
    """float64 (n, 2): population and points of interest. Where there are no points of interest, population twice.

    Raises:
        DataError: there is no column `total_population`, or it or a count of points of interest is negative.
    """
    (population,) = area.with_columns([POPULATION]).features.T
    if np.isnan(population).all():
        raise DataError(f"The regions have no column {POPULATION!r}; every model of flows needs it.")
    poi = np.array([name.startswith(POI_PREFIX) for name in area.columns])
    points = np.nan_to_num(area.features[:, poi]).sum(axis=1)
    if np.isnan(population).any() or (population < 0).any() or (points < 0).any():
        raise DataError(f"Population or points of interest of area {area.name!r} are missing or negative; repair them.")
    return np.stack([population, points if points.any() else population], axis=1)


def geometry_of(area: FlowArea) -> PairGeometry:
    return PairGeometry(area, masses_of(area))


def log_columns(features: np.ndarray) -> np.ndarray:
    """Columns as sign(x) log(1 + |x|): counts and percentages then have similar spreads."""
    return np.sign(features) * np.log1p(np.abs(features))


def derived_features(geometry: PairGeometry) -> np.ndarray:
    """float32 (n, len(DERIVED))."""
    area, masses = geometry.area, geometry.masses
    total = np.maximum(masses.sum(axis=0), 1.0)
    shares = masses / total
    around = np.concatenate([_around(area, shares, rows) for rows in blocks(area)])
    n = len(area)
    columns = []
    for m in range(len(MASSES)):
        columns += [np.log(shares[:, m] + _LEAST_SHARE), *np.log(around[:, : len(RADII_KM), m] + _LEAST_SHARE).T]
    columns += list(np.log(around[:, -1] + LEAST_KM).T)
    columns += [np.log(geometry.spacing), np.full(n, np.log(geometry.size)), np.full(n, np.log(n))]
    columns += [np.full(n, np.log(value)) for value in total]
    return np.stack(columns, axis=1).astype(np.float32)


def _around(area: FlowArea, shares: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(rows, radii + 1, masses): shares of the area within each radius, and mean distance (km) to the area's mass."""
    km = distances(area, rows)
    return np.stack([*((km <= radius).astype(float) @ shares for radius in RADII_KM), km @ shares], axis=1)
