"""The protocol of regions: its numbers are those of `probe_regions`, and labels are not shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hf_mobility import DataError, RawConfig, RawModel, simulate_city
from hf_mobility.benchmark import Protocol
from hf_mobility.benchmark.predictors import RegionTask
from hf_mobility.benchmark.regions import RawRegions, RegionBench
from hf_mobility.data.simulation.points import simulated_points
from hf_mobility.evaluation import probe_regions


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> RegionBench:
    """A simulated town of which half the points are said to be pick-ups."""
    folder = tmp_path_factory.mktemp("cabs")
    city = simulate_city(30, num_days=3, num_locations=200, radius_km=6.0, seed=0)
    points = simulated_points(city, interval_seconds=900, seed=0)
    edges = [float(points[name].min()) for name in ("lat", "lon")] + [
        float(points[name].max()) for name in ("lat", "lon")
    ]
    known = Protocol.load("regions-cabs")
    small = known.known | {"bounds": edges, "rows": 8, "columns": 8, "timezone": city.timezone, "min_users": 2}
    rng = np.random.default_rng(0)
    counts = np.arange(64) % 7 * 3
    labels = pd.DataFrame({"cell": np.arange(64), "pickups": rng.poisson(counts), "dropoffs": rng.poisson(5, 64)})
    points.assign(occupied=True).to_parquet(folder / "points.parquet")
    labels.to_parquet(folder / "labels.parquet")
    one = replace(known.sets[0], files={"points.parquet": None, "labels.parquet": None})
    split = {"block_km": 3.0, "folds": 3, "seeds": 2}
    return RegionBench(replace(known, sets=(one,), known=small, split=split, bootstrap=20), folder)


class Fixed:
    """Features that are given."""

    name = "Fixed"

    def __init__(self, features: np.ndarray) -> None:
        self.features = features

    def embed(self, task: RegionTask) -> np.ndarray:
        return self.features


def test_scores_are_those_of_the_probe(bench: RegionBench) -> None:
    (case,) = bench.cases
    counts = bench.baselines()["total points"]()
    features = counts.embed(case.task)
    lat, lon = case.task.grid.centre(case.task.cells)
    outcome = bench.outcome(counts, case)
    scores = {(one.subset, one.metric): one for one in bench.scores(case, outcome)}
    for name, label in bench._labels.items():
        options = {"readers": ["linear"], "seeds": [0, 1], "block_km": 3.0, "folds": 3}
        row = probe_regions({"it": features}, label, lat, lon, **options).iloc[0]
        for metric in ("pcc", "r2"):
            assert scores[f"all, {name}", metric].value == pytest.approx(row[metric], abs=1e-6)
    found = scores["all, pickups", "pcc"]
    assert found.n == len(case.task.cells) and found.low <= found.high
    same = bench.differences(case, outcome, outcome)
    assert set(same) == {"pcc, pickups", "pcc, dropoffs"} and set(same.values()) == {(0, 0, 0)}


def test_features_that_are_the_label_are_read_nearly_perfectly(bench: RegionBench) -> None:
    (case,) = bench.cases
    known = Fixed(bench._labels["pickups"][:, None])
    scores = {(one.subset, one.metric): one.value for one in bench.scores(case, bench.outcome(known, case))}
    assert scores["all, pickups", "pcc"] > 0.999 > scores["all, dropoffs", "pcc"]


def test_the_task_shows_points_and_no_label(bench: RegionBench) -> None:
    task = bench.cases[0].task
    assert list(task.points.columns) == ["user_id", "time", "lat", "lon"]
    cell = task.grid.cell(task.points["lat"], task.points["lon"])
    users = task.points.groupby(cell)["user_id"].nunique()
    assert sorted(users.index[(users >= 2) & (users.index >= 0)]) == task.cells.tolist()


def test_states_of_an_encoder_are_pooled_over_slots(bench: RegionBench) -> None:
    (case,) = bench.cases
    model = RawModel(RawConfig.from_preset("tiny", max_position_embeddings=672))
    features = RawRegions(model, name="tiny").embed(case.task)
    assert features.shape == (len(case.task.cells), 16) and np.isfinite(features).all() and features.std() > 0


@pytest.mark.parametrize("rows", [3, None])
def test_features_of_another_form_are_refused(bench: RegionBench, rows: int | None) -> None:
    (case,) = bench.cases
    features = np.zeros((rows, 2)) if rows else np.full((len(case.task.cells), 2), np.nan)
    with pytest.raises(DataError, match="Fixed gives features of shape"):
        bench.outcome(Fixed(features), case)
