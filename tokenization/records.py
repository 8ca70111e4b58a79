"""Records read by their columns, each fault in one sentence.

Whatever holds the columns: a pandas frame, an Arrow table, a `datasets.Dataset`, a dict of columns or a list of dicts.
pandas is never imported, and nothing loops over rows but where a column holds Python objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .clock import LATEST_EPOCH_SECOND, epoch_seconds
from .errors import SHOWN, DataError, refuse
from .texts import unusable_texts

_CELL_NAME = re.compile(r"r(\d+)c(\d+)")
_MISSING = ("None", "nan", "NaT", "<NA>")


def is_records(items: Any) -> bool:
    """Whether a list holds dicts, one a row."""
    return len(items) > 0 and isinstance(items[0], dict)


def has_column(frame: Any, name: str) -> bool:
    if isinstance(frame, (list, tuple)):
        return any(name in record for record in frame)
    names = getattr(frame, "column_names", None)
    return name in (names if names is not None else frame)


def column(frame: Any, name: str, role: str | None = None, *, gaps: bool = False) -> Any:
    """A column as an array or a pandas column.

    Args:
        role: the keyword that names the column.
        gaps: whether some dicts of a list may lack the value, which is then None.

    Raises:
        DataError: an empty list, no such column, or dicts that lack the value.
    """
    if isinstance(frame, (list, tuple)) and not frame:
        raise DataError("There are no records to encode: the list is empty.")
    if not has_column(frame, name):
        raise DataError(f"The records have no column {name!r}; name it by keyword, as in {role or name}='my_column'.")
    if isinstance(frame, (list, tuple)):
        if not gaps:
            refuse([name not in record for record in frame], name, "missing", "give every record this value")
        return np.asarray([record.get(name) for record in frame], dtype=object)
    values = frame[name]
    if hasattr(values, "to_pandas") and not hasattr(values, "dtype"):
        return values.to_pandas()  # an Arrow column; numpy would lose its time zone
    if hasattr(values, "dtype"):
        return values
    is_text = len(values) > 0 and isinstance(values[0], str)
    return np.asarray(values, dtype=object if is_text else None)  # fixed-width text is as wide as the longest one


def check_lengths(frame: Any, names: Iterable[str]) -> None:
    """Raise a `DataError` if columns of a dict, those of these names that it has, differ in length from the first."""
    lengths = {name: len(frame[name]) for name in names if name in frame} if isinstance(frame, Mapping) else {}
    first = next(iter(lengths), None)
    for name, length in lengths.items():
        if length != lengths[first]:
            raise DataError(f"Column {name!r} has {length} values, column {first!r} has {lengths[first]}.")


def read_times(frame: Any, name: str) -> np.ndarray:
    """Epoch seconds UTC, (n,) int64, n > 0.

    Raises:
        DataError: no rows; naive or missing times.
    """
    utc = epoch_seconds(column(frame, name, "time"), name)
    if len(utc) == 0:
        raise DataError("There are no records to encode: the frame is empty.")
    return utc


def read_users(frame: Any, name: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct user ids (U,), sorted, and the row in them of each record, (n,) int64; without such a column everybody
    is user 0.

    Raises:
        DataError: missing ids, or ids of different types.
    """
    if not has_column(frame, name):
        return np.zeros(1, np.int64), np.zeros(rows, np.int64)
    return factorize(column(frame, name), name)


