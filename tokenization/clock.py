"""Time zones and clocks: UTC seconds to seconds of the local clock and back, days, half hours and weekdays.

UTC times are int64 epoch seconds. Local times are int64 seconds too: what the city's clock shows, counted as if it
were UTC, so that a local day begins at every multiple of `DAY_SECONDS`. Where the clock is set back, local times occur
twice; where it is set forward, some do not exist.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from .errors import SHOWN, DataError, refuse

Zone = str | dt.tzinfo

DAY_SECONDS = 86_400
HALF_HOUR_SECONDS = 1_800
HALF_HOURS = 48  # of a day
EARLIEST_EPOCH_SECOND = -62 * 10**9  # the year 5; calendars of Python begin with the year 1
LATEST_EPOCH_SECOND = 10**11  # the year 5138; larger integers are milliseconds or nanoseconds
_FAR = 2**62  # stands for integers that int64 does not hold


class Clock(NamedTuple):
    """Stretches of time in which a zone keeps its distance from UTC, in order; four int64 arrays (S,).

    Fields:
        start, end: epoch seconds; a stretch ends where the next one begins.
        offset: seconds of local time less UTC.
        fresh: epoch second from which the clock shows what it never showed before. It is later than `start` where the
            clock was set back: until then it repeats an hour.
    """

    start: np.ndarray
    end: np.ndarray
    offset: np.ndarray
    fresh: np.ndarray


def zone_of(timezone: Zone | None) -> dt.tzinfo:
    """The time zone of an IANA name; a `tzinfo` as it is.

    Raises:
        DataError: the name is no IANA zone.
    """
    if isinstance(timezone, dt.tzinfo):
        return timezone
    try:
        return ZoneInfo(str(timezone))
    except (KeyError, ValueError, OSError) as error:
        shown = None if timezone is None else str(timezone)[:80]
        raise DataError(f"Unknown time zone {shown!r}; give an IANA name such as 'Europe/Berlin'.") from error


def clock_of(times: np.ndarray, timezone: Zone) -> Clock:
    """The stretches that cover all times (n,) int64, n > 0, and a day more on either side.

    A zone is looked up once a day; where its offset has changed, the second of the change is found by bisection.
    """
    zone = zone_of(timezone)
    days = range(
        (int(times.min()) // DAY_SECONDS - 1) * DAY_SECONDS,
        (int(times.max()) // DAY_SECONDS + 3) * DAY_SECONDS,
        DAY_SECONDS,
    )
    starts, offsets = [days[0]], [_offset(days[0], zone)]
    for day in days[1:]:
        now = _offset(day, zone)
        if now != offsets[-1]:
            starts.append(_change(day - DAY_SECONDS, day, zone))
            offsets.append(now)
    start, offset = np.array(starts, np.int64), np.array(offsets, np.int64)
    end = np.append(start[1:], days[-1])
    shown = np.maximum.accumulate(end + offset)  # what the clock has shown by the end of each stretch
    fresh = np.minimum(np.maximum(start, np.append(start[:1], shown[:-1] - offset[1:])), end)
    return Clock(start, end, offset, fresh)


def _offset(second: int, zone: dt.tzinfo) -> int:
    return int(dt.datetime.fromtimestamp(second, zone).utcoffset().total_seconds())


def _change(before: int, after: int, zone: dt.tzinfo) -> int:
    """The first second of the offset of `after`, which differs from that of `before`."""
    old = _offset(before, zone)
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if _offset(middle, zone) == old else (before, middle)
    return after


def to_local(utc: Any, timezone: Zone) -> np.ndarray:
    """UTC epoch seconds -> seconds of local time, int64 of the same shape."""
    utc = np.asarray(utc, np.int64)
    if not utc.size:
        return utc
    clock = clock_of(utc, timezone)
    return utc + clock.offset[np.searchsorted(clock.start, utc, side="right") - 1]


def to_utc(local: Any, timezone: Zone, *, skipped: str = "shift") -> tuple[np.ndarray, np.ndarray]:
    """Seconds of local time -> UTC epoch seconds, int64 of the same shape, and which of them exist (bool).

    A time that occurs twice is the first of the two. A time that the clock skips is `shift`: as far after the change as
    it is after the last time shown; or `first`: the instant of the change.
    """
    local = np.asarray(local, np.int64)
    if not local.size:
        return local, np.zeros(local.shape, bool)
    clock = clock_of(local, timezone)
    shown = np.maximum.accumulate(clock.end + clock.offset)
    row = np.searchsorted(shown, local, side="right")
    utc = local - clock.offset[row]
    exists = utc >= clock.start[row]
    instead = clock.start[row] if skipped == "first" else local - clock.offset[row - 1]
    return np.where(exists, utc, instead), exists


def half_hour(local: np.ndarray) -> np.ndarray:
    """Half hour of the day, 0..47, of local times."""
    return local // HALF_HOUR_SECONDS % HALF_HOURS


def weekday(local: np.ndarray) -> np.ndarray:
    """Day of the week, 0 = Monday, of local times (1970-01-01 was a Thursday)."""
    return (local // DAY_SECONDS + 3) % 7


# Reading


def epoch_seconds(times: Any, name: str = "time") -> np.ndarray:
    """Time-zone-aware times or integer epoch seconds -> int64 epoch seconds UTC.

    Raises:
        DataError: naive times, missing times, or numbers that are no seconds.
    """
    utc = _as_seconds(times, name)
    refuse(utc == np.iinfo(np.int64).min, name, "missing", "every row needs a time")
    advice = "convert milliseconds or nanoseconds to seconds first"
    strange = (utc < EARLIEST_EPOCH_SECOND) | (utc >= LATEST_EPOCH_SECOND)
    refuse(strange, name, "no epoch seconds", advice, utc)
    return utc


def _as_seconds(times: Any, name: str) -> np.ndarray:
    if getattr(getattr(times, "dtype", None), "tz", None) is not None:  # a pandas column
        return times.to_numpy(dtype="datetime64[s]").astype(np.int64)
    values = np.asarray(times)
    if len(values) == 0:
        return np.zeros(0, np.int64)
    if values.dtype == np.uint64:
        return np.minimum(values, np.uint64(_FAR)).astype(np.int64)
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    items = values.tolist() if values.dtype.kind == "O" else []
    if items and all(isinstance(item, (int, np.integer)) for item in items):
        return np.fromiter((max(min(int(item), _FAR), -_FAR) for item in items), np.int64, len(items))
    if items and all(isinstance(item, dt.datetime) and item.tzinfo is not None for item in items):
        return np.fromiter((int(item.timestamp()) for item in items), np.int64, len(items))
    raise DataError(
        f"Column {name!r} must hold time-zone-aware times or integer epoch seconds (UTC), found "
        f"{getattr(times, 'dtype', values.dtype)} such as {values[0]!r}; use "
        "hf_mobility.data.validate_visits or validate_points(frame, timezone=...) first."
    )


def local_midnight(day: Any, name: str, timezone: Zone) -> int:
    """A date, ISO text or aware datetime -> local seconds of that day's midnight.

    Raises:
        DataError: for anything that is no date.
    """
    if isinstance(day, str):
        try:
            day = dt.date.fromisoformat(day)
        except ValueError as error:
            raise DataError(f"{name}={day!r} is no date; give it as in '2023-03-01'.") from error
    if isinstance(day, np.datetime64):
        day = day.astype("datetime64[D]").astype(object)
    if isinstance(day, dt.datetime):
        day = (day if day.tzinfo is None else day.astimezone(zone_of(timezone))).date()
    if not isinstance(day, dt.date):
        raise DataError(f"{name} must be a date or a text such as '2023-03-01', got {day!r}.")
    return (day - dt.date(1970, 1, 1)).days * DAY_SECONDS


def local_dates(values: Any) -> np.ndarray:
    """Dates as datetime64[D], of the shape given; of an aware time the date on its own clock, not in UTC.

    Raises:
        DataError: for text that is no ISO date, and for times of day: windows begin at midnight.
    """
    given = np.asarray(values)
    if given.dtype.kind in "OU":
        times = [_read_time(time) if isinstance(time, str) else time for time in given.ravel().tolist()]
        naive = [time.replace(tzinfo=None) if getattr(time, "tzinfo", None) else time for time in times]
        given = np.array(naive, dtype="datetime64[s]").reshape(given.shape)
    dates = given.astype("datetime64[D]")
    late = np.flatnonzero((dates != given) & ~np.isnat(dates))
    if len(late):
        first = given.ravel()[late[:SHOWN]].astype(str).tolist()
        raise DataError(
            f"start: {len(late)} of {dates.size} are no dates but times of day (first {', '.join(first)}); windows "
            "begin at midnight, so give dates."
        )
    return dates


def _read_time(text: str) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(f"start: {text!r} is no date; write it as 2024-01-31.") from error
