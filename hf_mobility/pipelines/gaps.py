"""The time from one visit on record to the next: the model's classes, corrected by a person's own gaps.

Some people tell every hour where they are and others every month, which a model learns as one mixture. What a person's
own gaps say of their classes is put in as a change of the prior: p(class | visit) times the ratio of how often the
person's gaps were of the class to how often the model expected it of them (Saerens, Latinne and Decaestecker 2002,
doi:10.1162/089976602753284446). Few gaps change little: `PRIOR_GAPS` gaps of the model's own are counted beside them.
"""

from __future__ import annotations

from typing import Any

import torch

from ..modeling.times_samoe import stay_class, stay_quantile, stay_seconds

PRIOR_GAPS = 10.0  # chosen on cities of the training: benchmarks/next_location/evaluate_gaps.py --sources
QUANTILES = {"expected_gap": 0.5, "gap_low": 0.1, "gap_high": 0.9}


def expected_gaps(
    stay_logits: torch.Tensor, timestamps: torch.Tensor, known: torch.Tensor, config: Any
) -> dict[str, torch.Tensor]:
    """Of the time between each person's last visit and the next.

    Args:
        stay_logits: (B, T, classes) float, of each visit for the time to the next.
        timestamps: (B, T) int64 seconds.
        known: (B, T) bool, which positions hold visits; left-padded.
        config: of the model.

    Returns:
        (B,) float32 seconds by name: `expected_gap` (median), `gap_low`, `gap_high` (10 % and 90 % quantiles) and
        `expected_stay`, the mean of the model's classes without a correction.
    """
    shares = gap_shares(stay_logits)
    return gaps_of(shares[:, -1], *past_gaps(shares[:, :-1], timestamps, known, config), config)


def gap_shares(stay_logits: torch.Tensor) -> torch.Tensor:
    """(..., classes) logits -> float32 shares of the classes; "unknown" is no answer."""
    stay_logits = stay_logits.float().clone()
    stay_logits[..., 0] = float("-inf")
    return stay_logits.softmax(-1)


def past_gaps(
    shares: torch.Tensor, timestamps: torch.Tensor, known: torch.Tensor, config: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model expected of the gaps between (B, T) visits, and how many there were, by class: (B, classes) each.

    shares: (B, T - 1, classes), after all visits but the last. known: (B, T) bool.
    """
    past = (known[:, 1:] & known[:, :-1]).float()
    own = torch.nn.functional.one_hot(stay_class(timestamps.diff(dim=1), config), config.num_stay_bins)
    return _sums(shares, past), _sums(own, past)


def gaps_of(last: torch.Tensor, expected: torch.Tensor, own: torch.Tensor, config: Any) -> dict[str, torch.Tensor]:
    """What `expected_gaps` returns, from the shares after the last visit (B, classes) and the sums of `past_gaps`."""
    corrected = _corrected(last, expected, own)
    seconds = stay_seconds(torch.arange(config.num_stay_bins), config).float()
    gaps = {name: stay_quantile(corrected, share, config) for name, share in QUANTILES.items()}
    return {**gaps, "expected_stay": last @ seconds}


def _sums(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """(B, T - 1, classes) -> (B, classes) over the counted positions."""
    return (values * counted[..., None]).sum(1)


def _corrected(last: torch.Tensor, expected: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """(B, classes) shares that sum to 1; `own` counts a person's gaps, and `expected` is what the model gave them."""
    number = own.sum(-1, keepdim=True)
    usual = expected / number.clamp(min=1) + 1e-4  # a class that was never expected is not impossible
    ratio = (own + PRIOR_GAPS * usual) / ((number + PRIOR_GAPS) * usual)
    shares = torch.where(number > 0, last * ratio, last)
    return shares / shares.sum(-1, keepdim=True)
