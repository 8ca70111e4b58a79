"""Mixture of Gaussians in the plane: RAW's optional output (`mixture_components`). Not in the paper.

Mean squared error on people who mostly stand still averages over the places they might go to; a mixture keeps them
apart. Everything is float32 at least: a scale of a few metres is a small number in units of a city's box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers.utils import ModelOutput

PARAMETERS = 6  # of one component: logit, mean (2), scale (2), correlation
MAX_CORRELATION = 0.99


@dataclass
class RawMixture(ModelOutput):
    """Parameters of k components: log_weights (..., k), means (..., k, 2), scales (..., k, 2) (standard deviations),
    correlations (..., k); positions in box units.
    """

    log_weights: torch.Tensor | None = None
    means: torch.Tensor | None = None
    scales: torch.Tensor | None = None
    correlations: torch.Tensor | None = None


def read_mixture(raw: torch.Tensor, origin: torch.Tensor | None, *, min_scale: float) -> RawMixture:
    """Output of a head (..., 6 k) -> mixture. `origin` (..., 2) is added to the means where they are displacements."""
    columns = raw.unflatten(-1, (-1, PARAMETERS))
    means = columns[..., 1:3]
    return RawMixture(
        log_weights=columns[..., 0].log_softmax(-1),
        means=means if origin is None else means + origin.unsqueeze(-2),
        scales=F.softplus(columns[..., 3:5]) + min_scale,
        correlations=MAX_CORRELATION * columns[..., 5].tanh(),
    )


def negative_log_likelihood(mixture: RawMixture, target: torch.Tensor) -> torch.Tensor:
    """-ln p(target) of every point, (..., 2) -> (...), natural logarithm, density per squared box unit."""
    x, y = ((target.unsqueeze(-2) - mixture.means) / mixture.scales).unbind(-1)
    rest = 1 - mixture.correlations**2
    square = (x**2 - 2 * mixture.correlations * x * y + y**2) / rest
    log_norm = math.log(2 * math.pi) + mixture.scales.log().sum(-1) + 0.5 * rest.log()
    return -torch.logsumexp(mixture.log_weights - log_norm - 0.5 * square, dim=-1)


def predicted_point(mixture: RawMixture, how: str) -> torch.Tensor:
    """(..., 2): the mixture's `mean`, or the mean of its most likely component (`mode`)."""
    if how == "mean":
        return (mixture.log_weights.exp().unsqueeze(-1) * mixture.means).sum(-2)
    best = mixture.log_weights.argmax(-1)[..., None, None]
    return mixture.means.gather(-2, best.expand(*best.shape[:-1], 2)).squeeze(-2)
