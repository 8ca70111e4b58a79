"""Whether a processor multiplies numbers in bfloat16 by itself; where it does not, they are many times slower than in
float32.
"""

from __future__ import annotations

import platform

import torch
from transformers.utils import is_torch_bf16_gpu_available

X86 = ("x86_64", "amd64")


def fast_bfloat16(device_type: str = "cpu") -> bool:
    """Whether products in bfloat16 are worth while on a device of this type.

    Args:
        device_type: `type` of a torch device.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
        ...     product = torch.ones(2, 2) @ torch.ones(2, 2)
    """
    if device_type != "cpu":
        return bool(is_torch_bf16_gpu_available())
    if platform.machine().lower() in X86:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


__all__ = ["fast_bfloat16"]
