"""Next-location tasks: which rows are targets, and that nothing is shifted or leaked on the way."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.baselines.count import UserFrequency, UserMarkov
from hf_mobility.baselines.mix import ContextMix
from hf_mobility.baselines.mix_weights import MixWeights
from hf_mobility.data import DataError
from hf_mobility.data.splits import split_by_user
from hf_mobility.data.tasks import make_task, split_visits


def frame(visits: list[tuple[int, int]]) -> pd.DataFrame:
    """Canonical frame of (user, place) pairs in order, one visit per hour; the place is coded in lat as well."""
    user, place = np.array(visits, dtype=np.int64).reshape(-1, 2).T
    return pd.DataFrame(
        {
            "user_id": user,
            "time": pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(np.arange(len(user)), unit="h"),
            "location_id": place.astype(str).astype(object),
            "lat": place / 100,
            "lon": np.zeros(len(user)),
        }
    ).astype({"time": "datetime64[us, UTC]"})


def town(places: int) -> SimpleNamespace:
    ids = np.arange(places).astype(str).astype(object)
    index = pd.Index(ids)
    return SimpleNamespace(
        location_ids=ids,
        lat=np.arange(places) / 100,
        lon=np.zeros(places),
        timezone="UTC",
        index_of=lambda wanted: index.get_indexer(pd.Index(np.asarray(wanted, dtype=object))),
    )


histories = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=25), min_size=1, max_size=6).map(
    lambda users: frame([(u, place) for u, places in enumerate(users) for place in places])
)


def test_the_last_fifth_of_each_user_is_to_be_predicted() -> None:
    visits = frame([(7, 0)] * 10 + [(8, 1)] * 9 + [(9, 2)] * 14)
    task = make_task(visits, town(3))
    assert task.users == 2  # user 8 has fewer than ten visits
    assert task.user.tolist() == [0] * 10 + [1] * 14
    assert task.rows.tolist() == [8, 9, 21, 22, 23]  # 10 - floor(8) and 14 - floor(11.2)
    assert task.user_starts.tolist() == [0, 10, 24]


def test_rounding_of_the_fraction_does_not_move_a_target() -> None:
    task = make_task(frame([(0, 0)] * 10), town(1), test_fraction=0.9)  # (1 - 0.9) * 10 is 0.999... in floats
    assert task.rows.tolist() == list(range(1, 10))


@given(histories, st.floats(0.05, 0.95), st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_after_the_filter_lengths_and_pairs_agree(visits: pd.DataFrame, fraction: float, min_visits: int) -> None:
    city = town(6)  # places 6 and 7 are not listed
    counts = visits["user_id"].value_counts()
    if counts.max() < min_visits:
        with pytest.raises(DataError, match="No user has"):
            make_task(visits, city, test_fraction=fraction, min_visits=min_visits)
        return
    before = visits.copy()
    task = make_task(visits, city, test_fraction=fraction, min_visits=min_visits)
    pd.testing.assert_frame_equal(visits, before)

    assert len(task.visits) == len(task.location) == len(task.user) == len(task.target)
    # Each kept row still has its own time, place and user.
    kept = visits[visits["user_id"].map(counts) >= min_visits].reset_index(drop=True)
    pd.testing.assert_frame_equal(task.visits, kept)
    place = kept["location_id"].astype(int).to_numpy()
    assert np.array_equal(task.location, np.where(place < 6, place, -1))
    assert np.array_equal(task.user, pd.factorize(kept["user_id"])[0])
    for user in range(task.users):
        target = task.target[task.user == user]
        assert not target[0] and target[-1] and (np.diff(target.astype(int)) >= 0).all()


@given(histories.filter(lambda v: v["user_id"].value_counts().max() >= 4), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_a_target_is_never_visible_to_itself(visits: pd.DataFrame, other_place: int) -> None:
    """Changing the last target of every user changes no prediction, for it or for any target before it."""
    city = town(8)
    task = make_task(visits, city, min_visits=4)
    last = task.user_starts[1:] - 1
    changed = task.visits.copy()
    changed.loc[last, "location_id"] = str(other_place)
    changed.loc[last, "time"] += pd.Timedelta(minutes=17)
    other = make_task(changed, city, min_visits=4)
    pd.testing.assert_frame_equal(task.train_visits(), other.train_visits())

    weights = MixWeights(np.full((16, 10), 0.1))
    for predictor in (UserFrequency(task.train_visits()), UserMarkov(), ContextMix(weights, task.train_visits())):
        for (rows, p), (other_rows, q) in zip(
            predictor.probabilities(task), predictor.probabilities(other), strict=True
        ):
            assert np.array_equal(rows, other_rows)
            np.testing.assert_allclose(p, q, rtol=1e-4)  # sums of other lengths round otherwise


def test_train_visits_hold_no_target_and_whole_users() -> None:
    visits = frame([(u, u % 3) for u in range(40) for _ in range(10)])
    task = make_task(visits, town(3))
    everything = task.train_visits()
    assert len(everything) == 40 * 8
    some = task.train_visits(0.1, seed=3)
    assert some["user_id"].nunique() == 4 and len(some) == 4 * 8
    pd.testing.assert_frame_equal(some, task.train_visits(0.1, seed=3))
    assert set(task.train_visits(0.1, seed=4)["user_id"]) != set(some["user_id"])
    assert task.train_visits(0.001)["user_id"].nunique() == 1
    assert some.index.equals(pd.RangeIndex(len(some)))


@given(histories, st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_split_parts_share_no_user_and_lose_no_visit(visits: pd.DataFrame, seed: int) -> None:
    users = visits["user_id"].nunique()
    if users < 3:
        with pytest.raises(DataError, match="cannot be split"):
            split_by_user(visits, (0.6, 0.2, 0.2), seed)
        return
    parts = split_by_user(visits, (0.6, 0.2, 0.2), seed)
    names = [set(part["user_id"]) for part in parts]
    assert all(names) and sum(map(len, names)) == users
    together = pd.concat(parts).sort_values(["user_id", "time", "location_id"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(together, visits)


def test_split_sizes_follow_the_fractions() -> None:
    visits = frame([(u, 0) for u in range(100)])
    assert [len(part) for part in split_by_user(visits, (0.8, 0.15, 0.05))] == [80, 15, 5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.iloc[::-1].reset_index(drop=True), "earlier than the row before"),
        (lambda v: v.drop(columns="location_id"), r"lacks the column\(s\) location_id"),
        (lambda v: v.assign(user_id=[0, 1] * (len(v) // 2)), "not together"),
    ],
)
def test_frames_that_are_not_canonical_are_refused(change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_task(change(frame([(0, 0)] * 12)), town(1))


@pytest.mark.parametrize(("test_fraction", "min_visits"), [(0.2, 10), (0.5, 2)])
def test_training_visits_are_those_of_the_task_without_a_city(test_fraction: float, min_visits: int) -> None:
    visits, rule = frame([(0, 0)] * 12 + [(1, 0)] * 3 + [(2, 1)] * 10), {"test_fraction": test_fraction}
    task = make_task(visits, town(2), min_visits=min_visits, **rule)
    pd.testing.assert_frame_equal(split_visits(visits, min_visits=min_visits, **rule)[0], task.train_visits())


def test_a_raw_frame_is_validated() -> None:
    visits = frame([(0, 0), (0, 1)] * 6)
    raw = visits.assign(location_id=[0.0, 1.0] * 6, time=visits["time"].dt.strftime("%Y-%m-%d %H:%M"))
    before = raw.copy(deep=True)
    assert np.array_equal(make_task(raw.iloc[::-1], town(2)).location, make_task(visits, town(2)).location)
    pd.testing.assert_frame_equal(raw, before)


def test_arguments_outside_their_range_are_refused() -> None:
    visits = frame([(0, 0)] * 12)
    with pytest.raises(ValueError, match="test_fraction"):
        make_task(visits, town(1), test_fraction=1.0)
    with pytest.raises(ValueError, match="min_visits"):
        make_task(visits, town(1), min_visits=1)
    with pytest.raises(ValueError, match="user_fraction"):
        make_task(visits, town(1)).train_visits(0)
    with pytest.raises(ValueError, match="sum to 1"):
        split_by_user(visits, (0.5, 0.6))
