"""Ranking metrics against values worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.data.tasks import NextLocationTask
from hf_mobility.evaluation import ranking
from hf_mobility.evaluation.ranking import (
    PROBABILITY_FLOOR,
    RankingResult,
    evaluate,
    new_place_mask,
    paired_difference,
    summarize,
)


class Fixed:
    """A predictor that yields given chunks."""

    name = "fixed"

    def __init__(self, *chunks: tuple[list[int], list[list[float]]]) -> None:
        self.chunks = [(np.array(rows), np.array(p, dtype=np.float32)) for rows, p in chunks]

    def probabilities(self, task):
        yield from self.chunks


def task_of(location: list[int], user: list[int], target: list[int], places: int = 4) -> NextLocationTask:
    mask = np.zeros(len(location), dtype=bool)
    mask[target] = True
    return NextLocationTask(
        city=SimpleNamespace(location_ids=np.arange(places).astype(str)),
        visits=pd.DataFrame({"user_id": user}),
        location=np.array(location),
        user=np.array(user),
        target=mask,
    )


def result_of(rank: list[float], user: list[int], top: list[float] | None = None, name: str = "r") -> RankingResult:
    rank_array = np.array(rank, dtype=float)
    return RankingResult(
        name=name,
        rows=np.arange(len(rank)),
        user=np.array(user),
        rank=rank_array,
        probability=np.where(np.isfinite(rank_array), 0.25, 0.0),
        top_probability=np.array(top if top is not None else [0.5] * len(rank)),
    )


def test_ties_get_the_middle_of_their_ranks() -> None:
    task = task_of([0, 1, 2, 3, 0], [0] * 5, [1, 2, 3, 4])
    result = evaluate(
        Fixed(
            ([1, 2], [[0.25] * 4, [0.4, 0.2, 0.2, 0.2]]),  # four tied: (1+2+3+4)/4; three tied behind one: (2+3+4)/3
            ([4, 3], [[0.3, 0.3, 0.3, 0.1], [0.1, 0.2, 0.3, 0.4]]),  # chunks in any order
        ),
        task,
    )
    assert result.rows.tolist() == [1, 2, 3, 4]
    assert result.rank.tolist() == [2.5, 3.0, 1.0, 2.0]
    assert result.correct.tolist() == [False, False, True, False]
    np.testing.assert_allclose(result.probability, [0.25, 0.2, 0.4, 0.3], rtol=1e-6)
    np.testing.assert_allclose(result.top_probability, [0.25, 0.4, 0.4, 0.3], rtol=1e-6)


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_ranks_equal_a_count_place_by_place(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.integers(0, 4, size=(6, 5)) + 0.5
    p /= p.sum(axis=1, keepdims=True)
    truth = rng.integers(0, 5, size=7)
    task = task_of(truth.tolist(), [0] * 7, list(range(1, 7)), places=5)
    result = evaluate(Fixed(([1, 2, 3, 4, 5, 6], p.tolist())), task)
    for row, q, place, rank in zip(p.astype(np.float32), p.astype(np.float32), truth[1:], result.rank, strict=True):
        better = sum(value > q[place] for value in row)
        tied = [better + 1 + i for i in range(sum(value == q[place] for value in row))]
        assert rank == sum(tied) / len(tied)


def test_a_place_the_city_does_not_list_is_a_miss_and_its_share_is_reported() -> None:
    task = task_of([0, -1, 1, 1], [0, 0, 0, 0], [1, 2, 3])
    result = evaluate(Fixed(([1, 2, 3], [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]])), task)
    assert result.rank.tolist() == [np.inf, 1.0, 3.0]
    table = summarize(result, bootstrap=0).set_index("subset")
    assert table.loc["all", "n"] == 3 and table.loc["listed", "n"] == 2
    assert table.loc["all", "unlisted"] == pytest.approx(1 / 3) and table.loc["listed", "unlisted"] == 0
    assert table.loc["all", "acc@1"] == pytest.approx(1 / 3) and table.loc["listed", "acc@1"] == pytest.approx(1 / 2)
    assert table.loc["all", "mrr"] == pytest.approx((0 + 1 + 1 / 3) / 3)
    assert table.loc["all", "nll"] == pytest.approx(-2 * np.log(PROBABILITY_FLOOR) / 3)


def test_metrics_are_averages_over_targets_not_over_users() -> None:
    # User 0 has one target, user 1 has three: a mean of user means would give 0.5.
    row = summarize(result_of([1, 2, 6, 11], [0, 1, 1, 1]), bootstrap=0).iloc[0]
    assert row["n"] == 4 and row["users"] == 2
    assert (row["acc@1"], row["acc@5"], row["acc@10"]) == (0.25, 0.5, 0.75)
    assert row["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 11) / 4)
    assert row["nll"] == pytest.approx(np.log(4))


def test_calibration_error_of_a_hand_case() -> None:
    # Bins of 1/15: 0.5 and 0.52 share (7/15, 8/15]; 0.95 stands alone.
    result = result_of([1, 2, 1, 3], [0, 0, 1, 1], top=[0.5, 0.52, 0.95, 0.95])
    expected = 2 / 4 * abs(0.5 - 0.51) + 2 / 4 * abs(0.5 - 0.95)
    assert summarize(result, bootstrap=0).iloc[0]["ece"] == pytest.approx(expected)


def test_certain_and_right_is_calibrated() -> None:
    assert summarize(result_of([1, 1], [0, 1], top=[1.0, 1.0]), bootstrap=0).iloc[0]["ece"] == 0


def test_bootstrap_is_repeatable_and_resamples_users() -> None:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(30), rng.integers(1, 20, size=30))
    result = result_of(rng.integers(1, 12, size=len(user)).tolist(), user.tolist())
    once, again = summarize(result, bootstrap=300, seed=5), summarize(result, bootstrap=300, seed=5)
    pd.testing.assert_frame_equal(once, again)
    assert not once.equals(summarize(result, bootstrap=300, seed=6))
    row = once.iloc[0]
    for name in ("acc@1", "acc@5", "acc@10", "mrr", "ece"):
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]

    # The same draws by concatenating the chosen users' targets.
    weights = np.random.default_rng(5).multinomial(30, np.full(30, 1 / 30), size=300)
    draws = [np.average(1 / result.rank, weights=w[user]) for w in weights]
    assert row["mrr_low"] == pytest.approx(np.percentile(draws, 2.5))
    assert row["mrr_high"] == pytest.approx(np.percentile(draws, 97.5))


def test_draws_in_blocks_are_those_of_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.random.default_rng(0).random((7, 4))
    whole = ranking._resampled(sums, 50, 1)
    weights = np.random.default_rng(1).multinomial(7, np.full(7, 1 / 7), size=50)
    np.testing.assert_allclose(whole, weights @ sums)
    for size in (1, 20):  # one resampling at a time, and two
        monkeypatch.setattr(ranking, "DRAWS_AT_ONCE", size)
        np.testing.assert_allclose(ranking._resampled(sums, 50, 1), whole)


def test_one_user_alone_has_no_spread() -> None:
    row = summarize(result_of([1, 2, 4], [3, 3, 3]), bootstrap=50).iloc[0]
    assert row["mrr_low"] == pytest.approx(row["mrr"]) and row["mrr_high"] == pytest.approx(row["mrr"])


def test_subsets_are_rows_of_the_table_and_may_be_empty() -> None:
    result = result_of([1, 2, 4], [0, 0, 1])
    table = summarize(
        [result, result],
        subsets={"new": np.array([False, True, True]), "none": np.zeros(3, dtype=bool)},
        bootstrap=20,
    )
    assert table["subset"].tolist() == ["all", "new", "none"] * 2
    assert table.loc[1, "mrr"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert table.loc[2, "n"] == 0 and np.isnan(table.loc[2, "mrr"])
    with pytest.raises(ValueError, match="Subset 'short'"):
        summarize(result, subsets={"short": np.array([True])})


def test_paired_difference_of_a_hand_case() -> None:
    a, b = result_of([1, 2, 1], [0, 0, 1]), result_of([2, 2, 4], [0, 0, 1])
    mean, low, high = paired_difference(a, b)
    assert mean == pytest.approx((0.5 + 0 + 0.75) / 3)
    assert low == pytest.approx(0.25) and high == pytest.approx(0.75)  # one user drawn twice is the extreme
    assert paired_difference(a, b, seed=1) == paired_difference(a, b, seed=1)
    assert paired_difference(a, a, metric="acc@5") == (0.0, 0.0, 0.0)
    assert paired_difference(b, a).mean == pytest.approx(-mean)


def test_paired_difference_refuses_what_cannot_be_paired() -> None:
    a = result_of([1, 2], [0, 0])
    with pytest.raises(ValueError, match="same targets"):
        paired_difference(a, result_of([1, 2, 3], [0, 0, 0]))
    given_time = RankingResult("t", a.rows, a.user, a.rank, a.probability, a.top_probability, arrival_time_given=True)
    with pytest.raises(ValueError, match="arrival time"):
        paired_difference(a, given_time)
    with pytest.raises(ValueError, match="Unknown metric"):
        paired_difference(a, a, metric="f1")


def test_new_places_are_those_the_user_never_visited_before() -> None:
    task = task_of([0, 1, 0, 2, 1, 1], [0, 0, 0, 0, 1, 1], [2, 3, 5])
    assert new_place_mask(task).tolist() == [False, True, False]
    first_of_user_1 = task_of([0, 1, 0, 2, 1, 0], [0, 0, 0, 0, 1, 1], [3, 5])
    assert new_place_mask(first_of_user_1).tolist() == [True, True]  # user 0's visits do not count for user 1


def test_unlisted_places_are_told_apart_by_their_own_ids() -> None:
    task = task_of([-1, -1, -1], [0, 0, 0], [1, 2])
    task.visits["location_id"] = ["far", "farther", "far"]
    assert new_place_mask(task).tolist() == [True, False]


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([([1], [[1, 0, 0, 0]])], "not exactly once"),
        ([([1, 2, 2], [[1, 0, 0, 0]] * 3)], "not exactly once"),
        ([([0, 1, 2], [[1, 0, 0, 0]] * 3)], "not exactly once"),
        ([([1, 2], [[1, 0, 0, 0], [1, 1, 0, 0]])], "no distribution"),
        ([([1, 2], [[1, 0, 0, 0], [2, -1, 0, 0]])], "no distribution"),
        ([([1, 2], [[1, 0, 0, 0], [np.nan, 0, 0, 0]])], "no distribution"),
        ([([1, 2], [[1, 0, 0], [1, 0, 0]])], "expected"),
    ],
)
def test_predictors_that_break_the_contract_are_refused(chunks, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(Fixed(*chunks), task_of([0, 1, 2], [0, 0, 0], [1, 2]))


def test_means_over_users_stand_beside_means_over_visits() -> None:
    result = result_of([1, 2, 6, 11], [0, 1, 1, 1], top=[0.5, 0.52, 0.95, 0.95])
    row = summarize(result, bootstrap=0).iloc[0]
    assert row["user_acc@1"] == pytest.approx((1 + 0) / 2) and row["user_acc@10"] == pytest.approx((1 + 2 / 3) / 2)
    assert row["user_mrr"] == pytest.approx((1 + (1 / 2 + 1 / 6 + 1 / 11) / 3) / 2)
    assert row["user_nll"] == pytest.approx(np.log(4))
    # The first bin holds half a user (0.5, right) and a sixth of one (0.52, wrong), the last a third (0.95, wrong).
    assert row["user_ece"] == pytest.approx(abs(0.5 * 0.5 - 0.52 / 6) + 0.95 / 3)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_both_means_equal_pandas_and_their_intervals_plain_resampling(seed: int) -> None:
    rng = np.random.default_rng(seed)
    user = np.sort(rng.integers(0, 6, size=40))
    result = result_of(rng.integers(1, 12, size=40).tolist(), user.tolist(), top=rng.random(40).tolist())
    frame = pd.DataFrame({"user": user, "mrr": 1 / result.rank, "acc@5": result.rank <= 5})
    row = summarize(result, bootstrap=50, seed=seed).iloc[0]
    own = frame.groupby("user")[["mrr", "acc@5"]].mean()
    for name in own:
        assert row[name] == pytest.approx(frame[name].mean())
        assert row[f"user_{name}"] == pytest.approx(own[name].mean())
    weights = np.random.default_rng(seed).multinomial(len(own), np.full(len(own), 1 / len(own)), size=50)
    draws = [np.repeat(own["mrr"].to_numpy(), w).mean() for w in weights]
    assert row["user_mrr_low"] == pytest.approx(np.percentile(draws, 2.5))
    assert row["user_mrr_high"] == pytest.approx(np.percentile(draws, 97.5))


def test_users_with_one_target_each_make_both_means_equal() -> None:
    row = summarize(result_of([1, 3, 2], [0, 1, 2], top=[0.9, 0.2, 0.4]), bootstrap=30).iloc[0]
    for name in ("acc@1", "mrr", "nll", "ece", "mrr_low", "ece_high"):
        assert row[f"user_{name}"] == pytest.approx(row[name])


def test_paired_differences_per_user_and_in_a_subset() -> None:
    a, b = result_of([1, 2, 1], [0, 0, 1]), result_of([2, 2, 4], [0, 0, 1])
    assert paired_difference(a, b, per="user").mean == pytest.approx((0.25 + 0.75) / 2)
    first = np.array([True, True, False])
    assert paired_difference(a, b, subset=first) == pytest.approx((0.25, 0.25, 0.25))
    assert np.isnan(paired_difference(a, b, subset=np.zeros(3, dtype=bool)).mean)
    with pytest.raises(ValueError, match="per must be 'visit' or 'user'"):
        paired_difference(a, b, per="person")
    with pytest.raises(ValueError, match="subset is int64"):
        paired_difference(a, b, subset=np.ones(3, dtype=np.int64))
