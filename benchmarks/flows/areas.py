"""The commuting areas of the United States as a `FlowTask`, and which of them are held out.

Public US statistics (LODES, ACS) and OpenStreetMap counts, put together by the CommutingODGen data set. The files are read
from the folder in HF_MOBILITY_DATA (default ../shared/data) and never copied.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.open_data import data_folder
from hf_mobility.benchmark.flow_areas import PARTS, part_of, read_areas
from hf_mobility.flows import FlowTask

LARGEST = 400  # regions of an area
TEST, VALIDATION = (0, 1), (2,)  # parts of the protocol commuting-od


class Split(NamedTuple):
    """Tasks of areas that do not overlap. `fitting` is training and validation together."""

    training: FlowTask
    validation: FlowTask
    test: FlowTask
    fitting: FlowTask


def commuting_areas() -> FlowTask:
    """All areas of up to 400 regions.

    Raises:
        FileNotFoundError: the folder does not hold the files.
    """
    paths = [data_folder() / f"commuting_{name}_us.parquet" for name in ("regions", "flows")]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; set HF_MOBILITY_DATA to the folder of the open files.")
    return read_areas(*paths, largest=LARGEST, parts=range(PARTS))


def split(task: FlowTask) -> Split:
    """A fifth of the areas for the test and a tenth for validation, by the hash of their names."""
    part = {area.name: part_of(area.name) for area in task.areas}

    def of(*parts: int) -> FlowTask:
        return task.select({name for name, number in part.items() if number in parts})

    fitting = tuple(number for number in range(PARTS) if number not in TEST)
    training = tuple(number for number in fitting if number not in VALIDATION)
    return Split(of(*training), of(*VALIDATION), of(*TEST), of(*fitting))
