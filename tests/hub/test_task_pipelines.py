"""transformers' `pipeline(task, model=...)` says what the package's own pipelines and models say. Without the package:
test_remote_code.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import pipeline

from hf_mobility import (
    City,
    MobilityEmbeddingPipeline,
    MstarTokenizer,
    NextLocationPipeline,
    RawModel,
    RawTokenizer,
    SamoeTokenizer,
    TrajectoryGenerationPipeline,
    TrajectoryPredictionPipeline,
)
from hf_mobility.hub.auto import TASKS
from hf_mobility.modeling.pipelines_mobility import PIPELINES

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
SAMOE, MSTAR, RAW = (str(CHECKPOINTS / name) for name in ("samoe-small", "mstar-cells-small", "raw-released-small"))


def task(name: str, folder: str) -> Any:
    return pipeline(name, model=folder, device="cpu")


@pytest.fixture(scope="module")
def visits() -> pd.DataFrame:
    """Users with 1, 5 and 600 visits, in no order."""
    city = SamoeTokenizer.from_pretrained(SAMOE)
    rng = np.random.default_rng(0)
    users = np.repeat(["c", "a", "b"], [5, 600, 1])
    rows = rng.integers(0, 30, len(users))
    times = pd.Timestamp("2024-03-01", tz="UTC") + pd.to_timedelta(rng.permutation(len(users)) * 3571, unit="s")
    columns = {"lat": city.lat[rows], "lon": city.lon[rows], "location_id": city.location_ids[rows]}
    return pd.DataFrame({"user_id": users, "time": times, **columns})


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    """Users whose last records are days apart; one of them fills more than a window, one has a single point."""
    points = walk("long", "2024-03-01 05:00", 14 * 48, seed=1)
    return pd.concat(
        [points, walk("short", "2024-03-04 11:10", 20, seed=2), walk("one", "2024-03-02 23:50", 1, seed=3)]
    )


def walk(user: str, start: str, records: int, *, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    times = pd.date_range(start, periods=records, freq="30min", tz="Europe/Berlin")
    units = 0.5 + 0.01 * rng.standard_normal((records, 2)).cumsum(axis=0).clip(-20, 20)
    lat, lon = RawTokenizer.from_pretrained(RAW).decode(units[None]).values()
    return pd.DataFrame({"user_id": user, "time": times, "lat": lat, "lon": lon})


def test_the_tasks_that_folders_name_are_the_registered_ones() -> None:
    named = {task: (pipeline.__name__, auto) for task, pipeline, auto in PIPELINES.values()}
    assert named == TASKS


def test_next_location_ranks_as_the_packages_pipeline(visits: pd.DataFrame) -> None:
    found = pd.DataFrame(task("next-location", SAMOE)(visits, top_k=4))
    wanted = NextLocationPipeline.from_pretrained(SAMOE).predict(visits, top_k=4)
    keys = ["user_id", "rank", "location_id", "lat", "lon"]
    pd.testing.assert_frame_equal(found[keys], wanted[keys], check_dtype=False)
    np.testing.assert_allclose(found["probability"], wanted["probability"], rtol=1e-4)


def test_every_form_of_records_is_one_input_and_a_list_of_tables_several(visits: pd.DataFrame) -> None:
    pipe = pipeline("next-location", model=SAMOE, device="cpu", top_k=2)
    whole = pipe(visits)
    assert len(whole) == 6
    renamed = visits.rename(columns={"user_id": "uid"})
    for records in (visits.to_dict("list"), visits.to_dict("records")):
        assert pipe(records) == whole
    assert pipe(renamed, user_id="uid") == whole
    one_by_one = pipe(visits, batch_size=1)
    assert [row["location_id"] for row in one_by_one] == [row["location_id"] for row in whole]
    first, second = pipe([visits[visits["user_id"] == "a"], visits[visits["user_id"] == "b"].to_dict("list")])
    assert [row["location_id"] for row in first + second] == [row["location_id"] for row in whole[:4]]


@pytest.mark.parametrize("top_k", [0, 10_000])
def test_more_places_than_the_city_has_are_refused(top_k: int, visits: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=f"top_k must be between 1 and the city's .* places, got {top_k}"):
        task("next-location", SAMOE)(visits, top_k=top_k)


def test_the_usual_number_of_places_is_that_of_the_city_where_it_has_fewer(visits: pd.DataFrame) -> None:
    ids = SamoeTokenizer.from_pretrained(SAMOE).location_ids[:3]
    few = visits[visits["location_id"].isin(ids)]
    city = City.from_visits(few, timezone="UTC")
    pipe = pipeline("next-location", model=SAMOE, tokenizer=SamoeTokenizer.from_city(city), device="cpu")
    found = pd.DataFrame(pipe(few))
    assert (found.groupby("user_id")["location_id"].nunique() == 3).all()
    np.testing.assert_allclose(found.groupby("user_id")["probability"].sum(), 1.0, rtol=1e-5)


def test_a_context_without_visits_is_refused(visits: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="context must be at least 1, got 0"):
        task("next-location", SAMOE)(visits, context=0)


def test_stays_of_a_list_of_dicts_count_wherever_they_stand(points: pd.DataFrame) -> None:
    records = points[points["user_id"] == "short"].to_dict("records")
    stay = {**records.pop(), "duration": 7200}
    frame = pd.DataFrame([*records, stay])
    pipe = task("trajectory-prediction", RAW)
    for table in ([*records, stay], [stay, *records]):
        assert pipe(table, horizon=0.5) == pipe(frame, horizon=0.5)


def test_drawn_weeks_are_those_of_the_packages_pipeline() -> None:
    found = pd.DataFrame(task("trajectory-generation", MSTAR)(3, seed=4, start="2024-03-25"))  # clocks go forward
    wanted = TrajectoryGenerationPipeline.from_pretrained(MSTAR).generate(3, seed=4, start="2024-03-25")
    assert list(found) == ["trajectory_id", "time", "cell", "lat", "lon"]
    np.testing.assert_array_equal(found["cell"], wanted["cell"])
    np.testing.assert_array_equal(found["lat"], wanted["lat"])
    epoch = wanted["time"].dt.tz_convert("UTC").to_numpy("datetime64[s]").astype(np.int64)
    assert (found["time"] == epoch).mean() > 0.99  # an hour that the clock skips has no right answer


def test_known_hours_of_weeks_are_kept() -> None:
    weeks = np.full((2, 168), -1)
    weeks[:, 20:90] = [[17], [40]]
    pipe = task("trajectory-generation", MSTAR)
    found = pd.DataFrame(pipe(weeks))
    assert pipe(weeks.tolist(), batch_size=1) == found.to_dict("records")
    cells = found["cell"].to_numpy().reshape(2, 168)
    assert np.array_equal(cells[:, 20:90], weeks[:, 20:90]) and (cells >= 0).all()
    wanted = TrajectoryGenerationPipeline.from_pretrained(MSTAR).complete(weeks, copy_days=False, seed=0)
    np.testing.assert_array_equal(cells.reshape(-1), wanted["cell"])


def test_completed_records_keep_their_users_and_dates() -> None:
    tokenizer = MstarTokenizer.from_pretrained(MSTAR)
    hours = pd.date_range("2024-05-06", periods=168, freq="h", tz=tokenizer.timezone)
    records = pd.DataFrame({"user_id": np.repeat(["x", "y"], 168), "time": [*hours, *(hours + pd.Timedelta("7D"))]})
    cells = np.repeat([17, 40], 168)
    records = records.assign(lat=tokenizer.lat[cells], lon=tokenizer.lon[cells])
    known = records[records["time"].dt.hour % 12 != 0]
    found = pd.DataFrame(task("trajectory-generation", MSTAR)(known, seed=3))
    wanted = TrajectoryGenerationPipeline.from_pretrained(MSTAR).complete(known, copy_days=False, seed=3)
    assert list(found) == ["trajectory_id", "time", "cell", "lat", "lon", "user_id"]
    assert found["user_id"].tolist() == wanted["user_id"].tolist() == np.repeat(["x", "y"], 168).tolist()
    assert found["cell"].tolist() == wanted["cell"].tolist()
    epoch = wanted["time"].dt.tz_convert("UTC").to_numpy("datetime64[s]").astype(np.int64)
    np.testing.assert_array_equal(found["time"], epoch)


@pytest.mark.parametrize("horizon", [1.5, 30])
def test_predicted_points_are_those_of_the_packages_pipeline(points: pd.DataFrame, horizon: float) -> None:
    """Each user's own last record is the start; 30 hours on, the windows of two users have slid."""
    found = pd.DataFrame(task("trajectory-prediction", RAW)(points, horizon=horizon))
    pipe = TrajectoryPredictionPipeline.from_pretrained(RAW)
    slots = [slot / 4 for slot in range(1, 1 + int(4 * horizon))]
    wanted = pipe.predict(points, horizon=slots, spread_samples=0)
    assert found["user_id"].tolist() == wanted["user_id"].tolist()
    assert found["horizon"].tolist() == wanted["horizon"].tolist() == slots * 3
    epoch = wanted["time"].dt.tz_convert("UTC").to_numpy("datetime64[s]").astype(np.int64)
    np.testing.assert_array_equal(found["time"], epoch)
    np.testing.assert_allclose(found[["lat", "lon"]], wanted[["lat", "lon"]], rtol=1e-6)


