"""The example writes every picture of the shipped checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

PICTURES = ["trajectories", "next_places", "experts", "flows", "visit_heat", "weeks", "regions", "attention"]
WEB = ["trajectories", "next_places", "flows", "regions"]


@pytest.mark.slow
def test_every_picture_of_the_shipped_checkpoints_is_written(
    run_example: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("matplotlib", "folium", "xstatic.pkg.leaflet", "sklearn"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    run_example("draw_pictures.py", str(tmp_path), "", "12")
    expected = [f"{name}.png" for name in PICTURES] + [f"{name}.html" for name in WEB]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)
    printed = capsys.readouterr().out
    for name in PICTURES:
        assert str(tmp_path / name) in printed
        pixels = np.asarray(image.open(tmp_path / f"{name}.png").convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20, f"{name} is nearly empty"
    for name in WEB:
        page = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert "L.map(" in page and "leaflet" in page and 'src="http' not in page


def test_a_generated_week_moves(run_example: Callable[..., None], tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    run_example("draw_week.py", str(tmp_path / "week.gif"), "6", "5")
    with image.open(tmp_path / "week.gif") as drawn:
        pictures = []
        for number in range(drawn.n_frames):
            drawn.seek(number)
            pictures.append(np.asarray(drawn.convert("RGB")))
        assert drawn.info["loop"] == 0
    assert len(pictures) == 5 and not np.array_equal(pictures[0], pictures[4])
    assert (pictures[0][:2, :2] == 255).all()


def test_the_week_of_the_readme_is_small() -> None:
    assert (Path(__file__).resolve().parents[2] / "docs/img/week.gif").stat().st_size < 400_000
