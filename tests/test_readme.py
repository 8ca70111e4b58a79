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


def test_the_readme_prints_what_it_shows_and_no_warning() -> None:
    """Words and numbers of the block below the code; the last digit may differ on another machine."""
    result = ran(README)
    assert result.returncode == 0, result.stderr[-4000:]
    assert "warning" not in result.stderr.lower()
    shown = re.findall(r"^```text\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(shown) == 1 and "..." not in shown[0]
    printed, wanted = result.stdout.split(), shown[0].split()
    assert [as_number(word) for word in printed] == pytest.approx([as_number(word) for word in wanted], abs=0.011)
    assert [word for word in printed if not as_number(word)] == [word for word in wanted if not as_number(word)]
    assert len(shown[0].splitlines()) == 1 + 3 * 3  # three places of three users


def as_number(word: str) -> float:
    return float(word) if re.fullmatch(r"\d+(\.\d+)?", word) else 0.0


def test_badges_say_what_setup_cfg_says() -> None:
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    versions = re.findall(r"Python :: (3\.\d+)", setup)
    badges = re.findall(r"^!\[(.*?)\]\(https://img\.shields\.io/badge/(.*?)\)$", README.read_text(), flags=re.MULTILINE)
    assert [text for text, _ in badges] == [f"Python {', '.join(versions)}", "Code: Apache-2.0"]
    assert [made for _, made in badges] == [f"python-{'%20%7C%20'.join(versions)}-blue", "code-Apache--2.0-blue"]
    assert "license_expression = Apache-2.0" in setup
