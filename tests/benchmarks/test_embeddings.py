"""RAW's examples run from end to end at tiny size, on simulated people and on files of the form of the real ones."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hf_mobility import RawForTrajectoryPrediction, RawTokenizer, simulate_city
from hf_mobility.data.simulation.points import simulated_points

RIVALS = ["CopyLast", "CityMedian", "Shrinkage", "HourMean", "HourMedian", "NearestPast"]
TINY = ["--size", "tiny", "--steps", "2", "--batch-size", "4"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like HF_MOBILITY_DATA, all simulated: two weeks of cabs in San Francisco, and points in Beijing."""
    folder = tmp_path_factory.mktemp("data")
    cities = {
        "gps_sf_cabs": ("America/Los_Angeles", (37.7, -122.445), "2008-05-19"),
        "gps_geolife_beijing": ("Asia/Shanghai", (39.9, 116.4), "2008-10-22"),
    }
    for name, (timezone, center, start) in cities.items():
        town = {"num_days": 13, "num_locations": 80, "radius_km": 8.0, "timezone": timezone, "center": center}
        city = simulate_city(12, **town, start=start)
        points = simulated_points(city, interval_seconds=900, seed=0)
        points["occupied"] = np.arange(len(points)) % 3 == 0
        points["mode"] = np.where(points["user_id"] % 2, np.take(["walk", "taxi", "boat"], points.index % 3), None)
        points.astype({"user_id": np.int16, "lat": np.float32, "lon": np.float32}).to_parquet(
            folder / f"{name}.parquet"
        )
    cells = np.arange(900)
    rng = np.random.default_rng(0)
    labels = pd.DataFrame({"cell": cells, "pickups": rng.poisson(20, 900), "dropoffs": rng.poisson(20, 900)})
    labels.to_parquet(folder / "derived_regionlabels_sf_cabs.parquet")
    return folder


