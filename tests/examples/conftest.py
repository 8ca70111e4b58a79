"""How the tests of the examples run them."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from transformers.utils import logging

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Run an example as a script, in this process; bars that it turned off are on again after it."""

    def run(name: str, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.syspath_prepend(str(EXAMPLES))
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    yield run
    logging.enable_progress_bar()
