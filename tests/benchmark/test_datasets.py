"""Public data sets: read from a folder, told where they are had, refused where the checksum is another one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from hf_mobility import DataError
from hf_mobility.benchmark.datasets import PUBLIC, READERS, file_hashes, load_public, read_set
from hf_mobility.benchmark.protocol import ProtocolSet

NYC = "470\t49bbd6c0\t4bf58dd8\tArts & Crafts Store\t40.7198\t-74.0025\t-240\tTue Apr 03 18:00:09 +0000 2012\n"
SWARM = {
    "user_id": "123",
    "local": 0,
    "check-in_num": 2,
    "check-ins": [
        {
            "venue_category": "a",
            "venue_id": "v1",
            "date": "2016-2-21",
            "time": "16:12:2",
            "lat": "22.3",
            "lng": "113.9",
        },
        {"venue_category": "b", "venue_id": "v2", "date": "2016-1-31", "time": "7:13:9", "lat": "no", "lng": "113.9"},
    ],
}
STEPS = (
    "trail_id,user_id,venue_id,latitude,longitude,venue_category,timestamp\n1,5,7,-33.9,151.2,Bar,2013-01-02 03:04:05\n"
)


def test_every_public_set_has_a_reader_a_page_and_terms() -> None:
    for known in PUBLIC.values():
        assert known.reader in READERS
        assert known.page.startswith("https://") and known.terms and known.files


def test_an_absent_file_is_answered_with_the_page_where_it_is_had(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="foursquare-dataset"):
        load_public("tsmc2014-nyc", tmp_path)


def test_a_set_is_read_from_the_named_folder(tmp_path: Path) -> None:
    (tmp_path / "dataset_TSMC2014_NYC.txt").write_text(NYC, encoding="latin-1")
    visits = load_public("tsmc2014-nyc", tmp_path)
    assert visits["category"].tolist() == ["Arts & Crafts Store"]


def test_massive_steps_times_are_local(tmp_path: Path) -> None:
    (tmp_path / "sydney_checkins.csv").write_text(STEPS)
    visits = load_public("massive-steps-sydney", tmp_path)
    assert str(visits["time"].iloc[0]) == "2013-01-01 16:04:05+00:00"  # eleven hours ahead of UTC in summer
    assert visits[["location_id", "lat", "category"]].iloc[0].tolist() == ["7", -33.9, "Bar"]


def test_swarm_needs_a_zone_and_leaves_out_what_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "nyc.txt").write_text(json.dumps(SWARM) + "\nnot json\n")
    with pytest.raises(DataError, match="give timezone"):
        load_public("swarm-nyc", tmp_path)
    visits = load_public("swarm-nyc", tmp_path, timezone="UTC")
    assert visits["location_id"].tolist() == ["v1"]
    assert visits.attrs["read_report"]["rejected"] == {"unreadable coordinates": 1, "unreadable line": 1}


def test_files_are_compared_with_the_protocols_checksums(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some data")
    right = hashlib.sha256(b"some data").hexdigest()
    assert file_hashes(ProtocolSet("a", "gowalla", {"a.txt": right}), tmp_path) == {"a.txt": right}
    assert file_hashes(ProtocolSet("a", "gowalla", {"a.txt": None}), tmp_path) == {"a.txt": right}
    with pytest.raises(DataError, match="it is another file"):
        file_hashes(ProtocolSet("a", "gowalla", {"a.txt": "0" * 64}), tmp_path)


def test_a_folder_has_a_checksum_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "one").write_text("1")
    entry = ProtocolSet("set", "geolife", {"set": None})
    first = file_hashes(entry, tmp_path)
    (tmp_path / "set" / "two").write_text("2")
    assert file_hashes(entry, tmp_path) != first


def test_an_unknown_reader_is_named() -> None:
    with pytest.raises(DataError, match=r"no reader 'os\.system'"):
        read_set(ProtocolSet("a", "os.system"), Path())
