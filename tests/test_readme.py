"""Every Python block of README.md and docs/ runs as it stands.

The blocks of one file share one namespace, in order, in one process in an empty folder, without network. `checkpoints`
and `examples` are linked into that folder, because the text names them relative to a checkout. A block is left out only
where the text says so: ```python title="skip", or `<!-- skip -->` above the fence. The README must also run without a
warning.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?P<indent>[ \t]*)```python\b(?P<title>[^\n]*)\n(?P<code>.*?)^(?P=indent)```[ \t]*$",
    flags=re.MULTILINE | re.DOTALL,
)


def python_blocks(text: str) -> list[str]:
    """The code of the blocks to be run, each preceded by as many empty lines as there are lines above it."""
    blocks = []
    for found in BLOCK.finditer(text):
        above = text[: found.start()].rstrip()
        skipped = 'title="skip"' in found["title"] or above.endswith("<!-- skip -->")
        if not skipped:
            indent = found["indent"]
            lines = [line.removeprefix(indent) for line in found["code"].splitlines()]
            blocks.append("\n" * text.count("\n", 0, found.start("code")) + "\n".join(lines) + "\n")
    return blocks


def test_blocks_marked_skip_are_left_out_and_lines_keep_their_numbers() -> None:
    skipped = '<!-- skip -->\n```python\nno\n```\n\n```python title="skip"\nno\n```\n'
    text = "a\n```python\nx = 1\n```\n" + skipped + "  ```python\n  y\n  ```\n"
    first, second = python_blocks(text)
    assert first == "\n\nx = 1\n"
    assert second.strip() == "y"
    assert second.index("y") == 13


def run(blocks: list[str], name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The blocks one after the other in a new process; tracebacks name the page and its lines."""
    for linked in ("checkpoints", "examples"):
        (folder / linked).symlink_to(ROOT / linked, target_is_directory=True)
    runner = "import sys\nspace = {'__name__': '__main__'}\n"
    for number, code in enumerate(blocks):
        (folder / f".block{number}").write_text(code, encoding="utf-8")
        runner += f"exec(compile(open('.block{number}', encoding='utf-8').read(), {name!r}, 'exec'), space)\n"
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    command = [sys.executable, "-c", runner]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@cache
def ran(page: Path) -> subprocess.CompletedProcess[str]:
    """All blocks of a page, once."""
    with tempfile.TemporaryDirectory() as folder:
        return run(python_blocks(page.read_text(encoding="utf-8")), page.name, Path(folder))


def pages_with_python() -> list[Path]:
    return [page for page in PAGES if python_blocks(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", pages_with_python(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_python_blocks_of_a_page_run(page: Path) -> None:
    result = ran(page)
    assert result.returncode == 0, f"{page.name}:\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"


def test_the_readme_prints_a_prediction_and_no_warning() -> None:
    result = ran(README)
    assert result.stdout.split()[:3] == ["user_id", "rank", "location_id"]
    assert "warning" not in result.stderr.lower()
    assert result.returncode == 0, result.stderr[-4000:]
