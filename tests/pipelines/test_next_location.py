"""Frames in, frames out: predictions are the model's own numbers, whatever the order, type or batches of the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel

from hf_mobility import DataError, NextLocationPipeline, SamoeTokenizer, evaluate, make_task

GAPS = ["expected_gap", "gap_low", "gap_high", "expected_stay"]
COLUMNS = ["user_id", "rank", "location_id", "lat", "lon", "probability", *GAPS]
EXACT = {"atol": 1e-6, "rtol": 1e-5}


# What comes out


def test_there_are_top_k_rows_per_person_in_order_of_user_and_rank(world: SimpleNamespace) -> None:
    table = world.pipe.predict(world.visits, top_k=4)
    users = np.unique(world.visits["user_id"])
    assert table.columns.tolist() == COLUMNS
    assert table["user_id"].tolist() == np.repeat(users, 4).tolist()
    assert table["rank"].tolist() == [1, 2, 3, 4] * len(users)
    assert (table.groupby("user_id")["probability"].diff().dropna() <= 0).all()
    assert not table.duplicated(["user_id", "location_id"]).any()
    assert isinstance(table.index, pd.RangeIndex)
    assert table["user_id"].dtype == world.visits["user_id"].dtype


def test_probabilities_are_the_models_own(world: SimpleNamespace) -> None:
    places = len(world.city)
    table = world.pipe.predict(world.visits, top_k=places)
    found = world.matrix(world.pipe, table)
    for position in range(len(found)):
        expected = world.by_hand(world.pipe, world.of(world.visits, position))
        np.testing.assert_allclose(found[position], expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01, "everybody gets the same answer: the test would see little"


def test_coordinates_are_those_of_the_place(world: SimpleNamespace) -> None:
    table = world.pipe.predict(world.visits, top_k=3)
    rows = world.city.index_of(table["location_id"])
    np.testing.assert_array_equal(table["lat"], world.city.lat[rows])
    np.testing.assert_array_equal(table["lon"], world.city.lon[rows])


@torch.no_grad()
def test_the_expected_stay_is_the_mean_of_the_stay_classes(world: SimpleNamespace) -> None:
    table = world.pipe.predict(world.visits, top_k=2)
    assert (table["expected_stay"] > 0).all()
    assert (table.groupby("user_id")["expected_stay"].nunique() == 1).all()
    classes = np.arange(1, world.model.config.num_stay_bins)
    seconds = 600 * (2 ** ((classes - 0.5) / 1.6) - 1)  # the middle of class floor(1.6 log2(1 + minutes / 10)) + 1
    for position in (0, 5):
        inputs = world.pipe.tokenizer(world.of(world.visits, position), return_tensors="pt")
        share = world.model(**inputs).stay_logits[0, -1, 1:].softmax(-1).numpy()
        own = table["expected_stay"].iloc[2 * position]
        assert own == pytest.approx(float(share @ seconds), rel=1e-4)


@pytest.mark.parametrize("top_k", [0, -1, 61])
def test_top_k_must_lie_within_the_city(world: SimpleNamespace, top_k: int) -> None:
    assert len(world.city) == 60
    with pytest.raises(DataError, match=f"top_k must be between 1 and the city's 60 locations, got {top_k}"):
        world.pipe.predict(world.visits, top_k=top_k)


# Who and where


def test_a_person_nobody_has_seen_and_a_person_with_one_visit_are_predicted(world: SimpleNamespace) -> None:
    stranger = world.of(world.visits, 3).assign(user_id=10_000)
    beginner = world.of(world.visits, 4).head(1).assign(user_id=10_001)
    table = world.pipe.predict(pd.concat([stranger, beginner, world.visits]), top_k=2)
    both = table[table["user_id"] >= 10_000]
    assert both["user_id"].tolist() == [10_000, 10_000, 10_001, 10_001]
    original = table[table["user_id"] == world.of(world.visits, 3)["user_id"].iloc[0]]
    np.testing.assert_allclose(both["probability"][:2], original["probability"], **EXACT)  # an id is no feature
    expected = world.by_hand(world.pipe, beginner).topk(2).values
    np.testing.assert_allclose(both["probability"][2:], expected, **EXACT)


def test_user_ids_may_be_text(world: SimpleNamespace) -> None:
    table = world.pipe.predict(world.visits.assign(user_id="u" + world.visits["user_id"].astype(str)))
    assert sorted(table["user_id"].unique()) == sorted("u" + str(user) for user in world.visits["user_id"].unique())


def test_the_same_weights_predict_in_a_city_never_seen(world: SimpleNamespace, toy: SimpleNamespace) -> None:
    visits, city = toy.city(6, seed=2, num_locations=80)
    world.pipe.predict(world.visits)  # the first city's table is remembered, and must not be used
    other = world.pipe.for_city(city)
    table = other.predict(visits, top_k=len(city))
    assert set(table["location_id"]) == set(city.location_ids)
    np.testing.assert_allclose(world.matrix(other, table)[2], world.by_hand(other, world.of(visits, 2)), atol=1e-6)
    assert (other.context, other.tokens_per_batch, other.name) == (512, 4096, "SAMoE")
    assert other.model is world.pipe.model


def test_a_city_with_other_columns_is_refused(world: SimpleNamespace) -> None:
    narrow = replace(world.city, poi=world.city.poi[:, :1], poi_names=("a",))
    with pytest.raises(ValueError, match="1 POI columns, the model needs 60"):
        world.pipe.for_city(narrow)


# Input


def test_shuffled_rows_give_the_same_result_and_the_callers_frame_is_not_changed(world: SimpleNamespace) -> None:
    shuffled = world.visits.sample(frac=1, random_state=0)
    before = shuffled.copy(deep=True)
    pd.testing.assert_frame_equal(world.pipe.predict(shuffled), world.pipe.predict(world.visits))
    pd.testing.assert_frame_equal(shuffled, before)


def test_datasets_arrow_tables_and_files_are_accepted(world: SimpleNamespace, tmp_path: Path) -> None:
    expected = world.pipe.predict(world.visits)
    world.visits.to_parquet(tmp_path / "visits.parquet")
    world.visits.to_csv(tmp_path / "visits.csv", index=False)
    table = pa.Table.from_pandas(world.visits)
    for given in (table, Dataset.from_pandas(world.visits), tmp_path / "visits.parquet", str(tmp_path / "visits.csv")):
        pd.testing.assert_frame_equal(world.pipe.predict(given), expected)


def test_columns_may_have_other_names(world: SimpleNamespace) -> None:
    renamed = world.visits.rename(columns={"user_id": "uid", "location_id": "venue", "time": "when"})
    table = world.pipe.predict(renamed, user_id="uid", location_id="venue", time="when")
    pd.testing.assert_frame_equal(table, world.pipe.predict(world.visits))


def test_without_location_ids_the_nearest_place_counts(world: SimpleNamespace) -> None:
    table = world.pipe.predict(world.visits.drop(columns="location_id"))
    pd.testing.assert_frame_equal(table, world.pipe.predict(world.visits))


def test_unknown_places_are_an_error_the_nearest_place_or_dropped(world: SimpleNamespace) -> None:
    own = world.of(world.visits, 0).reset_index(drop=True)
    foreign = own.assign(location_id=own["location_id"].where(own.index != 2, "atlantis"))
    with pytest.raises(ValueError, match=r"'location_id': 1 visits are at 1 locations .* does not list.*atlantis"):
        world.pipe.predict(foreign)
    pd.testing.assert_frame_equal(world.pipe.predict(foreign, unknown="nearest"), world.pipe.predict(own))
    dropped = world.pipe.predict(foreign, unknown="drop")
    pd.testing.assert_frame_equal(dropped, world.pipe.predict(own.drop(index=2)))
    with pytest.raises(ValueError, match="unknown must be 'error', 'nearest' or 'drop', got 'ignore'"):
        world.pipe.predict(foreign, unknown="ignore")


def test_a_person_without_any_listed_visit_is_left_out_when_dropping(world: SimpleNamespace) -> None:
    lost = world.of(world.visits, 0).assign(location_id="atlantis")
    both = world.pipe.predict(pd.concat([lost, world.of(world.visits, 1)]), unknown="drop")
    assert both["user_id"].unique().tolist() == world.of(world.visits, 1)["user_id"].unique().tolist()
    with pytest.raises(ValueError, match="there are no visits left"):
        world.pipe.predict(lost, unknown="drop")


def test_faulty_frames_are_answered_by_one_sentence(world: SimpleNamespace) -> None:
    visits = world.visits
    with pytest.raises(DataError, match=r"lacks the column\(s\) time"):
        world.pipe.predict(visits.drop(columns="time"))
    with pytest.raises(DataError, match=r"'lat': 1 of .* missing, NaN or infinite"):
        world.pipe.predict(visits.assign(lat=visits["lat"].where(visits.index != 7)))
    tokyo = visits.assign(lat=139.7, lon=35.7)
    with pytest.raises(DataError, match="'lat' and 'lon' look swapped"):
        world.pipe.predict(tokyo)
    with pytest.raises(DataError, match="no rows"):
        world.pipe.predict(visits.head(0))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.parquet"):
        world.pipe.predict("nowhere.parquet")


def test_naive_times_need_a_time_zone(world: SimpleNamespace) -> None:
    naive = world.visits.assign(time=world.visits["time"].dt.tz_convert(world.city.timezone).dt.tz_localize(None))
    with pytest.raises(DataError, match="without a time zone"):
        world.pipe.predict(naive)
    table = world.pipe.predict(naive, timezone=world.city.timezone)
    pd.testing.assert_frame_equal(table, world.pipe.predict(world.visits))


# Context and batches


@pytest.mark.parametrize("context", [1, 4])
def test_only_the_last_visits_within_the_context_count(world: SimpleNamespace, context: int) -> None:
    pipe = NextLocationPipeline(world.model, world.pipe.tokenizer, context=context)
    found = world.matrix(pipe, pipe.predict(world.visits, top_k=60))
    for position in (0, 6):
        expected = world.by_hand(pipe, world.of(world.visits, position), slice(-context, None))
        np.testing.assert_allclose(found[position], expected, atol=1e-6)
    assert np.abs(found - world.matrix(world.pipe, world.pipe.predict(world.visits, top_k=60))).max() > 1e-3


def test_a_context_longer_than_any_history_is_the_whole_history(world: SimpleNamespace) -> None:
    longest = int(world.visits.groupby("user_id").size().max())
    tables = [
        NextLocationPipeline(world.model, world.pipe.tokenizer, context=context).predict(world.visits)
        for context in (longest, 1_000)
    ]
    pd.testing.assert_frame_equal(*tables)


def test_the_context_never_exceeds_the_models_positions(toy: SimpleNamespace, world: SimpleNamespace) -> None:
    model = toy.model(max_position_embeddings=12)
    pipe = NextLocationPipeline(model, SamoeTokenizer.from_city(world.city, model.config))
    assert pipe.context == 12
    assert len(pipe.predict(world.visits, top_k=1)) == 12


@pytest.mark.parametrize("option", ["context", "tokens_per_batch"])
@pytest.mark.parametrize("value", [0, -1])
def test_context_and_tokens_are_at_least_one(world: SimpleNamespace, option: str, value: int) -> None:
    with pytest.raises(DataError, match=f"^{option} must be at least 1, not {value}\\.$"):
        NextLocationPipeline(world.model, world.pipe.tokenizer, **{option: value})


def test_batches_do_not_matter(world: SimpleNamespace) -> None:
    small = NextLocationPipeline(world.model, world.pipe.tokenizer, tokens_per_batch=1)
    one_by_one = small.predict(world.visits)
    together = world.pipe.predict(world.visits)
    pd.testing.assert_frame_equal(one_by_one, together, check_exact=False, **EXACT)


@pytest.mark.parametrize("limit", [1, 2_000])
def test_batches_are_bounded_by_the_scores_of_all_places(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Users (and futures of each, or targets of a window) times places; the answers stay."""
    task = make_task(world.visits, world.city)
    verbs: list[Callable[[], pd.DataFrame]] = [
        lambda: world.pipe.predict(world.visits),
        lambda: world.pipe.forecast(world.visits, steps=2),
        lambda: pd.DataFrame({"rank": evaluate(world.pipe, task).rank}),
    ]
    expected = [verb() for verb in verbs]
    monkeypatch.setattr("hf_mobility.pipelines.next_location.SCORES_PER_BATCH", limit)
    shapes: list[torch.Size] = []
    hook = world.model.register_forward_hook(lambda model, inputs, output: shapes.append(output.logits.shape))
    try:
        for verb, wanted in zip(verbs, expected):
            pd.testing.assert_frame_equal(verb(), wanted, check_exact=False, **EXACT)
            assert all(shape.numel() <= limit or shape[0] == 1 for shape in shapes), shapes
            assert max(shape[0] for shape in shapes) > 1 or limit == 1
            shapes.clear()
    finally:
        hook.remove()


