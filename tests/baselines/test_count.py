"""Frequency and Markov counts against counts made visit by visit."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.baselines.count import UserFrequency, UserMarkov
from hf_mobility.data.tasks import NextLocationTask
from hf_mobility.evaluation import evaluate


def task_of(users: list[list[int]], first_target: int, places: int) -> NextLocationTask:
    location = np.concatenate([np.array(u, dtype=np.int64) for u in users])
    user = np.repeat(np.arange(len(users)), [len(u) for u in users])
    position = np.concatenate([np.arange(len(u)) for u in users])
    ids = np.arange(places).astype(str).astype(object)
    index = pd.Index(ids)
    visits = pd.DataFrame({"user_id": user, "location_id": location.astype(str)})
    city = SimpleNamespace(location_ids=ids, index_of=lambda x: index.get_indexer(pd.Index(np.asarray(x, object))))
    return NextLocationTask(city, visits, location, user, position >= first_target)


def predictions(predictor, task) -> dict[int, np.ndarray]:
    return {int(row): p for rows, ps in predictor.probabilities(task) for row, p in zip(rows, ps, strict=True)}


users = st.lists(st.lists(st.integers(-1, 4), min_size=4, max_size=12), min_size=1, max_size=4)


@given(users)
@settings(max_examples=50, deadline=None)
def test_frequency_equals_a_count_of_the_past(histories: list[list[int]]) -> None:
    task = task_of(histories, 2, 5)
    found = predictions(UserFrequency(), task)
    assert sorted(found) == task.rows.tolist()
    for row in task.rows:
        start = task.user_starts[task.user[row]]
        past = Counter(place for place in task.location[start:row].tolist() if place >= 0)
        expected = np.array([past[k] + 1 / 5 for k in range(5)]) / (sum(past.values()) + 1)
        np.testing.assert_allclose(found[row], expected, rtol=1e-5)


@given(users)
@settings(max_examples=50, deadline=None)
def test_markov_equals_a_count_of_the_successors_smoothed_by_frequency(histories: list[list[int]]) -> None:
    task = task_of(histories, 2, 5)
    found, frequency = predictions(UserMarkov(), task), predictions(UserFrequency(), task)
    for row in task.rows:
        past = task.location[task.user_starts[task.user[row]] : row].tolist()
        successors = Counter(b for a, b in pairwise(past) if a == past[-1] and a >= 0 and b >= 0)
        counts = np.array([successors[k] for k in range(5)])
        expected = (counts + frequency[row]) / (counts.sum() + 1)
        np.testing.assert_allclose(found[row], expected, rtol=1e-5)


def test_markov_knows_an_alternation_that_frequency_does_not() -> None:
    task = task_of([[0, 1] * 8 + [0]], 10, 3)
    assert evaluate(UserMarkov(), task).correct.all()
    assert not evaluate(UserFrequency(), task).correct.all()


def test_popularity_orders_places_the_user_has_not_seen_and_breaks_ties_only() -> None:
    task = task_of([[0, 0, 1, 2, 0]], 4, 5)
    counts = pd.DataFrame({"user_id": 9, "location_id": ["4"] * 50 + ["2"] * 10 + ["elsewhere"]})
    p = predictions(UserFrequency(counts_from=counts), task)[4]
    assert np.argsort(-p, kind="stable").tolist()[:4] == [0, 2, 1, 4]
    plain = predictions(UserFrequency(), task)[4]
    assert plain[1] == plain[2] and plain[3] == plain[4]


@pytest.mark.parametrize("predictor", [UserFrequency(), UserMarkov()])
def test_a_user_never_seen_at_a_listed_place_gets_the_uniform_distribution(predictor) -> None:
    p = predictions(predictor, task_of([[-1, -1, 2]], 2, 4))[2]
    np.testing.assert_allclose(p, 0.25)
