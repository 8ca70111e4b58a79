"""The scripts on generated weeks, on whole weeks of a toy city; the checkpoint is replaced by copied weeks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from benchmarks.generation import complete_weeks, evaluate_weeks, made, next_from_weeks, serve_weeks
from benchmarks.generation.weeks import WeekSet
from hf_mobility import MstarTokenizer, simulate_city
from hf_mobility.baselines import ResampledWeeks, SameHour
from hf_mobility.data.splits import split_weeks_by_user
from hf_mobility.evaluation.week_report import WEEK_COLUMNS

OURS = "M-STAR mine"


@pytest.fixture(scope="module")
def toy() -> WeekSet:
    city = simulate_city(40, num_days=14, num_locations=60, radius_km=2.0, seed=5)
    lat, lon = city.visits["lat"], city.visits["lon"]
    grid = {"lat": lat, "lon": lon, "rows": 4, "columns": 4, "factors": (2, 1)}
    tokenizer = MstarTokenizer.from_grid(timezone=city.timezone, **grid)
    weeks = tokenizer.weeks(city.visits)
    parts = split_weeks_by_user(weeks.user_id, fractions=(0.5, 0.2, 0.3), seed=0)
    tokenizer.fit_conditions(weeks.cells[parts[0]], num_attributes=3, method="distinct_cells")
    return WeekSet("toy", weeks.cells, tokenizer, *parts, person=np.unique(weeks.user_id, return_inverse=True)[1])


@pytest.fixture
def run(toy: WeekSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a script's `main` on the toy city with a checkpoint that copies training weeks."""
    copies = ResampledWeeks().fit(toy.cells[toy.train])

    def generate(number: int, *, seed: int, to: str, **given: Any) -> np.ndarray:
        cells = copies.generate(number, seed=seed)
        return np.where(np.arange(168) % 24 < 6, given["home_ids"][:, None], cells) if given else cells

    def complete(cells: np.ndarray, *, draws: int, seed: int, to: str) -> np.ndarray:
        return SameHour().complete(cells)

    pipe = SimpleNamespace(generate=generate, complete=complete, tokenizer=toy.tokenizer)
    monkeypatch.setattr(made, "load_weeks", lambda name, **options: toy)
    monkeypatch.setattr(made, "check_trained_on", lambda weeks, folder: None)
    monkeypatch.setattr(made, "TrajectoryGenerationPipeline", SimpleNamespace(from_pretrained=lambda folder: pipe))

    def start(module: Any, *arguments: str) -> None:
        keep = [] if module is complete_weeks else ["--keep", str(tmp_path / "made")]
        monkeypatch.setattr(sys, "argv", [module.__file__, "checkpoints/mine", *keep, *arguments])
        module.main()

    return start


def read(path: Path) -> pd.DataFrame:
    assert path.read_text().startswith("# python ")
    return pd.read_csv(path, comment="#")


