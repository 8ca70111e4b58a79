"""The shipped network of flows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from flow_towns import frames

from hf_mobility.flows import FlowNetworkModel

FOLDER = Path(__file__).resolve().parents[2] / "checkpoints" / "flows-small"


def test_the_shipped_network_predicts_an_area_it_never_saw() -> None:
    model = FlowNetworkModel.from_pretrained(FOLDER)
    regions, _ = frames((4, 15))
    table = model.predict_flows(regions)
    assert len(model.networks) == 2 and "total_population" in model.columns
    assert len(table) == 4 * 4 + 15 * 15 and np.isfinite(table["flow"]).all()
    rate = table["flow"].sum() / regions["total_population"].sum()
    assert 0.05 < rate < 0.6  # commuters per resident
    outflows = regions[["area", "region_id"]].assign(outflow=100.0)
    near = model.predict_flows(regions, outflows, least_flow=10.0)
    assert len(near) < len(table) and near["flow"].min() > 10


def test_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_000_000
