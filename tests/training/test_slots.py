"""M-STAR's weeks of slots, trained on two small cities: what is learned, what is kept, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import pipeline

from hf_mobility import (
    City,
    DataError,
    TrajectoryGenerationPipeline,
    adapt,
    evaluate_checkpoint,
    simulate_cities,
    simulate_city,
    train,
)
from hf_mobility.tokenization.tokenization_mstar_slots import MstarSlotTokenizer
from hf_mobility.tokenization.traits import NAMES, TraitModel
from hf_mobility.training.adapt_weeks import MIN_USERS, nll_by_user, traits_like, tune
from hf_mobility.training.place_choices import CityChoices, choices_of, fit_places
from hf_mobility.training.result import Trained
from hf_mobility.training.slots import days_off_of, encoded_slots, read_weeks_of, rows_of

CITIES = simulate_cities(2, num_users=40, num_days=21, num_locations=120, seed=5)
PAIRS = [(made.visits, City.from_visits(made.visits, timezone=made.timezone, pois=made.pois)) for made in CITIES]


@pytest.fixture(scope="module")
def made() -> Trained:
    return train("mstar", PAIRS, size="tiny", steps=60, batch_size=8, seed=0, device="cpu")


def test_one_model_for_both_cities(made: Trained) -> None:
    assert isinstance(made.tokenizer, MstarSlotTokenizer) and made.tokenizer.city == PAIRS[0][1]
    assert made.model.config.attribute_sizes is not None and made.model.places is not None
    assert [note.split(":")[0] for note in made.notes] == ["city (no name)"] * 2 + ["place head"]
    assert not made.model.codec.training and all(p.requires_grad for p in made.model.places.parameters())


def test_the_codec_reads_slots_back(made: Trained) -> None:
    inputs = made.tokenizer(PAIRS[0][0], return_tensors="pt")
    with torch.no_grad():
        found = made.model.codec(inputs["input_ids"], inputs["attention_mask"]).logits.argmax(-1)
    slots_read = inputs["input_ids"][:, -1]
    always_home = (slots_read == 0).float().mean()
    assert (found == slots_read).float().mean() > always_home + 0.1


def test_a_saved_model_writes_weeks_of_a_city_it_has_not_seen(made: Trained, tmp_path: Path) -> None:
    made.save_pretrained(tmp_path)
    pipe = TrajectoryGenerationPipeline.from_pretrained(tmp_path)
    there = pipe.for_city(PAIRS[1][1])
    assert there.generate(3)["location_id"].isin(PAIRS[1][1].location_ids).all()
    again = TrajectoryGenerationPipeline.from_pretrained(tmp_path).for_city(PAIRS[1][1])
    assert again.generate(3).equals(there.generate(3))
    assert "pipe.generate(10, seed=0).head()" in (tmp_path / "README.md").read_text()
    with pytest.raises(DataError, match="generates weeks of slots"):
        evaluate_checkpoint(tmp_path, simulate_city(10, num_days=7, seed=9).visits)
    with pytest.raises(ValueError, match="weeks of slots are placed in a city by"):
        pipeline("trajectory-generation", model=str(tmp_path))(3)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "city.json", "city.safetensors", "README.md"} <= names


def test_choices_are_those_of_the_weeks() -> None:
    tokenizer = MstarSlotTokenizer.from_city(PAIRS[0][1])
    weeks = tokenizer.weeks(PAIRS[0][0])
    home, work = tokenizer.home_and_work(weeks.cells)
    found = choices_of(weeks.cells, tokenizer_slots(tokenizer, weeks.cells), home, work, weeks.user_id)
    users = np.unique(weeks.user_id)
    assert found[0].shape[1] == len(users) and (found[0][2:] == -1).all()
    for kind, choices in enumerate(found):
        assert (choices[0] == kind).all()
        if kind:
            assert (choices[1] != choices[2]).all()  # never the home
    for kind in (2, 3):
        assert (found[kind][1] != found[kind][4]).all()  # never the place before


def tokenizer_slots(tokenizer: Any, places: np.ndarray) -> np.ndarray:
    inputs = tokenizer(places)
    return np.where(inputs["attention_mask"] > 0, inputs["input_ids"][:, -1], -1)


def test_the_place_head_learns_where_places_are_chosen(made: Trained) -> None:
    tokenizer = MstarSlotTokenizer.from_city(PAIRS[0][1])
    weeks = tokenizer.weeks(PAIRS[0][0])
    home, work = tokenizer.home_and_work(weeks.cells)
    choices = choices_of(weeks.cells, tokenizer_slots(tokenizer, weeks.cells), home, work, weeks.user_id)
    head = type(made.model.places)(made.model.config)
    city = CityChoices(tokenizer.location_features, choices)
    assert fit_places(head, [city], steps=60, seed=0) < 0.95 * np.log(len(PAIRS[0][1]))


@pytest.mark.parametrize("weekend", [(5, 6), (4, 5)])
def test_days_off_are_found(weekend: tuple[int, int]) -> None:
    week = np.zeros((1, 7, 24), np.int64)
    week[:, [day for day in range(7) if day not in weekend], 9:17] = 3
    assert days_off_of(week.reshape(1, -1)) == weekend


def test_what_contradicts_is_refused() -> None:
    with pytest.raises(DataError, match="vocabulary is for mstar and one of cells, slots, not 'slots' of raw"):
        train("raw", PAIRS[0][0], vocabulary="slots")
    with pytest.raises(DataError, match="codec is for mstar, not for weeks of slots"):
        train("mstar", PAIRS, vocabulary="slots", codec="codec")
    with pytest.raises(DataError, match="size of weeks of slots must be one of tiny, small"):
        train("mstar", PAIRS[:1], vocabulary="slots", size="base", steps=1)


def test_an_adapter_on_a_few_users_writes_weeks_in_their_city(made: Trained, tmp_path: Path) -> None:
    made.save_pretrained(tmp_path / "base")
    visits, city = PAIRS[1]
    few = visits[visits["user_id"] < visits["user_id"].min() + 4]
    local = adapt(tmp_path / "base", few, city=city, strength="weak", seed=0)
    assert local.strength == "weak" and local.tokenizer.city == city
    assert local.history["loss"].iloc[-1] < local.history["loss"].iloc[0]
    touched = [name for name, p in local.model.named_parameters() if p.requires_grad]
    assert touched and not any(".codec." in name or ".places." in name for name in touched)
    local.save_pretrained(tmp_path / "adapter")
    loaded = TrajectoryGenerationPipeline.from_pretrained(tmp_path / "adapter")
    direct = type(loaded)(local.model, local.tokenizer)
    assert loaded.generate(5, seed=1).equals(direct.generate(5, seed=1))
    plain = TrajectoryGenerationPipeline.from_pretrained(tmp_path / "base").for_city(city)
    assert not loaded.generate(5, seed=1).equals(plain.generate(5, seed=1))


def test_no_adapter_is_the_model_itself(made: Trained, tmp_path: Path) -> None:
    made.save_pretrained(tmp_path)
    visits, city = PAIRS[0]
    pipe = TrajectoryGenerationPipeline.from_pretrained(tmp_path)
    weeks = read_weeks_of(visits, city)
    rows = rows_of(pipe.model, weeks.tokenizer, encoded_slots(weeks.tokenizer, weeks.slots), weeks.traits)
    same, _ = tune(pipe.model, rows, 0, seed=0)
    users = np.arange(len(rows["code_ids"])) % 3
    np.testing.assert_allclose(nll_by_user(same.eval(), rows, users), nll_by_user(pipe.model, rows, users), rtol=1e-5)


def test_options_of_samoe_are_refused_for_weeks(made: Trained, tmp_path: Path) -> None:
    made.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="are for SAMoE only"):
        adapt(tmp_path, PAIRS[0][0], city=PAIRS[0][1], window=16)
    with pytest.raises(DataError, match="The city is missing"):
        adapt(tmp_path, PAIRS[0][0])


def test_traits_are_matched_to_those_of_enough_users() -> None:
    visits, city = PAIRS[0]
    weeks = read_weeks_of(visits, city)
    before = TraitModel.fit(weeks.traits, users=weeks.users, min_users=2)
    known = weeks.traits.copy()
    known[:, NAMES.index("evenings")] = 2.0
    after = traits_like(before, known, weeks.users)
    assert after is not None
    assert abs(after.means()["evenings"] - 2.0) < 0.2 * abs(before.means()["evenings"] - 2.0)
    few = np.isin(weeks.users, np.unique(weeks.users)[: MIN_USERS - 1])
    assert traits_like(before, known[few], weeks.users[few]) is before
    assert traits_like(None, known, weeks.users) is None
