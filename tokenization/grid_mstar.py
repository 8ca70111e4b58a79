"""Nested square grids of M-STAR: cell centres, the map from the finest cells to those of every coarser resolution, and
points -> cells.

Unusual: where the number of rows is no multiple of a factor, the last coarse cell is smaller (30 rows -> 15 -> 8 -> 4:
edge halves, rounded up), so every resolution nests in the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

KM_PER_DEGREE = 111.195
MAX_CELLS = 200_000
SHOWN = 5  # offenders named in a message
Box = tuple[float, float, float, float]


def checked_box(box: Sequence[float]) -> Box:
    """`(south, west, north, east)` in degrees as floats.

    Raises:
        ValueError: for a box that is empty, off the globe, or not of four numbers.
    """
    values = tuple(float(edge) for edge in box)
    if len(values) != 4:
        raise ValueError(f"box must be (south, west, north, east) in degrees, got {len(values)} numbers.")
    south, west, north, east = values
    if not (-90 <= south < north <= 90 and -180 <= west < east <= 180):
        raise ValueError(
            f"the box south={south}, west={west}, north={north}, east={east} is empty or off the globe; give "
            "(south, west, north, east) in degrees, not across the antimeridian."
        )
    return south, west, north, east


def box_around(lat: Any, lon: Any, *, coverage: float = 1.0) -> Box:
    """The smallest box around the points; with `coverage` below 1, around that central share of them (per axis).

    Raises:
        ValueError: for no points, coordinates that are missing or off the globe, or a coverage outside (0, 1].
    """
    lat, lon = checked_points(lat, lon)
    if len(lat) == 0:
        raise ValueError("there are no points to build a grid around: the frame is empty.")
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage must lie in (0, 1], got {coverage}.")
    ends = [(1 - coverage) / 2, (1 + coverage) / 2]
    (south, north), (west, east) = np.quantile(lat, ends), np.quantile(lon, ends)
    margin = 1e-6  # a tenth of a metre, so that a single point has a box
    return float(south) - margin, float(west) - margin, float(north) + margin, float(east) + margin


def widened_box(box: Box, *, cell_km: float) -> tuple[Box, int, int]:
    """The box widened about its middle to a whole number of cells of `cell_km`; with it rows and columns.

    Raises:
        ValueError: for a size that is not positive, or a grid of more than 200,000 cells.
    """
    if not cell_km > 0:
        raise ValueError(f"cell_km must be positive, got {cell_km}.")
    south, west, north, east = box
    high = cell_km / KM_PER_DEGREE
    wide = high / np.cos(np.radians((south + north) / 2))
    rows = max(1, int(np.ceil((north - south) / high - 1e-9)))
    columns = max(1, int(np.ceil((east - west) / wide - 1e-9)))
    if rows * columns > MAX_CELLS:
        raise ValueError(
            f"cells of {cell_km} km over the data's box make a grid of {rows} x {columns} = {rows * columns} cells, "
            f"more than {MAX_CELLS}: give a smaller box, a coverage below 1 (0.99 leaves far points out), or larger "
            "cells."
        )
    up, right = (rows * high - (north - south)) / 2, (columns * wide - (east - west)) / 2
    return checked_box((south - up, west - right, north + up, east + right)), rows, columns


def cell_centres(box: Box, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of every cell, (C,) float64; cell = row * columns + column, row 0 in the south."""
    south, west, north, east = box
    row, column = np.divmod(np.arange(rows * columns), columns)
    return south + (row + 0.5) * (north - south) / rows, west + (column + 0.5) * (east - west) / columns


def cells_at(lat: np.ndarray, lon: np.ndarray, box: Box, rows: int, columns: int) -> np.ndarray:
    """Cell of each point, int64; -1 outside the box. The box's own northern and eastern edges belong to it."""
    south, west, north, east = box
    inside = (lat >= south) & (lat <= north) & (lon >= west) & (lon <= east)
    row = ((np.where(inside, lat, south) - south) / (north - south) * rows).astype(np.int64)
    column = ((np.where(inside, lon, west) - west) / (east - west) * columns).astype(np.int64)
    cell = np.minimum(row, rows - 1) * columns + np.minimum(column, columns - 1)
    return np.where(inside, cell, -1)


def nested_map(rows: int, columns: int, factors: Sequence[int]) -> np.ndarray:
    """(C, R) int32: the cell of each resolution that holds each finest cell, coarse to fine.

    Resolution r has `ceil(rows / factors[r])` x `ceil(columns / factors[r])` cells.

    Raises:
        ValueError: unless the factors fall, each is a multiple of the next, and the last is 1.
    """
    sizes = [int(factor) for factor in factors]
    nested = bool(sizes) and sizes[-1] == 1 and all(a > b and a % b == 0 for a, b in pairwise(sizes))
    if not nested:
        raise ValueError(
            f"factors must fall from coarse to fine, each a multiple of the next, and end with 1, as (8, 4, 2, 1); "
            f"got {tuple(factors)}."
        )
    if rows < 1 or columns < 1 or rows * columns > MAX_CELLS:
        raise ValueError(f"a grid has 1 to {MAX_CELLS} cells, got {rows} rows x {columns} columns.")
    row, column = np.divmod(np.arange(rows * columns), columns)
    levels = [(row // size) * -(-columns // size) + column // size for size in sizes]
    return np.stack(levels, axis=1).astype(np.int32)


def checked_points(lat: Any, lon: Any) -> tuple[np.ndarray, np.ndarray]:
    """Columns `lat`, `lon` as float64.

    Raises:
        ValueError: for missing values or values off the globe: which column, how many, the first rows.
    """
    checked = []
    for name, values, limit in (("lat", lat, 90), ("lon", lon, 180)):
        degrees = np.asarray(values, dtype=np.float64)
        bad = np.flatnonzero(~(np.abs(degrees) <= limit))
        if len(bad):
            raise ValueError(
                f"column {name!r}: {len(bad)} of {len(degrees)} values are missing or outside -{limit}..{limit} "
                f"degrees (first rows {bad[:SHOWN].tolist()}); drop these rows or repair them."
            )
        checked.append(degrees)
    return checked[0], checked[1]
