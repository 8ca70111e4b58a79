"""How the tests of the benchmarks import and run them."""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest


@pytest.fixture
def run_benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run `python -m benchmarks.NAME`, in this process."""

    def run(name: str, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)

    return run


@pytest.fixture
def fill_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, dict[str, Any]], list[str]], str]:
    """Tables (name -> columns) as benchmarks/fill_results.py writes them into the named blocks of a page."""

    def run(tables: dict[str, dict[str, Any]], blocks: list[str]) -> str:
        fill = importlib.import_module("benchmarks.fill_results")
        monkeypatch.setattr("benchmarks.pages.common.RESULTS", tmp_path)
        for name, columns in tables.items():
            pd.DataFrame(columns).to_csv(tmp_path / f"{name}.csv", index=False)
        text = fill.fill("\n".join(f"<!-- begin {name} -->\n<!-- end -->" for name in blocks))
        assert fill.fill(text) == text
        return text

    return run
