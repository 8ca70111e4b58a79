"""Files of the command line, checked before any work begins and written: Parquet, CSV and GeoParquet by their suffix.

What a file must hold is the library's business, and its sentence is the answer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile
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
        OSError: see `check_file`.
    """
    if path is None or path == STDOUT:
        return
    if not is_table(path):
        raise ValueError(f"Cannot write {path.name}: end its name in {SUFFIXES}.")
    check_file(path)


def check_file(path: Path) -> None:
    """Raises an OSError for a folder where a file is to be written, or a place that cannot be written to."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it.")
    folder = _folder_above(path)
    _check_writable(path, folder)  # the new file is written beside the old one and takes its place
    _check_writable(path, path)
    _check_space(path, folder)


def check_folder(path: Path) -> None:
    """Raises an OSError where a folder is to be saved and cannot be."""
    if path == STDOUT or (path.exists() and not path.is_dir()):
        raise NotADirectoryError(f"{path} is no folder; name the folder that is to be written to.")
    folder = path if path.exists() else _folder_above(path)
    _check_writable(path, folder)
    _check_space(path, folder)


def _folder_above(path: Path) -> Path:
    """The first that exists."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {there} is no folder.")
    return there


def _check_writable(path: Path, needed: Path) -> None:
    if needed.exists() and not os.access(needed, os.W_OK):
        raise PermissionError(f"{path} cannot be written: {needed} does not allow it.")


def _check_space(path: Path, folder: Path) -> None:
    """Write a megabyte and remove it: a full disk, a quota or a mount that takes nothing is found before the work."""
    try:
        with TemporaryFile(prefix=".", dir=folder) as probe:
            probe.write(bytes(1 << 20))
            probe.flush()
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}.") from error


def is_csv(path: Path) -> bool:
    """As that of `tokenization.table_files`, which imports pandas: the command line starts without it."""
    return path.suffix == ".csv" or path.name.endswith(".csv.gz")


def is_table(path: Path) -> bool:
    """Whether a name is that of a file that can be written."""
    return path.suffix in (".parquet", GEO) or is_csv(path)


def check_inputs(*paths: Path | None) -> None:
    """Raises a FileNotFoundError for the first file that is not there."""
    for path in paths:
        if path is not None and not path.exists():
            raise FileNotFoundError(f"There is no file {path}.")


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


def write_frames(frames: Iterable[Any], path: Path) -> None:
    """As `write_frame`, one piece of the table after the other as it is made; GeoParquet is written at the end."""
    if path.suffix == GEO:
        import pandas as pd

        write_frame(pd.concat(frames, ignore_index=True), path)
    elif path == STDOUT:
        _append_csv(frames, sys.stdout)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        from ..tokenization.whole_files import whole_file

        with whole_file(path) as file:
            if path.suffix == ".parquet":
                _append_parquet(frames, file)
            else:
                _append_csv(frames, file)


def _append_csv(frames: Iterable[Any], target: Any) -> None:
    for number, frame in enumerate(frames):
        frame.to_csv(target, mode="a", header=number == 0, index=False)


def _append_parquet(frames: Iterable[Any], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    try:
        for frame in frames:
            table = pa.Table.from_pandas(frame, preserve_index=False)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def write_geo(frame: Any, path: Path) -> None:
    from ..data.io.interop import with_geometry

    missing = [name for name in ("lat", "lon") if name not in frame]
    if missing:
        raise ValueError(f"The result has no column(s) {', '.join(missing)}: write it as .parquet or .csv.")
    with_geometry(frame, "geometry").to_parquet(path, index=False)


def doing(what: str) -> None:
    """What is done now, on stderr, before what takes seconds: nobody should look at nothing."""
    typer.echo(f"hf-mobility: {what}", err=True)


def done(what: str, path: Path) -> None:
    """What was written where, on stderr."""
    typer.echo(f"{what} -> {'stdout' if path == STDOUT else path}", err=True)


def say(sentence: str, *, output: Path | None = None) -> None:
    """A result on stdout; on stderr where the table itself goes to stdout."""
    typer.echo(sentence, err=output == STDOUT)


def bars() -> bool:
    """Whether bars of progress are drawn: where stderr is a terminal."""
    return sys.stderr.isatty()
