"""Points as RAW's tokenizer reads them: by their columns, whatever holds them, each fault in one sentence.

Unusual: nothing here loops over points, and pandas is not imported. People are told apart by runs of equal ids first,
so that a frame sorted by user costs next to nothing.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from .records_samoe import column, has_column, utc_seconds

DAY_SECONDS = 86_400
QUARTER = 900
_SHOWN = 5  # offenders named in a message
_MAX_TABLE = 20_000_000  # quarters of an hour (570 years) up to which offsets are looked up in a table


@dataclass(frozen=True)
class Points:
    """Checked records in the order they were given: codes (n,) int64 rows of `users` (U,), which is sorted; utc (n,)
    int64 epoch seconds; lat, lon (n,) float64 degrees; duration (n,) int64 seconds (0 = unknown) or None.
    """

    users: np.ndarray
    codes: np.ndarray
    utc: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    duration: np.ndarray | None


def read_points(points: Any, *, user_id: str, time: str, lat: str, lon: str, duration: str) -> Points:
    """Read and check the columns of a frame, Arrow table, dataset, dict of columns or list of records.

    `user_id` may be absent (one person), as may `duration` (points, not stays) under its default name.

    Raises:
        ValueError: for missing columns, no rows, columns of different lengths, naive or missing times, coordinates that
            are no degrees, negative durations.
    """
    if isinstance(points, (list, tuple)) and not points:
        raise ValueError("there are no points to encode: the list is empty.")
    for role, name in (("time", time), ("lat", lat), ("lon", lon)):
        if not has_column(points, name):
            raise ValueError(f"the points have no column {name!r}; name it by keyword, as in {role}='my_column'.")
    utc = _times(column(points, time), time)
    if len(utc) == 0:
        raise ValueError("there are no points to encode: the frame is empty.")
    stays = has_column(points, duration)
    if not stays and duration != "duration":
        raise ValueError(f"the points have no column {duration!r}; leave `duration` out for points without stays.")
    columns = {name: _numbers(column(points, name), name) for name in (lat, lon)}
    _check_degrees(columns[lat], columns[lon], lat, lon)
    seconds = _durations(_numbers(column(points, duration), duration), duration) if stays else None
    people = column(points, user_id) if has_column(points, user_id) else np.zeros(len(utc), np.int64)
    users, codes = factorise(people, user_id)
    for name, values in ((lat, columns[lat]), (lon, columns[lon]), (user_id, codes)):
        if len(values) != len(utc):
            raise ValueError(f"column {name!r} has {len(values)} values, column {time!r} has {len(utc)}.")
    return Points(users, codes, utc, columns[lat], columns[lon], seconds)


def factorise(values: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids (n,) -> sorted distinct ids (U,) and codes (n,) int64; a `ValueError` for missing ids or mixed types."""
    values = np.asarray(values)
    if values.dtype.kind == "f":
        refuse(~np.isfinite(values), name, "missing", "drop these rows or give them an id")
    try:
        if values.dtype.kind == "O":  # a set and a dictionary are several times faster than sorting texts
            items = values.tolist()
            distinct = sorted(set(items))
            row = {user: code for code, user in enumerate(distinct)}
            return np.array(distinct), np.fromiter(map(row.__getitem__, items), np.int64, len(items))
        heads = np.flatnonzero(np.append(True, values[1:] != values[:-1]))[: len(values)]
        users, codes = np.unique(values[heads], return_inverse=True)
    except TypeError as error:
        raise ValueError(f"column {name!r} mixes ids of different types; make all integers or all strings.") from error
    return users, np.repeat(codes.astype(np.int64), np.diff(np.append(heads, len(values))))


def wall_clock(utc: np.ndarray, timezone_name: str) -> np.ndarray:
    """UTC epoch seconds -> seconds of local civil time counted as if it were UTC, int64 (n,).

    No zone changes its offset other than on a quarter of an hour, so each quarter that occurs is looked up once.
    """
    zone = ZoneInfo(timezone_name)
    quarters = utc // QUARTER
    first = int(quarters.min())
    if int(quarters.max()) - first < _MAX_TABLE:
        present = np.zeros(int(quarters.max()) - first + 1, bool)
        present[quarters - first] = True
        distinct = np.flatnonzero(present) + first
        row = (np.cumsum(present) - 1)[quarters - first]
    else:
        distinct, row = np.unique(quarters, return_inverse=True)
    moments = (dt.datetime.fromtimestamp(quarter * QUARTER, zone) for quarter in distinct.tolist())
    offsets = np.fromiter((moment.utcoffset().total_seconds() for moment in moments), np.float64, len(distinct))
    return utc + offsets.astype(np.int64)[row]


