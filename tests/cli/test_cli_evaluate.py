"""`evaluate` and `audit`: what the verbs return, shown and written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from command_line import ZONE, call

from hf_mobility import MstarTokenizer, TrajectoryGenerationPipeline, evaluate_checkpoint, make_task
from hf_mobility.data.training_record import FILE
from hf_mobility.evaluation import audit


def test_evaluate_shows_baselines_first_for_each_system(
    town: SimpleNamespace, generator: Path, encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "table.csv"
    result = call("evaluate", town.samoe, town.visits, "-o", out)
    table = pd.read_csv(out)
    assert table["model"].tolist() == ["UserFrequency", "UserMarkov", "ContextMix", "samoe"]
    assert table["n"].nunique() == 1 and table["n"][0] == make_task(town.frame, town.city).target.sum()
    assert result.stdout.index("UserMarkov") < result.stdout.index("samoe")
    shown = call("evaluate", town.samoe, town.visits, "--groups", "-o", out).stdout
    assert "user_acc@1" in shown and "periphery" in shown and "periphery" in set(pd.read_csv(out)["subset"])
    call("evaluate", town.samoe, town.visits, "--city", town.visits, "--timezone", ZONE, "-o", out)
    assert pd.read_csv(out)["model"].iloc[-1] == "samoe"
    elsewhere = tmp_path / "elsewhere.parquet"
    town.frame.assign(location_id="x" + town.frame["location_id"]).to_parquet(elsewhere)
    call("evaluate", town.samoe, elsewhere, "--city", elsewhere, "--timezone", ZONE, "-o", out)
    pd.testing.assert_frame_equal(pd.read_csv(out), table)  # whatever city lies beside the weights

    call("evaluate", generator, town.folder / "whole.parquet", "--test-fraction", 0.4, "-o", out)
    assert pd.read_csv(out)["model"].tolist()[:2] == ["train sample", "real itself"]
    assert pd.read_csv(out)["model"].iloc[-1] == "weeks"

    call("evaluate", encoder, town.points, "-o", out)
    table = pd.read_csv(out)
    pd.testing.assert_frame_equal(table, evaluate_checkpoint(encoder, town.points), check_dtype=False)
    assert list(table["model"].unique()) == [
        "CopyLast",
        "CityMedian",
        "Shrinkage",
        "HourMean",
        "HourMedian",
        "NearestPast",
        "raw",
    ]
    assert 0 < table["users"].max() <= 6  # of thirty, those with a record at a horizon


def test_an_adapter_is_evaluated_as_the_model_around_it(town: SimpleNamespace, local: Path) -> None:
    result = call("evaluate", local, town.visits)
    assert " local " in result.output
    assert "adapter:" in call("info", local).output


def test_what_a_model_has_seen_is_no_test_of_it(town: SimpleNamespace, generator: Path, tmp_path: Path) -> None:
    """The record of the training tells, and without one the popularity, homes and box that the tokenizer counted."""
    whole, zone = town.folder / "whole.parquet", ("--timezone", ZONE)
    short, tiny = ("--steps", 1, "--batch-size", 4, *zone), ("--size", "tiny", "--min-users", 1)
    call("adapt", town.samoe, town.visits, "--strength", "none", *zone, "-o", tmp_path / "adapter")
    call("train", whole, "--system", "mstar-codec", *short, *tiny, "-o", tmp_path / "codec")
    tiny = (*tiny, "--codec", tmp_path / "codec")
    call("train", whole, "--system", "mstar", *short, *tiny, "-o", tmp_path / "weeks")
    call("train", whole, "--system", "raw", "--size", "tiny", *short, "-o", tmp_path / "raw")
    for model, visits in (("adapter", town.visits), ("weeks", whole), ("raw", whole)):
        assert "was trained on about 100% of the" in call("evaluate", tmp_path / model, visits, code=1).stderr
        (tmp_path / model / FILE).unlink()
    assert "unless it was trained with the same test_fraction" in call("evaluate", tmp_path / "raw", whole).stderr
    for model, visits in (("adapter", town.visits), ("weeks", whole)):
        assert "was made from exactly these records" in call("evaluate", tmp_path / model, visits, code=1).stderr
    with_city = ("--city", town.visits, *zone)
    assert "exactly these" in call("evaluate", tmp_path / "adapter", town.visits, *with_city, code=1).stderr


def test_weeks_of_another_city_are_told_by_their_homes(generator: Path, tmp_path: Path) -> None:
    call("prepare", "--simulate", 30, "--days", 14, "--seed", 2, "-o", tmp_path / "other.parquet")
    assert "the table compares two cities" in call("evaluate", generator, tmp_path / "other.parquet").stderr


def test_audit_of_visits_is_the_verbs(town: SimpleNamespace, tmp_path: Path) -> None:
    result = call("audit", town.visits, "--min-users", 3, "-o", tmp_path / "audit.parquet")
    expected = audit(town.frame, min_users=3)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "audit.parquet"), expected)
    assert result.stdout.splitlines()[: len(expected)] == expected["sentence"].tolist()


def test_audit_of_a_folder_counts_what_its_city_lists(generator: Path) -> None:
    sentences = audit(generator, min_users=2)["sentence"].tolist()
    assert call("audit", generator, "--min-users", 2).stdout.splitlines()[: len(sentences)] == sentences
    assert any("pairs of home and work are of fewer than 2 people" in sentence for sentence in sentences)


def test_audit_of_weeks_takes_visits_on_the_generators_grid(
    town: SimpleNamespace, generator: Path, tmp_path: Path
) -> None:
    whole = pd.read_parquet(town.folder / "whole.parquet")
    whole[whole["user_id"] < 20].to_parquet(tmp_path / "train.parquet")
    whole[whole["user_id"] >= 20].to_parquet(tmp_path / "others.parquet")
    call("generate", generator, "-n", 8, "-o", tmp_path / "weeks.parquet")
    files = ("--train", tmp_path / "train.parquet", "--held-out", tmp_path / "others.parquet")
    call("audit", tmp_path / "weeks.parquet", *files, "--city", generator, "-o", tmp_path / "a.csv")
    tokenizer = TrajectoryGenerationPipeline.from_pretrained(generator).tokenizer
    train, others = (tokenizer.weeks(whole[mask]) for mask in (whole["user_id"] < 20, whole["user_id"] >= 20))
    made = pd.read_parquet(tmp_path / "weeks.parquet")
    expected = audit(made, train=train.cells, held_out=others.cells, train_users=train.user_id)
    np.testing.assert_allclose(pd.read_csv(tmp_path / "a.csv")["value"], expected["value"])


def test_weeks_are_evaluated_from_records_or_from_a_table(
    town: SimpleNamespace, generator: Path, tmp_path: Path
) -> None:
    whole = town.folder / "whole.parquet"
    cells, users, _ = MstarTokenizer.from_pretrained(generator).weeks(pd.read_parquet(whole))
    table = pd.DataFrame({"user_id": users, "cells": list(cells)})
    table.to_parquet(tmp_path / "weeks.parquet")
    how = ("--test-fraction", 0.4, "--min-known", 0.9)
    result = call("evaluate", generator, tmp_path / "weeks.parquet", *how, "-o", tmp_path / "out.parquet")
    expected = evaluate_checkpoint(generator, table, test_fraction=0.4, min_known=0.9)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), expected)
    assert expected.attrs["notes"][0] in result.stderr and "(at least 90% of the hours known)" in result.stderr


def test_stdout_takes_all_measures(town: SimpleNamespace, encoder: Path) -> None:
    result = call("evaluate", encoder, town.points, "-o", "-")
    assert result.stdout.startswith("model,subset,horizon") and "error_km" in result.stderr
