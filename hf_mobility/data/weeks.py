"""Tables of weeks (or days) of cells, and how they are read.

A week is one row of L cells, -1 = unknown. Two forms are read: a list column of cells, or one column per slot
(`h0`, `h1`, ...).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.errors import SHOWN, DataError
from ..tokenization.grid import SquareGrid
from ..tokenization.table_files import read_file, readable
from .io.streams import are_many, parquet_files, row_blocks

__all__ = ["WeekTable", "is_hourly_table", "is_week_table", "read_weeks", "refuse_weeks"]

_SLOT_COLUMN = re.compile(r"(?:h|hour_?|slot_?)?(\d{1,4})", re.IGNORECASE)
_USERS = ("user_id", "user", "uid")
_STARTS = ("start", "week_start_local", "week_start", "date")


@dataclass(frozen=True)
class WeekTable:
    """Weeks of cells as plain arrays.

    cells: (N, L) int32, -1 = unknown. user_id: (N,), or None for a set without people. start: (N,) datetime64[D] local
    day of the first slot, or None. extra: the other columns of the file, N rows. grid: the grid that the cells belong
    to, if the file says so. lat, lon: (C,) float64 of the cells, from the grid or a second file, else None. timezone:
    IANA name, if the file says so.
    """

    cells: np.ndarray
    user_id: np.ndarray | None
    start: np.ndarray | None
    extra: pd.DataFrame
    grid: SquareGrid | None = None
    lat: np.ndarray | None = None
    lon: np.ndarray | None = None
    timezone: str | None = None

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def known(self) -> np.ndarray:
        """(N,) float64: share of known slots of each week."""
        return (self.cells >= 0).mean(axis=1)

    def take(self, rows: Any) -> WeekTable:
        """Only these rows (indices or a mask), in the order given."""
        return replace(
            self,
            cells=self.cells[rows],
            user_id=None if self.user_id is None else self.user_id[rows],
            start=None if self.start is None else self.start[rows],
            extra=self.extra.iloc[np.arange(len(self))[rows]].reset_index(drop=True),
        )


def refuse_weeks(records: Any, done: str) -> None:
    """Raises a `DataError` where RAW is to be `done` (trained, ...) on a `WeekTable`."""
    if isinstance(records, WeekTable):
        raise DataError(f"RAW is {done} on points or stays (user_id, time, lat, lon), not on weeks of cells.")


def is_week_table(names: Iterable[Any]) -> bool:
    """Whether a table with columns of these names holds one week a row, which `read_weeks` reads: `cells`, or a column
    of the first slot (`h0`, `h00`, `hour_0`, `slot0`, `0`, ...) and none of times."""
    names = {str(name) for name in names}
    slots = [match for match in map(_SLOT_COLUMN.fullmatch, names) if match]
    return "cells" in names or ("time" not in names and any(int(match[1]) == 0 for match in slots))


def is_hourly_table(names: Iterable[Any]) -> bool:
    """Whether a table with columns of these names holds one hour of a week a row, as generated weeks do."""
    names = set(names)
    return names >= {"trajectory_id", "slot", "cell"} and "user_id" not in names


def read_weeks(
    table: Any, *, cells: Any = None, user_id: str | None = None, start: str | None = None, num_slots: int | None = None
) -> WeekTable:
    """Read weeks (or days) of cells.

    Args:
        table: path to a `.parquet`, `.csv` or `.csv.gz` file, a folder or a pattern of Parquet files, or a DataFrame,
            with either a list column `cells` or one column per slot: `h0`, `h1`, ... (also `hour_0`, `slot_0`, `0`). A
            Parquet file's own metadata `grid` ("30x30 ..."), `box_lat`, `box_lon` and `tz` are used where they are
            there (of many, in the first): rows count from the south, columns from the west.
        cells: coordinates of the cells: a path or DataFrame with `cell` (0..C-1), `lat`, `lon`; for files without a
            grid.
        user_id, start: names of these columns; by default `user_id`, `user`, `uid` and `start`, `week_start_local`,
            `week_start`, `date` where they are there.
        num_slots: required number of slots L.

    Returns:
        A `WeekTable`; missing values and negative cells are -1.

    Raises:
        DataError: no column of cells, rows of different lengths, cells that are no integers or outside the grid.
        FileNotFoundError: a path that does not exist.
    """
    frame, metadata = _load(table)
    if len(frame) == 0:
        raise DataError("The table has no rows; at least one week is needed.")
    values, used = _cells(frame)
    if num_slots is not None and values.shape[1] != num_slots:
        raise DataError(f"The table has {values.shape[1]} slots a row, not {num_slots}.")
    users, starts = _pick(frame, user_id, _USERS), _pick(frame, start, _STARTS)
    grid, zone = _grid_of(metadata), _zone_of(metadata)
    lat, lon = grid.centre(np.arange(len(grid))) if grid is not None else (None, None)
    if cells is not None:
        lat, lon = _coordinates(cells)
    _check_range(values, None if lat is None else len(lat))
    others = [name for name in frame.columns if name not in {*used, users, starts}]
    return WeekTable(
        cells=values,
        user_id=None if users is None else frame[users].to_numpy(),
        start=None if starts is None else _local_dates(frame[starts]),
        extra=frame[others].reset_index(drop=True),
        grid=grid if cells is None else None,
        lat=lat,
        lon=lon,
        timezone=zone,
    )


def _local_dates(times: pd.Series) -> np.ndarray:
    """datetime64[D]; of an aware time the date on its own clock, not in UTC."""
    return pd.to_datetime(times).dt.tz_localize(None).to_numpy().astype("datetime64[D]")


# ------------------------------------------------------------------------------------------------------------- reading


def _load(table: Any) -> tuple[pd.DataFrame, dict[str, str]]:
    if isinstance(table, pd.DataFrame):
        return table, {}
    path = Path(table)
    if are_many(table):
        return pd.concat(row_blocks(table)), _metadata(parquet_files(table)[0])
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix != ".parquet":
        return read_file(path), {}
    return read_file(path), _metadata(path)


def _metadata(path: Path) -> dict[str, str]:
    import pyarrow.parquet

    with readable(path, "Parquet"):
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
    return {key.decode(): text.decode() for key, text in metadata.items()}


def _cells(frame: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """(N, L) int32 and the columns they came from."""
    if "cells" in frame:
        lengths = frame["cells"].map(len).to_numpy()
        odd = np.flatnonzero(lengths != lengths[0])
        if len(odd):
            raise DataError(
                f"Column 'cells': {len(odd)} of {len(frame)} rows have not the {lengths[0]} slots of the first one "
                f"(first rows {odd[:SHOWN].tolist()}); all weeks need the same number."
            )
        flat = np.concatenate(frame["cells"].to_list())
        return _whole(flat, "cells").reshape(len(frame), -1), ["cells"]
    matches = {name: _SLOT_COLUMN.fullmatch(str(name)) for name in frame.columns}
    slots = {int(match[1]): name for name, match in matches.items() if match}
    if not slots or sorted(slots) != list(range(len(slots))):
        has = ", ".join(map(str, frame.columns[:12]))
        raise DataError(
            f"The table has neither a list column 'cells' nor columns h0, h1, ... without a gap; it has {has}."
        )
    names = [slots[slot] for slot in range(len(slots))]
    values = frame[names].to_numpy(dtype=np.float64, na_value=np.nan)
    return _whole(values.reshape(-1), f"{names[0]}..{names[-1]}").reshape(values.shape), names


def _whole(values: np.ndarray, name: str) -> np.ndarray:
    """int32; missing and negative values become -1."""
    if values.dtype.kind not in "iuf":
        raise DataError(f"Column(s) {name!r} hold {values.dtype} values; cells must be integers.")
    numbers = np.where(np.isnan(values), -1, values) if values.dtype.kind == "f" else values
    odd = np.flatnonzero(numbers != np.floor(numbers))
    if len(odd) or numbers.max(initial=0) >= 2**31:
        shown = values[odd[:SHOWN]].tolist() or [float(numbers.max())]
        raise DataError(f"Column(s) {name!r}: {max(len(odd), 1)} values are no cell numbers, first {shown}.")
    return np.maximum(numbers, -1).astype(np.int32)


def _pick(frame: pd.DataFrame, given: str | None, usual: Sequence[str]) -> str | None:
    if given is not None and given not in frame:
        raise DataError(f"The table has no column {given!r}; it has {', '.join(map(str, frame.columns[:12]))}.")
    return given or next((name for name in usual if name in frame), None)


def _coordinates(cells: Any) -> tuple[np.ndarray, np.ndarray]:
    frame, _ = _load(cells)
    missing = [name for name in ("cell", "lat", "lon") if name not in frame]
    if missing:
        raise DataError(f"The table of cells lacks the column(s) {', '.join(missing)}.")
    frame = frame.sort_values("cell")
    if not np.array_equal(frame["cell"].to_numpy(), np.arange(len(frame))):
        raise DataError(f"The table of cells must list the cells 0..{len(frame) - 1} once each.")
    return frame["lat"].to_numpy(np.float64), frame["lon"].to_numpy(np.float64)


def _check_range(values: np.ndarray, count: int | None) -> None:
    strange = np.flatnonzero((values >= count).any(axis=1)) if count is not None else np.zeros(0, np.int64)
    if len(strange):
        raise DataError(
            f"{len(strange)} of {len(values)} weeks hold cells above {count} - 1 (first rows "
            f"{strange[:SHOWN].tolist()}); the table and its cells do not belong together."
        )


def _grid_of(metadata: dict[str, str]) -> SquareGrid | None:
    shape = re.match(r"\s*(\d+)\s*x\s*(\d+)", metadata.get("grid", ""))
    edges = [re.findall(r"-?\d+(?:\.\d+)?", metadata.get(name, "")) for name in ("box_lat", "box_lon")]
    if shape is None or any(len(pair) != 2 for pair in edges):
        return None
    (south, north), (west, east) = ([float(edge) for edge in pair] for pair in edges)
    return SquareGrid(south, west, north, east, int(shape[1]), int(shape[2]))


def _zone_of(metadata: dict[str, str]) -> str | None:
    """IANA name; a fixed offset such as "UTC-7" becomes "Etc/GMT+7", whose sign is the other way round."""
    text = metadata.get("tz", "")
    offset = re.fullmatch(r"UTC([+-])(\d{1,2})", text)
    if offset is None:
        return text or None
    return "Etc/GMT" + {"+": "-", "-": "+"}[offset[1]] + offset[2]
