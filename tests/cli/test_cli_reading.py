"""The options of reading: what each is for, file by file, and that none of them is ignored."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from command_line import ZONE, call

from hf_mobility import SamoeTokenizer
from hf_mobility.cli import options
from hf_mobility.cli.reading import Reading
from hf_mobility.data import DataError
from hf_mobility.modeling.configuration_raw import USER_POOLINGS
from hf_mobility.pipelines.embedding import POOLINGS
from hf_mobility.training.adapt import STRENGTHS
from hf_mobility.training.train import SYSTEMS

FORMAT = "%d.%m.%Y %H:%M:%S"


@pytest.fixture
def spelled(town: SimpleNamespace, tmp_path: Path) -> SimpleNamespace:
    """The visits of the town to the second: as a CSV file of another spelling with the options that read it, and as a
    Parquet file."""
    visits = town.frame.assign(time=town.frame["time"].dt.floor("s"))
    local = visits.assign(time=visits["time"].dt.tz_convert(ZONE).dt.strftime(FORMAT))
    local.rename(columns={"user_id": "uid"}).to_csv(tmp_path / "visits.csv", sep=";", index=False)
    visits.to_parquet(tmp_path / "visits.parquet")
    how = ("--sep", ";", "--time-format", FORMAT, "--column", "user_id=uid", "--timezone", ZONE)
    return SimpleNamespace(csv=tmp_path / "visits.csv", parquet=tmp_path / "visits.parquet", how=how)


def test_the_options_are_for_the_city_too_and_each_for_the_files_that_it_fits(
    town: SimpleNamespace, spelled: SimpleNamespace, tmp_path: Path
) -> None:
    """Separator and format of times for CSV files; a name for the files that have such a column."""
    out = ("-o", tmp_path / "next.parquet")
    call("predict", town.samoe, spelled.parquet, "--city", spelled.parquet, "--timezone", ZONE, *out)
    expected = pd.read_parquet(tmp_path / "next.parquet")
    for records, city in [(spelled.csv, spelled.csv), (spelled.csv, spelled.parquet), (spelled.parquet, spelled.csv)]:
        call("predict", town.samoe, records, "--city", city, *spelled.how, *out)
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "next.parquet"), expected)


def test_places_are_read_as_visits_are(tmp_path: Path) -> None:
    (tmp_path / "places.csv").write_text("venue;lat;lon\nNA;48.1;11.5\n007;48.2;11.6\n", encoding="utf-8")
    reading = Reading(timezone=ZONE, column=["location_id=venue", "time=when"], sep=";", time_format=FORMAT)
    city = reading.city(tmp_path / "places.csv")
    assert city.location_ids.tolist() == ["007", "NA"] and city.lat.tolist() == [48.2, 48.1]


def test_generated_weeks_are_known_whatever_the_separator(
    town: SimpleNamespace, generator: Path, tmp_path: Path
) -> None:
    call("generate", generator, "-n", 8, "-o", tmp_path / "weeks.parquet")
    made = pd.read_parquet(tmp_path / "weeks.parquet")
    made.to_csv(tmp_path / "weeks.csv", sep=";", index=False)
    assert "give both --train and --held-out" in call("audit", tmp_path / "weeks.csv", "--sep", ";", code=2).stderr
    whole = pd.read_parquet(town.folder / "whole.parquet").rename(columns={"user_id": "uid"})
    whole[whole["uid"] < 20].to_parquet(tmp_path / "train.parquet")
    whole[whole["uid"] >= 20].to_csv(tmp_path / "others.csv", sep=";", index=False)
    real = ("--train", tmp_path / "train.parquet", "--held-out", tmp_path / "others.csv", "--city", generator)
    how = ("--sep", ";", "--column", "user_id=uid")
    for weeks in ("weeks.csv", "weeks.parquet"):
        call("audit", tmp_path / weeks, *real, *how, "-o", tmp_path / f"of-{weeks}")
    found, expected = pd.read_csv(tmp_path / "of-weeks.csv"), pd.read_parquet(tmp_path / "of-weeks.parquet")
    np.testing.assert_allclose(found["value"], expected["value"])
    fault = call("audit", tmp_path / "weeks.csv", *real[:-2], *how, code=2).stderr
    assert "train.parquet holds no weeks" in fault and "--city" in fault


@pytest.mark.parametrize("names", ["h{}", "h{:02}", "slot{}", "{}"])
def test_tables_of_weeks_are_read_with_their_own_columns_only(names: str, tmp_path: Path) -> None:
    cells = np.array([[3, -1, 0], [2, 2, 1]])
    frame = pd.DataFrame(np.where(cells < 0, np.nan, cells), columns=[names.format(slot) for slot in range(3)])
    frame.assign(uid=["007", "8"]).to_csv(tmp_path / "weeks.csv", sep=";", index=False)
    reading = Reading(column=["user_id=uid", "location_id=venue"], sep=";", time_format=FORMAT)
    assert reading.holds_weeks(tmp_path / "weeks.csv")
    for table in (reading.records(tmp_path / "weeks.csv"), reading.weeks(tmp_path / "weeks.csv")):
        assert np.array_equal(table.cells, cells) and table.user_id.tolist() == ["007", "8"]
    with pytest.raises(DataError, match=r"weeks.csv holds weeks of cells; give visits or points"):
        reading.visits(tmp_path / "weeks.csv")


def test_an_option_that_fits_no_file_is_refused(town: SimpleNamespace, spelled: SimpleNamespace) -> None:
    for given, sentence in {
        ("--sep", ";"): "are for .csv files, not for visits.parquet, city.parquet.",
        ("--time-format", FORMAT): "are for .csv files, not for visits.parquet, city.parquet.",
        ("--column", "time=wenn"): "--column time=wenn: there is no column 'wenn' in visits.parquet, city.parquet.",
    }.items():
        city = spelled.parquet.with_name("city.parquet")
        city.write_bytes(spelled.parquet.read_bytes())
        command = ("predict", town.samoe, spelled.parquet, "--city", city, "--timezone", ZONE, *given)
        assert sentence in call(*command, "-o", "-", code=1).stderr
    told = call("audit", spelled.parquet, "--column", "place=location_id", code=2).stderr
    assert "there is no role place; the roles are user_id, time, " in " ".join(told.split())


def test_every_command_that_reads_records_has_the_four_options() -> None:
    readers = ("prepare", "train", "adapt", "predict", "forecast", "embed", "evaluate", "audit")
    for command in readers:
        told = call(command, "--help").output
        for option in ("--timezone", "--column", "--sep", "--time-format"):
            assert told.count(f"  {option} ") == 1, (command, option)


def test_the_choices_of_options_are_those_of_the_library(town: SimpleNamespace) -> None:
    assert get_args(options.System) == tuple(SYSTEMS)
    assert get_args(options.Strength) == ("auto", *STRENGTHS)
    assert get_args(options.Pooling) == POOLINGS
    assert get_args(options.UserPooling) == USER_POOLINGS
    with pytest.raises(ValueError, match="unknown must be") as fault:
        SamoeTokenizer.from_pretrained(town.samoe).encode_visits(town.frame, unknown="?")
    assert tuple(re.findall(r"'(\w+)'", str(fault.value))) == get_args(options.Unknown)
