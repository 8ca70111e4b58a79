"""Readers: tiny files in each public format, with the defects that the real sets have."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hf_mobility.data import DataError, haversine_km
from hf_mobility.data.frames import validate_visits
from hf_mobility.data.io import readers
from hf_mobility.data.io.readers import (
    read_foursquare_tist2015,
    read_foursquare_tsmc2014,
    read_gowalla,
    read_table,
    read_yjmob100k,
)
from hf_mobility.data.io.readers_gps import read_cabspotting, read_geolife
from hf_mobility.tokenization import text_lines

TSMC = (
    "470\t49bbd6c0\t4bf58dd8\tArts & Crafts Store\t40.719810\t-74.002581\t-240\tTue Apr 03 18:00:09 +0000 2012\n"
    "470\t4a43c0aa\t4bf58dd8\tBridge\t40.606799\t-74.044170\t-240\tTue Apr 03 18:00:25 +0000 2012\n"
    "979\t4c5cc7b4\t4bf58dd8\tCaf\xe9\t40.716161\t-73.883070\t-240\tTue Apr 03 17:02:24 +0000 2012\n"
)


def report(frame: pd.DataFrame) -> tuple[int, dict[str, int]]:
    return frame.attrs["read_report"]["rows_read"], frame.attrs["read_report"]["rejected"]


def test_tsmc2014_times_are_utc_and_faults_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "nyc.txt"
    faults = (
        "1\tv\tc\tBar\tnorth\t-74\t-240\tTue Apr 03 18:00:09 +0000 2012\n"
        "1\tv\tc\tBar\t140.7\t-74\t-240\tTue Apr 03 18:00:09 +0000 2012\n"
        "1\tv\tc\tBar\t40.7\t-74\t-240\tyesterday\n"
        "1\t\tc\tBar\t40.7\t-74\t-240\tTue Apr 03 18:00:09 +0000 2012\n"
        "1\tv\tc\n\n"
    )
    path.write_bytes((TSMC + faults).encode("latin-1"))
    visits = read_foursquare_tsmc2014(path)
    assert report(visits) == (
        8,
        {
            "coordinates out of range": 1,
            "missing location_id": 1,
            "unreadable coordinates": 1,
            "unreadable time": 1,
            "wrong number of fields": 1,
        },
    )
    assert visits["user_id"].tolist() == [470, 470, 979]
    assert visits["time"][0] == pd.Timestamp("2012-04-03T18:00:09Z")
    assert visits["category"].tolist() == ["Arts & Crafts Store", "Bridge", "Café"]
    pd.testing.assert_frame_equal(validate_visits(visits), visits)


def test_the_old_name_of_bounds_is_understood_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "tsmc.txt"
    path.write_bytes(TSMC.encode("latin-1"))
    with pytest.warns(FutureWarning, match="box is now bounds"):
        assert len(read_foursquare_tsmc2014(path, box=(40.7, -75.0, 41.0, -73.0))) == 2


def test_a_box_may_lie_across_180_degrees() -> None:
    table = pd.DataFrame({"lat": [-17.0, -17.0, -17.0, -17.0], "lon": [179.5, -179.5, -178.0, 178.0]})
    kept = readers.Rejections().keep_inside(table, (-18, 179, -16, 181))
    assert kept["lon"].tolist() == [179.5, -179.5]


def test_a_box_leaves_out_the_rest_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "nyc.txt"
    path.write_bytes(TSMC.encode("latin-1"))
    visits = read_foursquare_tsmc2014(path, bounds=(40.7, -75.0, 41.0, -73.0))
    assert len(visits) == 2 and report(visits) == (3, {"outside the box": 1})


def test_reading_in_blocks_gives_the_same_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "nyc.txt"
    path.write_bytes(TSMC.encode("latin-1") * 5)
    whole = read_foursquare_tsmc2014(path)
    monkeypatch.setattr(text_lines, "BLOCK", 2)
    blocks = read_foursquare_tsmc2014(path)
    pd.testing.assert_frame_equal(blocks, whole)
    assert report(blocks) == report(whole) == (15, {})


def test_tist2015_joins_venues(tmp_path: Path) -> None:
    checkins, pois = tmp_path / "checkins.txt", tmp_path / "pois.txt"
    checkins.write_text(
        "50756\tv1\tTue Apr 03 18:00:06 +0000 2012\t240\n"
        "190571\tv2\tTue Apr 03 18:00:07 +0000 2012\t540\n"
        "190571\tv9\tTue Apr 03 18:00:08 +0000 2012\t540\n"
    )
    pois.write_text("v1\t55.69\t12.57\tCoffee Shop\tDK\nv2\t35.68\t139.76\tTrain Station\tJP\n")
    visits = read_foursquare_tist2015(checkins, pois)
    assert visits["category"].tolist() == ["Coffee Shop", "Train Station"]
    assert report(visits) == (3, {"venue unknown or outside the selection": 1})
    assert read_foursquare_tist2015(checkins, pois, country="JP")["location_id"].tolist() == ["v2"]
    assert read_foursquare_tist2015(checkins, pois, bounds=(50, 0, 60, 20))["location_id"].tolist() == ["v1"]
    pois.write_text("v1\t55.69\t12.57\tBar\tDK\nv1\t35.68\t139.76\tBar\tJP\n")
    with pytest.raises(DataError, match="twice"):
        read_foursquare_tist2015(checkins, pois)


def test_gowalla_is_read_gzipped_and_zero_coordinates_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "loc-gowalla.txt.gz"
    text = (
        "0\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t22847\n"
        "0\t2010-10-18T22:17:43Z\t30.2691029532\t-97.7493953705\t420315\n"
        "7\t2010-10-18T22:17:43Z\t0.0\t0.0\t00000000000000000000000000000000\n"
        "7\t\t\t\t\n"
    )
    path.write_bytes(gzip.compress(text.encode()))
    visits = read_gowalla(path)
    assert visits["location_id"].tolist() == ["420315", "22847"]
    assert report(visits) == (4, {"coordinates 0, 0": 1, "missing location_id": 1})


def test_yjmob_cells_are_500_metres_apart_and_hidden_ones_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "yjmob.csv"
    path.write_text("uid,d,t,x,y\n0,0,1,1,1\n0,0,2,2,1\n0,1,47,1,3\n0,2,0,999,999\n0,2,48,1,1\n0,2,0,0,1\n")
    visits = read_yjmob100k(path, anchor=(35.0, 137.0), start="2024-01-01")
    assert visits["location_id"].tolist() == ["x1y1", "x2y1", "x1y3"]
    km = haversine_km(35.0, 137.0, visits["lat"], visits["lon"])
    np.testing.assert_allclose(km, [0.0, 0.5, 1.0], atol=1e-3)
    local = visits["time"].dt.tz_convert("Asia/Tokyo").dt.strftime("%Y-%m-%d %H:%M").tolist()
    assert local == ["2024-01-01 00:30", "2024-01-01 01:00", "2024-01-02 23:30"]
    assert report(visits) == (6, {"cell out of range": 1, "hidden position": 1, "time out of range": 1})
    path.write_text("uid,x,y\n1,1,1\n")
    with pytest.raises(DataError, match="uid, d, t, x, y"):
        read_yjmob100k(path, anchor=(35.0, 137.0), start="2024-01-01")


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_tables_take_column_names_and_leave_out_bad_rows(tmp_path: Path, suffix: str) -> None:
    table = pd.DataFrame(
        {
            "who": ["007", "b", "b", "b", None],
            "when": ["2024-01-01 10:00", "2024-01-02 11:30", "soon", "2024-01-02", "2024-01-02"],
            "venue": ["1", "02", "3", "4", "5"],
            "lat": [48.0, 48.1, 48.2, np.nan, 48.0],
            "lon": 11.0,
            "note": "x",
        }
    )
    path = tmp_path / f"visits{suffix}"
    if suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    visits = read_table(path, user_id="who", time="when", location_id="venue", timezone="Europe/Berlin")
    assert visits["user_id"].tolist() == ["007", "b"] and visits["location_id"].tolist() == ["1", "02"]
    assert visits["time"][0] == pd.Timestamp("2024-01-01T09:00Z")
    assert report(visits) == (5, {"missing user_id": 1, "unreadable coordinates": 1, "unreadable time": 1})


def test_tables_with_missing_columns_or_unknown_roles_get_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "visits.csv"
    path.write_text("who,time,lat,lon\n1,0,48,11\n")
    with pytest.raises(DataError, match=r"lacks the column\(s\) user_id; it has who"):
        read_table(path)
    with pytest.raises(DataError, match="venue"):
        read_table(path, user_id="who", location_id="venue")
    with pytest.raises(DataError, match="Unknown column role"):
        read_table(path, person="who")
    with pytest.raises(DataError, match="known file types"):
        read_table(Path(__file__))
    assert list(read_table(path, user_id="who").columns) == ["user_id", "time", "lat", "lon"]


def test_a_file_without_a_usable_row_or_no_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text("nothing here\n")
    with pytest.raises(DataError, match="wrong number of fields"):
        read_gowalla(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        read_gowalla(tmp_path / "absent.txt")


def write_geolife(root: Path) -> None:
    header = "Geolife trajectory\nWGS 84\nAltitude is in Feet\nReserved 3\n0,2,255,My Track,0,0,2,8421376\n0\n"
    walk = [f"39.9{i},116.3,0,492,39744.1,2008-10-23,02:5{i}:04" for i in range(3)]
    for user, rows in {
        "000": walk,
        "010": [*walk, "400.1,116.3,0,492,39744.1,2008-10-23,02:53:04"],
        "011": walk,
    }.items():
        folder = root / "Data" / user / "Trajectory"
        folder.mkdir(parents=True)
        (folder / "20081023025304.plt").write_text(header + "\r\n".join(rows) + "\r\n")
    (root / "Data" / "010" / "labels.txt").write_text(
        "Start Time\tEnd Time\tTransportation Mode\n2008/10/23 02:51:00\t2008/10/23 02:51:59\tbus\n"
    )


def test_geolife_points_carry_the_mode_of_the_label_that_holds_them(tmp_path: Path) -> None:
    write_geolife(tmp_path)
    points = read_geolife(tmp_path)
    assert points["user_id"].tolist() == ["000"] * 3 + ["010"] * 3 + ["011"] * 3
    assert points["mode"].tolist() == [None, None, None, None, "bus", None, None, None, None]
    assert points["time"][0] == pd.Timestamp("2008-10-23T02:50:04Z")
    assert report(points) == (10, {"coordinates out of range": 1})


def test_geolife_users_modes_and_copies_can_be_chosen(tmp_path: Path) -> None:
    write_geolife(tmp_path)
    assert set(read_geolife(tmp_path / "Data", users=["010"])["user_id"]) == {"010"}
    assert "mode" not in read_geolife(tmp_path, modes=False).columns
    once = read_geolife(tmp_path, skip_copies=True)
    assert set(once["user_id"]) == {"000", "010"}
    assert report(once) == (10, {"coordinates out of range": 1, "copy of another file": 3})
    with pytest.raises(DataError, match="Trajectory"):
        read_geolife(tmp_path, users=["999"])


def test_cabs_keep_their_flag_and_come_in_order_of_time(tmp_path: Path) -> None:
    (tmp_path / "new_abboip.txt").write_text("37.75134 -122.39488 0 1213084687\n37.75136 -122.39527 1 1213084659\n")
    (tmp_path / "new_zz.txt").write_text("37.7 -122.4 2 1213084687\n37.7 -122.4\n37.7 -122.4 1 soon\n37.7 -122.4 1 5\n")
    points = read_cabspotting(tmp_path)
    assert points["user_id"].tolist() == ["abboip", "abboip", "zz"]
    assert points["occupied"].tolist() == [1, 0, 1]
    assert points["time"][0] == pd.Timestamp(1213084659, unit="s", tz="UTC")
    faults = {"unreadable occupied flag": 1, "unreadable time": 1, "wrong number of fields": 1}
    assert report(points) == (6, faults)
    with pytest.raises(DataError, match="new_"):
        read_cabspotting(tmp_path / "nothing")


@pytest.mark.data
def test_a_real_table_of_check_ins_is_read_whole() -> None:
    path = Path(os.environ.get("HF_MOBILITY_DATA", "../shared/data")) / "checkins_calgary.parquet"
    if not path.exists():
        pytest.skip(f"real data absent: set HF_MOBILITY_DATA to the folder of {path.name}")
    visits = read_table(path, location_id="venue_id")
    assert report(visits) == (9_317, {})
    assert visits["user_id"].nunique() == 130 and visits["location_id"].nunique() == 604
