"""Boxes, square grids and distances on the Earth; numpy only.

A box is `bounds = (south, west, north, east)` in degrees, west in -180..180 and east above it: over 180 for a box
across the antimeridian. Points are -180..180 and are unwrapped where they meet a box, so that a city across 180 degrees
has the right distances, grids and cells.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .errors import SHOWN, DataError, listing
from .records import checked_degrees, row_and_column

EARTH_RADIUS_KM = 6371.0088  # mean radius of WGS84
KM_PER_DEGREE = EARTH_RADIUS_KM * np.pi / 180
# Rounded in what the published weights have read (SAMoE's coordinates and POI shares) and in RAW's published distances:
# the exact figure, larger by 7e-7, would change their last digits.
ROUNDED_KM_PER_DEGREE = 111.195
PAPER_BOUNDS = (39.442078, 115.416827, 41.058964, 117.508217)  # Beijing, as in RAW's paper
PAPER_METRES_PER_UNIT = 100_000.0
MAX_CELLS = 200_000  # of a grid whose cells are a vocabulary
_MARGIN = 1e-6  # degrees, a tenth of a metre, so that a single point has a box
_MIN_WIDTH = 0.01  # degrees of a box with a margin around points that are all alike


def haversine_km(lat1: Any, lon1: Any, lat2: Any, lon2: Any) -> np.ndarray:
    """Great-circle distance in km; arguments are degrees and broadcast against each other."""
    lat1, lon1, lat2, lon2 = (np.radians(np.asarray(x, dtype=np.float64)) for x in (lat1, lon1, lat2, lon2))
    a = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(a, 0.0, 1.0)))


def to_km(lat: Any, lon: Any, *, origin: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """East and north offset in km from `origin` (lat, lon), on the plane that touches the Earth there.

    Equirectangular: good to 0.1 % within 50 km of the origin away from the poles. A city may lie across 180 degrees.
    """
    east = (np.asarray(lon, dtype=np.float64) - origin[1] + 180) % 360 - 180
    north = np.asarray(lat, dtype=np.float64) - origin[0]
    return east * KM_PER_DEGREE * np.cos(np.radians(origin[0])), north * KM_PER_DEGREE


def from_km(east: Any, north: Any, *, origin: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of `to_km`: latitude and longitude in degrees, longitude in -180..180."""
    lat = origin[0] + np.asarray(north, dtype=np.float64) / KM_PER_DEGREE
    lon = origin[1] + np.asarray(east, dtype=np.float64) / (KM_PER_DEGREE * np.cos(np.radians(origin[0])))
    return lat, (lon + 180) % 360 - 180


def unwrapped(lon: Any) -> np.ndarray:
    """Longitudes (n,) -180..180 of one place without the jump at 180 degrees: 179, -179 become 179, 181.

    Longitudes that do not fit into half a turn either way are left as they are.
    """
    lon = np.asarray(lon, dtype=np.float64)
    if not lon.size or np.ptp(lon) <= 180:
        return lon
    shifted = np.where(lon < 0, lon + 360, lon)
    return shifted if np.ptp(shifted) <= 180 else lon


def wrapped(lon: Any) -> np.ndarray:
    """Longitudes of any turn as -180..180; those that are there already keep their last digit."""
    lon = np.asarray(lon, dtype=np.float64)
    return np.where(np.abs(lon) > 180, (lon + 180) % 360 - 180, lon)


