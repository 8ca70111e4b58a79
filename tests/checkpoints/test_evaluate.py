"""`evaluate_checkpoint`: baselines first, the model last, and no test on what it was made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hf_mobility import (
    City,
    DataError,
    NextLocationPipeline,
    evaluate,
    make_task,
    simulate_city,
    summarize,
)
from hf_mobility.baselines.count import UserFrequency, UserMarkov
from hf_mobility.checkpoints.evaluate import evaluate_checkpoint
from hf_mobility.checkpoints.mstar import EPOCHS, evaluate_mstar
from hf_mobility.checkpoints.unseen import Checkpoint
from hf_mobility.data.parts import split_users, training_part
from hf_mobility.data.training_record import FILE
from hf_mobility.data.weeks import WeekTable
from hf_mobility.evaluation import fidelity_report, groups, week_report
from hf_mobility.pipelines.trajectory_generation import TrajectoryGenerationPipeline
from hf_mobility.tokenization.tokenization_mstar import MstarTokenizer
from hf_mobility.training.adapt import adapt
from hf_mobility.training.train import train

ZONE = "Europe/Berlin"
SHORT: dict[str, Any] = {"size": "tiny", "steps": 2}


@pytest.fixture(scope="module")
def visits() -> pd.DataFrame:
    return simulate_city(30, num_days=14, seed=1).visits


@pytest.fixture(scope="module")
def samoe(visits: pd.DataFrame) -> Any:
    return train("samoe", visits, city=City.from_visits(visits, timezone=ZONE), test_fraction=0.2, **SHORT)


@pytest.fixture(scope="module")
def codec(visits: pd.DataFrame) -> Any:
    city = City.from_visits(visits, timezone=ZONE)  # with the places of the test users
    return train("mstar-codec", visits, city=city, batch_size=4, test_fraction=0.4, **SHORT)


@pytest.fixture(scope="module")
def generator(visits: pd.DataFrame, codec: Any) -> Any:
    return train("mstar", visits, codec=codec, batch_size=4, test_fraction=0.4, **SHORT)


@pytest.fixture(scope="module")
def raw(visits: pd.DataFrame) -> Any:
    points = visits[["user_id", "time", "lat", "lon"]]
    return train("raw", points, timezone=ZONE, test_fraction=0.2, batch_size=4, **SHORT)


def test_samoe_is_ranked_behind_the_count_tables_of_the_same_task(visits: pd.DataFrame, samoe: Any) -> None:
    table = evaluate_checkpoint(samoe, visits)
    assert table["model"].tolist() == ["UserFrequency", "UserMarkov", "ContextMix", "SamoeForNextLocation"]
    task = make_task(visits, samoe.tokenizer.city, test_fraction=0.2)
    known = task.train_visits()
    models: list[Any] = [UserFrequency(known), UserMarkov(known), NextLocationPipeline(samoe.model, samoe.tokenizer)]
    expected = summarize([evaluate(model, task) for model in models], seed=0)
    for name in ("n", "acc@1", "mrr"):
        assert table[name].tolist()[:2] == expected[name].tolist()[:2]
        assert table[name].iloc[-1] == expected[name].iloc[-1]
    assert table.attrs["main"][:2] == ["model", "n"]


def test_samoe_is_also_shown_by_group_and_per_user(visits: pd.DataFrame, samoe: Any) -> None:
    plain, table = evaluate_checkpoint(samoe, visits), evaluate_checkpoint(samoe, visits, groups=True)
    assert table.attrs["main"] == ["subset", *plain.attrs["main"]]
    pd.testing.assert_frame_equal(table[table["subset"] == "all"].reset_index(drop=True), plain)
    task = make_task(visits, samoe.tokenizer.city, test_fraction=0.2)
    names = [name for name, mask in groups(task).items() if mask.any()]
    assert table["subset"].drop_duplicates().tolist() == ["all", *names]
    for _, block in table.groupby("subset"):
        assert block["model"].tolist() == plain["model"].tolist()
    own = evaluate(NextLocationPipeline(samoe.model, samoe.tokenizer), task)
    mean = pd.Series(own.metric("mrr")).groupby(own.user).mean().mean()
    assert plain["user_mrr"].iloc[-1] == pytest.approx(mean)


def test_groups_are_of_next_locations_only(visits: pd.DataFrame, raw: Any) -> None:
    with pytest.raises(DataError, match="groups: for next locations"):
        evaluate_checkpoint(raw, visits[["user_id", "time", "lat", "lon"]], groups=True)


def test_a_folder_an_adapter_and_another_city_are_evaluated_alike(
    visits: pd.DataFrame, samoe: Any, tmp_path: Path
) -> None:
    samoe.save_pretrained(tmp_path / "town")
    table = evaluate_checkpoint(tmp_path / "town", visits)
    assert table["model"].iloc[-1] == "town"
    pd.testing.assert_frame_equal(table.drop(columns="model"), evaluate_checkpoint(samoe, visits).drop(columns="model"))
    local = adapt(tmp_path / "town", visits, timezone=ZONE, strength="none", test_fraction=0.2)
    same = evaluate_checkpoint(local, visits)
    np.testing.assert_allclose(same["mrr"], table["mrr"])
    city = City.from_visits(visits, timezone=ZONE)
    assert evaluate_checkpoint(tmp_path / "town", visits, city=city)["n"].tolist() == table["n"].tolist()


def test_mstar_is_compared_with_held_out_weeks_of_records_or_of_a_table(visits: pd.DataFrame, generator: Any) -> None:
    tokenizer = generator.tokenizer
    table = evaluate_checkpoint(generator, visits, test_fraction=0.4)
    assert table["model"].tolist()[:2] == ["train sample", "real itself"]
    assert table["model"].iloc[-1] == "MstarForTrajectoryGeneration"
    cells, users, start = tokenizer.weeks(visits)
    assert table.attrs["notes"][0].startswith(f"weeks: {len(cells)} of ")
    weeks = WeekTable(cells, users, start, pd.DataFrame(index=range(len(cells))))
    pd.testing.assert_frame_equal(evaluate_checkpoint(generator, weeks, test_fraction=0.4), table)
    _, test = split_users(visits, test_fraction=0.4, seed=0)
    testing = np.isin(users, test["user_id"].unique())
    made = TrajectoryGenerationPipeline(generator.model, tokenizer).generate(int(testing.sum()), seed=0, to="weeks")
    city = {"lat": tokenizer.lat, "lon": tokenizer.lon}
    owners = {"real_users": users[testing], "train_users": users[~testing]}
    sets = {"real": cells[testing], "train": cells[~testing]}
    expected = week_report({"made": made}, epochs=EPOCHS, seed=0, **sets, **owners, **city).iloc[-1]
    for name in ("mean6", "arrival_sd", "together_again", "two_sample_auc", "one_user_pairs"):
        assert table[name].iloc[-1] == pytest.approx(expected[name], nan_ok=True), name
    assert {"mean6", "two_sample_auc", "work_places"} < set(table.attrs["main"]) <= set(table)


def test_windows_that_are_no_weeks_are_compared_as_distributions(visits: pd.DataFrame) -> None:
    days = MstarTokenizer.from_visits(visits, timezone=ZONE, cell_km=4.0, num_hours=24)
    training = split_users(visits, test_fraction=0.4, seed=0)[0]["user_id"].unique()
    cells, users, _ = days.weeks(visits)
    days.fit_conditions(cells[np.isin(users, training)], num_attributes=3, method="distinct_cells")
    pipe = SimpleNamespace(tokenizer=days, generate=lambda n, **options: cells[:n])
    checkpoint: Any = SimpleNamespace(name="days", pipeline=lambda kind: pipe)
    table = evaluate_mstar(checkpoint, visits, test_fraction=0.4, seed=0)
    assert table["mean6"].notna().all() and "arrival_sd" not in table


def test_raw_is_evaluated_on_points(visits: pd.DataFrame, raw: Any) -> None:
    points = visits[["user_id", "time", "lat", "lon"]]
    table = evaluate_checkpoint(raw, points, batch_size=2)
    rivals = ["CopyLast", "CityMedian", "Shrinkage", "HourMean", "HourMedian", "NearestPast"]
    assert list(table["model"].unique()) == [*rivals, "RawForTrajectoryPrediction"]
    assert table["minutes"].unique().tolist() == [15, 30, 60, 90, 150]
    assert table.loc[table["model"] == "Shrinkage", "difference_km"].isna().all()
    assert 0 < table["users"].max() <= 6  # of thirty, those with a record at a horizon
    assert table.attrs["notes"][0].startswith("one window of 6 users, 10 slots to slot ")
    seen = train("raw", points, timezone=ZONE, batch_size=4, **SHORT)
    assert "it has seen its test users" in evaluate_checkpoint(replace(seen, record=None), points).attrs["notes"][1]


def test_raw_is_evaluated_where_something_was_recorded(visits: pd.DataFrame, raw: Any) -> None:
    """Nothing is recorded at night: a filled-in point there is the last known one, so that to copy it is no feat."""
    minutes = pd.date_range("2024-01-01", periods=14 * 24 * 4, freq="15min", tz=ZONE)
    day = minutes[(minutes.hour >= 8) & (minutes.hour < 18)]
    box = visits["lat"].min(), visits["lon"].min()
    frames = [
        pd.DataFrame({"user_id": user, "time": day.tz_convert("UTC"), "lat": box[0], "lon": box[1]})
        for user in range(100, 120)
    ]
    points = pd.concat(frames, ignore_index=True)
    wander = np.random.default_rng(0).normal(0, 1e-3, (2, len(points)))
    points["lat"] += 0.01 + wander[0].clip(-0.005, 0.005)
    points["lon"] += 0.01 + wander[1].clip(-0.005, 0.005)
    table = evaluate_checkpoint(raw, points)
    copied = table.query("model == 'CopyLast' and subset == 'all'")
    assert (copied["users"] == 4).all() and (copied["mae_m"] > 10).all()
    assert "100% of them hold a record" in table.attrs["notes"][0]

    far = points[::400].assign(lat=box[0] + 5)
    table_with_far = evaluate_checkpoint(raw, pd.concat([points, far], ignore_index=True))
    assert "records lie outside the model's bounds" in table_with_far.attrs["notes"][1]
    pd.testing.assert_frame_equal(table_with_far, table)


def test_test_weeks_beyond_the_training_weeks_are_drawn_not_cut(visits: pd.DataFrame, generator: Any) -> None:
    table = evaluate_checkpoint(replace(generator, record=None), visits, test_fraction=0.8)
    cells, users, _ = generator.tokenizer.weeks(visits)
    train, _ = split_users(visits, test_fraction=0.8, seed=0)
    training = np.isin(users, train["user_id"].unique())
    number = int(training.sum())
    assert table["n"].iloc[-1] == number < (~training).sum()
    assert f"{number} of the {(~training).sum()} test weeks, drawn by the seed" in table.attrs["notes"][1]
    drawn = np.sort(np.random.default_rng(0).permutation(int((~training).sum()))[:number])
    city = {"lat": generator.tokenizer.lat, "lon": generator.tokenizer.lon}
    real = cells[~training][drawn]
    expected = fidelity_report({"x": real}, real=real, train=cells[training], seed=0, **city)
    assert table["mean6"].iloc[0] == pytest.approx(expected["mean6"].iloc[0])


def test_what_a_model_has_seen_is_no_test_of_it(visits: pd.DataFrame) -> None:
    seen = train("samoe", visits, timezone=ZONE, **SHORT)
    weeks = train("mstar-codec", visits, timezone=ZONE, batch_size=4, **SHORT)
    generator = train("mstar", visits, codec=weeks, batch_size=4, **SHORT)
    for made in (seen, generator):
        with pytest.raises(
            DataError, match="was trained on about 100% of the test records: train or adapt with a test"
        ):
            evaluate_checkpoint(made, visits)
        with pytest.raises(DataError, match="was made from exactly these records"):  # as the tokenizer alone tells
            evaluate_checkpoint(replace(made, record=None), visits)


def test_a_saved_generator_that_lists_shared_homes_only_is_told_by_them(visits: pd.DataFrame, tmp_path: Path) -> None:
    """Without a record of the training, the homes of at least two users tell; the others are not saved."""
    weeks = train("mstar-codec", visits, timezone=ZONE, batch_size=4, cell_km=4.0, **SHORT)
    generator = replace(train("mstar", visits, codec=weeks, batch_size=4, **SHORT), record=None)
    generator.save_pretrained(tmp_path / "seen", min_users=2)
    saved = MstarTokenizer.from_pretrained(tmp_path / "seen").conditions.home_counts
    assert 0 < saved.sum() < generator.tokenizer.conditions.home_counts.sum()
    with pytest.raises(DataError, match="seen was made from exactly these records"):
        evaluate_checkpoint(tmp_path / "seen", visits)
    halves = train("mstar-codec", visits, timezone=ZONE, batch_size=4, cell_km=4.0, test_fraction=0.4, **SHORT)
    generator = replace(train("mstar", visits, codec=halves, batch_size=4, test_fraction=0.4, **SHORT), record=None)
    generator.save_pretrained(tmp_path / "unseen", min_users=2)
    assert evaluate_checkpoint(tmp_path / "unseen", visits, test_fraction=0.4)["model"].iloc[-1] == "unseen"


@pytest.mark.parametrize(
    ("share", "options"),
    [(0.5, {}), (1.0, {"test_fraction": 0.6})],
    ids=["half of the training visits", "a larger test part"],
)
@pytest.mark.parametrize("system", ["samoe", "mstar", "raw"])
def test_a_part_of_what_a_model_has_seen_is_no_test_of_it_either(
    system: str, share: float, options: dict[str, Any], visits: pd.DataFrame, samoe: Any, generator: Any, raw: Any
) -> None:
    made = {"samoe": samoe, "mstar": generator, "raw": raw}[system]
    columns = ["user_id", "time", "lat", "lon"] + ["location_id"] * (system != "raw")
    data = training_part(system, visits, test_fraction=made.record.test_fraction, seed=0) if share < 1 else visits
    with pytest.raises(DataError, match=r"was trained on about .*% of the test records: evaluate its whole table"):
        evaluate_checkpoint(made, data[columns], **options)


def test_another_seed_and_the_base_of_an_adapter_are_seen_too(visits: pd.DataFrame, raw: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"was trained on about .*% of the test records"):
        evaluate_checkpoint(raw, visits[["user_id", "time", "lat", "lon"]], seed=1)
    train("samoe", visits, timezone=ZONE, **SHORT).save_pretrained(tmp_path / "base")
    others = simulate_city(12, num_days=14, seed=2).visits
    local = adapt(tmp_path / "base", others, timezone=ZONE, strength="none", test_fraction=0.2)
    local.save_pretrained(tmp_path / "local")
    assert len(evaluate_checkpoint(tmp_path / "local", others))
    with pytest.raises(DataError, match="local was trained on about 100% of the test records"):
        evaluate_checkpoint(tmp_path / "local", visits, city=City.from_visits(visits, timezone=ZONE))


def test_the_test_part_is_by_default_the_one_that_training_left_out(visits: pd.DataFrame, tmp_path: Path) -> None:
    made = train("samoe", visits, timezone=ZONE, test_fraction=0.35, seed=3, **SHORT)
    made.save_pretrained(tmp_path)
    table = evaluate_checkpoint(tmp_path, visits)
    pd.testing.assert_frame_equal(table, evaluate_checkpoint(tmp_path, visits, test_fraction=0.35, seed=3))
    (tmp_path / FILE).unlink()
    notes = evaluate_checkpoint(tmp_path, visits, test_fraction=0.35, seed=3).attrs["notes"]
    assert notes == ["no record of the training lies beside the weights: what of the test it has seen cannot be told."]


@pytest.mark.parametrize("device", ["foo", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(device: str) -> None:
    with pytest.raises(ValueError, match=f"^device '{device}' is "):
        evaluate_checkpoint("no/such", "no/such/file.parquet", device=device)


def test_the_callers_model_stays_where_it_is(samoe: Any) -> None:
    pipe = Checkpoint("x", "", samoe, "meta", None).pipeline(NextLocationPipeline)
    assert pipe.model.device.type == "meta" and samoe.model.device.type == "cpu"
    assert Checkpoint("x", "", samoe, "cpu", None).pipeline(NextLocationPipeline).model is samoe.model


def test_faults_are_one_sentence(visits: pd.DataFrame, codec: Any, samoe: Any, generator: Any, tmp_path: Path) -> None:
    city = City.from_visits(visits, timezone=ZONE)
    for model, options, sentence in (
        (codec, {}, "is a mobility_mstar_codec; evaluate_checkpoint evaluates"),
        (samoe, {"min_known": 0.5}, "min_known: for weeks"),
        (generator, {"city": city}, "knows the city that it was trained in"),
        (samoe, {"test_fraction": 0}, "test_fraction must lie between 0 and 1"),
    ):
        with pytest.raises(DataError, match=sentence):
            evaluate_checkpoint(model, visits, **options)
    with pytest.raises(TypeError, match="a folder, a Hub id, or what train or adapt returned"):
        evaluate_checkpoint(3, visits)
    with pytest.raises(OSError, match=r"no|nothing"):
        evaluate_checkpoint(tmp_path / "nothing", visits)
