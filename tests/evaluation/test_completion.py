"""Completions are compared on the hidden hours alone, and the trivial ones fill what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weeks_by_hand import random_weeks

from hf_mobility import DataError
from hf_mobility.baselines import CarryForward, CommonHour, SameHour, StayHome
from hf_mobility.evaluation import completion_gaps, completion_report
from hf_mobility.tokenization.weeks import home_and_work

BASELINES: dict[str, Any] = {
    baseline.name: baseline for baseline in (SameHour(), CommonHour(), CarryForward(), StayHome())
}


def carried(week: list[int]) -> list[int]:
    last = next(cell for cell in week if cell >= 0)
    out = []
    for cell in week:
        last = cell if cell >= 0 else last
        out.append(last)
    return out


def nearest(places: list[int]) -> int:
    return places[0]


def commonest(places: list[int]) -> int:
    return max(places, key=lambda place: (places.count(place), -places.index(place)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.6, 0.95]))
def test_trivial_completions_are_what_loops_over_hours_find(seed: int, unknown: float) -> None:
    weeks = random_weeks(4, seed=seed, unknown=unknown)
    before = weeks.copy()
    assert CarryForward().complete(weeks).tolist() == [carried(week) for week in weeks.tolist()]
    home = home_and_work(weeks)[0]
    assert StayHome().complete(weeks).tolist() == np.where(weeks < 0, home[:, None], weeks).tolist()
    for baseline, chosen in ((SameHour(), nearest), (CommonHour(), commonest)):
        expected = []
        for week, own_home in zip(weeks.reshape(-1, 7, 24), home):
            filled = week.copy()
            for day, hour in np.argwhere(week < 0):
                alike = [other for other in range(7) if (other >= 5) == (day >= 5) and week[other, hour] >= 0]
                if alike:
                    alike.sort(key=lambda other: (abs(other - day), other))
                    filled[day, hour] = chosen(week[alike, hour].tolist())
            expected.append([cell for day in filled.tolist() for cell in carried([own_home, *day])[1:]])
        assert baseline.complete(weeks).tolist() == expected
    assert (weeks == before).all()


@pytest.mark.parametrize("baseline", BASELINES.values(), ids=BASELINES)
def test_known_hours_stay_and_weeks_without_any_are_refused(baseline: Any) -> None:
    weeks = random_weeks(5, unknown=0.3)
    filled = baseline.complete(weeks)
    assert filled.dtype == np.int32 and (filled >= 0).all() and (filled == weeks)[weeks >= 0].all()
    with pytest.raises(DataError, match=r"1 of 2 weeks have no known hour to complete from \(first rows: \[1\]\)"):
        baseline.complete(np.stack([weeks[0], np.full(168, -1)]))


def test_the_gaps_hide_the_hours_they_name() -> None:
    hours = {name: int(hidden.sum()) for name, hidden in completion_gaps().items()}
    assert list(hours.values()) == [24, 96, 16, 12, 84]
    assert np.flatnonzero(completion_gaps()["Thursday 12-24 h"]).tolist() == list(range(3 * 24 + 12, 4 * 24))
    assert np.flatnonzero(completion_gaps()["Tuesday and Thursday 9-17 h"])[[0, 7, 8]].tolist() == [33, 40, 81]
    assert {name: 2 * count for name, count in hours.items()} == {
        name: int(hidden.sum()) for name, hidden in completion_gaps(48).items()
    }


def test_accuracy_counts_hidden_known_hours_only() -> None:
    weeks = random_weeks(12, seed=2, unknown=0.1)
    table = completion_report({"mine": StayHome().complete, "SameHour": SameHour().complete}, weeks)
    assert table["model"].tolist() == ["SameHour"] * 5 + ["mine"] * 5
    for name, baseline in (("mine", StayHome()), ("SameHour", SameHour())):
        for gap, hidden in completion_gaps().items():
            filled = baseline.complete(np.where(hidden, -1, weeks))
            asked = [(i, t) for i in range(12) for t in np.flatnonzero(hidden) if weeks[i, t] >= 0]
            row = table[(table["model"] == name) & (table["gap"] == gap)].iloc[0]
            assert row["hours"] == len(asked)
            assert row["accuracy"] == pytest.approx(np.mean([filled[i, t] == weeks[i, t] for i, t in asked]))
            assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]


def test_a_completion_that_cheats_or_leaves_gaps_is_refused() -> None:
    weeks = random_weeks(3)
    with pytest.raises(DataError, match="lazy left 72 hours unknown and changed 0 known ones"):
        completion_report({"lazy": lambda given: given}, weeks)
    with pytest.raises(DataError, match="bold left 0 hours unknown and changed"):
        completion_report({"bold": np.zeros_like}, weeks)
    with pytest.raises(DataError, match=r"short returned weeks of shape \(2, 168\), not \(3, 168\)"):
        completion_report({"short": lambda given: SameHour().complete(given)[:2]}, weeks)
