"""Run the notebooks and store what they show: `python tools/run_notebooks.py [NAME ...]`, all of them by default.

Outputs are stored as they are shown, without bars and warnings on stderr, times and the state of widgets. The tests run
the same notebooks at tiny size and do not change them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
LARGEST = 500_000  # bytes


def run(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": FOLDER}})
    client.execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    text = nbformat.writes(notebook).replace(str(FOLDER.parent), "..") + "\n"  # no path of this machine
    if len(text) > LARGEST:
        raise SystemExit(f"{path.name} has {len(text):,} bytes: draw smaller pictures.")
    path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {len(text):,} bytes")


def main(names: list[str]) -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or path.stem in names:
            run(path)


if __name__ == "__main__":
    main(sys.argv[1:])
