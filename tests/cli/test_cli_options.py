"""Options that would be ignored are refused, in one sentence that says what they are for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from command_line import ZONE, call

SIMULATION = ("prepare", "--simulate", 5, "--days", 7)
TABLE = ("prepare", "VISITS")
COUNTS_FOR_OTHERS = [
    ((*SIMULATION, "--reader", "table"), "give either a source to read, and its --reader, or --simulate USERS"),
    ((*SIMULATION, "--places", "VISITS"), "--places is for --reader tist2015, not for --simulate"),
    ((*SIMULATION, "--bounds", "0,0,1,1"), "--reader gowalla, not for --simulate"),
    ((*SIMULATION, "--anchor", "0,0"), "--anchor is for --reader yjmob100k, not for --simulate"),
    ((*SIMULATION, "--cell-km", 1), "--cell-km is for --reader geolife or --reader cabspotting, not for --simulate"),
    ((*SIMULATION, "--points"), "--points is for --reader geolife or --reader cabspotting, not for --simulate"),
    ((*SIMULATION, "--column", "user_id=uid"), "--column is for --reader table, not for --simulate"),
    ((*SIMULATION, "--sep", ";"), "--sep is for --reader table, not for --simulate"),
    ((*SIMULATION, "--time-format", "%Y"), "--time-format is for --reader table, not for --simulate"),
    ((*TABLE, "--days", 7), "--days is for --simulate, not for --reader table"),
    ((*TABLE, "--observe", 0.5), "--observe is for --simulate, not for --reader table"),
    ((*TABLE, "--seed", 0), "--seed is for --simulate, not for --reader table"),
    ((*TABLE, "--card", "card.md"), "--card is for --simulate, not for --reader table"),
    ((*TABLE, "--start", "2024-01-01"), "--start is for --reader yjmob100k or --simulate, not for --reader table"),
    ((*TABLE, "--reader", "gowalla", "--timezone", ZONE), "--reader table or --simulate, not for --reader gowalla"),
    (("predict", "RAW", "VISITS", "--unknown", "drop"), "--unknown is for SAMoE, not for RAW"),
    (("embed", "RAW", "VISITS", "--pooling", "mean"), "--pooling is for regions (--regions, --cell-km), not for users"),
    (("embed", "RAW", "VISITS", "--min-users", 5), "--min-users is for regions (--regions, --cell-km), not for users"),
    (("audit", "VISITS", "--city", "RAW"), "--city is for weeks, not for visits"),
    (("audit", "RAW", "--city", "RAW"), "--city is for weeks, not for a folder"),
    (("audit", "RAW", "--sep", ";"), "--sep is for visits or weeks, not for a folder"),
    (("audit", "RAW", "--train", "VISITS", "--held-out", "VISITS"), "are for weeks, not for a folder"),
    (("audit", "VISITS", "--train", "VISITS", "--held-out", "VISITS", "--min-users", 5), "not for weeks"),
]


@pytest.mark.parametrize(("command", "sentence"), COUNTS_FOR_OTHERS, ids=lambda value: str(value)[-40:])
def test_an_option_that_would_be_ignored_is_refused(
    command: tuple, sentence: str, town: SimpleNamespace, encoder: Path, tmp_path: Path
) -> None:
    """Also where the value is the default."""
    there = {"VISITS": town.visits, "RAW": encoder}
    given = [there.get(word, word) for word in command]
    told = call(*given, "-o", tmp_path / "out.csv", code=2).stderr
    assert sentence in " ".join(told.replace("│", " ").split())
    assert not (tmp_path / "out.csv").exists()


def test_the_place_of_a_card_is_checked_before_the_simulation(tmp_path: Path) -> None:
    simulation = ("prepare", "--simulate", 0, "--card", tmp_path)  # 0 users would be an error of its own
    assert "is a folder; name a file in it" in call(*simulation, "-o", tmp_path / "out.csv", code=1).stderr


def test_defaults_are_those_of_the_verbs(encoder: Path, town: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "cells.parquet"
    cells = ("embed", encoder, town.visits, "--cell-km", 3.0, "-o", out)
    call(*cells, "--pooling", "sum", "--min-users", 5)
    expected = pd.read_parquet(out)
    call(*cells)
    pd.testing.assert_frame_equal(pd.read_parquet(out), expected)
