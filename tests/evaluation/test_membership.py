"""The attacker finds a user again whose week was copied, and no other."""

from __future__ import annotations

import numpy as np
import pytest
from weeks_by_hand import random_weeks

from hf_mobility import DataError
from hf_mobility.evaluation import membership
from hf_mobility.evaluation.membership import _resampled


def test_copies_of_the_members_give_them_away_and_strangers_do_not() -> None:
    members, others = random_weeks(30, seed=1), random_weeks(40, seed=2)
    found = membership(members, members=members, others=others)
    assert found["auc"] == found["auc_low"] == found["auc_high"] == 1
    assert (found["members"], found["others"]) == (30, 40)
    strangers = membership(random_weeks(50, seed=3), members=members, others=others)
    assert strangers["auc_low"] < 0.5 < strangers["auc_high"]


def test_the_score_is_the_share_of_hours_of_the_nearest_generated_week() -> None:
    made, members, others = (random_weeks(6, seed=k, unknown=0.1) for k in (1, 2, 3))

    def nearest(week: np.ndarray) -> float:
        return max(np.mean(week[week >= 0] == other[week >= 0]) for other in made)

    pairs = [(nearest(a), nearest(b)) for a in members for b in others]
    expected = np.mean([(a > b) + (a == b) / 2 for a, b in pairs])
    assert membership(made, members=members, others=others, bootstrap=0)["auc"] == pytest.approx(expected)


def test_users_are_resampled_whole_and_widen_the_interval() -> None:
    score, starts = np.array([0.0, 1, 2, 3, 4, 5]), np.array([0, 1, 3])
    for seed in range(5):
        drawn = _resampled(score, starts, np.random.default_rng(seed))
        users = np.random.default_rng(seed).integers(3, size=3)
        assert drawn.tolist() == [value for user in users for value in ([0], [1, 2], [3, 4, 5])[user]]
    weeks = [np.repeat(random_weeks(10, seed=k), 6, axis=0) for k in (1, 2)]
    users = np.repeat(np.arange(10), 6)
    sides = {"members": weeks[0], "others": weeks[1]}
    alone = membership(random_weeks(20, seed=3), **sides)
    whole = membership(random_weeks(20, seed=3), **sides, member_users=users, other_users=users)
    assert whole["auc"] == alone["auc"] and whole["members"] == 10
    assert whole["auc_high"] - whole["auc_low"] > 1.5 * (alone["auc_high"] - alone["auc_low"])


def test_users_that_do_not_fit_are_refused() -> None:
    weeks = random_weeks(4)
    with pytest.raises(DataError, match=r"other_users has shape \(2,\); give one user for each of the 4 weeks"):
        membership(weeks, members=weeks, others=weeks, other_users=[0, 1])
