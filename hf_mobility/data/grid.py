"""Frames on a grid: the cell of each row as its place; H3 cells as an extra."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.errors import DataError
from ..tokenization.grid import SquareGrid

__all__ = ["assign_cells", "h3_cells"]


def assign_cells(frame: pd.DataFrame, grid: SquareGrid, *, snap: bool = False) -> pd.DataFrame:
    """A copy of a visits or points frame whose `location_id` is the grid cell `r<row>c<col>` of its point.

    Rows outside the grid are left out; the result has a fresh RangeIndex. With `snap` the coordinates become those of
    the cell's centre, as a location table needs that has one coordinate per place.

    Raises:
        DataError: no row lies inside the grid.
    """
    missing = [name for name in ("lat", "lon") if name not in frame.columns]
    if missing:
        has = ", ".join(map(str, frame.columns))
        raise DataError(f"The frame lacks the column(s) {', '.join(missing)}; it has {has}.")
    cell = grid.cell(frame["lat"], frame["lon"])
    inside = cell >= 0
    if not inside.any():
        raise DataError(f"None of the {len(frame)} rows lies inside the grid {grid}.")
    kept = frame.loc[inside].reset_index(drop=True)
    kept["location_id"] = grid.cell_id(cell[inside])
    if snap:
        kept["lat"], kept["lon"] = grid.centre(cell[inside])
    first = [name for name in ("user_id", "time", "location_id", "lat", "lon") if name in kept.columns]
    return kept[first + [name for name in kept.columns if name not in first]]


def h3_cells(lat: Any, lon: Any, *, resolution: int = 8) -> np.ndarray:
    """Object array of H3 cell names; needs the extra: `pip install 'hf_mobility[geo]'`.

    The h3 library works point by point, so points are first made unique.
    """
    try:
        import h3
    except ImportError as error:
        raise ImportError("H3 cells need the h3 package: pip install 'hf_mobility[geo]'") from error
    points = np.stack([np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)], axis=-1)
    unique, position = np.unique(points, axis=0, return_inverse=True)
    names = np.array([h3.latlng_to_cell(y, x, resolution) for y, x in unique.tolist()], dtype=object)
    return names[position.reshape(-1)]
