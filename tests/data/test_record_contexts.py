"""Records as RAW's `extended` variant reads them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility import RawTokenizer
from hf_mobility.data.record_contexts import RecordHistories, context_rows, contexts_of
from hf_mobility.data.trajectory_tasks import TrajectoryTask
from hf_mobility.tokenization.grid import haversine_km


def make_points(number: int = 300, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.integers(0, 12 * 86_400, number))
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 4, number),
            "time": pd.Timestamp("2024-03-25", tz="UTC") + pd.to_timedelta(seconds, unit="s"),
            "lat": 52.5 + 0.05 * rng.standard_normal(number),
            "lon": 13.4 + 0.08 * rng.standard_normal(number),
        }
    )


def test_slots_are_those_of_the_local_clock_and_the_last_record_counts() -> None:
    points = pd.DataFrame(
        {
            "user_id": [7, 7, 7],
            "time": pd.to_datetime(["2024-07-01 10:01Z", "2024-07-01 10:14Z", "2024-07-01 10:15Z"]),
            "lat": [52.50, 52.51, 52.52],
            "lon": [13.40, 13.41, 13.42],
        }
    )
    made = RecordHistories.of_points(points, timezone="Europe/Berlin")
    noon = pd.Timestamp("2024-07-01 12:00").value // 10**9 // 900
    assert made.slots.tolist() == [noon, noon + 1]
    lat, lon = made.degrees(made.km[None])
    assert lat.ravel() == pytest.approx([52.51, 52.52], abs=1e-6) and lon.ravel() == pytest.approx([13.41, 13.42])
    assert np.linalg.norm(made.km[0]) == pytest.approx(haversine_km(52.51, 13.41, 52.52, 13.42), rel=2e-3)
    assert made.last.tolist() == [points["time"].iloc[2].value // 10**9]


def test_the_order_of_rows_leaves_no_trace() -> None:
    points = make_points()
    one, other = (
        RecordHistories.of_points(frame, timezone="Europe/Berlin") for frame in (points, points.sample(frac=1))
    )
    for name in ("users", "offsets", "slots", "km", "origin", "last"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_a_stay_is_recorded_in_every_slot_that_it_touches() -> None:
    points = make_points(1).assign(time=pd.Timestamp("2024-07-01 10:10Z"), duration=3_600.0)
    made = RecordHistories.of_points(points, timezone="UTC")
    assert np.diff(made.slots).tolist() == [1] * 4
    assert (made.km == made.km[0]).all()


def test_contexts_of_a_task_are_those_of_the_points() -> None:
    points = make_points()
    tokenizer = RawTokenizer.from_points(points, timezone="Europe/Berlin", model_max_length=96)
    task = TrajectoryTask.from_series(tokenizer.encode_points(points), tokenizer, steps=(1, 40), end_slot=90)
    histories = RecordHistories.of_points(points, timezone="Europe/Berlin")
    for row in range(0, len(task), 5):
        found = contexts_of(task.records, task.metres_per_unit, np.array([row]), 512)
        now = task.records.origin[row] + task.known.shape[1]
        user = int(np.searchsorted(histories.users, task.users[row]))
        begin, end = histories.offsets[user : user + 2]
        end = begin + int((histories.slots[begin:end] < now).sum())
        given = histories.before(np.array([end - 1]), 512)
        assert found["slots"].tolist() == given["slots"].tolist()
        step, expected = (np.diff(each["positions"][0].numpy(), axis=0) for each in (found, given))
        assert step == pytest.approx(expected, rel=2e-3, abs=2e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 500), st.integers(0, 5))
def test_a_context_has_the_newest_records_and_thinned_older_ones(records: int, length: int, begin: int) -> None:
    rows, known = context_rows(np.array([begin]), np.array([begin + length]), records)
    read = rows[known]
    assert len(read) <= records and (np.diff(read) > 0).all()
    assert read[-1] == begin + length - 1 and read[0] >= begin
    newest = min(length, records if length <= records else max(1, records // 2))
    assert read[-newest:].tolist() == list(range(begin + length - newest, begin + length))
    if length <= records:
        assert len(read) == length
    elif records > 1:
        assert len(set(np.diff(read[: len(read) - newest]))) <= 1
        assert len(read) - newest >= min(records - newest, length - newest) // 2


def test_no_context_reads_what_comes_later() -> None:
    histories = RecordHistories.of_points(make_points(), timezone="UTC")
    ends = np.array([3, 40, histories.offsets[2] - 1])
    given = histories.before(ends, 16)
    known = given["attention_mask"].bool()
    assert known[:, -1].all()
    assert given["slots"][:, -1].tolist() == histories.slots[ends].tolist()
    assert ((given["slots"] <= given["slots"][:, -1:]) | ~known).all()


def test_users_are_taken_whole() -> None:
    histories = RecordHistories.of_points(make_points(), timezone="UTC")
    part = histories.of_users([True, False, True, False])
    assert part.users.tolist() == [0, 2]
    for new, old in enumerate((0, 2)):
        a, b = (slice(*each.offsets[row : row + 2]) for each, row in ((part, new), (histories, old)))
        assert np.array_equal(part.slots[a], histories.slots[b]) and np.array_equal(part.km[a], histories.km[b])
