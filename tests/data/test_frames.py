"""Validation: every accepted spelling gives the same canonical frame, every fault one sentence."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.data import DataError
from hf_mobility.data.frames import as_visits, validate_points, validate_visits


def make_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": [2, 1, 1, 2],
            "time": pd.to_datetime(
                ["2024-05-01T12:00Z", "2024-05-01T08:00Z", "2024-05-02T09:30Z", "2024-04-30T23:00Z"], utc=True
            ),
            "location_id": ["cafe", "home", "office", "bar"],
            "lat": [48.1, 48.2, 48.3, 48.4],
            "lon": [11.1, 11.2, 11.3, 11.4],
            "category": ["Coffee Shop", None, "Office", " "],
            "duration": [600.0, np.nan, 3600.0, 0.0],
            "weather": ["sun", "rain", "sun", "fog"],
        },
        index=["a", "b", "c", "d"],
    )


def fault(frame: object, **kwargs: object) -> str:
    with pytest.raises(DataError) as caught:
        validate_visits(frame, **kwargs)
    return str(caught.value)


def test_canonical_columns_order_and_dtypes() -> None:
    visits = validate_visits(make_frame())
    assert list(visits.columns) == ["user_id", "time", "location_id", "lat", "lon", "category", "duration"]
    assert visits["location_id"].tolist() == ["home", "office", "bar", "cafe"]
    assert visits["category"].tolist() == [None, "Office", None, "Coffee Shop"]
    assert isinstance(visits.index, pd.RangeIndex)
    assert visits["user_id"].dtype == np.int64
    assert str(visits["time"].dtype) == "datetime64[us, UTC]"
    assert visits["lat"].dtype == visits["lon"].dtype == visits["duration"].dtype == np.float64


def test_absent_optional_columns_stay_absent() -> None:
    frame = make_frame()[["user_id", "time", "lat", "lon"]]
    assert list(validate_visits(frame).columns) == ["user_id", "time", "lat", "lon"]


def test_a_canonical_frame_is_a_fixed_point() -> None:
    once = validate_visits(make_frame())
    pd.testing.assert_frame_equal(validate_visits(once), once)


def test_the_callers_frame_is_never_changed() -> None:
    frame = make_frame()
    before = frame.copy(deep=True)
    visits = validate_visits(frame)
    visits.loc[:, "lat"] = 0.0
    visits.loc[:, "user_id"] = 0
    pd.testing.assert_frame_equal(frame, before)


def test_column_names_are_arguments() -> None:
    renamed = make_frame().rename(columns={"user_id": "who", "time": "when", "location_id": "venue", "lat": "y"})
    visits = validate_visits(renamed, user_id="who", time="when", location_id="venue", lat="y")
    pd.testing.assert_frame_equal(visits, validate_visits(make_frame()))


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations(range(12)),
    times=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    users=st.lists(st.sampled_from(["ann", "bob"]), min_size=12, max_size=12),
)
def test_shuffled_rows_give_the_same_result(order: list[int], times: list[int], users: list[str]) -> None:
    frame = pd.DataFrame(
        {
            "user_id": users,
            "time": times,
            "location_id": [f"v{i % 2}" for i in range(12)],
            "lat": np.arange(12) % 3.0,
            "lon": 1.0,
            "category": [None, "a", "b"] * 4,
        }
    )
    pd.testing.assert_frame_equal(validate_visits(frame.iloc[list(order)]), validate_visits(frame))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_every_time_resolution_is_accepted(unit: str) -> None:
    frame = make_frame()
    frame["time"] = frame["time"].astype(f"datetime64[{unit}, UTC]")
    pd.testing.assert_frame_equal(validate_visits(frame), validate_visits(make_frame()))


@pytest.mark.parametrize(
    "spell",
    [
        lambda t: t.dt.tz_convert("Asia/Tokyo"),
        lambda t: t.map(lambda x: x.isoformat()),
        lambda t: t.map(lambda x: x.strftime("%Y-%m-%d %H:%M:%S UTC")),
        lambda t: t.map(lambda x: x.strftime("%a %b %d %H:%M:%S +0000 %Y")),
        lambda t: t.map(lambda x: x.tz_convert(dt.timezone(dt.timedelta(hours=x.hour % 5))).isoformat()),
        lambda t: pd.Series([x.to_pydatetime() for x in t], index=t.index, dtype=object),
        lambda t: (t - pd.Timestamp(0, tz="UTC")) // pd.Timedelta("1s"),
        lambda t: ((t - pd.Timestamp(0, tz="UTC")) / pd.Timedelta("1s")).astype(float),
        lambda t: ((t - pd.Timestamp(0, tz="UTC")) // pd.Timedelta("1s")).astype("Int64"),
        lambda t: t.dt.tz_localize(None).astype(str) + "Z",
        lambda t: t.astype("category"),
    ],
    ids="tokyo iso utc_suffix foursquare mixed_offsets objects int float nullable_int zulu categorical".split(),
)
def test_every_spelling_of_time_gives_the_same_instant(spell) -> None:  # type: ignore[no-untyped-def]
    frame = make_frame()
    frame["time"] = spell(frame["time"])
    pd.testing.assert_frame_equal(validate_visits(frame), validate_visits(make_frame()))


def test_naive_times_are_read_in_the_given_zone() -> None:
    frame = make_frame()
    frame["time"] = frame["time"].dt.tz_convert("America/New_York").dt.tz_localize(None)
    assert "timezone=" in fault(frame)
    zone = dt.timezone(dt.timedelta(hours=-4))
    for timezone in ("America/New_York", zone):
        pd.testing.assert_frame_equal(validate_visits(frame, timezone=timezone), validate_visits(make_frame()))


def test_the_timezone_argument_is_ignored_for_aware_times_and_used_for_naive_ones_beside_them() -> None:
    frame = make_frame()
    pd.testing.assert_frame_equal(validate_visits(frame, timezone="Asia/Tokyo"), validate_visits(frame))
    frame["time"] = ["2024-05-01T12:00Z", "2024-05-01 10:00", "2024-05-02 11:30", "2024-04-30T23:00Z"]
    assert "2 of 4" in fault(frame)
    pd.testing.assert_frame_equal(validate_visits(frame, timezone="Europe/Berlin"), validate_visits(make_frame()))


def test_ambiguous_local_times_take_the_first_reading_and_nonexistent_ones_move_forward() -> None:
    frame = make_frame().iloc[:2].assign(time=["2024-10-27 02:30", "2024-03-31 02:30"])
    sentence = (
        r"^Column 'time': 1 of 2 values are times that the clock of Europe/Berlin skipped \(first rows b: 2024-03-31 "
        r"02:30\); they are read as the moment of the change; check timezone=\.$"
    )
    with pytest.warns(UserWarning, match=sentence):
        times = validate_visits(frame, timezone="Europe/Berlin").set_index("user_id")["time"]
    assert times[2] == pd.Timestamp("2024-10-27T00:30Z")
    assert times[1] == pd.Timestamp("2024-03-31T01:00Z")


@pytest.mark.parametrize("words", ["now", "2024", "03/04/2024", "today", "1714564800", "", "2024-13-01"])
def test_times_that_would_have_to_be_guessed_are_refused(words: str) -> None:
    frame = make_frame()
    frame["time"] = [words, *frame["time"].astype(str)[1:]]
    message = fault(frame, timezone="UTC")
    assert "1 of 4" in message and "ISO 8601" in message and "a: " in message


def test_other_dtypes_give_the_same_frame() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    expected = validate_visits(make_frame())
    table = pyarrow.Table.from_pandas(make_frame(), preserve_index=False)
    pd.testing.assert_frame_equal(validate_visits(table), expected)
    pd.testing.assert_frame_equal(validate_visits(table.to_pandas(types_mapper=pd.ArrowDtype)), expected)
    pd.testing.assert_frame_equal(validate_visits(make_frame().convert_dtypes()), expected)
    categorical = make_frame().astype({"user_id": "category", "location_id": "category", "category": "category"})
    pd.testing.assert_frame_equal(validate_visits(categorical), expected)


def test_a_hugging_face_dataset_gives_the_same_frame() -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_pandas(make_frame(), preserve_index=False)
    pd.testing.assert_frame_equal(validate_visits(dataset), validate_visits(make_frame()))
    assert "one split" in fault(datasets.DatasetDict(train=dataset))


def test_parquet_and_csv_paths_give_the_same_frame(tmp_path) -> None:  # type: ignore[no-untyped-def]
    make_frame().to_parquet(tmp_path / "visits.parquet")
    make_frame().to_csv(tmp_path / "visits.csv.gz", index=False)
    expected = validate_visits(make_frame())
    pd.testing.assert_frame_equal(validate_visits(tmp_path / "visits.parquet"), expected)
    pd.testing.assert_frame_equal(validate_visits(str(tmp_path / "visits.csv.gz")), expected)
    with pytest.raises(FileNotFoundError, match=r"no file .*gone\.csv"):
        validate_visits(tmp_path / "gone.csv")


def test_ids_in_a_csv_keep_their_spelling(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "ids.csv"
    path.write_text("user_id,time,location_id,lat,lon\n007,0,NA,1,2\n08,1,0010,1,2\n")
    visits = validate_visits(path)
    assert visits["user_id"].tolist() == ["007", "08"]
    assert visits["location_id"].tolist() == ["NA", "0010"]


def test_whole_floats_are_integers_in_ids() -> None:
    visits = validate_visits(make_frame().assign(user_id=[2.0, 1.0, 1.0, 2.0], location_id=[4.0, 3.0, 2.0, 1.0]))
    assert visits["user_id"].tolist() == [1, 1, 2, 2]
    assert visits["location_id"].tolist() == ["3", "2", "1", "4"]


def test_durations_may_be_time_deltas() -> None:
    frame = make_frame()
    frame["duration"] = pd.to_timedelta(frame["duration"], unit="s")
    pd.testing.assert_frame_equal(validate_visits(frame), validate_visits(make_frame()))


def test_one_place_with_several_coordinates_is_no_fault() -> None:
    frame = make_frame().assign(location_id="mall", lat=[48.0, 48.5, 49.0, 47.0])
    assert len(validate_visits(frame)) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lat": [np.nan, 48.0, np.inf, 48.0]}, ["'lat'", "2 of 4", "a: nan", "c: inf"]),
        ({"lat": [120.0, 48.0, 48.0, 48.0]}, ["'lat'", "1 of 4", "a: 120.0", "look swapped"]),
        ({"lon": [200.0, 11.0, 11.0, 11.0]}, ["'lon'", "a: 200.0", "subtract 360"]),
        ({"lon": [-200.0, 11.0, 11.0, 11.0]}, ["'lon'", "a: -200.0", "WGS84"]),
        ({"lat": ["north", 1, 2, 3]}, ["'lat'", "not numbers", "a: north"]),
        ({"time": [None, "2024-01-01", "2024-01-01", "2024-01-01"]}, ["'time'", "1 of 4", "missing"]),
        ({"time": [1714564800000] * 4}, ["'time'", "epoch seconds", "milliseconds"]),
        ({"time": [True, False, True, False]}, ["'time'", "no readable times"]),
        ({"user_id": [1, None, 2, 3]}, ["'user_id'", "1 of 4", "missing", "rows b"]),
        ({"user_id": [1, "one", 2, 3]}, ["'user_id'", "all integers or all strings"]),
        ({"user_id": [1.5, 2, 2, 3]}, ["'user_id'", "whole numbers", "a: 1.5"]),
        ({"user_id": [True, False, True, True]}, ["'user_id'", "bool"]),
        ({"location_id": ["x", None, "y", "z"]}, ["'location_id'", "missing", "rows b"]),
        ({"location_id": ["x", " ", "y", "z"]}, ["'location_id'", "blank", "rows b"]),
        ({"duration": [-1.0, 2.0, 3.0, 4.0]}, ["'duration'", "negative", "a: -1.0"]),
        ({"duration": [np.inf, 2.0, 3.0, 4.0]}, ["'duration'", "infinite"]),
        ({"category": [1.5, "x", "y", "z"]}, ["'category'", "text", "a: 1.5"]),
    ],
)
def test_a_fault_is_one_sentence_with_column_count_and_first_rows(change: dict, words: list[str]) -> None:
    message = fault(make_frame().assign(**change))
    assert all(word in message for word in words), message
    assert message.count(". ") == 0 and message.endswith(".")


def test_swapped_coordinates_are_not_suspected_where_swapping_does_not_help() -> None:
    assert "swapped" not in fault(make_frame().assign(lat=[120.0, 1, 1, 1], lon=[120.0, 1, 1, 1]))


def test_only_the_first_five_offenders_are_named() -> None:
    frame = pd.concat([make_frame()] * 5, ignore_index=True).assign(lat=np.nan)
    assert "first rows 0: nan, 1: nan, 2: nan, 3: nan, 4: nan, ...)" in fault(frame)


def test_missing_columns_list_what_is_there() -> None:
    message = fault(make_frame().drop(columns=["lat", "user_id"]))
    assert "user_id, lat" in message and "weather" in message and "user_id='my_column'" in message


def test_an_optional_column_asked_for_by_name_must_be_there() -> None:
    assert "venue" in fault(make_frame(), location_id="venue")


def test_empty_frames_doubled_columns_contradictions_and_unknown_zones_are_refused() -> None:
    frame = make_frame()
    assert "no rows" in fault(frame.iloc[:0])
    assert "more than once" in fault(pd.concat([frame, frame[["lat"]]], axis=1))
    assert "two purposes" in fault(frame, lat="lon")
    assert "IANA" in fault(frame.assign(time="2024-01-01"), timezone="Mars/Olympus")
    assert "Cannot read a table from list" in fault([1, 2])


def test_a_canonical_frame_is_taken_as_it_is_and_any_other_validated() -> None:
    canonical = validate_visits(make_frame())
    shuffled = canonical.iloc[::-1].assign(weather="sun")
    assert as_visits(canonical) is canonical and as_visits(shuffled) is shuffled
    as_objects = canonical.astype({"location_id": object}).assign(user_id=canonical["user_id"].map("u{}".format))
    assert as_visits(as_objects) is as_objects
    others = {
        "user_id": canonical["user_id"].astype(float),
        "time": canonical["time"].dt.as_unit("ns"),
        "location_id": canonical["location_id"].astype("category"),
        "lat": canonical["lat"].astype(str),
        "lon": canonical["lon"].astype("Float64"),
    }
    for name, column in others.items():
        pd.testing.assert_frame_equal(as_visits(canonical.assign(**{name: column})), canonical)
    doubled = pd.concat([shuffled, shuffled["weather"]], axis=1)
    pd.testing.assert_frame_equal(as_visits(doubled), canonical)
    for change in ({"time": canonical["time"].where([True, True, False, True])}, {"user_id": [1, 1, "2", "2"]}):
        with pytest.raises(DataError, match="Column"):
            as_visits(canonical.assign(**change))


def test_points_have_no_places_and_may_carry_extra_columns() -> None:
    points = validate_points(make_frame(), keep=["weather"])
    assert list(points.columns) == ["user_id", "time", "lat", "lon", "weather"]
    assert points["weather"].tolist() == ["rain", "sun", "fog", "sun"]
    assert list(validate_points(make_frame()).columns) == ["user_id", "time", "lat", "lon"]


@pytest.mark.parametrize(("lat", "lon"), [(90.0, 0.0), (-90.0, 180.0), (0.0, -180.0), (0.0, 0.0)])
def test_poles_and_antimeridian_are_valid(lat: float, lon: float) -> None:
    assert len(validate_points(make_frame().assign(lat=lat, lon=lon))) == 4