# Future visits


@torch.no_grad()
def generated(world: SimpleNamespace, position: int, **options: Any) -> pd.DataFrame:
    """One user's future by `generate` and `decode_visits`."""
    inputs = world.pipe.tokenizer(world.of(world.visits, position), return_tensors="pt")
    ids, times = world.model.generate(**inputs, return_timestamps=True, **options)
    known = inputs["input_ids"].shape[1]
    rows = [world.pipe.tokenizer.decode_visits(*future) for future in zip(ids[:, known:], times[:, known:])]
    return pd.concat([pd.DataFrame(row) for row in rows], ignore_index=True)


def test_a_forecast_is_what_the_model_generates(world: SimpleNamespace) -> None:
    table = world.pipe.forecast(world.visits, steps=4)
    assert table.columns.tolist() == ["user_id", "step", "time", "location_id", "lat", "lon"]
    users = np.unique(world.visits["user_id"])
    assert table["user_id"].tolist() == np.repeat(users, 4).tolist() and table["step"].tolist() == [1, 2, 3, 4] * 12
    assert str(table["time"].dtype) == "datetime64[us, UTC]"
    assert (table["time"] >= table["user_id"].map(next_times(world.visits))).all()
    for position in (0, 5, 11):
        wanted = generated(world, position, max_new_tokens=4, do_sample=False)
        own = table.iloc[4 * position : 4 * position + 4]
        assert own["location_id"].tolist() == wanted["location_id"].tolist()
        assert own["time"].tolist() == wanted["time"].tolist()
        np.testing.assert_array_equal(own[["lat", "lon"]], wanted[["lat", "lon"]])


