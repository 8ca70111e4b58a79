"""The two-sample test tells what differs, not what is alike, and tests on users it has not seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from weeks_by_hand import home_of, random_weeks, second_of

from hf_mobility import DataError
from hf_mobility.evaluation import two_sample_auc
from hf_mobility.evaluation.two_sample import auc, held_out_weeks, week_channels


def test_the_area_under_the_curve_is_that_of_scikit_learn() -> None:
    scores = np.random.default_rng(0).integers(0, 6, 50).astype(float)
    labels = np.arange(50) % 3 == 0
    assert auc(scores[labels], scores[~labels]) == pytest.approx(roc_auc_score(labels, scores))
    assert np.isnan(auc(scores, scores[:0]))


def test_channels_are_places_by_rank_and_moves() -> None:
    weeks = random_weeks(5, seed=1, unknown=0.1)
    channels = week_channels(weeks)
    for week, found in zip(weeks, channels):
        home, second = home_of(week), second_of(week)
        assert (found[0] == (week == home)).all() and (found[1] == ((week == second) & (week >= 0))).all()
        assert (found[:4].sum(axis=0) == (week >= 0)).all()  # a known hour is in one place
        moved = [t > 0 and min(week[t - 1], week[t]) >= 0 and week[t] != week[t - 1] for t in range(168)]
        assert found[4].tolist() == moved


def test_what_differs_is_told_and_what_is_alike_is_not() -> None:
    real, alike = random_weeks(100, seed=1), random_weeks(100, seed=2)
    other = random_weeks(100, seed=3, sticky=0.98)
    assert two_sample_auc(real, other, seed=0, epochs=8) > 0.9
    assert 0.25 < two_sample_auc(real, alike, seed=0, epochs=2) < 0.75
    # Cells have no names: what is moved to other cells is the same.
    assert two_sample_auc(real, alike + 7, seed=0, epochs=2) == two_sample_auc(real, alike, seed=0, epochs=2)


def test_a_seed_gives_the_same_value_and_leaves_torch_alone() -> None:
    real, made = random_weeks(30, seed=1), random_weeks(30, seed=2)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    values = [two_sample_auc(real, made, seed=4, epochs=1) for _ in range(2)]
    assert values[0] == values[1] and torch.rand(1) == expected


def test_a_user_that_trained_does_not_test() -> None:
    users = np.random.default_rng(0).integers(0, 10, 200)
    held = held_out_weeks(np.zeros((200, 168), int), users, "real", np.random.default_rng(1))
    assert len(np.unique(users[held])) == 3 and not set(users[held]) & set(users[~held])
    alone = held_out_weeks(np.zeros((200, 168), int), None, "real", np.random.default_rng(1))
    assert alone.sum() == 60


def test_faults_are_one_sentence() -> None:
    weeks = random_weeks(8)
    with pytest.raises(DataError, match=r"real_users has shape \(3,\); give one user for each of the 8 weeks"):
        two_sample_auc(weeks, weeks, real_users=np.arange(3))
    with pytest.raises(DataError, match="generated has weeks of 2 users; the test needs at least 4"):
        two_sample_auc(weeks, weeks, generated_users=np.arange(8) % 2)
