"""The commuting areas of the United States as a `FlowTask`, and which of them are held out.

Public US statistics (LODES, ACS) and OpenStreetMap counts, put together by the CommutingODGen data set. The files are read
from the folder in HF_MOBILITY_DATA (default ../shared/data) and never copied.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import pandas as pd

from benchmarks.open_data import data_folder
from hf_mobility.flows import FlowTask

LARGEST = 400  # regions of an area
PARTS = 10  # an area's part is sha256(its name) modulo 10
TEST, VALIDATION = (0, 1), (2,)


class Split(NamedTuple):
    """Tasks of areas that do not overlap. `fitting` is training and validation together."""

    training: FlowTask
    validation: FlowTask
    test: FlowTask
    fitting: FlowTask


def part_of(area: str) -> int:
    return int(hashlib.sha256(area.encode()).hexdigest(), 16) % PARTS


def commuting_areas() -> FlowTask:
    """All areas of up to 400 regions.

    Raises:
        FileNotFoundError: the folder does not hold the files.
    """
    paths = [data_folder() / f"commuting_{name}_us.parquet" for name in ("regions", "flows")]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; set HF_MOBILITY_DATA to the folder of the open files.")
    regions, flows = (pd.read_parquet(path) for path in paths)
    regions["lon"] = (regions["lon"] + 180) % 360 - 180  # two centroids lie beyond 180 degrees
    small = regions.groupby("area", observed=True)["region"].transform("size") <= LARGEST
    regions = regions[small].rename(columns={"region": "region_id"})
    flows = flows[flows["area"].isin(regions["area"].unique())].rename(columns={"commuters": "flow"})
    return FlowTask.from_frames(regions, flows)


def split(task: FlowTask) -> Split:
    """A fifth of the areas for the test and a tenth for validation, by the hash of their names."""
    part = {area.name: part_of(area.name) for area in task.areas}

    def of(*parts: int) -> FlowTask:
        return task.select({name for name, number in part.items() if number in parts})

    fitting = tuple(number for number in range(PARTS) if number not in TEST)
    training = tuple(number for number in fitting if number not in VALIDATION)
    return Split(of(*training), of(*VALIDATION), of(*TEST), of(*fitting))
