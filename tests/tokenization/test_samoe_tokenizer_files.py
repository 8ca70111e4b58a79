"""SAMoE's tokenizer in use: models and collators, text, decoding, the table of places, files."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from samoe_town import CITY, CONFIG, FIELDS, LAT, LON, PLACES, TOKENIZER, make_city, make_visits
from transformers import AutoTokenizer, DataCollatorWithPadding

from hf_mobility import City, SamoeConfig, SamoeForNextLocation, SamoeTokenizer
from hf_mobility.data import haversine_km
from hf_mobility.tokenization.clock import to_local

# Into models and loaders


@pytest.mark.parametrize("variant", ["extended", "released", "paper"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_what_a_tokenizer_returns_is_what_a_model_takes(variant: str, side: str) -> None:
    config = SamoeConfig.from_preset("tiny", variant=variant, num_poi_features=5, num_popularity_levels=10)
    model, tokenizer = SamoeForNextLocation(config).eval(), SamoeTokenizer.from_city(CITY, config, padding_side=side)
    with torch.no_grad():
        logits = model(**tokenizer(make_visits(), padding=True, return_tensors="pt")).logits
        alone = model(**tokenizer(make_visits().query("user_id == 6"), return_tensors="pt")).logits
    assert logits.shape == (3, 6 + config.use_eos, 10)
    rows = slice(-alone.shape[1], None) if side == "left" else slice(0, alone.shape[1])
    torch.testing.assert_close(logits[1:2, rows], alone, atol=1e-6, rtol=1e-5)


def test_the_collator_of_transformers_pads_the_same() -> None:
    rows = TOKENIZER(make_visits())
    items = [{name: values[b] for name, values in rows.items()} for b in range(3)]
    found = DataCollatorWithPadding(TOKENIZER)(items)
    wanted = TOKENIZER(make_visits(), padding=True, return_tensors="pt")
    assert all(torch.equal(found[name], wanted[name]) for name in (*FIELDS, "attention_mask"))
    wider = DataCollatorWithPadding(TOKENIZER, pad_to_multiple_of=8)(items)
    assert all(wider[name].shape == (3, 8) for name in FIELDS)


def test_datasets_map_works() -> None:
    """One row per person, made by `map` from the flat table, and back to tensors by the collator."""
    flat = datasets.Dataset.from_pandas(make_visits())
    rows = flat.map(
        lambda batch: dict(TOKENIZER(batch)), batched=True, batch_size=None, remove_columns=flat.column_names
    )
    assert len(rows) == 3 and rows[1]["input_ids"] == TOKENIZER(make_visits())["input_ids"][1]


def test_only_keyword_arguments_follow_visits() -> None:
    with pytest.raises(ValueError, match="only keyword arguments"):
        TOKENIZER(make_visits(), True)


# Text


def test_the_text_path() -> None:
    assert TOKENIZER("p3 p0 p7")["input_ids"] == [5, 2, 9]
    assert TOKENIZER.tokenize("p3 p0") == ["p3", "p0"]
    assert TOKENIZER.decode([5, 2, 9]) == "p3 p0 p7"
    assert TOKENIZER.decode([0, 0, 5, 1], skip_special_tokens=True) == "p3"
    assert TOKENIZER.decode([0, 5]) == "<pad> p3"
    batch = TOKENIZER(["p3 p0 p7", "p1"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[5, 2, 9], [0, 0, 3]]
    assert TOKENIZER.batch_decode(batch["input_ids"], skip_special_tokens=True) == ["p3 p0 p7", "p1"]
    assert TOKENIZER("p0 p1 p2 p3", truncation=True, max_length=2)["input_ids"] == [4, 5]
    with pytest.raises(ValueError, match="'nowhere' is no location"):
        TOKENIZER("p1 nowhere")


def test_the_vocabulary() -> None:
    vocabulary = TOKENIZER.get_vocab()
    assert vocabulary == {"<pad>": 0, "<eos>": 1, **{name: k + 2 for k, name in enumerate(PLACES)}}
    assert TOKENIZER.vocab_size == len(TOKENIZER) == 10
    assert (TOKENIZER.pad_token_id, TOKENIZER.eos_token_id) == (0, 1)
    assert TOKENIZER.all_special_tokens == ["<eos>", "<pad>"]
    assert TOKENIZER.convert_ids_to_tokens(list(range(10))) == sorted(vocabulary, key=vocabulary.get)
    assert TOKENIZER.convert_tokens_to_ids(["p7", "<pad>"]) == [9, 0]


# Back to records


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata", "America/St_Johns"])
def test_decoded_visits_are_the_visits(zone: str) -> None:
    tokenizer = SamoeTokenizer.from_city(make_city(zone))
    frame = make_visits((40,))
    batch = tokenizer(frame, padding="max_length", max_length=45, return_tensors="pt")
    columns = tokenizer.decode_visits(batch["input_ids"][0], batch["timestamps"][0])
    assert columns["location_id"] == frame["location_id"].tolist()
    assert columns["lat"] == frame["lat"].tolist() and columns["lon"] == frame["lon"].tolist()
    assert all(moment.tzinfo is timezone.utc for moment in columns["time"])
    assert columns["time"] == [moment.to_pydatetime() for moment in frame["time"].dt.floor("s")]
    again = tokenizer(columns, return_tensors="pt")
    assert torch.equal(again["timestamps"][0], batch["timestamps"][0, -40:])
    assert "time" not in tokenizer.decode_visits(batch["input_ids"][0])


def test_an_hour_that_comes_twice_is_read_as_the_first() -> None:
    second = 1_729_990_800 + 600  # ten minutes after Berlin's clocks went back
    local = to_local(np.array([second]), "Europe/Berlin")
    assert TOKENIZER.decode_visits([2], local)["time"] == [datetime.fromtimestamp(second - 3600, timezone.utc)]


# The table of places


def test_location_features_hold_the_city() -> None:
    table = TOKENIZER.location_features
    assert table.shape == (10, 10) and table.dtype == torch.float32 and (table[:2] == 0).all()
    assert torch.equal(table[2:, :5], torch.from_numpy(CITY.poi.astype(np.float16).astype(np.float32)))
    assert torch.equal(table[2:, 7], torch.arange(1, 9).float())
    xy, km = table[2:, 5:7].double(), table[2:, 8:].double()
    torch.testing.assert_close(xy.mean(0), torch.zeros(2).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(xy.std(0, correction=0), torch.ones(2).double(), atol=1e-6, rtol=0)
    east, north = (LON - LON.mean()) * 111.195 * np.cos(np.radians(LAT.mean())), (LAT - LAT.mean()) * 111.195
    np.testing.assert_allclose(km.numpy(), np.stack([east, north], axis=1), atol=1e-5)


def test_distances_between_rows_are_great_circles() -> None:
    km = TOKENIZER.location_features[2:, 8:].double()
    wanted = haversine_km(LAT[:, None], LON[:, None], LAT, LON)
    np.testing.assert_allclose(torch.cdist(km, km).numpy(), wanted, atol=0.02)


def test_coordinates_may_be_standardised_over_the_rectangle() -> None:
    """Evenly filled, the rectangle has variance width^2 / 12, so its edges lie at the square root of 3."""
    tokenizer = SamoeTokenizer.from_city(CITY, CONFIG, coordinate_norm="grid")
    xy = tokenizer.location_features[2:, 5:7]
    torch.testing.assert_close(xy.amax(0), torch.full((2,), 3**0.5))
    torch.testing.assert_close(xy.amin(0), torch.full((2,), -(3**0.5)))


def test_places_on_one_line_give_finite_features() -> None:
    tokenizer = SamoeTokenizer.from_city(make_city(lat=np.full(8, 48.0)), CONFIG)
    assert torch.isfinite(tokenizer.location_features).all() and (tokenizer.location_features[:, 6] == 0).all()


def test_a_model_without_distances_gets_two_columns_fewer() -> None:
    paper = SamoeConfig.from_preset("tiny", variant="paper", num_poi_features=5)
    tokenizer = SamoeTokenizer.from_city(CITY, paper)
    assert tokenizer.location_features.shape[1] == paper.num_location_features == 8


# Files


@pytest.mark.parametrize(
    "options", [{}, {"use_eos": True, "coordinate_norm": "grid", "padding_side": "right"}], ids=str
)
def test_a_loaded_tokenizer_is_the_saved_one(tmp_path: Path, options: dict[str, Any]) -> None:
    city = make_city("Asia/Kolkata", name="Ünï", location_ids=np.array(["ä b", *PLACES[1:]]))
    tokenizer = SamoeTokenizer.from_city(
        city, SamoeConfig.from_preset("tiny", variant="paper", num_poi_features=5), **options
    )
    tokenizer.save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.iterdir() if path.suffix != ".py"}
    assert files == {"city.json", "city.safetensors", "tokenizer_config.json"}
    frame = make_visits().assign(location_id=lambda f: f["location_id"].replace("p0", "ä b"))
    for loaded in (SamoeTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert type(loaded) is SamoeTokenizer
        assert torch.equal(loaded.location_features, tokenizer.location_features)
        assert loaded.get_vocab() == tokenizer.get_vocab() and loaded.name == "Ünï"
        for name in (
            "timezone",
            "stay_encoding",
            "num_stay_bins",
            "use_eos",
            "distances",
            "coordinate_norm",
            "padding_side",
        ):
            assert getattr(loaded, name) == getattr(tokenizer, name), name
        assert loaded.model_max_length == tokenizer.model_max_length and loaded.poi_names == tokenizer.poi_names
        found, wanted = (t(frame, padding=True, return_tensors="pt") for t in (loaded, tokenizer))
        assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert City.load(tmp_path) == tokenizer.city


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path / "a")
    SamoeTokenizer.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    for name in ("city.json", "city.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_city_of_another_format_version_is_refused(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    path = tmp_path / "city.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"format_version": 2', '"format_version": 3'), encoding="utf-8"
    )
    with pytest.raises(ValueError, match="format version 3; this release reads 1 and 2"):
        SamoeTokenizer.from_pretrained(tmp_path)
