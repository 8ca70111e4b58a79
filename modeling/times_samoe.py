"""Local times and stay classes of SAMoE.

Times are int64 seconds of local civil time, counted as if it were UTC; a model knows no time zone.
"""

from __future__ import annotations

import math

import torch

from .configuration_samoe import SamoeConfig

DAY_SECONDS = 86_400
HALF_HOUR = 1_800
NUM_SLOTS = 48  # half hours of a day


def hour_angle(timestamps: torch.Tensor) -> torch.Tensor:
    """Angle of the local time of day on the 24-hour circle, in radians (float32)."""
    return (timestamps % DAY_SECONDS).float() * (2 * math.pi / DAY_SECONDS)


def weekday_of(timestamps: torch.Tensor) -> torch.Tensor:
    """0 = Monday .. 6 = Sunday of local civil seconds (1970-01-01 was a Thursday)."""
    return (timestamps.div(DAY_SECONDS, rounding_mode="floor") + 3) % 7


def stay_class(seconds: torch.Tensor, config: SamoeConfig) -> torch.Tensor:
    """Class of the time between two visits; the last class is open. Logarithmic classes begin at 1, and 0 is "unknown";
    in half hours, 0 is also a time of less than 15 minutes.
    """
    minutes = seconds.clamp(min=0).double() / 60
    if config.stay_encoding == "half_hours":
        classes = (minutes / 30).round().long()
    else:
        classes = (1.6 * torch.log2(1 + minutes / 10)).floor().long() + 1
    return classes.clamp(max=config.num_stay_bins - 1)


def stay_seconds(classes: torch.Tensor, config: SamoeConfig) -> torch.Tensor:
    """Representative time of a class in seconds (int64): the middle of a logarithmic bin, the multiple of a half hour;
    0 for class 0.
    """
    if config.stay_encoding == "half_hours":
        return classes * HALF_HOUR
    middle = 10 * (torch.exp2((classes.double() - 0.5) / 1.6) - 1) * 60
    return torch.where(classes > 0, middle.round().long(), 0)


def stay_quantile(shares: torch.Tensor, level: float, config: SamoeConfig) -> torch.Tensor:
    """Quantile of the time between two visits: (..., classes) shares that sum to 1 -> (...) float32 seconds. Within a
    class the time is even on the scale that the classes divide; the open last one is as wide as the others there."""
    reached = shares.double().cumsum(-1)
    reached = reached / reached[..., -1:]
    index = (reached < level).sum(-1, keepdim=True).clamp(max=shares.shape[-1] - 1)
    upper = reached.gather(-1, index)
    lower = torch.where(index > 0, reached.gather(-1, (index - 1).clamp(min=0)), 0.0)
    position = (index + (level - lower) / (upper - lower).clamp(min=1e-12)).squeeze(-1)
    if config.stay_encoding == "half_hours":  # a class is a rounded number of half hours
        return ((position - 0.5).clamp(min=0) * HALF_HOUR).float()
    return ((torch.exp2((position - 1).clamp(min=0) / 1.6) - 1) * 600).float()


def next_arrivals(given: torch.Tensor | None, timestamps: torch.Tensor, *, given_by_labels: bool) -> torch.Tensor:
    """When each visit's successor begins, (B, T): as given, or in training read off the visits themselves.

    Raises:
        ValueError: if neither is possible.
    """
    if given is not None:
        return given
    if not given_by_labels:
        raise ValueError(
            "arrival_times are needed: this model was trained with the arrival time of the next visit given."
        )
    return torch.cat([timestamps[:, 1:], timestamps[:, -1:]], dim=1)  # the last position has no label
