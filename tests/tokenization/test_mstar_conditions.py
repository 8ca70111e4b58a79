"""Movement attributes and distributions of M-STAR's conditions: distances by a textbook loop, tables by counting, draws
by their frequencies."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.tokenization.conditions_mstar import ConditionTables, distinct_cells, edit_distances, relabel
from hf_mobility.tokenization.tokenization_mstar import MstarTokenizer

BOX = (47.9, 10.9, 48.1, 11.2)


def make_tokenizer(**changes: Any) -> MstarTokenizer:
    options = {"timezone": "Europe/Berlin", "rows": 6, "columns": 5, "factors": (4, 2, 1), **changes}
    return MstarTokenizer.from_grid(BOX, **options)


def make_cells(n: int = 12, *, seed: int = 0, unknown: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.random((n, 168)) < 0.15, axis=1)
    cells = rng.integers(0, 30, (n, 8))[np.arange(n)[:, None], walk % rng.integers(1, 9, (n, 1))]
    return np.where(rng.random((n, 168)) < unknown, -1, cells).astype(np.int32)


def distance_by_hand(first: list[Any], second: list[Any]) -> int:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def relabel_by_hand(week: list[int]) -> list[int]:
    seen: list[int] = []
    for cell in week:
        if cell >= 0 and cell not in seen:
            seen.append(cell)
    return [seen.index(cell) if cell >= 0 else -1 for cell in week]


# Movement attributes


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-1, 5), min_size=9, max_size=9), min_size=1, max_size=5))
def test_weeks_are_relabelled_by_first_visit(weeks: list[list[int]]) -> None:
    cells = np.array(weeks)
    assert relabel(cells).tolist() == [relabel_by_hand(week) for week in weeks]
    assert distinct_cells(cells).tolist() == [len(set(week) - {-1}) for week in weeks]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([12, 70]))
def test_distances_are_those_of_the_textbook(seed: int, hours: int) -> None:
    labels = relabel(make_cells(6, seed=seed)[:, :hours])
    wanted = [[distance_by_hand(a, b) for b in labels.tolist()] for a in labels.tolist()]
    assert edit_distances(labels).tolist() == wanted
    assert edit_distances(labels, labels[:2]).tolist() == [row[:2] for row in wanted]


def test_where_the_cells_are_does_not_matter_to_the_attribute() -> None:
    tokenizer, cells = make_tokenizer(), make_cells(80, unknown=0.05)
    tokenizer.fit_conditions(cells, num_attributes=4)
    elsewhere = np.where(cells >= 0, np.random.default_rng(1).permutation(30)[cells], -1)
    assert np.array_equal(tokenizer.attributes(cells), tokenizer.attributes(elsewhere))


def test_every_week_has_the_class_of_its_nearest_medoid() -> None:
    tokenizer, cells = make_tokenizer(num_hours=100), make_cells(24)[:, :100]
    report = tokenizer.fit_conditions(cells, num_attributes=5)
    assert tokenizer.medoids.shape == (5, 100) and tokenizer.medoids.dtype == np.int16
    found = tokenizer.attributes(cells).tolist()
    for week, label in zip(cells.tolist(), found):
        distances = [distance_by_hand(relabel_by_hand(week), medoid) for medoid in tokenizer.medoids.tolist()]
        assert label == distances.index(min(distances))
    assert report["weeks_per_attribute"] == np.bincount(found, minlength=5).tolist()
    assert np.array_equal(tokenizer(cells)["attribute_ids"], found)


def test_medoids_are_weeks_of_the_sample_and_no_single_exchange_improves_them() -> None:
    tokenizer, cells = make_tokenizer(), make_cells(25, unknown=0)
    tokenizer.fit_conditions(cells, num_attributes=3)
    labels = relabel(cells)
    rows = [labels.tolist().index(medoid) for medoid in tokenizer.medoids.tolist()]
    between = edit_distances(labels)
    cost = between[:, rows].min(axis=1).sum()
    for place in range(3):
        for other in range(25):
            assert between[:, [*rows[:place], other, *rows[place + 1 :]]].min(axis=1).sum() >= cost


def test_the_number_of_classes_is_chosen_by_silhouette() -> None:
    """Three kinds of people: those who stay, those who work, those who are somewhere new every hour."""
    rng = np.random.default_rng(0)
    stay, work = np.zeros((20, 168), np.int64), np.zeros((20, 168), np.int64)
    work[:, np.arange(168) % 24 // 8 == 1] = 7
    roam = np.array([rng.permutation(np.arange(168) % 30) for _ in range(4)])[rng.integers(0, 4, 20)]
    for cells in (stay, work, roam):
        cells[np.arange(20), rng.integers(1, 168, 20)] = 12
    tokenizer = make_tokenizer()
    report = tokenizer.fit_conditions(np.concatenate([stay, work, roam]), num_attributes=None)
    assert report["num_attributes"] == tokenizer.num_attributes == len(tokenizer.medoids) >= 3
    classes = tokenizer.attributes(np.concatenate([stay, work, roam])).reshape(3, 20)
    assert len(set(classes[0]) | set(classes[1]) | set(classes[2])) == tokenizer.num_attributes
    assert not set(classes[0]) & set(classes[1]) and not set(classes[1]) & set(classes[2])


def test_fitting_again_with_the_same_seed_gives_the_same_classes() -> None:
    first, second, cells = make_tokenizer(), make_tokenizer(), make_cells(60)
    first.fit_conditions(cells, sample=30, num_attributes=4, seed=7)
    second.fit_conditions(cells, sample=30, num_attributes=4, seed=7)
    assert np.array_equal(first.medoids, second.medoids)


def test_the_cheap_attribute_is_the_number_of_cells() -> None:
    tokenizer, cells = make_tokenizer(), make_cells(40)
    tokenizer.fit_conditions(cells, method="distinct_cells", num_attributes=4)
    wanted = [min(len(set(week) - {-1}), 4) - 1 for week in cells.tolist()]
    assert tokenizer.attributes(cells).tolist() == wanted and tokenizer.num_attributes == 4


@pytest.mark.parametrize(
    ("package", "message"), [("rapidfuzz.process", "pip install rapidfuzz"), ("kmedoids", "pip install kmedoids")]
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str, message: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=message):
        make_tokenizer().fit_conditions(make_cells(20), num_attributes=2)


# Distributions


def draw_weeks(n: int = 4000) -> tuple[MstarTokenizer, np.ndarray, np.ndarray, np.ndarray]:
    """A tokenizer with four classes, and conditions of `n` weeks."""
    rng = np.random.default_rng(0)
    home = rng.choice([3, 8, 14, 29], n, p=[0.4, 0.3, 0.2, 0.1])
    work = np.where(rng.random(n) < 0.6, home, rng.choice([8, 10, 22], n, p=[0.5, 0.3, 0.2]))
    return make_tokenizer(), home, work, np.where(home == work, rng.integers(0, 2, n), rng.integers(1, 4, n))


def fit(tokenizer: MstarTokenizer, home: Any, work: Any, kind: Any, **options: Any) -> ConditionTables:
    min_users = options.pop("min_users", 1)
    counts = {"num_cells": tokenizer.num_cells, "num_attributes": 4, **options}
    tokenizer.conditions = ConditionTables.fit(home, work, kind, **counts).shared_by(min_users, tokenizer.cell_map)
    tokenizer.num_attributes = 4
    return tokenizer.conditions


def test_tables_are_counts_of_weeks() -> None:
    tokenizer, home, work, kind = draw_weeks()
    tables = fit(tokenizer, home, work, kind)
    same = home == work
    assert tables.same_share == same.mean()
    for row, group in ((0, ~same), (1, same)):
        assert tables.home_counts[row].tolist() == [int((home[group] == c).sum()) for c in range(30)]
        assert tables.attribute_counts[row].tolist() == [int((kind[group] == k).sum()) for k in range(4)]
    pairs = Counter(zip(home[~same].tolist(), work[~same].tolist()))
    assert {(h, w): n for h, w, n in tables.pairs.tolist()} == pairs


@pytest.mark.parametrize("smoothing", [0.0, 5.0, 200.0])
def test_drawn_conditions_have_the_fitted_distributions(smoothing: float) -> None:
    tokenizer, home, work, kind = draw_weeks()
    tables = fit(tokenizer, home, work, kind, smoothing=smoothing)
    drawn = tokenizer.sample_conditions(200_000, seed=1)
    assert all(ids.dtype == np.int64 and ids.shape == (200_000,) for ids in drawn.values())
    same, was_same = drawn["home_ids"] == drawn["work_ids"], home == work
    assert abs(same.mean() - tables.same_share) < 0.005
    for now, before in ((same, was_same), (~same, ~was_same)):
        for name, known, size in (("home_ids", home, 30), ("attribute_ids", kind, 4)):
            found = np.bincount(drawn[name][now], minlength=size) / now.sum()
            wanted = np.bincount(known[before], minlength=size) / before.sum()
            assert np.abs(found - wanted).max() < 0.01
    for place in (3, 8):
        rows = (drawn["home_ids"] == place) & ~same
        found = np.bincount(drawn["work_ids"][rows], minlength=30) / rows.sum()
        assert np.abs(found - tables.work_probabilities(place, tokenizer.cell_map)).max() < 0.015


def test_without_smoothing_second_places_have_their_raw_frequencies() -> None:
    tokenizer, home, work, kind = draw_weeks()
    tables = fit(tokenizer, home, work, kind, smoothing=0.0)
    rows = (home == 14) & (work != 14)
    wanted = np.bincount(work[rows], minlength=30) / rows.sum()
    np.testing.assert_allclose(tables.work_probabilities(14, tokenizer.cell_map), wanted)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 29), st.just(0.0) | st.floats(1e-3, 100), st.integers(0, 2**31), st.integers(1, 30))
def test_second_places_back_off_from_home_to_city(home: int, smoothing: float, seed: int, weeks: int) -> None:
    """The mixture written as one sum: the weight of each view, times its frequencies."""
    rng = np.random.default_rng(seed)
    tokenizer = make_tokenizer()
    homes, works = rng.integers(0, 30, weeks), rng.integers(0, 30, weeks)
    works = np.where(homes == works, (works + 1) % 30, works)
    tables = fit(tokenizer, homes, works, np.zeros(weeks, np.int64), smoothing=smoothing)
    total, left = np.zeros(30), 1.0
    for level in tokenizer.cell_map.T[::-1]:
        near = works[level[homes] == level[home]]
        share = len(near) / (len(near) + smoothing) if len(near) + smoothing else 0.0
        total += left * share * np.bincount(near, minlength=30) / max(len(near), 1)
        left *= 1 - share
    total += left * np.bincount(works, minlength=30) / weeks
    total[home] = 0
    if total.sum() == 0:
        total = np.bincount(works[works != home], minlength=30)
    if total.sum() == 0:
        total = np.arange(30) != home
    found = tables.work_probabilities(home, tokenizer.cell_map)
    assert found[home] == 0
    np.testing.assert_allclose(found, total / total.sum(), atol=1e-9)


def test_rare_homes_and_pairs_are_not_stored_and_never_drawn() -> None:
    tokenizer, home, work, kind = draw_weeks(400)
    home, work, kind = np.append(home, [20, 20]), np.append(work, [20, 21]), np.append(kind, [0, 0])
    tables = fit(tokenizer, home, work, kind, min_users=5, smoothing=50.0)
    assert tables.pairs[:, 2].min() >= 5 and tables.home_counts[tables.home_counts > 0].min() >= 5
    drawn = tokenizer.sample_conditions(20_000, seed=0)
    assert 20 not in drawn["home_ids"] and 21 not in drawn["work_ids"]
    with pytest.raises(ValueError, match="min_users=1000 leaves no home"):
        fit(tokenizer, home, work, kind, min_users=1000)


def test_draws_follow_from_the_seed() -> None:
    tokenizer, *given_weeks = draw_weeks()
    fit(tokenizer, *given_weeks)
    first, again, other = (tokenizer.sample_conditions(500, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_with_given_places_only_the_attribute_is_drawn() -> None:
    tokenizer, home, work, kind = draw_weeks()
    fit(tokenizer, home, work, kind)
    places = np.array([0, 1] * 5000)
    drawn = tokenizer.sample_conditions(10_000, seed=0, home_ids=places, work_ids=np.zeros(10_000, np.int64))
    assert np.array_equal(drawn["home_ids"], places)
    assert set(drawn["attribute_ids"][places == 0]) == {0, 1} and set(drawn["attribute_ids"][places == 1]) == {1, 2, 3}


def test_everybody_at_home_is_a_distribution_too() -> None:
    tokenizer = make_tokenizer()
    tokenizer.fit_conditions(np.full((5, 168), 4), method="distinct_cells", num_attributes=3)
    drawn = tokenizer.sample_conditions(50, seed=0)
    assert set(drawn["home_ids"]) == set(drawn["work_ids"]) == {4} and set(drawn["attribute_ids"]) == {0}
    other = tokenizer.sample_conditions(1, seed=0, home_ids=[4], work_ids=[5])  # a group that was never seen
    assert other["attribute_ids"].tolist() == [0]


def test_conditions_that_cannot_be_fitted_or_drawn_are_refused() -> None:
    tokenizer, cells = make_tokenizer(), make_cells(10)
    with pytest.raises(ValueError, match="call fit_conditions"):
        tokenizer.sample_conditions(3, seed=0)
    with pytest.raises(ValueError, match="10 weeks hold only 10 different patterns of movement, too few for 11"):
        tokenizer.fit_conditions(cells, num_attributes=11)
    with pytest.raises(ValueError, match="method must be one of"):
        tokenizer.fit_conditions(cells, method="kmeans")
    with pytest.raises(ValueError, match="num_attributes=None chooses"):
        tokenizer.fit_conditions(cells, method="distinct_cells", num_attributes=None)
    with pytest.raises(ValueError, match="smoothing must be >= 0"):
        tokenizer.fit_conditions(cells, num_attributes=2, smoothing=-1)
    tokenizer.fit_conditions(cells, num_attributes=2)
    before = tokenizer.sample_conditions(20, seed=0)["attribute_ids"]
    with pytest.raises(ValueError, match="min_users=50 leaves no home"):
        tokenizer.fit_conditions(cells, num_attributes=1, min_users=50)
    assert tokenizer.num_attributes == 2  # nothing has changed
    assert np.array_equal(tokenizer.sample_conditions(20, seed=0)["attribute_ids"], before)
    with pytest.raises(ValueError, match="n must be at least 1"):
        tokenizer.sample_conditions(0, seed=0)
    with pytest.raises(ValueError, match="given together or not at all"):
        tokenizer.sample_conditions(1, seed=0, home_ids=[3])


def test_the_old_names_of_work_are_understood_with_a_warning() -> None:
    tokenizer, cells = make_tokenizer(), make_cells()
    home, work = tokenizer.home_and_work(cells)
    with pytest.warns(FutureWarning, match="commute_ids is now work_ids"):
        batch = tokenizer(cells, home_ids=home, commute_ids=work)
    assert batch["work_ids"].tolist() == work.tolist() and "commute_ids" not in batch
    with pytest.warns(FutureWarning, match="home_and_commute is now home_and_work"):
        assert tokenizer.home_and_commute(cells)[1].tolist() == work.tolist()
    tokenizer.fit_conditions(cells, method="distinct_cells", num_attributes=3)
    with pytest.warns(FutureWarning, match="commute_ids is now work_ids"):
        drawn = tokenizer.sample_conditions(len(home), seed=0, home_ids=home, commute_ids=work)
    assert drawn["work_ids"].tolist() == work.tolist()
    with pytest.warns(FutureWarning, match="min_count is now min_users"):
        tokenizer.fit_conditions(cells, method="distinct_cells", num_attributes=3, min_count=1)
    with pytest.raises(ValueError, match="two names of one argument"):
        tokenizer(cells, home_ids=home, work_ids=work, commute_ids=work)


def test_hours_of_work_in_files_of_earlier_releases_are_read(tmp_path: Path) -> None:
    make_tokenizer(work_hours=(9, 12), work_days=(0, 3)).save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    saved = json.loads(file.read_text())
    old = {name.replace("work_", "commute_"): value for name, value in saved.items()}
    assert old.keys() - saved.keys() == {"commute_hours", "commute_days"}
    file.write_text(json.dumps(old))
    loaded = MstarTokenizer.from_pretrained(tmp_path)
    assert (loaded.work_hours, loaded.work_days) == ((9, 12), (0, 3))
    loaded.save_pretrained(tmp_path)
    again = json.loads(file.read_text())
    assert again["work_hours"] == [9, 12] and "commute_hours" not in again
