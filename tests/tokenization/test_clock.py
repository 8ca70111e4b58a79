"""Local clocks against the standard library, second by second."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from hf_mobility import DataError
from hf_mobility.tokenization.clock import (
    EARLIEST_EPOCH_SECOND,
    LATEST_EPOCH_SECOND,
    clock_of,
    epoch_seconds,
    half_hour,
    local_midnight,
    to_local,
    to_utc,
    weekday,
    zone_of,
)

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/St_Johns",  # half hours, and for years at one minute past midnight
    "Australia/Lord_Howe",  # half an hour of summer time
    "Pacific/Apia",  # skipped 30 December 2011
    "Africa/Casablanca",  # winter time in Ramadan
    "Africa/Monrovia",  # minutes and seconds until 1972
    "Asia/Kathmandu",
)


def shown(second: int, zone: str) -> int:
    """The reading of a clock by the standard library, counted as if it were UTC."""
    local = dt.datetime.fromtimestamp(second, ZoneInfo(zone)).replace(tzinfo=dt.timezone.utc)
    return int((local - EPOCH).total_seconds())


@pytest.mark.parametrize("zone", ZONES)
def test_local_times_are_those_of_the_standard_library(zone: str) -> None:
    utc = np.random.default_rng(0).integers(-(10**9), 2 * 10**9, 2_000)
    changes = clock_of(utc, zone).start
    utc = np.concatenate([utc, changes[1:], changes[1:] - 1, changes[1:] + 1])
    assert to_local(utc, zone).tolist() == [shown(second, zone) for second in utc.tolist()]
    assert to_local(utc[:6].reshape(2, 3), zone).tolist() == to_local(utc[:6], zone).reshape(2, 3).tolist()


@pytest.mark.parametrize("zone", ZONES)
def test_back_to_utc_is_the_first_reading_and_tells_skipped_times(zone: str) -> None:
    local = np.random.default_rng(1).integers(10**9, 2 * 10**9, 2_000)
    clock = clock_of(local, zone)
    near = np.concatenate([clock.start + clock.offset + shift for shift in (-5_400, -900, -1, 0, 900, 5_400)])
    local = np.concatenate([local, near])
    utc, exists = to_utc(local, zone)
    for second, found, real in zip(local.tolist(), utc.tolist(), exists.tolist()):
        naive = (EPOCH + dt.timedelta(seconds=second)).replace(tzinfo=ZoneInfo(zone))
        expected = int((naive.astimezone(dt.timezone.utc) - EPOCH).total_seconds())  # fold=0
        assert (found, real) == (expected, shown(expected, zone) == second)


def test_skipped_times_may_become_the_instant_of_the_change() -> None:
    """Berlin, 31 March 2024: 02:00 becomes 03:00, at 01:00 UTC."""
    local = np.array(["2024-03-31T02:30:00"], "datetime64[s]").astype(np.int64)
    for skipped, expected in (("shift", "01:30"), ("first", "01:00")):
        utc, exists = to_utc(local, "Europe/Berlin", skipped=skipped)
        assert utc.astype("datetime64[s]").tolist() == [dt.datetime.fromisoformat(f"2024-03-31T{expected}")]
        assert not exists.any()


def test_stretches_of_a_clock_that_is_set_back_repeat_an_hour() -> None:
    """Berlin, 27 October 2024: at 01:00 UTC 03:00 becomes 02:00 again, so 03:00 is new at 02:00 UTC."""
    change = int(pd.Timestamp("2024-10-27T01:00Z").timestamp())
    clock = clock_of(np.array([change - 86_400, change + 86_400]), "Europe/Berlin")
    assert clock.start[1] == clock.end[0] == change and clock.offset.tolist() == [7_200, 3_600]
    assert clock.fresh.tolist() == [clock.start[0], change + 3_600]


def test_days_half_hours_and_weekdays() -> None:
    local = to_local([int(pd.Timestamp("2024-01-01T00:10", tz="Asia/Tokyo").timestamp())], "Asia/Tokyo")
    assert half_hour(local).tolist() == [0] and weekday(local).tolist() == [0]
    assert weekday(local - 86_400).tolist() == [6]
    assert local_midnight("2024-01-01", "start", "Asia/Tokyo") == local[0] - 600


@pytest.mark.parametrize(
    "times",
    [
        pd.to_datetime(["2024-01-01T12:00+02:00"]).to_series(),
        pd.Series(pd.to_datetime(["2024-01-01T10:00Z"])),
        [dt.datetime(2024, 1, 1, 10, tzinfo=dt.timezone.utc)],
        np.array([1_704_103_200]),
        np.array([1_704_103_200], dtype=object),
    ],
)
def test_aware_times_and_numbers_are_epoch_seconds(times: object) -> None:
    values = np.array(times, dtype=object) if isinstance(times, list) else times
    assert epoch_seconds(values).tolist() == [1_704_103_200]


def test_unusable_times_and_zones_are_refused() -> None:
    with pytest.raises(DataError, match="Column 'when' must hold time-zone-aware times"):
        epoch_seconds(np.array(["2024-01-01"], "datetime64[s]"), "when")
    with pytest.raises(DataError, match="Column 'time': 1 of 2 values are missing"):
        epoch_seconds(pd.Series(pd.to_datetime(["2024-01-01T10:00Z", None])))
    with pytest.raises(DataError, match=r"1 of 1 values are no epoch seconds .* convert milliseconds"):
        epoch_seconds(np.array([1_704_103_200_000]))
    with pytest.raises(DataError, match=r"1 of 2 values are no epoch seconds \(first rows 1: -90000000000\)"):
        epoch_seconds(np.array([0, -90_000_000_000]))
    for second in (EARLIEST_EPOCH_SECOND, LATEST_EPOCH_SECOND - 1):  # all that is accepted has a local time
        assert abs(to_local(epoch_seconds(np.array([second])), "Pacific/Kiritimati")[0] - second) < 86_400
    with pytest.raises(DataError, match="Unknown time zone 'Mars/Base'"):
        zone_of("Mars/Base")


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_epoch_seconds_may_be_integers_of_any_size(dtype: str) -> None:
    seconds = np.array([0, 100], dtype=dtype)
    assert epoch_seconds(seconds).tolist() == [0, 100] and epoch_seconds(seconds).dtype == np.int64
