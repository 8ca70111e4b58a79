"""The commuting areas of the United States, and the part of ten that each is in."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from ..flows.task import FlowTask

PARTS = 10  # an area's part is sha256(its name) modulo 10


def read_areas(regions: str | Path, flows: str | Path, *, largest: int, parts: Collection[int]) -> FlowTask:
    """US commuting areas (LODES, ACS and OpenStreetMap counts, as CommutingODGen puts them together).

    Args:
        regions, flows: Parquet files with `area`, `region`, columns of the region, and `area`, `origin`, `destination`,
            `commuters`.
        largest: regions of an area at most.
        parts: of ten, of the areas that are wanted: sha256 of the area's name modulo 10.
    """
    table, flow = pd.read_parquet(regions), pd.read_parquet(flows)
    size = table.groupby("area", observed=True)["region"].transform("size")
    wanted = [area for area in table["area"].unique() if part_of(str(area)) in parts]
    table = table[(size <= largest) & table["area"].isin(wanted)]
    table = table.assign(lon=(table["lon"] + 180) % 360 - 180)  # two centroids lie beyond 180 degrees
    flow = flow[flow["area"].isin(table["area"].unique())]
    return FlowTask.from_frames(
        table.rename(columns={"region": "region_id"}), flow.rename(columns={"commuters": "flow"})
    )


def part_of(area: str) -> int:
    """0..9, which of the ten parts an area is in."""
    return int(hashlib.sha256(area.encode()).hexdigest(), 16) % PARTS
