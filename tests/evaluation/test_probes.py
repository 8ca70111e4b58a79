"""Probes: solutions and metrics against independent arithmetic, splits that keep people and blocks together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.data import DataError, from_km
from hf_mobility.data.splits import deal_groups, hold_out_rows, hold_out_users
from hf_mobility.evaluation.probe_models import VALIDATION_SHARE, fit_mlp, standardizer
from hf_mobility.evaluation.probes import (
    classification_metrics,
    probe_regions,
    probe_users,
    regression_metrics,
    spatial_blocks,
)


def make_data(count: int = 300, width: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features and values that depend on two of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, width))
    return x, 3 + 2 * x[:, 0] - x[:, 1] + rng.normal(0, 0.3, count)


# Readers


def test_standardizing_leaves_constant_columns_alone() -> None:
    x = np.stack([np.arange(5.0), np.full(5, 7.0)], axis=1)
    mean, scale = standardizer(x)
    assert mean.tolist() == [2, 7] and scale.tolist() == [np.sqrt(2), 1]


def test_the_mlp_learns_what_no_line_can_and_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    x = 3 * rng.uniform(-1, 1, (300, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(float)
    people = {"groups": np.arange(300), "binary": True}
    assert ((fit_mlp(x, y, **people, seed=0, epochs=100)(x) > 0.5) == (y > 0.5)).mean() > 0.9
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    scores = [fit_mlp(x, y, **people, seed=seed, epochs=3)(x) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), expected)
    assert np.array_equal(scores[0], scores[1]) and not np.array_equal(scores[0], scores[2])


def test_the_mlp_gives_values_on_the_labels_scale() -> None:
    x, y = make_data()
    score = fit_mlp(x, 1000 + 50 * y, groups=np.arange(300), binary=False, seed=0)
    assert regression_metrics(1000 + 50 * y, score(x))["r2"] > 0.9


# Metrics


def test_classification_metrics_by_hand() -> None:
    found = classification_metrics([1, 1, 0, 0, 0], [0.9, 0.4, 0.6, 0.4, 0.1])
    assert found["accuracy"] == pytest.approx(3 / 5) and found["f1"] == pytest.approx(2 * 1 / (2 + 2))
    assert found["auc"] == pytest.approx((3 + 1 + 0.5) / 6)  # of the six pairs; one is tied
    assert np.isnan(classification_metrics([1, 1], [0.2, 0.3])["auc"])


def test_regression_metrics_by_hand() -> None:
    found = regression_metrics([0, 2, 4], [1, 2, 6])
    assert found["mae"] == 1 and found["rmse"] == pytest.approx(np.sqrt(5 / 3))
    assert found["r2"] == pytest.approx(1 - 5 / 8)
    assert found["pcc"] == pytest.approx(np.corrcoef([0, 2, 4], [1, 2, 6])[0, 1])
    assert np.isnan(regression_metrics([0, 2, 4], [1, 1, 1])["pcc"])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_auc_equals_the_share_of_ordered_pairs(rows: list[tuple[bool, int]]) -> None:
    labels, scores = map(np.array, zip(*rows))
    difference = (scores[labels][:, None] - scores[~labels]).ravel()
    expected = np.mean((difference > 0) + 0.5 * (difference == 0)) if difference.size else np.nan
    assert classification_metrics(labels, scores)["auc"] == pytest.approx(expected, nan_ok=True)


# Splits


@given(seed=st.integers(0, 100), share=st.floats(0.05, 0.9))
@settings(max_examples=30)
def test_a_person_is_on_one_side(seed: int, share: float) -> None:
    people = np.random.default_rng(seed).integers(0, 25, 80)
    train, test = hold_out_users(people, test_share=share, seed=seed)
    assert sorted([*train, *test]) == list(range(80))
    assert not set(people[train]) & set(people[test]) and len(test)
    assert len(set(people[test])) == max(1, round(share * len(set(people))))


def test_blocks_are_squares_of_some_kilometres() -> None:
    east, north = np.meshgrid([0.1, 4.9, 5.2, 12.0], [0.1, 7.0])
    lat, lon = from_km(east.ravel(), north.ravel(), origin=(48.0, 11.0))
    assert spatial_blocks(lat, lon).tolist() == [0, 0, 1, 2, 3, 3, 4, 5]
    assert len(set(spatial_blocks(lat, lon, block_km=100))) == 1
    with pytest.raises(DataError, match="block_km must be positive"):
        spatial_blocks(lat, lon, block_km=0)


@given(seed=st.integers(0, 100))
@settings(max_examples=20)
def test_folds_keep_blocks_together_and_are_about_even(seed: int) -> None:
    blocks = np.random.default_rng(seed).integers(0, 30, 300)
    fold = deal_groups(blocks, folds=5, seed=seed)
    assert all(len(set(fold[blocks == block])) == 1 for block in set(blocks))
    sizes = np.bincount(fold, minlength=5)
    assert sizes.min() > 40 and sizes.sum() == 300
    assert (deal_groups(blocks, folds=5, seed=seed) == fold).all()


def test_validation_takes_whole_groups_and_at_least_a_tenth() -> None:
    groups = np.repeat(np.arange(8), [50, 1, 1, 1, 1, 1, 1, 44])
    for seed in range(20):
        train, held_out = hold_out_rows(groups, share=VALIDATION_SHARE, seed=seed)
        assert not set(groups[train]) & set(groups[held_out]) and len(held_out) >= 10 and len(train)
    train, held_out = hold_out_rows(np.zeros(5), share=VALIDATION_SHARE, seed=0)
    assert len(train) == len(held_out) == 5


# Tables


def test_a_table_of_people_tells_what_is_known_from_what_is_not() -> None:
    x, y = make_data(200)
    noise = np.random.default_rng(1).normal(size=(200, 5))
    table = probe_users({"good": x, "noise": noise}, y > 3, seeds=(0, 1, 2)).set_index(["features", "reader"])
    assert list(table.index) == [(name, reader) for name in ("good", "noise") for reader in ("linear", "mlp")]
    assert (table["n"] == 200).all() and (table["width"] == 5).all()
    assert table.loc["good", "auc"].min() > 0.95 and table.loc["noise", "auc"].max() < 0.7
    assert (table["accuracy_sd"] > 0).all()
    repeated = probe_users({"good": x}, y > 3, seeds=(0, 1, 2), readers=["linear"])
    assert repeated["auc"][0] == table.loc[("good", "linear"), "auc"]


def test_values_of_people_are_a_regression_and_gaps_are_left_out() -> None:
    x, y = make_data(150)
    y[:30] = np.nan
    table = probe_users({"x": x}, y, readers=["linear"], seeds=[0, 1])
    assert table["n"].tolist() == [120] and table["r2"][0] > 0.95
    assert list(table.columns[4:]) == ["mae", "mae_sd", "rmse", "rmse_sd", "pcc", "pcc_sd", "r2", "r2_sd"]


def test_a_neighbour_does_not_help_when_its_block_is_held_out() -> None:
    """Values that follow the place alone are known to a random split, and to no block."""
    rng = np.random.default_rng(0)
    east, north = rng.uniform(0, 25, (2, 400))
    lat, lon = from_km(east, north, origin=(48.0, 11.0))
    block = np.floor(east / 5) * 5 + np.floor(north / 5)
    labels = rng.normal(size=26)[block.astype(int)] + rng.normal(0, 0.1, 400)
    one_hot = np.eye(25)[block.astype(int)]
    by_person = probe_users({"place": one_hot}, labels, readers=["linear"], seeds=[0])
    by_block = probe_regions({"place": one_hot}, labels, lat, lon, readers=["linear"], seeds=[0])
    assert by_person["r2"][0] > 0.9 and by_block["r2"][0] < 0.3


def test_regions_are_each_predicted_once_while_held_out() -> None:
    x, y = make_data(120)
    rng = np.random.default_rng(1)
    lat, lon = from_km(*rng.uniform(0, 20, (2, 120)), origin=(48.0, 11.0))
    table = probe_regions({"x": x}, y, lat, lon, readers=["linear"], seeds=[0, 1])
    assert table["n"].tolist() == [120] and table["r2"][0] > 0.9 and table["pcc_sd"][0] >= 0
    blocks = spatial_blocks(lat, lon)
    fold = deal_groups(blocks, folds=5, seed=0)
    expected = np.empty(120)
    for k in range(5):
        train, test = fold != k, fold == k
        weights = np.linalg.lstsq(np.column_stack([x[train], np.ones(train.sum())]), y[train], rcond=None)[0]
        expected[test] = x[test] @ weights[:-1] + weights[-1]
    one = probe_regions({"x": x}, y, lat, lon, readers=["linear"], seeds=[0])
    assert one["rmse"][0] == pytest.approx(regression_metrics(y, expected)["rmse"], rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.ones(20)}, "All 20 labels are the same"),
        ({"labels": np.array(["a"] * 20)}, "labels must be numbers"),
        ({"features": {}}, "There are no features to compare"),
        ({"features": {"x": np.zeros((19, 2))}}, r"Features 'x' have shape \(19, 2\); 20 rows"),
        ({"features": {"x": np.full((20, 2), np.nan)}}, "Features 'x': 20 of 20 rows are not finite"),
        ({"readers": ["tree"]}, r"readers are \['linear', 'mlp'\] and seeds at least one, got \['tree'\]"),
        ({"seeds": []}, "seeds at least one"),
        ({"test_share": 1.0}, "test_share must lie between 0 and 1"),
        ({"users": np.zeros(20)}, "1 users cannot be split"),
        ({"users": np.zeros(19)}, r"users has shape \(19,\)"),
    ],
)
def test_requests_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    arguments = {"features": {"x": np.zeros((20, 2))}, "labels": np.arange(20) % 2, **changes}
    with pytest.raises(DataError, match=message):
        probe_users(arguments.pop("features"), arguments.pop("labels"), **arguments)


def test_too_few_blocks_are_refused() -> None:
    with pytest.raises(DataError, match="1 blocks cannot be dealt into 5 folds"):
        probe_regions({"x": np.zeros((9, 1))}, np.arange(9), np.full(9, 48.0), np.full(9, 11.0))
    with pytest.raises(DataError, match="one value per region"):
        probe_regions({"x": np.zeros((9, 1))}, np.arange(9), np.full(8, 48.0), np.full(9, 11.0))
