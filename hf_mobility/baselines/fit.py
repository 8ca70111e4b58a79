"""How the neural baselines are trained: AdamW, clipped gradients, and a rate that warms up and falls.

The rate is a function of the progress, set before each step, so that an epoch may have any number of batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

CLIPPED_NORM = 1.0


@dataclass(frozen=True)
class TrainingOptions:
    """Hyper-parameters of a fit; each baseline's defaults were chosen by validation MRR on the source city Atlanta."""

    learning_rate: float
    weight_decay: float = 0.1
    batch_size: int = 16
    warmup_epochs: float = 1.0


class Fit:
    """AdamW over a network's parameters.

    Args:
        network: is set to training mode by its owner.
        learning_rate: is multiplied by `schedule(progress)` in every step.
        schedule: progress (epochs or steps, as the owner counts) -> share of the rate.
    """

    def __init__(
        self, network: nn.Module, *, learning_rate: float, weight_decay: float, schedule: Callable[[float], float]
    ) -> None:
        self.network, self.learning_rate, self.schedule = network, learning_rate, schedule
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)

    def step(self, loss: torch.Tensor, progress: float) -> None:
        """One update by the gradients of a scalar loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * self.schedule(progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIPPED_NORM)
        self.optimizer.step()


def cosine(epochs: int, *, warmup_epochs: float, last: float) -> Callable[[float], float]:
    """Linear warm-up over `warmup_epochs`, times a cosine from 1 to `last` over `epochs`; progress counts epochs."""

    def share(progress: float) -> float:
        warm = min(1.0, (progress + 0.05) / warmup_epochs)
        return warm * (last + (1 - last) * 0.5 * (1 + math.cos(math.pi * progress / epochs)))

    return share


def linear(steps: int, *, warmup_steps: int) -> Callable[[float], float]:
    """Linear warm-up over `warmup_steps`, then linearly to zero at `steps`; progress counts steps."""

    def share(step: float) -> float:
        return min((step + 1) / warmup_steps, (steps - step) / max(1, steps - warmup_steps))

    return share
