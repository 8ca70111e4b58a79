"""The evaluator's side: every target once, from its past alone, by the documented rule of contexts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from hf_mobility import City, DataError, NextLocationPipeline, SamoeTokenizer, evaluate, make_task
from hf_mobility.data.tasks import NextLocationTask


def answers(pipe: NextLocationPipeline, task: NextLocationTask) -> np.ndarray:
    """(targets, N) in the order of `task.rows`; fails where a target is missing or comes twice."""
    found = np.full((len(task.visits), len(task.city.location_ids)), np.nan)
    for rows, p in pipe.probabilities(task):
        assert p.dtype == np.float32
        assert len(rows) == len(p)
        assert np.isnan(found[rows]).all()
        found[rows] = p
    assert not np.isnan(found[task.rows]).any()
    assert np.isnan(found[~task.target]).all()
    return found[task.rows]


def target_by_target(world: SimpleNamespace, pipe: NextLocationPipeline, task: NextLocationTask) -> np.ndarray:
    """The documented rule in a loop: windows of `context` listed visits move in steps of a quarter, so a target sees
    from 3/4 of `context` visits to all of it."""
    stride, found = max(pipe.context // 4, 1), []
    for row in task.rows:
        own = np.flatnonzero((task.user == task.user[row]) & (task.location >= 0))
        before = int((own < row).sum()) - 1
        start = max(0, (before // stride + 1) * stride - pipe.context)
        assert before + 1 - start > pipe.context * 3 / 4 or start == 0
        found.append(world.by_hand(pipe, task.visits.iloc[own], slice(start, before + 1)).numpy())
    return np.stack(found)


@pytest.mark.parametrize("context", [3, 8, 128])
def test_every_target_is_predicted_once_and_from_its_past_alone(world: SimpleNamespace, context: int) -> None:
    task = make_task(world.visits, world.city, test_fraction=0.5, min_visits=5)
    pipe = NextLocationPipeline(world.model, world.pipe.tokenizer, context=context, tokens_per_batch=100)
    found = answers(pipe, task)
    np.testing.assert_allclose(found, target_by_target(world, pipe, task), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_visits_at_unlisted_places_are_no_context_and_targets_there_are_scored(world: SimpleNamespace) -> None:
    position = world.visits.groupby("user_id").cumcount()
    places = world.visits["location_id"].where(position % 4 != 2, "atlantis")
    task = make_task(world.visits.assign(location_id=places), world.city, test_fraction=0.5, min_visits=5)
    assert (task.location[task.rows] < 0).any()
    np.testing.assert_allclose(answers(world.pipe, task), target_by_target(world, world.pipe, task), atol=1e-6)


def test_the_last_target_is_what_predict_says(world: SimpleNamespace) -> None:
    """The evaluator and the user get the same numbers."""
    task = make_task(world.visits, world.city, min_visits=5)
    final = np.flatnonzero(np.diff(task.user, append=task.users))
    known = task.visits.drop(index=final)
    found = world.matrix(world.pipe, world.pipe.predict(known, top_k=60))
    expected = dict(zip(task.rows, answers(world.pipe, task)))
    np.testing.assert_allclose(found, [expected[row] for row in final], atol=1e-6)


def test_batches_do_not_matter_to_the_evaluator(world: SimpleNamespace) -> None:
    task = make_task(world.visits, world.city, test_fraction=0.5, min_visits=5)
    small = NextLocationPipeline(world.model, world.pipe.tokenizer, context=8, tokens_per_batch=1)
    large = NextLocationPipeline(world.model, world.pipe.tokenizer, context=8, tokens_per_batch=100_000)
    np.testing.assert_allclose(answers(small, task), answers(large, task), atol=1e-6)


def test_the_evaluator_reads_as_many_windows_at_one_time_as_the_pipeline_says(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(world.visits, world.city, test_fraction=0.5, min_visits=5)
    pipe = NextLocationPipeline(world.model, world.pipe.tokenizer, context=8, batch_size=3)
    sizes: list[int] = []
    forward = pipe._forward
    monkeypatch.setattr(
        pipe, "_forward", lambda batch, *a, **k: sizes.append(len(batch["input_ids"])) or forward(batch, *a, **k)
    )
    np.testing.assert_allclose(answers(pipe, task), target_by_target(world, pipe, task), atol=1e-6)
    assert max(sizes) == 3


def test_a_target_in_the_same_second_as_its_past_is_not_part_of_that_past(world: SimpleNamespace) -> None:
    """Visits of one second keep the order of the task, also where the city lists its places in another order."""
    own = world.of(world.visits, 0).reset_index(drop=True)
    moment = own["time"].iloc[-1].floor("s")
    own.loc[len(own) - 2, "time"] = moment + pd.Timedelta("100ms")
    own.loc[len(own) - 1, "time"] = moment + pd.Timedelta("600ms")
    reverse = {name: getattr(world.city, name)[::-1] for name in ("location_ids", "lat", "lon", "poi", "popularity")}
    city = City(name="reversed", timezone=world.city.timezone, poi_names=world.city.poi_names, **reverse)
    for places in (city, world.city):
        pipe, ordered = world.pipe.for_city(places), sorted(places.location_ids[[3, 40]], key=str)
        for pair in (ordered, ordered[::-1]):
            own.loc[len(own) - 2 :, "location_id"] = pair
            task = make_task(own, places, test_fraction=0.05, min_visits=2)
            assert task.rows.tolist() == [len(own) - 1]
            expected = world.by_hand(pipe, own.iloc[:-1])
            np.testing.assert_allclose(answers(pipe, task)[0], expected, atol=1e-6)


def test_people_may_stand_in_any_order(world: SimpleNamespace) -> None:
    backwards = pd.concat([world.of(world.visits, position) for position in range(11, -1, -1)], ignore_index=True)
    task = make_task(backwards, world.city, min_visits=5)
    np.testing.assert_allclose(answers(world.pipe, task), target_by_target(world, world.pipe, task), atol=1e-6)


def test_a_task_in_another_city_is_refused(world: SimpleNamespace, toy: SimpleNamespace) -> None:
    visits, city = toy.city(6, seed=2)
    with pytest.raises(DataError, match=r"not those of the pipeline's city 'city 1'; use for_city\(task\.city\)"):
        next(world.pipe.probabilities(make_task(visits, city, min_visits=2)))


def test_people_without_a_listed_past_are_named_as_the_fault(world: SimpleNamespace) -> None:
    first = world.visits["user_id"] == world.visits["user_id"].iloc[0]
    position = world.visits.groupby("user_id").cumcount()
    for lost, message in ((first, "some people have no visit"), (first & (position < 14), "no earlier visit")):
        visits = world.visits.assign(location_id=world.visits["location_id"].where(~lost, "atlantis"))
        task = make_task(visits, world.city, test_fraction=0.5, min_visits=5)
        with pytest.raises(DataError, match=message):
            next(world.pipe.probabilities(task))


def test_an_end_of_trajectory_is_never_a_place(toy: SimpleNamespace, world: SimpleNamespace) -> None:
    model = toy.model(variant="released", num_poi_features=60, num_popularity_levels=10)
    assert model.config.use_eos
    pipe = NextLocationPipeline(model, SamoeTokenizer.from_city(world.city, model.config))
    inputs = pipe.tokenizer(world.visits, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert model(**inputs).logits[..., 1].isfinite().all(), "the model itself does give the end a probability"
    table = pipe.predict(world.visits, top_k=60)
    assert (table.groupby("user_id")["location_id"].nunique() == 60).all()
    np.testing.assert_allclose(table.groupby("user_id")["probability"].sum(), 1, atol=1e-5)
    assert len(evaluate(pipe, make_task(world.visits, world.city, min_visits=5)).rows) > 0
