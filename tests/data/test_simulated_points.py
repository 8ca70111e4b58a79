"""Points of simulated people against visits laid out by hand, and against the plain definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hf_mobility.data import DataError, haversine_km
from hf_mobility.data.frames import validate_points
from hf_mobility.data.simulation.cities import SimulatedCity, simulate_city
from hf_mobility.data.simulation.points import simulated_points

TOWN = simulate_city(12, num_days=4, num_locations=60, seed=3)
DEGREE_KM = 6371.0088 * np.pi / 180


def city_of(rows: list[tuple[int, int, float, float, float]]) -> SimulatedCity:
    """Visits (user, second, lat, lon, duration)."""
    user, second, lat, lon, duration = zip(*rows)
    time = pd.to_datetime(pd.Series(second), unit="s", utc=True).astype("datetime64[us, UTC]")
    visits = pd.DataFrame({"user_id": user, "time": time, "lat": lat, "lon": lon, "duration": duration})
    return replace(TOWN, visits=visits)


def test_a_stay_a_trip_and_a_stay_by_hand() -> None:
    # One degree of latitude in two hours: they set off at 3,600, when the stay of 1,200 seconds is long over.
    city = city_of([(7, 0, 10.0, 20.0, 1200.0), (7, 10800, 11.0, 20.0, 1800.0)])
    points = simulated_points(city, interval_seconds=1800, noise_m=0, speed_kmh=DEGREE_KM / 2, seed=0)
    assert points["user_id"].tolist() == [7] * 8
    assert (points["time"].astype("int64") // 10**6).tolist() == list(range(0, 12601, 1800))
    np.testing.assert_allclose(points["lat"], [10, 10, 10, 10.25, 10.5, 10.75, 11, 11], atol=1e-6)
    assert (points["lon"] == 20).all()


def test_a_trip_begins_when_the_stay_ends_and_a_late_one_is_fast() -> None:
    # The stay ends at 9,000: only 1,800 seconds are left for the degree.
    city = city_of([(0, 0, 10.0, 20.0, 9000.0), (0, 10800, 11.0, 20.0, 60.0)])
    points = simulated_points(city, interval_seconds=900, noise_m=0, speed_kmh=DEGREE_KM / 2, seed=0)
    np.testing.assert_allclose(points["lat"].iloc[-4:], [10, 10, 10.5, 11])
    overlapping = city_of([(0, 0, 10.0, 20.0, 12000.0), (0, 10800, 11.0, 20.0, 60.0)])
    points = simulated_points(overlapping, interval_seconds=900, noise_m=0, seed=0)
    np.testing.assert_allclose(points["lat"].iloc[-3:], [10, 11, 11])  # at the next place from its arrival on


def test_people_are_apart_and_fixes_lie_on_the_common_clock() -> None:
    city = city_of([(1, 10, 10.0, 20.0, 700.0), (2, 250, 50.0, -179.9, 20.0), (3, 299, -10.0, 0.0, 400.0)])
    points = simulated_points(city, noise_m=0, seed=0)
    assert points[["user_id", "lat"]].to_numpy().tolist() == [[1, 10], [1, 10], [3, -10], [3, -10]]
    assert (points["time"].astype("int64") // 10**6).tolist() == [300, 600, 300, 600]


def test_a_trip_may_cross_the_antimeridian() -> None:
    city = city_of([(0, 0, 0.0, 179.9, 1.0), (0, 3600, 0.0, -179.9, 1.0)])
    points = simulated_points(city, interval_seconds=900, noise_m=0, speed_kmh=0.2 * DEGREE_KM, seed=0)
    np.testing.assert_allclose(points["lon"].abs(), [179.9, 179.95, 180, 179.95, 179.9], atol=1e-4)


def test_fixes_scatter_by_the_noise_around_the_place() -> None:
    city = city_of([(0, 0, 60.0, 11.0, 3_000_000.0)])
    points = simulated_points(city, interval_seconds=300, noise_m=25, seed=1)
    east = (points["lon"] - 11) * DEGREE_KM * 1000 * np.cos(np.radians(60))
    north = (points["lat"] - 60) * DEGREE_KM * 1000
    for metres in (east, north):
        assert abs(metres.std() - 25) < 1 and abs(metres.mean()) < 1
    assert abs(np.corrcoef(east, north)[0, 1]) < 0.05


def test_points_of_a_city_are_canonical_and_at_most_as_fast_as_the_trip() -> None:
    before = TOWN.visits.copy(deep=True)
    points = simulated_points(TOWN, noise_m=0, seed=0)
    pd.testing.assert_frame_equal(points, validate_points(points))
    pd.testing.assert_frame_equal(TOWN.visits, before)
    assert points["user_id"].nunique() == 12
    same = (points["user_id"].diff() == 0).to_numpy()[1:]
    lat, lon = points["lat"].to_numpy(), points["lon"].to_numpy()
    kmh = haversine_km(lat[:-1], lon[:-1], lat[1:], lon[1:])[same] * 12
    assert kmh.max() < 30  # the simulation's own trips are a little faster than 25 km/h at most
    assert (kmh == 0).mean() > 0.8


def test_every_fix_inside_a_stay_is_at_its_place() -> None:
    points = simulated_points(TOWN, noise_m=0, seed=0)
    for visit in TOWN.visits[TOWN.visits["user_id"] == 4].itertuples():
        own = points[points["user_id"] == 4]
        end = visit.time + pd.Timedelta(seconds=visit.duration)
        inside = own[(own["time"] >= visit.time) & (own["time"] <= end)]
        np.testing.assert_allclose(inside[["lat", "lon"]], [[visit.lat, visit.lon]] * len(inside))


def test_the_seed_decides_the_noise_alone() -> None:
    one, same, other = (simulated_points(TOWN, seed=seed) for seed in (1, np.random.default_rng(1), 2))
    pd.testing.assert_frame_equal(one, same)
    assert (one["time"] == other["time"]).all() and (one["lat"] != other["lat"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval_seconds": 0}, "interval_seconds must be a whole number of at least 1, not 0"),
        ({"interval_seconds": 1.5}, "interval_seconds must be a whole number"),
        ({"noise_m": -1}, "noise_m must be metres from 0, not -1"),
        ({"noise_m": np.nan}, "noise_m must be metres"),
        ({"speed_kmh": 0}, "speed_kmh must be positive, not 0"),
        ({"interval_seconds": 10**10}, "No fix lies within anybody's visits"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        simulated_points(TOWN, **options, seed=0)  # type: ignore[arg-type]
