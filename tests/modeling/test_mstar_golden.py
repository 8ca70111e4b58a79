"""The outputs of M-STAR's generator are those of the release that wrote `tests/golden/mstar_tiny_*.safetensors` (see
`make_mstar.py` there).
"""

from __future__ import annotations

from pathlib import Path

import make_mstar
import pytest
from safetensors.torch import load_file
from waves import assert_recorded, parts

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.mark.parametrize("case", ["paper", "passes", "copies"])
def test_outputs_and_gradients_are_the_recorded_ones(case: str) -> None:
    tensors = load_file(GOLDEN / f"mstar_tiny_{case}.safetensors")
    inputs = parts(tensors, "inputs/")
    wanted = parts(tensors, "outputs/")
    found = make_mstar.outputs_of(make_mstar.make_model(case), inputs)
    assert_recorded(found, wanted)


def test_golden_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.glob("mstar_tiny_*")) < 120_000
