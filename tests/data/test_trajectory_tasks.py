"""The task of trajectory prediction is cut from series as it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from hf_mobility.data import DataError
from hf_mobility.data.trajectory_tasks import TrajectoryTask
from hf_mobility.tokenization.tokenization_raw import RawTokenizer

TOKENIZER = RawTokenizer.from_bounds((47, 10, 49, 12), timezone="UTC", interval_minutes=60, model_max_length=48)
# Three days: each person has a window of two days and one of a single day.
HOURS = np.delete(np.arange(72), [20, 46])
POINTS = pd.DataFrame(
    {
        "user_id": np.repeat([5, 3], len(HOURS)),
        "time": np.tile(pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(HOURS, unit="h"), 2),
        "lat": np.tile(48 + HOURS / 100, 2) + np.repeat([0.0, 0.1], len(HOURS)),
        "lon": 11.0,
    }
)
SERIES = TOKENIZER.encode_points(POINTS)


def test_the_last_points_are_the_future() -> None:
    task = TrajectoryTask.from_series(SERIES, TOKENIZER, steps=10)
    assert task.known.shape == (2, 38, 2) and task.future.shape == (2, 10, 2) and len(task) == 2
    assert task.users.tolist() == [3, 5] and task.start_weekday.tolist() == [0, 0]
    lat, lon = task.degrees(task.known)
    np.testing.assert_allclose(lat[1, [0, 19, 20, 37]], [48, 48.19, 48.19, 48.37], atol=1e-5)  # hour 20 is filled
    np.testing.assert_allclose(lon, 11, atol=1e-5)
    np.testing.assert_allclose(task.degrees(task.future)[0][0, [0, 9]], [48.48, 48.57], atol=1e-5)
    assert task.interval_minutes == 60 and (task.metres_per_unit == TOKENIZER.metres_per_unit()).all()


def test_an_earlier_end_takes_shorter_windows_too() -> None:
    task = TrajectoryTask.from_series(SERIES, TOKENIZER, steps=2, end_slot=24)
    assert task.known.shape == (4, 22, 2) and task.users.tolist() == [3, 3, 5, 5]
    assert task.start_weekday.tolist() == [0, 2, 0, 2]
    part = task.take(task.users == 5)
    assert part.users.tolist() == [5, 5] and (part.known == task.known[2:]).all()
    with pytest.raises(DataError, match="None of the 4 series is left"):
        task.take(task.users == 9)


def test_observed_windows_are_those_whose_end_was_recorded() -> None:
    seen = TrajectoryTask.from_series(SERIES, TOKENIZER, steps=2, end_slot=21, observed_only=True)
    assert seen.users.tolist() == [3, 5]  # hour 20 of the first window is filled in
    with pytest.raises(DataError, match=r"None of 4 windows is observed to the end \(slots 0\.\.47\)"):
        TrajectoryTask.from_series(SERIES, TOKENIZER, steps=2, observed_only=True)  # nor is hour 46
    whole = TrajectoryTask.from_series(SERIES, TOKENIZER, steps=2, end_slot=45, observed_only=True)
    assert len(whole) == 2


def test_nearly_empty_windows_can_be_left_out() -> None:
    some = TrajectoryTask.from_series(SERIES, TOKENIZER, steps=2, end_slot=21, least_observed=20.5 / 21)
    assert some.users.tolist() == [3, 5] and some.start_weekday.tolist() == [2, 2]  # the first window lacks hour 20
    with pytest.raises(DataError, match=r"is long enough and observed in 99% of its slots \(slots 0\.\.47\)"):
        TrajectoryTask.from_series(SERIES, TOKENIZER, steps=2, least_observed=0.99)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"steps must be at least 1 and below the end of the roll-out \(48\), not 0"),
        ({"steps": 48}, r"below the end of the roll-out \(48\), not 48"),
        ({"end_slot": 49}, r"None of 4 windows is long enough \(slots 0\.\.48\)"),
    ],
)
def test_requests_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TrajectoryTask.from_series(SERIES, TOKENIZER, **options)


def test_some_horizons_are_columns_of_all() -> None:
    every, some = (TrajectoryTask.from_series(SERIES, TOKENIZER, steps=steps) for steps in (10, (1, 4, 10)))
    assert every.steps.tolist() == [*range(1, 11)] and some.steps.tolist() == [1, 4, 10]
    assert (some.future == every.future[:, [0, 3, 9]]).all() and (some.known == every.known).all()
    assert (some.recorded == every.recorded[:, [0, 3, 9]]).all()
    assert (some.take([1]).steps == some.steps).all()
    with pytest.raises(DataError, match=r"steps must ascend, not \(4, 1\)"):
        TrajectoryTask.from_series(SERIES, TOKENIZER, steps=(4, 1))


def test_windows_that_start_from_a_record() -> None:
    kept = TrajectoryTask.from_series(SERIES, TOKENIZER, steps=2, end_slot=23, from_record=True)
    assert kept.start_weekday.tolist() == [2, 2]  # hour 20 of the first window, the last known one, is filled
    with pytest.raises(DataError, match="None of 4 windows is long enough and recorded in the last known slot"):
        TrajectoryTask.from_series(SERIES, TOKENIZER, steps=1, end_slot=48, from_record=True)


def test_the_past_is_what_was_recorded_before_the_future_in_all_windows() -> None:
    task = TrajectoryTask.from_series(SERIES, TOKENIZER, steps=2, end_slot=22)  # both windows of both users
    first_midnight = 19723 * 24  # 2024-01-01 in hours since 1970
    for row in range(4):
        slot, points = task.records.of(row)
        hours = HOURS[HOURS < (20 if row % 2 == 0 else 48 + 20)]
        assert (slot - first_midnight).tolist() == hours.tolist()
        shift = 0.1 if task.users[row] == 3 else 0.0
        np.testing.assert_allclose(task.degrees(points)[0], 48 + hours / 100 + shift, atol=1e-5)
        assert task.records.origin[row] == first_midnight + 48 * (row % 2)
    assert len(task.records.distinct()) == 2 * (HOURS < 68).sum()
    other = task.take(task.users == 3)
    assert [a.tolist() for a in other.records.of(1)] == [a.tolist() for a in task.records.of(1)]
    assert len(other.records.distinct()) == (HOURS < 68).sum()
