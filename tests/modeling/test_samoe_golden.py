"""SAMoE's outputs are those of the release that wrote `tests/golden/samoe_tiny_*.safetensors` (see `make_samoe.py`
there).
"""

from __future__ import annotations

from pathlib import Path

import make_samoe
import pytest
from safetensors.torch import load_file
from waves import assert_recorded, parts

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.mark.parametrize("variant", ["extended", "released", "paper"])
def test_outputs_and_gradients_are_the_recorded_ones(variant: str) -> None:
    tensors = load_file(GOLDEN / f"samoe_tiny_{variant}.safetensors")
    inputs = parts(tensors, "inputs/")
    wanted = parts(tensors, "outputs/")
    found = make_samoe.outputs_of(make_samoe.make_model(variant), inputs)
    assert_recorded(found, wanted)


def test_golden_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.glob("samoe_*")) < 200_000
