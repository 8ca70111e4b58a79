"""Any spelling of time -> microseconds in UTC.

Daylight saving: local times that occur twice are read as the first of the two (the daylight-saving one); local times
that do not exist are shifted forward to the first instant that does, and a warning names them.
"""

from __future__ import annotations

import datetime as dt
import warnings
from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.clock import LATEST_EPOCH_SECOND, Zone, to_utc, zone_of
from ..tokenization.errors import fault_of, refuse

_ISO_DATE = r"^\s*\d{4}(?:-\d{1,2}-\d{1,2}|\d{4}(?:T|\s|$))"  # pandas would also read "2012", "now" and "today"
_ZONE = r"(?:T\d{2,6}|\d:\d{2})(?:[.,]\d+)?\s*(?:Z|UTC|GMT|[+-]\d{2})"
_OTHER_FORMATS = ("%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z")  # Foursquare and Twitter; e-mail headers


def utc_times(column: pd.Series, name: str, timezone: Zone | None) -> pd.Series:
    """Any spelling of time as datetime64[us, UTC].

    Warns:
        UserWarning: naive times in an hour that the clock of `timezone` skipped: they may be of another zone.
    """
    refuse(column.isna(), name, "missing", "every row needs a time")
    if column.dtype == object and pd.api.types.infer_dtype(column, skipna=False) == "integer":
        column = column.map(lambda value: value if abs(value) < LATEST_EPOCH_SECOND else np.inf).astype("float64")
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        return _from_epoch(column, name)
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        clock, zoned = column.dt.tz_convert("UTC"), np.ones(len(column), dtype=bool)
    elif pd.api.types.is_datetime64_dtype(column.dtype):
        clock, zoned = column.dt.tz_localize("UTC"), np.zeros(len(column), dtype=bool)
    else:
        clock, zoned = from_text(column)
        advice = "use ISO 8601, or parse them first with pandas.to_datetime(column, format=...)"
        refuse(clock.isna(), name, "no readable times", advice, column)
    clock = clock.astype("datetime64[us, UTC]").reset_index(drop=True)
    if zoned.all():
        return clock
    if timezone is None:
        refuse(~zoned, name, "without a time zone", "pass timezone=, the IANA name of the city's zone", column)
    clock[~zoned], exists = _localize(clock[~zoned], zone_of(timezone))
    skipped = ~zoned
    skipped[~zoned] = ~exists
    advice = "they are read as the moment of the change; check timezone="
    if sentence := fault_of(skipped, name, f"times that the clock of {timezone} skipped", advice, column):
        warnings.warn(sentence, stacklevel=2)
    return clock


def aware_times(local: pd.Series, timezone: str) -> pd.Series:
    """Naive readings of the clock of `timezone` as aware times."""
    first = np.ones(len(local), dtype=bool)
    return local.dt.tz_localize(timezone, ambiguous=first, nonexistent="shift_forward")


def _localize(clock: pd.Series, timezone: Zone) -> tuple[pd.Series, np.ndarray]:
    """Local readings labelled UTC -> UTC, and which of them exist."""
    local, rest = np.divmod(clock.astype("int64").to_numpy(), 1_000_000)
    utc, exists = to_utc(local, timezone, skipped="first")
    times = pd.Series(utc * 1_000_000 + np.where(exists, rest, 0), index=clock.index)
    return times.astype("datetime64[us]").dt.tz_localize("UTC"), exists


def _from_epoch(column: pd.Series, name: str) -> pd.Series:
    seconds = column.to_numpy(dtype=np.float64)
    advice = "numbers are epoch seconds UTC, so convert milliseconds or nanoseconds first"
    refuse(~(np.abs(seconds) < LATEST_EPOCH_SECOND), name, "no epoch seconds", advice, column)
    # Whole seconds and the fraction apart: float64 microseconds of the full value would be off by a rounding.
    whole = np.floor(seconds)
    micros = whole.astype(np.int64) * 1_000_000 + np.round((seconds - whole) * 1e6).astype(np.int64)
    return pd.Series(micros.view("datetime64[us]")).dt.tz_localize("UTC")


def from_text(column: pd.Series) -> tuple[pd.Series, np.ndarray]:
    """Clock readings labelled UTC (NaT = unreadable), and which rows carried a zone of their own."""
    if pd.api.types.infer_dtype(column, skipna=False) != "string":
        column = column.astype(object).map(_iso_text)
    text = column.str.replace(r"\s*(?:UTC|GMT)\s*$", "Z", regex=True)
    # Both filters keep out words that pandas would read ("now", "today"), whatever the format.
    iso = text.where(text.str.contains(_ISO_DATE, regex=True), None)
    clock = pd.to_datetime(iso, format="ISO8601", errors="coerce", utc=True)
    if clock.isna().any():
        headers = text.where(text.str.contains(r"^[A-Za-z]{3},? .*\d", regex=True), None)
        for pattern in _OTHER_FORMATS:
            clock = clock.fillna(pd.to_datetime(headers, format=pattern, errors="coerce", utc=True))
    return clock, text.str.contains(_ZONE, regex=True, case=False).to_numpy(dtype=bool)


def _iso_text(value: Any) -> str:
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    return value.isoformat() if isinstance(value, dt.date) else value if isinstance(value, str) else repr(value)
