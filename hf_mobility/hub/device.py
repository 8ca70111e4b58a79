"""Whether a model can run where it is asked to."""

from __future__ import annotations

from typing import Any

import torch


def check_device(device: Any) -> None:
    """Raises a ValueError for a device that is not there, before anything is loaded; None is any."""
    if device is None:
        return
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device {device!r} is none that torch knows; give 'cpu' or 'cuda'.") from error
    if wanted.type == "cpu":
        return
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if there is None or there.type != wanted.type or (wanted.index or 0) >= torch.accelerator.device_count():
        raise ValueError(f"device {device!r} is not available here; leave it out, or give 'cpu'.")
