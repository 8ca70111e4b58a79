"""Places on a plane: a square grid over a box of latitudes and longitudes, distances, and H3 cells as an extra.

A :class:`SquareGrid` divides a box evenly in degrees, so its cells are square in metres only at the box's middle
latitude; over a city the difference is far below one percent. Cells are numbered row by row from the south-west corner.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .frames import DataError

__all__ = ["EARTH_RADIUS_KM", "SquareGrid", "assign_cells", "from_km", "h3_cells", "haversine_km", "to_km"]

EARTH_RADIUS_KM = 6371.0088  # mean radius of WGS84
_KM_PER_DEGREE = EARTH_RADIUS_KM * np.pi / 180
_CELL_ID = re.compile(r"r(\d+)c(\d+)")


def haversine_km(lat1: Any, lon1: Any, lat2: Any, lon2: Any) -> np.ndarray:
    """Great-circle distance in km; arguments are degrees and broadcast against each other."""
    lat1, lon1, lat2, lon2 = (np.radians(np.asarray(x, dtype=np.float64)) for x in (lat1, lon1, lat2, lon2))
    a = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(a, 0.0, 1.0)))


def to_km(lat: Any, lon: Any, *, origin: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """East and north offset in km from ``origin`` (lat, lon), on the plane that touches the Earth there.

    Equirectangular: good to 0.1 % within 50 km of the origin away from the poles. Longitudes are unwrapped, so a
    city may lie across the antimeridian.
    """
    east = (np.asarray(lon, dtype=np.float64) - origin[1] + 180) % 360 - 180
    north = np.asarray(lat, dtype=np.float64) - origin[0]
    return east * _KM_PER_DEGREE * np.cos(np.radians(origin[0])), north * _KM_PER_DEGREE


def from_km(east: Any, north: Any, *, origin: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of :func:`to_km`: latitude and longitude in degrees, longitude in -180..180."""
    lat = origin[0] + np.asarray(north, dtype=np.float64) / _KM_PER_DEGREE
    lon = origin[1] + np.asarray(east, dtype=np.float64) / (_KM_PER_DEGREE * np.cos(np.radians(origin[0])))
    return lat, (lon + 180) % 360 - 180


