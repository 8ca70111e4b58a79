"""People and regions as vectors: against the model by hand, and the promises about people, rows and small regions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hf_mobility.data import DataError, SquareGrid
from hf_mobility.data.regions import Discs, visitors
from hf_mobility.data.simulation.cities import simulate_city
from hf_mobility.data.simulation.points import simulated_points
from hf_mobility.modeling.configuration_raw import USER_POOLINGS, RawConfig
from hf_mobility.modeling.modeling_raw import RawForTrajectoryPrediction
from hf_mobility.pipelines.embedding import MobilityEmbeddingPipeline
from hf_mobility.tokenization.tokenization_raw import RawTokenizer

TOWN = simulate_city(20, num_days=5, num_locations=60, seed=4)
POINTS = simulated_points(TOWN, interval_seconds=1800, seed=0)
GRID = SquareGrid.around(POINTS["lat"], POINTS["lon"], cell_km=3.0)
DAYS = {"start": "2024-01-01", "end": "2024-01-06"}
E_COLUMNS = [f"e{i}" for i in range(16)]


def make_model(**overrides: Any) -> RawForTrajectoryPrediction:
    values = {"max_position_embeddings": 96, "slots_per_day": 48, **overrides}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RawForTrajectoryPrediction(RawConfig.from_preset("tiny", **values)).eval()


def make_tokenizer(**options: Any) -> RawTokenizer:
    """Windows of two days in half hours: five days are two windows and a half."""
    options = {"interval_minutes": 30, "model_max_length": 96, **options}
    return RawTokenizer.from_points(TOWN.visits, timezone=TOWN.timezone, **options)


@pytest.fixture(scope="module")
def pipe() -> MobilityEmbeddingPipeline:
    return MobilityEmbeddingPipeline(make_model(), make_tokenizer(), batch_size=7)


@pytest.fixture(scope="module")
def people(pipe: MobilityEmbeddingPipeline) -> pd.DataFrame:
    return pipe.embed_users(POINTS)


# People


def test_one_row_per_person_and_the_windows_weighed_by_their_length(
    pipe: MobilityEmbeddingPipeline, people: pd.DataFrame
) -> None:
    assert list(people) == ["user_id", *E_COLUMNS] and people["user_id"].tolist() == list(range(20))
    assert (people[E_COLUMNS].dtypes == np.float32).all() and people.attrs == {"windows": 60, "points_outside": 0}
    people = pipe.embed_users(POINTS, **DAYS)
    series = pipe.tokenizer.encode_points(POINTS[POINTS["user_id"] == 6], **DAYS)
    windows = np.split(series.coordinates, series.offsets[1:-1])
    assert [len(window) for window in windows] == [96, 96, 48]
    with torch.no_grad():
        states = [pipe.model(torch.from_numpy(window)[None]).last_hidden_state[0] for window in windows]
    expected = torch.cat(states).mean(dim=0)  # over all slots of all windows
    np.testing.assert_allclose(people.loc[6, E_COLUMNS].to_numpy(float), expected.numpy(), atol=1e-5)


def test_the_pooling_of_a_call_is_that_of_a_model_with_it(pipe: MobilityEmbeddingPipeline) -> None:
    for pooling in USER_POOLINGS:
        other = MobilityEmbeddingPipeline(make_model(user_pooling=pooling), make_tokenizer())
        found = pipe.embed_users(POINTS, user_pooling=pooling, **DAYS)
        pd.testing.assert_frame_equal(found, other.embed_users(POINTS, **DAYS), atol=1e-5)
        assert found.shape[1] == 1 + (64 if pooling == "day_parts" else 16)
    quarters = pipe.embed_users(POINTS, user_pooling="day_parts", **DAYS).iloc[:, 1:].to_numpy().reshape(20, 4, 16)
    whole = pipe.embed_users(POINTS, **DAYS)[E_COLUMNS].to_numpy()
    np.testing.assert_allclose(quarters.mean(1), whole, atol=1e-5)
    regions = pipe.embed_regions(POINTS, GRID, user_embeddings=pipe.embed_users(POINTS, user_pooling="day_parts"))
    assert regions.shape[1] == 2 + 64
    with pytest.raises(DataError, match=r"user_pooling must be one of .*'day_parts'.*, not 'max'"):
        pipe.embed_users(POINTS, user_pooling="max")


def test_row_order_columns_and_batches_leave_no_trace(pipe: MobilityEmbeddingPipeline, people: pd.DataFrame) -> None:
    before = POINTS.copy(deep=True)
    shuffled = POINTS.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(pipe.embed_users(shuffled), people)
    renamed = shuffled.rename(columns={"user_id": "who", "lat": "y", "lon": "x"})
    pd.testing.assert_frame_equal(pipe.embed_users(renamed, user_id="who", lat="y", lon="x"), people)
    for size in (1, 1000):
        pd.testing.assert_frame_equal(pipe.embed_users(POINTS, batch_size=size), people, atol=1e-5)
    pd.testing.assert_frame_equal(POINTS, before)


def test_a_person_does_not_depend_on_the_others_given_the_days(pipe: MobilityEmbeddingPipeline) -> None:
    few = pipe.embed_users(POINTS[POINTS["user_id"].isin([3, 6])], **DAYS)
    expected = pipe.embed_users(POINTS, **DAYS).iloc[[3, 6]].reset_index(drop=True)
    pd.testing.assert_frame_equal(few, expected, check_dtype=False, atol=1e-5)


def test_ids_may_be_text_and_visits_are_stays(pipe: MobilityEmbeddingPipeline, people: pd.DataFrame) -> None:
    named = POINTS.assign(user_id="p" + POINTS["user_id"].astype(str))
    found = pipe.embed_users(named).set_index("user_id")
    np.testing.assert_allclose(found.loc["p6"], people.loc[6, E_COLUMNS].to_numpy(float), atol=1e-5)
    regions = pipe.embed_regions(named, GRID, user_embeddings=found.reset_index())
    assert regions["users"].tolist() == pipe.embed_regions(POINTS, GRID, user_embeddings=people)["users"].tolist()
    stays = pipe.embed_users(TOWN.visits)
    series = pipe.tokenizer.encode_points(TOWN.visits)
    assert stays["user_id"].tolist() == np.unique(series.user_ids).tolist()
    assert (
        np.abs(stays[E_COLUMNS].to_numpy() - pipe.embed_users(TOWN.visits.drop(columns="duration"))[E_COLUMNS])
        .max()
        .max()
        > 1e-4
    )


def test_bfloat16_is_near_and_hands_back_float32(people: pd.DataFrame, tmp_path: Path) -> None:
    MobilityEmbeddingPipeline(make_model(), make_tokenizer()).save_pretrained(tmp_path)
    half = MobilityEmbeddingPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16).embed_users(POINTS)
    assert (half[E_COLUMNS].dtypes == np.float32).all()
    difference = (half - people)[E_COLUMNS].abs().to_numpy()
    assert 0 < difference.max() < 0.05


def test_time_features_are_passed_on() -> None:
    pipe = MobilityEmbeddingPipeline(make_model(time_features=True), make_tokenizer(time_features=True))
    assert len(pipe.embed_users(POINTS)) == 20


# Regions


def test_a_region_is_the_sum_of_its_visitors(pipe: MobilityEmbeddingPipeline, people: pd.DataFrame) -> None:
    before = people.copy(deep=True)
    found = pipe.embed_regions(POINTS, GRID, min_users=1, user_embeddings=people)
    assert list(found) == ["region_id", "users", *E_COLUMNS]
    cell = GRID.cell_id(GRID.cell(POINTS["lat"], POINTS["lon"]))
    for row in found.itertuples(index=False):
        there = POINTS["user_id"][cell == row.region_id].unique()
        assert row.users == len(there)
        np.testing.assert_allclose(row[2:], people.loc[np.sort(there), E_COLUMNS].sum(), rtol=1e-4, atol=1e-4)
    pd.testing.assert_frame_equal(people, before)
    pd.testing.assert_frame_equal(pipe.embed_regions(POINTS, GRID, min_users=1), found)


def test_mean_and_log_pooling_follow_from_the_sum(pipe: MobilityEmbeddingPipeline, people: pd.DataFrame) -> None:
    total, mean, log = (
        pipe.embed_regions(POINTS, GRID, pooling=pooling, user_embeddings=people) for pooling in ("sum", "mean", "log")
    )
    np.testing.assert_allclose(mean[E_COLUMNS], total[E_COLUMNS].div(total["users"], axis=0), atol=1e-5)
    pd.testing.assert_frame_equal(log[["region_id", "users", *E_COLUMNS]], mean)
    np.testing.assert_allclose(log["log1p_users"], np.log1p(total["users"]), rtol=1e-6)


def states_of(pipe: MobilityEmbeddingPipeline, series: Any, row: int) -> np.ndarray:
    points = series.coordinates[series.offsets[row] : series.offsets[row + 1]]
    with torch.no_grad():
        return pipe.model(torch.from_numpy(points)[None]).last_hidden_state[0].double().numpy()


@pytest.mark.parametrize("min_visits", [1, 4])
def test_slots_are_pooled_where_they_were_spent(pipe: MobilityEmbeddingPipeline, min_visits: int) -> None:
    some = POINTS[POINTS["user_id"] < 7].sample(frac=0.5, random_state=0)
    found = pipe.embed_regions(some, GRID, pooling="slots", min_users=1, min_visits=min_visits)
    series = pipe.tokenizer.encode_points(some)
    total, users = np.zeros((len(GRID), 16)), np.zeros(len(GRID), int)
    own = {user: np.zeros((len(GRID), 16)) for user in range(7)}
    slots = {user: np.zeros(len(GRID), int) for user in range(7)}
    for row, user in enumerate(series.user_ids):
        part = slice(series.offsets[row], series.offsets[row + 1])
        cell = GRID.cell(*pipe.tokenizer.denormalize(series.coordinates[part]))
        for state, place, seen in zip(states_of(pipe, series, row), cell, series.observed[part]):
            if seen:
                own[user][place] += state
                slots[user][place] += 1
    for user in range(7):
        often = slots[user] >= min_visits
        users += often
        total += np.where(often[:, None], own[user], 0)
    kept = np.flatnonzero(users)
    assert (
        found["region_id"].tolist() == GRID.cell_id(kept).tolist() and found["users"].tolist() == users[kept].tolist()
    )
    expected = np.sign(total[kept]) * np.log1p(np.abs(total[kept]))
    np.testing.assert_allclose(found[E_COLUMNS], expected, atol=1e-4)


def test_slots_are_pooled_for_regions_of_many_users_that_lie_apart(pipe: MobilityEmbeddingPipeline) -> None:
    found = pipe.embed_regions(POINTS, GRID, pooling="slots", min_users=6)
    assert found["users"].min() >= 6 and found.attrs["left_out"]["regions"] > 0
    shuffled = pipe.embed_regions(
        POINTS.sample(frac=1, random_state=1), visitors(POINTS, GRID), pooling="slots", min_users=6, batch_size=3
    )
    pd.testing.assert_frame_equal(shuffled, found, atol=1e-4)
    discs = Discs([48.0, 48.0], [11.0, 11.0], [30.0, 20.0], region_ids=["large", "small"])
    with pytest.raises(DataError, match=r"Regions overlap \(first 'large' and 'small'\)"):
        pipe.embed_regions(POINTS, discs, pooling="slots")
    with pytest.raises(DataError, match="pooling='slots' pools states of slots, not users"):
        pipe.embed_regions(POINTS, GRID, pooling="slots", user_embeddings=pipe.embed_users(POINTS))


def test_regions_add_up_over_disjoint_sets_of_people(pipe: MobilityEmbeddingPipeline, people: pd.DataFrame) -> None:
    first = POINTS["user_id"] < 8
    parts = [
        pipe.embed_regions(some, GRID, min_users=1, user_embeddings=people).set_index("region_id")
        for some in (POINTS[first], POINTS[~first])
    ]
    whole = pipe.embed_regions(POINTS, GRID, min_users=1, user_embeddings=people).set_index("region_id")
    added = parts[0].add(parts[1], fill_value=0).loc[whole.index]
    pd.testing.assert_frame_equal(added, whole, check_dtype=False, atol=1e-4)


def test_visitors_found_once_serve_every_pooling(pipe: MobilityEmbeddingPipeline, people: pd.DataFrame) -> None:
    there = visitors(POINTS, GRID)
    for options in ({}, {"pooling": "log"}, {"min_visits": 4}):
        expected = pipe.embed_regions(POINTS, GRID, user_embeddings=people, **options)
        pd.testing.assert_frame_equal(pipe.embed_regions(None, there, user_embeddings=people, **options), expected)
    for regions, embeddings in ((GRID, people), (there, None)):
        with pytest.raises(DataError, match="points are missing"):
            pipe.embed_regions(None, regions, user_embeddings=embeddings)


def test_shuffled_points_give_the_same_regions(pipe: MobilityEmbeddingPipeline, people: pd.DataFrame) -> None:
    shuffled = POINTS.sample(frac=1, random_state=1)
    reordered = people.sample(frac=1, random_state=2)
    expected = pipe.embed_regions(POINTS, GRID, user_embeddings=people)
    found = pipe.embed_regions(shuffled, GRID, user_embeddings=reordered)
    pd.testing.assert_frame_equal(found, expected, atol=1e-5)


def test_regions_of_few_people_are_left_out_and_counted(pipe: MobilityEmbeddingPipeline, people: pd.DataFrame) -> None:
    number = np.bincount(visitors(POINTS, GRID).region, minlength=len(GRID))
    found = pipe.embed_regions(POINTS, GRID, min_users=6, user_embeddings=people)
    assert found["users"].tolist() == number[number >= 6].tolist()
    assert found["region_id"].tolist() == GRID.cell_id(np.flatnonzero(number >= 6)).tolist()
    left_out = found.attrs["left_out"]
    assert left_out["regions"] == ((number > 0) & (number < 6)).sum() > 0
    assert left_out["unvisited"] == (number == 0).sum() and left_out["min_users"] == 6
    assert "fewer than 6 visitors" in left_out["reason"]
    assert pipe.embed_regions(POINTS, GRID, user_embeddings=people)["users"].min() >= 5  # without being asked
    often = pipe.embed_regions(POINTS, GRID, min_visits=4, user_embeddings=people)
    assert often["users"].tolist() != found["users"].tolist()
    with pytest.raises(DataError, match=r"Every region has fewer than min_users=21 visitors \(at most 20\)"):
        pipe.embed_regions(POINTS, Discs(48.0, 11.0, 50.0), min_users=21, user_embeddings=people)


def test_overlapping_regions_that_single_out_a_user_are_refused(
    pipe: MobilityEmbeddingPipeline, people: pd.DataFrame
) -> None:
    """A disc and one that leaves out where one user was alone: the difference of their vectors is that user's."""
    alone = POINTS[POINTS["user_id"] == 3].assign(lat=48.0, lon=11.3)
    points = pd.concat([POINTS[POINTS["user_id"] != 3], alone], ignore_index=True)
    discs = Discs([48.0, 48.0], [11.0, 11.0], [30.0, 20.0], region_ids=["large", "small"])
    large, small = pipe.embed_regions(points, discs, min_users=1, user_embeddings=people)[E_COLUMNS].to_numpy()
    nearest = np.linalg.norm(people[E_COLUMNS].to_numpy() - (large - small), axis=1)
    assert people["user_id"][nearest.argmin()] == 3 and nearest.min() < 1e-3
    message = r"Regions overlap \(first 'large' and 'small'\): .* fewer than min_users=5 users"
    for where, regions in ((points, discs), (None, visitors(points, discs))):
        with pytest.raises(DataError, match=message):
            pipe.embed_regions(where, regions, user_embeddings=people)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "pooling must be one of .* not 'max'"),
        ({"min_users": 0}, "min_users must be at least 1, not 0"),
        ({"min_visits": 0}, "min_visits must be at least 1, not 0"),
        ({"fill": "forward"}, r"\['fill'\] are options of embed_users, but user_embeddings are given"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    pipe: MobilityEmbeddingPipeline, people: pd.DataFrame, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        pipe.embed_regions(POINTS, GRID, user_embeddings=people, **options)


def test_embeddings_that_do_not_fit_are_refused(pipe: MobilityEmbeddingPipeline, people: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"2 of 20 users of the points have no embedding \(first: \[0, 1\]\)"):
        pipe.embed_regions(POINTS, GRID, user_embeddings=people.iloc[2:])
    with pytest.raises(DataError, match="must have the columns user_id, e0, e1"):
        pipe.embed_regions(POINTS, GRID, user_embeddings=people.drop(columns="e3"))
    with pytest.raises(DataError, match=r"hold 1 users twice \(first: \[19\]\)"):
        pipe.embed_regions(POINTS, GRID, user_embeddings=pd.concat([people, people.tail(1)]))


def test_faulty_points_are_refused_in_one_sentence(pipe: MobilityEmbeddingPipeline) -> None:
    with pytest.raises(DataError, match="batch_size must be at least 1"):
        pipe.embed_users(POINTS, batch_size=0)
    with pytest.raises(DataError, match="lie outside the box"):
        pipe.embed_users(POINTS.assign(lat=-POINTS["lat"]))
    half = POINTS.assign(lat=POINTS["lat"].where(np.arange(len(POINTS)) % 2 == 0, 60.0))
    with pytest.warns(UserWarning, match=r"^\d+ of \d+ points lie outside the box .* and are kept"):
        pipe.embed_users(half)
    with pytest.raises(DataError, match="without a time zone"):
        pipe.embed_users(POINTS.assign(time=POINTS["time"].dt.tz_localize(None)))
    with pytest.raises(DataError, match=r"Unknown option\(s\) \['latitude'\]"):
        pipe.embed_users(POINTS, latitude="lat")
    with pytest.raises(DataError, match="no point lies between `start`"):
        pipe.embed_users(POINTS, start="2030-01-01")


# Files


def test_a_saved_pipeline_and_a_model_with_a_head_are_loaded(
    pipe: MobilityEmbeddingPipeline, people: pd.DataFrame, tmp_path: Path
) -> None:
    pipe.save_pretrained(tmp_path / "encoder")
    model, tokenizer = make_model(), make_tokenizer()
    model.save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    for folder in ("encoder", "whole"):
        loaded = MobilityEmbeddingPipeline.from_pretrained(tmp_path / folder, batch_size=7)
        pd.testing.assert_frame_equal(loaded.embed_users(POINTS), people)
    half = MobilityEmbeddingPipeline.from_pretrained(tmp_path / "whole", dtype=torch.bfloat16)
    assert (half.embed_users(POINTS)[E_COLUMNS].dtypes == np.float32).all()


def test_a_city_that_is_not_the_models_is_refused() -> None:
    with pytest.raises(DataError, match="The city's windows have 144 slots, the model knows 96"):
        MobilityEmbeddingPipeline(make_model(), make_tokenizer(model_max_length=144))
    with pytest.raises(DataError, match="The city's days have 96 slots, the model's 48"):
        MobilityEmbeddingPipeline(make_model(), make_tokenizer(interval_minutes=15))
