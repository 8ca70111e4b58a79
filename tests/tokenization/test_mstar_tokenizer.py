"""M-STAR's tokenizer called: views, masks, conditions by hand, long tables and back, and what is refused."""

from __future__ import annotations

import datetime
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mstar_town import TOKENIZER, ZONE, make_records, make_tokenizer

from hf_mobility import City, DataError
from hf_mobility.tokenization.tokenization_mstar import MstarTokenizer


def make_cells(n: int = 12, *, seed: int = 0, unknown: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.random((n, 168)) < 0.15, axis=1)
    cells = rng.integers(0, 30, (n, 8))[np.arange(n)[:, None], walk % rng.integers(1, 9, (n, 1))]
    return np.where(rng.random((n, 168)) < unknown, -1, cells).astype(np.int32)


# Calls


@pytest.mark.parametrize("tensors", [None, "np", "pt"])
def test_a_call_gives_every_resolution_a_mask_and_conditions(tensors: str | None) -> None:
    cells = make_cells()
    batch = TOKENIZER(cells, return_tensors=tensors)
    assert list(batch) == TOKENIZER.model_input_names
    for n, hour in np.ndindex(cells.shape):
        known = cells[n, hour] >= 0
        assert batch["attention_mask"][n, hour] == known
        wanted = TOKENIZER.cell_map[cells[n, hour]].tolist() if known else [0, 0, 0]
        assert batch["input_ids"][n, :, hour].tolist() == wanted
    for name in batch:
        assert batch[name].dtype == (torch.int64 if tensors == "pt" else np.int64), name


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 0.95))
def test_home_and_work_are_what_one_counts_by_hand(seed: int, unknown: float) -> None:
    cells = make_cells(3, seed=seed, unknown=unknown)
    cells[:, 0] = np.maximum(cells[:, 0], 0)
    home, work = TOKENIZER.home_and_work(cells)
    for week, home_id, work_id in zip(cells.tolist(), home.tolist(), work.tolist()):
        night = [c for slot, c in enumerate(week) if slot % 24 < 8 and c >= 0]
        office = [c for slot, c in enumerate(week) if 10 <= slot % 24 < 18 and slot < 120 and c >= 0]
        # Counter.most_common lists equal counts in the order of their first appearance.
        wanted = Counter(night or [c for c in week if c >= 0]).most_common(1)[0][0]
        assert home_id == wanted
        assert work_id == (Counter(office).most_common(1)[0][0] if office else wanted)


def test_hours_that_tell_home_can_be_chosen_and_are_saved(tmp_path: Any) -> None:
    cells = np.zeros((1, 168), np.int32)
    cells[:, 6::24], cells[:, 7::24] = 5, 5
    cells[:, 0::24] = 9
    tokenizer = make_tokenizer(home_hours=(6, 8), work_days=(5, 7))
    cells[:, 120:] = 7
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, MstarTokenizer.from_pretrained(tmp_path)):
        home, work = each.home_and_work(cells)
        assert (home.tolist(), work.tolist()) == ([5], [7])


def test_given_conditions_are_used_as_they_are() -> None:
    cells = make_cells(4)
    batch = TOKENIZER(
        cells, home_ids=[1, 2, 3, 4], work_ids=np.array([5, 6, 7, 8]), attribute_ids=torch.zeros(4).long()
    )
    assert batch["home_ids"].tolist() == [1, 2, 3, 4] and batch["work_ids"].tolist() == [5, 6, 7, 8]
    assert list(TOKENIZER(cells, conditions=False)) == ["input_ids", "attention_mask"]


def test_frames_weeks_tensors_and_single_weeks_are_called_alike() -> None:
    frame = make_records(count=400)
    weeks = TOKENIZER.weeks(frame, min_known=0.2)
    wanted = TOKENIZER(weeks.cells)
    for data, options in (
        (frame, {"min_known": 0.2}),
        (weeks, {}),
        (torch.from_numpy(weeks.cells), {}),
        (weeks.cells.tolist(), {}),
    ):
        found = TOKENIZER(data, **options)
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert np.array_equal(TOKENIZER(weeks.cells[0])["input_ids"], wanted["input_ids"][:1])


