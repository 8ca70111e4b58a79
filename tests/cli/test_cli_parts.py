"""Folders and patterns of Parquet files in, folders of parts out: the parts together are the answer for the table."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from command_line import ZONE, call

from hf_mobility import (
    MobilityEmbeddingPipeline,
    NextLocationPipeline,
    TrajectoryGenerationPipeline,
    TrajectoryPredictionPipeline,
)
from hf_mobility.cli import files, parts
from hf_mobility.data import read_table
from hf_mobility.data.io import streams
from hf_mobility.tokenization.errors import NoRecordsError


@pytest.fixture
def stream(town: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The town's visits in three files, cut inside users, and chunks of about a hundred rows."""
    monkeypatch.setattr(streams.user_chunks, "__kwdefaults__", streams.user_chunks.__kwdefaults__ | {"rows": 100})
    folder = tmp_path / "visits"
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(town.frame)), 3)):
        town.frame.iloc[rows].to_parquet(folder / f"{number}.parquet", index=False)
    return folder


def together(folder: Path) -> pd.DataFrame:
    """All parts, in order of users; there are several, and no user is in two of them."""
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"part-{number:05}.parquet" for number in range(len(names))] and len(names) > 2
    made = [pd.read_parquet(folder / name) for name in names]
    assert sum(part["user_id"].nunique() for part in made) == pd.concat(made)["user_id"].nunique()
    return pd.concat(made, ignore_index=True).sort_values("user_id", kind="stable", ignore_index=True)


