"""The example writes every picture, and says which it leaves out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hf_mobility import MobilityEmbeddingPipeline, RawConfig, RawModel, RawTokenizer, simulate_city

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
ALWAYS = ["trajectories", "next_places", "experts", "flows", "visit_heat"]
WEB = ["trajectories", "next_places", "flows", "visit_heat"]


@pytest.fixture(autouse=True)
def _extras() -> None:
    for name in ("matplotlib", "folium", "xstatic.pkg.leaflet"):
        pytest.importorskip(name, reason=f"{name} is not installed")


def draw(run_example: Callable[..., None], output: Path, *options: str) -> None:
    for name in ("samoe-small", "mstar-small"):
        if not (CHECKPOINTS / name / "model.safetensors").is_file():
            pytest.skip(f"there is no checkpoint {name}")
    run_example("draw_pictures.py", "--users", "12", "--output", str(output), *options)


@pytest.mark.slow
def test_every_picture_of_the_shipped_checkpoints_is_written(
    run_example: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    log = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": log}), encoding="utf-8")
    folder = tmp_path / "pictures"
    draw(run_example, folder, "--raw", str(tmp_path / "none"), "--training", str(tmp_path))
    expected = [f"{name}.png" for name in (*ALWAYS, "training")] + [f"{name}.html" for name in WEB]
    assert sorted(path.name for path in folder.iterdir()) == sorted(expected)
    printed = capsys.readouterr().out
    assert all(name in printed for name in expected)
    assert f"there is no RAW checkpoint at {tmp_path / 'none'}" in printed
    for name in (*ALWAYS, "training"):
        pixels = np.asarray(image.open(folder / f"{name}.png").convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20, f"{name} is nearly empty"
    for name in WEB:
        page = (folder / f"{name}.html").read_text(encoding="utf-8")
        assert "L.map(" in page and "leaflet" in page and 'src="http' not in page


def test_regions_and_attention_are_drawn_from_a_raw_checkpoint(
    example: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("draw_pictures")
    points = module.simulated_points(simulate_city(30, num_days=2, num_locations=60, seed=0), seed=0)
    config = RawConfig.from_preset("tiny", slots_per_day=24, max_position_embeddings=48)
    bounds = (points["lat"].min(), points["lon"].min(), points["lat"].max(), points["lon"].max())
    model = RawModel(config)
    model.set_attn_implementation("eager")
    pipe = MobilityEmbeddingPipeline(model, RawTokenizer.from_bounds(bounds, timezone="Europe/Berlin", config=config))
    module.draw_series(module.Album(tmp_path / "new"), pipe, points, None)
    made = ["regions.png", "regions.html", "attention.png"]
    assert capsys.readouterr().out.split() == made
    assert all((tmp_path / "new" / name).stat().st_size > 10_000 for name in made)
