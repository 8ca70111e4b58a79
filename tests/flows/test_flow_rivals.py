"""Gravity, radiation and LightGBM against loops and known laws."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from flow_towns import frames, task

from hf_mobility import DataError
from hf_mobility.flows import BoostedTrees, FlowTask, GravityModel, RadiationModel, evaluate_flows
from hf_mobility.flows.pairs import distances
from hf_mobility.flows.prediction import scaled


def test_radiation_is_its_formula() -> None:
    (area,) = task((8,)).areas
    outflows = np.arange(1.0, 9.0)
    model = RadiationModel().fit(task())
    population, km = area.features[:, 0] + 1, distances(area, np.arange(8))
    for i, row in enumerate(model.predict(area, outflows)):
        share = []
        for j in range(8):
            m, n = population[i], population[j]
            s = 0 if i == j else sum(population[k] for k in range(8) if k not in (i, j) and km[i, k] < km[i, j])
            share.append(m * n / ((m + s) * (m + n + s)))
        np.testing.assert_allclose(row, outflows[i] * np.array(share) / sum(share), rtol=1e-4)


def test_constrained_gravity_finds_the_law_that_made_the_flows() -> None:
    regions, _ = frames((15, 20, 25))
    known = GravityModel(constrained=True).fit(task())
    known.weights = np.array([0.0, 1.2, -1.7])
    outflows = regions[["area", "region_id"]].assign(outflow=1e6)
    flows = known.predict_flows(regions, outflows)
    fitted = GravityModel(constrained=True).fit(FlowTask.from_frames(regions, flows))
    np.testing.assert_allclose(fitted.weights, known.weights, atol=0.01)


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("deterrence", ["power", "exponential"])
def test_gravity_knows_its_own_law_and_keeps_given_outflows(deterrence: str, constrained: bool) -> None:
    model = GravityModel(deterrence, constrained=constrained).fit(task())
    test = task(seed=1)
    table = evaluate_flows([model], test, outflows_given=True)
    assert table["cpc"].mean() > 0.7
    for area in test.areas:
        np.testing.assert_allclose(model.predict(area, area.outflows).sum(axis=1), area.outflows, rtol=1e-4)


def test_models_refuse_what_does_not_fit() -> None:
    model = RadiationModel().fit(task())
    (area,) = task((5,)).areas
    with pytest.raises(DataError, match="5 regions, its outflows the shape"):
        model.predict(area, np.ones(4))
    with pytest.raises(DataError, match="1 of 5 outflows"):
        model.predict(area, np.array([1, 2, 3, 4, -1]))
    with pytest.raises(DataError, match="flows of area 'area 0' are not known"):
        RadiationModel().fit(FlowTask.from_frames(frames()[0]))
    with pytest.raises(ValueError, match="deterrence is 'power' or 'exponential'"):
        GravityModel("linear")


def test_small_flows_can_be_dropped_and_rows_still_add_up() -> None:
    model = RadiationModel().fit(task())
    (area,) = task((20,)).areas
    model.least_flow = 10.0
    assert (
        set(np.sign(model.predict(area).ravel())) == {0, 1} and model.predict(area)[model.predict(area) > 0].min() >= 10
    )
    np.testing.assert_allclose(model.predict(area, area.outflows).sum(axis=1), area.outflows, rtol=1e-5)
    kept = np.array([[0.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    flows = np.array([[1.0, 3.0], [2.0, 3.0], [0.0, 0.0]])
    assert scaled(kept, flows, np.array([8.0, 6.0, 2.0])).tolist() == [[2, 6], [0, 6], [1, 1]]


def test_boosted_trees_learn_and_are_the_same_again() -> None:
    pytest.importorskip("lightgbm")
    train, test = task((6, 9, 14, 20, 25)), task(seed=1)
    model = BoostedTrees(rounds=40, leaves=8).fit(train)
    plain = RadiationModel().fit(train)
    means = evaluate_flows([model, plain], test).groupby("model")["cpc"].mean()
    assert means[model.name] > means["radiation"]
    again = BoostedTrees(rounds=40, leaves=8).fit(train)
    np.testing.assert_array_equal(again.predict(test.areas[2]), model.predict(test.areas[2]))


def test_without_lightgbm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_mobility\[flows\]'"):
        BoostedTrees().fit(task())
