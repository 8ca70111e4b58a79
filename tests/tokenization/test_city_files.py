"""One city for all systems: from a city to each tokenizer and back, files of format 2 and their hash, format 1."""

from __future__ import annotations

import json
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mstar_town import make_records
from safetensors.numpy import load_file, save_file
from samoe_town import make_city, make_visits
from transformers import AutoTokenizer

from hf_mobility import (
    City,
    DataError,
    MstarConfig,
    MstarTokenizer,
    RawConfig,
    RawTokenizer,
    SamoeConfig,
    SamoeTokenizer,
    SquareGrid,
)
from hf_mobility.tokenization.city_files import content_hash

ROOT = Path(__file__).resolve().parents[2]
FORMAT_1 = ROOT / "tests" / "fixtures" / "format_1"
CHECKPOINTS = sorted(path.parent for path in (ROOT / "checkpoints").glob("*/config.json"))
TOKENIZERS = {"samoe": SamoeTokenizer, "mstar": MstarTokenizer, "raw": RawTokenizer}
GRID = SquareGrid(47.9, 10.9, 48.2, 11.3, rows=6, columns=5)
CITIES = {
    "places": make_city(),
    "places and a grid": make_city().with_grid(GRID),
    "cells as places": City.from_grid(GRID, timezone="Asia/Tokyo", name="Zürich"),
    "a grid alone": City("Cells", "UTC", grid=GRID),
    "bounds alone": City.from_bounds((48.0, 11.0, 48.2, 11.4), timezone="Europe/Berlin"),
}


def expected(system: str) -> dict[str, np.ndarray]:
    arrays = load_file(FORMAT_1 / "expected.safetensors")
    own = {name.removeprefix(f"{system}."): array for name, array in arrays.items() if name.startswith(f"{system}.")}
    if "weekday_ids" in own:
        own["weekday_ids"] -= 1  # written when Monday was 1
    return {name.replace("commute_ids", "work_ids"): array for name, array in own.items()}


def assert_equal(found: Any, wanted: dict[str, np.ndarray]) -> None:
    for name, array in wanted.items():
        np.testing.assert_array_equal(np.asarray(found[name]), array, err_msg=name)
        assert np.asarray(found[name]).dtype == array.dtype, name


# A city and its tokenizers


