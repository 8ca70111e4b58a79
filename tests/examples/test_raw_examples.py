"""RAW's examples run from end to end at tiny size, on simulated people and on files of the form of the real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from hf_mobility import RawForTrajectoryPrediction, RawTokenizer, simulate_city
from hf_mobility.data.simulated_points import simulated_points

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
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
        points.astype({"user_id": np.int16, "lat": np.float32, "lon": np.float32}).to_parquet(
            folder / f"{name}.parquet"
        )
    cells = np.arange(900)
    rng = np.random.default_rng(0)
    labels = pd.DataFrame({"cell": cells, "pickups": rng.poisson(20, 900), "dropoffs": rng.poisson(20, 900)})
    labels.to_parquet(folder / "derived_regionlabels_sf_cabs.parquet")
    return folder


def test_raw_is_trained_on_simulated_people_and_judged_beside_the_baselines(
    run_example: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, report = tmp_path / "raw", tmp_path / "raw.csv"
    small = ["--users", "20", "--days", "2", "--gru-steps", "1", "--roll-out", "3", "--end-hour", "18"]
    run_example("train_raw.py", *TINY, *small, "--output", str(folder), "--report", str(report))
    printed = capsys.readouterr().out
    assert "20 windows of 20 people, 2 windows held out" in printed and "Next point" in printed
    table = pd.read_csv(report, comment="#")
    assert table["model"].unique().tolist() == ["CopyLast", "HourMean", "GRU", "RAW"]
    assert table["minutes"].unique().tolist() == [15, 30, 45] and (table["users"][table["subset"] == "all"] == 2).all()
    tokenizer = RawTokenizer.from_pretrained(folder)
    model = RawForTrajectoryPrediction.from_pretrained(folder)
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 192


@pytest.mark.parametrize(("name", "windows"), [("cabs", 24), ("geolife", 36)])
def test_real_files_are_cut_into_weeks_from_monday_on(
    example: Callable[[str], ModuleType], files: Path, monkeypatch: pytest.MonkeyPatch, name: str, windows: int
) -> None:
    monkeypatch.setenv("HF_MOBILITY_DATA", str(files))
    data = example("_series").load_series(name)
    assert len(data.users) <= windows and data.columns["coordinates"].shape[1:] == (672, 2)
    assert (data.series.start_weekday == 0).all() and "occupied" not in data.points
    people = set(data.users[data.held_out].tolist())
    assert len(people) == 2 and not people & set(data.users[~data.held_out].tolist())


def test_raw_is_trained_on_files(
    run_example: Callable[..., None],
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_MOBILITY_DATA", str(files))
    options = ["--points", "geolife", "--gru-steps", "0", "--end-hour", "18", "--set", "time_features=true"]
    run_example("train_raw.py", *TINY, *options, "--output", str(tmp_path / "raw"))
    assert "GRU" not in capsys.readouterr().out
    assert RawTokenizer.from_pretrained(tmp_path / "raw").time_features


def test_a_missing_file_names_the_environment_variable(
    example: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MOBILITY_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="set HF_MOBILITY_DATA"):
        example("_series").load_points("cabs")


def test_people_are_profiled(
    run_example: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "users.csv"
    run_example("profile_users.py", *TINY, "--users", "60", "--seeds", "2", "--report", str(report))
    assert "of them commuters in the week after" in capsys.readouterr().out
    table = pd.read_csv(report, comment="#")
    assert table["features"].unique().tolist() == [
        "nothing",
        "hand-made",
        "untrained encoder",
        "RAW",
        "hand-made + RAW",
    ]
    assert table["reader"].tolist() == ["linear", "mlp"] * 5
    assert table.set_index("features")["auc"]["nothing"].tolist() == [0.5, 0.5]


def test_a_commuter_is_at_work_on_three_weekdays_far_from_home(example: Callable[[str], ModuleType]) -> None:
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
    found = example("profile_users").commuters(lat, np.zeros_like(lat), slots_per_day=24)
    assert dict(zip(week, found.tolist())) == {
        "daily": True,
        "three days": True,
        "two days": False,
        "weekend": False,
        "night shift": True,
        "near": False,
        "at home": False,
    }


def test_regions_are_analysed_without_the_occupied_flag(
    run_example: Callable[..., None],
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_MOBILITY_DATA", str(files))
    report = tmp_path / "regions.csv"
    run_example("analyse_regions.py", *TINY, "--min-users", "2", "--seeds", "1", "--report", str(report))
    printed = capsys.readouterr().out
    assert "privacy: the vector of a region with fewer than 2 visitors" in printed
    table = pd.read_csv(report, comment="#")
    assert table["label"].unique().tolist() == ["log1p(pickups)", "log1p(dropoffs)"]
    widths = table[table["reader"] == "linear"].set_index("features")["width"].groupby(level=0).first()
    assert widths["number of visitors"] == 1 and widths["visits by hour"] == 24
    assert widths["RAW, sum"] == widths["random people, sum"] == 16 and widths["RAW, mean and log number"] == 17


def test_visits_by_hour_are_counted_on_the_citys_clock(example: Callable[[str], ModuleType]) -> None:
    module = example("analyse_regions")
    time = pd.to_datetime(["2008-05-19 07:30", "2008-05-19 07:40", "2008-05-20 06:59", "2008-05-19 08:00"], utc=True)
    points = pd.DataFrame({"time": time, "lat": [37.585, 37.585, 37.585, 0], "lon": [-122.528] * 4})
    found = np.expm1(module.hours_of_visits(points, "America/Los_Angeles"))
    assert found.shape == (900, 24) and found.sum() == pytest.approx(3)
    assert found[0, 0] == pytest.approx(2) and found[0, 23] == pytest.approx(1)
