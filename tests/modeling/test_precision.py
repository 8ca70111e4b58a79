"""Where bfloat16 is the default: on processors that multiply in it."""

from __future__ import annotations

import platform

import pytest
import torch

from hf_mobility.modeling.precision import fast_bfloat16


@pytest.mark.parametrize("native", ["_is_avx512_bf16_supported", "_is_amx_tile_supported", None])
def test_an_x86_processor_is_asked_for_instructions_of_its_own(
    native: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda found=(name == native): found)
    assert fast_bfloat16() is (native is not None)


def test_an_accelerator_is_asked_by_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_mobility.modeling.precision.is_torch_bf16_gpu_available", lambda: True)
    assert fast_bfloat16("cuda")
