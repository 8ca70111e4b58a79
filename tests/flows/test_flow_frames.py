"""Frames of regions and flows: what comes in, what is refused and how."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from flow_towns import frames

from hf_mobility import DataError
from hf_mobility.flows import FlowTask


def test_matrices_are_the_rows_of_the_frame() -> None:
    regions, flows = frames()
    before = regions.copy(), flows.copy()
    task = FlowTask.from_frames(regions, flows.sample(frac=1, random_state=0))
    assert [len(area) for area in task.areas] == [4, 7, 12, 20]
    for area in task.areas:
        own = flows[flows["area"] == area.name].set_index(["origin", "destination"])["flow"]
        expected = [[own.get((a, b), 0) for b in area.region_ids] for a in area.region_ids]
        np.testing.assert_array_equal(area.flows, expected)
        np.testing.assert_allclose(area.outflows, np.sum(expected, axis=1))
        assert area.columns == ("total_population", "median_age", "poi_shop")
    pd.testing.assert_frame_equal(regions, before[0])
    pd.testing.assert_frame_equal(flows, before[1])


def test_one_area_needs_no_column_of_areas(tmp_path) -> None:
    regions, flows = frames((5,))
    regions.drop(columns="area").to_parquet(tmp_path / "regions.parquet")
    task = FlowTask.from_frames(tmp_path / "regions.parquet", flows.drop(columns="area"))
    assert len(task.areas) == 1 and task.areas[0].flows.sum() == flows["flow"].sum()


def test_columns_can_be_chosen_and_those_that_lack_are_unknown() -> None:
    (area,) = FlowTask.from_frames(frames((5,))[0], columns=["poi_shop", "jobs"]).areas
    assert np.isnan(area.features[:, 1]).all() and not np.isnan(area.features[:, 0]).any()
    other = area.with_columns(["jobs", "poi_shop"])
    np.testing.assert_array_equal(other.features, area.features[:, ::-1])


def change(table: pd.DataFrame, row: int, column: str, value: object) -> pd.DataFrame:
    changed = table.astype({column: object})
    changed.loc[row, column] = value
    return changed


REFUSED = {
    "region twice": (lambda r, f: (change(r, 1, "region_id", "r0"), f), "'region_id': 1 of 5 .* named before"),
    "no coordinates": (lambda r, f: (r.drop(columns="lat"), f), "regions have no column lat"),
    "nothing known": (lambda r, f: (r[["area", "region_id", "lat", "lon"]], f), "add population at least"),
    "a gap": (lambda r, f: (change(r, 2, "median_age", np.nan), f), "'median_age': 1 of 5 values are missing"),
    "text": (lambda r, f: (change(r, 2, "median_age", "old"), f), "'median_age': 1 of 5 values are not numbers"),
    "unknown region": (
        lambda r, f: (r, change(f, 0, "origin", "rx")),
        "'origin': 1 of .* not a region of area 'area 0'",
    ),
    "unknown area": (lambda r, f: (r, change(f, 0, "area", "no")), "'area': 1 of .* not an area of the regions"),
    "negative": (lambda r, f: (r, change(f, 0, "flow", -1)), "'flow': 1 of .* missing or negative"),
    "pair twice": (lambda r, f: (r, pd.concat([f, f.head(1)])), "name a pair of regions twice"),
    "empty": (lambda r, f: (r, f.head(0)), "flows have no rows"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_sentence(fault: str) -> None:
    make, sentence = REFUSED[fault]
    with pytest.raises(DataError, match=sentence):
        FlowTask.from_frames(*make(*frames((5,))))


def test_outflows_are_found_by_area_and_region() -> None:
    regions, flows = frames((4, 6))
    task = FlowTask.from_frames(regions, flows)
    table = flows.groupby(["area", "origin"])["flow"].sum().reset_index()
    table = table.rename(columns={"origin": "region_id", "flow": "outflow"}).sample(frac=1, random_state=0)
    for area, found in zip(task.areas, task.outflows_of(table)):
        np.testing.assert_array_equal(found, area.outflows)
    with pytest.raises(DataError, match="without an outflow"):
        task.outflows_of(table.tail(9))
    with pytest.raises(DataError, match="named before"):
        task.outflows_of(pd.concat([table, table.head(1)]))


def test_areas_are_selected_by_name() -> None:
    task = FlowTask.from_frames(*frames())
    assert [area.name for area in task.select({"area 3", "area 1"}).areas] == ["area 1", "area 3"]
    with pytest.raises(KeyError, match="no area area 9"):
        task.select({"area 9"})
