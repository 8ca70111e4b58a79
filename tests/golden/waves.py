"""Numbers for golden outputs that need no random generator, and the comparison with what was recorded."""

from __future__ import annotations

import math
from zlib import crc32

import torch
from torch import nn


def wave(name: str, *shape: int) -> torch.Tensor:
    """Numbers in -1..1 that look random, a function of the name and the shape only."""
    phase = crc32(name.encode()) % 1000
    steps = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(phase + steps * 12.9898 + (steps * 0.618) ** 2 % 7).reshape(shape).float()


def fill(model: nn.Module, scale: float = 0.25) -> nn.Module:
    """Give every trained weight a value that depends on its name only, and switch to evaluation mode."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "pos_embedding" not in name:  # the codec's fixed sines
                parameter.copy_(scale * wave(name, *parameter.shape) + float(name in norms_of(model)))
    return model.eval()


def norms_of(model: nn.Module) -> set[str]:
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}


def parts(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Tensors whose names begin with `prefix`, under the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def assert_recorded(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """The same names, and values within 1e-4; recorded ones are finite and not all zero."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.isfinite(value).all() and value.abs().max() > 0
        torch.testing.assert_close(
            found[name], value, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
