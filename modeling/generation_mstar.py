"""Generation of M-STAR: draws the codes of a week level by level, and turns them into cells.

A code is drawn from its `top_k` best, at a temperature. The codec's scores of each hour then become a week: the best
cell per hour, or a smoothed one, on which people stay and return (a hidden Markov model).

Notes:
    Everything random comes in as uniform numbers that were drawn once per week, week after week, so that (on a CPU)
    weeks do not depend on how they were batched. The transition matrix of the smoothing is stay * I + (1 - stay) *
    arrival, where one distribution of arrivals serves every origin: one step costs O(C), not O(C x C), and the best
    path and an exact draw need no approximation. That distribution is the week's own: a move leads back to a place in
    proportion to the hours that the week spends there, or anywhere in proportion to the arrivals of all users
    (preferential return and exploration, Song et al. 2010, doi 10.1038/nphys1760). The codec's scores are posteriors of
    each hour; with a flat prior over cells they act as likelihoods of the chain, and `emission_scale`, their exponent,
    says how much they weigh against it.

Shapes: N weeks, L hours, C cells, T positions of one decoding step, V codes, S levels. `stay` (L - 1,): probability
that an hour's cell is kept in the next. `arrival` (N, C): where those go who do not stay; rows sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers.utils import logging

from .configuration_mstar import DecodingOrder, MstarConfig
from .layers import OwnGenerate, finite, renamed_argument

WEEKS_AT_ONCE = 64  # of `generate`, where `batch_size` is not given


@dataclass
class SamplingOptions:
    """Checked settings of one call of `generate`.

    temperatures: one per level, or `None` = the confidence rule offset - slope * confidence.
    """

    top_k: int
    temperatures: list[float] | None
    offset: float
    slope: float
    guidance: float
    smoothing_window: int
    decoding: str
    emission_scale: float

    @classmethod
    def resolve(cls, config: MstarConfig, **given: Any) -> SamplingOptions:
        """Settings given by name, those that are `None` from the configuration.

        Raises:
            ValueError: if a value makes no sense, or needs what the model was not built with.
        """
        names = ("temperature", "guidance", "smoothing_window", "decoding", "emission_scale")
        changed = {name: _plain(given[name]) for name in names if given.get(name) is not None}
        if isinstance(changed.get("temperature"), str):
            if changed["temperature"] != "confidence":
                raise ValueError(
                    f"temperature must be a number, one per level, or 'confidence', got {changed['temperature']!r}."
                )
            changed["temperature"] = None
        if given.get("top_k") is not None:
            changed["top_k"] = given["top_k"]
        settings = {name: changed.get(name, getattr(config, name)) for name in (*names, "top_k")}
        config.check_sampling(**settings)
        temperature, lengths = settings["temperature"], config.codec.level_lengths
        codes = config.codec.codebook_size
        return cls(
            top_k=codes if settings["top_k"] is None else min(settings["top_k"], codes),
            temperatures=None if temperature is None else _per_level(temperature, len(lengths)),
            offset=float(config.temperature_offset),
            slope=float(config.temperature_slope),
            guidance=float(settings["guidance"]),
            smoothing_window=settings["smoothing_window"],
            decoding=settings["decoding"],
            emission_scale=float(settings["emission_scale"]),
        )

    def numbers_per_week(self, lengths: Sequence[int]) -> int:
        """Uniform numbers that one week takes: one per code, two per hour of a drawn path."""
        return sum(lengths) + (2 * lengths[-1] if self.decoding == "sample" else 0)


def _plain(value: Any) -> Any:
    """One value per level may come as any sequence, an array too."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _per_level(value: float | Sequence[float], levels: int) -> list[float]:
    return [float(entry) for entry in value] if isinstance(value, Sequence) else [float(value)] * levels


