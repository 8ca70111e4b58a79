"""`predict`, `forecast`, `generate` and `embed`: what the pipelines return, as files."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from command_line import ZONE, call
from huggingface_hub import ModelCard

from hf_mobility import (
    MobilityEmbeddingPipeline,
    NextLocationPipeline,
    TrajectoryGenerationPipeline,
    TrajectoryPredictionPipeline,
)
from hf_mobility.data.io.exports import week_matrix


def test_predict_writes_what_the_pipeline_returns(town: SimpleNamespace, tmp_path: Path) -> None:
    call("predict", town.samoe, town.visits, "--top-k", 3, "-o", tmp_path / "next.parquet")
    expected = NextLocationPipeline.from_pretrained(town.samoe).predict(town.frame, top_k=3)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "next.parquet"), expected)


def test_another_city_is_read_from_visits_or_from_a_list_of_places(town: SimpleNamespace, tmp_path: Path) -> None:
    places = town.frame[["location_id", "lat", "lon"]].drop_duplicates("location_id")
    places.rename(columns={"location_id": "venue"}).to_csv(tmp_path / "places.csv", index=False)
    renamed = tmp_path / "visits.csv"
    town.frame.rename(columns={"location_id": "venue"}).to_csv(renamed, index=False)
    common = ("--timezone", ZONE, "--column", "location_id=venue", "-o", tmp_path / "next.csv")
    call("predict", town.samoe, renamed, "--city", tmp_path / "places.csv", *common)
    unseen = pd.read_csv(tmp_path / "next.csv")
    assert set(unseen["location_id"]) <= set(places["location_id"])
    call("predict", town.samoe, renamed, "--city", renamed, *common)
    assert len(pd.read_csv(tmp_path / "next.csv")) == len(unseen) == 5 * 30
    town.city.save(tmp_path / "city")
    call("predict", town.samoe, renamed, "--city", tmp_path / "city", *common)
    expected = NextLocationPipeline.from_pretrained(town.samoe, city=town.city).predict(town.frame)
    assert pd.read_csv(tmp_path / "next.csv")["location_id"].tolist() == expected["location_id"].tolist()


def test_geoparquet_goes_out_and_in(town: SimpleNamespace, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas", reason="geopandas is not installed")
    call("prepare", town.visits, "-o", tmp_path / "v.geoparquet")
    assert geopandas.read_parquet(tmp_path / "v.geoparquet").crs.to_epsg() == 4326
    call("predict", town.samoe, tmp_path / "v.geoparquet", "-o", tmp_path / "next.geoparquet")
    found = geopandas.read_parquet(tmp_path / "next.geoparquet")
    np.testing.assert_allclose(found.geometry.x, found["lon"])
    assert len(found) == 5 * 30


def test_generate_writes_the_weeks_of_the_pipeline(generator: Path, tmp_path: Path) -> None:
    call("generate", generator, "-n", 6, "--seed", 2, "-o", tmp_path / "weeks.parquet")
    expected = TrajectoryGenerationPipeline.from_pretrained(generator).generate(6, seed=2, to="weeks")
    assert np.array_equal(week_matrix(pd.read_parquet(tmp_path / "weeks.parquet"))[1], expected)
    assert "train" in ModelCard.load(generator / "README.md").text


def test_embed_writes_users_or_cells(town: SimpleNamespace, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors.parquet"
    call("embed", encoder, town.visits, "-o", out)
    users = pd.read_parquet(out)
    assert users["user_id"].tolist() == list(range(30)) and "e15" in users
    call("embed", encoder, town.visits, "--cell-km", 3.0, "--min-users", 2, "--pooling", "mean", "-o", out)
    cells = pd.read_parquet(out)
    assert (cells["users"] >= 2).all() and len(cells) > 2


def test_predict_takes_points_for_raw(town: SimpleNamespace, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "positions.parquet"
    for text, horizon in (("2", 2), ("45min", "45min")):
        call("predict", encoder, town.points, "--horizon", text, "--batch-size", 8, "--device", "cpu", "-o", out)
        expected = TrajectoryPredictionPipeline.from_pretrained(encoder, batch_size=8).predict(
            town.points, horizon=horizon
        )
        pd.testing.assert_frame_equal(pd.read_parquet(out), expected)
    call("predict", encoder, town.points, "-o", out)
    assert pd.read_parquet(out)["horizon"].max() == 2


def test_forecast_writes_the_visits_of_the_pipeline(town: SimpleNamespace, tmp_path: Path) -> None:
    call("forecast", town.samoe, town.visits, "--steps", 3, "-o", tmp_path / "ahead.parquet")
    expected = NextLocationPipeline.from_pretrained(town.samoe).forecast(town.frame, steps=3)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "ahead.parquet"), expected)


def test_stdout_takes_the_table_and_stderr_the_rest(town: SimpleNamespace) -> None:
    result = call("predict", town.samoe, town.visits, "--top-k", 1, "-o", "-")
    table = pd.read_csv(StringIO(result.stdout))
    expected = NextLocationPipeline.from_pretrained(town.samoe).predict(town.frame, top_k=1)
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    assert "30 rows for 30 users -> stdout" in result.stderr


def test_embed_reads_the_days_between_start_and_end(town: SimpleNamespace, encoder: Path, tmp_path: Path) -> None:
    days = {"start": "2024-01-01", "end": "2024-01-08"}
    out = tmp_path / "users.parquet"
    call("embed", encoder, town.points, "--start", days["start"], "--end", days["end"], "-o", out)
    pipe = MobilityEmbeddingPipeline.from_pretrained(encoder)
    expected = pipe.embed_users(town.points, **days)
    pd.testing.assert_frame_equal(pd.read_parquet(out), expected)
    assert not np.allclose(expected["e0"], pipe.embed_users(town.points)["e0"])
    call("embed", encoder, town.points, "--user-pooling", "day_parts", "-o", out)
    pd.testing.assert_frame_equal(pd.read_parquet(out), pipe.embed_users(town.points, user_pooling="day_parts"))
    told = call("embed", encoder, town.points, "--user-pooling", "last", "--cell-km", 1, "-o", out, code=2).stderr
    assert "--user-pooling is for users, not for regions" in " ".join(told.replace("│", " ").split())


def test_tables_in_another_spelling_give_the_same(town: SimpleNamespace, tmp_path: Path) -> None:
    local = town.frame["time"].dt.tz_convert(ZONE)
    table = town.frame.assign(time=local.dt.strftime("%d.%m.%Y %H:%M:%S")).rename(columns={"user_id": "uid"})
    table.to_csv(tmp_path / "visits.csv", sep=";", index=False)
    how = ("--sep", ";", "--time-format", "%d.%m.%Y %H:%M:%S", "--timezone", ZONE, "--column", "user_id=uid")
    call("predict", town.samoe, tmp_path / "visits.csv", *how, "-o", tmp_path / "next.parquet")
    seconds = town.frame.assign(time=town.frame["time"].dt.floor("s"))
    expected = NextLocationPipeline.from_pretrained(town.samoe).predict(seconds)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "next.parquet"), expected)


def test_options_of_another_model_are_refused(town: SimpleNamespace, encoder: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "x.csv")
    for model, option, told in (
        (town.samoe, "--horizon", "--horizon is for RAW, not for SAMoE"),
        (encoder, "--top-k", "--top-k is for SAMoE, not for RAW"),
    ):
        assert told in call("predict", model, town.points, option, 2, *out, code=2).stderr