def test_weeks_are_reported_user_by_user(run: Callable[..., None], tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.csv" for name in ("output", "pairs", "members")}
    options = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    run(evaluate_weeks, "--number", "16", "--draws", "2", *options)
    table = read(paths["output"])
    assert table["model"].tolist() == ["train sample", "real itself", *made.RIVALS, OURS]
    assert table["draws"].tolist() == [2, 1, 2, 2, 2, 2]
    assert table["two_sample_auc"].notna().sum() == 5
    kept = np.load(tmp_path / "made/M-STAR-mine-16-1.npy")
    assert kept.shape == (16, 168)
    assert read(paths["pairs"])["model"].tolist() == ["unseen users", *made.RIVALS, OURS]
    assert read(paths["members"])["model"].tolist() == [*made.RIVALS, OURS]
    before = table.set_index("model")
    run(evaluate_weeks, "--number", "16", "--draws", "2", "--sets", OURS, "--output", str(paths["output"]))
    again = read(paths["output"]).set_index("model")
    pd.testing.assert_frame_equal(again.loc[[OURS]], before.loc[[OURS]])
    assert sorted(again.index) == sorted(before.index)
    with pytest.raises(SystemExit):
        run(evaluate_weeks, "--sets", "dreams")


def test_completions_stand_beside_copies_and_homes_beside_rivals(run: Callable[..., None], tmp_path: Path) -> None:
    paths = [tmp_path / "completion.csv", tmp_path / "homes.csv"]
    run(complete_weeks, "--number", "10", "--output", str(paths[0]), "--homes", str(paths[1]))
    table = read(paths[0])
    accuracy = table.pivot(index="model", columns="gap", values="accuracy")
    assert (accuracy.loc[OURS] == accuracy.loc["SameHour"]).all()
    assert (accuracy.loc[f"{OURS}, vote of {complete_weeks.VOTES}"] == accuracy.loc["SameHour"]).all()
    homes = read(paths[1]).set_index(["model", "homes"])["nights_at_home"]
    assert homes[OURS, "of nobody in training"] == homes[OURS, "of training users"] == 1
    assert 0 < homes["ExplorationReturn", "of nobody in training"] < 1


def test_epidemics_are_compared_with_those_of_real_weeks(run: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "epidemic.csv"
    run(serve_weeks, "--number", "12", "--draws", "2", "--runs", "2", "--output", str(path))
    table = read(path)
    assert table["model"].tolist() == ["train sample", *made.RIVALS, OURS]
    assert (table["agents"] == 12).all() and (table["draws"] == 2).all()


def test_a_next_location_model_is_trained_on_each_set_and_parts_are_added(
    run: Callable[..., None], tmp_path: Path
) -> None:
    path = tmp_path / "next.csv"
    short = ["--number", "12", "--draws", "1", "--epochs", "1", "--output", str(path)]
    run(next_from_weeks, *short, "--sets", next_from_weeks.REAL)
    run(next_from_weeks, *short, "--sets", f"real users and {OURS}", OURS)
    rows = read(path).set_index("trained on")
    assert rows.index.tolist() == [next_from_weeks.NOTHING, next_from_weeks.REAL, OURS, f"real users and {OURS}"]
    assert rows["weeks"].tolist() == [0, 12, 12, 24]
    assert rows["mrr"].iloc[1:].between(0, 1).all()
    with pytest.raises(SystemExit):
        run(next_from_weeks, *short, "--sets", "dreams")


def test_a_next_location_model_learns_nothing_of_the_test_weeks() -> None:
    train, test = np.array([[0, 0, 1, 0]]), np.array([[2, 2, 3, 2], [1, 1, 1, 1]])
    task = next_from_weeks.task_of(train, test, cells=4)
    assert task.location.tolist() == [0, 1, 0, 2, 3, 2, 1]
    assert task.target.tolist() == [False] * 3 + [False, True, True, False]
    assert next_from_weeks.returning(test) == {"acc@1": 0.5, "mrr": pytest.approx(np.nan, nan_ok=True)}


# Pages


def test_the_tables_of_the_page_are_filled(fill_blocks: Callable[..., str]) -> None:
    measures = {name: [0.5, 0.25] for name in WEEK_COLUMNS}
    spreads = {f"{name}_sd": [0.01, None] for name in WEEK_COLUMNS}
    report = {"model": [OURS, "train sample"], "draws": [3, 1], **measures, **spreads}
    intervals = {"auc": [0.6], "auc_low": [0.55], "auc_high": [0.65]}
    shares = {"no training user": [0.1], "one user": [0.2], "two to four users": [0.3], "five users or more": [0.4]}
    accuracy = {"accuracy": [0.8, 0.75], "accuracy_low": [0.79, 0.74], "accuracy_high": [0.81, 0.76], "weeks": 400}
    tables = {
        "weeks_simulated": report,
        "weeks_completion": {"model": ["SameHour", OURS], "gap": "Wednesday", **accuracy},
        "weeks_homes": {
            "model": [OURS] * 2,
            "homes": ["of training users", "of nobody in training"],
            "nights_at_home": [1.0, 0.03],
        },
        "weeks_epidemic": {
            **{"model": [OURS], "agents": 900, "draws": 2, "runs": 10},
            **{"error": [0.2], "error_sd": 0.01, "peak": 1.1, "peak_sd": 0.02, "peak_days": -1.5, "peak_days_sd": 0.5},
        },
        "weeks_next": {
            "trained on": ["real users", "real users", "nothing"],
            **{"weeks": [900, 900, 0], "seed": [0, 1, 0], "acc@1": [0.5, 0.6, 0.2], "mrr": [0.6, 0.7, None]},
        },
        "weeks_pairs": {"model": ["unseen users"], "weeks": 1999, **shares},
        "weeks_members": {"model": ["ExplorationReturn"], **intervals},
    }
    text = fill_blocks(tables, [f"weeks {name.removeprefix('weeks_')}" for name in tables if name != "weeks_simulated"])
    text += fill_blocks(tables, ["weeks like", "weeks habits"])
    for row in (
        "| **M-STAR mine** | 0.750 [0.740, 0.760] |",
        "| **M-STAR mine** | 100 % | 3 % |",
        "| **M-STAR mine** | 0.20 ± 0.01 | 1.10 ± 0.02 | -1.5 ± 0.5 |",
        "| real users | 900 | 0.550 ± 0.071 | 0.650 ± 0.071 |",
        "| nothing | 0 | 0.200 |  |",
        "| unseen users | 1,999 | 10 % | 20 % | 30 % | 40 % |",
        "| ExplorationReturn | 0.600 [0.550, 0.650] |",
        "| other real users | 250.0 | 0.25 | 0.250 | 250.0 |",
        "| **M-STAR mine** | 50 ± 1 | 0.50 ± 0.01 |",
    ):
        assert row in text, row
    assert text.index("| other real users |") < text.index("| **M-STAR mine** | 500.0 ± 10.0 |")


def test_weeks_of_slots_are_trained_and_their_generator_further(
    run_benchmark: Callable[..., None], tmp_path: Path
) -> None:
    few = ["--cities", "1", "--users", "60", "--days", "14", "--steps", "2", "--batch-size", "4"]
    run_benchmark("generation.train_slots", *few, "--size", "tiny", "--output", str(tmp_path / "a"))
    run_benchmark("generation.train_slots", *few, "--start", str(tmp_path / "a"), "--output", str(tmp_path / "b"))
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    changed = {name.split(".")[0] for name in before if not before[name].equal(after[name])}
    assert "layers" in changed and not changed & {"codec", "places"}