def draw_from(probabilities: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Index of one entry of each row, (..., K) and uniform numbers (...) -> (...) int64. Rows need not sum to 1."""
    edges = probabilities.cumsum(-1)
    drawn = torch.searchsorted(edges, (noise.to(edges.dtype) * edges[..., -1]).unsqueeze(-1), right=True).squeeze(-1)
    # the last entry with any probability: rounding must not pick one with none
    last = (edges < edges[..., -1:]).sum(-1)
    return torch.minimum(drawn, last)


def position_temperature(
    best: torch.Tensor, is_open: torch.Tensor, options: SamplingOptions, level: int
) -> torch.Tensor:
    """Temperature of each position, (N, T) from the highest logit of each (N, T). The confidence rule scales these to
    0..1 over the open positions of the week's decoding step (0 where all are equal).
    """
    if options.temperatures is not None:
        return torch.full_like(best, options.temperatures[level])
    low = best.masked_fill(~is_open, float("inf")).amin(-1, keepdim=True)
    span = best.masked_fill(~is_open, float("-inf")).amax(-1, keepdim=True) - low
    confidence = torch.where(span > 0, (best - low) / span, 0.0).clamp(0, 1)
    return options.offset - options.slope * confidence


def code_probabilities(
    logits: torch.Tensor, is_open: torch.Tensor, options: SamplingOptions, level: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The `top_k` best codes of each position, then the temperature, then a softmax over those only.

    Args:
        logits: (N, T, V). is_open: (N, T) bool, positions still to be drawn.

    Returns:
        Probabilities (N, T, k) float32 and the codes they belong to (N, T, k) int64, best first unless k = V.
    """
    if options.top_k == logits.shape[-1]:  # all: to sort them would take as long as everything else in generation
        values, candidates = logits, torch.arange(options.top_k, device=logits.device).expand(logits.shape)
    else:
        values, candidates = logits.topk(options.top_k, dim=-1)
    values = values.float()
    temperature = position_temperature(values.amax(-1), is_open, options, level)
    return (values / temperature.unsqueeze(-1)).softmax(-1), candidates


def draw_codes(
    logits: torch.Tensor, is_open: torch.Tensor, noise: torch.Tensor, options: SamplingOptions, level: int
) -> torch.Tensor:
    """One code per position, (N, T) int64. noise: (N, T), uniform in [0, 1). Others: see `code_probabilities`."""
    probability, candidates = code_probabilities(logits, is_open, options, level)
    return candidates.gather(-1, draw_from(probability, noise).unsqueeze(-1)).squeeze(-1)


# Smoothing


def fit_stay_probability(cells: torch.Tensor) -> torch.Tensor:
    """Share of people who keep their cell from hour t to t + 1, (N, L) -> (L - 1,) float32.

    Hours of cell -1 are unknown and do not count. One week that stays and one that moves are added, so that no step is
    certain.
    """
    before, after = cells[:, :-1], cells[:, 1:]
    known = (before >= 0) & (after >= 0)
    stayed = known & (before == after)
    return ((stayed.sum(0) + 1.0) / (known.sum(0) + 2.0)).float()


def fit_arrivals(cells: torch.Tensor, num_cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where moves lead, (N, L) with -1 = unknown -> share of the arrivals of each cell (C,) float32, and the share of
    arrivals at a place where the week stays more than once () float32.

    One arrival spread over all cells, and one of either kind, are added, so that nothing is impossible.
    """
    known = cells >= 0
    moved = F.pad(known[:, 1:] & known[:, :-1] & (cells[:, 1:] != cells[:, :-1]), (1, 0))
    starts = known & (moved | ~F.pad(known[:, :-1], (1, 0)))
    place = torch.arange(len(cells), device=cells.device).unsqueeze(1) * num_cells + cells
    _, stay, stays = place[starts].unique(return_inverse=True, return_counts=True)
    returns = (stays[stay[moved[starts]]] > 1).sum()
    counts = torch.bincount(cells[moved], minlength=num_cells) + 1 / num_cells
    return (counts / counts.sum()).float(), ((returns + 1.0) / (moved.sum() + 2.0)).float()


def week_arrivals(logits: torch.Tensor, arrival: torch.Tensor, return_share: torch.Tensor) -> torch.Tensor:
    """Distribution (N, C) of each week's arrivals: the hours it spends in each cell as its scores (N, L, C) have it,
    mixed with the arrivals (C,) of all people.
    """
    return torch.lerp(arrival.to(logits), logits.softmax(-1).mean(1), return_share.to(logits))


def clamp_to_known(logits: torch.Tensor, cells: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Scores (N, L, C) that leave an hour marked `known` (N, L) nothing but its cell (N, L)."""
    place = torch.arange(logits.shape[-1], device=logits.device)
    closed = known.unsqueeze(-1) & (place != cells.unsqueeze(-1))
    return logits.masked_fill(closed, float("-inf"))


def best_path(logits: torch.Tensor, stay: torch.Tensor, arrival: torch.Tensor) -> torch.Tensor:
    """The most probable path (Viterbi), (N, L, C) -> (N, L) int64, exact."""
    emission = logits.log_softmax(-1)
    stay, arrival = stay.to(emission), arrival.to(emission)
    moved = 1 - stay
    log_arrival, log_moved = arrival.log(), moved.log()
    score = emission[:, 0]
    stays, sources = [], []
    for hour in range(1, logits.shape[1]):
        best, source = score.max(-1, keepdim=True)
        from_best = best + log_moved[hour - 1] + log_arrival
        from_here = score + (stay[hour - 1] + moved[hour - 1] * arrival).log()
        stays.append(from_here >= from_best)
        sources.append(source)
        score = torch.maximum(from_here, from_best) + emission[:, hour]
    path = [score.argmax(-1, keepdim=True)]
    for staying, source in zip(reversed(stays), reversed(sources)):
        path.append(torch.where(staying.gather(-1, path[-1]), path[-1], source))
    return torch.cat(path[::-1], dim=1)


def sample_path(logits: torch.Tensor, stay: torch.Tensor, arrival: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """A path drawn from the chain given the scores (forward filtering, backward sampling), (N, L, C) -> (N, L) int64.

    Args:
        noise: (N, 2, L), uniform in [0, 1).
    """
    emission = logits.softmax(-1)
    stay, arrival = stay.to(emission), arrival.to(emission)
    moved = 1 - stay
    filtered = [emission[:, 0]]
    for hour in range(1, logits.shape[1]):
        predicted = stay[hour - 1] * filtered[-1] + moved[hour - 1] * arrival
        joint = predicted * emission[:, hour]
        filtered.append(joint / joint.sum(-1, keepdim=True))
    candidates = draw_from(
        torch.stack(filtered, dim=1), noise[:, 0]
    )  # where an hour would be if the next came by a move
    path = [candidates[:, -1:]]
    for hour in range(logits.shape[1] - 2, -1, -1):
        by_staying = stay[hour] * filtered[hour].gather(-1, path[-1])
        by_moving = moved[hour] * arrival.gather(-1, path[-1])
        stays = noise[:, 1, hour : hour + 1] * (by_staying + by_moving) < by_staying
        path.append(torch.where(stays, path[-1], candidates[:, hour : hour + 1]))
    return torch.cat(path[::-1], dim=1)


# Generation


class MstarCache:
    """Keys and values of the positions generated so far, (layers, N, H, T, d) of exact size, allocated once.

    `start` is where the current decoding step begins.
    """

    def __init__(self, num_layers: int, length: int) -> None:
        self.num_layers, self.length, self.start = num_layers, length, 0
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def update(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the current step's (N, H, T_k, d); return all up to its end."""
        batch, heads, steps, size = key.shape
        if self.keys is None:
            shape = (self.num_layers, batch, heads, self.length, size)
            self.keys, self.values = key.new_empty(shape), key.new_empty(shape)
        end = self.start + steps
        self.keys[layer, :, :, self.start : end] = key
        self.values[layer, :, :, self.start : end] = value
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


@dataclass
class _KnownHours:
    """Hours that are given at generation. features: F_k of each level; computed (N, T_k) bool of each level: they give
    the code; mask (N, L) bool; cells (N, L)."""

    features: list[torch.Tensor]
    computed: list[torch.Tensor]
    mask: torch.Tensor
    cells: torch.Tensor


class _Numbers:
    """Hands out the uniform numbers of a batch, (N, n) at a time."""

    def __init__(self, numbers: torch.Tensor) -> None:
        self.numbers, self.used = numbers, 0

    def take(self, count: int) -> torch.Tensor:
        self.used += count
        return self.numbers[:, self.used - count : self.used]


class MstarGeneration(OwnGenerate):
    """`generate` of `MstarForTrajectoryGeneration`, whose parts it uses."""

    config: MstarConfig
    device: torch.device
    training: bool
    codec: Any
    conditions: Any
    order: DecodingOrder
    positions: torch.Tensor
    stay_probability: torch.Tensor
    arrival_share: torch.Tensor
    return_share: torch.Tensor
    eval: Any
    train: Any
    _modulate: Any
    _known_places: Any
    _embed: Any
    _run: Any
    _score: Any
    _point: Any

    @renamed_argument("commute_ids", "work_ids")
    @torch.no_grad()
    def generate(
        self,
        home_ids: torch.Tensor | Sequence[int],
        work_ids: torch.Tensor | Sequence[int],
        attribute_ids: torch.Tensor | Sequence[int],
        *,
        generator: torch.Generator | None = None,
        top_k: int | None = None,
        temperature: float | list[float] | str | None = None,
        guidance: float | None = None,
        smoothing_window: int | None = None,
        decoding: str | None = None,
        emission_scale: float | None = None,
        prefix_ids: torch.Tensor | None = None,
        prefix_mask: torch.Tensor | None = None,
        filled_ids: torch.Tensor | None = None,
        batch_size: int | None = None,
        return_codes: bool = False,
        progress: bool = False,
    ) -> Any:
        """Draw weeks for users with these conditions. Settings that are `None` come from the configuration.

        The numbers drawn do not depend on `batch_size` on a CPU.

        Args:
            home_ids, work_ids, attribute_ids: (N,) integers, of several attributes (N, A); see `forward`.
            generator: source of all randomness; `None` = torch's global one.
            top_k: codes that may be drawn; the codebook's size = all.
            temperature: one value, one per level, or "confidence" = the paper's rule.
            guidance, smoothing_window, decoding, emission_scale: see `MstarConfig`.
            prefix_ids: (N, R, L) int64, known hours as the tokenizer's `input_ids`, coarse to fine.
            prefix_mask: (N, L), 1 = the hour is known. Known hours are kept exactly; a code whose hours are all known
                is not drawn but computed.
            filled_ids: as `prefix_ids`, with a guess in every unknown hour. Then a code with any known hour is computed
                from it and not drawn, so that the guess tells what kind of day it is.
            batch_size: weeks at once; memory grows with it and not with N.
            return_codes: return the codes as well.
            progress: show a progress bar.

        Returns:
            (N, L) int64 finest cells; with `return_codes` also (N, T) int64 codes.

        Raises:
            ValueError: if conditions are missing, differ in number or lie outside the grid or the classes; if a
                setting makes no sense; if a path is asked for before `fit_transition`.
        """
        conditions = self._check_conditions(home_ids, work_ids, attribute_ids)
        options = SamplingOptions.resolve(
            self.config,
            top_k=top_k,
            temperature=temperature,
            guidance=guidance,
            smoothing_window=smoothing_window,
            decoding=decoding,
            emission_scale=emission_scale,
        )
        if options.decoding != "argmax" and not bool(self.arrival_share.any()):
            raise ValueError(f"decoding={options.decoding!r} needs fit_transition(cells) of training weeks first.")
        weeks = conditions.shape[1]
        given = self._check_prefix(prefix_ids, prefix_mask, filled_ids, weeks)
        step = WEEKS_AT_ONCE if batch_size is None else batch_size
        if step < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")

        codec = self.config.codec
        count = options.numbers_per_week(codec.level_lengths)
        source = self.device if generator is None else generator.device
        cells = torch.empty(weeks, codec.num_hours, dtype=torch.int64, device=self.device)
        codes = torch.empty(weeks, codec.num_codes_per_week, dtype=torch.int64, device=self.device)
        was_training = self.training
        self.eval()
        try:
            for first in logging.tqdm(range(0, weeks, step), desc="weeks", unit="batch", disable=not progress):
                part = slice(first, min(first + step, weeks))
                drawn = torch.rand(part.stop - first, count, generator=generator, device=source)
                numbers = _Numbers(drawn.to(self.device))
                known = None if given is None else self._known_hours(*(values[part] for values in given))
                codes[part], fhat = self._draw_weeks(conditions[:, part], numbers, options, known)
                cells[part] = self._decode(fhat, numbers, options, known)
        finally:
            self.train(was_training)
        return (cells, codes) if return_codes else cells

    def _draw_weeks(
        self, conditions: torch.Tensor, numbers: _Numbers, options: SamplingOptions, known: _KnownHours | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw one batch, level by level: conditions (2 + A, N) -> codes (N, T), reconstruction fhat_S (N, L, D)."""
        condition = self.conditions(conditions[0], conditions[1], conditions[2:].t())
        lengths = self.config.codec.level_lengths
        weeks, guided = len(condition), options.guidance != 1
        if guided:  # both branches in one batch
            condition = torch.cat([condition, self.conditions.null.expand(weeks, -1)])
        modulations = self._modulate(condition)
        cache = MstarCache(self.config.num_hidden_layers, sum(lengths))
        places = self._known_places(*conditions[:2])
        drawn, fhat = [], None
        all_scored = torch.ones((), dtype=torch.bool, device=condition.device)
        for level, length in enumerate(lengths):
            if level:
                features = self.codec.next_level(fhat, level - 1)
            else:
                features = condition.new_zeros(weeks, length, self.config.codec.hidden_size)
            codes, forced = self._forced(known, features, level)
            offset = cache.start
            for step in self.order.of_level(level):
                ranks = slice(step.start, step.end)
                given = (features.repeat(2, 1, 1), codes.repeat(2, 1)) if guided else (features, codes)
                tokens, candidates = self._embed(
                    *given, condition, places, ranks, offset, add_start=self.config.start_at_generation
                )
                hidden = self._run(tokens, modulations, None, cache)
                logits = self._score(hidden, self._point(hidden, candidates))
                cache.start = step.end
                if guided:
                    asked, unasked = logits.chunk(2)
                    logits = torch.lerp(unasked, asked, options.guidance)
                all_scored = all_scored & (logits < math.inf).all()  # NaN is not
                positions = self.positions[ranks] - offset
                is_open = ~forced[:, positions]
                sampled = draw_codes(logits, is_open, numbers.take(len(positions)), options, level)
                codes = codes.index_copy(1, positions, torch.where(is_open, sampled, codes[:, positions]))
            drawn.append(codes)
            fhat = features + self.codec.code_vectors(codes)
        finite(torch.where(all_scored, 0.0, math.nan), self)
        return torch.cat(drawn, dim=1), fhat

    def _forced(
        self, known: _KnownHours | None, features: torch.Tensor, level: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes (N, T_k) that bring u_k closest to what is known, and where they are to be used (N, T_k) bool."""
        if known is None:
            shape, device = features.shape[:2], features.device
            return torch.zeros(shape, dtype=torch.int64, device=device), torch.zeros(
                shape, dtype=torch.bool, device=device
            )
        return self.codec.quantize_level(known.features[level] - features), known.computed[level]

    def _decode(
        self, fhat: torch.Tensor, numbers: _Numbers, options: SamplingOptions, known: _KnownHours | None
    ) -> torch.Tensor:
        """Cells (N, L) of the last reconstruction (N, L, D)."""
        logits = self.codec.decode_features(fhat, options.smoothing_window)
        if known is not None:
            logits = clamp_to_known(logits, known.cells, known.mask)
        if options.decoding == "argmax":
            return logits.max(-1).indices  # as `argmax`, and sooner on a CPU
        logits = logits.float() * options.emission_scale
        arrival = week_arrivals(logits, self.arrival_share, self.return_share)
        if options.decoding == "viterbi":
            return best_path(logits, self.stay_probability, arrival)
        noise = numbers.take(2 * logits.shape[1]).unflatten(1, (2, -1))
        return sample_path(logits, self.stay_probability, arrival, noise)

    def _known_hours(self, ids: torch.Tensor, mask: torch.Tensor, filled: torch.Tensor | None = None) -> _KnownHours:
        if filled is None:
            features = self.codec.level_features(ids, mask)
            computed = [self.codec.complete_positions(mask, level) for level in range(len(features))]
        else:
            features, computed = self.codec.level_features(filled), self.codec.known_positions(mask)
        return _KnownHours(features=features, computed=computed, mask=mask.bool(), cells=ids[:, -1])

    def _check_conditions(self, home_ids: Any, work_ids: Any, attribute_ids: Any) -> torch.Tensor:
        """(2 + A, N) int64 on the model's device: home, work and the attributes."""
        cells, sizes = self.config.codec.num_cells, self.config.sizes_of_attributes
        places = [
            self._checked_ids(name, ids, [cells]) for name, ids in (("home_ids", home_ids), ("work_ids", work_ids))
        ]
        classes = self._checked_ids("attribute_ids", attribute_ids, sizes)
        for name, ids in (("work_ids", places[1]), ("attribute_ids", classes)):
            if ids.shape[1] != places[0].shape[1]:
                raise ValueError(f"{name} has {ids.shape[1]} values, home_ids has {places[0].shape[1]}.")
        return torch.cat([*places, classes])

    def _checked_ids(self, name: str, given: Any, limits: list[int]) -> torch.Tensor:
        """Integers below `limits`, (N,) or, of several, (N, A) -> (A, N) int64."""
        if given is None:
            raise ValueError(f"{name} is missing: home_ids, work_ids and attribute_ids go together.")
        ids = torch.as_tensor(given, device=self.device)
        several = name == "attribute_ids" and self.config.attribute_sizes is not None
        shape = f"(N, {len(limits)})" if several else "(N,)"
        if ids.dim() != 1 + several or (several and ids.shape[1] != len(limits)) or ids.is_floating_point():
            raise ValueError(f"{name} must be integers of shape {shape}, got {ids.dtype} {tuple(ids.shape)}.")
        ids = ids if several else ids.unsqueeze(1)
        outside = (ids < 0) | (ids >= ids.new_tensor(limits))
        if bool(outside.any()):
            what = "classes of the movement attribute" if name == "attribute_ids" else "cells of this model's grid"
            most = " and ".join(str(limit - 1) for limit in limits)
            raise ValueError(
                f"{name} must be {what}, 0 to {most}; {int(outside.sum())} are not, the first ones "
                f"{ids[outside][:3].tolist()}."
            )
        return ids.long().t()

    def _check_prefix(
        self,
        prefix_ids: torch.Tensor | None,
        prefix_mask: torch.Tensor | None,
        filled_ids: torch.Tensor | None,
        weeks: int,
    ) -> tuple[torch.Tensor, ...] | None:
        """Known hours, their mask and, where there is one, the guess of all hours, on the model's device."""
        if (prefix_ids is None) != (prefix_mask is None):
            raise ValueError("prefix_ids, the cells, and prefix_mask, which of their hours are known, go together.")
        if prefix_ids is None:
            if filled_ids is not None:
                raise ValueError(
                    "filled_ids needs prefix_ids and prefix_mask, which tell the known hours from guesses."
                )
            return None
        codec = self.config.codec
        shape = (weeks, len(codec.cells_per_resolution), codec.num_hours)
        ids, mask = (torch.as_tensor(value, device=self.device) for value in (prefix_ids, prefix_mask))
        if ids.shape != shape or mask.shape != (weeks, codec.num_hours):
            raise ValueError(
                f"prefix_ids must be {shape}, one row of cells per resolution, and prefix_mask "
                f"({weeks}, {codec.num_hours}); got {tuple(ids.shape)} and {tuple(mask.shape)}."
            )
        known = mask.bool().unsqueeze(1)
        self._check_cells("prefix_ids", ids, known)
        ids = ids.long().masked_fill(~known, 0)
        if filled_ids is None:
            return ids, mask.long()
        filled = torch.as_tensor(filled_ids, device=self.device)
        if filled.shape != shape:
            raise ValueError(f"filled_ids must be {shape}, as prefix_ids, got {tuple(filled.shape)}.")
        self._check_cells("filled_ids", filled, torch.ones_like(known))
        return ids, mask.long(), torch.where(known, ids, filled.long())

    def _check_cells(self, name: str, ids: torch.Tensor, known: torch.Tensor) -> None:
        """Raise a `ValueError` for cells (N, R, L) outside the grids in known hours (N, 1, L)."""
        rows = self.config.codec.cells_per_resolution
        outside = ((ids < 0) | (ids >= ids.new_tensor(rows).view(1, -1, 1))) & known
        if bool(outside.any()):
            raise ValueError(
                f"{name} must lie inside the grids of {rows} cells in known hours; {int(outside.sum())} do not, the "
                f"first ones {ids[outside][:3].tolist()}."
            )


__all__ = [
    "MstarCache",
    "MstarGeneration",
    "SamplingOptions",
    "best_path",
    "clamp_to_known",
    "code_probabilities",
    "draw_codes",
    "draw_from",
    "fit_arrivals",
    "fit_stay_probability",
    "sample_path",
    "week_arrivals",
]