@pytest.fixture
def data_folder(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks read those files."""
    monkeypatch.setenv("HF_MOBILITY_DATA", str(files))


def test_raw_is_trained_on_simulated_people_and_judged_beside_the_baselines(
    run_benchmark: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, report = tmp_path / "raw", tmp_path / "raw.csv"
    small = ["--users", "20", "--days", "2", "--gru-steps", "1", "--roll-out", "3", "--end-hour", "18"]
    run_benchmark("embeddings.train_raw", *TINY, *small, "--output", str(folder), "--report", str(report))
    printed = capsys.readouterr().out
    assert "20 windows of 20 people, 2 windows held out" in printed and "Next point" in printed
    table = pd.read_csv(report, comment="#")
    assert table["model"].unique().tolist() == [*RIVALS, "GRU", "RAW"]
    assert table["minutes"].unique().tolist() == [15, 30, 45] and (table["users"][table["subset"] == "all"] == 2).all()
    tokenizer = RawTokenizer.from_pretrained(folder)
    model = RawForTrajectoryPrediction.from_pretrained(folder)
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 192


@pytest.mark.usefixtures("data_folder")
@pytest.mark.parametrize(("name", "windows"), [("cabs", 24), ("geolife", 36)])
def test_real_files_are_cut_into_weeks_from_monday_on(name: str, windows: int) -> None:
    data = import_module("benchmarks.embeddings.series").load_series(name)
    assert len(data.users) <= windows and data.columns["coordinates"].shape[1:] == (672, 2)
    assert (data.series.start_weekday == 0).all() and "occupied" not in data.points
    people = set(data.users[data.held_out].tolist())
    assert len(people) == 2 and not people & set(data.users[~data.held_out].tolist())
    assert not data.validation.any()


@pytest.mark.usefixtures("data_folder")
def test_validation_people_are_neither_held_out_nor_trained_on(
    run_benchmark: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alone = import_module("benchmarks.embeddings.series").load_series("cabs")
    data = import_module("benchmarks.embeddings.series").load_series("cabs", validation=0.3)
    parts = {name: set(data.users[mask].tolist()) for name, mask in (("test", data.held_out), ("val", data.validation))}
    assert parts["test"] == set(alone.users[alone.held_out].tolist()), "the split of the test people does not change"
    assert len(parts["val"]) == 3 and not parts["val"] & parts["test"]
    assert len(data.train["coordinates"]) == (~data.held_out & ~data.validation).sum()
    small = ["--points", "cabs", "--validation", "0.3", "--gru-steps", "0", "--roll-out", "2"]
    run_benchmark("embeddings.train_raw", *TINY, *small, "--output", str(tmp_path / "raw"))
    printed = capsys.readouterr().out
    assert "Roll-out, validation" in printed and "Roll-out, held_out" in printed


@pytest.mark.usefixtures("data_folder")
def test_rivals_are_evaluated_at_week_ends_and_kept_beside_other_rows(
    run_benchmark: Callable[..., None], tmp_path: Path
) -> None:
    report = tmp_path / "positions.csv"
    asked = ["--points", "cabs", "--held-out", "0.3", "--report", str(report)]
    run_benchmark("embeddings.evaluate_positions", *asked, "--week-ends", "every one", "--end-hours", "19")
    table = pd.read_csv(report, comment="#")
    assert table["model"].unique().tolist() == RIVALS and (table["slots"] == "every one").all()
    assert table["minutes"].unique().tolist() == [15.0 * step for step in range(1, 11)]
    assert (table["windows"] >= table["users"]).all() and table["users"].max() == 4
    still = table[(table["model"] == "CopyLast") & (table["subset"] == "all")]
    assert (still["difference_low"] <= still["difference_high"]).all()

    run_benchmark("embeddings.evaluate_positions", *asked, "--week-ends", "recorded", "--end-hours", "19")
    both = pd.read_csv(report, comment="#")
    assert both["slots"].unique().tolist() == ["every one", "recorded"]
    pd.testing.assert_frame_equal(both[: len(table)], table, check_dtype=False)


@pytest.mark.usefixtures("data_folder")
def test_raw_is_trained_on_files(
    run_benchmark: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--points", "geolife", "--gru-steps", "0", "--end-hour", "18", "--set", "time_features=true"]
    run_benchmark("embeddings.train_raw", *TINY, *options, "--output", str(tmp_path / "raw"))
    assert "GRU" not in capsys.readouterr().out
    assert RawTokenizer.from_pretrained(tmp_path / "raw").time_features


def test_people_who_share_a_point_are_linked_and_held_out_together(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = import_module("benchmarks.embeddings.series")
    points = pd.DataFrame({"user_id": [1, 2, 2, 3, 4, 4], "time": [0, 0, 5, 5, 0, 0], "lat": [1, 1, 2, 2, 3, 3]})
    group = series.linked_users(points.assign(lon=0))
    assert group.index.tolist() == [1, 2, 3, 4] and group[1] == group[2] == group[3] != group[4]

    copied = pd.read_parquet(files / "gps_geolife_beijing.parquet")
    first, second, third = copied["user_id"].unique()[:3]
    copied = pd.concat([copied, copied[copied["user_id"] == first].head(1).assign(user_id=second)])
    copied.to_parquet(tmp_path / "gps_geolife_beijing.parquet")
    monkeypatch.setenv("HF_MOBILITY_DATA", str(tmp_path))
    data = series.load_series("geolife", days=1, held_out=np.array([first]))
    assert set(data.users[data.held_out].tolist()) == {first, second} and third in data.users[~data.held_out]
    assert data.columns["coordinates"].shape[1:] == (96, 2) and len(np.unique(data.days)) > 7


def test_a_missing_file_names_the_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MOBILITY_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="set HF_MOBILITY_DATA"):
        import_module("benchmarks.embeddings.series").load_points("cabs")


def test_people_are_profiled(
    run_benchmark: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "users.csv"
    asked = ["--users", "60", "--seeds", "1", "--few", "0.43", "--report", str(report)]
    run_benchmark("embeddings.profile_users", *TINY, *asked)
    assert "of them commuters in the week after" in capsys.readouterr().out
    table = pd.read_csv(report, comment="#")
    rules = ["rule on the week read", "rule, days at work, commute"]
    vectors = ["RAW", "RAW, day parts"]
    kinds = ["nothing", *rules, "hand-made", "untrained encoder", "untrained encoder, day parts", *vectors]
    kinds += [f"{name} + {raw}" for name in ("hand-made", *rules) for raw in vectors]
    assert table["features"].unique().tolist() == kinds and table["labels"].unique().tolist() == [21, 9]
    readers = table.groupby("labels")["reader"].unique()
    assert readers[21].tolist() == ["linear", "mlp"] and readers[9].tolist() == ["linear"]
    assert table.set_index("features")["auc"]["nothing"].tolist() == [0.5] * 3
    run_benchmark("embeddings.profile_users", *asked, "--no-encoder")
    pd.testing.assert_frame_equal(pd.read_csv(report, comment="#"), table)


def test_a_commuter_is_at_work_on_three_weekdays_far_from_home() -> None:
    hour, day = np.arange(168) % 24, np.arange(168) // 24
    office = (hour >= 9) & (hour < 17)
    week = {
        "daily": office & (day < 5),
        "three days": office & (day < 3),
        "two days": office & (day < 2),
        "weekend": office & (day >= 5),
        "night shift": (hour < 6) & (day < 5),  # what he does at night is his home, and far from the place of the day
        "near": office & (day < 5),
        "at home": np.zeros(168, bool),
    }
    lat = np.stack([np.where(there, 0.005 if name == "near" else 0.05, 0.0) for name, there in week.items()])
    found = import_module("benchmarks.embeddings.series").commuters(lat, np.zeros_like(lat), slots_per_day=24)
    assert dict(zip(week, found.tolist())) == {
        "daily": True,
        "three days": True,
        "two days": False,
        "weekend": False,
        "night shift": True,
        "near": False,
        "at home": False,
    }


@pytest.mark.usefixtures("data_folder")
def test_days_of_geolife_are_profiled_and_the_encoder_taken_again(
    run_benchmark: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--seeds", "1", "--report", str(tmp_path)]
    run_benchmark("embeddings.profile_geolife", *TINY, *options, "--save", str(tmp_path / "raw"))
    assert "78 of 156 days are judged, of 6 people whom the encoder has not seen" in capsys.readouterr().out
    modes = pd.read_csv(tmp_path / "raw_geolife_modes.csv", comment="#")
    assert (
        modes["mode"].unique().tolist() == ["walk", "car"] and (modes["people"] == 6).all()
    )  # no boats; taxis are cars
    assert modes.groupby("features")["width"].first()[["RAW", "hand-made + step lengths"]].tolist() == [16, 38]
    found = pd.read_csv(tmp_path / "raw_geolife_reidentification.csv", comment="#")
    assert found["features"].tolist() == ["chance", "places visited", "hand-made", "untrained encoder", "RAW"] * 2
    assert (found["people"] == 6).all() and found["top1"][0] == pytest.approx(1 / 6, abs=1e-4)
    homes = found.set_index(["features", "days"])["top1"]
    assert homes["places visited", 5] == 1  # everybody goes back to his own home
    again = ["--checkpoint", str(tmp_path / "raw"), "--held-out", "0.5", "--seeds", "1"]
    run_benchmark("embeddings.profile_geolife", *again)
    with pytest.raises(SystemExit):
        run_benchmark("embeddings.profile_geolife", *again[:2])


def test_ranks_and_steps_of_days() -> None:
    module = import_module("benchmarks.embeddings.profile_geolife")
    gallery = np.array([[1.0, 0], [0, 1], [1, 1]])
    assert module.ranks_of_own(2 * gallery, gallery).tolist() == [1, 1, 1]
    assert module.ranks_of_own(gallery[[1, 0, 2]], gallery).tolist() == [3, 3, 1]
    assert module.ranks_of_own(np.zeros((3, 2)), gallery).tolist() == [3, 3, 3]  # ties count against it
    lat = np.array([[0, 0.001, 0.001, 0.002], [0, 0.001, 0.001, 0.002]])
    known = np.array([[True, True, True, True], [True, False, True, False]])
    steps = module.step_lengths(lat, np.zeros_like(lat), known)
    assert steps[0, 4] == pytest.approx(np.log1p(111.2), rel=1e-3) and steps[0, 0] < steps[0, 4]
    assert (steps[1, :-1] == 0).all() and steps[:, -1].tolist() == [1, 0.5]


def test_an_embedding_is_asked_what_it_knows(
    run_benchmark: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = ["--users", "40", "--held-out", "0.5"]
    training = [*TINY, "--days", "7", "--gru-steps", "0", "--end-hour", "18", *same]
    run_benchmark("embeddings.train_raw", *training, "--output", str(tmp_path / "raw"))
    report = ["--seeds", "1", "--report", str(tmp_path)]
    run_benchmark("embeddings.understand_embedding", str(tmp_path / "raw"), *same, *report)
    assert "20 people whom the encoder has not seen" in capsys.readouterr().out
    knows = pd.read_csv(tmp_path / "raw_knows.csv", comment="#")
    r2 = knows.set_index(["label", "features", "reader"])["r2"]
    assert len(r2) == 7 * 3 * 2 and r2["share away by day", "hand-made", "linear"] > 0.9  # it is among the features
    alike = pd.read_csv(tmp_path / "raw_neighbours.csv", comment="#")
    assert len(alike) == 4 * 4 and (alike["low"] <= alike["mean"]).all() and (alike["mean"] <= alike["high"]).all()
    attention = pd.read_csv(tmp_path / "raw_attention.csv", comment="#")
    assert attention.groupby("hour")["attention"].sum().to_numpy() == pytest.approx(np.ones(24), abs=1e-3)
    with pytest.raises(SystemExit):  # of another city
        run_benchmark("embeddings.understand_embedding", str(tmp_path / "raw"), *same, "--seed", "1")


def test_neighbours_are_the_nearest_others() -> None:
    line = np.array([[0.0], [1.0], [2.1], [9.0]])
    nearest = import_module("benchmarks.embeddings.understand_embedding").nearest
    assert nearest(line, number=2).tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]


def ends() -> dict[str, list[Any]]:
    """Columns of a protocol's results: one model, of which nothing is known from six hours on."""
    rows = []
    for minutes in (15, 60, 150, 360, 1440):
        row = {"model": "RAW", "kind": "checkpoint", "subset": f"all, {minutes} minutes", "n": 7, "users": 2}
        known = minutes < 360
        user = {"by_user": 1.5, "by_user_low": 1.0, "by_user_high": 2.0}
        rows.append(
            {**row, "metric": "error_km", "value": 0.25 if known else np.nan, "low": 0.125, "high": 0.5, **user}
        )
        rows.append({**row, "metric": "median_km", "value": 0.125, "low": 0.0, "high": 0.25})
        rows[-2] |= {} if known else {"by_user": np.nan}
    return {name: [row.get(name) for row in rows] for name in rows[0]}


def test_the_tables_of_the_results_pages_are_filled(fill_blocks: Callable[..., str]) -> None:
    probed = {"features": ["hand-made", "RAW"] * 2, "reader": ["linear"] * 2 + ["mlp"] * 2, "n": 1234}
    for metric in ("accuracy", "f1", "auc", "mae", "pcc", "r2"):
        probed |= {metric: [0.5, 0.625, 0.5, 0.75], f"{metric}_sd": [0.125, np.nan, 0.25, 0.0]}
    horizons = {"minutes": [15, 150] * 2, "subset": ["all"] * 2 + ["moving"] * 2, "windows": [7, 7, 0, 3]}
    rolled = {"model": "RAW", **horizons, "error_km": [0.25, 2.5, np.nan, 4.0]}
    found = {"features": ["chance", "RAW"], "days": 5, "people": 25, "top1": 0.04, "top1_sd": [np.nan, 0.01]}
    tables = {
        "profile": {**probed, "labels": [700] * 4},
        "knows": {**probed, "label": "radius"},
        "regions": {**probed, "label": "pickups"},
        "geolife_modes": {**probed, "mode": "walk"},
        "geolife_reidentification": {**found, "top5": 0.2, "top5_sd": [np.nan, 0.02]},
        "neighbours": {"neighbours": ["RAW"], "measure": ["km"], "mean": 1.0, "low": 0.5, "high": 1.5},
        "rollout_cabs": {**rolled, "slots": "recorded"},
    }
    less = {"ours_less": -0.25, "ours_less_low": -0.5, "ours_less_high": 0.125}
    tables["extended"] = {
        **{"points": "cabs", "model": ["RAW extended"] * 5 + ["CopyLast"] * 5, "subset": "all"},
        **{"minutes": [15, 60, 150, 360, 1440] * 2, "error_km": 1.25, "median_km": 0.5, **less},
    }
    blocks = ("knows", "neighbours", "profile", "profile few", "regions", "geolife", "positions", "week ends")
    blocks += ("positions median", "positions users", "extended less")
    named = {f"raw_{name}": columns for name, columns in tables.items()}
    named |= {f"{points}-horizons": ends() for points in ("simulated", "geolife", "cabs")}
    text = fill_blocks(named, [f"raw {name}" for name in blocks])
    for row in (
        "| radius | 0.50 ± 0.12 / 0.50 ± 0.25 | 0.62 / 0.75 ± 0.00 |",
        "| **RAW** | 1.00 [0.50, 1.50] |",
        "| **RAW** | linear | 1,234 | 0.625 | 0.625 | 0.625 |",
        "| pickups | hand-made | mlp | 1,234 | 0.500 ± 0.250 | 0.500 ± 0.250 | 0.500 ± 0.250 |",
        "| cabs | 7 / 3 | **RAW** | 0.25 | – | – | – | 2.50 | – | – | – | – | 4.00 |",
        "| accuracy, labels of | 700 users |",
        "| geolife | 7 of 2 | **RAW** | 0.25 [0.12, 0.50] | 0.25 [0.12, 0.50] | 0.25 [0.12, 0.50] | – | – |",
        "| geolife | 7 of 2 | **RAW** | 0.12 [0.00, 0.25] |",
        "| cabs | **RAW** | 1.50 [1.00, 2.00] | 1.50 [1.00, 2.00] | 1.50 [1.00, 2.00] | – | – |",
        "| Pearson r, linear / MLP, 1,234 days | walk |",
        "| **RAW** | 0.62 / 0.75 ± 0.00 |",
        "| 5 | 25 | **RAW** | 0.040 ± 0.010 | 0.200 ± 0.020 |",
        "| cabs | all | CopyLast | -0.25 [-0.50, 0.12] | -0.25 [-0.50, 0.12] |",
    ):
        assert row in text, row


def test_the_speed_benchmark_runs(
    run_benchmark: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # of the other tests
    run_benchmark("speed.raw_speed", "--quick", "--output", str(tmp_path / "speed.csv"))
    assert (tmp_path / "speed.csv").read_text().startswith("# python -m benchmarks.speed.raw_speed --quick")
    table = pd.read_csv(tmp_path / "speed.csv", comment="#")
    first = table.groupby("measurement")["ratio"].first()
    assert len(table) == 12 and (first == 1).all() and (table["ms"] > 0).all()


@pytest.mark.usefixtures("data_folder")
def test_regions_are_analysed_without_the_occupied_flag(
    run_benchmark: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = tmp_path / "regions.csv"
    run_benchmark("embeddings.analyse_regions", *TINY, "--min-users", "2", "--seeds", "1", "--report", str(report))
    printed = capsys.readouterr().out
    assert "privacy: the vector of a region with fewer than 2 visitors" in printed
    table = pd.read_csv(report, comment="#")
    assert table["label"].unique().tolist() == ["log1p(pickups)", "log1p(dropoffs)"]
    widths = table[table["reader"] == "linear"].set_index("features")["width"].groupby(level=0).first()
    assert widths["number of visitors"] == widths["total points"] == 1
    assert widths["visits by hour of the day"] == 24 and widths["visits by hour of the week"] == 168
    assert widths["RAW, sum"] == widths["random users, sum"] == 16 and widths["RAW, mean and log number"] == 17
    assert widths["RAW, slots"] == widths["untrained encoder, slots"] == 16

    run_benchmark(
        "embeddings.analyse_regions", *("--min-users", "2", "--seeds", "1", "--no-encoder", "--report", str(report))
    )
    again = pd.read_csv(report, comment="#")
    assert set(again["features"]) == set(table["features"]) and len(again) == len(table)


@pytest.mark.usefixtures("data_folder")
def test_the_extended_variant_is_trained_in_stages_and_evaluated_beside_the_rivals(
    run_benchmark: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("benchmarks.embeddings.record_sets"), "SIMULATED_USERS", 4)
    small = ["--size", "tiny", "--batch-size", "8", "--cities", "cabs", "simulated"]
    rates = ["--learning-rates", "3e-3", "1e-3"]
    run_benchmark("embeddings.train_raw_extended", *small, *rates, "--steps", "3", "2", "--output", str(tmp_path / "a"))
    one = ["--steps", "3", "--learning-rates", "3e-3", "--output", str(tmp_path / "b")]
    run_benchmark("embeddings.train_raw_extended", *small, *one)
    two = ["--steps", "2", "--learning-rates", "1e-3", "--start", str(tmp_path / "b"), "--seed", "1"]
    run_benchmark("embeddings.train_raw_extended", *small, *two, "--output", str(tmp_path / "c"))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "c")]
    assert weights[0] == weights[1]

    report = tmp_path / "report.csv"
    asked = ["--points", "cabs", "--start-hours", "9", "15", "--gru-steps", "0", "--report", str(report)]
    asked += ["--adapt", "none", "--beside", str(tmp_path / "a")]
    run_benchmark("embeddings.evaluate_extended", "--checkpoint", str(tmp_path / "a"), *asked)
    table = pd.read_csv(report, comment="#").set_index(["model", "subset", "minutes"])
    assert table.index.levels[0].tolist() == sorted(
        [*RIVALS, *(f"RAW extended{kind}" for kind in ("", ", a", ", adapted"))]
    )
    ours, still = (table.loc[(name, "all", 150)] for name in ("RAW extended", "CopyLast"))
    assert still["ours_less"] == pytest.approx(ours["error_km"] - still["error_km"], abs=2e-5)
    assert still["ours_less_low"] <= still["ours_less"] <= still["ours_less_high"]
    same = [table.loc[(f"RAW extended, {kind}", "all", 150), "error_km"] for kind in ("a", "adapted")]
    assert same == [ours["error_km"]] * 2


@pytest.mark.usefixtures("data_folder")
def test_no_held_out_user_is_among_the_training_records() -> None:
    series, sets = (import_module(f"benchmarks.embeddings.{name}") for name in ("series", "record_sets"))
    for name in ("geolife", "cabs"):
        points, _ = series.load_points(name)
        test, chosen = series.split_people(name, points, **sets.SPLITS[name])
        trained = sets.gps_records(name).users
        assert len(trained) and not np.isin(trained, np.concatenate([test, chosen])).any()
