"""A network over pairs of regions: attention among the regions of an area, then a score for each pair.

Shares of the destinations in the outflow of an origin are a softmax over all regions of the area. Outflows are
predicted from the regions, or given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OUTFLOW_FEATURES = 3  # known or not, logarithm of the rate per resident, logarithm of the share in the area
FIRST_RATE = -1.5  # logarithm of commuters per resident before training
FIRST_SHARE = -3.0  # usual logarithm of a region's share in the outflows of its area
LARGEST_LOG = 14.0  # of an outflow
NONE = -1e9  # score of what is padded


@dataclass(frozen=True)
class FlowNetworkConfig:
    """Sizes of a `FlowNetwork`.

    Args:
        region_features, pair_features: numbers of input columns.
        hidden_size: of the regions' vectors.
        pair_size: of the pairs' vectors.
        num_layers, num_heads: of the attention among regions.
        dropout: in the regions' vectors.

    Raises:
        ValueError: a size is not positive, or the heads do not divide the vectors.
    """

    region_features: int
    pair_features: int
    hidden_size: int = 64
    pair_size: int = 64
    num_layers: int = 2
    num_heads: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = (self.region_features, self.pair_features, self.hidden_size, self.pair_size, self.num_heads)
        if min(sizes) < 1 or self.num_layers < 0 or self.hidden_size % self.num_heads or not 0 <= self.dropout < 1:
            raise ValueError(f"{self}: sizes must be positive, and num_heads must divide hidden_size.")


class AreaBatch(NamedTuple):
    """B areas padded to N regions, with R origins each.

    Fields:
        regions: float (B, N, K). rows: int64 (B, R), origins. is_row: bool (B, R), False where padded.
        pairs: float (B, R, N, P). log_km: float (B, N, N). real: bool (B, N), False where padded.
        log_population: float (B, N). outflows: float (B, N), only read where `known` (B,) is True.
        flows: float (B, R, N), observed.
    """

    regions: Tensor
    rows: Tensor
    is_row: Tensor
    pairs: Tensor
    log_km: Tensor
    real: Tensor
    log_population: Tensor
    outflows: Tensor
    known: Tensor
    flows: Tensor


class RegionAttention(nn.Module):
    """Pre-norm attention whose scores have a learned slope over the logarithm of the distance, and a feed-forward."""

    def __init__(self, config: FlowNetworkConfig) -> None:
        super().__init__()
        width, self.heads = config.hidden_size, config.num_heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.slope = nn.Parameter(-torch.linspace(0, 3, self.heads))
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, among: Tensor, log_km: Tensor, real: Tensor) -> Tensor:
        """x (B, R, width) attends to `among` (B, N, width), with log_km (B, R, N) and real (B, N)."""
        query = self._heads(self.query(self.before(x)))
        key, value = (self._heads(part) for part in self.key_value(self.before(among)).chunk(2, -1))
        bias = (self.slope[:, None, None] * log_km[:, None]).masked_fill(~real[:, None, None], NONE)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).flatten(-2)))
        return x + self.dropout(self.feed(self.between(x)))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FlowNetwork(nn.Module):
    """Scores of pairs and logarithms of outflows; see `FlowNetworkConfig`."""

    def __init__(self, config: FlowNetworkConfig) -> None:
        super().__init__()
        width, pair = config.hidden_size, config.pair_size
        self.config = config
        inputs = config.region_features + OUTFLOW_FEATURES
        self.embed = nn.Sequential(nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.layers = nn.ModuleList(RegionAttention(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(width)
        self.rate_hidden, self.rate = nn.Linear(width, width), nn.Linear(width, 1)
        self.origin, self.destination = nn.Linear(width, pair), nn.Linear(width, pair, bias=False)
        self.pair = nn.Linear(config.pair_features, pair, bias=False)
        self.score = nn.Sequential(nn.GELU(), nn.Linear(pair, pair), nn.GELU(), nn.Linear(pair, 1))
        self.slope = nn.Linear(config.pair_features, 1, bias=False)
        for zero in (self.slope.weight, self.rate.weight):
            nn.init.zeros_(zero)
        nn.init.constant_(self.rate.bias, FIRST_RATE)

    def log_outflows(self, regions: Tensor, log_population: Tensor) -> Tensor:
        """Logarithms of predicted outflows (B, N) from the regions' vectors (B, N, width)."""
        rate = self.rate(F.gelu(self.rate_hidden(regions)))[..., 0]
        return (log_population + rate).clamp(max=LARGEST_LOG)

    def log_shares(self, origins: Tensor, regions: Tensor, pairs: Tensor, real: Tensor) -> Tensor:
        """Logarithms of shares (B, R, N) from vectors of origins (B, R, width) and of all regions (B, N, width)."""
        hidden = self.origin(origins)[:, :, None] + self.destination(regions)[:, None] + self.pair(pairs)
        score = (self.score(hidden) + self.slope(pairs))[..., 0]
        return score.masked_fill(~real[:, None], NONE).log_softmax(dim=-1)

    def forward(self, batch: AreaBatch) -> tuple[Tensor, Tensor]:
        """(log shares (B, R, N), log outflows (B, N))."""
        known = batch.known[:, None] & batch.real
        features = outflow_features(batch.outflows, batch.log_population, known)
        x = self.embed(torch.cat([batch.regions, features], dim=-1))
        for layer in self.layers:
            x = layer(x, x, batch.log_km, batch.real)
        x = self.norm(x)
        origins = x.gather(1, batch.rows[..., None].expand(-1, -1, x.shape[-1]))
        return self.log_shares(origins, x, batch.pairs, batch.real), self.log_outflows(x, batch.log_population)


def outflow_features(outflows: Tensor, log_population: Tensor, known: Tensor) -> Tensor:
    """float (B, N, 3) from outflows (B, N); zeros where `known` (B, N) is False."""
    outflows = torch.where(known, outflows, 0.0)
    total = outflows.sum(dim=1, keepdim=True).clamp(min=1)
    rate = (outflows + 1).log() - log_population - FIRST_RATE
    share = ((outflows + 1) / total).log() - FIRST_SHARE
    features = torch.stack([torch.ones_like(rate), rate, share], dim=-1)
    return torch.where(known[..., None], features, 0.0)
