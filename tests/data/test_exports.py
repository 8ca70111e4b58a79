"""Origin-destination tables equal a count by hand; MATSim files are parsed and put together again."""

from __future__ import annotations

import gzip
import xml.etree.ElementTree as ElementTree
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.data import DataError, haversine_km
from hf_mobility.data.io.exports import matsim_plans, od_matrix, week_matrix

LAT, LON = 48.0 + 0.01 * np.arange(12), 11.0 + 0.02 * (np.arange(12) % 4)


def make_cells(n: int = 40, hours: int = 48, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 12, (n, hours // 4)).repeat(4, axis=1)


def to_frame(cells: np.ndarray, names: Any = None) -> pd.DataFrame:
    row, slot = np.nonzero(cells >= 0)
    cell = cells[row, slot]
    ids = row if names is None else np.asarray(names)[row]
    return pd.DataFrame({"trajectory_id": ids, "slot": slot, "cell": cell, "lat": LAT[cell], "lon": LON[cell]})


# Origin and destination


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.booleans(), st.booleans())
def test_trips_are_counted_as_by_hand(seed: int, threshold: int, by_hour: bool, stays: bool) -> None:
    cells = np.random.default_rng(seed).integers(-1, 4, (15, 6))
    counts = Counter(
        (hour, a, b)[0 if by_hour else 1 :]
        for week in cells.tolist()
        for hour, (a, b) in enumerate(pairwise(week))
        if a >= 0 and b >= 0 and (stays or a != b)
    )
    table = od_matrix(cells, by_hour=by_hour, threshold=threshold, stays=stays)
    wanted = [[*key, count] for key, count in sorted(counts.items()) if count >= threshold]
    assert table.to_numpy().tolist() == wanted
    assert list(table) == ["hour", "origin", "destination", "count"][0 if by_hour else 1 :]
    small = [count for count in counts.values() if count < threshold]
    assert table.attrs["suppressed"] == {"threshold": threshold, "rows": len(small), "trips": sum(small)}


def test_small_flows_are_suppressed_unless_asked_for() -> None:
    cells = np.repeat([[0, 1], [1, 0]], [10, 9], axis=0)
    assert od_matrix(cells).to_numpy().tolist() == [[0, 0, 1, 10]]
    assert od_matrix(cells).attrs["suppressed"] == {"threshold": 10, "rows": 1, "trips": 9}
    assert len(od_matrix(cells, threshold=1)) == 2


def test_columns_are_int64_whatever_integers_come() -> None:
    table = od_matrix(np.repeat(np.array([[0, 1]], np.uint64), 10, axis=0))
    assert set(table.dtypes) == {np.dtype("int64")}


def test_a_long_frame_in_any_order_gives_the_same_table() -> None:
    cells = make_cells()
    frame = to_frame(cells).sample(frac=1, random_state=0)
    before = frame.copy()
    pd.testing.assert_frame_equal(od_matrix(frame, threshold=2), od_matrix(cells, threshold=2))
    pd.testing.assert_frame_equal(frame, before)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_a_long_frame_becomes_its_matrix_again(seed: int) -> None:
    cells = np.random.default_rng(seed).integers(-1, 5, (6, 7))
    cells[:, -1] = 3
    ids, found = week_matrix(to_frame(cells).sample(frac=1, random_state=1))
    assert ids.tolist() == list(range(6)) and np.array_equal(found, cells)


@pytest.mark.parametrize(
    ("weeks", "message"),
    [
        (np.zeros((3, 1), int), r"integers \(N, L\) with L >= 2"),
        (np.zeros((3, 4)), "not float64"),
        (pd.DataFrame({"slot": [1]}), r"lacks the column\(s\) trajectory_id, cell"),
        (to_frame(make_cells()).iloc[:0], "has no rows"),
        (to_frame(make_cells()).assign(cell=-1), "Column 'cell' must hold integers from 0"),
        (to_frame(make_cells()).assign(slot=0.5), "Column 'slot' must hold integers from 0"),
        (pd.concat([to_frame(make_cells())] * 2), "1920 of 3840 rows repeat an hour"),
        (to_frame(make_cells()).assign(slot=pd.array([None] * 1920, "Int64")), "Column 'slot' must hold integers"),
        (to_frame(make_cells(10), [None, *"abcdefghi"]), "Column 'trajectory_id' is empty in 48 rows"),
    ],
)
def test_weeks_that_cannot_be_counted_are_refused(weeks: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        od_matrix(weeks)
    with pytest.raises(DataError, match="threshold must be at least 1"):
        od_matrix(make_cells(), threshold=0)


# MATSim


def read_plans(path: Path) -> dict[str, list[dict[str, str]]]:
    """{person: activities}, after a check of the order that MATSim asks for."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    assert b'<!DOCTYPE population SYSTEM "http://www.matsim.org/files/dtd/population_v6.dtd">' in raw
    people = {}
    for person in ElementTree.fromstring(raw).iter("person"):
        (plan,) = person.findall("plan")
        assert plan.get("selected") == "yes"
        steps = list(plan)
        assert [step.tag for step in steps] == (["activity", "leg"] * len(steps))[: len(steps)] and len(steps) % 2
        activities = [dict(step.attrib) for step in steps[::2]]
        assert ["end_time" in activity for activity in activities] == [True] * (len(activities) - 1) + [False]
        people[person.get("id")] = activities
    return people


def seconds(clock: str) -> int:
    hours, minutes, rest = map(int, clock.split(":"))
    assert minutes < 60 and rest < 60
    return hours * 3600 + minutes * 60 + rest


@pytest.mark.parametrize("name", ["plans.xml", "plans.xml.gz"])
def test_plans_hold_every_stay_with_its_end(tmp_path: Path, name: str) -> None:
    cells = make_cells()
    totals = matsim_plans(to_frame(cells), tmp_path / name)
    people = read_plans(tmp_path / name)
    assert list(people) == [str(i) for i in range(40)]
    stays = 0
    for week, activities in zip(cells, people.values()):
        ends = [seconds(activity["end_time"]) for activity in activities[:-1]]
        assert ends == ((np.flatnonzero(np.diff(week)) + 1) * 3600).tolist()
        stays += len(activities)
    assert totals == {"persons": 40, "activities": stays, "legs": stays - 40}


def test_coordinates_are_metres_and_keep_distances(tmp_path: Path) -> None:
    cells = make_cells()
    matsim_plans(to_frame(cells), tmp_path / "plans.xml")
    for week, activities in zip(cells, read_plans(tmp_path / "plans.xml").values()):
        places = week[np.append(True, np.diff(week) != 0)]
        x, y = (np.array([float(a[axis]) for a in activities]) for axis in ("x", "y"))
        straight = np.hypot(np.diff(x), np.diff(y)) / 1000
        wanted = haversine_km(LAT[places[:-1]], LON[places[:-1]], LAT[places[1:]], LON[places[1:]])
        np.testing.assert_allclose(straight, wanted, rtol=2e-3, atol=1e-3)


def test_activities_are_named_by_night_and_day(tmp_path: Path) -> None:
    week = np.full((1, 48), 3)
    week[:, 9:17], week[:, 18:20], week[:, 34:41] = 7, 5, 7
    matsim_plans(to_frame(week), tmp_path / "a.xml")
    kinds = [activity["type"] for activity in read_plans(tmp_path / "a.xml")["0"]]
    assert kinds == ["home", "work", "home", "other", "home", "work", "home"]
    matsim_plans(to_frame(week), tmp_path / "b.xml", home_ids=[5], work_ids=[3])
    kinds = [activity["type"] for activity in read_plans(tmp_path / "b.xml")["0"]]
    assert kinds == ["work", "other", "work", "home", "work", "other", "work"]


def test_one_day_is_written_from_its_own_midnight(tmp_path: Path) -> None:
    cells = make_cells()
    matsim_plans(to_frame(cells), tmp_path / "plans.xml", day=1)
    for week, activities in zip(cells, read_plans(tmp_path / "plans.xml").values()):
        ends = [seconds(activity["end_time"]) for activity in activities[:-1]]
        assert ends == ((np.flatnonzero(np.diff(week[24:])) + 1) * 3600).tolist() and max(ends, default=0) < 86_400


@pytest.mark.parametrize("spread", [20, 60])
def test_ends_are_spread_about_the_full_hour_in_order_and_by_seed(tmp_path: Path, spread: float) -> None:
    cells = make_cells()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        matsim_plans(to_frame(cells), tmp_path / f"{name}.xml", spread_minutes=spread, seed=seed)
    first, again, other = ((tmp_path / f"{name}.xml").read_text() for name in "abc")
    assert first == again != other
    offsets = []
    for week, activities in zip(cells, read_plans(tmp_path / "a.xml").values()):
        ends = np.array([seconds(activity["end_time"]) for activity in activities[:-1]])
        assert (np.diff(ends) >= 0).all() and (ends >= 0).all()
        offsets.append(ends - (np.flatnonzero(np.diff(week)) + 1) * 3600)
    assert np.abs(np.concatenate(offsets)).max() <= spread * 30 and np.concatenate(offsets).std() > spread * 10


def test_names_modes_and_projections_are_those_given(tmp_path: Path) -> None:
    frame = to_frame(make_cells(2), names=['a"<b', "c&d"])
    matsim_plans(
        frame, tmp_path / "plans.xml", mode="pt&walk", crs="EPSG:25832", project=lambda lat, lon: (lon * 10, lat * 10)
    )
    assert list(read_plans(tmp_path / "plans.xml")) == ['a"<b', "c&d"]
    root = ElementTree.parse(tmp_path / "plans.xml").getroot()
    assert root.find("attributes/attribute").text == "EPSG:25832"
    assert {leg.get("mode") for leg in root.iter("leg")} == {"pt&walk"}
    assert {float(a.get("y")) for a in root.iter("activity")} <= set(np.round(LAT * 10, 1).tolist())


@pytest.mark.parametrize(
    ("changes", "name", "options", "message"),
    [
        ({}, "plans.txt", {}, "not to plans.txt"),
        ({"lat": np.nan}, "p.xml", {}, "'lat' and 'lon': 12 cells have none"),
        ({}, "p.xml", {"crs": "EPSG:25832"}, "crs='EPSG:25832' needs project="),
        ({}, "p.xml", {"day": 2}, r"day must lie in 0..1, not 2"),
        ({}, "p.xml", {"spread_minutes": 61}, r"spread_minutes must lie in 0..60"),
        ({}, "p.xml", {"home_ids": [1, 2]}, "home_ids must hold one cell for each of the 40"),
    ],
)
def test_plans_that_cannot_be_written_are_refused(
    tmp_path: Path, changes: dict[str, Any], name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        matsim_plans(to_frame(make_cells()).assign(**changes), tmp_path / name, **options)


def test_weeks_with_unknown_hours_are_no_plans(tmp_path: Path) -> None:
    cells = make_cells()
    cells[5, 3] = -1
    with pytest.raises(DataError, match=r"1 of 40 trajectories have unknown hours \(first \[5\]\)"):
        matsim_plans(to_frame(cells), tmp_path / "plans.xml")
    with pytest.raises(DataError, match=r"lacks the column\(s\) lat, lon"):
        matsim_plans(to_frame(make_cells()).drop(columns=["lat", "lon"]), tmp_path / "plans.xml")


def test_names_that_xml_cannot_hold_are_refused_and_others_are_escaped(tmp_path: Path) -> None:
    frame = pd.DataFrame({"trajectory_id": "<&\"'>", "slot": range(24), "cell": 0, "lat": 48.0, "lon": 11.0})
    matsim_plans(frame, tmp_path / "plans.xml")
    assert ElementTree.parse(tmp_path / "plans.xml").find("person").get("id") == "<&\"'>"
    for name in ("a\0", "b\x1b[2J", "\ud800"):
        with pytest.raises(DataError, match="1 names of trajectories, mode and crs are "):
            matsim_plans(frame.assign(trajectory_id=pd.Series([name] * 24, dtype=object)), tmp_path / "bad.xml")
    assert not (tmp_path / "bad.xml").exists()
