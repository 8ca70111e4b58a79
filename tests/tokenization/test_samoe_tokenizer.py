"""SAMoE's tokenizer: every form of input gives the same ids, local times equal pandas', batches are padded alike."""

from __future__ import annotations

import copy
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samoe_town import CITY, CONFIG, FIELDS, LAT, LON, TOKENIZER, make_city, make_visits

from hf_mobility import SamoeConfig, SamoeTokenizer
from hf_mobility.data import haversine_km
from hf_mobility.tokenization.clock import to_local


def assert_equal_encodings(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    for name in (*FIELDS, "utc", "offsets"):
        assert first[name].dtype == np.int64 and np.array_equal(first[name], second[name]), name
    assert first["users"].tolist() == second["users"].tolist()


# Forms of input


def all_forms(frame: pd.DataFrame) -> dict[str, Any]:
    epoch = frame.assign(time=frame["time"].map(pd.Timestamp.timestamp).astype("int64"))
    return {
        "frame": frame,
        "frame, seconds": frame.assign(time=frame["time"].dt.as_unit("s")),
        "frame, nanoseconds": frame.assign(time=frame["time"].dt.as_unit("ns")),
        "frame, another zone": frame.assign(time=frame["time"].dt.tz_convert("Asia/Tokyo")),
        "frame, other index": frame.set_index(np.arange(len(frame))[::-1] * 7),
        "frame, epoch seconds": epoch,
        "frame, categories": frame.astype({"location_id": "category"}),
        "frame, string dtype": frame.astype({"location_id": "string"}),
        "dict of lists": frame.to_dict("list"),
        "dict of arrays": {name: epoch[name].to_numpy() for name in epoch},
        "list of dicts": frame.to_dict("records"),
        "list of dicts, epoch seconds": epoch.to_dict("records"),
        "arrow": pa.Table.from_pandas(frame),
        "arrow, epoch seconds": pa.Table.from_pandas(epoch),
        "dataset": datasets.Dataset.from_pandas(frame),
        "dataset, epoch seconds": datasets.Dataset.from_pandas(epoch),
        "dataset, numpy format": datasets.Dataset.from_pandas(epoch).with_format("numpy"),
    }


@pytest.mark.parametrize("form", all_forms(make_visits()))
def test_every_form_of_input_gives_the_same_ids(form: str) -> None:
    frame = make_visits()
    assert_equal_encodings(TOKENIZER.encode_visits(all_forms(frame)[form]), TOKENIZER.encode_visits(frame))


def test_a_data_frame_equals_its_parquet_file(tmp_path: Path) -> None:
    frame = make_visits()
    frame.to_parquet(tmp_path / "visits.parquet")
    assert_equal_encodings(
        TOKENIZER.encode_visits(pd.read_parquet(tmp_path / "visits.parquet")), TOKENIZER.encode_visits(frame)
    )


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_rows_give_the_same_result(seed: int) -> None:
    frame = make_visits()
    shuffled = frame.sample(frac=1, random_state=seed)
    assert_equal_encodings(TOKENIZER.encode_visits(shuffled), TOKENIZER.encode_visits(frame))


def test_ids_are_rows_of_the_city_and_people_are_sorted() -> None:
    frame = make_visits()
    encoded = TOKENIZER.encode_visits(frame)
    assert encoded["input_ids"].tolist() == [int(name[1:]) + 2 for name in frame["location_id"]]
    assert encoded["offsets"].tolist() == [0, 6, 9, 13] and encoded["users"].tolist() == [5, 6, 7]
    assert encoded["utc"].tolist() == [int(t.timestamp()) for t in frame["time"]]


def test_whole_floats_are_the_integers_that_a_gap_made_of_them() -> None:
    """pandas makes floats of a column of integers with gaps, and they stay floats when the gaps are gone."""
    visits = make_visits().assign(location_id=lambda f: f["location_id"].str[1:].astype(float))
    city = SamoeTokenizer.from_city(make_city(location_ids=np.arange(8)))
    for frame in (visits, visits.to_dict("list"), visits.to_dict("records")):
        assert_equal_encodings(city.encode_visits(frame), TOKENIZER.encode_visits(make_visits()))


def test_people_may_have_text_names_and_columns_other_names() -> None:
    frame = make_visits()
    renamed = frame.assign(user_id=[f"u{k}" for k in frame["user_id"]]).rename(
        columns={"user_id": "uid", "time": "when", "location_id": "place"}
    )
    encoded = TOKENIZER.encode_visits(renamed, user_id="uid", time="when", location_id="place")
    assert encoded["users"].tolist() == ["u5", "u6", "u7"]
    assert np.array_equal(encoded["input_ids"], TOKENIZER.encode_visits(frame)["input_ids"])


def test_without_a_user_column_there_is_one_person() -> None:
    frame = make_visits((5,))
    assert_equal_encodings(
        TOKENIZER.encode_visits(frame.drop(columns="user_id")) | {"users": np.array([5])},
        TOKENIZER.encode_visits(frame),
    )


@pytest.mark.parametrize("form", ["frame", "dict of lists", "list of dicts", "arrow"])
def test_the_callers_data_are_not_changed(form: str) -> None:
    frame = make_visits()
    given = all_forms(frame)[form]
    before = copy.deepcopy(given)
    TOKENIZER(given, padding=True, return_tensors="pt", unknown="nearest")
    assert given.equals(before) if hasattr(given, "equals") else given == before


# Time

ZONES = [
    "Europe/Berlin",
    "Asia/Kolkata",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "UTC",
    "America/Caracas",
]
SWITCHES = [1_711_846_800, 1_729_990_800, 1_710_054_000, 1_730_613_600, 1_712_415_600, 1_728_142_200, 1_197_183_600]


def times_around_switches(zone: str, seed: int = 0) -> np.ndarray:
    """Seconds around the changes of the clock in several zones, and anywhere in sixty years."""
    rng = np.random.default_rng(seed)
    near = np.concatenate([switch + rng.integers(-7200, 7200, 200) for switch in SWITCHES])
    return np.concatenate([near, rng.integers(0, 2_000_000_000, 500)])


@pytest.mark.parametrize("zone", ZONES)
def test_local_times_equal_those_of_pandas(zone: str) -> None:
    utc = np.sort(times_around_switches(zone))
    frame = pd.DataFrame({"time": pd.to_datetime(utc, unit="s", utc=True), "location_id": "p0"})
    encoded = SamoeTokenizer.from_city(make_city(zone)).encode_visits(frame)
    local = frame["time"].dt.tz_convert(zone).dt
    assert encoded["time_ids"].tolist() == (local.hour * 2 + local.minute // 30).tolist()
    assert encoded["weekday_ids"].tolist() == local.day_of_week.tolist()
    naive = local.tz_localize(None)
    assert encoded["timestamps"].tolist() == ((naive - pd.Timestamp(0)) // pd.Timedelta(seconds=1)).tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=20), st.sampled_from(ZONES))
def test_local_seconds_equal_those_of_the_standard_library(seconds: list[int], zone: str) -> None:
    found = to_local(np.array(seconds), zone)
    wanted = [s + int(datetime.fromtimestamp(s, ZoneInfo(zone)).utcoffset().total_seconds()) for s in seconds]
    assert found.tolist() == wanted


def test_days_with_23_and_25_hours() -> None:
    """Berlin, 31 March 2024: after 01:30 comes 03:00. 27 October: 02:30 comes twice."""
    times = pd.to_datetime(
        ["2024-03-31 00:30", "2024-03-31 01:00", "2024-10-27 00:30", "2024-10-27 01:30", "2024-10-27 02:30"], utc=True
    )
    encoded = TOKENIZER.encode_visits({"time": times, "location_id": ["p0"] * 5})
    assert encoded["time_ids"].tolist() == [3, 6, 5, 5, 7]
    assert encoded["weekday_ids"].tolist() == [6] * 5


# Stays


def test_logarithmic_stays_are_gaps_in_real_time() -> None:
    """The gap over the change of the clock is that of a stop watch."""
    minutes = [0, 5, 30, 60, 600, 100_000]
    times = pd.to_datetime("2024-03-31 00:30", utc=True) + pd.to_timedelta(np.cumsum([0, *minutes]), unit="min")
    encoded = TOKENIZER.encode_visits({"time": times, "location_id": ["p0"] * 7})
    wanted = [0] + [min(24, int(np.floor(1.6 * np.log2(1 + m / 10))) + 1) for m in minutes]
    assert encoded["stay_ids"].tolist() == wanted


def test_half_hour_stays_are_differences_of_slots() -> None:
    tokenizer = SamoeTokenizer.from_city(make_city("UTC"), stay_encoding="half_hours", num_stay_bins=96)
    times = pd.to_datetime(
        ["2024-01-01 10:29", "2024-01-01 10:31", "2024-01-01 10:59", "2024-01-02 00:01", "2024-01-09 00:01"]
    )
    encoded = tokenizer.encode_visits({"time": times.tz_localize("UTC"), "location_id": ["p0"] * 5})
    assert encoded["stay_ids"].tolist() == [0, 1, 0, 48 - 21, 95]


def test_nobodys_first_visit_has_a_stay() -> None:
    frame = make_visits()
    encoded = TOKENIZER.encode_visits(frame)
    assert (encoded["stay_ids"] == 0).nonzero()[0].tolist() == [0, 6, 9]


# What is refused


def test_unknown_locations_are_an_error_by_default() -> None:
    frame = make_visits().assign(location_id=lambda f: f["location_id"].where(f.index > 2, "elsewhere"))
    with pytest.raises(
        ValueError, match=r"3 visits are at 1 locations that the city 'Town' does not list, first \['elsewhere'\]"
    ):
        TOKENIZER(frame)


def test_unknown_locations_may_be_dropped() -> None:
    frame = make_visits()
    strange = frame["location_id"].where(frame.index > 2, "elsewhere")
    assert_equal_encodings(
        TOKENIZER.encode_visits(frame.assign(location_id=strange), unknown="drop"),
        TOKENIZER.encode_visits(frame[frame.index > 2]),
    )


def test_people_whose_visits_are_all_dropped_disappear() -> None:
    frame = make_visits().assign(location_id=lambda f: f["location_id"].where(f["user_id"] != 6, "elsewhere"))
    assert TOKENIZER.encode_visits(frame, unknown="drop")["users"].tolist() == [5, 7]
    with pytest.raises(
        ValueError, match="there are no visits left: none of the 13 is at a location of the city 'Town'"
    ):
        TOKENIZER(frame.assign(location_id="elsewhere"), unknown="drop", padding=True, return_tensors="pt")


def test_unknown_locations_may_become_the_nearest_listed_one() -> None:
    frame = make_visits()
    moved = frame.assign(lat=frame["lat"] + 0.001, lon=frame["lon"] - 0.001, location_id="elsewhere")
    encoded = TOKENIZER.encode_visits(moved, unknown="nearest")
    assert np.array_equal(encoded["input_ids"], TOKENIZER.encode_visits(frame)["input_ids"])


def test_nearest_equals_a_loop_over_great_circles() -> None:
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(47.9, 48.2, 600), rng.uniform(10.9, 11.2, 600)
    wanted = haversine_km(lat[:, None], lon[:, None], LAT, LON).argmin(1) + 2
    assert (TOKENIZER.nearest(lat, lon) == wanted).mean() > 0.99  # a plane against a sphere: ties only


def test_ids_of_another_city_are_seen_by_their_coordinates() -> None:
    """The same ids, elsewhere: all simulated cities share theirs."""
    frame = make_visits()
    for moved in (
        frame.assign(lat=frame["lat"] + 1),
        frame.assign(lat=LAT[::-1][[int(n[1:]) for n in frame["location_id"]]]),
    ):
        with pytest.raises(ValueError, match=r"of 13 visits lie more than .* km from the place that their location_id"):
            TOKENIZER(moved)
    bare = frame.assign(lat=frame["lat"] + 1)[["user_id", "time", "location_id"]]
    assert_equal_encodings(TOKENIZER.encode_visits(bare), TOKENIZER.encode_visits(frame))


def test_check_ins_may_lie_around_their_place_and_some_anywhere() -> None:
    frame = make_visits()
    noisy = frame.assign(
        lat=frame["lat"] + np.where(np.arange(13) < 6, 5.0, 0.005)
    )  # six elsewhere, the rest 550 m off
    assert_equal_encodings(TOKENIZER.encode_visits(noisy), TOKENIZER.encode_visits(frame))
    assert TOKENIZER.encode_visits(noisy.assign(lat=np.nan))["input_ids"].tolist() == [
        int(name[1:]) + 2 for name in frame["location_id"]
    ]


def test_nothing_is_snapped_from_another_city() -> None:
    frame = make_visits().assign(location_id="unknown")
    with pytest.raises(ValueError, match=r"13 of 13 visits lie more than .* km from every place in the city 'Town'"):
        TOKENIZER(frame.assign(lat=48.85, lon=2.35), unknown="nearest")
    with pytest.raises(ValueError, match=r"2 of 2 visits lie more than"):
        TOKENIZER.nearest(np.array([0.0, 0.0]), np.array([0.0, 1.0]))
    abroad = make_visits()
    abroad.loc[:4, ["lat", "location_id"]] = (0.0, "a holiday")
    assert len(TOKENIZER.encode_visits(abroad, unknown="nearest")["input_ids"]) == 13


@pytest.mark.parametrize("missing", [np.nan, None, np.inf])
def test_a_visit_without_coordinates_has_no_nearest_location(missing: float | None) -> None:
    frame = make_visits()
    frame.loc[[2, 7], "location_id"] = "elsewhere"
    frame.loc[7, "lon"] = missing
    frame.loc[1, "lon"] = np.nan  # at a listed location
    with pytest.raises(ValueError, match=r"Column 'lon': 1 of 13 values are missing, NaN or infinite \(first rows 7: "):
        TOKENIZER(frame, unknown="nearest")
    assert len(TOKENIZER.encode_visits(frame, unknown="drop")["utc"]) == 11
    with pytest.raises(ValueError, match=r"Column 'lat': 1 of 2 values are missing"):
        TOKENIZER.nearest(np.array([48.0, np.nan]), np.array([11.0, 11.0]))


@pytest.mark.parametrize("unknown", ["error", "nearest", "drop"])
def test_coordinates_that_are_no_numbers_are_refused(unknown: str) -> None:
    with pytest.raises(ValueError, match="Column 'lat' must hold numbers"):
        TOKENIZER(make_visits().assign(lat="x"), unknown=unknown)


def test_the_nearest_location_needs_coordinates() -> None:
    with pytest.raises(ValueError, match="no column 'lat'; name it by keyword, as in lat="):
        TOKENIZER(make_visits().drop(columns="lat").assign(location_id="elsewhere"), unknown="nearest")


@pytest.mark.parametrize("misspelled", [{"unkown": "drop"}, {"userid": "uid"}, {"paddding": True}], ids=str)
def test_misspelled_options_are_refused(misspelled: dict[str, Any]) -> None:
    (name,) = misspelled
    for call in (TOKENIZER, TOKENIZER.encode_visits):
        with pytest.raises(TypeError, match=name):
            call(make_visits(), **misspelled)


@pytest.mark.parametrize("reserved", ["<pad>", "<eos>"])
def test_special_tokens_are_no_locations(reserved: str) -> None:
    with pytest.raises(ValueError, match="does not list"):
        TOKENIZER(make_visits().assign(location_id=reserved))


@pytest.mark.parametrize(
    "naive",
    [
        make_visits()["time"].dt.tz_localize(None),
        make_visits()["time"].dt.strftime("%Y-%m-%d %H:%M"),
        [t.replace(tzinfo=None) for t in make_visits()["time"].dt.to_pydatetime()],
    ],
    ids=["datetime64", "text", "datetime"],
)
def test_naive_times_are_refused(naive: Any) -> None:
    with pytest.raises(ValueError, match=r"Column 'time' must hold time-zone-aware times or integer epoch seconds"):
        TOKENIZER({"time": naive, "location_id": make_visits()["location_id"]})


@pytest.mark.parametrize("form", ["frame", "dict of lists", "list of dicts", "arrow", "dataset"])
@pytest.mark.parametrize("column", ["time", "location_id"])
def test_a_missing_column_is_named(form: str, column: str) -> None:
    frame = make_visits().drop(columns=column)
    given = {
        "frame": lambda: frame,
        "dict of lists": lambda: frame.to_dict("list"),
        "list of dicts": lambda: frame.to_dict("records"),
        "arrow": lambda: pa.Table.from_pandas(frame),
        "dataset": lambda: datasets.Dataset.from_pandas(frame),
    }[form]()
    with pytest.raises(ValueError, match=f"no column '{column}'"):
        TOKENIZER(given)


def test_a_list_of_dicts_has_the_columns_of_all_of_them() -> None:
    visits = [{"time": 0, "location_id": "p0"}, {"time": 60, "location_id": "p1", "user_id": 5}]
    for records in (visits, visits[::-1]):
        with pytest.raises(ValueError, match=r"Column 'user_id': 1 of 2 values are missing \(first rows [01]\)"):
            TOKENIZER(records)
    with pytest.raises(ValueError, match=r"Column 'location_id': 1 of 2 values are missing \(first rows 0\)"):
        TOKENIZER([{"time": 0}, {"time": 60, "location_id": "p1"}])
    known = [{"time": 0, "location_id": "p0"}, {"time": 60, "location_id": "p1", "lat": LAT[1], "lon": LON[1]}]
    assert TOKENIZER.encode_visits(known)["input_ids"].tolist() == [2, 3]  # coordinates are a check of listed places


@pytest.mark.parametrize("short", ["user_id", "location_id", "lat"])
def test_columns_of_different_lengths_are_refused(short: str) -> None:
    columns = make_visits().to_dict("list")
    with pytest.raises(ValueError, match=f"Column '{short}' has 12 values, column 'time' has 13"):
        TOKENIZER({**columns, short: columns[short][:-1]})


@pytest.mark.parametrize("nothing", [make_visits().iloc[:0], {"time": [], "location_id": []}], ids=["frame", "dict"])
def test_no_visits_are_refused(nothing: Any) -> None:
    with pytest.raises(ValueError, match="There are no records"):
        TOKENIZER(nothing)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown must be 'error', 'nearest' or 'drop'"):
        TOKENIZER(make_visits(), unknown="guess")
    with pytest.raises(ValueError, match="coordinate_norm must be"):
        SamoeTokenizer.from_city(CITY, coordinate_norm="box")
    with pytest.raises(ValueError, match="a SamoeTokenizer is a city"):
        SamoeTokenizer()


# Batches


def test_two_people_of_different_lengths_need_padding() -> None:
    with pytest.raises(ValueError, match="pass padding=True"):
        TOKENIZER(make_visits(), return_tensors="pt")
    assert [len(ids) for ids in TOKENIZER(make_visits())["input_ids"]] == [6, 3, 4]
    assert TOKENIZER(make_visits((4, 4)), return_tensors="pt")["input_ids"].shape == (2, 4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("padding", [True, "longest", "max_length"])
@pytest.mark.parametrize("tensors", ["pt", "np", None])
def test_padding_fills_every_field_alike(side: str, padding: bool | str, tensors: str | None) -> None:
    tokenizer = SamoeTokenizer.from_city(CITY, CONFIG, padding_side=side)
    plain = tokenizer(make_visits())
    length = 9 if padding == "max_length" else 6
    batch = tokenizer(
        make_visits(), padding=padding, max_length=9 if padding == "max_length" else None, return_tensors=tensors
    )
    for name in (*FIELDS, "attention_mask"):
        rows = np.asarray(batch[name])
        assert rows.shape == (3, length), name
        for row, wanted in zip(rows.tolist(), plain[name]):
            fill = [0] * (length - len(wanted))
            assert row == (fill + wanted if side == "left" else wanted + fill), name
    if tensors == "pt":
        assert all(batch[name].dtype == torch.int64 for name in FIELDS)


def test_by_default_padding_is_on_the_left() -> None:
    mask = TOKENIZER(make_visits(), padding=True, return_tensors="pt")["attention_mask"]
    assert mask[1].tolist() == [0, 0, 0, 1, 1, 1]


def test_truncation_keeps_the_last_visits() -> None:
    plain = TOKENIZER(make_visits())
    for limit in (1, 3, 5, 100):
        batch = TOKENIZER(make_visits(), truncation=True, max_length=limit)
        for name in (*FIELDS, "attention_mask"):
            assert batch[name] == [row[-limit:] for row in plain[name]]
    assert TOKENIZER(make_visits(), max_length=3)["input_ids"] == plain["input_ids"]  # not asked to
    assert TOKENIZER(make_visits(), truncation="do_not_truncate", max_length=3)["input_ids"] == plain["input_ids"]


def test_truncation_on_the_right_keeps_the_first_visits() -> None:
    tokenizer = SamoeTokenizer.from_city(CITY, CONFIG, truncation_side="right")
    plain, batch = TOKENIZER(make_visits()), tokenizer(make_visits(), truncation=True, max_length=3)
    for name in (*FIELDS, "attention_mask"):
        assert batch[name] == [row[:3] for row in plain[name]]
    assert tokenizer("p0 p1 p2", truncation=True, max_length=2)["input_ids"] == [2, 3]  # as with text


def test_the_longest_context_is_the_models() -> None:
    frame = make_visits((600,))
    assert len(TOKENIZER(frame, truncation=True)["input_ids"][0]) == 512
    released = SamoeConfig.from_preset("tiny", variant="released", num_poi_features=5)
    assert len(SamoeTokenizer.from_city(CITY, released)(frame, truncation=True)["input_ids"][0]) == 144


def test_an_end_of_trajectory_is_appended_where_the_model_uses_it() -> None:
    tokenizer = SamoeTokenizer.from_city(CITY, CONFIG, use_eos=True)
    plain, ended = TOKENIZER(make_visits()), tokenizer(make_visits())
    assert ended["input_ids"] == [[*row, 1] for row in plain["input_ids"]]
    assert ended["time_ids"] == [[*row, 0] for row in plain["time_ids"]]
    assert ended["timestamps"] == [row + row[-1:] for row in plain["timestamps"]]
    assert ended["attention_mask"] == [[*row, 1] for row in plain["attention_mask"]]
    assert tokenizer("p0 p1")["input_ids"] == [2, 3, 1] and TOKENIZER("p0 p1")["input_ids"] == [2, 3]
