"""Tries the demo page as a Space runs it: a new environment with its own requirements, without constraints.

    python tools/check_space.py             needs a package index, and gigabytes for torch
    python tools/check_space.py --keep DIR  leaves the environment and the Space's folder there

The environment has gradio of the version that README.md names, and what requirements.txt lists. The Space's folder
holds what its README says. The page must answer, and hold a prediction and a generated week.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path

from check_newest import TORCH
from check_types import ROOT

SPACE = ROOT / "examples" / "demo_space"
BESIDE = ("hf_mobility", "modeling", "tokenization", "checkpoints")
EXPECTED = ("placesMap", "weeksMap", "Next place of user")  # the maps' script, and the title of the first prediction


def lay_out(folder: Path) -> None:
    """The files of a Space, as the README of the demo says."""
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SPACE, folder, ignore=unwanted)
    for name in BESIDE:
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)


def install(folder: Path) -> Path:
    """A new environment with gradio and the requirements; its Python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    card = (SPACE / "README.md").read_text(encoding="utf-8")
    gradio = re.search(r"sdk_version: (\S+)", card)
    assert gradio is not None
    # The version in constraints.txt of torch alone: others are gigabytes.
    for wanted in ([TORCH], [f"gradio=={gradio[1]}", "-r", str(SPACE / "requirements.txt")]):
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
    return python


def first_page(python: Path, space: Path, *, seconds: float = 300) -> str:
    """What the page answers first, run from the Space's folder without HOME, PYTHONPATH or checkout."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "GRADIO", "PYTHON"))}
    own = {"HOME": str(space), "GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen([str(python), "app.py"], cwd=space, env=outer | own)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=30) as answer:
                    return str(answer.read().decode("utf-8"))
            except OSError:
                time.sleep(0.5)
        raise SystemExit(f"check_space: the page did not answer within {seconds:g} s")
    finally:
        process.terminate()
        process.wait(30)


def check(folder: Path) -> None:
    lay_out(folder / "space")
    python = install(folder / "environment")
    page = first_page(python, folder / "space")
    absent = [text for text in EXPECTED if text not in page]
    if absent:
        raise SystemExit(f"check_space: the page lacks {', '.join(absent)}")
    code = "import sys; from importlib.metadata import version; print({n: version(n) for n in sys.argv[1:]})"
    names = ("gradio", "torch", "transformers", "pandas", "numpy", "xstatic-leaflet")
    subprocess.run([str(python), "-c", code, *names], check=True)
    print("check_space: the page runs with its own requirements")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="a folder that does not exist yet")
    keep = parser.parse_args().keep
    if keep is not None:
        keep.mkdir(parents=True)
        return check(keep.resolve())
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder))


if __name__ == "__main__":
    main()
