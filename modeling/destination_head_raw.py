"""The first and the last layers of RAW's `extended` variant: features of records, and scores of destinations.

(No `from __future__ import annotations` here: layers are read by transformers.)

Shapes: B users, N records, T of them that the transformer reads, Q times asked for, C free points, D `hidden_size`.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_raw import RawConfig
from .destinations_raw import RawDestinations
from .layers import mark, widened
from .pairs_raw import FIRST_WEIGHTS, NOWHERE, NUM_PAIR_FEATURES, clock, length, pair_features

NUM_RECORD_FEATURES = 18
NUM_TIME_FEATURES = 12
NUM_QUERY_FEATURES = 12


class RawRecordEmbedding(nn.Module):
    """Records -> (B, T, D): 18 features -> 2 D -> D with ReLU, as RAW embeds points."""

    def __init__(self, config: RawConfig) -> None:
        super().__init__()
        self.slots_per_day = config.slots_per_day
        self.up_proj = nn.Linear(NUM_RECORD_FEATURES, 2 * config.hidden_size)
        self.down_proj = nn.Linear(2 * config.hidden_size, config.hidden_size)

    def forward(self, positions: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        features = torch.cat([self.of_places(positions, slots), time_features(slots, self.slots_per_day)], dim=-1)
        return self.down_proj(F.relu(self.up_proj(features.to(self.up_proj.weight.dtype))))

    def of_places(self, positions: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """Where, how far from the record before, and how long after it, (B, T, 6)."""
        follows = slots[:, :-1] != NOWHERE
        step = F.pad((positions[:, 1:] - positions[:, :-1]) * follows.unsqueeze(-1), (0, 0, 1, 0))
        gap = (slots[:, 1:] - slots[:, :-1]).clamp(max=100 * self.slots_per_day) * follows
        gap = F.pad(gap, (1, 0)).float()
        far = torch.linalg.vector_norm(positions, dim=-1, keepdim=True)
        return torch.cat([compressed(positions), torch.log1p(far), compressed(step), log_slots(gap)], dim=-1)


def compressed(km: torch.Tensor) -> torch.Tensor:
    """Directions with the length ln(1 + |d|), (..., 2) -> (..., 2)."""
    length = torch.linalg.vector_norm(km, dim=-1, keepdim=True)
    return km * torch.log1p(length) / length.clamp(min=1e-6)


def habits(positions: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """How much is known of a user, and how much of it lies near the middle and near the last record, (B, 5)."""
    number = known.sum(-1).float()

    def share(centre: torch.Tensor, reach: float) -> torch.Tensor:
        return ((-length(positions - centre) / reach).exp() * known).sum(-1) / number

    middle_of_all, here = torch.zeros_like(positions[:, -1:]), positions[:, -1:]
    shares = [share(middle_of_all, 0.3), share(middle_of_all, 3.0), share(here, 0.3), share(here, 3.0)]
    return torch.stack([torch.log1p(number) / 5, *shares], dim=-1)


def log_slots(slots: torch.Tensor) -> torch.Tensor:
    """(...) -> (..., 1)."""
    return torch.log1p(slots.unsqueeze(-1)) / 3


def time_features(slots: torch.Tensor, slots_per_day: int) -> torch.Tensor:
    """Periodic features of the time of the day, and the day, (...) int64 -> (..., 12)."""
    share, weekday = clock(slots, slots_per_day)
    turns = torch.stack([share, 2 * share, 3 * share, (weekday + share) / 7], dim=-1) * (2 * math.pi)
    days = torch.stack([weekday >= 5, weekday == 4, weekday == 5, weekday == 6], dim=-1)
    return torch.cat([turns.sin(), turns.cos(), days.float()], dim=-1)


class RawDestinationHead(nn.Module):
    """Scores of the records and the free points of every query."""

    def __init__(self, config: RawConfig) -> None:
        super().__init__()
        width, pairs = config.hidden_size, config.pair_hidden_size
        self.slots_per_day, self.min_scale = config.slots_per_day, float(config.mixture_min_scale)
        self.num_free = config.mixture_components
        self.query_proj = nn.Linear(width + NUM_TIME_FEATURES + NUM_QUERY_FEATURES, 2 * width)
        self.state_proj = nn.Linear(2 * width, width)
        self.pair_proj = nn.Linear(NUM_PAIR_FEATURES, pairs)
        self.pair_query_proj = nn.Linear(width, pairs)
        self.pair_out_proj = nn.Linear(pairs, 2)
        self.pair_weights = nn.Linear(width, NUM_PAIR_FEATURES)
        mark(self.pair_weights, init_bias=[FIRST_WEIGHTS.get(one, 0.0) for one in range(NUM_PAIR_FEATURES)])
        self.free_proj = nn.Linear(width, 4 * self.num_free + 1)

    def forward(
        self, state: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor, targets: torch.Tensor
    ) -> RawDestinations:
        """(B, D), (B, N, 2) km, (B, N), (B, Q) -> the mixtures (B, Q, N + C)."""
        query = self._queries(state, positions, slots, targets)
        pairs = pair_features(positions, slots, targets, slots_per_day=self.slots_per_day)
        hidden = self.pair_proj(pairs.to(query.dtype)) + self.pair_query_proj(query).unsqueeze(2)
        score, spread = widened(self.pair_out_proj(F.silu(hidden))).unbind(-1)  # (B, Q, N) each
        score = score + widened(pairs.to(query.dtype) @ self.pair_weights(query).unsqueeze(-1)).squeeze(-1)
        score = score.masked_fill((slots == NOWHERE).unsqueeze(1), float("-inf"))
        free = widened(self.free_proj(query))
        gate, free_score, free_spread, move = free.split([1, self.num_free, self.num_free, 2 * self.num_free], dim=-1)
        origin = torch.stack([positions[:, -1], torch.zeros_like(positions[:, -1])], dim=1)  # here, and the median
        origin = origin.repeat_interleave(-(-self.num_free // 2), dim=1)[:, : self.num_free].unsqueeze(1)
        moves = move.unflatten(-1, (self.num_free, 2))
        centres = [positions.unsqueeze(1).expand(-1, targets.shape[1], -1, -1), origin + 5 * moves]
        weights = [score.log_softmax(-1) + F.logsigmoid(gate), free_score.log_softmax(-1) + F.logsigmoid(-gate)]
        scales = [F.softplus(spread - 2), 3 * F.softplus(free_spread)]
        return RawDestinations(
            log_weights=torch.cat(weights, dim=-1),
            centres=torch.cat(centres, dim=2),
            scales=torch.cat(scales, dim=-1) + self.min_scale,
        )

    def _queries(
        self, state: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """(B, Q, D): the state behind the last record, and what is asked."""
        ahead = (targets - slots[:, -1:]).float()
        here = torch.cat([compressed(positions[:, -1]), habits(positions, slots != NOWHERE)], dim=-1)
        day = 2 * math.pi * ahead / self.slots_per_day
        asked = torch.cat([log_slots(ahead), (ahead / self.slots_per_day).unsqueeze(-1)], dim=-1)
        circle = torch.stack([day.sin(), day.cos(), torch.log1p(ahead).square() / 20], dim=-1)
        single = torch.cat([widened(state), here], dim=-1).unsqueeze(1).expand(-1, targets.shape[1], -1)
        features = torch.cat([single, asked, circle, time_features(targets, self.slots_per_day)], dim=-1)
        return self.state_proj(F.silu(self.query_proj(features.to(state.dtype))))


__all__ = ["RawDestinationHead", "RawRecordEmbedding"]
