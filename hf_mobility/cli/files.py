"""Files in and out of the command line, checked before any work begins: Parquet, CSV and GeoParquet by their suffix.

What a file must hold is the library's business, and its sentence is the answer.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import typer

SUFFIXES = ".parquet, .csv, .csv.gz or .geoparquet"
GEO = ".geoparquet"
STDOUT = Path("-")

# --------------------------------------------------------------------------------------------------------------- checks


def check_output(path: Path | None) -> None:
    """Before the work, not after it: the suffix, and a place that can be written to.

    Raises:
        ValueError: another suffix.
        OSError: a folder where a file is to be, or a place that cannot be written to.
    """
    if path is None or path == STDOUT:
        return
    if path.suffix not in (".parquet", ".csv", GEO) and not path.name.endswith(".csv.gz"):
        raise ValueError(f"Cannot write {path.name}: end its name in {SUFFIXES}.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it.")
    _check_writable(path, _folder_above(path))  # the new file is written beside the old one and takes its place
    _check_writable(path, path)


def check_folder(path: Path) -> None:
    """Raises an OSError where a folder is to be saved and cannot be."""
    if path == STDOUT or (path.exists() and not path.is_dir()):
        raise NotADirectoryError(f"{path} is no folder; name the folder that the model is to be saved to.")
    _check_writable(path, path if path.exists() else _folder_above(path))


def _folder_above(path: Path) -> Path:
    """The first that exists."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {there} is no folder.")
    return there


def _check_writable(path: Path, needed: Path) -> None:
    if needed.exists() and not os.access(needed, os.W_OK):
        raise PermissionError(f"{path} cannot be written: {needed} does not allow it.")


def check_inputs(*paths: Path | None) -> None:
    """Raises a FileNotFoundError for the first file that is not there."""
    for path in paths:
        if path is not None and not path.exists():
            raise FileNotFoundError(f"There is no file {path}.")


def column_names(pairs: list[str]) -> dict[str, str]:
    """`["user_id=uid"]` -> `{"user_id": "uid"}`."""
    named = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(named) < len(pairs):
        raise typer.BadParameter("write each as ROLE=NAME, once per role, for example --column user_id=uid")
    return named


def numbers(text: str | None, count: int) -> tuple[float, ...] | None:
    """`"48.1,11.5"` -> (48.1, 11.5)."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        raise typer.BadParameter(f"{text!r} must be {count} numbers with commas between them")
    return values


def bounds_of(bounds: str | None, old_box: str | None = None) -> tuple[float, ...] | None:
    """(south, west, north, east) of `--bounds`, or of the older `--box`."""
    return numbers(bounds if bounds is not None else old_box, 4)


# -------------------------------------------------------------------------------------------------------------- reading


def records(
    path: Path,
    *,
    timezone: str | None = None,
    column: list[str] | None = None,
    sep: str | None = None,
    time_format: str | None = None,
) -> Any:
    """What the library's verbs take: the path where they can read the file by themselves, else a canonical frame with
    its name in `attrs["name"]`, or a table of weeks."""
    from ..data.io.records import as_records, is_week_table, name_of, open_table
    from ..data.io.records import column_names as names_in

    columns = column_names(column or [])
    check_inputs(path)
    table = open_table(path, columns=columns, timezone=timezone, sep=sep, time_format=time_format)
    if table.data is path and not table.columns and not is_week_table(names_in(path)):
        return path
    data = as_records(table.data, timezone=timezone, **table.columns)
    if hasattr(data, "attrs"):
        data.attrs["name"] = name_of(path)
    return data


def visits_frame(path: Path, **options: Any) -> Any:
    """As `records`, but always the canonical frame of visits or points."""
    from ..data.frames import validate_visits

    data = records(path, **options)
    return validate_visits(path, timezone=options.get("timezone")) if data is path else data


def read_city(path: Path | None, *, timezone: str | None, column: list[str], sep: str | None = None) -> Any:
    """The city of a folder, the places of a file of visits, or of a file of places (without a time); None for none."""
    from ..data.io.records import column_names as names_in
    from ..data.io.records import name_of
    from ..tokenization.city import City
    from ..tokenization.errors import DataError

    if path is None:
        return None
    check_inputs(path)
    if path.is_dir():
        return City.load(path)
    if timezone is None:
        raise DataError("The time zone of a new city is missing: give --timezone, such as Europe/Berlin.")
    columns = column_names(column)
    if columns.get("time", "time") in names_in(path, sep=sep or ","):
        visits = visits_frame(path, timezone=timezone, column=column, sep=sep)
        return City.from_visits(visits, timezone=timezone, name=name_of(path))
    table = read_frame(path, text=columns.get("location_id", "location_id"), sep=sep or ",")
    table = table.rename(columns={name: role for role, name in columns.items()})
    return City.from_pois(table, timezone=timezone, name=name_of(path))


def read_frame(path: Path, *, text: str = "location_id", sep: str = ",") -> Any:
    """A file as it is; ids in the column `text` stay text."""
    import pandas as pd

    check_inputs(path)
    if path.suffix in (".parquet", GEO):
        return pd.read_parquet(path)
    if path.suffix == ".csv" or path.name.endswith(".csv.gz"):
        return pd.read_csv(path, dtype={text: str}, sep=sep)
    raise ValueError(f"Cannot read {path.name}: the known file types are {SUFFIXES}.")


def holds_weeks(path: Path) -> bool:
    """Whether a file is what `generate` writes."""
    from ..data.io.records import column_names as names_in

    names = names_in(path)
    return names >= {"trajectory_id", "slot", "cell"} and "user_id" not in names


# -------------------------------------------------------------------------------------------------------------- writing


def write_frame(frame: Any, path: Path) -> None:
    """Write by suffix, whole or not at all, or CSV to stdout for `-`; the folder is made. GeoParquet needs the columns
    `lat` and `lon`.

    Raises:
        ValueError: no coordinates for GeoParquet.
        ImportError: GeoParquet without geopandas.
    """
    if path == STDOUT:
        frame.to_csv(sys.stdout, index=False)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    from ..tokenization.whole_files import whole_file

    with whole_file(path) as file:
        if path.suffix == GEO:
            write_geo(frame, file)
        elif path.suffix == ".parquet":
            frame.to_parquet(file, index=False)
        else:
            frame.to_csv(file, index=False)


def write_geo(frame: Any, path: Path) -> None:
    from ..data.io.interop import with_geometry

    missing = [name for name in ("lat", "lon") if name not in frame]
    if missing:
        raise ValueError(f"The result has no column(s) {', '.join(missing)}: write it as .parquet or .csv.")
    with_geometry(frame, "geometry").to_parquet(path, index=False)


def done(what: str, path: Path) -> None:
    """What was written where, on stderr."""
    typer.echo(f"{what} -> {'stdout' if path == STDOUT else path}", err=True)


def say(sentence: str, *, output: Path | None = None) -> None:
    """A result on stdout; on stderr where the table itself goes to stdout."""
    typer.echo(sentence, err=output == STDOUT)


def bars() -> bool:
    """Whether bars of progress are drawn: where stderr is a terminal."""
    return sys.stderr.isatty()
