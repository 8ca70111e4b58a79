"""No line of a file is lost in silence: it is a row, belongs to a row, or is left out and counted."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hf_mobility.data import DataError, validate_points, validate_visits
from hf_mobility.data.io import interop, records
from hf_mobility.data.io.readers import read_foursquare_tsmc2014, read_table, read_yjmob100k
from hf_mobility.data.io.readers_gps import read_cabspotting, read_geolife
from hf_mobility.data.io.records import as_records
from hf_mobility.data.weeks import read_weeks

HEADER = "user_id,time,location_id,lat,lon,category"
ROWS = [
    f"{i % 50},2024-01-0{1 + i % 7}T10:{i % 60:02d}:00Z,place {i},48.{i % 10},11.{i % 10},cafe" for i in range(3000)
]
# One fault of the row in line 1001 -> how it is reported.
FAULTS = {
    "open quote": lambda row: row.replace("cafe", '"cafe'),
    "wrong number of fields": lambda row: row + ",more,cells",
    "carriage return inside a line": lambda row: row.replace("cafe", "ca\rfe"),
}


def write(path: Path, rows: list[str], *, end: str = "\n") -> Path:
    path.write_bytes((end.join([HEADER, *rows]) + end).encode())
    return path


def filled_lines(path: Path) -> int:
    return sum(bool(line.strip()) for line in path.read_bytes().split(b"\n")) - 1  # the header


@pytest.mark.parametrize("reason", FAULTS)
def test_a_broken_line_costs_itself_only_and_is_named(reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "visits.csv", [*ROWS[:999], FAULTS[reason](ROWS[999]), *ROWS[1000:]])
    visits = read_table(path)
    assert visits.attrs["read_report"] == {"rows_read": 3000, "rejected": {reason: 1}}
    assert set(visits["location_id"]) == {f"place {i}" for i in range(3000)} - {"place 999"}
    sentence = rf"^visits\.csv: 1 of 3,000 lines are no rows of 6 cells \(first lines 1001: {reason}\); repair them"
    for read in (validate_visits, as_records):
        with pytest.raises(DataError, match=sentence):
            read(path)


def test_a_quote_that_is_closed_two_thousand_lines_later_swallows_none_of_them(tmp_path: Path) -> None:
    rows = list(ROWS)
    rows[999], rows[2998] = rows[999].replace("cafe", '"cafe'), rows[2998].replace("cafe", 'ca"fe')
    path = write(tmp_path / "visits.csv", rows)
    visits = read_table(path)
    assert visits.attrs["read_report"] == {"rows_read": 3000, "rejected": {"open quote": 1}}
    assert visits["category"].value_counts().to_dict() == {"cafe": 2998, 'ca"fe': 1}


def test_line_breaks_in_a_quoted_cell_are_joined_and_reported(tmp_path: Path) -> None:
    text = "\n".join(["user_id,time,lat,lon,tweet", '1,2024-01-01T00:00Z,48,11,"first\n\nthird, ""quoted"" line"', ""])
    path = tmp_path / "tweets.csv"
    path.write_text(text)
    assert read_table(path).attrs["read_report"] == {"rows_read": 1, "rejected": {}, "joined_lines": 2}
    assert len(validate_visits(path)) == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system_give_the_same_frame(end: str, tmp_path: Path) -> None:
    path = write(tmp_path / "visits.csv", ROWS, end=end)
    wanted = validate_visits(write(tmp_path / "unix.csv", ROWS))
    pd.testing.assert_frame_equal(validate_visits(path), wanted)
    pd.testing.assert_frame_equal(read_table(path), wanted)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_broken_every_line_is_accounted_for_and_whole_ones_are_kept(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    rows = ROWS[:40]
    broken = rng.choice(40, 4, replace=False)
    for row in broken:
        where = int(rng.integers(0, len(rows[row]) + 1))
        rows[row] = rows[row][:where] + str(rng.choice(['"', '""', "\r", "\n", ",", '"\n'])) + rows[row][where:]
    path = write(tmp_path / "visits.csv", rows)
    visits = read_table(path)
    report = visits.attrs["read_report"]
    assert report["rows_read"] + report.get("joined_lines", 0) == filled_lines(path)
    assert len(visits) == report["rows_read"] - sum(report["rejected"].values())
    assert {f"place {i}" for i in range(40) if i not in broken} <= set(visits["location_id"])


def test_a_comma_at_the_end_of_every_row_moves_no_column(tmp_path: Path) -> None:
    path = write(tmp_path / "visits.csv", [f"{row}," for row in ROWS])  # pandas alone takes the users for an index
    with pytest.raises(DataError, match="3,000 of 3,000 lines are no rows of 6 cells"):
        validate_visits(path)


def test_ids_stay_what_they_are_in_every_reader(tmp_path: Path) -> None:
    path = write(tmp_path / "visits.csv", [row.replace("place 7,", "NA,").replace("place 8,", "007,") for row in ROWS])
    for read in (read_table, validate_visits):
        assert {"NA", "007"} <= set(read(path)["location_id"])


DAMAGED = {
    "empty.csv": (b"", "is empty; its first line must name the columns"),
    "latin.csv": (f"{HEADER}\n{ROWS[0]}é\n".encode("latin-1"), "is no UTF-8 text"),
    "wide.csv": (f"{HEADER}\n{ROWS[0]}\n".encode("utf-16"), "is no UTF-8 text"),
    "text.csv.gz": (b"user_id,time", "is no readable gzip file"),
    "cut.csv.gz": (gzip.compress("\n".join([HEADER, *ROWS]).encode())[:-2000], "is no readable gzip file"),
    "text.parquet": (b"PAR1 and no more", "is no readable Parquet file"),
    "cells.csv": (b'"', "does not name columns|is no|lacks"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_in_one_sentence(name: str, tmp_path: Path) -> None:
    content, sentence = DAMAGED[name]
    path = tmp_path / name
    path.write_bytes(content)
    for read in (read_table, validate_visits, as_records, read_weeks):
        with pytest.raises(DataError, match=sentence) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_parquet_file_with_damaged_pages_is_named(tmp_path: Path) -> None:
    path = tmp_path / "visits.parquet"
    validate_visits(write(tmp_path / "visits.csv", ROWS)).to_parquet(path)
    content = bytearray(path.read_bytes())
    content[200:2000:7] = bytes(len(content[200:2000:7]))
    path.write_bytes(content)
    for read in (read_table, validate_visits, as_records):
        with pytest.raises(DataError, match=r"visits\.parquet is no readable Parquet file"):
            read(path)


def test_a_geoparquet_file_is_read_and_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("geopandas")
    visits = validate_visits(write(tmp_path / "visits.csv", ROWS[:20]))
    interop.to_geo(visits).to_parquet(tmp_path / "visits.geoparquet")
    calls: list[int] = []
    for module in (records, interop):
        monkeypatch.setattr(module, "validate_visits", lambda *a, **b: calls.append(1) or validate_visits(*a, **b))
    found = as_records(tmp_path / "visits.geoparquet")
    pd.testing.assert_frame_equal(found, visits)
    assert len(calls) == 1
    visits.to_parquet(tmp_path / "plain.geoparquet")
    with pytest.raises(
        DataError, match=r"plain\.geoparquet is no readable GeoParquet file: Missing geo metadata"
    ) as caught:
        as_records(tmp_path / "plain.geoparquet")
    assert "\n" not in str(caught.value)


# Public formats


def test_a_carriage_return_in_a_venue_is_one_line_left_out(tmp_path: Path) -> None:
    line = "470\tv{}\tc\tBar\t40.7\t-74.0\t-240\tTue Apr 03 18:00:09 +0000 2012\n"
    path = tmp_path / "nyc.txt"
    path.write_text(line.format(1) + line.format(2).replace("Bar", "B\rar") + line.format(3), newline="")
    visits = read_foursquare_tsmc2014(path)
    assert visits.attrs["read_report"] == {"rows_read": 3, "rejected": {"carriage return inside a line": 1}}
    assert visits["location_id"].tolist() == ["v1", "v3"]


def test_numbers_of_yjmob_that_are_no_cells_or_days_are_left_out(tmp_path: Path) -> None:
    faults = [
        "1,1,3,1.5,5",
        "1,99999999999999999999,3,4,5",
        "1,1,3,1e300,5",
        "inf,1,3,1,5",
        '"1,1,3,1,5',
        "1,1,3,201,5",
    ]
    (tmp_path / "y.csv").write_text("\n".join(["uid,d,t,x,y", "1,0,0,1,1", *faults, ""]))
    visits = read_yjmob100k(tmp_path / "y.csv", anchor=(35, 139), start="2023-01-01")
    assert visits.attrs["read_report"] == {
        "rows_read": 7,
        "rejected": {"cell out of range": 1, "unreadable numbers": 5},
    }


def test_signs_that_python_takes_for_line_ends_make_no_rows(tmp_path: Path) -> None:
    folder = tmp_path / "Data" / "010" / "Trajectory"
    folder.mkdir(parents=True)
    rows = [f"39.{i},116.3,0,100,39744,2008-10-23,02:53:0{i}" for i in range(5)]
    for sign in "\x0b\x0c\x1c\x1d\x1e\r":
        text = "\r\n".join(["header"] * 6 + [*rows[:2], rows[2].replace("116", f"11{sign}6"), *rows[3:], ""])
        (folder / "a.plt").write_bytes(text.encode())
        (tmp_path / "Data" / "010" / "labels.txt").write_text(
            'a\tb\tc\n2008/10/23 02:00:00\t2008/10/23 03:00:00\t"walk\n'
        )
        points = read_geolife(tmp_path / "Data")
        assert points.attrs["read_report"] == {"rows_read": 5, "rejected": {"unreadable coordinates": 1}}
        assert set(points["mode"]) == {'"walk'}


def test_a_cabs_impossible_time_is_one_row_left_out(tmp_path: Path) -> None:
    (tmp_path / "new_a.txt").write_text("37.7 -122.4 0 1213084687\n37.7 -122.4 0 1e300\n37.7 -122.4 1 inf\n")
    report = read_cabspotting(tmp_path).attrs["read_report"]
    assert report == {"rows_read": 3, "rejected": {"unreadable time": 2}}


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    path.write_text("user_id,time,lat,lon,lat\n1,2024-01-01T00:00Z,48,11,49\n")
    with pytest.raises(DataError, match=r"names 1 columns more than once \(lat\); rename them"):
        validate_points(path)
