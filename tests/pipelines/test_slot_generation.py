"""Weeks of slots in a city that the model has never seen: what each user keeps, where users live and work, and
completion. The model is untrained, so that nothing of this depends on what it has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hf_mobility import City, DataError, TrajectoryGenerationPipeline, simulate_city
from hf_mobility.modeling.configuration_mstar import MstarCodecConfig
from hf_mobility.modeling.modeling_mstar import MstarForTrajectoryGeneration
from hf_mobility.modeling.modeling_mstar_codec import MstarCodecModel
from hf_mobility.pipelines.copied_days import copied_days
from hf_mobility.pipelines.placing import place_weeks
from hf_mobility.pipelines.slot_generation import SlotGenerationPipeline
from hf_mobility.tokenization.diaries import NUM_SLOTS, RECURRING, SINGLE, SLOT_MAP, Stays, to_slots
from hf_mobility.tokenization.tokenization_mstar_slots import MstarSlotTokenizer
from hf_mobility.tokenization.traits import COMMUTE, TRAIT_SIZES, TRAITS

MADE = simulate_city(60, num_days=14, num_locations=150, seed=3)
CITY = City.from_visits(MADE.visits, timezone=MADE.timezone, pois=MADE.pois)
OTHER = simulate_city(20, num_days=7, num_locations=90, seed=4, timezone="Asia/Tokyo", center=(35.0, 139.0))


def make_model() -> MstarForTrajectoryGeneration:
    codec = MstarCodecConfig(
        num_cells=NUM_SLOTS,
        cells_per_resolution=[2, 4, NUM_SLOTS],
        level_lengths=[1, 7, 168],
        level_resolutions=[2, 2, 2],
        hidden_size=16,
        codebook_size=32,
        num_attention_heads=2,
        num_encoder_layers=0,
        num_decoder_layers=1,
        hierarchical_cells=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MstarForTrajectoryGeneration.from_codec(
            MstarCodecModel(codec), "tiny", pointer_head=True, attribute_sizes=TRAIT_SIZES, num_poi_features=60
        )
    model.fit_places(SLOT_MAP)
    return model


@pytest.fixture(scope="module")
def pipe() -> SlotGenerationPipeline:
    tokenizer = MstarSlotTokenizer.from_city(CITY)
    tokenizer.fit_traits(MADE.visits)
    return SlotGenerationPipeline(make_model(), tokenizer)


def test_the_table_has_a_row_an_hour(pipe: SlotGenerationPipeline) -> None:
    frame = pipe.generate(3, weeks=2, start="2024-03-25")
    assert frame["user_id"].tolist() == np.repeat([0, 1, 2], 336).tolist()
    assert frame["trajectory_id"].tolist() == np.repeat(np.arange(6), 168).tolist()
    assert frame["time"].iloc[[0, 168]].dt.strftime("%F %T").tolist() == ["2024-03-25 00:00:00", "2024-04-01 00:00:00"]
    rows = CITY.index_of(frame["location_id"])
    assert (CITY.lat[rows] == frame["lat"]).all() and (CITY.lon[rows] == frame["lon"]).all()


def real_diaries(users: int, weeks: int) -> tuple[np.ndarray, np.ndarray]:
    """(users, weeks * 168) slots and places of simulated users."""
    read = MstarSlotTokenizer.from_city(CITY).weeks(MADE.visits).cells.reshape(60, 2, 168)[:users, :weeks]
    places = read.reshape(users * weeks, 168)
    home, work = MstarSlotTokenizer.from_city(CITY).home_and_work(places)
    return to_slots(places, home, work).reshape(users, -1), places.reshape(users, -1)


def test_users_keep_home_work_and_recurring_places(pipe: SlotGenerationPipeline) -> None:
    slots, _ = real_diaries(30, 2)
    home, work = np.arange(30), np.arange(30) + 40
    placed = place_weeks(
        *(pipe.model.places, pipe._places, slots), home=home, work=work, source=torch.Generator().manual_seed(0)
    )
    assert np.array_equal(placed >= 0, slots >= 0)
    assert (placed[slots == 0] == np.nonzero(slots == 0)[0]).all()
    assert (placed[slots == 1] == np.nonzero(slots == 1)[0] + 40).all()
    for slot in RECURRING:
        rows, hours = np.nonzero(slots == slot)
        used = {(row, placed[row, hour]) for row, hour in zip(rows.tolist(), hours.tolist())}
        assert len(used) == len(np.unique(rows))
        assert not any(place in (row, row + 40) for row, place in used)


def test_a_single_place_is_not_the_place_before_it(pipe: SlotGenerationPipeline) -> None:
    slots, _ = real_diaries(30, 2)
    home, work = np.arange(30), np.full(30, -1)
    placed = place_weeks(
        *(pipe.model.places, pipe._places, slots), home=home, work=work, source=torch.Generator().manual_seed(0)
    )
    stays = Stays.of_weeks(slots.astype(np.int64))
    place = placed[stays.row, stays.first]
    after = np.flatnonzero(stays.follow() & (stays.value >= SINGLE.start))
    assert (place[after] != place[after - 1]).all() and (place[after] != home[stays.row[after]]).all()


def test_places_that_are_known_are_kept(pipe: SlotGenerationPipeline) -> None:
    slots, places = real_diaries(10, 1)
    known = np.where(np.random.default_rng(0).random(slots.shape) < 0.5, places, -1)
    tokenizer = pipe.tokenizer
    home, work = tokenizer.home_and_work(places)
    placed = place_weeks(
        *(pipe.model.places, pipe._places, slots), home=home, work=work, source=torch.Generator(), known=known
    )
    assert np.array_equal(placed[known >= 0], known[known >= 0])


def test_a_copied_hour_comes_back_as_the_copied_place(pipe: SlotGenerationPipeline) -> None:
    known = pipe.tokenizer.weeks(MADE.visits).cells[:40].copy()
    known[:, 72:120] = -1  # Thursday and Friday
    copied = copied_days(known)
    home, work = pipe.tokenizer.home_and_work(known)
    given = pipe._prefix(known, to_slots(known, home, work), home, work, True)
    slots = to_slots(copied, home, work)
    assert np.array_equal(given["filled_ids"], pipe.tokenizer.encode_slots(slots)["input_ids"])
    assert np.array_equal(given["prefix_ids"], given["filled_ids"] * given["prefix_mask"][:, None])
    second = np.where(work != home, work, -1)
    source = torch.Generator().manual_seed(0)
    placed = place_weeks(*(pipe.model.places, pipe._places, slots), home=home, work=second, source=source, known=known)
    away = (known < 0) & (slots > 1)
    assert away.sum() > 100 and (placed == copied)[away].mean() > 0.9


def test_seeds_and_batches(pipe: SlotGenerationPipeline) -> None:
    one, other = pipe.generate(5, seed=7), pipe.generate(5, seed=8)
    assert one.equals(pipe.generate(5, seed=7)) and not one.equals(other)
    parts = list(pipe.frames(5, seed=7, batch_size=2))
    assert len(parts) == 3 and pd.concat(parts, ignore_index=True).equals(one)


def test_another_city_needs_no_week(pipe: SlotGenerationPipeline) -> None:
    city = City.from_pois(OTHER.pois, timezone=OTHER.timezone)
    there = pipe.for_city(city, days_off=(4, 5), means={"commute_km": 2.0})
    frame = there.generate(4)
    assert frame["time"].iloc[0].day_name() == "Sunday" and str(frame["time"].dt.tz) == "Asia/Tokyo"
    assert frame["location_id"].isin(OTHER.pois["location_id"]).all()
    assert pipe.tokenizer.days_off == (5, 6)
    with pytest.raises(DataError, match="start must be a Sunday"):
        there.generate(1, start="2024-01-01")


def test_works_lie_in_the_class_of_the_commute(pipe: SlotGenerationPipeline) -> None:
    residents = pipe.residents(400, seed=0)
    workers = residents.work >= 0
    assert np.array_equal(workers, residents.traits[:, COMMUTE] > 0)
    km = np.hypot(*(pipe._places.km.numpy()[residents.home] - pipe._places.km.numpy()[residents.work])[workers].T)
    found = np.digitize(km, TRAITS[COMMUTE].edges) + 1
    assert (found == residents.traits[workers, COMMUTE]).mean() > 0.8  # the others have no such place
    assert (residents.work != residents.home).all()


def test_homes_follow_the_population_and_works_the_flows(pipe: SlotGenerationPipeline) -> None:
    north, south = np.quantile(CITY.lat, [0.9, 0.1])
    middle = float(np.median(CITY.lon))
    population = pd.DataFrame({"region_id": ["n", "s"], "lat": [north, south], "lon": middle, "population": [30, 10]})
    flows = pd.DataFrame({"origin": ["n", "n", "s"], "destination": ["n", "s", "n"], "flow": [1, 4, 7]})
    there = pipe.for_city(CITY, population=population, flows=flows)
    residents = there.residents(4000, seed=0)
    is_north = np.abs(CITY.lat - north) < np.abs(CITY.lat - south)
    assert is_north[residents.home].mean() == pytest.approx(0.75, abs=0.03)
    works = residents.work >= 0
    from_north = is_north[residents.home] & works
    assert is_north[residents.work[from_north]].mean() == pytest.approx(0.2, abs=0.03)
    assert is_north[residents.work[~is_north[residents.home] & works]].all()


def test_means_move_the_residents(pipe: SlotGenerationPipeline) -> None:
    wanted = pipe.tokenizer.traits.means()["evenings"] * 0.6
    moved = pipe.for_city(CITY, means={"evenings": wanted}).residents(4000, seed=0)
    column = [trait.name for trait in TRAITS].index("evenings")
    values = pipe.tokenizer.traits.values[column]
    assert values[moved.traits[:, column]].mean() == pytest.approx(wanted, rel=0.05)


def test_completion_keeps_what_is_known_and_the_users_places(pipe: SlotGenerationPipeline) -> None:
    weeks = pipe.tokenizer.weeks(MADE.visits)
    known = weeks.cells[:6].copy()
    known[:, 48:72] = -1
    filled = pipe.complete(known, to="places", draws=3)
    assert np.array_equal(filled[known >= 0], known[known >= 0]) and (filled >= 0).all()
    drawn = pipe.complete(known, to="places", draws=3, copy_days=False)
    assert np.array_equal(drawn[known >= 0], known[known >= 0]) and not np.array_equal(drawn, filled)
    frame = pipe.complete(MADE.visits.head(400), seed=1)
    assert frame["known"].any() and set(frame["user_id"]) <= set(MADE.visits["user_id"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda pipe: pipe.generate(0), "people must be a whole number from 1 on, not 0"),
        (lambda pipe: pipe.complete(np.zeros((1, 168), int), draws=0), "draws must be a whole number from 1 on, not 0"),
        (lambda pipe: pipe.generate(1, weeks=0), "weeks must be a whole number from 1 on, not 0"),
        (lambda pipe: pipe.generate(1, to="cells"), "to must be 'frame' or 'places'"),
        (lambda pipe: pipe.for_city(CITY, flows=pd.DataFrame()), "flows need population"),
        (lambda pipe: pipe.for_city(CITY, means={"arrival": 2.0}).generate(1), "out of reach"),
        (lambda pipe: pipe.for_city(CITY, population=pd.DataFrame({"lat": [1.0]})).generate(1), "no column 'lon'"),
    ],
    ids=["people", "draws", "weeks", "to", "flows", "means", "population"],
)
def test_what_cannot_be_done_is_said(pipe: SlotGenerationPipeline, call: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        call(pipe)


def test_a_saved_model_generates_the_same_weeks(pipe: SlotGenerationPipeline, tmp_path: Path) -> None:
    pipe.model.save_pretrained(tmp_path)
    pipe.tokenizer.save_pretrained(tmp_path)
    again = TrajectoryGenerationPipeline.from_pretrained(tmp_path)
    assert isinstance(again, SlotGenerationPipeline)
    assert again.generate(3, seed=5).equals(pipe.generate(3, seed=5))
    there = TrajectoryGenerationPipeline.from_pretrained(
        tmp_path, city=City.from_pois(OTHER.pois, timezone="Asia/Tokyo")
    )
    assert len(there.generate(2)) == 336
