"""Sets of places: they hold the next one as often as they promise, whatever the model; and the city's temperature."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_mobility import DataError, NextLocationPipeline, SamoeTokenizer, make_task
from hf_mobility.pipelines.sets import least_probability, true_place_probabilities


@pytest.fixture(scope="module")
def world(toy: SimpleNamespace) -> SimpleNamespace:
    visits, city = toy.city(30, num_days=14)
    model = toy.model()
    pipe = NextLocationPipeline(model, SamoeTokenizer.from_city(city, model.config))
    users = visits["user_id"].unique()
    others = visits[visits["user_id"].isin(users[::2])]
    own = visits[visits["user_id"].isin(users[1::2])]
    return SimpleNamespace(visits=visits, city=city, model=model, pipe=pipe, others=others, own=own)


@given(number=st.integers(1, 300), coverage=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_the_wanted_share_of_the_other_visits_and_one_more_reach_the_least_probability(
    number: int, coverage: float, seed: int
) -> None:
    found = np.random.default_rng(seed).random(number)
    if (number + 1) * coverage > number:
        with pytest.raises(DataError, match=r"needs at least .* visits of other users"):
            least_probability(found, coverage)
        return
    least = least_probability(found, coverage)
    assert (found >= least).sum() >= (number + 1) * coverage - 1e-9
    assert (found > least).sum() < (number + 1) * coverage


def test_sets_cover_what_they_promise_over_many_draws() -> None:
    """People of their own habits, a model that knows nothing of them, splits by person: the mean coverage is right."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        habit = rng.beta(2, 5, size=(60, 1))
        found = rng.beta(1 + 8 * habit, 4, size=(60, 20))  # what the true places of 60 people were given
        least = least_probability(found[:30].ravel(), 0.9)
        covered.append((found[30:] >= least).mean())
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)


def test_a_set_is_all_places_that_reach_the_least_probability_of_the_other_users(world: SimpleNamespace) -> None:
    table = world.pipe.predict_set(world.own, calibration=world.others, coverage=0.7)
    task = make_task(world.others, world.city)
    found = true_place_probabilities(world.pipe.probabilities(task), task.location)
    assert len(found) == task.target.sum()
    least = table.attrs["least_probability"]
    assert (found >= least).mean() >= 0.7 > (found > least).mean() - 1 / len(found)
    everything = world.pipe.predict(world.own, top_k=len(world.city))
    wanted = everything[(everything["probability"] >= least) | (everything["rank"] == 1)]
    assert table[["user_id", "rank", "location_id"]].equals(
        wanted[["user_id", "rank", "location_id"]].reset_index(drop=True)
    )
    smaller = world.pipe.predict_set(world.own, calibration=world.others, coverage=0.3)
    assert len(smaller) < len(table)
    assert list(table["user_id"].unique()) == list(world.own["user_id"].unique())


def test_users_are_predicted_or_calibrated_with(world: SimpleNamespace) -> None:
    with pytest.raises(DataError, match="30 users are in visits and in calibration"):
        world.pipe.predict_set(world.visits, calibration=world.visits)
    with pytest.raises(DataError, match="coverage must lie between 0 and 1"):
        world.pipe.predict_set(world.own, calibration=world.others, coverage=1)
    with pytest.raises(DataError, match="needs at least 999 visits of other users"):
        world.pipe.predict_set(world.own, calibration=world.others, coverage=0.999)


def test_probabilities_are_those_of_the_citys_temperature(world: SimpleNamespace, tmp_path: Path) -> None:
    plain = world.pipe.predict(world.own, top_k=len(world.city)).set_index(["user_id", "location_id"])
    tokenizer = SamoeTokenizer.from_city(world.city, world.model.config, temperature=1.7)
    NextLocationPipeline(world.model, tokenizer).save_pretrained(tmp_path)
    pipe: Any = NextLocationPipeline.from_pretrained(tmp_path)
    assert pipe.tokenizer.temperature == 1.7
    warm = pipe.predict(world.own, top_k=len(world.city)).set_index(["user_id", "location_id"])
    powers = plain["probability"] ** (1 / 1.7)
    expected = powers / powers.groupby(level=0).transform("sum")
    np.testing.assert_allclose(warm["probability"], expected.loc[warm.index], rtol=1e-4)
    task = make_task(world.own, world.city)
    for (rows, one), (same, other) in zip(world.pipe.probabilities(task), pipe.probabilities(task), strict=True):
        assert (rows == same).all()
        powers = one ** (1 / 1.7)
        np.testing.assert_allclose(other, powers / powers.sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-7)
    assert pipe.for_city(world.city).tokenizer.temperature == 1.0  # it is of one city
    with pytest.raises(ValueError, match="temperature must be a number above 0"):
        SamoeTokenizer.from_city(world.city, temperature=0)
