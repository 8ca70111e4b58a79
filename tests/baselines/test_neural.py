"""The neural baselines at tiny size: they learn, they repeat, and they see neither the future nor the targets."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from hf_mobility.baselines.neural import GRUBaseline, TransformerBaseline, _windows  # noqa: E402
from hf_mobility.data.tasks import NextLocationTask, make_task  # noqa: E402
from hf_mobility.evaluation import evaluate  # noqa: E402

PLACES = 6


def task_of(seed: int = 0, users: int = 12, visits: int = 40) -> NextLocationTask:
    """Users who walk round the first five places, each starting elsewhere; one visit in ten is at an unlisted place."""
    rng = np.random.default_rng(seed)
    place = (np.arange(visits) + rng.integers(0, 5, size=(users, 1))) % 5
    place = np.where(rng.random(place.shape) < 0.1, 9, place)
    frame = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), visits),
            "time": pd.Timestamp("2024-01-01", tz="UTC")
            + pd.to_timedelta(np.tile(np.arange(visits) * 5, users), unit="h"),
            "location_id": [f"p{k}" for k in place.ravel()],
            "lat": 0.0,
            "lon": 0.0,
        }
    ).astype({"time": "datetime64[us, UTC]"})
    ids = np.array([f"p{k}" for k in range(PLACES)], dtype=object)
    index = pd.Index(ids)
    city = SimpleNamespace(
        location_ids=ids, timezone="Asia/Tokyo", index_of=lambda x: index.get_indexer(pd.Index(np.asarray(x, object)))
    )
    return make_task(frame, city)


def small(kind, **options):
    return kind(context=16, width=16, dropout=0.1, **options)


def probabilities(model, task: NextLocationTask) -> np.ndarray:
    out = np.zeros((len(task.visits), PLACES), dtype=np.float32)
    for rows, p in model.probabilities(task):
        out[rows] = p
    return out


@pytest.mark.parametrize("kind", [GRUBaseline, TransformerBaseline])
def test_a_round_walk_is_learned(kind) -> None:
    task = task_of()
    model = small(kind).fit(task, epochs=25)
    result = evaluate(model, task)
    assert 1 <= model.best_epoch <= 25
    # Chance is 0.2. After one of the unlisted visits the model has to look further back.
    assert result.correct[result.listed].mean() > 0.6


@pytest.mark.parametrize("kind", [GRUBaseline, TransformerBaseline])
def test_one_seed_gives_one_result_and_leaves_the_global_generator_alone(kind) -> None:
    task = task_of()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    once = probabilities(small(kind).fit(task, seed=1, epochs=2), task)
    assert torch.equal(torch.rand(1), expected)
    again = probabilities(small(kind).fit(task, seed=1, epochs=2), task)
    other = probabilities(small(kind).fit(task, seed=2, epochs=2), task)
    assert np.array_equal(once, again) and not np.array_equal(once, other)


@pytest.mark.parametrize("kind", [GRUBaseline, TransformerBaseline])
def test_training_never_looks_at_targets_and_scoring_never_ahead(kind) -> None:
    task = task_of()
    location = task.location.copy()
    location[task.target] = np.random.default_rng(0).integers(-1, PLACES, size=int(task.target.sum()))
    shuffled = NextLocationTask(task.city, task.visits, location, task.user, task.target)
    model, other = small(kind).fit(task, epochs=2), small(kind).fit(shuffled, epochs=2)
    for a, b in zip(model.network.state_dict().values(), other.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)

    # Changing the place of the last target of each user changes no prediction at all.
    location = task.location.copy()
    location[task.user_starts[1:] - 1] = 0
    changed = NextLocationTask(task.city, task.visits, location, task.user, task.target)
    np.testing.assert_array_equal(probabilities(model, task), probabilities(model, changed))


def test_a_long_history_is_cut_into_windows_that_cover_each_step_once() -> None:
    starts, length = np.array([0, 50, 51, 60]), np.array([40, 1, 9])
    for offset in range(16):
        windows = _windows(starts, length, 16, offset)
        rows = np.concatenate([np.arange(a, b) for a, b in windows])
        assert sorted(rows) == [*range(0, 39), *range(51, 59)]
        assert (windows[:, 1] - windows[:, 0]).max() <= 16


def test_each_target_sees_between_three_quarters_and_all_of_the_context() -> None:
    """With a context of 16, visits more than 16 back have no influence, and those 12 back do."""
    task = task_of(visits=60)
    model = small(GRUBaseline, user_embedding=False).fit(task, epochs=1, refit=False)
    before = probabilities(model, task)
    last = task.user_starts[1:] - 1
    for back, same in ((17, True), (12, False)):
        location = task.location.copy()
        location[last - back] = (location[last - back] + 1) % 5
        after = probabilities(model, NextLocationTask(task.city, task.visits, location, task.user, task.target))
        assert np.array_equal(before[last], after[last]) == same


def test_a_model_without_a_fit_or_for_another_city_is_refused() -> None:
    task = task_of()
    with pytest.raises(ValueError, match="not fitted"):
        next(small(GRUBaseline).probabilities(task))
    model = small(GRUBaseline).fit(task, epochs=1, refit=False)
    with pytest.raises(ValueError, match="other users"):
        next(model.probabilities(task_of(users=5)))
    with pytest.raises(ValueError, match="knows 6 places"):
        city = SimpleNamespace(location_ids=np.arange(3), timezone="UTC", index_of=task.city.index_of)
        next(model.probabilities(NextLocationTask(city, task.visits, task.location, task.user, task.target)))
