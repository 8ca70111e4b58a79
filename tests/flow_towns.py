"""Small made-up areas with flows of a gravity law, for the tests of `hf_mobility.flows`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hf_mobility.flows import FlowTask
from hf_mobility.tokenization.grid import haversine_km

SIZES = (4, 7, 12, 20)


def frames(sizes: tuple[int, ...] = SIZES, *, slope: float = 1.5, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(regions, flows): a quarter of the residents commute, in proportion to shops / (distance + 1 km) ** slope."""
    rng = np.random.default_rng(seed)
    regions, flows = [], []
    for number, n in enumerate(sizes):
        name = f"area {number}"
        table = pd.DataFrame({"area": name, "region_id": [f"r{i}" for i in range(n)]})
        table["lat"], table["lon"] = 48 + 0.1 * rng.random(n), 11 + 0.1 * rng.random(n)
        table["total_population"] = rng.integers(500, 5000, n)
        table["median_age"] = rng.uniform(20, 60, n)
        table["poi_shop"] = rng.integers(1, 40, n)
        km = haversine_km(table.lat.to_numpy()[:, None], table.lon.to_numpy()[:, None], table.lat, table.lon)
        weight = table.poi_shop.to_numpy() / (km + 1) ** slope
        flow = np.round(table.total_population.to_numpy()[:, None] / 4 * weight / weight.sum(axis=1, keepdims=True))
        origin, destination = np.nonzero(flow)
        pairs = {"origin": table.region_id.to_numpy()[origin], "destination": table.region_id.to_numpy()[destination]}
        flows.append(pd.DataFrame({"area": name, **pairs, "flow": flow[origin, destination].astype(int)}))
        regions.append(table)
    return pd.concat(regions, ignore_index=True), pd.concat(flows, ignore_index=True)


def task(sizes: tuple[int, ...] = SIZES, *, seed: int = 0) -> FlowTask:
    return FlowTask.from_frames(*frames(sizes, seed=seed))