# Long tables


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 0.9]))
def test_a_long_table_becomes_the_same_weeks_again(seed: int, unknown: float) -> None:
    cells = make_cells(5, seed=seed, unknown=unknown)
    cells[:, 3] = np.maximum(cells[:, 3], 0)
    table = TOKENIZER.to_frame(cells, start="2024-02-26")
    assert np.array_equal(TOKENIZER.weeks(table, min_known=0).cells, cells)
    aware = pd.Series(table["time"]).dt.tz_localize(ZONE)
    by_time = TOKENIZER.weeks(
        {"user_id": table["trajectory_id"], "time": aware, "lat": table["lat"], "lon": table["lon"]}, min_known=0
    )
    assert np.array_equal(by_time.cells, cells) and set(by_time.start.astype(str)) == {"2024-02-26"}


def test_a_long_table_has_slots_local_times_and_centres() -> None:
    table = TOKENIZER.to_frame(make_cells(2, unknown=0), start=["2024-01-01", "2024-01-15"], trajectory_id=["a", "b"])
    frame = pd.DataFrame(table)
    assert list(frame) == ["trajectory_id", "slot", "time", "cell", "lat", "lon"] and len(frame) == 336
    assert frame.loc[168 + 25, "time"] == pd.Timestamp("2024-01-16 01:00") and frame.loc[168, "trajectory_id"] == "b"
    assert np.array_equal(TOKENIZER.cells_at(frame["lat"], frame["lon"]), frame["cell"])


def test_users_with_a_start_column_and_cells_by_name_are_read_as_weeks() -> None:
    frame = pd.DataFrame(
        {
            "user_id": ["b", "b", "a", "b"],
            "start": pd.to_datetime(["2024-01-08", "2024-01-01", "2024-01-01", "2024-01-01"]),
            "slot": [0, 5, 6, 7],
            "location_id": ["r0c1", "r5c4", "r2c0", "r0c0"],
        }
    )
    found = TOKENIZER.weeks(frame, min_known=0)
    assert found.user_id.tolist() == ["a", "b", "b"]
    assert found.start.astype(str).tolist() == ["2024-01-01", "2024-01-01", "2024-01-08"]
    assert np.argwhere(found.cells >= 0).tolist() == [[0, 6], [1, 5], [1, 7], [2, 0]]
    assert found.cells[found.cells >= 0].tolist() == [10, 29, 0, 1]


def test_an_aware_start_is_a_date_on_its_own_clock() -> None:
    monday = pd.Timestamp("2024-01-01 00:00", tz="Asia/Tokyo")  # still Sunday in UTC
    table = pd.DataFrame(TOKENIZER.to_frame(make_cells(2, unknown=0), start=monday))
    assert table["time"].min() == pd.Timestamp("2024-01-01")
    several = TOKENIZER.to_frame(make_cells(2, unknown=0), start=pd.Series([monday, monday + pd.Timedelta(days=7)]))
    assert np.array_equal(np.unique(several["time"])[[0, -1]], np.array(["2024-01-01T00", "2024-01-14T23"], "M8[s]"))
    read = TOKENIZER.weeks(table.assign(start=monday)).start
    assert read.astype(str).tolist() == ["2024-01-01"] * 2