def test_the_first_step_is_the_most_probable_next_place(world: SimpleNamespace) -> None:
    first = world.pipe.forecast(world.visits, steps=1)
    assert first["location_id"].tolist() == world.pipe.predict(world.visits, top_k=1)["location_id"].tolist()


def test_a_longer_forecast_begins_with_the_shorter_one(world: SimpleNamespace) -> None:
    long = world.pipe.forecast(world.visits, steps=5)
    pd.testing.assert_frame_equal(
        world.pipe.forecast(world.visits, steps=2), long[long["step"] <= 2].reset_index(drop=True)
    )


def test_drawn_futures_follow_from_the_seed(world: SimpleNamespace) -> None:
    own = world.of(world.visits, 3)
    table = world.pipe.forecast(own, steps=3, num_samples=6, do_sample=True, seed=1)
    assert table.columns.tolist() == ["user_id", "sample", "step", "time", "location_id", "lat", "lon"]
    assert table["sample"].tolist() == np.repeat(np.arange(1, 7), 3).tolist()
    assert table.groupby("step")["location_id"].nunique().min() > 1
    torch.manual_seed(1)
    wanted = generated(world, 3, max_new_tokens=3, do_sample=True, num_return_sequences=6)
    assert table["location_id"].tolist() == wanted["location_id"].tolist()
    state = torch.get_rng_state()
    again = world.pipe.forecast(own, steps=3, num_samples=6, do_sample=True, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    pd.testing.assert_frame_equal(again, table)
    other = world.pipe.forecast(own, steps=3, num_samples=6, do_sample=True, seed=2)
    assert other["location_id"].tolist() != table["location_id"].tolist()


def test_a_forecast_leaves_room_for_its_steps(toy: SimpleNamespace, world: SimpleNamespace) -> None:
    """A model with twelve positions looks back on eight visits where five are to follow; the last needs no position."""
    model = toy.model(max_position_embeddings=12)
    pipe = NextLocationPipeline(model, SamoeTokenizer.from_city(world.city, model.config))
    shorter = NextLocationPipeline(model, pipe.tokenizer, context=8)
    pd.testing.assert_frame_equal(pipe.forecast(world.visits, steps=5), shorter.forecast(world.visits, steps=5))
    assert len(pipe.forecast(world.visits, steps=12)) == 12 * 12
    with pytest.raises(DataError, match="steps must be at most 12, the model's max_position_embeddings, not 13"):
        pipe.forecast(world.visits, steps=13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps and num_samples must be at least 1, not 0 and 1"),
        ({"num_samples": 3}, "num_samples and seed need do_sample=True"),
        ({"seed": 3}, "num_samples and seed need do_sample=True"),
    ],
)
def test_forecasts_that_make_no_sense_are_refused(
    world: SimpleNamespace, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        world.pipe.forecast(world.visits, **options)


def test_a_model_that_is_told_the_arrival_time_forecasts_nothing(
    world: SimpleNamespace, timed: NextLocationPipeline
) -> None:
    with pytest.raises(ValueError, match="arrival_time=True cannot roll out visits"):
        timed.forecast(world.visits)


# The arrival time given


def next_times(visits: pd.DataFrame) -> pd.Series:
    return visits.groupby("user_id")["time"].last()


@torch.no_grad()
def test_a_given_arrival_time_is_used_as_in_training(world: SimpleNamespace, timed: NextLocationPipeline) -> None:
    """In training the arrival time of the next visit is read off that visit."""
    last = world.visits.groupby("user_id").cumcount(ascending=False) == 0
    times = next_times(world.visits)
    found = world.matrix(timed, timed.predict(world.visits[~last], top_k=60, target_time=times))
    for position in range(len(found)):
        inputs = timed.tokenizer(world.of(world.visits, position), return_tensors="pt")
        expected = timed.model(**inputs, labels=inputs["input_ids"]).logits[0, -2, 2:].softmax(-1)
        np.testing.assert_allclose(found[position], expected, atol=1e-6)


def test_the_arrival_time_may_be_one_for_all_or_one_per_person(
    world: SimpleNamespace, timed: NextLocationPipeline
) -> None:
    moment = world.visits["time"].max() + pd.Timedelta("3h")
    for_all = timed.predict(world.visits, target_time=moment)
    users = world.visits["user_id"].unique()
    zones = ["UTC", "Asia/Tokyo", "America/New_York"]  # the same instant, however it is written
    mapping = {user: moment.tz_convert(zones[i % 3]) for i, user in enumerate(users)}
    for given in (mapping, pd.Series(mapping), moment.isoformat(), moment.to_pydatetime()):
        pd.testing.assert_frame_equal(timed.predict(world.visits, target_time=given), for_all)
    later = timed.predict(world.visits, target_time=moment + pd.Timedelta("6h"))
    assert np.abs(later["probability"] - for_all["probability"]).max() > 1e-4


def test_the_arrival_time_is_refused_where_it_is_missing_naive_or_of_no_use(
    world: SimpleNamespace, timed: NextLocationPipeline
) -> None:
    moment = world.visits["time"].max()
    with pytest.raises(DataError, match="target_time was given, but this model was trained without it"):
        world.pipe.predict(world.visits, target_time=moment)
    with pytest.raises(DataError, match="target_time is missing"):
        timed.predict(world.visits)
    with pytest.raises(DataError, match="time-zone-aware time for every user; it is not for 12 of 12"):
        timed.predict(world.visits, target_time=moment.tz_localize(None))
    with pytest.raises(DataError, match="it is not for 1 of 12"):
        timed.predict(world.visits, target_time=next_times(world.visits).iloc[1:])


def test_the_evaluator_tells_when_each_target_begins_and_says_so(
    world: SimpleNamespace, timed: NextLocationPipeline
) -> None:
    """One target per person, the last visit: the same as predicting it with its time as `target_time`."""
    last = world.visits.groupby("user_id").cumcount(ascending=False) == 0
    task = make_task(world.visits, world.city, min_visits=2, test_fraction=1e-6)
    assert np.array_equal(task.rows, np.flatnonzero(last))
    predicted = timed.predict(world.visits[~last], top_k=60, target_time=next_times(world.visits))
    expected = world.matrix(timed, predicted)
    found = np.empty_like(expected)
    for rows, p in timed.probabilities(task):
        found[task.user[rows]] = p
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert evaluate(timed, task).arrival_time_given and not evaluate(world.pipe, task).arrival_time_given


def test_a_timed_evaluation_needs_every_place_listed(world: SimpleNamespace, timed: NextLocationPipeline) -> None:
    elsewhere = world.visits.copy()
    elsewhere.loc[3, "location_id"] = "nowhere"
    with pytest.raises(DataError, match=r"1 of \d+ visits are at places that the city does not list"):
        list(timed.probabilities(make_task(elsewhere, world.city, min_visits=5)))


# Files


def test_a_saved_pipeline_loads_and_predicts_the_same(
    world: SimpleNamespace, toy: SimpleNamespace, tmp_path: Path
) -> None:
    world.pipe.save_pretrained(tmp_path)
    loaded = NextLocationPipeline.from_pretrained(tmp_path, context=20, tokens_per_batch=64, name="again")
    assert (loaded.context, loaded.tokens_per_batch, loaded.name) == (20, 64, "again")
    loaded = NextLocationPipeline.from_pretrained(str(tmp_path))
    pd.testing.assert_frame_equal(loaded.predict(world.visits), world.pipe.predict(world.visits))
    assert loaded.tokenizer.name == "city 1"
    visits, city = toy.city(5, seed=2)
    elsewhere = NextLocationPipeline.from_pretrained(tmp_path, city=city)
    pd.testing.assert_frame_equal(elsewhere.predict(visits), world.pipe.for_city(city).predict(visits))


def test_a_model_of_another_kind_is_named(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=10, n_positions=8)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a GPT2LMHeadModel; NextLocationPipeline needs a SamoeForNextLocation"):
        NextLocationPipeline.from_pretrained(tmp_path)


def test_changed_weights_change_the_answers(toy: SimpleNamespace, world: SimpleNamespace) -> None:
    """Of the places as well as of the users: the city is encoded with the weights of the moment."""
    pipe = NextLocationPipeline(toy.model(), world.pipe.tokenizer)
    task = make_task(world.visits, world.city, min_visits=5)

    def answers(one: NextLocationPipeline) -> list[Any]:
        return [one.predict(world.visits, top_k=60), one.forecast(world.visits, steps=2), *one.probabilities(task)]

    answers(pipe)
    with torch.no_grad():
        for parameter in pipe.model.parameters():
            parameter.data.mul_(1.3)
    for found, wanted in zip(answers(pipe), answers(NextLocationPipeline(pipe.model, pipe.tokenizer))):
        if isinstance(found, pd.DataFrame):
            pd.testing.assert_frame_equal(found, wanted)
        else:
            np.testing.assert_array_equal(found[1], wanted[1])


def test_predicting_needs_no_gradient_and_leaves_the_weights_alone(world: SimpleNamespace) -> None:
    before: dict[str, Any] = {name: value.clone() for name, value in world.model.state_dict().items()}
    world.pipe.predict(world.visits)
    assert all(parameter.grad is None for parameter in world.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in world.model.state_dict().items())
