"""Pointer head of SAMoE's `extended` variant: a distribution over the visits of the user's own context.

Not in the paper. It says "return to that very place" for places the model has no id for, which a dot product of smooth
features cannot. For the state after visit i and a context visit j <= i,

    score_ij = (W_q z_i) . (W_k z_{j-1} + W_v e_j) / sqrt(d) + age(t_i - t_j) + offset(i - j) + w(z_i) . phi_ij

where z is the final state, e the input embedding and phi the eight pair features listed in `SamoePointerHead`. The
features that are products of a query part and a key part (time of day, day type) enter as extra dimensions of the dot
product; only order, transition and distance need T x T values. What later queries need is appended to the key/value
cache as one more layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer
from transformers.utils.import_utils import is_tracing

from .configuration_samoe import SamoeConfig
from .layers import BLOCK_VALUES, mark, widened
from .times_samoe import DAY_SECONDS, hour_angle, weekday_of

DISTANCE_SCALES_KM = (0.1, 0.3, 1.0, 3.0, 10.0)
NEAR = slice(1, 4)  # the scales of `nearness`
NEAR_KM = DISTANCE_SCALES_KM[1:4]
NUM_AGE_BINS = 32
NUM_OFFSET_BINS = 16
NUM_PAIR_FEATURES = 8
# What each of several heads starts as: (e-folding age in visits, 0 = none; weights of pair features by index, see
# `SamoePointerHead`).
COUNT_TABLES: tuple[tuple[float, dict[int, float]], ...] = (
    (0, {}),  # frequency
    (10, {}),  # recent frequency
    (40, {}),
    (60, {0: 6.0}),  # successors of this place: Markov-1
    (0, {2: 6.5, 5: 1.5}),  # successors of visits at this hour and kind of day
    (60, {0: 4.0, 1: 4.0}),  # Markov-2
    (40, {7: -4.0}),  # known places nearby
    (0, {}),
)


def distance_basis(from_km: torch.Tensor, to_km: torch.Tensor) -> torch.Tensor:
    """Six functions of the distance in km, (M, 2), (N, 2) -> (M, 6, N): exp(-d / s) at five scales, ln(1 + d) / 4."""
    distance = _km_between(from_km, to_km).unsqueeze(-2)
    return torch.cat([_decays(distance, DISTANCE_SCALES_KM), torch.log1p(distance) / 4], dim=-2)


def nearness(place_ids: torch.Tensor, km: torch.Tensor) -> torch.Tensor:
    """How near each candidate is to visited places: sum of exp(-d / s) at three scales, (B, K), (N + 2, 2) -> (B, 3,
    N + 2) float32. Padding adds nothing. A place that is visited several times, or by several users, is computed once.
    """
    row, column = (place_ids > 0).nonzero(as_tuple=True)
    pairs, visits = torch.unique(row * len(km) + place_ids[row, column], return_counts=True)
    places, index = torch.unique(pairs % len(km), return_inverse=True)
    starts = torch.searchsorted(pairs, torch.arange(len(place_ids), device=km.device) * len(km))
    total, step = km.new_zeros(len(place_ids), 3, len(km)), max(64, BLOCK_VALUES // (4 * len(places) + 1))
    for start in range(0, len(km) if len(places) else 0, step):
        block = slice(start, start + step)
        decays = _decays(_km_between(km[places], km[block]).unsqueeze(-2), NEAR_KM)
        sums = F.embedding_bag(index, decays.flatten(1), starts, mode="sum", per_sample_weights=visits.to(km.dtype))
        total[..., block] = sums.unflatten(-1, (3, -1))
    return total


def activity(share: torch.Tensor, past_km: torch.Tensor, to_km: torch.Tensor) -> torch.Tensor:
    """How near places are to a past: the mean over its visits of exp(-d / s) at three scales, as logarithms.

    (.., M, K), (.., K, 2) as `PointerContext.past_places` returns them, and (N, 2) in km -> (B T, 3, N).
    """
    distance = _km_between(past_km, to_km)
    density = [share @ _decays(distance, scale) for scale in NEAR_KM]
    return (torch.stack(density, dim=-2) + 1e-3).log().flatten(0, -3)


def _decays(distance: torch.Tensor, scales: float | tuple[float, ...]) -> torch.Tensor:
    """exp(-d / scale), at least 1e-30: processors take a hundred times as long for the subnormal numbers farther away,
    which are lost in every sum. Several scales are the last axis but one.
    """
    rates = -1.0 / torch.tensor(scales, dtype=torch.float64)
    rates = rates if rates.dim() == 0 else rates.unsqueeze(-1)
    return (distance * rates.to(distance)).clamp_(min=-69.0).exp_()


def _km_between(from_km: torch.Tensor, to_km: torch.Tensor) -> torch.Tensor:
    """Distances, (.., 2), (N, 2) -> (.., N)."""
    from_km, to_km = widened(from_km), widened(to_km)
    tracing = is_tracing(from_km)  # ONNX has no `cdist`
    if torch.is_grad_enabled() and not tracing:  # the gradient of a square root is not finite where places are the same
        return torch.cdist(from_km, to_km, compute_mode="donot_use_mm_for_euclid_dist")
    east, north = from_km[..., :1] - to_km[:, 0], from_km[..., 1:] - to_km[:, 1]
    return (east.square() + north.square()).sqrt() if tracing else east.square_().add_(north.square_()).sqrt_()


def _add_layer(cache: Cache, index: int) -> None:
    """Let the cache have a layer `index`, static where its others are: a cache of both kinds loses its mask."""
    while len(cache.layers) <= index:
        first = cache.layers[0]
        cache.layers.append(StaticLayer(first.max_cache_len) if isinstance(first, StaticLayer) else DynamicLayer())


@dataclass
class PointerContext:
    """alpha (B, T, K) float32: weights over the context visits, rows sum to 1. key_ids (B, K): their places. allowed
    (B, T, K) bool: the past. revisits (B, T): past visits to the present place. length (B, T): number of past visits.
    nearness (B, 3, N + 2): see `nearness`, where it is known of the visits before the one position that is kept.
    """

    alpha: torch.Tensor
    key_ids: torch.Tensor
    allowed: torch.Tensor
    revisits: torch.Tensor
    length: torch.Tensor
    nearness: torch.Tensor | None = None

    def rows(self, some: slice) -> PointerContext:
        """Some of the sequences."""
        parts = (self.alpha, self.key_ids, self.allowed, self.revisits, self.length)
        near = None if self.nearness is None else self.nearness[some]
        return PointerContext(*(part[some] for part in parts), nearness=near)

    def known_activity(self, block: slice, basis: torch.Tensor) -> torch.Tensor:
        """What `activity` gives for a block of places, from `nearness`; the last visit, whose `distance_basis` is (B,
        6, N), is added to it in place.
        """
        near = self.nearness[..., block].add_(basis[:, NEAR])
        return near.div(self.length.unsqueeze(-1)).add_(1e-3).log_()

    def past_places(self, km: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where each position's past was: shares of the visits (.., M, K), rows sum to 1, and the places (.., K, 2) in
        km; M is B T, or T behind a leading B while a graph is traced.
        """
        share = self.allowed.to(km.dtype) / self.length.unsqueeze(-1)
        if is_tracing(share):  # how many places there are is not known before
            return share, km[self.key_ids]
        places, inverse = torch.unique(self.key_ids, return_inverse=True)
        index = inverse.unsqueeze(1).expand_as(share)
        share = share.new_zeros(*share.shape[:2], len(places)).scatter_add(-1, index, share).flatten(0, 1)
        return share, km[places]

    def probability_of(self, location_ids: torch.Tensor) -> torch.Tensor:
        """Copy probability of one place per position, (B, T) -> (B, T)."""
        return (self.alpha * (self.key_ids.unsqueeze(1) == location_ids.unsqueeze(-1))).sum(-1)

    def added_to(self, probability: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """`probability` (B, T, N + 2) of every place plus `weight` (B, T, 1) times that of copying it, in place."""
        return probability.scatter_add_(-1, self.key_ids.unsqueeze(1).expand_as(self.alpha), weight * self.alpha)


class SamoePointerHead(nn.Module):
    """Scores over the context and the gate between copying and the dot-product head.

    Pair features phi_ij (v = place, t = local time): v_{j-1} = v_i; the same and v_{j-2} = v_{i-1}; cosine of the
    hour-angle between t_i and t_{j-1}; cosine of twice that angle; cosine between t_i and t_j; same day type (weekend
    or not) of t_{j-1} and t_i; v_j = v_i; ln(1 + d(v_i, v_j) / 0.1 km) / 5. With the arrival time given, it takes the
    place of t_i and t_j that of t_{j-1}.
    """

    def __init__(self, config: SamoeConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.layer_idx = config.num_hidden_layers  # the cache layer after the body's
        self.num_heads = config.num_pointer_heads
        self.scale = (d // self.num_heads) ** -0.5
        self.query_proj = nn.Linear(d, d)
        self.state_proj = nn.Linear(d, d)
        self.visit_proj = nn.Linear(d, d)
        self.age_bias = nn.Embedding(NUM_AGE_BINS, self.num_heads)
        self.offset_bias = nn.Embedding(NUM_OFFSET_BINS, self.num_heads)
        self.pair_weights = nn.Linear(d, NUM_PAIR_FEATURES * self.num_heads) if config.pointer_features else None
        self.head_weights = nn.Linear(d + 2, self.num_heads) if self.num_heads > 1 else None
        self.gate = nn.Linear(d + 5, 1)
        self._mark_initial_values()

    def _mark_initial_values(self) -> None:
        """Let several heads start as the components of a count mixture and what is state-dependent at zero: training
        then starts from a sensible predictor and only has to improve it. A single head starts uniform."""
        if self.pair_weights is not None:
            mark(self.pair_weights, init_std=0.0)
        if self.num_heads == 1:
            return
        tables = [COUNT_TABLES[head % len(COUNT_TABLES)] for head in range(self.num_heads)]
        offsets = [2 ** ((index + 0.5) / 1.9) - 1 for index in range(NUM_OFFSET_BINS)]
        recency = [[-offset / visits if visits else 0.0 for visits, _ in tables] for offset in offsets]
        mark(self.offset_bias, init_weight=recency)
        if self.pair_weights is not None:
            mark(self.pair_weights, init_bias=[w.get(k, 0.0) for _, w in tables for k in range(NUM_PAIR_FEATURES)])

    def forward(
        self,
        hidden: torch.Tensor,
        visits: torch.Tensor,
        *,
        input_ids: torch.Tensor,
        timestamps: torch.Tensor | None,
        arrival_times: torch.Tensor | None,
        km: torch.Tensor | None,
        cache: Cache | None,
        keep: slice | torch.Tensor,
    ) -> PointerContext:
        """hidden, visits (B, T, d); input_ids, timestamps, arrival_times (B, T) int64; km (N + 2, 2) -> weights over
        all K visits so far, of the positions `keep`.
        """
        if timestamps is None:
            raise ValueError("timestamps are needed by the pointer head; pass what SamoeTokenizer returns.")
        query_index = torch.arange(input_ids.shape[1], device=input_ids.device)
        if cache is not None:
            query_index = query_index + cache.get_seq_length(self.layer_idx)  # before the cache counts these visits
        state, keys, key_ids, key_times = self._remember(hidden, visits, input_ids, timestamps, cache)
        hidden, query_index = hidden[:, keep], query_index[keep]
        input_ids, timestamps = input_ids[:, keep], timestamps[:, keep]
        arrival_times = None if arrival_times is None else arrival_times[:, keep]
        num_keys = key_ids.shape[1]
        valid = key_ids > 0
        before_valid = F.pad(valid[:, :-1], (1, 0)).unsqueeze(-1)
        keys = keys + F.pad(state[:, :-1], (0, 0, 1, 0)) * before_valid

        scores = torch.matmul(
            self._heads(widened(self.query_proj(hidden)) * self.scale), self._heads(keys).transpose(-1, -2)
        )
        minutes = (timestamps.unsqueeze(-1) - key_times.unsqueeze(1)).clamp(min=0).float() / 60
        age = (2 * torch.log2(1 + minutes / 30)).long().clamp(max=NUM_AGE_BINS - 1)
        offset = query_index.unsqueeze(-1) - torch.arange(num_keys, device=key_ids.device)
        offset_bin = (1.9 * torch.log2(1 + offset.clamp(min=0).float())).long().clamp(max=NUM_OFFSET_BINS - 1)
        biases = self.age_bias(age) + self.offset_bias(offset_bin)
        scores = scores + biases.permute(0, 3, 1, 2)
        same_place = input_ids.unsqueeze(-1) == key_ids.unsqueeze(1)  # v_j = v_i
        if self.pair_weights is not None:
            weights = self._heads(widened(self.pair_weights(hidden)))
            scores = scores + self._product_features(weights, timestamps, arrival_times, key_times, before_valid)
            scores = scores + self._table_features(weights, same_place, query_index, valid, input_ids, key_ids, km)

        allowed = (offset >= 0) & valid.unsqueeze(1)
        # A padded query looks at itself, so that no row is empty (NaN); nobody reads it.
        allowed = allowed | ((offset == 0) & (input_ids == 0).unsqueeze(-1))
        alpha = scores.masked_fill(~allowed.unsqueeze(1), float("-inf")).softmax(-1)
        revisits = (same_place & allowed).sum(-1).float()
        length = allowed.sum(-1).float()
        if self.head_weights is None:
            alpha = alpha.squeeze(1)
        else:
            known = torch.stack([length.log() / 3, torch.log1p(revisits) / 2], dim=-1).to(hidden.dtype)
            weights = widened(self.head_weights(torch.cat([hidden, known], dim=-1))).softmax(-1)
            alpha = torch.einsum("bth,bhtk->btk", weights, alpha)
        return PointerContext(alpha, key_ids, allowed, revisits, length)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, heads * w) -> (B, heads, T, w)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def gate_logit(self, hidden: torch.Tensor, context: PointerContext, top_probability: torch.Tensor) -> torch.Tensor:
        """Log-odds of copying, (B, T). `top_probability` (B, T): the largest probability of the dot-product head,
        without gradient.
        """
        alpha = context.alpha
        extra = [
            context.length.log() / 3,
            alpha.amax(-1),
            alpha.square().sum(-1),
            torch.log1p(context.revisits) / 2,
            top_probability,
        ]
        features = torch.cat([hidden, torch.stack(extra, dim=-1).to(hidden.dtype)], dim=-1)
        return widened(self.gate(features)).squeeze(-1)

    def _remember(
        self,
        hidden: torch.Tensor,
        visits: torch.Tensor,
        input_ids: torch.Tensor,
        timestamps: torch.Tensor,
        cache: Cache | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """State part (B, K, d), visit part (B, K, d) of the keys, places and times (B, K) of the whole context, cached
        ones first. A static cache gives its whole length: behind the context, places are 0, as where it is padded.
        """
        state, keys = widened(self.state_proj(hidden)), widened(self.visit_proj(visits))
        if cache is None:
            return state, keys, input_ids, timestamps
        _add_layer(cache, self.layer_idx)
        days = timestamps.div(DAY_SECONDS, rounding_mode="floor")
        # Three integers below 2^24 are exact in float32, the only type that a cache layer keeps as it is.
        numbers = torch.stack([input_ids, days, timestamps % DAY_SECONDS], dim=-1).float()
        keys, rest = cache.update(keys.unsqueeze(1), torch.cat([state, numbers], dim=-1).unsqueeze(1), self.layer_idx)
        state, numbers = rest[:, 0].split([state.shape[-1], 3], dim=-1)
        ids, days, seconds = numbers.long().unbind(-1)
        return state, keys[:, 0], ids, days * DAY_SECONDS + seconds

    def _product_features(
        self,
        weights: torch.Tensor,
        timestamps: torch.Tensor,
        arrival_times: torch.Tensor | None,
        key_times: torch.Tensor,
        before_valid: torch.Tensor,
    ) -> torch.Tensor:
        """Features 3 to 6, which factorise: cos(a - b) = cos a cos b + sin a sin b, and the day type likewise."""

        def circle(times: torch.Tensor, factor: int) -> torch.Tensor:
            angle = factor * hour_angle(times)
            return torch.stack([angle.cos(), angle.sin()], dim=-1)

        def day_type(times: torch.Tensor) -> torch.Tensor:
            weekend = (weekday_of(times) >= 5).float()
            return torch.stack([weekend, 1 - weekend], dim=-1)

        anchor = timestamps if arrival_times is None else arrival_times
        if arrival_times is None:
            matched = F.pad(key_times[:, :-1], (1, 0))
            mask = before_valid.float()
        else:
            matched, mask = key_times, torch.ones_like(before_valid, dtype=torch.float32)
        now, anchored = circle(timestamps, 1), [circle(anchor, 1), circle(anchor, 2), day_type(anchor)]
        query = [weights[..., k : k + 1] * part.unsqueeze(1) for k, part in zip((2, 3, 5, 4), (*anchored, now))]
        key = [circle(matched, 1) * mask, circle(matched, 2) * mask, day_type(matched) * mask, circle(key_times, 1)]
        keys = torch.cat(key, dim=-1).to(weights.dtype).transpose(1, 2).unsqueeze(1)
        return torch.matmul(torch.cat(query, dim=-1), keys)

    @staticmethod
    def _table_features(
        weights: torch.Tensor,
        same_place: torch.Tensor,
        query_index: torch.Tensor,
        valid: torch.Tensor,
        input_ids: torch.Tensor,
        key_ids: torch.Tensor,
        km: torch.Tensor,
    ) -> torch.Tensor:
        """Features 1, 2, 7 and 8, (B, heads, T, K)."""
        after_same = F.pad(same_place[..., :-1], (1, 0))  # v_{j-1} = v_i
        previous_ids = F.pad(key_ids[:, :-1], (1, 0))[:, query_index]  # v_{i-1}
        previous_same = previous_ids.unsqueeze(-1) == key_ids.unsqueeze(1)
        previous_same = previous_same & valid.unsqueeze(1)
        order_two = after_same & F.pad(previous_same, (2, 0))[..., :-2]
        distance = torch.linalg.vector_norm(km[input_ids].unsqueeze(2) - km[key_ids].unsqueeze(1), dim=-1)
        features = (after_same, order_two, same_place, torch.log1p(distance / 0.1) / 5)
        terms = [weights[..., k : k + 1] * feature.unsqueeze(1) for k, feature in zip((0, 1, 6, 7), features)]
        return sum(terms[1:], start=terms[0])
