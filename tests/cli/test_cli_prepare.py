"""`prepare`: what the readers and the simulation return, as a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_line import ZONE, call
from huggingface_hub import DatasetCard

from hf_mobility import simulate_city
from hf_mobility.data import SquareGrid, detect_stays, read_cabspotting, stays_to_visits

ROOT = Path(__file__).resolve().parents[2]


def test_prepare_simulates_the_city_that_the_verb_makes_and_writes_its_card(tmp_path: Path) -> None:
    out, card = tmp_path / "deep" / "town.csv", tmp_path / "CARD.md"
    call("prepare", "--simulate", 20, "--days", 7, "--seed", 4, "-o", out, "--card", card)
    made = simulate_city(20, num_days=7, seed=4)
    written = pd.read_csv(out)
    assert written["location_id"].tolist() == made.visits["location_id"].tolist()
    assert f"{len(made.visits):,} visits of 20 people" in DatasetCard.load(card).text


def test_prepare_reads_tables_and_public_formats_and_counts_what_it_leaves_out(tmp_path: Path) -> None:
    rows = ["uid,when,venue,lat,lon", "1,2024-01-01 10:00,a,48,11", "1,2024-01-01 12:00,b,99,11"]
    (tmp_path / "table.csv").write_text("\n".join(rows), encoding="utf-8")
    names = ("--column", "user_id=uid", "--column", "time=when", "--column", "location_id=venue")
    out = tmp_path / "out.parquet"
    result = call("prepare", tmp_path / "table.csv", *names, "--timezone", ZONE, "-o", out)
    assert "1 rows of 1 users; left out: {'coordinates out of range': 1}" in result.output
    assert pd.read_parquet(out)["location_id"].tolist() == ["a"]
    lines = ["7\t2010-10-17T01:48:53Z\t39.7\t-104.9\t88", "7\t2010-10-16T06:02:04Z\t39.8\t-104.8\t89"]
    (tmp_path / "gowalla.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for option in ("--bounds", "--box"):  # the older name
        call("prepare", tmp_path / "gowalla.txt", "--reader", "gowalla", option, "39,-105,39.75,-104", "-o", out)
        assert pd.read_parquet(out)["location_id"].tolist() == ["88"]


def test_prepare_turns_gps_points_into_visits_of_cells_or_keeps_them(tmp_path: Path) -> None:
    stands = [f"37.75 -122.40 0 {1_211_000_000 + 60 * k}" for k in range(30)]
    drives = [f"{37.75 + 0.001 * k} -122.40 1 {1_211_001_800 + 60 * k}" for k in range(20)]
    (tmp_path / "new_abc.txt").write_text("\n".join(reversed(stands + drives)) + "\n", encoding="utf-8")
    cabs = ("prepare", tmp_path, "--reader", "cabspotting", "-o", tmp_path / "out.parquet")
    call(*cabs)
    visits = pd.read_parquet(tmp_path / "out.parquet")
    assert len(visits) == 1 and visits["duration"].iloc[0] >= 29 * 60
    call(*cabs, "--cell-km", 2)
    stays = detect_stays(read_cabspotting(tmp_path))
    expected = stays_to_visits(stays, SquareGrid.around(stays["lat"], stays["lon"], cell_km=2.0))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), expected)
    call(*cabs, "--points")
    assert len(pd.read_parquet(tmp_path / "out.parquet")) == 50


def test_separators_and_formats_of_times_are_options(tmp_path: Path) -> None:
    rows = ["user_id;time;location_id;lat;lon", "007;31.12.2023 23:30;NA;48.1;11.5", "008;01.01.2024 00:30;b;48.2;11.6"]
    (tmp_path / "table.csv").write_text("\n".join(rows), encoding="utf-8")
    how = ("--sep", ";", "--time-format", "%d.%m.%Y %H:%M", "--timezone", ZONE)
    call("prepare", tmp_path / "table.csv", *how, "-o", tmp_path / "out.parquet")
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert table["user_id"].tolist() == ["007", "008"] and table["location_id"].tolist() == ["NA", "b"]
    assert table["time"].dt.tz_convert(ZONE).dt.strftime("%m-%d %H:%M").tolist() == ["12-31 23:30", "01-01 00:30"]
    wrong = (*how[:2], "--time-format", "%Y/%m/%d", "--timezone", ZONE)
    fault = call("prepare", tmp_path / "table.csv", *wrong, "-o", tmp_path / "out.parquet", code=1).stderr
    assert "2 of 2 values do not fit the format '%Y/%m/%d'" in fault


def test_stdout_takes_csv(capfd: pytest.CaptureFixture[str]) -> None:
    result = call("prepare", "--simulate", 5, "--days", 7, "-o", "-")
    assert result.stdout.splitlines()[0].startswith("user_id,time,location_id,lat,lon")
    assert len(result.stdout.splitlines()) == 1 + len(simulate_city(5, num_days=7).visits)
    assert "rows of 5 users -> stdout" in result.stderr


def test_a_reader_that_has_read_enough_ends_the_command_quietly(tmp_path: Path) -> None:
    program = "import sys; from hf_mobility.cli.app import app; sys.argv[0] = 'hf-mobility'; app()"
    command = [sys.executable, "-c", program, "prepare", "--simulate", "40", "--days", "7", "-o", "-"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith("user_id,")
    process.stdout.close()
    assert "pipe" not in process.stderr.read().lower()
    assert process.wait() == 0
