"""The M-STAR codec's outputs are those of the release that wrote `tests/golden/mstar_codec_tiny_*.safetensors` (see
`make_mstar_codec.py` there).
"""

from __future__ import annotations

from pathlib import Path

import make_mstar_codec
import pytest
import torch
from safetensors.torch import load_file
from waves import assert_recorded, parts

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.mark.parametrize("variant", ["corrected", "released"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_outputs_and_gradients_are_the_recorded_ones(variant: str, attention: str) -> None:
    tensors = load_file(GOLDEN / f"mstar_codec_tiny_{variant}.safetensors")
    inputs = parts(tensors, "inputs/")
    wanted = parts(tensors, "outputs/")
    model = make_mstar_codec.make_model(variant)
    model.set_attn_implementation(attention)
    found = make_mstar_codec.outputs_of(model, inputs)
    assert torch.equal(found["code_ids"], wanted["code_ids"]) and len(wanted["code_ids"].unique()) > 4
    assert_recorded(found, wanted)


def test_golden_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.glob("mstar_codec_*")) < 120_000
