"""Protocols of weeks and of trajectories: their numbers are those of the evaluators, and the future is hidden."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hf_mobility import (
    DataError,
    RawConfig,
    RawForTrajectoryPrediction,
    TrajectoryPredictionPipeline,
    simulate_city,
)
from hf_mobility.baselines import ResampledWeeks
from hf_mobility.benchmark import Protocol
from hf_mobility.benchmark.forecaster import PipelineForecaster, box_tokenizer
from hf_mobility.benchmark.next_location import city_of
from hf_mobility.benchmark.protocol import ProtocolSet
from hf_mobility.benchmark.trajectories import TrajectoryBench, linked_users
from hf_mobility.benchmark.weeks import WeekBench
from hf_mobility.data.simulation.points import simulated_points
from hf_mobility.data.weeks import WeekTable
from hf_mobility.evaluation import fidelity
from hf_mobility.tokenization.grid import SquareGrid, haversine_km
from hf_mobility.tokenization.tokenization_mstar import MstarTokenizer

TOWN = {"num_users": 40, "num_days": 14, "num_locations": 80, "radius_km": 4.0, "seed": 5}


@pytest.fixture(scope="module")
def weeks() -> WeekBench:
    known = Protocol.load("weeks-simulated")
    one = replace(known.sets[0], options=TOWN)
    small = {"cell_km": 2.0, "number": 15}
    return WeekBench(replace(known, sets=(one,), known=small, bootstrap=0), Path())


def test_scores_of_weeks_are_those_of_fidelity(weeks: WeekBench) -> None:
    case = weeks.cases[1]
    fitted = weeks.baselines()["ResampledWeeks"]()
    fitted.fit(case.train)
    made = ResampledWeeks().fit(case.train.cells).generate(case.task.conditions, seed=case.draw)
    wanted = fidelity(case.task.real, made, lat=case.train.lat, lon=case.train.lon, train=case.train.cells)
    found = {one.metric: one.value for one in weeks.scores(case, weeks.outcome(fitted, case))}
    assert found == pytest.approx({metric: wanted[metric] for metric in weeks.protocol.metrics}, abs=1e-6)
    assert found["copied_moving"] == 1


def test_conditions_are_of_training_weeks_and_users_are_on_one_side(weeks: WeekBench) -> None:
    table, (train, validation, test) = weeks._weeks
    sides = [set(table.user_id[rows].tolist()) for rows in (train, validation, test)]
    assert not sides[0] & sides[2] and not sides[1] & sides[2]
    first, second = (case.task.conditions for case in weeks.cases)
    assert len(first) == 15 and not np.array_equal(first.home_ids, second.home_ids)


def test_a_generator_of_another_form_is_refused(weeks: WeekBench) -> None:
    class Short:
        name = "Short"

        def generate(self, conditions: Any, *, seed: int) -> np.ndarray:
            return np.zeros((len(conditions), 24), np.int32)

    with pytest.raises(DataError, match="Short gives weeks of shape"):
        weeks.outcome(Short(), weeks.cases[0])


def test_the_homes_of_a_city_tell_what_a_generator_has_seen(weeks: WeekBench) -> None:
    table, (train, _, test) = weeks._weeks
    city = simulate_city(**TOWN)
    tokenizer = MstarTokenizer.from_visits(city.visits, timezone=city.timezone, cell_km=2.0)
    options = {"num_attributes": 2, "method": "distinct_cells"}
    tokenizer.fit_conditions(table.cells[train], **options)
    assert weeks.seen_by_tokenizer(tokenizer).test == "no"
    tokenizer.fit_conditions(table.cells, **options)
    assert weeks.seen_by_tokenizer(tokenizer).test == "yes"
    tokenizer.fit_conditions(table.cells[test], **options)
    assert weeks.seen_by_tokenizer(tokenizer) is None


@pytest.fixture(scope="module")
def positions(tmp_path_factory: pytest.TempPathFactory) -> TrajectoryBench:
    folder = tmp_path_factory.mktemp("points")
    points = simulated_points(simulate_city(16, num_days=7, num_locations=80, seed=0), seed=0)
    points.to_parquet(folder / "points.parquet")
    edges = [points["lat"].min(), points["lon"].min(), points["lat"].max(), points["lon"].max()]
    known = Protocol.load("geolife-horizons")
    one = replace(known.sets[0], files={"points.parquet": None})
    small = {"bounds": [float(edge) for edge in edges], "timezone": "Europe/Berlin", "days": 7, "steps": [1, 4]}
    small |= {"start_hours": [10, 18], "most": 40, "least_observed": 0.05}
    return TrajectoryBench(replace(known, sets=(one,), known=small, bootstrap=20), folder)


def test_errors_are_great_circle_distances_of_recorded_points(positions: TrajectoryBench) -> None:
    (case,) = positions.cases
    outcome = positions.outcome(positions.baselines()["CopyLast"](), case)
    by_hand = []
    for task in case.task:
        here, there = task.degrees(task.known[:, -1]), task.degrees(task.future[:, 1])
        by_hand.append(haversine_km(*here, *there)[task.recorded[:, 1]])
    scores = {(one.subset, one.metric): one for one in positions.scores(case, outcome)}
    found = scores["all, 60 minutes", "error_km"]
    assert found.value == pytest.approx(np.concatenate(by_hand).mean(), abs=1e-4)
    assert scores["all, 60 minutes", "median_km"].value == pytest.approx(np.median(np.concatenate(by_hand)), abs=1e-4)
    assert found.low <= found.value <= found.high and found.users <= found.n
    same = positions.differences(case, outcome, outcome)
    assert set(same) == {f"error_km, {subset}{minutes} minutes" for subset in ("", "moving, ") for minutes in (15, 60)}
    assert set(same.values()) == {(0, 0, 0)}


def test_the_future_is_hidden_from_the_model(positions: TrajectoryBench) -> None:
    class Reads:
        name = "Reads"

        def predict(self, task: Any) -> np.ndarray:
            self.shown = task.future
            return task.future

    model = Reads()
    positions.outcome(model, positions.cases[0])
    assert not model.shown.any()


def test_held_out_users_are_not_in_the_training(positions: TrajectoryBench) -> None:
    test, train = positions.parts()
    assert not set(test["user_id"]) & set(train["user_id"])
    assert set(np.concatenate([task.users for task in positions.cases[0].task])) <= set(test["user_id"])
    train = positions.cases[0].train
    assert train.points.shape[1:] == (672, 2)
    assert not set(np.concatenate([task.users for task in train.tasks])) & set(test["user_id"])


def test_predictions_start_from_records_at_the_hours_and_are_drawn(positions: TrajectoryBench) -> None:
    tasks = positions.cases[0].task
    assert sum(map(len, tasks)) <= 40
    for task in tasks:
        assert task.known.shape[1] % 96 in (40, 72), "the last known slot is the one before 10 and 18 h"
        last = [task.records.of(row)[0][-1] for row in range(len(task))]
        np.testing.assert_array_equal(last, task.records.origin + task.known.shape[1] - 1)


def test_all_baselines_of_positions_can_be_fitted_and_predict(positions: TrajectoryBench) -> None:
    (case,) = positions.cases
    for name in positions.protocol.baselines:
        model = positions.baselines()[name]()
        if hasattr(model, "fit"):
            model.fit(case.train)
        assert np.isfinite(positions.outcome(model, case).error_km).all()


def test_a_pipeline_reads_the_records_and_the_clock_of_the_task(positions: TrajectoryBench) -> None:
    """Its answer is that of the pipeline on the user's own points up to the start, in the protocol's zone."""
    (case,) = positions.cases
    task = case.task[0]
    tokenizer = case.train.tokenizer
    torch.manual_seed(0)
    config = RawConfig.from_preset("tiny", max_position_embeddings=672)
    model = RawForTrajectoryPrediction(config).eval()
    box = PipelineForecaster(
        TrajectoryPredictionPipeline(model, box_tokenizer(tokenizer.city.bounds, config)), name="tiny"
    )
    user, start = task.users[0], pd.Timestamp(900 * (task.records.of(0)[0][-1] + 1), unit="s")
    points, _ = positions.parts()
    before = points["time"] < start.tz_localize("Europe/Berlin").tz_convert("UTC")
    own = TrajectoryPredictionPipeline(model, tokenizer).predict(
        points[before & (points["user_id"] == user)], horizon=[0.25, 1.0], spread_samples=0
    )
    lat, lon = task.degrees(box.predict(task)[0])
    np.testing.assert_allclose(lat, own["lat"], atol=1e-5)
    np.testing.assert_allclose(lon, own["lon"], atol=1e-5)


def test_a_series_that_does_not_end_in_a_record_is_refused(positions: TrajectoryBench) -> None:
    task = positions.cases[0].task[0]
    earlier = replace(task.records, end=task.records.end - 1)
    pipe = SimpleNamespace(tokenizer=SimpleNamespace(slots_per_day=96))
    with pytest.raises(DataError, match="no record in their last known slot"):
        PipelineForecaster(pipe, name="any").predict(replace(task, past=earlier))  # type: ignore[arg-type]


def test_users_with_one_and_the_same_point_are_linked() -> None:
    rows = {"user_id": [1, 2, 2, 3, 4], "time": [0, 0, 5, 5, 0], "lat": [1.0, 1, 2, 2, 9], "lon": [0.0] * 5}
    group = linked_users(pd.DataFrame(rows))
    assert group[1] == group[2] == group[3] != group[4]


def test_weeks_of_cells_become_visits() -> None:
    grid = SquareGrid(37.0, -122.0, 37.1, -121.9, 2, 2)
    start = np.array(["2024-01-01", "2024-01-01"], "datetime64[D]")
    cells = np.array([[0, 0, 1, -1], [2, -1, 2, 3]], np.int32)
    table = WeekTable(cells, np.array([7, 8]), start, pd.DataFrame(index=range(2)), grid=grid, timezone="UTC")
    visits, city = city_of(ProtocolSet("cabs", "weeks"), table)
    assert len(city.location_ids) == 4
    shown = list(zip(visits["user_id"], visits["time"].dt.hour, city.index_of(visits["location_id"])))
    assert shown == [(7, 0, 0), (7, 2, 1), (8, 0, 2), (8, 3, 3)]
    visits, _ = city_of(ProtocolSet("cabs", "weeks", about={"users": 1, "seed": 0}), table)
    assert visits["user_id"].nunique() == 1