class Box(NamedTuple):
    """(south, west, north, east) in degrees; make it with `Box.checked` or `Box.around`."""

    south: float
    west: float
    north: float
    east: float

    @classmethod
    def checked(cls, bounds: Sequence[float]) -> Box:
        """Raises a `DataError` for anything but four degrees (south, west, north, east) that span a box."""
        try:
            sides = tuple(float(side) for side in bounds)
        except (TypeError, ValueError) as error:
            raise DataError(f"bounds must be (south, west, north, east) in degrees, got {bounds!r}.") from error
        if len(sides) != 4 or not all(math.isfinite(side) for side in sides):
            raise DataError(f"bounds must be (south, west, north, east) in degrees, got ({listing(sides)}).")
        box = cls(*sides)
        if not (-90 <= box.south < box.north <= 90 and -180 <= box.west < box.east <= box.west + 360 <= 540):
            raise DataError(
                f"the box south={box.south}, west={box.west}, north={box.north}, east={box.east} is empty or off the "
                "globe; give (south, west, north, east) in degrees, and across 180 degrees an east above 180."
            )
        return box

    @classmethod
    def around(cls, lat: Any, lon: Any, *, coverage: float = 1.0, margin: float | None = None) -> Box:
        """The smallest box around points (n,), (n,).

        Args:
            coverage: below 1, around that central share of the points on each axis.
            margin: that share of the box's width wider on each side, and at least 0.01 degrees wide in all; by default
                a tenth of a metre.

        Raises:
            DataError: no points, coordinates that are missing or off the globe, or a coverage outside (0, 1].
        """
        lat, lon = checked_degrees(lat, lon)
        if not len(lat):
            raise DataError("a box around no points is undefined; at least one point is needed.")
        if not 0 < coverage <= 1:
            raise DataError(f"coverage must lie in (0, 1], got {coverage}.")
        ends = [(1 - coverage) / 2, (1 + coverage) / 2]
        (south, north), (west, east) = np.quantile(lat, ends).tolist(), np.quantile(unwrapped(lon), ends).tolist()
        up, right = _extra(north - south, margin), _extra(east - west, margin)
        furthest = 180.0 if east <= 180 else 540.0  # points on this side of 180 degrees have a box on this side
        return cls.checked(
            (max(south - up, -90.0), max(west - right, -180.0), min(north + up, 90.0), min(east + right, furthest))
        )

    @property
    def middle(self) -> tuple[float, float]:
        """Latitude and longitude; the longitude is within the box, so maybe above 180."""
        return (self.south + self.north) / 2, (self.west + self.east) / 2

    def unwrap(self, lon: Any) -> np.ndarray:
        """Longitudes by the turn that brings them nearest to the box's middle."""
        lon = np.asarray(lon, dtype=np.float64)
        away = lon - self.middle[1]
        far = np.abs(away) > 180
        if not far.any():
            return lon
        with np.errstate(invalid="ignore"):  # infinite ones stay so
            return np.where(far & np.isfinite(away), lon - 360 * np.round(away / 360), lon)

    def contains(self, lat: Any, lon: Any) -> np.ndarray:
        """bool: which points lie in the box, its edges included; NaN does not."""
        return self._holds(np.asarray(lat, dtype=np.float64), self.unwrap(lon))

    def _holds(self, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
        return (lat >= self.south) & (lat <= self.north) & (lon >= self.west) & (lon <= self.east)

    def check_inside(
        self, units: np.ndarray, lat: np.ndarray, lon: np.ndarray, names: tuple[str, str], *, outside: str
    ) -> np.ndarray:
        """(n,) bool: which points (n,), (n,) lie outside; `units` (n, 2) are theirs.

        Raises:
            DataError: if most points do, or any with `outside="error"`; the sentence says so where latitude and
                longitude look swapped.

        Warns:
            UserWarning: a tenth or more of the points are kept although they do.
        """
        if outside not in ("keep", "drop", "error"):
            raise ValueError(f"outside must be 'keep', 'drop' or 'error', got {outside!r}.")
        beyond = (np.abs(units) > 1).any(1)
        count = int(beyond.sum())
        refused = outside == "error" or 2 * count > len(beyond)
        if not count or not (refused or (outside == "keep" and 10 * count >= len(beyond))):
            return beyond
        shown = ", ".join(f"{i}: {lat[i]:g}, {lon[i]:g}" for i in np.flatnonzero(beyond)[:SHOWN].tolist())
        fault = f"{count} of {len(beyond)} points lie outside the box {tuple(self)} (first rows {shown})"
        swapped = (np.abs(self.normalize(lon, lat)) <= 1).all(1)
        advice = "use a tokenizer of these points' city, or drop them (outside='drop')"
        if 2 * int(swapped.sum()) > len(beyond):
            advice = f"columns {names[0]!r} and {names[1]!r} look swapped"
        if refused:
            raise DataError(f"{fault}; {advice}.")
        warnings.warn(f"{fault} and are kept, though a model knows its box only; {advice}.", stacklevel=2)
        return beyond

    # Units of RAW: the box is -1..1 on both axes

    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.array([self.west, self.south]), np.array([self.east, self.north])
        return (low + high) / 2, (high - low) / 2

    def normalize(self, lat: Any, lon: Any) -> np.ndarray:
        """Degrees (...), (...) -> box units (..., 2) float64, [longitude, latitude]; outside the box beyond -1..1."""
        centre, half = self._scale()
        return (np.stack([self.unwrap(lon), np.asarray(lat, np.float64)], axis=-1) - centre) / half

    def denormalize(self, units: Any) -> tuple[np.ndarray, np.ndarray]:
        """Box units (..., 2) -> latitude, longitude (...), float64 degrees."""
        centre, half = self._scale()
        degrees = np.asarray(units).astype(np.float64) * half + centre
        return degrees[..., 1], wrapped(degrees[..., 0])

    def metres_per_unit(self, *, paper: bool = False) -> np.ndarray:
        """(2,) float64, longitude and latitude, true at the box's middle; with `paper` the authors' 100,000 for both
        (the box of their paper has 88.7 and 89.9 km)."""
        if paper:
            return np.full(2, PAPER_METRES_PER_UNIT)
        centre, half = self._scale()
        return half * (1000 * ROUNDED_KM_PER_DEGREE) * np.array([math.cos(math.radians(centre[1])), 1.0])


def _extra(width: float, margin: float | None) -> float:
    return _MARGIN if margin is None else max(margin * width, (_MIN_WIDTH - width) / 2)


@dataclass(frozen=True)
class SquareGrid:
    """`rows` x `columns` cells over the box `south`..`north`, `west`..`east` (degrees).

    Cell `row * columns + column` has row 0 in the south and column 0 in the west. A point on an inner edge belongs to
    the cell north-east of it; the box's own northern and eastern edges belong to the last row and column. The box is
    divided evenly in degrees, so cells are square in metres at the box's middle latitude only; over a city the
    difference is far below one percent.

    Raises:
        DataError: a box that is empty or off the globe, no row or no column.

    Example:
        >>> grid = SquareGrid.from_cell_km((48.0, 11.0, 48.2, 11.4), cell_km=0.5)
        >>> grid.cell([48.1], [11.2])
    """

    south: float
    west: float
    north: float
    east: float
    rows: int
    columns: int

    def __post_init__(self) -> None:
        Box.checked(self.bounds)
        if self.rows < 1 or self.columns < 1:
            raise DataError(f"A grid needs at least one row and one column, not {self.rows} x {self.columns}.")

    @classmethod
    def from_cell_km(cls, bounds: Sequence[float], *, cell_km: float) -> SquareGrid:
        """Grid of cells of `cell_km`; the box is widened about its middle to a whole number of cells.

        Raises:
            DataError: a size that is not positive, or bounds that span no box.
        """
        if not cell_km > 0:
            raise DataError(f"cell_km must be positive, not {cell_km}.")
        south, west, north, east = Box.checked(bounds)
        high = cell_km / KM_PER_DEGREE
        wide = high / np.cos(np.radians((south + north) / 2))
        rows = max(1, int(np.ceil((north - south) / high - 1e-9)))
        columns = max(1, int(np.ceil((east - west) / wide - 1e-9)))
        up, right = (rows * high - (north - south)) / 2, float(columns * wide - (east - west)) / 2
        west, east = west - right, east + right
        turn = 360 if west < -180 else 0
        return cls(south - up, west + turn, north + up, east + turn, rows, columns)

    @classmethod
    def around(cls, lat: Any, lon: Any, *, cell_km: float, coverage: float = 1.0) -> SquareGrid:
        """Grid over all given points; with `coverage` below 1 over that central share of them (on each axis)."""
        return cls.from_cell_km(Box.around(lat, lon, coverage=coverage), cell_km=cell_km)

    def __len__(self) -> int:
        return self.rows * self.columns

    @property
    def bounds(self) -> Box:
        """(south, west, north, east) in degrees."""
        return Box(self.south, self.west, self.north, self.east)

    @property
    def cell_km(self) -> tuple[float, float]:
        """Height and width of a cell at the middle latitude."""
        middle = np.radians((self.south + self.north) / 2)
        high = (self.north - self.south) / self.rows * KM_PER_DEGREE
        wide = (self.east - self.west) / self.columns * KM_PER_DEGREE * np.cos(middle)
        return float(high), float(wide)

    def cell(self, lat: Any, lon: Any) -> np.ndarray:
        """int64 cell of each point, -1 outside the box (and for NaN)."""
        lat, lon = np.asarray(lat, dtype=np.float64), self.bounds.unwrap(lon)
        inside = self.bounds._holds(lat, lon)
        lat, lon = np.where(inside, lat, self.south), np.where(inside, lon, self.west)
        up = (lat - self.south) / (self.north - self.south) * self.rows
        right = (lon - self.west) / (self.east - self.west) * self.columns
        row = np.minimum(up.astype(np.int64), self.rows - 1)
        column = np.minimum(right.astype(np.int64), self.columns - 1)
        return np.where(inside, row * self.columns + column, -1)

    def centre(self, cell: Any) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude (-180..180) of the middle of each cell; NaN for cell -1."""
        cell = self._checked(cell)
        row, column = np.divmod(cell, self.columns)
        lat = self.south + (row + 0.5) * (self.north - self.south) / self.rows
        lon = self.west + (column + 0.5) * (self.east - self.west) / self.columns
        return np.where(cell < 0, np.nan, lat), np.where(cell < 0, np.nan, wrapped(lon))

    def hierarchy(self, factors: Sequence[int]) -> np.ndarray:
        """(C, R) int32: for each of ever finer resolutions the cell that holds each cell of this grid.

        Resolution r has `ceil(rows / factors[r])` x `ceil(columns / factors[r])` cells. Where the number of rows is no
        multiple of a factor, the last coarse cell is smaller (30 rows -> 15 -> 8 -> 4: edge halves, rounded up), so
        that every resolution nests in the next one.

        Raises:
            DataError: more than 200,000 cells; or unless the factors fall, each is a multiple of the next, and the last
                is 1.
        """
        sizes = [int(factor) for factor in factors]
        nested = bool(sizes) and sizes[-1] == 1 and all(a > b and a % b == 0 for a, b in pairwise(sizes))
        if not nested:
            raise DataError(
                "factors must fall from coarse to fine, each a multiple of the next, and end with 1, as (8, 4, 2, 1); "
                f"got {tuple(factors)}."
            )
        if len(self) > MAX_CELLS:
            raise DataError(
                f"the grid has {self.rows} x {self.columns} = {len(self)} cells, more than {MAX_CELLS}: give a smaller "
                "box, a coverage below 1 (0.99 leaves far points out), or larger cells."
            )
        row, column = np.divmod(np.arange(len(self)), self.columns)
        levels = [(row // size) * -(-self.columns // size) + column // size for size in sizes]
        return np.stack(levels, axis=1).astype(np.int32)

    def cell_id(self, cell: Any) -> np.ndarray:
        """Object array of names `r<row>c<column>`; None for cell -1."""
        cell = self._checked(cell)
        known, position = np.unique(cell, return_inverse=True)
        names = [None if c < 0 else f"r{c // self.columns}c{c % self.columns}" for c in known.tolist()]
        return np.array([*names, None], dtype=object)[position.reshape(cell.shape)]

    def parse_id(self, ids: Any) -> np.ndarray:
        """int64 cells (n,) of names made by `cell_id`; -1 for any other name."""
        ids = np.asarray(ids, dtype=object)
        cells = {name: self._cell_of(str(name)) for name in set(ids.tolist())}
        return np.fromiter(map(cells.__getitem__, ids.tolist()), np.int64, len(ids))

    def _cell_of(self, name: str) -> int:
        row, column = row_and_column(name) or (self.rows, self.columns)
        return row * self.columns + column if row < self.rows and column < self.columns else -1

    def _checked(self, cell: Any) -> np.ndarray:
        cell = np.asarray(cell, dtype=np.int64)
        if cell.size and (cell.min() < -1 or cell.max() >= len(self)):
            raise DataError(f"Cells of this grid are 0..{len(self) - 1} (or -1), not {cell.min()}..{cell.max()}.")
        return cell