@pytest.mark.parametrize("kind", CITIES)
@pytest.mark.parametrize("system", TOKENIZERS)
def test_a_tokenizer_gives_its_city_back(system: str, kind: str, tmp_path: Path) -> None:
    city, tokenizer = CITIES[kind], TOKENIZERS[system]
    if system == "samoe" and not len(city):
        with pytest.raises(DataError, match=r"has no places, which SAMoE needs: City\.from_visits"):
            tokenizer.from_city(city)
        return
    made = tokenizer.from_city(city)
    given = city if system != "mstar" or city.grid is not None else city.with_grid(cell_km=1.0)
    assert type(made.city) is City and made.city == given
    assert (made.name, made.timezone, made.bounds) == (given.name, given.timezone, given.bounds)
    made.save_pretrained(tmp_path)
    header = json.loads((tmp_path / "city.json").read_text(encoding="utf-8"))
    assert (header["format_version"], header["kind"]) == (2, system)
    for loaded in (tokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert type(loaded) is tokenizer and loaded.city == given
    assert City.load(tmp_path) == given


@pytest.mark.parametrize("system", TOKENIZERS)
def test_a_saved_city_is_every_systems_start(system: str, tmp_path: Path) -> None:
    make_city().save(tmp_path)
    city = City.load(tmp_path)
    assert city == make_city() and TOKENIZERS[system].from_city(city).timezone == "Europe/Berlin"


def test_the_grid_of_a_city_without_one_is_of_whole_cells() -> None:
    made = MstarTokenizer.from_city(make_city(), cell_km=0.5)
    assert made.city.grid == SquareGrid.around(make_city().lat, make_city().lon, cell_km=0.5)
    assert (
        made.city.grid.cell_km == pytest.approx((0.5, 0.5)) and (made.cells_at(made.city.lat, made.city.lon) >= 0).all()
    )
    assert np.array_equal(made.city.location_ids, make_city().location_ids)
    assert (made.rows, made.columns) == (made.city.grid.rows, made.city.grid.columns)


def test_a_configuration_chooses_what_is_the_models() -> None:
    raw = RawTokenizer.from_city(make_city(), RawConfig.from_preset("tiny"))
    assert raw.slots_per_day == RawConfig.from_preset("tiny").slots_per_day
    config = MstarConfig.from_preset("tiny")  # 2 x 2 and 4 x 4 cells, 24 hours
    grid = SquareGrid(47.9, 10.9, 48.2, 11.3, rows=4, columns=4)
    mstar = MstarTokenizer.from_city(City("", "UTC", grid=grid), config)
    assert mstar.cells_per_resolution == list(config.codec_config.cells_per_resolution) and mstar.num_hours == 24
    with pytest.raises(DataError, match=r"cells per resolution are .* the model's are"):
        MstarTokenizer.from_city(make_city(), config)
    with pytest.raises(DataError, match="the city has 5 POI columns, the model needs 60"):
        SamoeTokenizer.from_city(make_city(), SamoeConfig.from_preset("tiny"))


@pytest.mark.parametrize("system", TOKENIZERS)
def test_unknown_options_and_things_that_are_no_city_are_refused(system: str) -> None:
    tokenizer = TOKENIZERS[system]
    with pytest.raises(TypeError, match=f"{tokenizer.__name__} has no option 'cell_size'; it takes "):
        tokenizer.from_city(make_city(), cell_size=3)
    with pytest.raises(TypeError, match="city must be a City, got DataFrame"):
        tokenizer.from_city(make_visits())


def test_a_new_process_reads_the_same(
    run_python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    records = make_records()
    points = {"user_id": records["user_id"].tolist(), "time": (records["time"].astype("int64") // 10**6).tolist()}
    points |= {"lat": records["lat"].tolist(), "lon": records["lon"].tolist()}
    visits = make_visits()
    visits = {"time": (visits["time"].astype("int64") // 10**6).tolist(), "location_id": visits["location_id"].tolist()}
    (tmp_path / "points.json").write_text(json.dumps(points))
    (tmp_path / "visits.json").write_text(json.dumps(visits))
    made = {name: tokenizer.from_city(make_city().with_grid(GRID)) for name, tokenizer in TOKENIZERS.items()}
    for name, tokenizer in made.items():
        tokenizer.save_pretrained(tmp_path / name)
    script = f"""
import json, sys
from pathlib import Path
import hf_mobility
from transformers import AutoTokenizer
from safetensors.numpy import save_file
import numpy as np
folder = Path({str(tmp_path)!r})
visits, points = (json.loads((folder / name).read_text()) for name in ("visits.json", "points.json"))
for name in ("samoe", "mstar", "raw"):
    tokenizer = AutoTokenizer.from_pretrained(folder / name)
    options = dict(min_known=0.01) if name == "mstar" else dict(padding=True)
    batch = tokenizer(visits if name == "samoe" else points, return_tensors="np", **options)
    save_file({{key: np.ascontiguousarray(value) for key, value in batch.items()}}, folder / f"{{name}}.safetensors")
"""
    run_python("-c", script)
    for name, tokenizer in made.items():
        options: dict[str, Any] = {"min_known": 0.01} if name == "mstar" else {"padding": True}
        batch = tokenizer(visits if name == "samoe" else points, return_tensors="np", **options)
        assert_equal(load_file(tmp_path / f"{name}.safetensors"), dict(batch))


# Files


@pytest.mark.parametrize("system", [*TOKENIZERS, "city"])
def test_changed_and_mixed_files_are_refused(system: str, tmp_path: Path) -> None:
    here, there = (make_city(name=name, lat=48 + 0.01 * np.arange(8) + up) for name, up in (("A", 0.0), ("B", 0.001)))
    for name, city in (("here", here.with_grid(GRID)), ("there", there.with_grid(GRID))):
        if system == "city":
            city.save(tmp_path / name)
        else:
            TOKENIZERS[system].from_city(city).save_pretrained(tmp_path / name)
    readers = [City.load] + ([] if system == "city" else [TOKENIZERS[system].from_pretrained])
    path, sentence = (
        tmp_path / "here" / "city.json",
        "here/city.json and city.safetensors do not match their content_hash",
    )
    text = path.read_text(encoding="utf-8")
    for changed in (text.replace('"p3"', '"p9"'), text.replace("Europe/Berlin", "Europe/Paris")):
        assert changed != text
        path.write_text(changed, encoding="utf-8")
        for read in readers:
            with pytest.raises(DataError, match=sentence):
                read(tmp_path / "here")
    path.write_text(json.dumps({k: v for k, v in json.loads(text).items() if k != "content_hash"}), encoding="utf-8")
    for read in readers:
        with pytest.raises(DataError, match=sentence):
            read(tmp_path / "here")
    path.write_text(text, encoding="utf-8")
    assert [read(tmp_path / "here") for read in readers]
    shutil.copy(tmp_path / "there" / "city.safetensors", tmp_path / "here" / "city.safetensors")
    for read in readers:
        with pytest.raises(DataError, match=sentence):
            read(tmp_path / "here")


def test_files_that_are_no_city_are_named(tmp_path: Path) -> None:
    make_city().save(tmp_path)
    text = (tmp_path / "city.json").read_text(encoding="utf-8")
    for content, sentence in (
        ("{", "city.json is no readable JSON"),
        ("[]", "city.json must hold one JSON object, not a list"),
        ('{"format_version": 3}', "city.json has format version 3; this release reads 1 and 2"),
        ('{"format_version": 1}', "city.json and city.safetensors lack .'name', 'timezone', 'location_ids'"),
        ('{"format_version": 2, "name": ""}', "city.json and city.safetensors lack .'timezone', 'bounds'"),
    ):
        (tmp_path / "city.json").write_text(content)
        with pytest.raises(DataError, match=sentence):
            City.load(tmp_path)
    (tmp_path / "city.json").write_text(text, encoding="utf-8")
    (tmp_path / "city.safetensors").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"city\.safetensors is no readable safetensors file"):
        City.load(tmp_path)
    (tmp_path / "city.safetensors").unlink()
    with pytest.raises(DataError, match=r"holds no city: it has no city\.json and city\.safetensors"):
        City.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        City.load(tmp_path / "nowhere")


def test_a_tokenizer_does_not_read_another_systems_files(tmp_path: Path) -> None:
    for name, tokenizer in TOKENIZERS.items():
        tokenizer.from_city(make_city()).save_pretrained(tmp_path / name)
        for other, reader in TOKENIZERS.items():
            if other != name:
                with pytest.raises(DataError, match=f"city.json is of kind '{name}'; this tokenizer reads '{other}'"):
                    reader.from_pretrained(tmp_path / name)


def test_the_hash_covers_everything() -> None:
    header, arrays = make_city().contents()
    hashes = {content_hash(header, arrays)}
    hashes |= {content_hash({**header, name: "else"}, arrays) for name in header}
    for name, array in arrays.items():
        changed = array.copy()
        changed.flat[0] += 1
        hashes |= {
            content_hash(header, {**arrays, name: changed}),
            content_hash(header, {**arrays, name: array[:, None]}),
        }
        hashes |= {content_hash(header, {k: v for k, v in arrays.items() if k != name})}
    assert len(hashes) == 1 + len(header) + 3 * len(arrays)


def test_an_adapters_city_is_its_own_or_its_base_models(tmp_path: Path) -> None:
    SamoeTokenizer.from_city(make_city()).save_pretrained(tmp_path / "base")
    (tmp_path / "adapter").mkdir()
    config = {"base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    assert City.load(tmp_path / "adapter") == make_city()
    SamoeTokenizer.from_city(make_city(name="Own")).save_pretrained(tmp_path / "adapter")
    assert City.load(tmp_path / "adapter").name == "Own"


# Format 1, written by 0.1.0.dev0


def visits_of_format_1() -> dict[str, list]:
    return json.loads((FORMAT_1 / "visits.json").read_text(encoding="utf-8"))


def test_a_city_of_format_1_is_what_it_was() -> None:
    city, wanted = City.load(FORMAT_1 / "city"), expected("city")
    assert (city.name, city.timezone, len(city), city.grid) == ("Kleinstadt", "Europe/Berlin", 24, None)
    for name in ("lat", "lon", "popularity"):
        assert np.array_equal(getattr(city, name), wanted[name]), name
    assert np.array_equal(city.poi, wanted["poi"].astype(np.float16).astype(np.float32))
    assert city == City.load(FORMAT_1 / "samoe")


def test_a_changed_city_of_format_1_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(FORMAT_1 / "city", tmp_path / "city")
    arrays = load_file(tmp_path / "city" / "city.safetensors")
    save_file({**arrays, "popularity": arrays["popularity"] + 1}, tmp_path / "city" / "city.safetensors")
    with pytest.raises(DataError, match="do not match their content_hash"):
        City.load(tmp_path / "city")


@pytest.mark.parametrize("again", [False, True], ids=["as it is", "saved as format 2"])
@pytest.mark.parametrize("system", TOKENIZERS)
def test_a_tokenizer_of_format_1_gives_what_it_gave(system: str, again: bool, tmp_path: Path) -> None:
    folder = FORMAT_1 / system
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer) is TOKENIZERS[system] and tokenizer.city == City.load(folder)
    if again:
        tokenizer.save_pretrained(tmp_path, **({"min_users": 1} if system == "mstar" else {}))
        assert json.loads((tmp_path / "city.json").read_text())["format_version"] == 2
        assert "box" not in json.loads((tmp_path / "tokenizer_config.json").read_text())
        assert City.load(tmp_path) == tokenizer.city
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    wanted = expected(system)
    if system != "mstar":
        found = tokenizer(visits_of_format_1(), padding=True, return_tensors="np")
    else:
        found = dict(tokenizer(wanted["cells"], return_tensors="np"))
        found |= {"cells": tokenizer.weeks(visits_of_format_1(), min_known=0.05).cells}
        found |= {name: getattr(tokenizer, name) for name in ("lat", "lon", "cell_map", "medoids")}
        found |= {f"sampled.{name}": ids for name, ids in tokenizer.sample_conditions(20, seed=1).items()}
    assert_equal(found, wanted)


def test_a_list_of_cells_of_format_1_is_a_city_of_its_cells() -> None:
    tokenizer = MstarTokenizer.from_pretrained(FORMAT_1 / "mstar_cells")
    assert tokenizer.city.location_ids.tolist() == ["0", "1", "2"] and tokenizer.city.grid is None
    assert tokenizer.lat.tolist() == [1.0, 2.0, 3.0] and tokenizer.cell_map.tolist() == [[0, 0], [0, 1], [1, 2]]
    with pytest.raises(ValueError, match="a list of cells without a grid"):
        tokenizer.cells_at([1.0], [4.0])


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda path: path.name)
def test_every_checkpoint_holds_a_city(folder: Path) -> None:
    tokenizer, city = AutoTokenizer.from_pretrained(folder), City.load(folder)
    assert tokenizer.city == city and city.timezone == "Europe/Berlin"
    assert type(tokenizer).from_city(city).city == city


# Size


def test_a_long_id_is_refused_before_it_costs_memory() -> None:
    ids = [f"p{k}" for k in range(7_500)]
    values = {"name": "", "timezone": "UTC", "lat": np.zeros(7_500), "lon": np.zeros(7_500)}
    values |= {"popularity": np.full(7_500, 9)}
    tracemalloc.start()
    with pytest.raises(DataError, match=r"1 location ids are longer than 1,000 characters, first 'xxx.*'\.\.\."):
        City(location_ids=[*ids[1:], "x" * 100_000], **values)
    city = City(location_ids=[*ids[1:], "x" * 1_000], **values)
    assert city.index_of(["x" * 100_000, "p3", "x" * 1_000]).tolist() == [-1, 2, 7_499]
    tokenizer = SamoeTokenizer.from_city(city)
    visits = {"location_id": ["p1"] * 7_499 + ["y" * 100_000], "time": list(range(7_500))}
    encoded = tokenizer.encode_visits(visits, unknown="drop")
    with pytest.raises(
        ValueError, match=r"1 visits are at 1 locations that this city does not list, first \['y{40}'\]"
    ):
        tokenizer.encode_visits(visits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert encoded["input_ids"].tolist() == [2] * 7_499 and peak < 20_000_000  # fixed-width text would be 3 GB
