"""Measures of weeks user by user: each against plain loops over users, days and hours."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weeks_by_hand import commonest, home_of, random_weeks, second_of

from hf_mobility import DataError
from hf_mobility.evaluation import pair_table, regularity
from hf_mobility.evaluation.fidelity_flows import hourly_cpc, od_correlation, population_tv
from hf_mobility.evaluation.fidelity_metrics import MeasuredWeeks
from hf_mobility.evaluation.motifs import motif_sequences, motif_tv
from hf_mobility.evaluation.user_pairs import one_user_pairs, pair_users
from hf_mobility.evaluation.week_places import night_home, ranked_places, second_place
from hf_mobility.evaluation.week_regularity import together_again

seeds = st.integers(0, 10_000)
gaps = st.sampled_from([0.0, 0.05, 0.4])


def measured(cells: np.ndarray) -> MeasuredWeeks:
    return MeasuredWeeks.of(cells, lat=np.linspace(0, 0.4, 5), lon=np.zeros(5))


# Places


@settings(max_examples=20, deadline=None)
@given(seeds, gaps)
def test_home_and_second_place_are_the_commonest_cells(seed: int, unknown: float) -> None:
    weeks = random_weeks(6, seed=seed, unknown=unknown)
    home = night_home(weeks)
    assert home.tolist() == [home_of(week) for week in weeks]
    assert second_place(weeks, home).tolist() == [second_of(week) for week in weeks]


def test_ties_go_to_the_smaller_cell_and_missing_ranks_are_unknown() -> None:
    assert ranked_places(np.array([[3, 1, 1, 3, 2], [-1, 4, 4, -1, -1], [-1] * 5]), 3).tolist() == [
        [1, 3, 2],
        [4, -1, -1],
        [-1, -1, -1],
    ]


def test_windows_that_are_no_weeks_are_refused() -> None:
    for cells, slots in ((np.zeros((2, 48), int), 24), (np.zeros((2, 168), int), 25)):
        with pytest.raises(DataError, match="weeks of seven days of whole hours"):
            night_home(cells, slots_per_day=slots)


# Motifs


def sequences(weeks: np.ndarray) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()
    for day in weeks.reshape(-1, 24).tolist():
        if min(day) < 0:
            continue
        places = [cell for cell, _ in groupby(day)]
        order = list(dict.fromkeys(places))
        found[tuple(order.index(cell) for cell in places)] += 1
    return found


@settings(max_examples=20, deadline=None)
@given(seeds, gaps)
def test_the_distance_of_motifs_is_that_of_their_sequences(seed: int, unknown: float) -> None:
    a, b = (random_weeks(4, seed=seed + k, unknown=unknown) for k in (0, 1))
    p, q = sequences(a), sequences(b)
    if not p or not q:
        assert np.isnan(motif_tv(a, b))
        return
    expected = sum(abs(p[key] / p.total() - q[key] / q.total()) for key in p | q) / 2
    assert motif_tv(a, b) == pytest.approx(expected)


def test_a_motif_knows_order_and_no_names() -> None:
    assert motif_sequences(np.array([[5, 5, 2, 5, 9, 9]]), slots_per_day=6).tolist() == [[0, 1, 0, 2, -1, -1]]
    assert motif_tv(np.array([[0, 1, 0, 2]]), np.array([[7, 3, 7, 4]]), slots_per_day=4) == 0
    assert motif_tv(np.array([[0, 1, 0, 2]]), np.array([[0, 1, 2, 0]]), slots_per_day=4) == 1


# From day to day


def by_hand(weeks: np.ndarray) -> dict[str, float]:
    """`regularity` with loops."""
    workers, spreads, places = 0, [], []
    still, away, stays = [], [], []
    for week in weeks:
        home, days = home_of(week), week.reshape(7, 24)
        daytime = [int(c) for day in range(5) for c in days[day, 9:16] if c != home]
        work = commonest(daytime)
        if work >= 0 and daytime.count(work) >= 15:
            workers += 1
            first = [int(np.flatnonzero(days[day] == work)[0]) for day in range(5) if (days[day] == work).any()]
            spreads.append(np.std(first))
            of_day = [[int(c) for c in days[day, 9:16] if c != home] for day in range(5)]
            places.append(len({commonest(day) for day in of_day if day.count(commonest(day)) >= 4 and max(day) >= 0}))
        still += [len(set(day)) == 1 for day in days[5:].tolist() if min(day) >= 0]
        if home >= 0 and days[5, 22] >= 0:
            away.append(days[5, 22] != home)
        runs = [(cell, len(list(run))) for cell, run in groupby(week.tolist())]
        for before, (cell, length), after in zip(runs, runs[1:], runs[2:]):
            if min(before[0], cell, after[0]) >= 0:
                stays.append(length == 1)
    mean = {"arrival_sd": spreads, "work_places": places, "still_weekend_days": still}
    mean |= {"saturday_away": away, "one_hour_stays": stays}
    out = {name: float(np.mean(values)) if values else float("nan") for name, values in mean.items()}
    monday, tuesday = weeks[:, 11], weeks[:, 35]
    known = [i for i in range(len(weeks)) if monday[i] >= 0 and tuesday[i] >= 0]
    pairs = [(i, j) for i, j in combinations(known, 2) if monday[i] == monday[j]]
    again = [tuesday[i] == tuesday[j] for i, j in pairs]
    return {**out, "workers": workers / len(weeks), "together_again": float(np.mean(again)) if again else float("nan")}


@settings(max_examples=25, deadline=None)
@given(seeds, gaps)
def test_regularity_is_what_loops_over_users_and_days_count(seed: int, unknown: float) -> None:
    weeks = random_weeks(8, seed=seed, unknown=unknown)
    assert regularity(weeks) == pytest.approx(by_hand(weeks), nan_ok=True)


def test_half_hours_tell_the_same_as_hours() -> None:
    weeks = random_weeks(20, seed=3)
    assert regularity(np.repeat(weeks, 2, axis=1), slots_per_day=48) == pytest.approx(regularity(weeks))


def test_a_worker_of_two_places_and_a_late_one_are_seen() -> None:
    week = np.zeros((2, 7, 24), int)
    week[0, :5, 9:17] = [[1], [1], [1], [2], [2]]  # three days here, two days there
    week[1, :5, 9:17] = 1
    week[1, 4, 9:11] = 0  # on Friday at 11 h
    found = regularity(week.reshape(2, -1))
    assert found["workers"] == 1 and found["work_places"] == 1.5
    assert found["arrival_sd"] == pytest.approx(np.std([9, 9, 9, 9, 11]) / 2)


def test_contacts_that_are_kept_are_pairs_of_both_days() -> None:
    assert together_again(np.array([1, 1, 1, 2, 2]), np.array([1, 1, 3, 4, 4])) == 2 / 4
    assert together_again(np.array([1, 1, 1]), np.array([2, -1, 2])) == 1
    assert np.isnan(together_again(np.array([1, 2]), np.array([1, 1])))


# Flows


@settings(max_examples=20, deadline=None)
@given(seeds, gaps)
def test_flows_and_population_are_what_loops_count(seed: int, unknown: float) -> None:
    a, b = (random_weeks(6, seed=seed + k, unknown=unknown) for k in (0, 1))
    trips: list[Counter[tuple[int, int, int]]] = []
    for weeks in (a, b):
        moves = [(t % 24, int(w[t]), int(w[t + 1])) for w in weeks for t in range(167) if w[t] != w[t + 1]]
        trips.append(Counter(move for move in moves if min(move[1:]) >= 0))
    assert hourly_cpc(measured(a), measured(b), slots_per_day=24) == pytest.approx(
        2 * (trips[0] & trips[1]).total() / (trips[0].total() + trips[1].total())
    )
    pairs = [Counter[tuple[int, int]]() for _ in trips]
    for flow, counted in zip(pairs, trips):
        for (_, origin, target), count in counted.items():
            flow[origin, target] += count
    keys = list(pairs[0] | pairs[1])
    expected = np.corrcoef([[flow[key] for key in keys] for flow in pairs])[0, 1]
    assert od_correlation(measured(a), measured(b)) == pytest.approx(expected)
    distance = []
    for t in range(168):
        known = [w[w[:, t] >= 0, t] for w in (a, b)]
        if min(map(len, known)):
            shares = [[np.mean(cells == cell) for cell in range(5)] for cells in known]
            distance.append(np.abs(np.subtract(*shares)).sum() / 2)
    assert population_tv(measured(a), measured(b)) == pytest.approx(np.mean(distance))


# Pairs of single users


@settings(max_examples=20, deadline=None)
@given(seeds, gaps)
def test_pairs_of_places_are_counted_by_training_user(seed: int, unknown: float) -> None:
    train, weeks = random_weeks(12, seed=seed, unknown=unknown), random_weeks(8, seed=seed + 1, unknown=unknown)
    users = np.random.default_rng(seed).integers(0, 5, 12)
    theirs = [(home_of(week), second_of(week), user) for week, user in zip(train, users)]
    expected = []
    for week in weeks:
        pair = (home_of(week), second_of(week))
        expected.append(-1 if min(pair) < 0 else len({user for *known, user in theirs if tuple(known) == pair}))
    assert pair_users(weeks, train, users).tolist() == expected
    having = [count for count in expected if count >= 0]
    assert one_user_pairs(weeks, train, users) == pytest.approx(np.mean([count == 1 for count in having]))
    shares = pair_table({"made": weeks}, train, users).iloc[0]
    assert shares["weeks"] == len(having)
    assert shares.iloc[2:].sum() == pytest.approx(1)
    assert shares["two to four users"] == pytest.approx(np.mean([2 <= count <= 4 for count in having]))


def test_weeks_at_home_have_no_pair() -> None:
    home = np.zeros((2, 168), int)
    assert pair_users(home, random_weeks(3)).tolist() == [-1, -1]
    assert np.isnan(one_user_pairs(home, random_weeks(3)))
    assert pair_table({"home": home}, random_weeks(3))["weeks"].tolist() == [0]