def as_file(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """What a frame is when it has been written to one file."""
    files.write_frame(frame, folder / "expected.parquet")
    return pd.read_parquet(folder / "expected.parquet")


def test_predict_and_forecast_in_parts_are_those_of_the_table(
    town: SimpleNamespace, stream: Path, tmp_path: Path
) -> None:
    pipe = NextLocationPipeline.from_pretrained(town.samoe)
    told = call("predict", town.samoe, f"{stream}/*.parquet", "--top-k", 3, "-o", f"{tmp_path}/next/").stderr
    expected = pipe.predict(town.frame, top_k=3)
    pd.testing.assert_frame_equal(together(tmp_path / "next"), expected, rtol=1e-5)
    number = len(list((tmp_path / "next").iterdir()))
    assert f"90 rows for 30 users in {number} parts -> {tmp_path}/next" in told
    assert len(re.findall(r"^part-\d{5}.parquet: \d+ rows$", told, flags=re.MULTILINE)) == number
    call("forecast", town.samoe, stream, "--steps", 2, "-o", tmp_path / "ahead")
    pd.testing.assert_frame_equal(together(tmp_path / "ahead"), pipe.forecast(town.frame, steps=2), rtol=1e-5)


def test_names_of_columns_and_naive_times_are_read_in_every_chunk(
    town: SimpleNamespace, stream: Path, tmp_path: Path
) -> None:
    for path in stream.iterdir():
        frame = pd.read_parquet(path)
        local = frame["time"].dt.tz_convert(ZONE).dt.tz_localize(None)
        frame.assign(time=local).rename(columns={"user_id": "uid"}).to_parquet(path, index=False)
    options = ("--column", "user_id=uid", "--timezone", ZONE)
    call("predict", town.samoe, stream, *options, "--top-k", 1, "-o", tmp_path / "next")
    expected = NextLocationPipeline.from_pretrained(town.samoe).predict(town.frame, top_k=1)
    pd.testing.assert_frame_equal(together(tmp_path / "next"), expected, rtol=1e-5)
    told = call("predict", town.samoe, stream, "--timezone", ZONE, "-o", tmp_path / "no", code=1).stderr
    assert "0.parquet lacks the column(s) user_id" in told and told.strip().endswith("(Here: --column user_id=NAME.)")


def test_raw_predicts_and_embeds_in_parts_as_for_the_table(
    town: SimpleNamespace, encoder: Path, stream: Path, tmp_path: Path
) -> None:
    call("predict", encoder, stream, "--horizon", 1, "-o", tmp_path / "positions")
    expected = TrajectoryPredictionPipeline.from_pretrained(encoder).predict(town.frame, horizon=1)
    pd.testing.assert_frame_equal(together(tmp_path / "positions"), expected, rtol=1e-4)
    days = {"start": "2024-01-02", "end": "2024-01-09"}
    options = [word for name, day in days.items() for word in (f"--{name}", day)]
    call("embed", encoder, stream, *options, "-o", tmp_path / "users")
    expected = MobilityEmbeddingPipeline.from_pretrained(encoder).embed_users(town.frame, **days)
    pd.testing.assert_frame_equal(together(tmp_path / "users"), expected, atol=1e-5)


def test_users_in_parts_are_embedded_on_the_same_days_and_regions_are_of_one_file(
    encoder: Path, stream: Path, tmp_path: Path
) -> None:
    out = ("-o", tmp_path / "out")
    assert "need the same days: give --start and --end" in call("embed", encoder, stream, *out, code=1).stderr
    assert "made of all its users" in call("embed", encoder, stream, "--cell-km", 1, *out, code=1).stderr
    assert not (tmp_path / "out").exists()


def test_chunks_without_a_record_in_the_days_are_told_of_and_have_no_part(
    town: SimpleNamespace, encoder: Path, stream: Path, tmp_path: Path
) -> None:
    """As where users are numbered by when they joined."""
    late = town.frame[["user_id", "time", "lat", "lon"]].copy()
    late.loc[late["user_id"] < 8, "time"] += pd.Timedelta(days=365)
    for path in stream.iterdir():
        path.unlink()
    late.to_parquet(stream / "all.parquet", index=False)
    days = {"start": "2024-01-01", "end": "2024-01-15"}
    options = [word for name, day in days.items() for word in (f"--{name}", day)]
    told = call("embed", encoder, stream, *options, "-o", tmp_path / "users").stderr
    assert "chunk 1 has no part: no point lies between" in told
    expected = MobilityEmbeddingPipeline.from_pretrained(encoder).embed_users(late, **days)
    assert expected["user_id"].min() == 8
    pd.testing.assert_frame_equal(together(tmp_path / "users"), expected, atol=1e-5)
    never = ("--start", "2020-01-01", "--end", "2020-01-02")
    assert "no point lies" in call("embed", encoder, stream, *never, "-o", tmp_path / "none", code=1).stderr


def test_one_file_is_read_in_chunks_where_a_folder_is_asked_for(
    town: SimpleNamespace, stream: Path, tmp_path: Path
) -> None:
    (tmp_path / "next").mkdir()
    call("predict", town.samoe, town.visits, "--top-k", 1, "-o", tmp_path / "next")
    expected = NextLocationPipeline.from_pretrained(town.samoe).predict(town.frame, top_k=1)
    pd.testing.assert_frame_equal(together(tmp_path / "next"), expected, rtol=1e-5)


def test_prepare_brings_rows_of_any_order_into_parts_of_whole_users(
    town: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "ROWS", 100)
    days = tmp_path / "days"
    days.mkdir()
    table = town.frame.sample(frac=1, random_state=0).rename(columns={"user_id": "uid"})
    table["uid"] = "user " + table["uid"].astype(str)
    table.loc[table.index[:7], "lat"] = 95.0
    table.to_parquet(tmp_path / "all.parquet", index=False)
    for number, rows in enumerate(np.array_split(np.arange(len(table)), 4)):
        table.iloc[rows].to_parquet(days / f"{number}.parquet", index=False)
    told = call("prepare", days, "--column", "user_id=uid", "-o", tmp_path / "visits").stderr
    assert "30 users; left out: {'coordinates out of range': 7} in" in told
    expected = as_file(read_table(tmp_path / "all.parquet", user_id="uid"), tmp_path)
    pd.testing.assert_frame_equal(together(tmp_path / "visits"), expected)


def test_a_user_who_returns_is_sent_to_prepare(town: SimpleNamespace, stream: Path, tmp_path: Path) -> None:
    town.frame.head(1).to_parquet(stream / "9.parquet", index=False)
    told = call("predict", town.samoe, stream, "-o", tmp_path / "next", code=1).stderr
    assert "1 of 30 users have rows in several chunks (first: [0])" in told and "hf-mobility prepare" in told
    assert not list((tmp_path / "next").glob("*"))


def test_generate_writes_the_same_weeks_into_every_kind_of_output(
    generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch by batch; the draws are those of one call."""
    pipe = TrajectoryGenerationPipeline.from_pretrained(generator, batch_size=4)
    expected = pipe.generate(10, seed=3)
    frames = list(pipe.frames(10, seed=3))
    assert [frame["trajectory_id"].nunique() for frame in frames] == [4, 4, 2]
    pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), expected)
    expected = as_file(expected, tmp_path)
    weeks = ("generate", generator, "-n", 10, "--seed", 3, "--batch-size", 4, "-o")
    call(*weeks, tmp_path / "weeks.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "weeks.parquet"), expected)
    assert pq.ParquetFile(tmp_path / "weeks.parquet").num_row_groups == 3
    for name in ("weeks.csv", "weeks.csv.gz"):
        call(*weeks, tmp_path / name)
        files.write_frame(expected, tmp_path / f"whole-{name}")
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / name), pd.read_csv(tmp_path / f"whole-{name}"))
    assert call(*weeks, "-").stdout == (tmp_path / "weeks.csv").read_text(encoding="utf-8")
    monkeypatch.setattr(parts.joined, "__defaults__", (5 * 168,))
    told = call(*weeks, tmp_path / "weeks").stderr
    made = [pd.read_parquet(path) for path in sorted((tmp_path / "weeks").iterdir())]
    assert [frame["trajectory_id"].nunique() for frame in made] == [8, 2]
    pd.testing.assert_frame_equal(pd.concat(made, ignore_index=True), expected)
    assert f"10 weeks -> {tmp_path / 'weeks'}" in told


def test_folders_that_cannot_be_written_to_are_refused_before_a_model_is_loaded(
    town: SimpleNamespace, stream: Path, tmp_path: Path
) -> None:
    nothing = tmp_path / "no" / "model"
    (tmp_path / "file").touch()
    for command, sentence in {
        ("predict", nothing, stream, "-o", stream): "is not empty: empty it, or name another one",
        ("predict", nothing, stream, "-o", tmp_path / "file"): "file is no folder; name the folder",
        ("predict", nothing, stream, "-o", tmp_path / "next.parquet"): "name a folder for the results",
        ("predict", nothing, f"{stream}/*.parquet", "-o", "-"): "name a folder for the results",
        ("predict", nothing, f"{tmp_path}/*.parquet", "-o", tmp_path / "next"): "There is no file",
        ("embed", nothing, tmp_path, "-o", tmp_path / "next"): "There is no .parquet file in",
        ("prepare", stream, "-o", stream): "is not empty",
        ("prepare", stream, "-o", tmp_path / "all.csv"): "name a folder for the results",
        ("prepare", "--simulate", 5, "-o", tmp_path / "city"): "end its name in",
        ("generate", nothing, "-o", stream): "is not empty",
    }.items():
        days = ("--start", "2024-01-01", "--end", "2024-01-02") if command[0] == "embed" else ()
        assert sentence in call(*command, *days, code=1).stderr, command


def test_files_of_other_columns_are_refused_by_name(town: SimpleNamespace, stream: Path, tmp_path: Path) -> None:
    town.frame.drop(columns="duration").to_parquet(stream / "9.parquet", index=False)
    told = call("predict", town.samoe, stream, "-o", tmp_path / "next", code=1).stderr
    assert "9.parquet has other columns than 0.parquet: duration (missing, not double)" in told


def test_what_is_stopped_leaves_whole_parts_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, written = pd.DataFrame({"user_id": [1, 2]}), parts._write_part

    def write_half(table: pd.DataFrame, path: Path) -> None:
        written(table, path)
        if path.name == "part-00001.parquet":
            path.write_bytes(path.read_bytes()[:-9])
            raise KeyboardInterrupt

    monkeypatch.setattr(parts, "_write_part", write_half)
    with pytest.raises(KeyboardInterrupt):
        parts.write(iter([frame, frame, frame]), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["part-00000.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out"), frame)

    def stopped() -> Any:
        yield frame
        raise KeyboardInterrupt

    for name in ("weeks.parquet", "weeks.csv"):
        with pytest.raises(KeyboardInterrupt):
            files.write_frames(stopped(), tmp_path / name)
        assert not (tmp_path / name).exists()


def test_a_column_without_a_value_in_one_part_is_text_as_in_the_others(tmp_path: Path) -> None:
    labels = [pd.Series([label], name="category", dtype=object) for label in (None, "home")]
    parts.write([label.to_frame() for label in labels], tmp_path)
    assert len({pq.read_schema(path).field("category").type for path in tmp_path.iterdir()}) == 1
    assert pd.read_parquet(tmp_path)["category"].dropna().tolist() == ["home"]


def test_only_what_is_left_of_nothing_is_left_out() -> None:
    def verb(chunk: int) -> int:
        if chunk == 2:
            raise NoRecordsError("nothing is left")
        if chunk == 4:
            raise ValueError("a fault")
        return chunk

    made = parts._answers(verb, [1, 2, 3, 4])
    assert [next(made), next(made)] == [1, 3]
    with pytest.raises(ValueError, match="a fault"):
        next(made)
