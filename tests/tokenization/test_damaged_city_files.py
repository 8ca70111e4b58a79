"""A city's files whose hash fits and whose contents cannot be a city's: refused in one sentence with the file, by
`City.load` and by every tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mstar_town import make_records
from safetensors.numpy import load_file, save_file
from samoe_town import make_city
from transformers import AutoTokenizer

from hf_mobility import City, DataError, MstarTokenizer, RawTokenizer, SamoeTokenizer, SquareGrid
from hf_mobility.tokenization.city_files import content_hash

GRID = SquareGrid(47.9, 10.9, 48.2, 11.3, rows=4, columns=5)
TOKENIZERS = {"samoe": SamoeTokenizer, "raw": RawTokenizer, "mstar": MstarTokenizer}
Change = Callable[[dict[str, Any], dict[str, np.ndarray]], Any]


def first(array: np.ndarray, value: Any) -> np.ndarray:
    changed = array.copy()
    changed.flat[0] = value
    return changed


# What is changed in the JSON (h) or the table (a) -> what the sentence says.
OF_A_CITY: dict[str, tuple[Change, str]] = {
    "lat NaN": (
        lambda h, a: a.update(lat=first(a["lat"], np.nan)),
        r"1 locations have no valid lat/lon, first \['p0'\]",
    ),
    "lat of pairs": (lambda h, a: a.update(lat=a["lat"][:, None]), r"lat is float64 of shape \(8, 1\), not \(8,\)"),
    "lat too short": (lambda h, a: a.update(lat=a["lat"][:-1]), r"lat is float64 of shape \(7,\), not \(8,\)"),
    "lat of integers": (lambda h, a: a.update(lat=a["lat"].astype(int)), "lat is int64"),
    "popularity 100": (lambda h, a: a.update(popularity=a["popularity"] * 0 + 100), "got 100..100"),
    "popularity 0": (lambda h, a: a.update(popularity=a["popularity"] * 0), "got 0..0"),
    "popularity NaN": (lambda h, a: a.update(popularity=a["popularity"] * np.float32("nan")), "popularity is float"),
    "poi NaN": (lambda h, a: a.update(poi=first(a["poi"], np.nan)), "poi holds 1 values that are not finite"),
    "poi of another width": (
        lambda h, a: a.update(poi=a["poi"][:, :3]),
        r"poi is float16 of shape \(8, 3\), not \(8, 5\)",
    ),
    "ids a number": (lambda h, a: h.update(location_ids=5), "location_ids in the JSON is of another type"),
    "ids in lists": (lambda h, a: h.update(location_ids=[[x] for x in h["location_ids"]]), "location_ids in the JSON"),
    "ids of numbers": (lambda h, a: h.update(location_ids=list(range(8))), "location_ids in the JSON"),
    "no id": (lambda h, a: h["location_ids"].__setitem__(0, None), "location_ids in the JSON"),
    "an id twice": (lambda h, a: h["location_ids"].__setitem__(0, "p1"), "1 location ids occur more than once"),
    "zone a number": (lambda h, a: h.update(timezone=5), "timezone in the JSON is of another type"),
    "zone a path": (lambda h, a: h.update(timezone="../../etc/passwd"), "Unknown time zone"),
    "name a list": (lambda h, a: h.update(name=["x"]), "name in the JSON is of another type"),
    "bounds text": (lambda h, a: h.update(bounds="abcd"), "bounds in the JSON"),
    "bounds NaN": (lambda h, a: h.update(bounds=[47.9, 10.9, float("nan"), 11.3]), "bounds in the JSON"),
    "bounds gone": (lambda h, a: h.update(bounds=None), "rows and columns in the JSON"),
    "rows text": (lambda h, a: h.update(rows="x"), "rows and columns in the JSON"),
    "rows alone": (lambda h, a: h.update(columns=None), "rows and columns in the JSON"),
    "half a row": (lambda h, a: h.update(rows=1.5), "rows and columns in the JSON"),
    "columns a number": (lambda h, a: h.update(poi_names=5), "poi_names in the JSON"),
    "hash of another table": (lambda h, a: h.update(content_hash="0"), "do not match their content_hash"),
}
OF_MSTAR: dict[str, tuple[Change, str]] = {
    "a grid of 10^18 cells": (lambda h, a: h.update(rows=10**9, columns=10**9), "cell_map must be "),
    "no cell_map": (lambda h, a: a.pop("cell_map"), "there is no cell_map"),
    "cells beyond the grid": (lambda h, a: a.update(cell_map=first(a["cell_map"], 99)), "cell_map must be "),
    "hours text": (lambda h, a: h.update(num_hours="168"), "num_hours must be a whole number, got '168'"),
    "10^12 hours": (lambda h, a: h.update(num_hours=10**12), "num_hours must lie in 1..100,000"),
    "attributes NaN": (lambda h, a: h.update(num_attributes=float("nan")), "num_attributes must be a whole number"),
    "10^9 attributes": (lambda h, a: h.update(num_attributes=10**9), "num_attributes must lie in 1..10,000"),
    "a medoid less": (lambda h, a: a.update(medoids=a["medoids"][1:]), "count the medoids"),
    "homes below 0": (lambda h, a: a.update(home_counts=first(a["home_counts"], -5)), "home_counts holds -5"),
    "homes of half weeks": (lambda h, a: a.update(home_counts=a["home_counts"] / 2), "home_counts is float64"),
    "homes of another grid": (
        lambda h, a: a.update(home_counts=a["home_counts"][:, 1:]),
        r"not integers of shape \(2, 20\)",
    ),
    "pairs beyond the grid": (
        lambda h, a: a.update(pairs=first(a["pairs"], 20)),
        "pairs names cell 20, the city has 20",
    ),
    "pairs gone": (lambda h, a: a.pop("pairs"), "the tables lack pairs"),
    "classes below 0": (
        lambda h, a: a.update(attribute_counts=first(a["attribute_counts"], -1)),
        "attribute_counts holds -1",
    ),
    "people gone": (lambda h, a: a.pop("pair_users"), "the tables lack pair_users"),
    "more people than weeks": (
        lambda h, a: a.update(home_users=first(a["home_users"], 99)),
        "home_users counts more people than weeks",
    ),
    "homes of an unknown size": (
        lambda h, a: a.update(pair_levels=a["pair_levels"] - 9),
        "pair_levels holds",
    ),
    "a share of 2": (lambda h, a: h.update(same_share=2.0), "same_share must lie in 0..1, got 2.0"),
    "a share NaN": (lambda h, a: h.update(same_share=float("nan")), "same_share must lie in 0..1, got nan"),
    "smoothing below 0": (lambda h, a: h.update(smoothing=-1), "smoothing must lie in 0.."),
}


def save(folder: Path, system: str) -> None:
    city = make_city().with_grid(GRID)
    if system == "city":
        return city.save(folder)
    tokenizer = TOKENIZERS[system].from_city(city)
    if isinstance(tokenizer, MstarTokenizer):
        tokenizer.fit_conditions(tokenizer.weeks(make_records(), min_known=0.01), num_attributes=2)
    tokenizer.save_pretrained(folder, min_users=1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """JSON and table of the two files, per system."""
    contents = {}
    for system in ("city", *TOKENIZERS):
        folder = tmp_path_factory.mktemp(system)
        save(folder, system)
        contents[system] = json.loads((folder / "city.json").read_text()), load_file(folder / "city.safetensors")
    return contents


def forge(folder: Path, contents: Any, change: Change) -> None:
    """The files with one change and the hash that fits it."""
    header, arrays = json.loads(json.dumps(contents[0])), dict(contents[1])
    before = header["content_hash"]
    change(header, arrays)
    if header["content_hash"] == before:
        header["content_hash"] = content_hash(header, arrays)
    (folder / "city.json").write_text(json.dumps(header))
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "city.safetensors")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": f"{header['kind'].title()}Tokenizer"}))


@pytest.mark.parametrize("fault", OF_A_CITY)
@pytest.mark.parametrize("system", ["city", *TOKENIZERS])
def test_a_city_that_cannot_be_is_refused_by_every_reader(system: str, fault: str, saved: Any, tmp_path: Path) -> None:
    change, sentence = OF_A_CITY[fault]
    forge(tmp_path, saved[system], change)
    readers = (
        [City.load]
        if system == "city"
        else [City.load, TOKENIZERS[system].from_pretrained, AutoTokenizer.from_pretrained]
    )
    for read in readers:
        with pytest.raises(DataError, match=sentence) as caught:
            read(tmp_path)
        assert str(caught.value).startswith(str(tmp_path / "city.json")) and "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", OF_MSTAR)
def test_tables_that_no_weeks_give_are_refused(fault: str, saved: Any, tmp_path: Path) -> None:
    change, sentence = OF_MSTAR[fault]
    forge(tmp_path, saved["mstar"], change)
    for read in (MstarTokenizer.from_pretrained, AutoTokenizer.from_pretrained):
        with pytest.raises(DataError, match=sentence) as caught:
            read(tmp_path)
        assert str(caught.value).startswith(str(tmp_path / "city.json")) and "\n" not in str(caught.value)


def test_an_unchanged_copy_is_read(saved: Any, tmp_path: Path) -> None:
    for system, tokenizer in TOKENIZERS.items():
        forge(tmp_path, saved[system], lambda h, a: None)
        assert City.load(tmp_path) == tokenizer.from_pretrained(tmp_path).city == make_city().with_grid(GRID)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe{}", b'{"a": 1', b""])
def test_json_that_cannot_be_read_is_one_sentence(content: bytes, saved: Any, tmp_path: Path) -> None:
    forge(tmp_path, saved["samoe"], lambda h, a: None)
    (tmp_path / "city.json").write_bytes(content)
    for read in (City.load, SamoeTokenizer.from_pretrained, AutoTokenizer.from_pretrained):
        with pytest.raises(DataError, match=rf"^{tmp_path}/city\.json is no readable JSON") as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config", ["[" * 100_000, "[]", '{"box": 5}', '{"box": [1, 2, 3, 4]}', '{"box": ["a", 2, 3, 4]}']
)
def test_a_tokenizers_configuration_that_holds_no_box_is_one_sentence(config: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(config)
    with pytest.raises(DataError, match=rf"^{tmp_path}/tokenizer_config\.json"):
        City.load(tmp_path)


def test_an_adapter_that_names_itself_holds_no_city(tmp_path: Path) -> None:
    for base in (str(tmp_path), 5, ["a"]):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        with pytest.raises(DataError, match="holds no city"):
            City.load(tmp_path)


OPTIONS: dict[str, dict[str, list[Any]]] = {
    "samoe": {"num_stay_bins": ["x", -1, 10**12, True], "stay_encoding": [5], "pad_token": [5], "eos_token": [["a"]]},
    "mstar": {"home_hours": [5, [0], "x"], "work_days": [[0, 99]], "pad_token": [5]},
    "raw": {"interval_minutes": [0, "x", 7], "fill": [5], "model_max_length": ["x", 10**15]},
}


@pytest.mark.parametrize("system", OPTIONS)
def test_options_that_are_none_are_one_sentence(system: str, saved: Any, tmp_path: Path) -> None:
    forge(tmp_path, saved[system], lambda h, a: None)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    for name, values in OPTIONS[system].items():
        for value in values:
            path.write_text(json.dumps({**config, name: value}))
            for read in (TOKENIZERS[system].from_pretrained, AutoTokenizer.from_pretrained):
                with pytest.raises(ValueError) as caught:
                    read(tmp_path)
                assert "\n" not in str(caught.value), (name, value)
