"""Tables of weeks: every form is read alike, and splits keep people and sequences on one side."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.data import DataError, SquareGrid, simulate_city
from hf_mobility.data.io.records import as_records
from hf_mobility.data.splits import split_by_sequence, split_by_user, split_weeks_by_user
from hf_mobility.data.weeks import is_hourly_table, is_week_table, read_weeks

DATA = Path(os.environ.get("HF_MOBILITY_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
CELLS = np.array([[0, 1, -1, 5], [2, 2, 2, 2], [8, -1, -1, 0]])


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"needs {name} in the folder that HF_MOBILITY_DATA names")
    return path


def write_lists(path: Path, metadata: dict[str, str] | None = None) -> Path:
    table = pa.table(
        {
            "user_id": [4, 4, 9],
            "week_start_local": pd.to_datetime(["2024-01-01", "2024-01-08", "2024-01-01"]),
            "cells": CELLS.tolist(),
            "known_hours": [3, 4, 2],
        }
    )
    pq.write_table(table.replace_schema_metadata(metadata or {}), path)
    return path


# Reading


def test_an_aware_start_is_a_date_on_its_own_clock(tmp_path: Path) -> None:
    monday = pd.Timestamp("2024-01-01", tz="Asia/Tokyo")  # still Sunday in UTC
    frame = pq.read_table(write_lists(tmp_path / "weeks.parquet")).to_pandas()
    assert read_weeks(frame.assign(week_start_local=monday)).start.astype(str).tolist() == ["2024-01-01"] * 3


def test_a_list_column_with_a_grid_in_the_metadata(tmp_path: Path) -> None:
    metadata = {"grid": "3x3 row-major", "box_lat": "(47.0, 48.5)", "box_lon": "(-1.5, 1.5)", "tz": "UTC-7"}
    table = read_weeks(write_lists(tmp_path / "weeks.parquet", metadata))
    assert table.cells.dtype == np.int32 and np.array_equal(table.cells, CELLS)
    assert table.user_id.tolist() == [4, 4, 9]
    assert table.start.astype(str).tolist() == ["2024-01-01", "2024-01-08", "2024-01-01"]
    assert table.extra["known_hours"].tolist() == [3, 4, 2] and list(table.extra) == ["known_hours"]
    assert table.grid == SquareGrid(47.0, -1.5, 48.5, 1.5, 3, 3) and table.timezone == "Etc/GMT+7"
    assert (table.lat[5], table.lon[5]) == pytest.approx((47.75, 1.0))
    assert pd.Timestamp("2024-01-01 12:00", tz="UTC").tz_convert(table.timezone).hour == 5


@pytest.mark.parametrize("names", ["h{}", "hour_{}", "slot{}", "{}"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", "frame"])
def test_one_column_per_slot_in_any_order(tmp_path: Path, names: str, suffix: str) -> None:
    frame = pd.DataFrame(np.where(CELLS < 0, np.nan, CELLS), columns=[names.format(i) for i in range(4)])
    frame = frame[frame.columns[::-1]].assign(user=["a", "b", "b"])
    before = frame.copy()
    if suffix == ".parquet":
        frame.to_parquet(tmp_path / "weeks.parquet")
    elif suffix != "frame":
        frame.to_csv(tmp_path / f"weeks{suffix}", index=False)
    table = read_weeks(frame if suffix == "frame" else tmp_path / f"weeks{suffix}", num_slots=4)
    assert np.array_equal(table.cells, CELLS) and table.user_id.tolist() == ["a", "b", "b"]
    assert table.start is None and table.grid is None and table.extra.shape == (3, 0)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("names", ["h{}", "H{}", "h{:02}", "hour_{}", "hour{}", "slot_{}", "slot{}", "{}"])
def test_what_read_weeks_reads_is_told_by_the_names_of_the_columns(names: str) -> None:
    frame = pd.DataFrame(CELLS, columns=[names.format(i) for i in range(4)])
    assert is_week_table(frame.columns) and np.array_equal(as_records(frame).cells, read_weeks(frame).cells)
    assert not is_week_table([*frame.columns, "time"]) and not is_week_table(frame.columns[1:])


def test_weeks_are_one_row_a_week_or_one_row_an_hour_of_no_known_user() -> None:
    assert is_week_table(["user_id", "cells"]) and not is_hourly_table(["user_id", "cells"])
    hours = ["trajectory_id", "slot", "time", "cell", "lat", "lon"]
    assert is_hourly_table(hours) and not is_week_table(hours)
    assert not is_hourly_table([*hours, "user_id"]) and not is_hourly_table(["slot", "cell"])


def test_the_coordinates_of_cells_come_from_a_second_table() -> None:
    places = pd.DataFrame({"cell": [1, 0, 2], "lat": [0.5, 2.5, 9.0], "lon": [1.5, 0.1, 0.5]})
    table = read_weeks(pd.DataFrame({"cells": [[0, 1, 2, -1]]}), cells=places)
    assert table.user_id is None and table.lat.tolist() == [2.5, 0.5, 9.0] and table.lon.tolist() == [0.1, 1.5, 0.5]


def test_taking_rows_takes_every_column(tmp_path: Path) -> None:
    table = read_weeks(write_lists(tmp_path / "weeks.parquet"))
    for rows in ([2, 0], np.array([2, 0]), np.array([True, False, True])):
        part = table.take(rows)
        order = np.arange(3)[rows]
        assert np.array_equal(part.cells, CELLS[order]) and part.user_id.tolist() == table.user_id[order].tolist()
        assert part.extra["known_hours"].tolist() == table.extra["known_hours"].to_numpy()[order].tolist()
    assert table.known.tolist() == [0.75, 1.0, 0.5]


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        ({"cells": []}, {}, "has no rows"),
        ({"cells": [[1, 2], [1]]}, {}, r"1 of 2 rows have not the 2 slots of the first one \(first rows \[1\]\)"),
        ({"cells": [[1.5, 2.0]]}, {}, r"1 values are no cell numbers, first \[1.5\]"),
        ({"cells": [["a", "b"]]}, {}, "cells must be integers"),
        ({"h0": [1], "h2": [1]}, {}, "neither a list column 'cells' nor columns h0, h1, ... without a gap"),
        ({"place": [1]}, {}, "it has place"),
        ({"cells": [[1, 2]]}, {"num_slots": 168}, "The table has 2 slots a row, not 168"),
        ({"cells": [[1, 2]]}, {"user_id": "who"}, "no column 'who'"),
        (
            {"cells": [[1, 7]]},
            {"cells": {"cell": [0, 1], "lat": [0, 1], "lon": [0, 1]}},
            "hold cells above 2",
        ),
        (
            {"cells": [[1]]},
            {"cells": {"cell": [0, 2], "lat": [0, 1], "lon": [0, 1]}},
            "list the cells 0..1 once",
        ),
        ({"cells": [[1]]}, {"cells": {"cell": [0, 1]}}, r"lacks the column\(s\) lat, lon"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(frame: dict, options: dict, message: str) -> None:
    options = {name: pd.DataFrame(value) if name == "cells" else value for name, value in options.items()}
    with pytest.raises(DataError, match=message):
        read_weeks(pd.DataFrame(frame), **options)


def test_missing_and_strange_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_weeks(tmp_path / "none.parquet")
    (tmp_path / "weeks.txt").write_text("x")
    with pytest.raises(DataError, match="the known file types are"):
        read_weeks(tmp_path / "weeks.txt")


@pytest.mark.data
@pytest.mark.parametrize(("name", "weeks", "users"), [("sf_cabs", 929, 366), ("geolife_beijing", 133, 31)])
def test_real_weeks_are_read_with_their_grid(name: str, weeks: int, users: int) -> None:
    table = read_weeks(real(f"derived_weekly_grid_{name}.parquet"), num_slots=168)
    assert table.cells.shape == (weeks, 168) and len(set(table.user_id)) == users and len(table.grid) == 900
    assert np.array_equal((table.cells >= 0).sum(axis=1), table.extra["known_hours"])
    assert (pd.DatetimeIndex(table.start).day_of_week == 0).all()


@pytest.mark.data
def test_real_days_are_read_with_the_coordinates_of_their_cells() -> None:
    table = read_weeks(
        real("daily_grid_geolife_movesim.parquet"), cells=real("daily_grid_geolife_movesim_cells.parquet"), num_slots=48
    )
    assert len(table) == 10_500 and len(table.lat) == 23_768 and set(table.extra["split"]) >= {"train", "test"}
    known = pd.read_parquet(real("daily_grid_geolife_movesim_cells.parquet")).set_index("cell").sort_index()
    assert np.array_equal(known.index, np.arange(23_768))
    assert np.array_equal(table.lat, known["lat"]) and np.array_equal(table.lon, known["lon"])
    parts = split_by_sequence(table.cells)
    texts = [{table.cells[i].tobytes() for i in part.tolist()} for part in parts]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]


# Splits


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=60),
    st.sampled_from([(0.5, 0.2, 0.3), (0.9, 0.1), (1.0,)]),
    st.integers(0, 99),
)
def test_every_week_is_in_one_part_and_every_person_too(users: list[int], fractions: tuple, seed: int) -> None:
    if len(set(users)) < len(fractions):
        with pytest.raises(DataError, match="users cannot be split"):
            split_weeks_by_user(users, fractions=fractions, seed=seed)
        return
    parts = split_weeks_by_user(users, fractions=fractions, seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(users)))
    people = [{users[i] for i in part.tolist()} for part in parts]
    assert all(people) and sum(map(len, people)) == len(set(users))
    again = split_weeks_by_user(np.array([f"u{u:02d}" for u in users]), fractions=fractions, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again))


def test_fractions_are_of_people() -> None:
    parts = split_weeks_by_user(np.repeat(np.arange(100), np.arange(100) % 7 + 1))
    people = np.repeat(np.arange(100), np.arange(100) % 7 + 1)
    assert [len(set(people[part])) for part in parts] == [50, 20, 30]


def test_weeks_are_split_as_the_visits_of_the_same_people() -> None:
    visits = simulate_city(20, num_days=2).visits
    parts = split_by_user(visits, (0.5, 0.2, 0.3), seed=4)
    users = visits["user_id"].to_numpy()
    for rows, part in zip(split_weeks_by_user(users, seed=4), parts):
        assert set(users[rows]) == set(part["user_id"])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 50))
def test_equal_sequences_are_on_one_side(seed: int, n: int) -> None:
    cells = np.random.default_rng(seed).integers(-1, 2, (n, 3))
    distinct = [tuple(row) for row in cells.tolist()]
    if len(set(distinct)) < 3:
        return
    parts = split_by_sequence(cells, seed=seed % 7)
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    sides = [{distinct[i] for i in part.tolist()} for part in parts]
    assert sum(map(len, sides)) == len(set(distinct)) and all(sides)


def test_splits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="must be positive and sum to 1"):
        split_weeks_by_user([1, 2, 3], fractions=(0.5, 0.6))
    with pytest.raises(DataError, match=r"user_id: 1 of 3 weeks have none \(first rows \[1\]\)"):
        split_weeks_by_user([1.0, np.nan, 3.0], fractions=(0.5, 0.5))
    with pytest.raises(DataError, match="1 distinct sequences cannot be split into 3 parts"):
        split_by_sequence(np.zeros((9, 4)))
    with pytest.raises(DataError, match="0 users"):
        split_weeks_by_user([])
    with pytest.raises(DataError, match=r"must be an array \(N, L\)"):
        split_by_sequence(np.zeros(4))
