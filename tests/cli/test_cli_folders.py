"""Verbs that read all records at one time give for a folder, or a pattern, what they give for one file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from command_line import ZONE, call
from safetensors.numpy import load_file

from hf_mobility import TrajectoryGenerationPipeline
from hf_mobility.data import DataError, validate_visits
from hf_mobility.data.io import streams
from hf_mobility.data.io.records import as_records, name_of
from hf_mobility.data.training_record import TrainingRecord
from hf_mobility.data.weeks import read_weeks
from hf_mobility.evaluation import audit


@pytest.fixture
def folder(town: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The town's visits in three files of shuffled rows, read in blocks of a hundred."""
    monkeypatch.setattr(streams.row_blocks, "__kwdefaults__", {"rows": 100})
    rows = np.random.default_rng(0).permutation(len(town.frame))
    (tmp_path / "visits").mkdir()
    for number, part in enumerate(np.array_split(rows, 3)):
        town.frame.iloc[part].to_parquet(tmp_path / "visits" / f"{number}.parquet", index=False)
    return tmp_path / "visits"


def test_a_folder_is_read_as_one_file_of_all_its_rows(town: SimpleNamespace, folder: Path) -> None:
    whole = as_records(town.visits)
    for source in (folder, str(folder), f"{folder}/*.parquet"):
        pd.testing.assert_frame_equal(as_records(source), whole)
        assert name_of(source) == "visits"
    for path in folder.iterdir():
        frame = pd.read_parquet(path)
        local = frame["time"].dt.tz_convert(ZONE).dt.tz_localize(None)
        texts = "user " + frame["user_id"].astype(str)
        frame.assign(time=local, user_id=texts).rename(columns={"user_id": "uid"}).to_parquet(path, index=False)
    named = validate_visits(town.frame.assign(user_id="user " + town.frame["user_id"].astype(str)))
    pd.testing.assert_frame_equal(as_records(folder, timezone=ZONE, user_id="uid"), named)


def test_faults_name_the_rows_of_all_files(town: SimpleNamespace, folder: Path) -> None:
    last = pd.read_parquet(folder / "2.parquet")
    last.loc[last.index[-1], "lat"] = 95.0
    last.to_parquet(folder / "2.parquet", index=False)
    with pytest.raises(DataError, match=rf"lat.*row.*{len(town.frame) - 1}"):
        as_records(folder)
    for path in folder.iterdir():
        town.frame.head(0).to_parquet(path, index=False)
    with pytest.raises(DataError, match="The files have no rows"):
        as_records(folder)


def test_train_and_adapt_learn_the_same_from_a_folder(town: SimpleNamespace, folder: Path, tmp_path: Path) -> None:
    short = ("--timezone", ZONE, "--size", "tiny", "--steps", 2, "--test-fraction", 0.2, "-o")
    weak = ("--timezone", ZONE, "--strength", "weak", "--test-fraction", 0.2, "-o")
    for command, options in ((("train",), short), (("adapt", town.samoe), weak)):
        for source, name in ((town.visits, "one"), (f"{folder}/*.parquet", "many")):
            call(*command, source, *options, tmp_path / command[0] / name)
        made = [next((tmp_path / command[0] / name).glob("*model.safetensors")) for name in ("one", "many")]
        weights, others = map(load_file, made)
        assert weights.keys() == others.keys()
        for key in weights:
            np.testing.assert_array_equal(weights[key], others[key], err_msg=key)
    record = TrainingRecord.load(tmp_path / "train" / "many")
    assert record is not None and record.share_of(town.frame)["people"] == 1


def test_raw_is_trained_on_a_folder_of_points(town: SimpleNamespace, folder: Path, tmp_path: Path) -> None:
    options = ("--system", "raw", "--timezone", ZONE, "--size", "tiny", "--steps", 1, "--batch-size", 4)
    for source, name in ((town.visits, "one"), (folder, "many")):
        call("train", source, *options, "-o", tmp_path / name)
    weights, others = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "many"))
    for key in weights:
        np.testing.assert_array_equal(weights[key], others[key], err_msg=key)


def test_evaluate_and_audit_give_the_same_table_for_a_folder(
    town: SimpleNamespace, folder: Path, tmp_path: Path
) -> None:
    for command in (("evaluate", town.samoe), ("audit",)):
        for source, name in ((town.visits, "one.csv"), (folder, "many.csv")):
            call(*command, source, "-o", tmp_path / name)
        pd.testing.assert_frame_equal(*(pd.read_csv(tmp_path / name) for name in ("one.csv", "many.csv")))
    pd.testing.assert_frame_equal(audit(f"{folder}/*.parquet"), audit(town.frame))


def test_weeks_in_a_folder_are_those_of_one_file(generator: Path, tmp_path: Path) -> None:
    """Generated ones, as `generate -o weeks/` writes them, and rows of cells."""
    call("generate", generator, "-n", 8, "-o", tmp_path / "weeks")
    cells = TrajectoryGenerationPipeline.from_pretrained(generator).generate(8, seed=1, to="weeks")
    (tmp_path / "real").mkdir()
    rows = pd.DataFrame({"user_id": range(8), "cells": list(cells)})
    rows.to_parquet(tmp_path / "real.parquet", index=False)
    for number, part in enumerate((rows.head(3), rows.tail(5))):
        part.to_parquet(tmp_path / "real" / f"{number}.parquet", index=False)
    found, wanted = read_weeks(tmp_path / "real"), read_weeks(tmp_path / "real.parquet")
    np.testing.assert_array_equal(found.cells, wanted.cells)
    np.testing.assert_array_equal(found.user_id, wanted.user_id)
    for name in ("real", "real.parquet"):
        compared = ("--train", tmp_path / name, "--held-out", tmp_path / name)
        call("audit", tmp_path / "weeks", *compared, "-o", tmp_path / f"{name}.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "real.csv"), pd.read_csv(tmp_path / "real.parquet.csv"))


def test_what_is_no_folder_of_files_is_said(town: SimpleNamespace, tmp_path: Path) -> None:
    nothing = f"{tmp_path}/*.parquet"
    for command in (("adapt", town.samoe), ("train",)):
        told = call(*command, nothing, "--timezone", ZONE, "-o", tmp_path / "out", code=1).stderr
        assert "There is no file" in told
    assert "There is no file" in call("evaluate", town.samoe, nothing, code=1).stderr
    assert "There is no file" in call("audit", nothing, code=1).stderr
    assert "holds no city" in call("audit", tmp_path, code=1).stderr
