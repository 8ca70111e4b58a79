"""The examples run from end to end on small simulated cities, and their helpers do what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from hf_mobility import NextLocationPipeline, make_task, simulate_city

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ACCURACY = ["acc@1", "acc@5", "acc@10", "mrr"]


@pytest.fixture(scope="module")
def world(toy: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A checkpoint with a city, and the task of twenty people."""
    visits, city = toy.city(20, num_days=14)
    model = toy.model(spread=None)
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    return SimpleNamespace(visits=visits, city=city, checkpoint=str(folder), task=make_task(visits, city))


def test_a_city_is_adapted_to_from_a_file(
    run_example: Callable[..., None], world: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.visits.to_parquet(tmp_path / "visits.parquet")
    options = ["--timezone", "Europe/Berlin", "--strength", "none", "--output", str(tmp_path / "city")]
    run_example("adapt_city.py", world.checkpoint, str(tmp_path / "visits.parquet"), *options)
    assert "strength 'none' was asked for" in capsys.readouterr().out
    assert (tmp_path / "city" / "city.json").is_file()
    with pytest.raises(SystemExit):
        run_example("adapt_city.py", world.checkpoint, "--output", str(tmp_path / "neither"))
    assert "give either a file of visits or --simulate" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("source", ["simulated", "file"])
def test_the_demo_ends_in_a_table_a_map_and_a_folder_that_loads(
    run_example: Callable[..., None], tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the demo draws a map")
    options = ["--users", "30", "--output", str(tmp_path / "demo")]
    if source == "file":
        made = simulate_city(30, num_days=28, seed=2)
        made.visits.to_parquet(tmp_path / "visits.parquet")
        options += ["--visits", str(tmp_path / "visits.parquet"), "--timezone", made.timezone]
    run_example("demo.py", *options)
    name = "Simville" if source == "simulated" else "visits"
    assert f"{name}: " in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "demo" / "results.csv")
    assert table["model"].tolist()[:3] == ["UserFrequency", "UserMarkov", "ContextMix"]
    assert len(table) == 5 and table[ACCURACY].to_numpy().min() > 0
    assert (tmp_path / "demo" / "map.png").stat().st_size > 10_000
    assert NextLocationPipeline.from_pretrained(tmp_path / "demo").tokenizer.name == name