@dataclass(frozen=True)
class SquareGrid:
    """``rows`` x ``cols`` cells over the box ``south``..``north``, ``west``..``east`` (degrees).

    Cell ``row * cols + col`` has row 0 in the south and column 0 in the west. A point on an inner edge belongs to the
    cell north-east of it; the box's own northern and eastern edges belong to the last row and column.
    """

    south: float
    west: float
    north: float
    east: float
    rows: int
    cols: int

    def __post_init__(self) -> None:
        if not (-90 <= self.south < self.north <= 90 and -180 <= self.west < self.east <= 180):
            raise DataError(
                f"The box south={self.south}, west={self.west}, north={self.north}, east={self.east} is empty or off "
                "the globe; a grid may not cross the antimeridian."
            )
        if self.rows < 1 or self.cols < 1:
            raise DataError(f"A grid needs at least one row and one column, not {self.rows} x {self.cols}.")

    @classmethod
    def from_cell_metres(
        cls, south: float, west: float, north: float, east: float, *, cell_metres: float
    ) -> SquareGrid:
        """Grid of cells of ``cell_metres``; the box is widened about its middle to a whole number of cells."""
        if not cell_metres > 0:
            raise DataError(f"cell_metres must be positive, not {cell_metres}.")
        middle = (south + north) / 2
        high = cell_metres / 1000 / _KM_PER_DEGREE
        wide = high / np.cos(np.radians(middle))
        rows = max(1, int(np.ceil((north - south) / high - 1e-9)))
        cols = max(1, int(np.ceil((east - west) / wide - 1e-9)))
        extra_lat = (rows * high - (north - south)) / 2
        extra_lon = (cols * wide - (east - west)) / 2
        return cls(south - extra_lat, west - extra_lon, north + extra_lat, east + extra_lon, rows, cols)

    @classmethod
    def around(cls, lat: Any, lon: Any, *, cell_metres: float) -> SquareGrid:
        """Grid over all given points."""
        lat, lon = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
        if lat.size == 0:
            raise DataError("A grid around no points is undefined; at least one point is needed.")
        margin = 1e-6  # a tenth of a metre, so that a single point has a box
        box = lat.min() - margin, lon.min() - margin, lat.max() + margin, lon.max() + margin
        return cls.from_cell_metres(*(float(edge) for edge in box), cell_metres=cell_metres)

    def __len__(self) -> int:
        return self.rows * self.cols

    @property
    def cell_km(self) -> tuple[float, float]:
        """Height and width of a cell at the middle latitude."""
        middle = np.radians((self.south + self.north) / 2)
        high = (self.north - self.south) / self.rows * _KM_PER_DEGREE
        wide = (self.east - self.west) / self.cols * _KM_PER_DEGREE * np.cos(middle)
        return float(high), float(wide)

    def cell(self, lat: Any, lon: Any) -> np.ndarray:
        """int64 cell of each point, -1 outside the box (and for NaN)."""
        lat, lon = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
        inside = (lat >= self.south) & (lat <= self.north) & (lon >= self.west) & (lon <= self.east)
        with np.errstate(invalid="ignore"):
            up = (np.where(inside, lat, self.south) - self.south) / (self.north - self.south) * self.rows
            right = (np.where(inside, lon, self.west) - self.west) / (self.east - self.west) * self.cols
        row = np.minimum(up.astype(np.int64), self.rows - 1)
        col = np.minimum(right.astype(np.int64), self.cols - 1)
        return np.where(inside, row * self.cols + col, -1)

    def centre(self, cell: Any) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude of the middle of each cell; NaN for cell -1."""
        cell = self._checked(cell)
        row, col = np.divmod(cell, self.cols)
        lat = self.south + (row + 0.5) * (self.north - self.south) / self.rows
        lon = self.west + (col + 0.5) * (self.east - self.west) / self.cols
        return np.where(cell < 0, np.nan, lat), np.where(cell < 0, np.nan, lon)

    def coarsen(self, factor: int) -> tuple[SquareGrid, np.ndarray]:
        """The grid whose cells hold ``factor`` x ``factor`` of these, and the int64 array (len(self),) fine -> coarse.

        The number of rows and columns must be a multiple of ``factor``, so that the levels nest exactly.
        """
        if factor < 1 or self.rows % factor or self.cols % factor:
            raise DataError(f"A grid of {self.rows} x {self.cols} cells cannot be coarsened by {factor} evenly.")
        coarse = SquareGrid(self.south, self.west, self.north, self.east, self.rows // factor, self.cols // factor)
        row, col = np.divmod(np.arange(len(self)), self.cols)
        return coarse, (row // factor) * coarse.cols + col // factor

    def cell_id(self, cell: Any) -> np.ndarray:
        """Object array of names ``r<row>c<col>``; None for cell -1."""
        cell = self._checked(cell)
        known, position = np.unique(cell, return_inverse=True)
        names = [None if c < 0 else f"r{c // self.cols}c{c % self.cols}" for c in known.tolist()]
        return np.array([*names, None], dtype=object)[position.reshape(cell.shape)]

    def parse_id(self, ids: Any) -> np.ndarray:
        """int64 cells of names made by :meth:`cell_id`; -1 for any other name."""
        codes, names = pd.factorize(np.asarray(ids, dtype=object))
        cells = []
        for name in names:
            match = _CELL_ID.fullmatch(str(name))
            row, col = (int(match[1]), int(match[2])) if match else (self.rows, self.cols)
            cells.append(row * self.cols + col if row < self.rows and col < self.cols else -1)
        return np.array([*cells, -1], dtype=np.int64)[codes]

    def _checked(self, cell: Any) -> np.ndarray:
        cell = np.asarray(cell, dtype=np.int64)
        if cell.size and (cell.min() < -1 or cell.max() >= len(self)):
            raise DataError(f"Cells of this grid are 0..{len(self) - 1} (or -1), not {cell.min()}..{cell.max()}.")
        return cell


def assign_cells(frame: pd.DataFrame, grid: SquareGrid, *, snap: bool = False) -> pd.DataFrame:
    """A copy of a visits or points frame whose ``location_id`` is the grid cell ``r<row>c<col>`` of its point.

    Rows outside the grid are left out; the result has a fresh RangeIndex. With ``snap`` the coordinates become those of
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
    """Object array of H3 cell names; needs the extra: ``pip install hf_mobility[geo]``.

    The h3 library works point by point, so points are first made unique.
    """
    try:
        import h3
    except ImportError as error:
        raise ImportError("H3 cells need the h3 package: pip install hf_mobility[geo]") from error
    points = np.stack([np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)], axis=-1)
    unique, position = np.unique(points, axis=0, return_inverse=True)
    names = np.array([h3.latlng_to_cell(y, x, resolution) for y, x in unique.tolist()], dtype=object)
    return names[position.reshape(-1)]
