"""The network over pairs of regions: padding, blocks, order of regions, files and training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flow_towns import frames, task
from safetensors.torch import load_file, save_file

from hf_mobility import DataError
from hf_mobility.flows import FlowNetworkModel, FlowTask, FlowTraining, RadiationModel, common_part, evaluate_flows
from hf_mobility.flows import model as model_module
from hf_mobility.flows import pairs as pairs_module
from hf_mobility.flows.inputs import AreaInputs, batch_of
from hf_mobility.flows.network import FlowNetworkConfig
from hf_mobility.flows.training import flow_losses

SMALL = {"hidden_size": 16, "pair_size": 8, "num_layers": 2, "num_heads": 2, "dropout": 0.0}
LAW = (4, 7, 12, 20) * 3  # regions of the areas it learns from


@pytest.fixture(scope="module")
def fitted() -> FlowNetworkModel:
    training = FlowTraining(epochs=30, batch_pairs=400, learning_rate=1e-2)
    return FlowNetworkModel(seeds=(0, 1), training=training, **SMALL).fit(task(LAW))


def test_it_learns_a_law_better_than_a_formula_knows_it(fitted: FlowNetworkModel) -> None:
    test = task(seed=1)
    for given in (False, True):
        table = evaluate_flows([fitted, RadiationModel().fit(task(LAW))], test, outflows_given=given)
        means = table.groupby("model")["cpc"].mean()
        assert means["network"] > means["radiation"] + 0.05


def test_given_outflows_are_the_sums_of_the_rows(fitted: FlowNetworkModel) -> None:
    regions, flows = frames(seed=2)
    outflows = flows.groupby(["area", "origin"])["flow"].sum().reset_index()
    outflows = outflows.rename(columns={"origin": "region_id", "flow": "outflow"})
    found = fitted.predict_flows(regions, outflows).groupby(["area", "origin"])["flow"].sum()
    np.testing.assert_allclose(found.to_numpy(), outflows["outflow"], rtol=1e-4)


def test_the_order_of_regions_and_columns_does_not_matter(fitted: FlowNetworkModel) -> None:
    regions, _ = frames((9, 13), seed=3)
    keys = ["area", "origin", "destination"]
    found = fitted.predict_flows(regions).sort_values(keys)["flow"]
    mixed = regions.sample(frac=1, random_state=0)[regions.columns[::-1]]
    again = fitted.predict_flows(mixed).sort_values(keys)["flow"]
    np.testing.assert_allclose(again, found, rtol=1e-3)


def test_a_column_that_a_frame_lacks_is_unknown(fitted: FlowNetworkModel) -> None:
    regions, _ = frames((9,), seed=3)
    usual = regions.assign(median_age=np.expm1(fitted.normalization.region_mean[1]))
    without = fitted.predict_flows(regions.drop(columns="median_age"))
    np.testing.assert_allclose(without["flow"], fitted.predict_flows(usual)["flow"], rtol=1e-3)


def test_blocks_of_origins_change_nothing(fitted: FlowNetworkModel, monkeypatch: pytest.MonkeyPatch) -> None:
    area = task((23,)).areas[0]
    whole = fitted.predict(area), fitted.predict(area, area.outflows)
    monkeypatch.setattr(model_module, "NETWORK_BLOCK", 70)
    monkeypatch.setattr(pairs_module.blocks, "__defaults__", (50,))
    assert len(list(fitted.predict_blocks(area))) == 8
    for before, after in zip(whole, (fitted.predict(area), fitted.predict(area, area.outflows))):
        np.testing.assert_allclose(after, before, rtol=1e-4)


def test_padding_and_training_batches_give_what_is_predicted(fitted: FlowNetworkModel) -> None:
    areas = task(seed=4).areas
    inputs = [AreaInputs.of(area, fitted.normalization) for area in areas]
    known = np.array([True, False, True, False])
    batch = batch_of(inputs, [np.arange(len(area)) for area in areas], known)
    network = fitted.networks[0]
    with torch.no_grad():
        log_shares, log_outflows = network(batch)
        _, common = flow_losses(log_shares, log_outflows, batch)
    one = fitted.members()[0]
    for i, area in enumerate(areas):
        n = len(area)
        flows = one.predict(area, area.outflows if known[i] else None)
        shares = flows / flows.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(log_shares[i, :n, :n].exp(), shares, rtol=2e-3, atol=1e-6)
        assert common[i].item() == pytest.approx(common_part(area.observed, flows), abs=1e-4)


def test_the_loss_has_the_gradient_of_the_common_part() -> None:
    """d CPC / d outflow against a difference, where no pair is at a kink."""
    area = AreaInputs.of(
        task((6,)).areas[0], FlowNetworkModel(training=FlowTraining(epochs=0)).fit(task()).normalization
    )
    batch = batch_of([area], [np.arange(6)], np.array([False]))
    shares = torch.log_softmax(torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(0)).double(), dim=-1)
    log_outflows = torch.full((1, 6), 5.0, dtype=torch.float64, requires_grad=True)
    batch = batch._replace(flows=batch.flows.double())
    flow_losses(shares, log_outflows, batch)[1].sum().backward()
    step = torch.zeros_like(log_outflows)
    step[0, 2] = 1e-5
    up, down = (flow_losses(shares, log_outflows.detach() + sign * step, batch)[1].item() for sign in (1, -1))
    assert log_outflows.grad[0, 2].item() == pytest.approx((up - down) / 2e-5, rel=1e-4)


def test_saved_and_loaded_it_predicts_the_same(fitted: FlowNetworkModel, tmp_path: Path) -> None:
    regions, _ = frames((9,), seed=3)
    fitted.save_pretrained(tmp_path / "flows")
    assert sorted(path.name for path in (tmp_path / "flows").iterdir()) == ["flows_config.json", "model.safetensors"]
    again = FlowNetworkModel.from_pretrained(tmp_path / "flows")
    assert again.predict_flows(regions).equals(fitted.predict_flows(regions))


def test_strange_folders_are_refused(fitted: FlowNetworkModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no model of flows"):
        FlowNetworkModel.from_pretrained(tmp_path)
    fitted.save_pretrained(tmp_path)
    config = tmp_path / "flows_config.json"
    saved = json.loads(config.read_text())
    config.write_text(json.dumps(saved | {"format": 9}))
    with pytest.raises(DataError, match="format 9; this version reads"):
        FlowNetworkModel.from_pretrained(tmp_path)
    config.write_text(json.dumps(saved))
    weights = load_file(tmp_path / "model.safetensors")
    weights["networks.0.pair.weight"] = torch.zeros(3, 3)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="does not fit"):
        FlowNetworkModel.from_pretrained(tmp_path)


def test_models_of_several_trainings_come_together(fitted: FlowNetworkModel) -> None:
    training = FlowTraining(epochs=1)
    one, other = (FlowNetworkModel(seeds=(seed,), training=training, **SMALL).fit(task()) for seed in (0, 1))
    area = task((9,)).areas[0]
    both = FlowNetworkModel.together([one, other]).predict(area)
    np.testing.assert_allclose(both, (one.predict(area) + other.predict(area)) / 2, rtol=1e-5)
    with pytest.raises(ValueError, match="fitted to other areas"):
        FlowNetworkModel.together([one, FlowNetworkModel(training=training, **SMALL).fit(task(seed=5))])


def test_training_repeats_itself_and_leaves_the_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    models = [FlowNetworkModel(training=FlowTraining(epochs=2), **SMALL).fit(task()) for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b in zip(models[0].networks[0].parameters(), models[1].networks[0].parameters()):
        assert torch.equal(a, b)


def test_what_cannot_be_is_refused(fitted: FlowNetworkModel) -> None:
    with pytest.raises(ValueError, match="num_heads must divide"):
        FlowNetworkConfig(3, 4, hidden_size=10, num_heads=4)
    with pytest.raises(ValueError, match="call fit or from_pretrained"):
        FlowNetworkModel().predict(task((4,)).areas[0])
    with pytest.raises(DataError, match="not known"):
        FlowNetworkModel().fit(FlowTask.from_frames(frames()[0]))
    with pytest.raises(DataError, match="no column 'total_population'"):
        fitted.predict_flows(frames((4,))[0].drop(columns="total_population"))


def test_one_region_alone_keeps_its_commuters(fitted: FlowNetworkModel) -> None:
    (area,) = task((1,)).areas
    assert fitted.predict(replace(area), np.array([7.0])).tolist() == [[7.0]]
