"""The examples run from end to end on small simulated cities, and their helpers do what they say."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from hf_mobility import NextLocationPipeline, make_task, simulate_city
from hf_mobility.data.simulation.points import simulated_points

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ACCURACY = ["acc@1", "acc@5", "acc@10", "mrr"]


def test_a_city_is_adapted_to_from_a_file(
    run_example: Callable[..., None], toy: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.city(20, num_days=14)[0].to_parquet(tmp_path / "visits.parquet")
    run_example("adapt_city.py", str(tmp_path / "visits.parquet"), "Europe/Berlin", str(tmp_path / "city"))
    printed = capsys.readouterr().out
    for model in ("UserFrequency", "UserMarkov", "SAMoE, nothing tuned", "SAMoE, adapted ("):
        assert model in printed
    assert NextLocationPipeline.from_pretrained(tmp_path / "city").tokenizer.timezone == "Europe/Berlin"


@pytest.mark.slow
def test_positions_are_forecast_beside_standing_still(
    run_example: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("forecast_positions.py")
    printed = capsys.readouterr().out
    assert "spread_km" in printed and "standing still, km" in printed and "nan" not in printed.lower()


def test_weeks_are_generated_and_completed(
    run_example: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("generate_weeks.py", "8", str(tmp_path))
    weeks = pd.read_parquet(tmp_path / "weeks.parquet")
    assert len(weeks) == 8 * 168 and (tmp_path / "trips.csv").is_file()
    assert "20 partly known weeks completed" in capsys.readouterr().out


@pytest.mark.slow
def test_users_and_regions_are_embedded(run_example: Callable[..., None], tmp_path: Path) -> None:
    points = simulated_points(simulate_city(8, num_days=7, num_locations=600, seed=0), seed=0)
    points.to_parquet(tmp_path / "points.parquet")
    run_example("embed.py", str(tmp_path / "points.parquet"), "Europe/Berlin", str(tmp_path))
    assert len(pd.read_parquet(tmp_path / "users.parquet")) == 8
    assert len(pd.read_parquet(tmp_path / "regions.parquet")) > 0


@pytest.mark.slow
def test_a_trained_model_is_evaluated_in_another_city(
    run_example: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("train_model.py", "2", str(tmp_path / "model"))
    assert "UserFrequency" in capsys.readouterr().out
    run_example("evaluate_model.py", str(tmp_path / "model"))
    assert "UserFrequency" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("source", ["simulated", "file"])
def test_the_demo_ends_in_a_table_a_map_and_a_folder_that_loads(
    run_example: Callable[..., None],
    tmp_path: Path,
    source: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("matplotlib", reason="the demo draws a map")
    plotting, drawn = import_module("hf_mobility.plotting"), []
    draw = plotting.plot_next_places
    monkeypatch.setattr(plotting, "plot_next_places", lambda *given, **kw: drawn.append(given) or draw(*given, **kw))
    options = ["--users", "30", "--output", str(tmp_path / "demo")]
    if source == "file":
        made = simulate_city(30, num_days=28, seed=2)
        made.visits.to_parquet(tmp_path / "visits.parquet")
        options += ["--visits", str(tmp_path / "visits.parquet"), "--timezone", made.timezone]
    run_example("demo.py", *options)
    ((_, history, city),) = drawn
    if source == "file":  # what is drawn came before the visits to be predicted, the last fifth of each user's
        task = make_task(made.visits, city)
        first = task.visits[task.target].groupby("user_id")["time"].min()
        before = history["user_id"].map(first)
        assert len(history) == (~task.target).sum() and len(first) > 10
        assert (history["time"] < before)[before.notna()].all()
    name = "Simville" if source == "simulated" else "visits"
    told = capsys.readouterr().out
    assert f"{name}: 30 users, " in told and ("This city is simulated" in told) == (source == "simulated")
    assert "the user's commonest place" in told and "first guess right" in told and "acc@" not in told
    table = pd.read_csv(tmp_path / "demo" / "results.csv")
    counts = ["UserFrequency", "UserMarkov", "ContextMix, counts of 5 %", "ContextMix, all of the city"]
    assert table["model"].tolist()[:4] == counts
    assert len(table) == 6 and table[ACCURACY].to_numpy().min() > 0
    assert (tmp_path / "demo" / "map.png").stat().st_size > 10_000
    assert NextLocationPipeline.from_pretrained(tmp_path / "demo").tokenizer.name == name
