"""Every Python block of README.md and docs/*.md runs as it stands.

Unusual: the blocks of one file share one namespace, in order, in one process of their own in an empty folder, without
network. `checkpoints` and `examples` are linked into that folder, because the text names them relative to a checkout. A
block is left out only where the text says so: ```python title="skip", or `<!-- skip -->` above the fence.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
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


@pytest.mark.skipif(not README.is_file(), reason="README.md is not written yet")
def test_the_readme_has_python_to_run() -> None:
    assert python_blocks(README.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    if not page.is_file():
        pytest.skip(f"{page.name} is not written yet")
    blocks = python_blocks(page.read_text(encoding="utf-8"))
    if not blocks:
        pytest.skip(f"{page.name} has no Python block to run")
    for name in ("checkpoints", "examples"):
        (tmp_path / name).symlink_to(ROOT / name, target_is_directory=True)
    runner = "import sys\nspace = {'__name__': '__main__'}\n"
    for number, code in enumerate(blocks):
        (tmp_path / f".block{number}").write_text(code, encoding="utf-8")
        # The page's own name stands in the traceback, with the line number of the page.
        runner += f"exec(compile(open('.block{number}', encoding='utf-8').read(), {page.name!r}, 'exec'), space)\n"
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    result = subprocess.run(
        [sys.executable, "-c", runner], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{page.name}:\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
