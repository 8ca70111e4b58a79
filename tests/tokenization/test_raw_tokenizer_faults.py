"""What RAW's tokenizer refuses, each in one sentence that says what and where; batches, collators, files, text."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from transformers import DataCollatorWithPadding

from hf_mobility.modeling.configuration_raw import RawConfig
from hf_mobility.modeling.modeling_raw import RawForTrajectoryPrediction, RawModel
from hf_mobility.tokenization.tokenization_raw import RawTokenizer

BOUNDS = (52.3, 13.0, 52.7, 13.8)
FIELDS = ("coordinates", "attention_mask", "observed_mask", "position_ids")
START = 1_709_506_800  # Monday, 4 March 2024, 00:00 in Berlin


def make_tokenizer(**options: Any) -> RawTokenizer:
    return RawTokenizer.from_bounds(BOUNDS, timezone="Europe/Berlin", **{"model_max_length": 192, **options})


def make_points(lengths: tuple[int, ...] = (6, 3, 4), days: float = 1.9, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    times = pd.to_datetime(START + rng.integers(0, int(days * 86_400), n), unit="s", utc=True).as_unit("us")
    return pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(5, 5 + len(lengths)), lengths),
            "time": times,
            "lat": rng.uniform(52.4, 52.6, n),
            "lon": rng.uniform(13.2, 13.6, n),
        }
    )


TOKENIZER = make_tokenizer()


def with_value(column: str, rows: list[int], value: Any) -> pd.DataFrame:
    frame = make_points()
    frame.loc[rows, column] = value
    return frame


# Faulty records


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["lat", "lon"])
def test_missing_coordinates_are_named(column: str, value: float) -> None:
    with pytest.raises(
        ValueError, match=rf"Column '{column}': 2 of 13 values are missing, NaN or infinite \(first rows 3:"
    ):
        TOKENIZER(with_value(column, [3, 7], value))


def test_impossible_degrees_are_named() -> None:
    with pytest.raises(ValueError, match=r"Column 'lat': 1 of 13 values are outside -90..90 \(first rows 4: 95"):
        TOKENIZER(with_value("lat", [4], 95.0))
    with pytest.raises(ValueError, match=r"Column 'lon': 1 of 13 values are outside -180..180"):
        TOKENIZER(with_value("lon", [4], 200.0))


def test_swapped_columns_are_recognised() -> None:
    frame = make_points().rename(columns={"lat": "lon", "lon": "lat"})
    with pytest.raises(
        ValueError, match=r"13 of 13 points lie outside the box .* columns 'lat' and 'lon' look swapped"
    ):
        TOKENIZER(frame)
    beijing = RawTokenizer.from_bounds(timezone="Asia/Shanghai")
    with pytest.raises(ValueError, match=r"outside -90..90 .* 'lat' and 'lon' look swapped"):
        beijing({"time": [0, 1], "lat": [116.4, 116.5], "lon": [39.9, 40.0]})


def test_points_outside_the_box() -> None:
    frame = with_value("lon", [1, 2, 9], 14.2)
    with pytest.warns(UserWarning, match=r"^3 of 13 points lie outside the box .* and are kept.*; use a tokenizer of"):
        kept = TOKENIZER.encode_points(frame)
    assert kept.num_outside == 3 and kept.coordinates[:, 0].max() == pytest.approx(2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing to say of one in thirteen, or of what is dropped
        TOKENIZER.encode_points(with_value("lon", [1], 14.2))
        dropped = TOKENIZER.encode_points(frame, outside="drop")
    assert dropped.num_outside == 3
    assert np.array_equal(dropped.coordinates, TOKENIZER.encode_points(frame.drop(index=[1, 2, 9])).coordinates)
    with pytest.raises(
        ValueError, match=r"3 of 13 points lie outside the box \(52.3, 13.0, 52.7, 13.8\) \(first rows 1:"
    ):
        TOKENIZER(frame, outside="error")
    with pytest.raises(ValueError, match=r"7 of 13 points lie outside .* use a tokenizer of these points' city"):
        TOKENIZER(with_value("lon", list(range(7)), 14.2))
    with pytest.raises(ValueError, match="outside must be 'keep', 'drop' or 'error'"):
        TOKENIZER(frame, outside="clip")


@pytest.mark.parametrize(
    "naive",
    [
        make_points()["time"].dt.tz_localize(None),
        make_points()["time"].dt.strftime("%Y-%m-%d %H:%M"),
        [t.replace(tzinfo=None) for t in make_points()["time"].dt.to_pydatetime()],
        [t.replace(tzinfo=None) if i else t for i, t in enumerate(make_points()["time"].dt.to_pydatetime())],
    ],
    ids=["datetime64", "text", "datetime", "some"],
)
def test_times_without_a_zone_are_refused(naive: Any) -> None:
    frame = make_points()
    with pytest.raises(ValueError, match="Column 'time' must hold time-zone-aware times or integer epoch seconds"):
        TOKENIZER({"time": naive, "lat": frame["lat"], "lon": frame["lon"]})


def test_missing_times_and_ids_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Column 'time': 1 of 13 values are missing \(first rows 2\)"):
        TOKENIZER(with_value("time", [2], pd.NaT))
    with pytest.raises(ValueError, match=r"Column 'user_id': 1 of 13 values are missing"):
        TOKENIZER(with_value("user_id", [2], np.nan))
    with pytest.raises(ValueError, match="Column 'user_id' mixes ids of different types"):
        TOKENIZER(make_points().astype({"user_id": object}).assign(user_id=lambda f: ["a", *f["user_id"][1:]]))


def test_faulty_durations_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Column 'duration': 1 of 13 values are negative"):
        TOKENIZER(make_points().assign(duration=[-1.0, *[60.0] * 12]))
    with pytest.raises(ValueError, match=r"Column 'duration': 1 of 13 values are infinite"):
        TOKENIZER(make_points().assign(duration=[np.inf, *[60.0] * 12]))
    with pytest.raises(ValueError, match="The records have no column 'stay'"):
        TOKENIZER(make_points(), duration="stay")


@pytest.mark.parametrize("form", ["frame", "dict of lists", "list of dicts", "arrow", "dataset"])
@pytest.mark.parametrize("column", ["time", "lat", "lon"])
def test_a_missing_column_is_named(form: str, column: str) -> None:
    frame = make_points().drop(columns=column)
    given = {
        "frame": lambda: frame,
        "dict of lists": lambda: frame.to_dict("list"),
        "list of dicts": lambda: frame.to_dict("records"),
        "arrow": lambda: pa.Table.from_pandas(frame),
        "dataset": lambda: datasets.Dataset.from_pandas(frame),
    }[form]()
    with pytest.raises(ValueError, match=f"The records have no column '{column}'; name it by keyword, as in {column}="):
        TOKENIZER(given)


def test_columns_must_have_one_length() -> None:
    with pytest.raises(ValueError, match="Column 'lat' has 2 values, column 'time' has 1"):
        TOKENIZER({"time": [START], "lat": [52.5, 52.5], "lon": [13.4, 13.4]})
    with pytest.raises(ValueError, match="Column 'duration' has 1 values, column 'time' has 2"):
        TOKENIZER({"time": [START] * 2, "lat": [52.5] * 2, "lon": [13.4] * 2, "duration": [60.0]})


def test_a_list_of_dicts_has_the_columns_of_all_of_them() -> None:
    point = {"user_id": 5, "time": START, "lat": 52.5, "lon": 13.4}
    stay = {**point, "time": START + 3600, "duration": 7200.0}
    frame = pd.DataFrame([point, stay])
    assert np.isnan(frame["duration"][0])
    for records in ([point, stay], [stay, point]):
        found = TOKENIZER.encode_points(records)
        assert np.array_equal(found.observed, TOKENIZER.encode_points(frame).observed) and found.observed.sum() == 9
    with pytest.raises(ValueError, match=r"Column 'lat': 1 of 2 values are missing"):
        TOKENIZER([point, {"user_id": 5, "time": START, "lon": 13.4}])
    with pytest.raises(ValueError, match=r"Column 'time': 1 of 2 values are missing \(first rows 0\)"):
        TOKENIZER([{"lat": 52.5, "lon": 13.4}, point])


@pytest.mark.parametrize(
    "nothing", [make_points().iloc[:0], {"time": [], "lat": [], "lon": []}, []], ids=["frame", "dict", "list"]
)
def test_no_points_are_refused(nothing: Any) -> None:
    with pytest.raises(ValueError, match=r"There are no (records|points) to encode"):
        TOKENIZER(nothing)


def test_days_without_points_are_refused() -> None:
    for days in ({"start": "2025-01-01"}, {"end": "2024-01-01"}, {"start": "2024-03-05", "end": "2024-03-05"}):
        with pytest.raises(ValueError, match="no point lies between"):
            TOKENIZER(make_points(), **days)
    with pytest.raises(ValueError, match="no point lies between"):  # the days lie in a hole of the data
        frame = make_points((2,)).assign(time=pd.to_datetime([START, START + 9 * 86_400], unit="s", utc=True))
        TOKENIZER(frame, start="2024-03-06", end="2024-03-08")
    with pytest.raises(ValueError, match="start='soon' is no date"):
        TOKENIZER(make_points(), start="soon")
    with pytest.raises(ValueError, match="end must be a date"):
        TOKENIZER(make_points(), end=5)


# Faulty options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timezone": None}, "Unknown time zone None"),
        ({"timezone": "Mars/Base"}, "Unknown time zone 'Mars/Base'"),
        ({"bounds": (1, 2, 3)}, "bounds must be .south, west, north, east. in degrees"),
        ({"bounds": (1, 2, 3, np.nan)}, "bounds must be .south, west, north, east. in degrees"),
        ({"bounds": (52.7, 13.0, 52.3, 13.8)}, "is empty or off the globe"),
        ({"bounds": (80, 1, 100, 2)}, "is empty or off the globe"),
        ({"interval_minutes": 0}, "interval_minutes must divide a day"),
        ({"model_max_length": 100}, "no whole number of days"),
        ({"fill": "linear"}, "fill must be one of"),
    ],
    ids=str,
)
def test_faulty_tokenizers_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RawTokenizer.from_bounds(**{"bounds": BOUNDS, "timezone": "Europe/Berlin", **options})
    with pytest.raises(ValueError, match=r"a RawTokenizer is a city: use RawTokenizer\.from_city"):
        RawTokenizer()


def test_faulty_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="fill must be one of"):
        TOKENIZER(make_points(), fill="nearest")
    with pytest.raises(ValueError, match="padding must be True, False"):
        TOKENIZER(make_points(), padding="left")
    with pytest.raises(TypeError, match="add_special_tokens"):
        TOKENIZER(make_points(), add_special_tokens=True)


@pytest.mark.parametrize(
    "call",
    [
        lambda: TOKENIZER("52.5,13.4"),
        lambda: TOKENIZER(["52.5,13.4"]),
        lambda: TOKENIZER(),
        lambda: TOKENIZER.encode("52.5"),
        lambda: TOKENIZER.tokenize("52.5"),
        lambda: TOKENIZER.convert_ids_to_tokens([0]),
    ],
)
def test_text_is_refused_with_a_sentence(call: Any) -> None:
    with pytest.raises(ValueError, match="RAW has no text: call the tokenizer with points"):
        call()


def test_a_tokenizer_without_a_vocabulary_is_still_true() -> None:
    assert TOKENIZER and len(TOKENIZER) == TOKENIZER.vocab_size == 0 and TOKENIZER.get_vocab() == {}
    assert TOKENIZER.all_special_tokens == []


# Batches


def test_rows_of_different_lengths_need_padding() -> None:
    frame = make_points((9, 9), days=2.9)
    with pytest.raises(ValueError, match="rows have 96 to 192 slots, the last window being shorter: pass padding=True"):
        TOKENIZER(frame, return_tensors="pt")
    assert sorted({len(row) for row in TOKENIZER(frame)["coordinates"]}) == [96, 192]
    assert TOKENIZER(make_points(), return_tensors="pt")["coordinates"].shape == (3, 192, 2)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("padding", [True, "longest", "max_length"])
@pytest.mark.parametrize("tensors", ["pt", "np", None])
def test_padding_fills_every_field_alike(side: str, padding: bool | str, tensors: str | None) -> None:
    tokenizer = make_tokenizer(padding_side=side)
    frame = make_points((9, 9), days=2.9)
    plain = tokenizer(frame)
    length = 288 if padding == "max_length" else 192
    if padding == "max_length":
        tokenizer.model_max_length = 288
        plain = tokenizer(frame, max_length=192)
    batch = tokenizer.to_batch(tokenizer.encode_points(frame, max_length=192), padding=padding, return_tensors=tensors)
    for name in FIELDS:
        rows = np.asarray(batch[name])
        assert rows.shape[:2] == (len(plain["coordinates"]), length), name
        assert rows.dtype == (np.float32 if name == "coordinates" else np.int64)
        for row, wanted in zip(rows, plain[name]):
            missing = length - len(wanted)
            inside = slice(missing, None) if side == "left" else slice(0, len(wanted))
            assert np.array_equal(row[inside], wanted)
            assert not np.delete(row, np.arange(length)[inside], axis=0).any()
    if tensors == "pt":
        assert batch["coordinates"].dtype == torch.float32 and batch["position_ids"].dtype == torch.int64


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_collator_of_transformers_pads_the_same(side: str) -> None:
    tokenizer = make_tokenizer(padding_side=side)
    frame = make_points((9, 9), days=2.9)
    rows = tokenizer(frame)
    items = [{name: values[b] for name, values in rows.items()} for b in range(len(rows["coordinates"]))]
    found, wanted = DataCollatorWithPadding(tokenizer)(items), tokenizer(frame, padding=True, return_tensors="pt")
    assert all(torch.equal(found[name], wanted[name]) for name in FIELDS)
    for index, item in enumerate(items):
        item |= {"labels": item["coordinates"], "start_weekday": index}
    found = tokenizer.pad(items, pad_to_multiple_of=100, return_tensors="pt")
    assert all(found[name].shape[1] == 200 for name in (*FIELDS, "labels"))
    padded = found["attention_mask"] == 0
    assert (found["labels"][padded] == -100).all() and torch.equal(
        found["labels"][~padded], found["coordinates"][~padded]
    )
    assert found["start_weekday"].tolist() == list(range(len(items)))
    with pytest.raises(ValueError, match="there are no coordinates to pad"):
        tokenizer.pad([{"labels": 1}])


def test_what_a_tokenizer_returns_is_what_a_model_takes() -> None:
    config = RawConfig.from_preset("tiny", max_position_embeddings=192, time_features=True)
    model = RawForTrajectoryPrediction(config).eval()
    tokenizer = RawTokenizer.from_bounds(BOUNDS, timezone="Europe/Berlin", config=config)
    assert (tokenizer.model_max_length, tokenizer.interval_minutes, tokenizer.time_features) == (192, 15, True)
    assert tokenizer.model_input_names == [*FIELDS, "start_weekday"]
    batch = tokenizer(make_points((9, 9), days=2.9), padding=True, return_tensors="pt")
    assert batch["start_weekday"].tolist() == [0, 2, 0, 2]
    with torch.no_grad():
        output = model(**batch, labels=batch["coordinates"])
        assert output.predictions.shape == (4, 192, 2) and torch.isfinite(output.loss)
        assert model.generate(
            **{name: value[:, :180] if value.dim() > 1 else value for name, value in batch.items()}
        ).shape == (4, 10, 2)


def test_datasets_map_works() -> None:
    flat = datasets.Dataset.from_pandas(make_points())
    rows = flat.map(
        lambda batch: dict(TOKENIZER(batch)), batched=True, batch_size=None, remove_columns=flat.column_names
    )
    assert len(rows) == 3
    np.testing.assert_allclose(rows[1]["coordinates"], TOKENIZER(make_points())["coordinates"][1])


def test_a_person_has_the_same_embedding_in_any_company() -> None:
    body = RawModel(RawConfig.from_preset("tiny")).eval()
    frame = make_points()
    with torch.no_grad():
        together = body(**TOKENIZER(frame, return_tensors="pt")).user_embedding
        alone = body(
            **TOKENIZER(frame[frame["user_id"] == 6], start="2024-03-04", end="2024-03-06", return_tensors="pt")
        )
    torch.testing.assert_close(together[1:2], alone.user_embedding)


# Files

FILES = {"city.json", "city.safetensors", "tokenizer_config.json"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "interval_minutes": 30,
            "fill": "paper",
            "time_features": True,
            "padding_side": "left",
            "truncation_side": "right",
        },
    ],
    ids=str,
)
def test_a_loaded_tokenizer_is_the_saved_one(tmp_path: Path, options: dict[str, Any]) -> None:
    tokenizer = make_tokenizer(**options)
    tokenizer.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".py"} == FILES
    loaded = RawTokenizer.from_pretrained(tmp_path)
    for name in (
        "bounds",
        "timezone",
        "interval_minutes",
        "fill",
        "time_features",
        "model_max_length",
        "padding_side",
        "truncation_side",
        "model_input_names",
    ):
        assert getattr(loaded, name) == getattr(tokenizer, name), name
    found, wanted = (t(make_points(), padding=True, return_tensors="pt") for t in (loaded, tokenizer))
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    loaded.save_pretrained(tmp_path / "again")
    saved = [json.loads((folder / "city.json").read_text()) for folder in (tmp_path, tmp_path / "again")]
    assert saved[0] == saved[1] and saved[0]["bounds"] == list(BOUNDS)


@pytest.mark.slow
def test_a_million_points_take_seconds() -> None:
    import time

    rng = np.random.default_rng(0)
    n = 1_000_000
    frame = {
        "user_id": np.sort(rng.integers(0, 2000, n)),
        "time": START + rng.integers(0, 10 * 86_400 - 1, n),
        "lat": rng.uniform(52.4, 52.6, n),
        "lon": rng.uniform(13.2, 13.6, n),
    }
    begun = time.perf_counter()
    batch = make_tokenizer(model_max_length=960)(frame, return_tensors="pt")
    assert batch["coordinates"].shape == (2000, 960, 2)
    assert time.perf_counter() - begun < 10  # about one on an idle core
