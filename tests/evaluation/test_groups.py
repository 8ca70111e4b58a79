"""Groups of targets against loops over users and visits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility import City, evaluate, make_task, simulate_city, summarize
from hf_mobility.baselines.count import UserFrequency
from hf_mobility.data.tasks import NextLocationTask
from hf_mobility.evaluation.groups import by_activity, by_centre, by_history, groups
from hf_mobility.evaluation.ranking import new_place_mask
from hf_mobility.tokenization.grid import haversine_km

KINDS = (by_history, by_activity, by_centre)


def task_of(seed: int, users: int = 9) -> NextLocationTask:
    """Users with 10 to 150 visits at random places and times."""
    rng = np.random.default_rng(seed)
    frames = []
    for user in range(users):
        n = int(rng.integers(10, 150))
        minutes = np.cumsum(rng.integers(1, 5000, n))
        place = rng.integers(0, 30, n)
        time = pd.Timestamp("2024-03-01", tz="UTC") + pd.to_timedelta(minutes, "min")
        where = {"location_id": place.astype(str), "lat": 50 + place / 300, "lon": 8 + place**2 / 9000}
        frames.append(pd.DataFrame({"user_id": user, "time": time, **where}))
    visits = pd.concat(frames, ignore_index=True).astype({"time": "datetime64[us, UTC]"})
    return make_task(visits, City.from_visits(visits, timezone="Europe/Berlin"))


@given(st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_groups_equal_loops_over_users_and_visits(seed: int) -> None:
    task = task_of(seed)
    known: list[int] = []
    rate: list[float] = []
    for user in range(task.users):
        own = task.visits[(task.user == user) & ~task.target]
        known.append(len(own))
        days = (own["time"].iloc[-1] - own["time"].iloc[0]).total_seconds() / 86400
        rate.append(len(own) / max(days, 1))
    number = np.array(known)[task.user[task.rows]]
    found = by_history(task)
    assert found["history < 15"].tolist() == (number < 15).tolist()
    assert found["history 15-39"].tolist() == ((number >= 15) & (number < 40)).tolist()
    assert found["history >= 100"].tolist() == (number >= 100).tolist()
    low, high = np.quantile(rate, (1 / 3, 2 / 3))
    each = np.array(rate)[task.user[task.rows]]
    assert by_activity(task)["activity middle"].tolist() == ((each > low) & (each <= high)).tolist()

    train, targets = task.visits[~task.target], task.visits.iloc[task.rows]
    middle = train["lat"].median(), train["lon"].median()
    bound = np.quantile(haversine_km(*middle, train["lat"], train["lon"]), 2 / 3)
    away = haversine_km(*middle, targets["lat"], targets["lon"])
    clear = np.abs(away - bound) > 0.01 * bound
    assert (by_centre(task)["periphery"] == (away > bound))[clear].all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_target_is_in_one_group_of_a_kind(kind: Any) -> None:
    task = task_of(1)
    assert (np.sum(list(kind(task).values()), axis=0) == 1).all()


def test_groups_of_users_hold_all_their_targets_and_thirds_of_the_users() -> None:
    task = task_of(2, users=12)
    users = [set(task.user[task.rows][mask]) for mask in by_activity(task).values()]
    assert [len(some) for some in users] == [4, 4, 4] and len(set.union(*users)) == 12


def test_what_is_to_be_predicted_moves_nobody_to_another_group_of_users() -> None:
    task = task_of(3)
    later = task.visits["time"].where(~task.target, task.visits["time"] + pd.Timedelta("400 days"))
    other = make_task(task.visits.assign(time=later), task.city)
    for kind in (by_history, by_activity):
        for name, mask in kind(task).items():
            assert (kind(other)[name] == mask).all()


def test_a_city_across_the_antimeridian_has_one_centre() -> None:
    task = task_of(4)
    there = task.visits.assign(lon=(task.visits["lon"] - 8 + 179.7 + 180) % 360 - 180)
    city = City.from_visits(there, timezone="Pacific/Fiji")
    moved = by_centre(make_task(there, city))
    for name, mask in by_centre(task).items():
        assert (moved[name] == mask).mean() > 0.99


def test_groups_are_subsets_of_a_table() -> None:
    made = simulate_city(15, num_days=21, seed=3)
    task = make_task(made.visits, City.from_visits(made.visits, timezone=made.timezone))
    found = groups(task)
    assert (found["new place"] == new_place_mask(task)).all() and (found["new place"] != found["known place"]).all()
    result = evaluate(UserFrequency(), task)
    table = summarize(result, subsets=found, bootstrap=0).set_index("subset")
    assert list(table.index) == ["all", *found]
    for kind in KINDS:
        assert table.loc[list(kind(task)), "n"].sum() == len(task.rows)
    own = pd.Series(result.correct[found["periphery"]]).groupby(result.user[found["periphery"]]).mean()
    assert table.loc["periphery", "user_acc@1"] == pytest.approx(own.mean())
