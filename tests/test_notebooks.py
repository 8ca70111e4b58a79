"""The notebooks hold the outputs of a whole run, run at tiny size and write only where they were told.

A kernel that starts and imports torch takes most of the time, so one notebook runs in a real kernel (and must draw
pictures there) and the others as scripts in this process.
"""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
IN_A_KERNEL = "epidemics"
EXPECTED = {
    "epidemics": set(),
    "ml_engineer": {"my-city", "my-city-merged"},
    "planner": {"od.csv", "od_by_hour.csv", "plans.xml.gz"},
    "researcher": {"checkins.csv", "results.csv", "results.md"},
}

nbformat = pytest.importorskip("nbformat", reason="reads the notebooks")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny sizes, the folder that is written to, and no way to push."""
    pytest.importorskip("matplotlib", reason="the notebooks draw with matplotlib")
    if not (ROOT / "checkpoints" / "mstar-cells-small" / "model.safetensors").is_file():
        pytest.skip("the shipped checkpoints are not here")
    for name in ("HF_TOKEN", "HF_MOBILITY_PUSH_TO", "HF_MOBILITY_BASE_ON_HUB", "MPLBACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_MOBILITY_SMALL", "1")
    monkeypatch.setenv("HF_MOBILITY_CHECKPOINTS", str(ROOT / "checkpoints"))
    monkeypatch.setenv("HF_MOBILITY_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_is_one_notebook_for_each_kind_of_user() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(EXPECTED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_small_and_stored_as_it_ran(path: Path) -> None:
    """`python tools/run_notebooks.py` stores the outputs of every cell in order, without faults and paths."""
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < 500_000
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    stem = path.stem.replace("_", "-")
    assert [cell.id for cell in notebook.cells] == [f"{stem}-{i:02d}" for i in range(1, len(notebook.cells) + 1)]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in notebook.cells:
        assert cell.metadata == {}
        assert len(cell.source.splitlines()) <= 26
    outputs = [output for cell in code for output in cell.outputs]
    assert len(outputs) >= 5
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert not re.search(r"/(home|root|tmp|Users)/", str(outputs))


@pytest.mark.parametrize("name", ["epidemics", "planner"])
def test_pictures_are_stored_with_the_notebooks_that_draw(name: str) -> None:
    cells = [cell for cell in read(ROOT / "notebooks" / f"{name}.ipynb").cells if cell.cell_type == "code"]
    drawn = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(drawn) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {IN_A_KERNEL}))
def test_a_notebook_runs_from_top_to_bottom(name: str, settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    plt.switch_backend("agg")
    cells = [cell.source for cell in read(ROOT / "notebooks" / f"{name}.ipynb").cells if cell.cell_type == "code"]
    script = settings / f"{name}.py"
    script.write_text("\n\n".join(cells), encoding="utf-8")
    try:
        runpy.run_path(str(script))
    finally:
        plt.close("all")
    check_written(name, settings, {script.name})


@pytest.mark.slow
def test_a_notebook_runs_in_a_kernel_and_shows_its_pictures(settings: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="runs a notebook in a kernel")
    pytest.importorskip("ipykernel", reason="the kernel")
    notebook = read(ROOT / "notebooks" / f"{IN_A_KERNEL}.ipynb")
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(settings)}}
    )
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    pictures = [cell for cell in code if any("image/png" in output.get("data", {}) for output in cell.outputs)]
    assert len(pictures) == 2
    check_written(IN_A_KERNEL, settings, set())


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def check_written(name: str, folder: Path, besides: set[str]) -> None:
    """Everything that was written lies in the folder that was named."""
    assert {path.name for path in folder.iterdir()} == {"output", *besides}
    assert {path.name for path in (folder / "output").iterdir()} == EXPECTED[name]
