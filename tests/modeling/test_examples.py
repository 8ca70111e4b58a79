"""The examples in the docstrings of `modeling` run, and every public class has one."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module

import pytest

from hf_mobility import modeling

FILES = sorted({*modeling._NAMES.values(), "layers"})


@pytest.mark.parametrize("name", FILES)
def test_examples_run(name: str) -> None:
    result = doctest.testmod(import_module(f"hf_mobility.modeling.{name}"))
    assert result.attempted and not result.failed


@pytest.mark.parametrize("name", modeling.__all__)
def test_every_public_class_has_an_example(name: str) -> None:
    assert "Example:" in inspect.getdoc(getattr(modeling, name))
