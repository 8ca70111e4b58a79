"""The mixture: each component against its formula written out visit by visit, EM, and the JSON of the weights."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.baselines.mix import ContextMix, likelihoods
from hf_mobility.baselines.mix_weights import BUCKETS, COMPONENTS, MixWeights, _em
from hf_mobility.data.tasks import NextLocationTask, make_task
from hf_mobility.evaluation import evaluate

PLACES = 6
LAT, LON = 51.0 + np.array([0, 0.002, 0.01, 0.03, 0.05, 0.2]), -114.0 + np.array([0, 0.001, -0.02, 0.04, 0.0, 0.3])


def city() -> SimpleNamespace:
    ids = np.array([f"p{i}" for i in range(PLACES)], dtype=object)
    index = pd.Index(ids)
    return SimpleNamespace(
        name="town",
        timezone="America/Edmonton",
        location_ids=ids,
        lat=LAT,
        lon=LON,
        index_of=lambda x: index.get_indexer(pd.Index(np.asarray(x, object))),
    )


def visits_of(seed: int, users: int = 3, most: int = 30, unlisted: bool = True) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frames = []
    for user in range(users):
        n = int(rng.integers(10, most))
        place = rng.integers(0, PLACES + unlisted, size=n)
        frames.append(
            pd.DataFrame(
                {
                    "user_id": user,
                    "time": pd.Timestamp("2024-03-01", tz="UTC")
                    + pd.to_timedelta(np.cumsum(rng.integers(5, 3000, n)), "min"),
                    "location_id": [f"p{k}" for k in place],
                    "lat": np.r_[LAT, 52.0][place],
                    "lon": np.r_[LON, -110.0][place],
                }
            )
        )
    return pd.concat(frames, ignore_index=True).astype({"time": "datetime64[us, UTC]"})


def written_out(task: NextLocationTask, row: int, counts_from: pd.DataFrame | None) -> dict[str, np.ndarray | None]:
    """The ten components of one target by plain loops; None where there is nothing to count."""
    start = int(task.user_starts[task.user[row]])
    place = task.location[start:row].tolist()
    local = task.visits["time"].dt.tz_convert("America/Edmonton").iloc[start:row].tolist()
    last = len(place) - 1
    parts = {name: np.zeros(PLACES) for name in COMPONENTS}
    for j, k in enumerate(place):
        if k >= 0:
            parts["frequency"][k] += 1
            parts["recency_10"][k] += math.exp(-(last - j) / 10)
            parts["recency_40"][k] += math.exp(-(last - j) / 40)
        if j == last or place[j + 1] < 0:
            continue
        if k == place[last] and k >= 0:
            parts["own_markov"][place[j + 1]] += math.exp(-(last - j) / 60)
        apart = abs(local[j].hour * 60 + local[j].minute - local[last].hour * 60 - local[last].minute)
        weight = math.exp(-0.5 * (min(apart, 1440 - apart) / 90) ** 2)
        if (local[j].weekday() >= 5) != (local[last].weekday() >= 5):
            weight *= 0.23
        parts["hour_successors"][place[j + 1]] += weight
    if counts_from is not None:
        index, user = task.city.index_of(counts_from["location_id"]), counts_from["user_id"].tolist()
        for j, k in enumerate(index):
            if k >= 0:
                parts["popularity"][k] += 1
            if j + 1 < len(index) and user[j] == user[j + 1] and index[j + 1] >= 0 and k == place[last] >= 0:
                parts["global_markov"][index[j + 1]] += 1
    if place[last] >= 0:
        north = np.radians(LAT - LAT[place[last]])
        east = np.radians(LON - LON[place[last]]) * math.cos(math.radians(LAT[place[last]]))
        km = 6371.0088 * np.hypot(north, east)
        for name, scale in (("distance_0.3km", 0.3), ("distance_3km", 3.0)):
            parts[name] = np.exp(-km / scale) * (parts["popularity"] + 20)
    parts["uniform"] = np.ones(PLACES)
    return {name: p / p.sum() if p.sum() else None for name, p in parts.items()}


@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=12, deadline=None)
def test_the_mixture_equals_the_formulas_written_out(seed: int, with_counts: bool) -> None:
    task = make_task(visits_of(seed), city())
    counts = task.train_visits() if with_counts else None
    rng = np.random.default_rng(seed)
    weights = MixWeights(rng.dirichlet(np.ones(10), size=BUCKETS))
    for rows, p in ContextMix(weights, counts).probabilities(task):
        for row, found in zip(rows, p, strict=True):
            parts = written_out(task, int(row), counts)
            context = int(row - task.user_starts[task.user[row]])
            length = sum(context >= bound for bound in (15, 40, 100))
            bucket = length * 4 + 2 * (parts["own_markov"] is not None) + (parts["global_markov"] is not None)
            there = {n: w for n, w in zip(COMPONENTS, weights.table[bucket], strict=True) if parts[n] is not None}
            expected = sum(w * parts[n] for n, w in there.items()) / sum(there.values())
            np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)


def test_em_finds_the_weights_that_made_the_sample() -> None:
    rng = np.random.default_rng(0)
    components = rng.dirichlet(np.full(8, 0.3), size=3)
    truth = np.array([0.6, 0.3, 0.1])
    sample = rng.choice(8, p=truth @ components, size=40_000)
    found = _em(components[:, sample].T, np.full(3, 1 / 3), np.zeros(3))
    np.testing.assert_allclose(found, truth, atol=0.03)


def test_em_leaves_missing_components_their_share() -> None:
    likelihood = np.column_stack([np.full(100, 0.5), np.full(100, 0.1), np.full(100, np.nan)])
    found = _em(likelihood, np.full(3, 1 / 3), np.zeros(3))
    assert found[0] > 0.6 and found[1] < 1e-3 and found[2] == pytest.approx(1 / 3)


def test_fitted_weights_are_distributions_and_repeatable() -> None:
    tasks = [make_task(visits_of(seed, users=8), city()) for seed in (1, 2)]
    weights = ContextMix.fit(tasks, seed=3)
    assert weights.table.shape == (16, 10) and weights.sources == ("town", "town")
    np.testing.assert_allclose(weights.table.sum(axis=1), 1)
    assert np.array_equal(weights.table, ContextMix.fit(tasks, seed=3).table)
    with pytest.raises(ValueError, match="nothing to fit"):
        ContextMix.fit([])


def test_fitting_beats_equal_weights_on_users_with_habits() -> None:
    def habits(seed: int) -> pd.DataFrame:
        visits = visits_of(seed, users=12, most=60, unlisted=False)
        step = visits.groupby("user_id").cumcount()
        return visits.assign(location_id=np.where(step % 4 < 3, "p" + (step % 3).astype(str), visits["location_id"]))

    weights = ContextMix.fit([make_task(habits(seed), city()) for seed in range(4)])
    task = make_task(habits(99), city())
    fitted = evaluate(ContextMix(weights, task.train_visits()), task)
    equal = evaluate(ContextMix(MixWeights(np.full((16, 10), 0.1)), task.train_visits()), task)
    assert fitted.metric("nll").mean() < equal.metric("nll").mean()


def test_weights_survive_the_file(tmp_path) -> None:
    weights = ContextMix.fit([make_task(visits_of(5), city())])
    path = tmp_path / "weights.json"
    weights.save(path)
    back = MixWeights.load(path)
    np.testing.assert_allclose(back.table, weights.table, atol=1e-6)
    assert back.sources == weights.sources
    path.write_text(path.read_text().replace("own_markov", "other"))
    with pytest.raises(ValueError, match="components"):
        MixWeights.load(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="version 1"):
        MixWeights.load(path)


def test_weights_that_are_no_distributions_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        MixWeights(np.ones((2, 10)))
    with pytest.raises(ValueError, match="sum to 1"):
        MixWeights(np.ones((16, 10)))


@pytest.mark.parametrize(("asked", "given_for"), [(0, 0), (0.01, 0), (0.05, 0.05), (0.5, 0.05), (1, 1)])
def test_shipped_weights_are_those_of_the_largest_share_that_is_not_above(asked: float, given_for: float) -> None:
    weights = MixWeights.shipped(asked)
    assert weights.user_fraction == given_for and len(weights.sources) == 12
    assert not set(weights.sources) & {"calgary", "chicago", "washington_dc", "gowalla_austin"}
    np.testing.assert_allclose(weights.table.sum(axis=1), 1, atol=1e-4)
    with pytest.raises(ValueError, match=r"user_fraction must lie in 0\.\.1"):
        MixWeights.shipped(1.5)


def test_the_log_loss_of_the_fit_is_that_of_the_predictor() -> None:
    task = make_task(visits_of(7, users=6), city())
    counts = task.train_visits()
    rows = task.rows[task.location[task.rows] >= 0]
    weights = MixWeights(np.random.default_rng(0).dirichlet(np.ones(10), size=BUCKETS))
    result = evaluate(ContextMix(weights, counts), task)
    expected = dict(zip(result.rows, result.metric("nll"), strict=True))
    found = weights.log_loss(*likelihoods(task, rows, counts))
    np.testing.assert_allclose(found, [expected[row] for row in rows], rtol=2e-4)


def cycling(users: int, visits: int) -> pd.DataFrame:
    """Users who go round the places in orders of their own: the own Markov row says everything, counts nothing."""
    rng = np.random.default_rng(0)
    place = np.concatenate([np.resize(rng.permutation(PLACES), visits) for _ in range(users)])
    time = pd.Timestamp("2024-03-01", tz="UTC") + pd.to_timedelta(np.arange(visits) * 7, "h")
    frame = {"user_id": np.repeat(np.arange(users), visits), "time": np.tile(time, users)}
    frame |= {"location_id": [f"p{k}" for k in place], "lat": LAT[place], "lon": LON[place]}
    return pd.DataFrame(frame).astype({"time": "datetime64[us, UTC]"})


def test_a_citys_own_weights_are_taken_where_they_are_clearly_better() -> None:
    task = make_task(cycling(40, 160), city())
    chosen = ContextMix.for_task(task)
    assert chosen.weights.sources == ("town",)
    known = task.train_visits()
    inner = make_task(known, city(), min_visits=2)
    again = MixWeights.fit(*likelihoods(inner, inner.rows, inner.train_visits()))
    np.testing.assert_allclose(chosen.weights.table, again.table)
    shipped = evaluate(ContextMix(MixWeights.shipped(), known), task).metric("nll").mean()
    assert evaluate(chosen, task).metric("nll").mean() < shipped - 0.1


def test_a_small_city_gets_the_shipped_weights() -> None:
    chosen = ContextMix.for_task(make_task(cycling(10, 60), city()), name="mix")
    assert np.array_equal(chosen.weights.table, MixWeights.shipped().table) and chosen.name == "mix"


def test_own_weights_do_not_read_what_is_to_be_predicted() -> None:
    visits = cycling(40, 160)
    task = make_task(visits, city())
    other = visits.assign(location_id=np.where(task.target, "p0", visits["location_id"]))
    first, second = (ContextMix.for_task(make_task(one, city())).weights for one in (visits, other))
    assert np.array_equal(first.table, second.table)
