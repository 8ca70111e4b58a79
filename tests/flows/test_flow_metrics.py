"""Common part of commuters, means by size and paired differences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from flow_towns import task

from hf_mobility import DataError
from hf_mobility.flows import RadiationModel, common_part, evaluate_flows, paired_flows, summarize_flows


def test_the_common_part_by_hand() -> None:
    assert common_part(np.array([3.0, 1.0, 0.0]), np.array([1.0, 1.0, 4.0])) == pytest.approx(2 * 2 / 10)
    assert common_part(np.ones(4), np.ones(4)) == 1 and common_part(np.zeros(2), np.zeros(2)) == 1
    assert common_part(np.ones(4), np.zeros(4)) == 0


def test_errors_are_those_of_each_area() -> None:
    areas = task(seed=1)
    model = RadiationModel().fit(task())
    table = evaluate_flows([model], areas)
    for row, area in zip(table.itertuples(), areas.areas):
        predicted, observed = model.predict(area).ravel(), area.observed.ravel()
        assert (row.area, row.regions) == (area.name, len(area))
        assert row.cpc == pytest.approx(2 * np.minimum(predicted, observed).sum() / (predicted.sum() + observed.sum()))
        assert row.r == pytest.approx(np.corrcoef(predicted, observed)[0, 1], abs=1e-5)
        assert row.rmse == pytest.approx(np.sqrt(np.mean((predicted - observed) ** 2)), rel=1e-5)


def made_up(cpc: dict[str, list[float]], regions: list[int]) -> pd.DataFrame:
    rows = [
        {"model": model, "area": f"a{i}", "regions": n, "outflows given": False, "cpc": value, "r": 0.0, "rmse": 1.0}
        for model, values in cpc.items()
        for i, (n, value) in enumerate(zip(regions, values))
    ]
    return pd.DataFrame(rows)


def test_means_are_over_areas_of_a_size() -> None:
    table = summarize_flows(made_up({"a": [0.2, 0.4, 0.9, 0.1]}, [5, 9, 50, 500])).set_index("size")
    assert table.loc["under 10", "cpc"] == pytest.approx(0.3) and table.loc["30-99", "cpc"] == 0.9
    assert table.loc["all", "areas"] == 3 and "100-400" not in table.index  # more than 400 regions are left out


def test_paired_differences_are_sharper_than_their_parts() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(60)
    table = made_up({"a": list(base + 0.05 + rng.normal(0, 0.01, 60)), "b": list(base)}, [8] * 60)
    found = paired_flows(table, "a", "b").set_index("size").loc["all"]
    assert found["difference"] == pytest.approx(0.05, abs=0.005) and found["wins"] > 0.99
    assert 0.045 < found["low"] < found["difference"] < found["high"] < 0.055
    with pytest.raises(DataError, match="no model c"):
        paired_flows(table, "a", "c")
    with pytest.raises(DataError, match="same areas"):
        paired_flows(table.iloc[1:], "a", "b")
