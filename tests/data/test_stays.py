"""Stays and jump filter against plain loops that follow the definition word by word."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.data import DataError, SquareGrid, from_km, haversine_km
from hf_mobility.data.frames import validate_visits
from hf_mobility.data.stays import detect_stays, drop_jumps, stays_to_visits

START = pd.Timestamp("2024-05-01T08:00Z")


def make_points(east_m: list[float], minutes: list[float], user: object = 1, origin=(48.0, 11.0)) -> pd.DataFrame:  # type: ignore[no-untyped-def]
    lat, lon = from_km(np.array(east_m) / 1000, np.zeros(len(east_m)), origin=origin)
    return pd.DataFrame({"user_id": user, "time": START + pd.to_timedelta(minutes, unit="min"), "lat": lat, "lon": lon})


def random_walk(seed: int, count: int = 300) -> pd.DataFrame:
    """Two users who pause, walk and sometimes fall silent."""
    rng = np.random.default_rng(seed)
    tables = []
    for user in ("ann", "bob"):
        moving = np.repeat(rng.random(count // 10) < 0.4, 10)
        steps = np.where(moving[:, None], rng.normal(0, 0.12, (count, 2)), rng.normal(0, 0.01, (count, 2)))
        path = np.cumsum(steps, axis=0)
        lat, lon = from_km(path[:, 0], path[:, 1], origin=(48.0, 11.0))
        minutes = np.cumsum(rng.exponential(1.5, count) + 60.0 * (rng.random(count) < 0.02))
        time = START + pd.to_timedelta((minutes * 60).round(), unit="s")
        tables.append(pd.DataFrame({"user_id": user, "time": time, "lat": lat, "lon": lon}))
    return pd.concat(tables).drop_duplicates(["user_id", "time"]).sample(frac=1, random_state=seed)


def stays_by_loop(points: pd.DataFrame, metres: float, minutes: float, gap: float) -> list[tuple]:
    found = []
    for user, own in points.sort_values("time").groupby("user_id"):
        t, lat, lon = own["time"].tolist(), own["lat"].to_numpy(), own["lon"].to_numpy()
        i = 0
        while i < len(own):
            j = i + 1
            while (
                j < len(own)
                and t[j] - t[j - 1] <= pd.Timedelta(minutes=gap)
                and haversine_km(lat[i], lon[i], lat[j], lon[j]) * 1000 <= metres
            ):
                j += 1
            if t[j - 1] - t[i] >= pd.Timedelta(minutes=minutes):
                seconds = (t[j - 1] - t[i]).total_seconds()
                found.append((user, t[i], lat[i:j].mean(), lon[i:j].mean(), seconds))
                i = j
            else:
                i += 1
    return found


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([50.0, 150.0, 400.0]), st.sampled_from([5.0, 15.0]))
def test_stays_equal_the_definition_in_a_loop(seed: int, metres: float, minutes: float) -> None:
    points = random_walk(seed)
    stays = detect_stays(points, distance_metres=metres, min_minutes=minutes, max_gap_minutes=30)
    expected = stays_by_loop(points, metres, minutes, 30)
    assert len(stays) == len(expected)
    if expected:
        table = pd.DataFrame(expected, columns=["user_id", "time", "lat", "lon", "duration"])
        assert stays["user_id"].tolist() == table["user_id"].tolist()
        assert stays["time"].tolist() == table["time"].tolist()
        np.testing.assert_allclose(stays[["lat", "lon", "duration"]], table[["lat", "lon", "duration"]], rtol=1e-9)


def test_a_pause_between_two_walks_is_one_stay() -> None:
    east = [0, 500, 1000, 1010, 990, 1005, 2000, 3000]
    stays = detect_stays(make_points(east, [0, 5, 10, 15, 20, 25, 30, 35]), distance_metres=100, min_minutes=10)
    assert len(stays) == 1
    assert stays["time"][0] == START + pd.Timedelta("10min") and stays["duration"][0] == 900
    assert haversine_km(stays["lat"], stays["lon"], *from_km(1.00125, 0.0, origin=(48.0, 11.0)))[0] < 1e-3


def test_a_long_silence_ends_a_stay() -> None:
    points = make_points([0, 0, 0, 0], [0, 15, 200, 215])
    assert len(detect_stays(points, min_minutes=10, max_gap_minutes=60)) == 2
    assert len(detect_stays(points, min_minutes=10, max_gap_minutes=600)) == 1


def test_users_are_kept_apart() -> None:
    points = pd.concat([make_points([0, 0], [0, 6], user="a"), make_points([0, 0], [7, 13], user="b")])
    assert detect_stays(points, min_minutes=10).empty
    assert detect_stays(points, min_minutes=5)["user_id"].tolist() == ["a", "b"]


def test_no_stay_gives_an_empty_frame_with_the_same_columns() -> None:
    stays = detect_stays(make_points([0, 5000], [0, 60]))
    assert list(stays.columns) == ["user_id", "time", "lat", "lon", "duration"] and stays.empty


def test_a_stay_on_the_antimeridian_stays_there() -> None:
    points = make_points([-20, 20, -20, 20], [0, 5, 10, 15], origin=(10.0, 180.0))
    stay = detect_stays(points).iloc[0]
    assert haversine_km(stay["lat"], stay["lon"], 10.0, 180.0) < 0.001


def test_shuffled_points_give_the_same_stays_and_the_callers_frame_is_unchanged() -> None:
    points = random_walk(7)
    before = points.copy(deep=True)
    pd.testing.assert_frame_equal(detect_stays(points), detect_stays(points.sample(frac=1, random_state=1)))
    pd.testing.assert_frame_equal(points, before)


def test_a_single_outlier_goes_and_the_way_back_stays() -> None:
    points = make_points([0, 10, 90_000, 20, 30], [0, 1, 2, 3, 4])
    kept = drop_jumps(points, max_kmh=200)
    assert len(kept) == 4 and kept["lon"].max() < 11.01


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_no_step_is_too_fast_afterwards(seed: int) -> None:
    points = random_walk(seed, count=100)
    jump = np.random.default_rng(seed).random(len(points)) < 0.15
    points.loc[jump, "lat"] += 1.0
    kept = drop_jumps(points, max_kmh=150)
    same = kept["user_id"].eq(kept["user_id"].shift(-1))
    km = haversine_km(kept["lat"], kept["lon"], kept["lat"].shift(-1), kept["lon"].shift(-1))
    hours = (kept["time"].shift(-1) - kept["time"]).dt.total_seconds() / 3600
    assert ((km - 150 * hours)[same] <= 1e-9).all()
    assert len(kept) >= 2 and kept["user_id"].nunique() == 2


def test_slow_points_are_all_kept_and_two_places_at_one_instant_are_not() -> None:
    points = random_walk(3)
    assert len(drop_jumps(points, max_kmh=5_000)) == len(points)
    twice = make_points([0, 5000, 0], [0, 0, 10])
    assert len(drop_jumps(twice, max_kmh=300)) == 2


@pytest.mark.parametrize("unit", ["ns", "us"])
def test_consecutive_stays_in_one_cell_are_one_visit(unit: str) -> None:
    grid = SquareGrid(48.0, 11.0, 48.1, 11.1, rows=2, columns=2)
    minutes = [0, 30, 70, 120, 1000, 2000]
    stays = pd.DataFrame(
        {
            "user_id": [1, 1, 1, 1, 1, 2],
            "time": (START + pd.to_timedelta(minutes, unit="min")).as_unit(unit),
            "lat": [48.01, 48.02, 48.08, 48.01, 48.01, 48.01],
            "lon": 11.01,
            "duration": 1200.0,
        }
    )
    visits = stays_to_visits(stays, grid)
    assert visits["location_id"].tolist() == ["r0c0", "r1c0", "r0c0", "r0c0", "r0c0"]
    assert visits["duration"].tolist() == [3000.0, 1200.0, 1200.0, 1200.0, 1200.0]
    assert visits["lat"].tolist() == pytest.approx([48.025, 48.075, 48.025, 48.025, 48.025])
    pd.testing.assert_frame_equal(validate_visits(visits), visits)


def test_a_stay_outside_the_grid_keeps_its_neighbours_apart() -> None:
    grid = SquareGrid(48.0, 11.0, 48.1, 11.1, rows=2, columns=2)
    time = START + pd.to_timedelta([0, 30, 60], unit="min")
    stays = pd.DataFrame({"user_id": 1, "time": time, "lat": [48.01, 50.0, 48.01], "lon": 11.01, "duration": 600.0})
    assert len(stays_to_visits(stays, grid)) == 2
    with pytest.raises(DataError, match="None of the 1 stays"):
        stays_to_visits(stays.iloc[[1]], grid)


def test_thresholds_must_be_positive_and_columns_present() -> None:
    points = make_points([0, 0], [0, 20])
    with pytest.raises(DataError, match="distance_metres"):
        detect_stays(points, distance_metres=0)
    with pytest.raises(DataError, match="max_kmh"):
        drop_jumps(points, max_kmh=-1)
    with pytest.raises(DataError, match="lack"):
        stays_to_visits(points, SquareGrid(48.0, 11.0, 48.1, 11.1, rows=2, columns=2))
