"""Where a user may be at a time to come: a mixture over the user's own records and free points, in kilometres.

Every component is round, with Student's t of three degrees of freedom in the plane, so that a far point costs little.
The predicted point is the weighted geometric median of the components: it has the least mean distance, which is what
errors are measured in, where a mean lies between the places (E. Weiszfeld, 1937).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

FREEDOM = 3.0  # degrees of freedom of a component
ITERATIONS = 40
FEW = 10  # iterations, in training


@dataclass
class RawDestinations(ModelOutput):
    """K components: log_weights (..., K), whose exponentials sum to 1; centres (..., K, 2), scales (..., K) in km."""

    log_weights: torch.Tensor | None = None
    centres: torch.Tensor | None = None
    scales: torch.Tensor | None = None


def negative_log_density(found: RawDestinations, target: torch.Tensor) -> torch.Tensor:
    """-ln p(target), (..., 2) -> (...), natural logarithm, density per square km."""
    square = squared_distance(found.centres, target) / found.scales.square()
    log_density = -math.log(2 * math.pi) - 2 * found.scales.log() - (FREEDOM / 2 + 1) * torch.log1p(square / FREEDOM)
    return -torch.logsumexp(found.log_weights + log_density, dim=-1)


def geometric_median(
    points: torch.Tensor, weights: torch.Tensor, scales: torch.Tensor | float, *, iterations: int = ITERATIONS
) -> torch.Tensor:
    """The point with the least weighted sum of sqrt(distance^2 + scale^2), (..., K, 2), (..., K) -> (..., 2).

    The sum has one minimum. The last step records gradients of the weights and the points.
    """
    least = torch.as_tensor(scales, dtype=points.dtype, device=points.device).square()
    with torch.no_grad():
        found = (weights.unsqueeze(-1) * points).sum(-2) / weights.sum(-1, keepdim=True)
        for _ in range(iterations):
            found = _step(found, points, weights, least)
    return _step(found, points, weights, least)


def _step(found: torch.Tensor, points: torch.Tensor, weights: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    pull = (weights * (squared_distance(points, found) + least).rsqrt()).unsqueeze(-2)  # (..., 1, K)
    return (pull @ points).squeeze(-2) / pull.sum(-1)


def squared_distance(points: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(..., K, 2), (..., 2) -> (..., K); a sum over an axis of two is slow."""
    east, north = points[..., 0] - other[..., :1], points[..., 1] - other[..., 1:]
    return east * east + north * north


def middle(found: RawDestinations, *, iterations: int = ITERATIONS) -> torch.Tensor:
    """The predicted points (..., 2)."""
    return geometric_median(found.centres, found.log_weights.exp(), found.scales, iterations=iterations)


def draw(found: RawDestinations, uniform: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
    """Points (S, ..., 2) of the mixture from given random numbers: `uniform` (S, ..., 2) of 0..1, `normal` (S, ..., 2)
    of a standard normal distribution.
    """
    total = found.log_weights.exp().cumsum(-1)
    chosen = torch.searchsorted(total, (uniform[..., 0].movedim(0, -1) * total[..., -1:]).contiguous())
    chosen = chosen.clamp(max=total.shape[-1] - 1)  # (..., S)
    pair = chosen.unsqueeze(-1).expand(*chosen.shape, 2)
    centre, scale = found.centres.gather(-2, pair).movedim(-2, 0), found.scales.gather(-1, chosen).movedim(-1, 0)
    # A radius of Student's t in the plane by its inverse distribution: P(r > x) = (1 + x^2 / v s^2)^(-v / 2).
    left = (1 - uniform[..., 1]).clamp(min=1e-6)
    radius = scale * (FREEDOM * (left.pow(-2 / FREEDOM) - 1)).sqrt()
    return centre + radius.unsqueeze(-1) * torch.nn.functional.normalize(normal, dim=-1)


__all__ = ["FEW", "ITERATIONS", "RawDestinations", "draw", "geometric_median", "middle", "negative_log_density"]
