"""Records of users in any form that the verbs take: a frame, a file of visits, points or weeks, a folder of such files,
or a `WeekTable`.

A file is opened as a path as long as `validate_visits` can read it; GeoParquet, other separators and formats of times
are turned into a frame here. Generated weeks (`trajectory_id`, `slot`, `cell`) are records of one user per week.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ...tokenization.errors import DataError
from ...tokenization.table_files import file_columns, is_csv, parquet_columns, read_file
from ...tokenization.tables import numbers_where_exact
from ..frames import in_order, validate_visits
from ..weeks import WeekTable, is_hourly_table, is_week_table, read_weeks
from .streams import are_many, parquet_files, row_blocks

__all__ = ["GEO", "OpenedTable", "as_records", "column_names", "name_of", "open_table"]

GEO = ".geoparquet"


@dataclass(frozen=True)
class OpenedTable:
    """What a verb is called with: `verb(table.data, timezone=..., **table.columns)`."""

    data: Any
    columns: dict[str, str]


def as_records(source: Any, *, timezone: str | None = None, **columns: str) -> pd.DataFrame | WeekTable:
    """A canonical frame of visits or points, or a table of weeks.

    Args:
        source: a `WeekTable`; or what `validate_visits` or `read_weeks` takes, or a `.geoparquet` file. A folder or
            a pattern of Parquet files, whose rows may be in any order, is as one file of all their rows; it is read and
            checked in blocks of a million.
        timezone: IANA name, for naive times.
        columns: other names of the columns, as in `user_id="uid"`.

    Returns:
        A `WeekTable` for weeks (a column `cells`, or `h0`, `h1`, ...), else the frame of `validate_visits`.

    Raises:
        DataError: columns that are missing or hold values that cannot be used.
        FileNotFoundError: a path that does not exist.
    """
    if isinstance(source, WeekTable):
        return source
    if is_week_table(column_names(source)):
        known: dict[str, Any] = {role: name for role, name in columns.items() if role in ("user_id", "start")}
        if len(known) < len(columns):
            raise DataError(f"A table of weeks has no column for {sorted(set(columns) - set(known))}.")
        return read_weeks(source, **known)
    table = open_table(source, columns=columns)
    if not are_many(source):
        return validate_visits(table.data, timezone=timezone, **table.columns)
    blocks = (validate_visits(block, timezone=timezone, **table.columns) for block in row_blocks(source))
    return in_order(pd.concat(blocks, ignore_index=True))


def open_table(
    source: Any,
    *,
    columns: dict[str, str],
    sep: str | None = None,
    time_format: str | None = None,
) -> OpenedTable:
    """The table as `validate_visits` can read it, and its columns' names.

    Args:
        source: a frame or a path.
        columns: role -> name in the file.
        sep: separator of a CSV file; a comma by default.
        time_format: of the column of times, as in `"%d.%m.%Y %H:%M"`.

    Raises:
        DataError: a separator for another file than CSV, or times of another format.
    """
    names = column_names(source, sep=sep or ",")
    if "user_id" not in columns and is_hourly_table(names):
        columns = {**columns, "user_id": "trajectory_id"}
    time = columns.get("time", "time")
    if isinstance(source, (str, Path)):
        path = Path(source)
        if sep is not None or time_format is not None:
            if path.is_file() and not is_csv(path):
                raise DataError(f"A separator and a format of times are for .csv files, not for {path.name}.")
            user, place = (columns.get(role, role) for role in ("user_id", "location_id"))
            text = [user, place] if time_format is None else [user, place, time]
            source = numbers_where_exact(read_file(path, ids=text, sep=sep or ","), user)
        elif path.suffix == GEO:
            from .interop import read_geo

            source = read_geo(path)
    if time_format is not None:
        source = _with_times(source, time, time_format)
    return OpenedTable(source, columns)


def column_names(source: Any, *, sep: str = ",") -> set[str]:
    """The names of a table's columns, of many files those of the first; none where it cannot be read, which its reader
    says better."""
    if isinstance(source, (str, Path)):
        path = _first(source)
        if not path.is_file():
            return set()
        if path.suffix == GEO:
            return set(parquet_columns(path))
        return set(file_columns(path, sep=sep)) if is_csv(path) or path.suffix == ".parquet" else set()
    columns: Any = getattr(source, "column_names", None)
    columns = getattr(source, "columns", ()) if columns is None else columns
    return set() if callable(columns) else set(columns)


def _first(source: str | Path) -> Path:
    """The file itself, or the first of many."""
    try:
        return parquet_files(source)[0] if are_many(source) else Path(source)
    except (FileNotFoundError, DataError):
        return Path(source)


def name_of(source: Any) -> str:
    """What a table is called: after its file or folder, or by `attrs["name"]` of a frame; else empty."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        is_pattern = are_many(path) and not path.is_dir()
        return (path.parent if is_pattern else path).name.split(".")[0]
    return str(getattr(source, "attrs", {}).get("name", ""))


def _with_times(table: pd.DataFrame, name: str, time_format: str) -> pd.DataFrame:
    if name not in table:
        return table  # which validate_visits says better
    times = pd.to_datetime(table[name].astype(str), format=time_format, errors="coerce")
    bad = times.isna() & table[name].notna()
    if bad.any():
        first = table[name][bad].tolist()[:5]
        raise DataError(
            f"Column {name!r}: {int(bad.sum())} of {len(table)} values do not fit the format {time_format!r} (first: "
            f"{first}); give the format of the file."
        )
    return table.assign(**{name: times})
