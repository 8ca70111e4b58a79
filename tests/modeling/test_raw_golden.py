"""RAW's outputs are those of the release that wrote `tests/golden/raw_tiny.safetensors` (see `make_raw.py` there)."""

from __future__ import annotations

from pathlib import Path

import make_raw
import pytest
from safetensors.torch import load_file
from waves import assert_recorded, parts

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.mark.parametrize("form", ["paper", "figure", "extended"])
def test_outputs_and_gradients_are_the_recorded_ones(form: str) -> None:
    tensors = load_file(GOLDEN / "raw_tiny.safetensors")
    inputs = parts(tensors, "inputs/")
    wanted = parts(tensors, f"{form}/")
    found = make_raw.outputs_of(form, inputs)
    assert_recorded(found, wanted)


def test_the_golden_file_stays_small() -> None:
    assert (GOLDEN / "raw_tiny.safetensors").stat().st_size < 120_000
