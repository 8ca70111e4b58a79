"""One city as M-STAR sees it: nested grids, a time zone and the slots of a week; records -> weeks -> long tables.

This is the part of `MstarTokenizer` that needs nothing of transformers' tokenizers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .city import City
from .clock import local_dates
from .errors import SHOWN, DataError
from .grid import SquareGrid
from .records import checked_degrees, column, has_column, is_records, parse_cells, read_degrees
from .weeks import OUTSIDE, Weeks, WeekShape, home_and_work, weeks_of

MAX_SLOTS = 100_000


def whole(fields: dict[str, Any], name: str) -> int:
    """A whole number of a file. Raises a `DataError` for anything else."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise DataError(f"{name} must be a whole number, got {value!r}.")
    return int(value)


class GridCity:
    """A city's cells, nested in ever coarser ones, and the slots of a window.

    city: the `City`; its grid's cells are the finest ones. Without a grid, its places are. num_hours L,
    interval_minutes: slots of a window. lat, lon: (C,) float64 degrees of the cells' centres. cell_map: (C, R) int32,
    coarse to fine; the last column counts the cells. rows, columns: of the grid, or None. home_hours, work_hours,
    work_days: see `home_and_work`.
    """

    city: City
    timezone: str
    lat: np.ndarray
    lon: np.ndarray
    home_hours: tuple[int, int]
    work_hours: tuple[int, int]
    work_days: tuple[int, int]

    @property
    def _grid(self) -> SquareGrid | None:
        """The grid whose cells are the finest ones; None where the city's places are."""
        return self.city.grid

    def _take_city(self, fields: dict[str, Any]) -> None:
        self.city = fields["city"]
        grid = self._grid
        self.num_hours, self.interval_minutes = whole(fields, "num_hours"), whole(fields, "interval_minutes")
        self.rows, self.columns = (None, None) if grid is None else (grid.rows, grid.columns)
        self.cell_map = np.asarray(fields["cell_map"], np.int32)
        self._check_city()  # before anything is made for each cell
        centres = (self.city.lat, self.city.lon) if grid is None else grid.centre(np.arange(len(grid)))
        self.lat: np.ndarray = centres[0]
        self.lon: np.ndarray = centres[1]

    def _check_city(self) -> None:
        cells = len(self.city) if self.rows is None else self.rows * self.columns
        if not 1 <= self.num_hours <= MAX_SLOTS or self.interval_minutes < 1 or 1440 % self.interval_minutes:
            raise DataError(
                f"num_hours must lie in 1..{MAX_SLOTS:,} and interval_minutes a divisor of 1440, got "
                f"{self.num_hours} and {self.interval_minutes}."
            )
        shaped = self.cell_map.ndim == 2 and self.cell_map.shape[1] > 0 and len(self.cell_map) == cells > 0
        counted = shaped and np.array_equal(self.cell_map[:, -1], np.arange(cells))
        if not counted or self.cell_map.min() < 0 or self.cell_map.max() >= cells:
            raise DataError(
                f"cell_map must be (C, R) for the city's {cells} cells and its last column count them, got the shape "
                f"{self.cell_map.shape}."
            )

    @property
    def num_cells(self) -> int:
        """Cells C of the finest grid."""
        return len(self.lat)

    @property
    def cells_per_resolution(self) -> list[int]:
        """Cells of each resolution, coarse to fine: what `MstarCodecConfig` takes under the same name."""
        return (self.cell_map.max(axis=0) + 1).tolist()

    # Records -> weeks

    @property
    def _shape(self) -> WeekShape:
        return WeekShape(self.num_hours, self.interval_minutes * 60, self.timezone)

    def cells_at(self, lat: Any, lon: Any) -> np.ndarray:
        """Finest cell of each point, int64; -1 outside the grid.

        Raises:
            ValueError: missing coordinates, or a city that is only a list of cells.
        """
        if self._grid is None:
            raise DataError("this city is a list of cells without a grid: give a column 'cell' instead of lat, lon.")
        return self._grid.cell(*checked_degrees(lat, lon))

    def weeks(
        self,
        frame: Any,
        *,
        kind: str = "auto",
        max_stay_hours: float = 24.0,
        fill_hours: float = 0.0,
        min_known: float = 0.5,
        **columns: str,
    ) -> Weeks:
        """Cut records into local weeks of one cell per hour.

        Args:
            frame: columns by name, whatever holds them (pandas, Arrow, `datasets`, dict of lists, list of dicts). The
                place of a row is its column `cell`, else `lat` and `lon`, else `location_id` as a cell number or a name
                `r<row>c<column>`. Times are time-zone aware, or integers (epoch seconds UTC). Without a column
                `user_id` all rows are one person's.
            kind: `visits` - a person is at a place from `time` until their next visit, at most `max_stay_hours`, or
                for `duration` seconds where that column knows it; an hour takes the cell with most of its time.
                `points` - an hour takes the cell with most of its records. `weeks` - rows are hours already: `slot`
                0..L-1, grouped by `trajectory_id`, or by `user_id` and (if there) `start`. `auto` - `weeks` with a
                column `slot`, `visits` with `location_id`, `category` or `duration`, else `points`. On ties the earlier
                cell wins.
            max_stay_hours: longer silence is rather a missing record than a stay; the last visit has no other end.
            fill_hours: fill unknown hours between two known ones in the same cell, where they are at most so many (14
                bridges a night); 0 = leave them unknown. Not for `weeks`.
            min_known: least share of known hours of a week that is kept; at least one hour.
            columns: other column names, as in `user_id="uid"`.

        Returns:
            `cells` (N, L) int32 with -1 = unknown, `user_id` (N,), `start` (N,) datetime64[D] of the local Monday;
            `report` with `rows`, `users`, `rows_outside` (the grid), `rows_in_repeated_hours` (points only),
            `hours_filled`, `weeks_found`, `weeks_dropped`, `users_dropped`.
            Clock changes: the doubled hour takes what happened in the first one, the missing hour is unknown.

        Raises:
            ValueError: columns that are missing or hold naive times, missing coordinates or cells outside the grid; an
                empty frame; no week that is known well enough.
        """
        return weeks_of(
            frame,
            kind=kind,
            names=columns,
            locate=self._locate,
            shape=self._shape,
            max_stay_hours=max_stay_hours,
            fill_hours=fill_hours,
            min_known=min_known,
        )

    def _locate(self, frame: Any, names: dict[str, str]) -> np.ndarray:
        """Cell of each row; -1 = unknown, -2 = outside the grid."""
        by_point = has_column(frame, names["lat"]) and has_column(frame, names["lon"])
        if not has_column(frame, names["cell"]) and by_point:
            cell = self.cells_at(*read_degrees(frame, names["lat"], names["lon"]))
            return np.where(cell < 0, OUTSIDE, cell)
        name = next((names[n] for n in ("cell", "location_id") if has_column(frame, names[n])), None)
        if name is None:
            raise DataError("the records have no place: give columns 'lat' and 'lon', or 'cell', or 'location_id'.")
        return parse_cells(column(frame, name), name, columns=self.columns, num_cells=self.num_cells)

    def as_cells(self, data: Any, **options: Any) -> np.ndarray:
        """Any input but text -> (N, L) int32 finest cells, -1 = unknown, checked; `options` as in `weeks`.

        Raises:
            ValueError: weeks of another length, cells outside the grid, values that are no integers.
        """
        if isinstance(data, Weeks):
            data = data.cells
        if self._is_records(data):
            return self.weeks(data, **options).cells
        if options:
            raise DataError(f"unknown argument(s) {sorted(options)}: arrays of cells take no options of records.")
        cells = np.asarray(data.cpu() if isinstance(data, torch.Tensor) else data)
        cells = cells[None] if cells.ndim == 1 and cells.size else cells
        if cells.ndim != 2 or len(cells) == 0:
            raise DataError(f"weeks are an array (N, {self.num_hours}) with N >= 1, got shape {cells.shape}.")
        if cells.shape[1] != self.num_hours:
            raise DataError(f"weeks of this tokenizer have {self.num_hours} hours, got {cells.shape[1]}.")
        if cells.dtype.kind not in "iu":
            raise DataError(f"cells must be integers, -1 for unknown hours, got {cells.dtype}.")
        strange = np.flatnonzero(((cells < -1) | (cells >= self.num_cells)).any(axis=1))
        if len(strange):
            raise DataError(
                f"{len(strange)} of {len(cells)} weeks hold cells outside -1..{self.num_cells - 1} (first weeks "
                f"{strange[:SHOWN].tolist()}); they belong to another grid."
            )
        return cells.astype(np.int32)

    def home_and_work(self, data: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
        """Home and work of each week, two (N,) int64: the commonest known cell of hours 0..7 of all days, and
        of hours 10..17 of Monday to Friday (or as configured); on ties the one visited first.

        A week without a known hour there falls back to its commonest cell (home) or to its home (work).

        Raises:
            DataError: weeks in which nothing is known.
        """
        cells = self.as_cells(data, **options)
        empty = np.flatnonzero((cells < 0).all(axis=1))
        if len(empty):
            raise DataError(
                f"{len(empty)} of {len(cells)} weeks have no known hour (first weeks {empty[:SHOWN].tolist()}), so "
                "nobody knows their home: drop them, or give home_ids, work_ids and attribute_ids."
            )
        return home_and_work(
            cells,
            slots_per_day=1440 // self.interval_minutes,
            home_hours=self.home_hours,
            work_hours=self.work_hours,
            work_days=self.work_days,
        )

    @staticmethod
    def _is_records(data: Any) -> bool:
        """Whether `weeks` reads it; weeks of cells are an array or nested lists."""
        return not isinstance(data, (np.ndarray, torch.Tensor, list, tuple)) or is_records(data)

    # Weeks -> columns

    def to_frame(self, cells: Any, *, start: Any = "2024-01-01", trajectory_id: Any = None) -> dict[str, np.ndarray]:
        """Weeks of finest cells -> columns of a long table, one row per known hour (a dict of arrays, no pandas).

        Args:
            cells: (N, L), -1 = unknown.
            start: local date of the first hour, one or (N,); a Monday where windows are whole weeks.
            trajectory_id: (N,) names; 0..N-1 by default.

        Returns:
            `trajectory_id`, `slot` int32, `time` datetime64[s] (local clock, naive), `cell` int32, `lat`, `lon` float64
            degrees of the cell's centre.

        Raises:
            ValueError: for cells as in `__call__`, a start that is no Monday, or ids of another number.
        """
        cells = self.as_cells(cells)
        days = np.broadcast_to(local_dates(start), len(cells))
        self._shape.check_starts(days)
        ids = np.arange(len(cells)) if trajectory_id is None else np.asarray(trajectory_id)
        if ids.shape != (len(cells),):
            raise DataError(f"trajectory_id must name each of the {len(cells)} weeks, got shape {ids.shape}.")
        row, slot = np.nonzero(cells >= 0)
        cell = cells[row, slot]
        offset = (slot * (self.interval_minutes * 60)).astype("timedelta64[s]")
        return {
            "trajectory_id": ids[row],
            "slot": slot.astype(np.int32),
            "time": days[row].astype("datetime64[s]") + offset,
            "cell": cell,
            "lat": self.lat[cell],
            "lon": self.lon[cell],
        }
