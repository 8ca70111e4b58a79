"""Values that no file, picture or array of numbers can hold are refused in one sentence, by pandas' readers and by the
tokenizers' own."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hf_mobility import City, RawTokenizer
from hf_mobility.data import DataError, validate_visits
from hf_mobility.data.io.readers import read_table
from hf_mobility.tokenization.records import factorize, read_durations, read_numbers, read_times

FRAME = pd.DataFrame(
    {
        "user_id": [1, 2, 3],
        "time": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"], utc=True),
        "location_id": ["a", "b", "c"],
        "lat": [1.0, 2.0, 3.0],
        "lon": [1.0, 2.0, 3.0],
    }
)
LONG = "a" * 1_001
FAULTS: dict[str, tuple[str, list[Any], str]] = {
    "users beyond int64": (
        "user_id",
        [2**70, 1, 2],
        "outside the range of int64 .first rows 0: 1180591620717411303424",
    ),
    "users below int64": ("user_id", [1, 2, -(2**70)], "outside the range of int64"),
    "places beyond int64": ("location_id", [2**70, 1, 2], "outside the range of int64"),
    "lists as users": ("user_id", [[1], [2], [3]], "ids must be all integers or all strings"),
    "lists as categories": ("category", [[1], "a", None], "holds lists or the like"),
    "dicts as categories": ("category", ["a", {"a": 1}, None], "holds lists or the like"),
    "half a character in a user": (
        "user_id",
        ["\ud800", "b", "c"],
        r"1 of 3 values are half of a character .*'\\ud800'",
    ),
    "half a character in a place": ("location_id", ["\ud800", "b", "c"], "half of a character"),
    "half a character in a category": ("category", ["\ud800", "b", None], "half of a character"),
    "control characters in users": (
        "user_id",
        ["a\0", "b\n", "c"],
        r"2 of 3 values are .* control .*0: 'a\\x00', 1: 'b\\n'",
    ),
    "control characters in places": ("location_id", ["a\x1b[2J", "b", "c"], "control characters"),
    "long users": ("user_id", [LONG, "b", "c"], "longer than 1,000 characters"),
    "long places": ("location_id", [LONG, "b", "c"], "longer than 1,000 characters"),
    "long categories": ("category", [LONG, "b", None], "longer than 1,000 characters"),
    "times beyond int64": ("time", [2**70, 1, 2], "no epoch seconds"),
    "times that wrap around": ("time", np.array([2**64 - 1, 1, 2], dtype=np.uint64), "no epoch seconds"),
    "latitudes beyond every float": (
        "lat",
        [10**400, 2, 3],
        "1 of 3 values are (missing, NaN or infinite|not numbers)",
    ),
    "complex latitudes": ("lat", np.array([1j, 2, 3]), "complex128 values; numbers"),
    "stays of an age": ("duration", [1e300, 2, 3], "infinite or too long"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_value_that_cannot_be_kept_is_one_sentence(fault: str) -> None:
    name, values, sentence = FAULTS[fault]
    column = pd.Series(values, dtype=object if isinstance(values, list) else None)
    with pytest.raises(DataError, match=f"^Column '{name}'.*{sentence}") as caught:
        validate_visits(FRAME.assign(**{name: column}))
    str(caught.value).encode()  # can be printed
    assert "\n" not in str(caught.value)


def test_a_category_may_have_the_control_characters_of_published_files() -> None:
    assert validate_visits(FRAME.assign(category="Caf\x1a"))["category"].tolist() == ["Caf\x1a"] * 3


def test_read_table_leaves_rows_with_unusable_ids_out(tmp_path: Path) -> None:
    FRAME.assign(location_id=["a", "b\0", LONG]).to_csv(tmp_path / "v.csv", index=False)
    visits = read_table(tmp_path / "v.csv")
    assert visits["location_id"].tolist() == ["a"]
    assert visits.attrs["read_report"] == {"rows_read": 3, "rejected": {"zero byte": 1, "unusable location_id": 1}}


# The tokenizers' own reading

READS: dict[str, Callable[[list[Any]], Any]] = {
    "ids": lambda values: factorize(np.array(values, dtype=object), "x"),
    "times": lambda values: read_times({"x": np.array(values, dtype=object)}, "x"),
    "numbers": lambda values: read_numbers({"x": values}, "x"),
    "durations": lambda values: read_durations({"x": values}, "x"),
}


@pytest.mark.parametrize(
    ("kind", "values", "sentence"),
    [
        ("ids", [2**70, 1], "ids of a type or size that is not known"),
        ("ids", [["a"], ["b"]], "holds lists or the like"),
        ("ids", ["a", "\ud800"], "half of a character"),
        ("ids", ["a", "b\n"], "control characters"),
        ("ids", ["a", LONG], "1 of 2 values are longer than 1,000 characters"),
        ("times", [2**70, 1], "1 of 2 values are no epoch seconds"),
        ("numbers", [10**400, 1], "must hold numbers"),
        ("numbers", [1j, 1], "must hold numbers"),
        ("durations", [1e300, 1], "too long"),
    ],
)
def test_records_are_refused_as_frames_are(kind: str, values: list[Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        READS[kind](values)


def test_times_of_unsigned_numbers_do_not_wrap_around() -> None:
    with pytest.raises(DataError, match="no epoch seconds"):
        read_times({"x": np.array([2**64 - 1], dtype=np.uint64)}, "x")


@pytest.mark.parametrize("ids", [np.array(["b", "a", "b"]), np.array(["b", "a", "b"], dtype=object), ["b", "a", "b"]])
def test_distinct_ids_are_as_wide_as_each_is(ids: Any) -> None:
    users, codes = factorize(ids, "user_id")
    assert users.dtype == object and users.tolist() == ["a", "b"] and codes.tolist() == [1, 0, 1]


def test_a_long_id_costs_no_memory() -> None:
    """800 MB before: 2,000 ids, each as wide as the longest."""
    ids = ["a" * 100_000, *(f"u{index}" for index in range(2_000))]
    points = {"user_id": ids, "time": range(len(ids)), "lat": [48.0] * len(ids), "lon": [11.0] * len(ids)}
    tokenizer = RawTokenizer.from_bounds((47, 10, 49, 12), timezone="UTC")
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="longer than 1,000 characters"):
            tokenizer(points)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["\ud800", "a\0", LONG])
def test_a_city_has_names_that_its_file_can_hold(text: str) -> None:
    with pytest.raises(DataError, match="1 names of the city and its POI columns are "):
        City.from_bounds((0, 0, 1, 1), timezone="UTC", name=text)
    with pytest.raises(DataError, match="1 location ids are "):
        City("", "UTC", ["a", text], [1, 2], [1, 2], popularity=[1, 2])