@pytest.mark.parametrize(
    "start", ["2024-01-01", "2024-01-01T00:00+09:00", datetime.date(2024, 1, 1), np.datetime64("2024-01-01")]
)
def test_a_start_is_a_date_however_it_is_written(start: Any) -> None:
    assert np.min(TOKENIZER.to_frame(make_cells(2, unknown=0), start=start)["time"]) == np.datetime64("2024-01-01")


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("soon", "start: 'soon' is no date; write it as 2024-01-31"),
        ("2024-01-01T12:00+01:00", "start: 1 of 1 are no dates but times of day"),
        (pd.Timestamp("2024-01-01 12:00", tz="Asia/Tokyo"), "start: 1 of 1 are no dates but times of day"),
        (np.array(["2024-01-01T00", "2024-01-01T01"], "M8[h]"), r"start: 1 of 2 are .* \(first 2024-01-01T01"),
    ],
)
def test_a_start_that_is_no_date_is_refused(start: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TOKENIZER.to_frame(make_cells(2, unknown=0), start=start)


# What is refused

WEEK = np.zeros((2, 168), np.int64)
TIMES = pd.to_datetime(["2024-03-05 07:10", "2024-03-05 09:10"]).tz_localize("UTC")


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (WEEK[:, :100], {}, "weeks of this tokenizer have 168 hours, got 100"),
        (WEEK[:0], {}, r"\(N, 168\) with N >= 1, got shape \(0, 168\)"),
        (WEEK + 30, {}, r"2 of 2 weeks hold cells outside -1..29 \(first weeks \[0, 1\]\)"),
        (WEEK - 2, {}, "2 of 2 weeks hold cells outside"),
        (WEEK * 1.0, {}, "cells must be integers, -1 for unknown hours, got float64"),
        (WEEK - 1, {}, "2 of 2 weeks have no known hour"),
        (WEEK, {"home_ids": [0, 0]}, "home_ids and work_ids are given together or not at all"),
        (WEEK, {"home_ids": [0], "work_ids": [0, 0]}, "home_ids must be 2 integers in 0..29"),
        (WEEK, {"home_ids": [0, 0], "work_ids": [0, 30]}, "work_ids must be 2 integers in 0..29"),
        (WEEK, {"attribute_ids": [0, 1]}, "attribute_ids must be 2 integers in 0..0"),
        (WEEK, {"conditions": False, "attribute_ids": [0, 0]}, "conditions=False contradicts"),
        (WEEK, {"return_tensors": "tf"}, "return_tensors must be None, 'np' or 'pt'"),
        (WEEK, {"min_known": 0.1}, r"unknown argument\(s\) \['min_known'\]"),
    ],
)
def test_weeks_that_do_not_fit_are_refused(data: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TOKENIZER(data, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": TIMES.tz_localize(None)}, "Column 'time' must hold time-zone-aware times"),
        ({"time": TIMES.tz_localize(None).astype(str)}, "Column 'time' must hold time-zone-aware times"),
        ({"time": [1_700_000_000_000, 1]}, "Column 'time': 1 of 2 values are no epoch seconds"),
        (
            {"lat": [48.0, np.nan]},
            r"Column 'lat': 1 of 2 values are missing, NaN or infinite \(first rows 1: nan\)",
        ),
        ({"lon": [400.0, 11.0]}, "Column 'lon': 1 of 2 values"),
        ({}, r"None of the 1 weeks has 84 of its 168 hours known \(the best has 2\)"),
        (
            {"lat": [10.0, 10.0]},
            "2 of 2 rows lie outside the grid, so no week is known: use a tokenizer of these records'",
        ),
        ({"cell": [3, 30]}, "Column 'cell': 1 of 2 values are no cell of this grid of 30 cells"),
        ({"cell": ["r0c1", "r0c5"]}, "Column 'cell': 1 of 2 values are no cell"),
        ({"duration": [-1.0, 5.0]}, "Column 'duration': 1 of 2 values are negative"),
        ({"user_id": ["a", None]}, r"Column 'user_id': 1 of 2 values are missing \(first rows 1\)"),
        ({"user_id": [1.0, np.nan]}, r"Column 'user_id': 1 of 2 values are missing"),
        ({"user_id": np.array(["a", 1], dtype=object)}, "Column 'user_id' mixes ids of different types"),
        ({"slot": [0, 168]}, r"Column 'slot': 1 of 2 values are no slot 0..167 \(first rows \[1\]\)"),
        ({"slot": [0, 1.5]}, r"Column 'slot': 1 of 2 values are no slot 0..167 \(first rows \[1\]\)"),
        ({"slot": ["a", "b"]}, "Column 'slot' must hold numbers"),
        ({"slot": [0, None]}, r"Column 'slot': 1 of 2 values are no slot 0..167 \(first rows \[1\]\)"),
        ({"slot": [0, 1, 2]}, "Column 'time' has 2 values, column 'slot' has 3"),
        ({"duration": [1.0]}, "Column 'duration' has 1 values, column 'time' has 2"),
        ({"lat": ["x", "y"]}, "Column 'lat' must hold numbers"),
        (
            {"slot": [0, 1], "trajectory_id": ["x", "x"], "user_id": ["a", "b"]},
            r"Column 'user_id': 1 of 2 values are other than in the first row of their 'trajectory_id' \(first",
        ),
        (
            {"slot": [0, 1], "trajectory_id": ["x", "x"], "start": ["2024-01-01", "2024-01-08"]},
            r"Column 'start': 1 of 2 values are other than in the first row of their 'trajectory_id' \(first rows 1\)",
        ),
        (
            {"slot": [0, 1], "start": ["2024-01-01", "2024-01-02"]},
            r"start must be a Monday, the weeks begin there; 1 of 2 are none \(first 2024-01-02\)",
        ),
        ({"slot": [0, 1], "trajectory_id": ["x", None]}, r"Column 'trajectory_id': 1 of 2 values are missing"),
        (
            {"slot": [0, 1], "trajectory_id": ["x", "y"], "user_id": ["a", None]},
            r"Column 'user_id': 1 of 2 values are missing",
        ),
        ({"slot": [7, 7]}, r"Column 'slot': 1 hours of weeks occur more than once .* \[\(0, 7\)\]"),
        ({"cell": [3.0, 3.7]}, r"Column 'cell': 1 of 2 values are no cell .*\(first \[3.7\]\)"),
        ({"cell": [-0.9, 2.0]}, "Column 'cell': 1 of 2 values are no cell"),
    ],
)
def test_records_that_cannot_be_used_are_refused_in_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TOKENIZER.weeks({"time": TIMES, "lat": [48.0, 48.0], "lon": [11.0, 11.0], **changes})


