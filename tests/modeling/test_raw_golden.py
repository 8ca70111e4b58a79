"""RAW's outputs are those of the release that wrote `tests/golden/raw_tiny.safetensors` (see `make_raw.py` there)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_raw", GOLDEN / "make_raw.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("form", ["paper", "figure", "extended"])
def test_outputs_and_gradients_are_the_recorded_ones(maker: ModuleType, form: str) -> None:
    tensors = load_file(GOLDEN / "raw_tiny.safetensors")
    inputs = {name.removeprefix("inputs/"): value for name, value in tensors.items() if name.startswith("inputs/")}
    prefix = f"{form}/"
    wanted = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    found = maker.outputs_of(form, inputs)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.isfinite(value).all() and value.abs().max() > 0
        torch.testing.assert_close(
            found[name], value, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_the_golden_file_stays_small() -> None:
    assert (GOLDEN / "raw_tiny.safetensors").stat().st_size < 120_000