def factorize(values: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids (n,) -> sorted distinct ids (U,) and codes (n,) int64.

    Runs of equal ids are read first, so that a frame sorted by user costs next to nothing.

    Texts stay Python objects: fixed-width text is as wide as the longest id.

    Raises:
        DataError: missing ids, ids of different types, texts that `text_fault` names, or integers beyond int64.
    """
    values = np.asarray(values)
    if values.dtype.kind in "US":
        values = values.astype(object)
    advice = "drop these rows or give them an id"
    if values.dtype.kind == "f":
        refuse(~np.isfinite(values), name, "missing", advice)
    if values.dtype.kind != "O":
        heads = np.flatnonzero(np.append(True, values[1:] != values[:-1]))[: len(values)]
        users, codes = np.unique(values[heads], return_inverse=True)
        return users, np.repeat(codes.reshape(-1).astype(np.int64), np.diff(np.append(heads, len(values))))
    items = values.tolist()  # a set and a dictionary are several times faster than sorting texts
    try:
        distinct = set(items)
    except TypeError as error:
        raise DataError(f"Column {name!r} holds lists or the like; ids must be all integers or all strings.") from error
    if any(_is_missing(item) for item in distinct):
        refuse([_is_missing(item) for item in items], name, "missing", advice)
    try:
        ordered = sorted(distinct)
    except TypeError as error:
        raise DataError(f"Column {name!r} mixes ids of different types; make all integers or all strings.") from error
    for fault, bad in unusable_texts(ordered).items():
        refuse([item in bad for item in items], name, fault, "give each a short text of printable characters", values)
    users = np.array(ordered, dtype=object if isinstance(ordered[0], str) else None) if ordered else values
    if users.dtype.kind in "uO" and not isinstance(users[0], str):
        raise DataError(f"Column {name!r} holds ids of a type or size that is not known; use int64 or strings.")
    row = {user: code for code, user in enumerate(ordered)}
    return users, np.fromiter(map(row.__getitem__, items), np.int64, len(items))


def _is_missing(item: Any) -> bool:
    return not isinstance(item, str) and str(item) in _MISSING


def read_numbers(frame: Any, name: str, role: str | None = None) -> np.ndarray:
    """A column as a float64 copy, (n,); NaN = missing.

    Raises:
        DataError: values that are no numbers.
    """
    values = column(frame, name, role, gaps=True)
    try:
        if np.asarray(values).dtype.kind == "c":
            raise TypeError("complex")
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"Column {name!r} must hold numbers, found {getattr(values, 'dtype', 'mixed')}.") from error


def read_degrees(frame: Any, lat: str, lon: str) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes, two (n,) float64; see `checked_degrees`."""
    return checked_degrees(read_numbers(frame, lat, "lat"), read_numbers(frame, lon, "lon"), names=(lat, lon))


def checked_degrees(
    lat: Any, lon: Any, *, names: tuple[str, str] = ("lat", "lon"), columns: Sequence[Any] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates as float64 degrees.

    Args:
        names: of the two columns, for the sentences.
        columns: the two as they were given, where a sentence is to show their values and labels.

    Raises:
        DataError: missing values, values off the globe (the sentence says so where the two columns look swapped, or
            longitudes run from 0 to 360), or columns of different lengths.
    """
    lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
    if lat.shape != lon.shape:
        raise DataError(f"Columns {names[0]!r} and {names[1]!r} have {lat.size} and {lon.size} values.")
    shown = (lat, lon) if columns is None else columns
    for values, name, column in zip((lat, lon), names, shown):
        refuse(~np.isfinite(values), name, "missing, NaN or infinite", "drop or repair these rows", column)
    swapped = bool((np.abs(lat) <= 180).all() and (np.abs(lon) <= 90).all())
    advice = f"{names[0]!r} and {names[1]!r} look swapped" if swapped else "latitudes are degrees (WGS84)"
    refuse(np.abs(lat) > 90, names[0], "outside -90..90", advice, shown[0])
    full_circle = bool((lon >= 0).all() and (lon <= 360).all())
    advice = "subtract 360 from longitudes above 180" if full_circle else "longitudes are degrees (WGS84)"
    refuse(np.abs(lon) > 180, names[1], "outside -180..180", advice, shown[1])
    return lat, lon


def read_durations(frame: Any, name: str) -> np.ndarray:
    """Seconds from arrival to departure, (n,) float64, NaN = unknown.

    Raises:
        DataError: negative or infinite values, or values that are neither numbers nor time spans.
    """
    values = np.asarray(column(frame, name, "duration", gaps=True))
    seconds = values / np.timedelta64(1, "s") if values.dtype.kind == "m" else read_numbers(frame, name, "duration")
    refuse(seconds > LATEST_EPOCH_SECOND, name, "infinite or too long", "use NaN for an unknown stay", seconds)
    refuse(seconds < 0, name, "negative", "durations are seconds from arrival to departure", seconds)
    return seconds


def parse_cells(values: Any, name: str, *, columns: int | None, num_cells: int) -> np.ndarray:
    """Cell numbers, or names `r<row>c<column>` of a grid of so many columns, as int64; -1 = unknown.

    Raises:
        DataError: values that are neither, or cells outside 0..C-1.
    """
    given = np.asarray(values)
    if given.dtype.kind in "fiu":
        known = np.nan_to_num(given, nan=-1)
        numbers = known.astype(np.int64)
        numbers = np.where(numbers == known, numbers, num_cells)  # a part of a cell is no cell
    else:
        texts = list(map(str, given.reshape(-1).tolist()))
        cells = {text: _cell_number(text, columns, num_cells) for text in set(texts)}
        numbers = np.fromiter(map(cells.__getitem__, texts), np.int64, len(texts))
    outside = np.flatnonzero((numbers < -1) | (numbers >= num_cells))
    if len(outside):
        raise DataError(
            f"Column {name!r}: {len(outside)} of {len(numbers)} values are no cell of this grid of {num_cells} cells "
            f"(first {given[outside[:SHOWN]].tolist()}); give cells 0..{num_cells - 1}, -1 for unknown, or lat and lon."
        )
    return numbers


def row_and_column(name: str) -> tuple[int, int] | None:
    """Row and column of a cell's name `r<row>c<column>`; None for any other text."""
    named = _CELL_NAME.fullmatch(name)
    return (int(named[1]), int(named[2])) if named else None


def _cell_number(text: str, columns: int | None, num_cells: int) -> int:
    named = row_and_column(text)
    if named and columns:
        row, right = named
        return row * columns + right if right < columns else num_cells
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else num_cells


@dataclass(frozen=True)
class Points:
    """Checked records in the order they were given: codes (n,) int64 rows of `users` (U,), which is sorted; utc (n,)
    int64 epoch seconds; lat, lon (n,) float64 degrees; duration (n,) float64 seconds, NaN = unknown, or None.
    """

    users: np.ndarray
    codes: np.ndarray
    utc: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    duration: np.ndarray | None


def read_points(frame: Any, *, user_id: str, time: str, lat: str, lon: str, duration: str) -> Points:
    """Read and check the columns of points or stays.

    `user_id` may be absent (one user), as may `duration` (points, not stays) under its default name.

    Raises:
        DataError: missing columns, no rows, columns of different lengths, naive or missing times, coordinates that are
            no degrees, negative durations.
    """
    if isinstance(frame, (list, tuple)) and not frame:
        raise DataError("There are no points to encode: the list is empty.")
    check_lengths(frame, (time, lat, lon, user_id, duration))
    utc = read_times(frame, time)
    stays = has_column(frame, duration)
    if not stays and duration != "duration":
        raise DataError(f"The records have no column {duration!r}; leave `duration` out for points without stays.")
    degrees = read_degrees(frame, lat, lon)
    seconds = read_durations(frame, duration) if stays else None
    users, codes = read_users(frame, user_id, len(utc))
    return Points(users, codes, utc, *degrees, seconds)
