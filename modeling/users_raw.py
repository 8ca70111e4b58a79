"""Users of RAW: the states of a series as one vector."""

from __future__ import annotations

from typing import Any

import torch

from .configuration_raw import DAY_PARTS
from .layers import widened


def user_size(config: Any) -> int:
    """Columns of a user's vector."""
    return int(config.hidden_size) * (DAY_PARTS if config.user_pooling == "day_parts" else 1)


def pool_users(
    states: torch.Tensor, mask: torch.Tensor | None, position_ids: torch.Tensor, *, pooling: str, slots_per_day: int
) -> torch.Tensor:
    """One vector per series, in the states' dtype and summed in float32.

    Args:
        states: (B, T, D). mask: (B, T), 0 = padding. position_ids: (B, T), slot since the first midnight.
        pooling: the `mean` of the states, the `last` one, the mean over the `last_day`, or `day_parts` = the means over
            the four quarters of the days side by side. A quarter without a slot is zero.

    Returns:
        (B, D), or (B, 4 D) with `day_parts`.
    """
    wide = widened(states)
    known = states.new_ones(states.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
    if pooling == "day_parts":
        quarter = position_ids % slots_per_day * DAY_PARTS // slots_per_day
        parts = [_mean(wide, known & (quarter == part)) for part in range(DAY_PARTS)]
        return torch.cat(parts, dim=-1).to(states.dtype)
    if pooling != "mean":
        slots = 1 if pooling == "last" else slots_per_day
        from_the_end = known.long().flip(1).cumsum(1).flip(1)  # the last point is 1
        known = known & (from_the_end <= slots)
    return _mean(wide, known).to(states.dtype)


def _mean(states: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """(B, T, D), (B, T) -> (B, D); zero where none counts."""
    total = states.masked_fill(~counted.unsqueeze(-1), 0.0).sum(1)
    return total / counted.sum(1, keepdim=True).clamp(min=1)


__all__ = ["pool_users", "user_size"]