def to_utc(local: np.ndarray, timezone_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Local civil seconds (n,) -> UTC epoch seconds (n,), and which of them exist (n,) bool.

    A time that comes twice (clocks set back) is the first one; one that does not exist (clocks set forward) is False.
    """
    zone = ZoneInfo(timezone_name)
    quarters, row = np.unique(local // QUARTER, return_inverse=True)
    naive = (dt.datetime.fromtimestamp(quarter * QUARTER, dt.timezone.utc) for quarter in quarters.tolist())
    offsets = (moment.replace(tzinfo=zone).utcoffset().total_seconds() for moment in naive)
    utc = local - np.fromiter(offsets, np.float64, len(quarters)).astype(np.int64)[row]
    return utc, (wall_clock(utc, timezone_name) == local) if len(utc) else np.zeros(0, bool)


def local_midnight(day: Any, name: str, timezone_name: str) -> int:
    """A date, ISO text or aware datetime -> local civil seconds of that day's first midnight."""
    if isinstance(day, str):
        try:
            day = dt.date.fromisoformat(day)
        except ValueError as error:
            raise ValueError(f"{name}={day!r} is no date; give it as in '2023-03-01'.") from error
    if isinstance(day, np.datetime64):
        day = day.astype("datetime64[D]").astype(object)
    if isinstance(day, dt.datetime):
        day = (day if day.tzinfo is None else day.astimezone(ZoneInfo(timezone_name))).date()
    if not isinstance(day, dt.date):
        raise ValueError(f"{name} must be a date or a text such as '2023-03-01', got {day!r}.")
    return (day - dt.date(1970, 1, 1)).days * DAY_SECONDS


def refuse(bad: np.ndarray, name: str, fault: str, advice: str, values: np.ndarray | None = None) -> None:
    """Raise one sentence if any row is bad: column, count, first rows and their values, what to do."""
    count = int(bad.sum())
    if not count:
        return
    rows = np.flatnonzero(bad)[:_SHOWN].tolist()
    shown = ", ".join(str(row) if values is None else f"{row}: {values[row]}" for row in rows)
    more = ", ..." if count > len(rows) else ""
    raise ValueError(f"column {name!r}: {count} of {len(bad)} values are {fault} (first rows {shown}{more}); {advice}.")


def _times(values: Any, name: str) -> np.ndarray:
    try:
        utc = utc_seconds(values)
    except ValueError as error:
        kind = getattr(values, "dtype", type(values).__name__)
        raise ValueError(
            f"column {name!r} must hold time-zone-aware times or integer epoch seconds (UTC), found {kind}; "
            "use hf_mobility.data.validate_points(frame, timezone=...) first."
        ) from error
    refuse(utc == np.iinfo(np.int64).min, name, "missing", "every point needs a time")
    return utc


def _numbers(values: Any, name: str) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {name!r} must hold numbers, found {getattr(values, 'dtype', 'mixed')}.") from error


def _check_degrees(lat: np.ndarray, lon: np.ndarray, lat_name: str, lon_name: str) -> None:
    for values, name in ((lat, lat_name), (lon, lon_name)):
        refuse(~np.isfinite(values), name, "missing, NaN or infinite", "drop or repair these rows", values)
    swapped = bool((np.abs(lat) <= 180).all() and (np.abs(lon) <= 90).all())
    advice = f"{lat_name!r} and {lon_name!r} look swapped" if swapped else "latitudes are degrees (WGS84)"
    refuse(np.abs(lat) > 90, lat_name, "outside -90..90", advice, lat)
    refuse(np.abs(lon) > 180, lon_name, "outside -180..180", "longitudes are degrees (WGS84)", lon)


def _durations(seconds: np.ndarray, name: str) -> np.ndarray:
    refuse(np.isinf(seconds), name, "infinite", "use NaN for an unknown stay", seconds)
    refuse(seconds < 0, name, "negative", "durations are seconds from arrival to departure", seconds)
    return np.ceil(np.nan_to_num(seconds)).astype(np.int64)
