"""`train`: one verb for all systems; contradictions are refused before data are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import Trainer, set_seed

from hf_mobility import (
    ArrayRows,
    City,
    DataError,
    MstarTokenizer,
    RawConfig,
    RawForTrajectoryPrediction,
    RawTokenizer,
    SamoeForNextLocation,
    SamoeTokenizer,
    SquareGrid,
    simulate_city,
    training_arguments,
)
from hf_mobility.data.parts import training_part
from hf_mobility.data.weeks import WeekTable
from hf_mobility.training.train import train

ZONE = "Europe/Berlin"
SHORT: dict[str, Any] = {"size": "tiny", "steps": 2}


@pytest.fixture(scope="module")
def visits() -> pd.DataFrame:
    return simulate_city(20, num_days=14, seed=1).visits


@pytest.fixture(scope="module")
def points(visits: pd.DataFrame) -> pd.DataFrame:
    return visits[["user_id", "time", "lat", "lon"]]


@pytest.fixture(scope="module")
def codec(visits: pd.DataFrame) -> Any:
    return train("mstar-codec", visits, timezone=ZONE, batch_size=4, **SHORT)


@pytest.fixture(scope="module")
def generator(visits: pd.DataFrame, codec: Any) -> Any:
    return train("mstar", visits, codec=codec, batch_size=4, **SHORT)


def same_weights(model: Any, expected: Any, *, but: str = " ") -> None:
    for name, value in expected.state_dict().items():
        if but in name:
            continue
        torch.testing.assert_close(model.state_dict()[name], value, atol=1e-5, rtol=0, msg=name)


# What comes out


def test_raw_is_trained_on_points_as_a_plain_trainer_over_their_windows(points: pd.DataFrame, tmp_path: Path) -> None:
    made = train("raw", points, timezone=ZONE, batch_size=4, seed=3, device="cpu", **SHORT)
    set_seed(3)
    tokenizer = RawTokenizer.from_points(points, timezone=ZONE, model_max_length=7 * 96)
    model = RawForTrajectoryPrediction(
        RawConfig.from_preset("tiny", max_position_embeddings=7 * 96, slots_per_day=tokenizer.slots_per_day)
    )
    batch = tokenizer(points, padding=True, return_tensors="pt")
    fields: dict[str, Any] = {"max_steps": 2, "per_device_train_batch_size": 4, "save_strategy": "no", "use_cpu": True}
    arguments = training_arguments(str(tmp_path), preset="raw", seed=3, **fields)
    rows: Any = ArrayRows({**batch, "labels": batch["coordinates"]})
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=ArrayRows.collate)  # type: ignore[arg-type]
    trainer.train()
    same_weights(made.model, trainer.model)
    assert made.tokenizer.bounds == tokenizer.bounds
    assert made.history["step"].tolist() == [1] and np.isfinite(made.history["loss"]).all()
    assert "windows: " in made.notes[0] and "0 of" in made.notes[0]


def test_the_callers_random_state_and_frame_are_left_alone(points: pd.DataFrame) -> None:
    before = points.copy(deep=True)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train("raw", points, timezone=ZONE, batch_size=4, **SHORT)
    assert torch.equal(torch.rand(3), expected)
    pd.testing.assert_frame_equal(points, before)


def test_several_cities_train_one_samoe_with_the_first_ones_tokenizer(visits: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    visits[visits["user_id"] < 10].to_parquet(path)
    city = City.from_visits(visits, timezone=ZONE, name="home")
    made = train("samoe", [(visits, city), (path, ZONE)], **SHORT)
    assert isinstance(made.model, SamoeForNextLocation) and not made.model.training
    assert made.model.config.use_cache and made.tokenizer.name == "home"
    assert [note.split(":")[0] for note in made.notes] == ["city home", "city other"]
    assert "other: " in made.facts.training_data and "of 10 users" in made.facts.training_data
    made.save_pretrained(tmp_path / "saved")
    assert SamoeTokenizer.from_pretrained(tmp_path / "saved").name == "home"
    assert "of 20 users" in (tmp_path / "saved" / "README.md").read_text()


def test_cities_of_one_time_zone_share_it(visits: pd.DataFrame) -> None:
    few = visits[visits["user_id"] < 10]
    made = train("samoe", [visits, few], timezone=ZONE, **SHORT)
    same = train("samoe", [(visits, ZONE), (few, ZONE)], **SHORT)
    same_weights(made.model, same.model)
    mixed = train("samoe", [visits, (few, City.from_visits(few, timezone=ZONE))], timezone=ZONE, **SHORT)
    same_weights(mixed.model, same.model)


def test_what_would_be_ignored_beside_a_list_of_cities_is_refused(visits: pd.DataFrame) -> None:
    city = City.from_visits(visits, timezone=ZONE)
    for data, options, sentence in (
        ([(visits, ZONE)], {"city": city}, "city= is that of one table"),
        ([(visits, ZONE)], {"timezone": "Asia/Tokyo"}, "every entry of the list has a city or time zone of its own"),
        ([(visits, ZONE, city)], {}, "1 entries of the list are no pairs .*, first 0"),
        (visits, {"city": city, "timezone": "Asia/Tokyo"}, "timezone='Asia/Tokyo', but city= is in 'Europe/Berlin'"),
    ):
        with pytest.raises(DataError, match=sentence):
            train("samoe", data, **options, **SHORT)  # type: ignore[arg-type]


def test_what_is_left_out_is_not_counted_as_popularity(visits: pd.DataFrame) -> None:
    city = City.from_visits(visits, timezone=ZONE)
    made = train("samoe", visits, city=city, test_fraction=0.2, **SHORT)
    known = training_part("samoe", visits, test_fraction=0.2, seed=0)
    assert np.array_equal(made.tokenizer.city.popularity, city.with_popularity(known).popularity)


# M-STAR: records or tables of weeks


def test_a_table_of_weeks_trains_the_codec_that_its_records_train(visits: pd.DataFrame, codec: Any) -> None:
    tokenizer = codec.tokenizer
    cells, users, start = tokenizer.weeks(visits)
    grid = tokenizer.city.grid
    table = WeekTable(cells, users, start, pd.DataFrame(index=range(len(cells))), grid=grid, timezone=ZONE)
    made = train("mstar-codec", table, batch_size=4, **SHORT)
    assert made.tokenizer.timezone == ZONE and made.tokenizer.num_cells == tokenizer.num_cells
    same_weights(made.model, codec.model)
    assert made.notes[1].startswith(f"weeks: {len(cells)} of {len(cells)} kept of 20 users")


def test_options_of_the_grid_and_of_weeks_are_the_tokenizers(points: pd.DataFrame) -> None:
    box = (points["lat"].min(), points["lon"].min(), points["lat"].quantile(0.9), points["lon"].quantile(0.9))
    made = train(
        "mstar-codec",
        points,
        timezone=ZONE,
        bounds=box,
        cell_km=2.0,
        min_known=0.1,
        fill_hours=14,
        batch_size=4,
        **SHORT,
    )
    tokenizer = MstarTokenizer.from_square_grid(SquareGrid.from_cell_km(box, cell_km=2.0), timezone=ZONE)
    assert made.tokenizer.city.grid == tokenizer.city.grid
    report = tokenizer.weeks(points, min_known=0.1, fill_hours=14).report
    assert f"{report['rows_outside']:,} of {len(points):,} rows outside the grid" in made.notes[1]
    assert f"{report['hours_filled']:,} hours filled" in made.notes[1] and report["hours_filled"] > 0


def test_a_city_is_the_grid_and_the_box(points: pd.DataFrame, visits: pd.DataFrame) -> None:
    city = City.from_visits(visits, timezone=ZONE, name="town")
    made = train("mstar-codec", visits, city=city, cell_km=2.0, batch_size=4, **SHORT)
    assert made.tokenizer.city == city.with_grid(cell_km=2.0)
    made = train("raw", points, city=city, batch_size=4, **SHORT)
    assert made.tokenizer.city == city
    with pytest.raises(DataError, match="city and bounds both say how large the city is"):
        train("raw", points, city=city, bounds=city.bounds)
    with pytest.raises(DataError, match="has a grid of cells already"):
        train("mstar-codec", points, city=city.with_grid(cell_km=2.0), cell_km=1.0, **SHORT)


def test_one_stray_record_is_refused_with_the_numbers_and_the_remedy(visits: pd.DataFrame) -> None:
    stray = visits.iloc[[0]].assign(lat=visits["lat"].iloc[0] + 3.0)
    with_stray = pd.concat([visits, stray]).sort_values(["user_id", "time"], ignore_index=True)
    with pytest.raises(DataError, match=r"stretch the box from \d+ to [\d,]+ cells of 1 km: .*coverage=0.99") as caught:
        train("mstar-codec", with_stray, timezone=ZONE, **SHORT)
    bounds = tuple(float(edge) for edge in str(caught.value).rstrip(".").rpartition(" ")[2].split(","))
    with pytest.raises(DataError, match="stretch the box"):
        train("raw", with_stray, timezone=ZONE, **SHORT)
    for remedy in ({"coverage": 0.99}, {"bounds": bounds}):
        made = train("mstar-codec", with_stray, timezone=ZONE, batch_size=4, **remedy, **SHORT)  # type: ignore[arg-type]
        assert made.tokenizer.num_cells < 1000
        made = train("raw", with_stray, timezone=ZONE, batch_size=4, **remedy, **SHORT)  # type: ignore[arg-type]
        assert made.tokenizer.bounds[2] - made.tokenizer.bounds[0] < 1.5


def test_conditions_know_whose_the_weeks_are_and_memory_keeps_them_all(
    visits: pd.DataFrame, codec: Any, tmp_path: Path
) -> None:
    tables, (cells, users, _) = codec.tokenizer.conditions, codec.tokenizer.weeks(visits)
    home, work = codec.tokenizer.home_and_work(cells)
    people = {
        pair: len(set(users[(home == pair[0]) & (work == pair[1])])) for pair in zip(home.tolist(), work.tolist())
    }
    assert tables.knows_people and len(tables.pairs) > 0
    assert {(a, b): n for (a, b, _), n in zip(tables.pairs.tolist(), tables.pair_users)} == {
        pair: number for pair, number in people.items() if pair[0] != pair[1]
    }


def test_a_city_of_too_few_users_to_be_saved_is_refused_before_the_training(
    visits: pd.DataFrame, codec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_mobility.training.recipes.fit", lambda *_, **__: pytest.fail("it was trained"))
    for system, start in (("mstar-codec", {"timezone": ZONE}), ("mstar", {"codec": codec})):
        with pytest.raises(ValueError, match="min_users=1000 leaves no home or no pair of home and work"):
            train(system, visits, batch_size=4, min_users=1000, **start, **SHORT)


# Going on


@pytest.mark.parametrize("system", ["samoe", "mstar-codec", "mstar", "raw"])
def test_training_goes_on_from_a_folder(
    system: str, visits: pd.DataFrame, points: pd.DataFrame, codec: Any, generator: Any, tmp_path: Path
) -> None:
    data = {"samoe": visits, "raw": points}.get(system, visits)
    made = {"mstar-codec": codec, "mstar": generator}.get(system)
    made = made or train(system, data, timezone=ZONE, **SHORT)
    made.save_pretrained(tmp_path, min_users=1)
    small = {} if system == "samoe" else {"batch_size": 4}
    again = train(system, data, start=tmp_path, timezone=ZONE, steps=1, learning_rate=1e-9, **small)  # type: ignore[arg-type]
    same_weights(again.model, made.model, but="codebook")  # which moves without a gradient
    assert f"before that, what {tmp_path.name} was trained on" in again.facts.training_data


def test_raw_goes_on_in_other_bounds_with_the_models_slots(points: pd.DataFrame, tmp_path: Path) -> None:
    train("raw", points, timezone=ZONE, batch_size=4, **SHORT).save_pretrained(tmp_path)
    bounds = (47.0, 10.0, 49.0, 13.0)
    again = train("raw", points, start=tmp_path, bounds=bounds, steps=1, batch_size=4)
    assert again.tokenizer.bounds == bounds and again.tokenizer.timezone == ZONE
    assert again.tokenizer.model_max_length == 7 * 96


@pytest.mark.parametrize("system", ["raw", "mstar-codec", "mstar"])
def test_the_city_that_is_gone_on_in_says_the_time_zone(
    system: str, visits: pd.DataFrame, points: pd.DataFrame, codec: Any, tmp_path: Path
) -> None:
    """Naive times need no other word for it, and another zone is refused."""
    made = codec if system != "raw" else train("raw", points, timezone=ZONE, batch_size=4, **SHORT)
    made.save_pretrained(tmp_path, min_users=1)
    given: dict[str, Any] = {"codec" if system == "mstar" else "start": tmp_path, "steps": 1, "batch_size": 4}
    data = points if system == "raw" else visits
    naive = data.assign(time=data["time"].dt.tz_convert(ZONE).dt.tz_localize(None))
    again, same = (train(system, table, **given) for table in (naive, data))
    same_weights(again.model, same.model)
    assert again.tokenizer.timezone == ZONE
    with pytest.raises(DataError, match=r"timezone='Asia/Tokyo', but start= or codec= is in 'Europe/Berlin'"):
        train(system, data, timezone="Asia/Tokyo", **given)


# What is refused, before data are read


@pytest.mark.parametrize(
    ("system", "options", "sentence"),
    [
        ("other", {}, "system must be one of samoe, mstar-codec, mstar, raw"),
        ("samoe", {"codec": "x"}, "codec is for mstar, not for samoe"),
        ("samoe", {"cell_km": 1.0}, "cell_km is for mstar-codec"),
        ("raw", {"min_known": 0.5}, "min_known is for mstar-codec and mstar"),
        ("raw", {"min_users": 5}, "min_users is for mstar-codec and mstar, not for raw"),
        ("mstar-codec", {"min_users": 0}, "min_users must be a whole number from 1 on, not 0"),
        ("mstar", {"vocabulary": "cells"}, "needs either codec=, a trained codec, or start="),
        ("mstar", {"cell_km": 1.0}, "cell_km is for mstar-codec, not for weeks of slots"),
        ("mstar", {"codec": "x", "start": "y"}, "needs either codec="),
        ("mstar", {"codec": "x", "bounds": (0, 0, 1, 1)}, "bounds is for mstar-codec and raw"),
        ("raw", {"start": "x", "size": "tiny"}, "size: of a new model"),
        ("raw", {"bounds": (0, 0, 1, 1), "coverage": 0.9}, "bounds and coverage both"),
        ("mstar-codec", {"start": "x", "cell_km": 1.0}, "cell_km: of a new model"),
        ("mstar-codec", {"bounds": (0, 0, 1, 1), "coverage": 0.9}, "bounds and coverage both"),
        ("mstar-codec", {"shifted_copies": -1}, "shifted_copies must be 0 or more"),
        ("raw", {"epochs": 1, "steps": 1}, "epochs and steps both"),
        ("samoe", {"batch_size": 4}, "batch_size is for mstar-codec and mstar and raw, not for samoe"),
        ("raw", {"steps": 0}, "steps must be a whole number from 1 on, not 0"),
        ("raw", {"steps": -5}, "steps must be a whole number from 1 on, not -5"),
        ("raw", {"steps": 1.5}, "steps must be a whole number from 1 on, not 1.5"),
        ("samoe", {"epochs": 0}, "epochs must be above 0, not 0"),
        ("samoe", {"epochs": -1}, "epochs must be above 0, not -1"),
        ("raw", {"epochs": float("nan")}, "epochs must be above 0, not nan"),
        ("raw", {"batch_size": 0}, "batch_size must be a whole number from 1 on, not 0"),
        ("raw", {"learning_rate": 0.0}, "learning_rate must be above 0, not 0.0"),
        ("raw", {"arguments": {"seed": 3}}, "arguments: seed has a keyword of its own, seed="),
        ("raw", {"arguments": {"max_steps": 3}}, "arguments: max_steps has a keyword of its own, steps="),
        ("raw", {"arguments": {"output_dir": "x"}}, "arguments: output_dir has a keyword of its own, output_dir="),
        ("raw", {"arguments": {"preset": "raw"}}, "arguments: preset is no field of transformers.TrainingArguments"),
    ],
)
def test_contradictions_are_refused_before_data_are_read(system: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        train(system, "no/such/file.parquet", **options)


def test_a_device_that_is_not_there_is_refused(points: pd.DataFrame) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="device 'cuda' is not available"):
        train("raw", points, timezone=ZONE, device="cuda", **SHORT)


def test_data_of_another_kind_are_refused(visits: pd.DataFrame, points: pd.DataFrame) -> None:
    cells = np.zeros((2, 24), np.int32)
    table = WeekTable(cells, None, None, pd.DataFrame(index=range(2)))
    for system, data, sentence in (
        ("samoe", points, "no column location_id"),
        ("raw", table, "not on weeks of cells"),
        ("mstar-codec", table, "does not say its grid"),
        ("raw", [(points, ZONE)], "one city at a time"),
        ("samoe", [], "the list is empty"),
    ):
        with pytest.raises(DataError, match=sentence):
            train(system, data, timezone=ZONE, **SHORT)
    with pytest.raises(DataError, match="time zone is missing"):
        train("raw", points, **SHORT)
    days = WeekTable(cells, None, None, table.extra, grid=SquareGrid(48.0, 11.0, 48.1, 11.1, 5, 5))
    with pytest.raises(DataError, match="weeks of 168 hours; these rows have 24"):
        train("mstar-codec", days, timezone=ZONE, **SHORT)


def test_progress_says_what_is_trained_on_stderr(visits: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    made = train("mstar-codec", visits, timezone=ZONE, batch_size=4, progress=True, **SHORT)
    told = capsys.readouterr()
    assert all(note in told.err for note in made.notes) and len(made.notes) == 2
    train("mstar-codec", visits, timezone=ZONE, batch_size=4, **SHORT)
    quiet = capsys.readouterr()
    assert quiet.out == quiet.err == ""


def test_other_names_and_naive_times(points: pd.DataFrame, tmp_path: Path) -> None:
    table = points.rename(columns={"user_id": "uid", "lat": "y"})
    table["time"] = table["time"].dt.tz_convert(ZONE).dt.tz_localize(None)
    table.to_csv(tmp_path / "points.csv", index=False)
    made = train("raw", tmp_path / "points.csv", timezone=ZONE, user_id="uid", lat="y", batch_size=4, **SHORT)
    same = train("raw", points, timezone=ZONE, batch_size=4, **SHORT)
    same_weights(made.model, same.model)