def test_weeks_with_an_id_of_their_own_may_be_one_users() -> None:
    found = TOKENIZER.weeks(
        {
            "trajectory_id": [7, 3, 3, 5],
            "user_id": ["b", "a", "a", "b"],
            "start": ["2024-01-08", "2024-01-01", "2024-01-01", "2024-01-01"],
            "slot": [0, 1, 2, 3],
            "cell": [10, 11, 12, 13],
        },
        min_known=0,
    )
    assert found.user_id.tolist() == ["a", "b", "b"]
    assert found.start.astype(str).tolist() == ["2024-01-01", "2024-01-01", "2024-01-08"]
    assert np.argwhere(found.cells >= 0).tolist() == [[0, 1], [0, 2], [1, 3], [2, 0]]


def test_missing_columns_and_empty_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="no column 'time'"):
        TOKENIZER.weeks({"lat": [48.0], "lon": [11.0]})
    with pytest.raises(ValueError, match="the records have no place"):
        TOKENIZER.weeks({"time": TIMES, "lat": [48.0, 48.0]})
    with pytest.raises(ValueError, match="the frame is empty"):
        TOKENIZER.weeks(make_records().iloc[:0])
    with pytest.raises(ValueError, match="N >= 1"):
        TOKENIZER([])
    with pytest.raises(ValueError, match=r"unknown argument\(s\) \['uid'\]"):
        TOKENIZER.weeks(make_records(), uid="user_id")
    with pytest.raises(ValueError, match="kind must be one of"):
        TOKENIZER.weeks(make_records(), kind="gps")
    with pytest.raises(ValueError, match="no whole number of days"):
        make_tokenizer(num_hours=30).weeks(make_records())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factors": (4, 3, 1)}, "factors must fall from coarse to fine"),
        ({"factors": (4, 2)}, "and end with 1"),
        ({"timezone": "Berlin"}, "Unknown time zone 'Berlin'"),
        ({"rows": 0}, "A grid needs at least one row"),
        ({"interval_minutes": 7}, "interval_minutes a divisor of 1440"),
        ({"home_hours": (8, 8)}, "home_hours must be"),
        ({"lat": [1.0], "lon": [2.0]}, "give either bounds="),
    ],
)
def test_wrong_grids_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_tokenizer(**changes)


def test_wrong_boxes_and_cities_are_refused() -> None:
    with pytest.raises(ValueError, match="is empty or off the globe"):
        MstarTokenizer.from_grid((48.1, 10.9, 47.9, 11.2), timezone=ZONE)
    with pytest.raises(ValueError, match="a MstarTokenizer is a city"):
        MstarTokenizer()
    loose = City("", ZONE, ["a", "b"], [48.0, 48.1], [11.0, 11.1], None, (), [9, 9])
    tokenizer = MstarTokenizer(city=loose, cell_map=[[0, 0], [0, 1]])
    assert tokenizer(WEEK)["input_ids"].shape == (2, 2, 168)
    with pytest.raises(DataError, match="a list of cells without a grid"):
        tokenizer.weeks(make_records())
    with pytest.raises(DataError, match=r"cell_map must be .* for the city's 2 cells and its last column count them"):
        MstarTokenizer(city=loose, cell_map=[[0, 1], [0, 0]])
    with pytest.raises(DataError, match=r"the city '' has no grid: use MstarTokenizer\.from_city"):
        MstarTokenizer(city=loose)
    with pytest.raises(ValueError, match="start must be a Monday"):
        TOKENIZER.to_frame(WEEK, start="2024-01-02")
    with pytest.raises(ValueError, match="only keyword arguments"):
        TOKENIZER(WEEK, True)
