"""Simulated cities: same seed same bytes, and the facts about people can be read back from their visits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hf_mobility.data import DataError, haversine_km
from hf_mobility.data.frames import validate_visits
from hf_mobility.data.simulation.cities import SimulatedCity, simulate_cities, simulate_city
from hf_mobility.data.simulation.laws import LAWS, distance_weights
from hf_mobility.data.simulation.profiles import POI_KINDS, ROLES, CityHabits

GROUPS = {
    "Arts & Entertainment",
    "College & University",
    "Event",
    "Food",
    "Nightlife Spot",
    "Outdoors & Recreation",
    "Professional & Other Places",
    "Residence",
    "Shop & Service",
    "Travel & Transport",
}


@pytest.fixture(scope="module")
def city() -> SimulatedCity:
    return simulate_city(150, num_days=28, num_locations=300, seed=3)


def whereabouts(city: SimulatedCity, hour: float, days: int) -> pd.DataFrame:
    """Place of each user at a local clock hour of each day (users, days), NaN while travelling."""
    visits = city.visits
    first = visits["time"].min().tz_convert(city.timezone).normalize()
    start = visits["time"].astype("int64").to_numpy() // 1_000_000
    end = start + visits["duration"].to_numpy()
    table = {}
    for day in range(days):
        moment = (first + pd.Timedelta(days=day, hours=hour)).timestamp()
        there = visits[(start <= moment) & (end > moment)]
        table[day] = there.set_index("user_id")["location_id"].reindex(city.people["user_id"])
    return pd.DataFrame(table)


def test_visits_are_canonical(city: SimulatedCity) -> None:
    pd.testing.assert_frame_equal(validate_visits(city.visits), city.visits)
    assert {"category", "category_group", "duration"} <= set(city.visits.columns)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_city() -> None:
    first, again, other = (simulate_city(30, num_days=7, num_locations=80, seed=s) for s in (5, 5, 6))
    for name in ("visits", "people", "pois"):
        one, two = getattr(first, name), getattr(again, name)
        assert one.to_csv().encode() == two.to_csv().encode()
    assert first.habits == again.habits
    assert first.visits.to_csv() != other.visits.to_csv()


def test_the_callers_random_state_is_left_alone() -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    simulate_city(5, num_days=2, num_locations=60)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_everybody_appears_and_stays_do_not_overlap(city: SimulatedCity) -> None:
    visits = city.visits
    assert visits["user_id"].unique().tolist() == city.people["user_id"].tolist()
    same = visits["user_id"].eq(visits["user_id"].shift(-1))
    gap = (visits["time"].shift(-1) - visits["time"]).dt.total_seconds() - visits["duration"]
    assert (gap[same] > 0).all(), "travel takes time"
    assert not (visits["location_id"].eq(visits["location_id"].shift(-1)) & same).any()
    assert (visits["duration"] >= 60).all()


def test_visits_agree_with_the_table_of_places(city: SimulatedCity) -> None:
    columns = ["lat", "lon", "category", "category_group"]
    listed = city.pois.set_index("location_id").loc[city.visits["location_id"], columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(city.visits[columns], listed)
    assert set(city.pois["category_group"]) <= GROUPS and {kind.group for kind in POI_KINDS} == GROUPS
    assert city.pois["location_id"].is_unique and len(city.pois) == 300
    assert city.pois["popularity"].sum() == pytest.approx(1)


def test_home_is_the_most_frequent_place_at_night(city: SimulatedCity) -> None:
    night = whereabouts(city, 3.5, days=28).mode(axis=1)[0]
    assert (night.to_numpy() == city.people["home_id"].to_numpy()).all()


def test_commuters_spend_weekday_working_hours_at_work() -> None:
    city = simulate_city(150, num_days=28, num_locations=300, seed=3, habits=CityHabits())
    workers = city.people[city.people["role"].eq("worker") & city.people["is_commuter"]]
    assert len(workers) > 60
    places = whereabouts(city, 10.5, days=28).loc[workers["user_id"]]
    at_work = places.eq(workers.set_index("user_id")["work_id"], axis=0)
    weekday = np.arange(28) % 7  # the first day is a Monday
    assert at_work.loc[:, weekday < 5].to_numpy().mean() > 0.85
    assert at_work.loc[:, weekday >= 5].to_numpy().mean() < 0.05


def test_people_without_a_job_have_no_work_place(city: SimulatedCity) -> None:
    people = city.people
    idle = [role.name for role in ROLES if not role.works]
    assert people.loc[people["role"].isin(idle), "work_id"].isna().all()
    assert (people["is_commuter"] == people["work_id"].notna()).all()
    assert people["is_commuter"].mean() > 0.5
    students = people[people["role"].eq("student") & people["is_commuter"]]
    groups = city.pois.set_index("location_id")["category_group"]
    assert (groups[students["work_id"]] == "College & University").all()


def test_the_commuting_distance_is_that_between_the_places(city: SimulatedCity) -> None:
    people = city.people[city.people["is_commuter"]]
    spot = city.pois.set_index("location_id")[["lat", "lon"]]
    home, work = spot.loc[people["home_id"]].to_numpy(), spot.loc[people["work_id"]].to_numpy()
    km = haversine_km(home[:, 0], home[:, 1], work[:, 0], work[:, 1])
    np.testing.assert_allclose(people["commute_km"], km, rtol=2e-3, atol=2e-3)


def test_places_suit_the_hour(city: SimulatedCity) -> None:
    hour = city.visits["time"].dt.tz_convert(city.timezone).dt.hour
    usual = city.people.set_index("user_id")["work_id"].reindex(city.visits["user_id"]).to_numpy()
    leisure = city.visits[city.visits["location_id"].to_numpy() != usual].assign(hour=hour)
    night = leisure[leisure["category_group"] == "Nightlife Spot"]["hour"]
    shops = leisure[leisure["category"] == "Supermarket"]["hour"]
    assert ((night >= 17) | (night < 3)).mean() > 0.95
    assert shops.between(8, 21).mean() > 0.95


def test_a_few_places_are_far_more_popular_than_the_rest(city: SimulatedCity) -> None:
    public = city.visits[city.visits["category_group"] != "Residence"]["location_id"].value_counts()
    assert public.iloc[: len(public) // 10].sum() > 0.3 * public.sum()


def test_people_return_to_few_places_and_keep_exploring(city: SimulatedCity) -> None:
    visits = city.visits
    new = ~visits.duplicated(["user_id", "location_id"])
    week = (visits["time"] - visits["time"].min()).dt.days // 7
    share = new.groupby(week).mean()
    assert share[0] > share[3] > 0.01
    assert new.mean() < 0.3


def test_observing_keeps_a_random_part_of_the_same_lives() -> None:
    arguments = {"num_days": 14, "num_locations": 100, "seed": 1}
    full = simulate_city(40, **arguments).visits
    part = simulate_city(40, observe=0.3, **arguments).visits
    assert 0.25 < len(part) / len(full) < 0.35
    assert len(part.merge(full, on=list(full.columns))) == len(part)
    pd.testing.assert_frame_equal(validate_visits(part), part)


@pytest.mark.parametrize("shape", ["round", "coastal", "valley", "polycentric"])
def test_every_shape_stays_near_its_centre(shape: str) -> None:
    pois = simulate_city(5, num_days=2, num_locations=400, shape=shape, radius_km=6.0, center=(-33.0, 151.0)).pois
    km = haversine_km(pois["lat"], pois["lon"], -33.0, 151.0)
    assert np.median(km) < 6.0 and km.max() < 25.0


def test_shapes_differ_as_their_names_say() -> None:
    def flatness(shape: str) -> float:
        pois = simulate_city(2, num_days=1, num_locations=500, shape=shape).pois
        spread = np.linalg.eigvalsh(np.cov(pois["lat"], pois["lon"] * np.cos(np.radians(48))))
        return float(np.sqrt(spread[0] / spread[1]))

    assert flatness("valley") < 0.4 < 0.8 < flatness("round")
    assert flatness("coastal") < flatness("round")


def test_cities_differ_and_do_not_depend_on_how_many_follow() -> None:
    cities = simulate_cities(5, num_users=20, num_days=3, num_locations=80, seed=2)
    assert len({c.shape for c in cities}) == 4
    assert len({c.name for c in cities}) == len({c.timezone for c in cities}) == len({c.habits for c in cities}) == 5
    assert not set(cities[0].pois["location_id"]) & set(cities[1].pois["location_id"])
    again = simulate_cities(2, num_users=20, num_days=3, num_locations=80, seed=2)
    pd.testing.assert_frame_equal(again[1].visits, cities[1].visits)


def test_a_clock_change_does_not_bring_stays_out_of_order() -> None:
    for start in ("2024-03-29", "2024-10-25"):
        visits = simulate_city(300, num_days=5, num_locations=120, start=start).visits
        pd.testing.assert_frame_equal(validate_visits(visits), visits)
        gap = visits["time"].shift(-1) - visits["time"] - pd.to_timedelta(visits["duration"], unit="s")
        same = visits["user_id"].eq(visits["user_id"].shift(-1))
        assert (gap[same] > pd.Timedelta(0)).mean() > 0.999


def test_the_first_day_starts_at_local_midnight() -> None:
    visits = simulate_city(20, num_days=2, num_locations=60, timezone="Asia/Kolkata", start="2024-06-01").visits
    local = visits["time"].dt.tz_convert("Asia/Kolkata")
    assert str(local.min().date()) == "2024-06-01" and local.max() < pd.Timestamp("2024-06-03", tz="Asia/Kolkata")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_users": 0}, "num_users"),
        ({"num_locations": 10}, "at least 50"),
        ({"num_days": 0}, "num_days"),
        ({"shape": "star"}, "polycentric"),
        ({"observe": 0.0}, "observe"),
        ({"timezone": "Mars/Olympus"}, "IANA"),
        ({"start": "soon"}, "ISO date"),
        ({"radius_km": 0.0}, "radius_km"),
        ({"habits": CityHabits(category_weights=(1.0,))}, "category_weights"),
    ],
)
def test_wrong_arguments_get_a_sentence(arguments: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        simulate_city(**{"num_users": 3, "num_days": 1, **arguments})
    with pytest.raises(DataError, match="num_cities"):
        simulate_cities(0)


@pytest.mark.parametrize("law", LAWS)
def test_laws_of_distance_are_those_of_their_equations(law: str) -> None:
    rng = np.random.default_rng(0)
    km, weight = rng.uniform(0.1, 9, (3, 20)), rng.uniform(0, 2, 20)
    found = distance_weights(law, km, weight, decay=1.7, scale_km=4.0)
    for zone in range(3):
        for place in range(20):
            nearer = weight[km[zone] < km[zone, place]].sum() / weight.sum()
            d = km[zone, place]
            wanted = {"gravity": (d + 0.5) ** -1.7, "exponential": np.exp(-d / 4), "opportunities": np.exp(-8 * nearer)}
            assert found[zone, place] == pytest.approx(wanted[law])


def test_varied_cities_differ_in_laws_and_shift_work_and_others_do_not() -> None:
    varied = simulate_cities(6, num_users=5, num_days=3, num_locations=60, seed=1, varied=True)
    assert len({(c.habits.venue_law, c.habits.commute_law) for c in varied}) > 2
    assert len({c.habits.shift_work for c in varied}) > 2
    usual = simulate_cities(2, num_users=5, num_days=3, num_locations=60, seed=1)
    assert {(c.habits.venue_law, c.habits.commute_law, c.habits.shift_work) for c in usual} == {
        ("gravity", "exponential", None)
    }


def test_shift_work_is_a_share_of_those_who_work() -> None:
    made = simulate_city(2_000, num_days=1, num_locations=80, seed=2, habits=CityHabits(shift_work=0.5))
    working = made.people["role"].isin(["worker", "shift worker"])
    assert working.mean() == pytest.approx(0.72, abs=0.03)
    assert (made.people["role"][working] == "shift worker").mean() == pytest.approx(0.5, abs=0.04)


def test_an_unknown_law_is_refused() -> None:
    with pytest.raises(DataError, match="law must be one of gravity, exponential, opportunities, not 'random'"):
        simulate_city(3, num_days=1, num_locations=60, habits=CityHabits(venue_law="random"))
