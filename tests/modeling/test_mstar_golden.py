"""The outputs of M-STAR's generator are those of the release that wrote `tests/golden/mstar_tiny_*.safetensors` (see
`make_mstar.py` there).
"""

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
    spec = importlib.util.spec_from_file_location("make_mstar", GOLDEN / "make_mstar.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", ["paper", "passes", "copies"])
def test_outputs_and_gradients_are_the_recorded_ones(maker: ModuleType, case: str) -> None:
    tensors = load_file(GOLDEN / f"mstar_tiny_{case}.safetensors")
    inputs = {name.removeprefix("inputs/"): value for name, value in tensors.items() if name.startswith("inputs/")}
    wanted = {name.removeprefix("outputs/"): value for name, value in tensors.items() if name.startswith("outputs/")}
    found = maker.outputs_of(maker.make_model(case), inputs)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.isfinite(value).all() and value.abs().max() > 0
        torch.testing.assert_close(
            found[name], value, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_golden_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.glob("mstar_tiny_*")) < 120_000
