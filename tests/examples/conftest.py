"""How the tests of the examples import and run them."""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import an example by name, as its neighbours do."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run an example as a script, in this process."""

    def run(name: str, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.syspath_prepend(str(EXAMPLES))
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return run


@pytest.fixture
def fill_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, dict[str, Any]], list[str]], str]:
    """Tables (name -> columns) as tools/fill_results.py writes them into the named blocks of a page."""

    def run(tables: dict[str, dict[str, Any]], blocks: list[str]) -> str:
        monkeypatch.syspath_prepend(str(EXAMPLES.parent / "tools"))
        fill = importlib.import_module("fill_results")
        monkeypatch.setattr(fill, "RESULTS", tmp_path)
        for name, columns in tables.items():
            pd.DataFrame(columns).to_csv(tmp_path / f"{name}.csv", index=False)
        text = fill.fill("\n".join(f"<!-- begin {name} -->\n<!-- end -->" for name in blocks))
        assert fill.fill(text) == text
        return text

    return run