@pytest.mark.parametrize("night", ["2024-03-31 00:40", "2024-10-27 00:40"], ids=["spring", "autumn"])
def test_a_changed_clock_changes_predicted_points_as_in_the_packages_pipeline(night: str) -> None:
    evening = pd.Timestamp(night, tz="Europe/Berlin") - pd.Timedelta("30h")
    points = pd.concat(
        [walk("a", str(evening.tz_localize(None)), 61, seed=1), walk("b", "2024-03-04 11:10", 9, seed=2)]
    )
    found = pd.DataFrame(task("trajectory-prediction", RAW)(points, horizon=4))
    pipe = TrajectoryPredictionPipeline.from_pretrained(RAW)
    wanted = pipe.predict(points, horizon=[slot / 4 for slot in range(1, 17)], spread_samples=0)
    assert found["time"].tolist() == (wanted["time"].astype("int64") // 10**6).tolist()
    np.testing.assert_allclose(found[["lat", "lon"]], wanted[["lat", "lon"]], rtol=1e-6)


def test_embeddings_are_those_of_the_packages_pipeline(points: pd.DataFrame) -> None:
    pipe = task("mobility-embedding", RAW)
    assert isinstance(pipe.model, RawModel)
    found = pipe(points)
    wanted = MobilityEmbeddingPipeline.from_pretrained(RAW).embed_users(points)
    assert [row["user_id"] for row in found] == wanted["user_id"].tolist()
    vectors = torch.tensor([row["embedding"] for row in found])
    torch.testing.assert_close(vectors, torch.tensor(wanted.drop(columns="user_id").to_numpy()))
