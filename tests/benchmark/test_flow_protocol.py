"""The protocol of commuting flows: its numbers are those of `evaluate_flows`, and flows of the test are hidden."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import flow_towns
import numpy as np
import pandas as pd
import pytest

from hf_mobility import DataError
from hf_mobility.benchmark import Protocol, benchmark
from hf_mobility.benchmark.flow_areas import part_of
from hf_mobility.benchmark.flows import FlowBench
from hf_mobility.flows import BoostedTrees, FlowNetworkModel, FlowTraining, GravityModel, evaluate_flows

FILES = ("regions.parquet", "flows.parquet")
RIVALS = ("radiation", "gravity, power, production-constrained")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty small towns, in files of the form of the real ones."""
    folder = tmp_path_factory.mktemp("areas")
    regions, flows = flow_towns.frames((4, 6, 9) * 10)
    regions = regions.rename(columns={"region_id": "region"})
    flows = flows.rename(columns={"flow": "commuters"})
    for table, name in zip((regions, flows), FILES):
        table.astype({"area": "category"}).to_parquet(folder / name)
    return folder


@pytest.fixture(scope="module")
def known() -> Protocol:
    protocol = Protocol.load("commuting-od")
    sets = [replace(one, files=dict.fromkeys(FILES)) for one in protocol.sets]
    return replace(protocol, sets=tuple(sets), baselines=RIVALS, reference=RIVALS[1], bootstrap=50)


@pytest.fixture(scope="module")
def bench(known: Protocol, folder: Path) -> FlowBench:
    return FlowBench(known, folder)


def test_areas_are_on_one_side_which_their_name_decides(bench: FlowBench) -> None:
    test, train = ({area.name for area in bench._areas(role).areas} for role in ("test", "train"))
    assert test and train and not test & train and len(test | train) == 30
    assert {part_of(name) for name in test} <= {0, 1}
    assert [part_of(name) for name in ("06073", "36061", "48113")] == [3, 3, 8]


def test_scores_are_those_of_evaluate_flows(bench: FlowBench) -> None:
    for case, given in zip(bench.cases, (False, True), strict=True):
        made = bench.baselines()[RIVALS[1]]()
        made.fit(case.train)
        model = GravityModel("power", constrained=True).fit(case.train.task)
        wanted = evaluate_flows([model], case.task, outflows_given=given).rename(columns={"r": "pcc"})
        scores = {(one.subset, one.metric): one for one in bench.scores(case, bench.outcome(made, case))}
        for metric in ("cpc", "pcc", "rmse"):
            found = scores["all", metric]
            assert found.value == pytest.approx(wanted[metric].mean(), abs=1e-6)
            assert found.low <= found.value <= found.high and found.n == len(wanted)
        small = wanted[wanted["regions"] < 10]
        assert scores["under 10 regions", "cpc"].value == pytest.approx(small["cpc"].mean(), abs=1e-6)


def test_flows_are_hidden_and_outflows_are_told_in_one_case_only(bench: FlowBench) -> None:
    class Asks:
        name = "Asks"

        def __init__(self) -> None:
            self.asked: list[Any] = []

        def predict(self, area: Any, outflows: np.ndarray | None) -> np.ndarray:
            assert area.flows is None
            self.asked.append(outflows)
            return np.ones((len(area), len(area)))

    first, second = Asks(), Asks()
    outcomes = [bench.outcome(model, case) for model, case in zip((first, second), bench.cases, strict=True)]
    assert all(one is None for one in first.asked)
    for area, told in zip(bench.cases[1].task.areas, second.asked, strict=True):
        np.testing.assert_allclose(told, area.outflows)
    assert (outcomes[0].metrics["cpc"] == outcomes[1].metrics["cpc"]).all()
    assert bench.differences(bench.cases[0], outcomes[0], outcomes[1])["cpc"] == (0, 0, 0)


@pytest.mark.parametrize("flows", [np.zeros((2, 2)), -1.0, np.nan])
def test_flows_of_another_form_are_refused(bench: FlowBench, flows: Any) -> None:
    class Wrong:
        name = "Wrong"

        def predict(self, area: Any, outflows: np.ndarray | None) -> np.ndarray:
            return flows if isinstance(flows, np.ndarray) else np.full((len(area), len(area)), flows)

    with pytest.raises(DataError, match="Wrong predicts shape"):
        bench.outcome(Wrong(), bench.cases[0])


def test_boosted_trees_are_fitted_for_what_is_told(bench: FlowBench) -> None:
    pytest.importorskip("lightgbm")
    for case in bench.cases:
        model = bench.baselines()["LightGBM"]()
        model.fit(case.train)
        assert isinstance(model.made, BoostedTrees) and model.made.outflows_given == case.train.outflows_given


def test_a_saved_network_is_ranked_by_its_folder(
    known: Protocol, folder: Path, bench: FlowBench, tmp_path: Path
) -> None:
    model = FlowNetworkModel(seeds=(0,), training=FlowTraining(epochs=1), hidden_size=8).fit(bench.cases[0].train.task)
    model.save_pretrained(tmp_path / "network")
    (tmp_path / "network" / "sources.txt").write_text("us_areas\n")
    result = benchmark(known, tmp_path / "network", data=folder)[-1]
    assert result.kind == "checkpoint" and result.reference == RIVALS[1]
    assert result.has_seen["test"] == "declared no" and result.has_seen["train"] == "yes"
    wanted = evaluate_flows([model], bench.cases[1].task, outflows_given=True)["cpc"].mean()
    assert result.score("outflows given", "cpc").value == pytest.approx(wanted, abs=1e-5)


def test_a_region_that_crosses_the_date_line_is_read_in_degrees(known: Protocol, folder: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(folder / FILES[0])
    table["lon"] += 180.0
    table.to_parquet(tmp_path / FILES[0])
    (tmp_path / FILES[1]).write_bytes((folder / FILES[1]).read_bytes())
    areas = FlowBench(known, tmp_path).cases[0].task.areas
    assert all((np.abs(area.lon) <= 180).all() for area in areas)
