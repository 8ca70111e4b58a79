"""Drawing codes from their scores: which candidates, at which temperature.

Unusual: everything random comes in as uniform numbers that were drawn once per week, week after week, so that (on a
CPU) weeks do not depend on how they were batched.

Shapes: N weeks, T positions of the pass, V codes, S levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .configuration_mstar import MstarConfig

GROUPS = 128  # see `top_candidates`


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


def top_candidates(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`logits.topk(k)` over the last axis, in two exact stages where the axis is long: each of the k best lies in one
    of the k groups with the highest maxima. Half the time of `topk` on a CPU. All codes stay in their order: sorting
    them would take as long as everything else in generation.
    """
    codes = logits.shape[-1]
    if k == codes:
        return logits, torch.arange(codes, device=logits.device).expand(logits.shape)
    if codes % GROUPS or k * 8 > GROUPS or codes < 8 * GROUPS:
        return logits.topk(k, dim=-1)
    members = logits.unflatten(-1, (codes // GROUPS, GROUPS))
    best = members.amax(-2).topk(k, dim=-1).indices
    kept = members.gather(-1, best.unsqueeze(-2).expand(*best.shape[:-1], codes // GROUPS, k)).flatten(-2)
    values, place = kept.topk(k, dim=-1)
    return values, place // k * GROUPS + best.gather(-1, place % k)


def position_temperature(
    best: torch.Tensor, is_open: torch.Tensor, options: SamplingOptions, level: int
) -> torch.Tensor:
    """Temperature of each position, (N, T) from the highest logit of each (N, T). The confidence rule scales these to
    0..1 over the open positions of the week's pass (0 where all are equal).
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
    values, candidates = top_candidates(logits, options.top_k)
    values = values.float()
    temperature = position_temperature(values.amax(-1), is_open, options, level)
    return (values / temperature.unsqueeze(-1)).softmax(-1), candidates


def draw_codes(
    logits: torch.Tensor, is_open: torch.Tensor, noise: torch.Tensor, options: SamplingOptions, level: int
) -> torch.Tensor:
    """One code per position, (N, T) int64. noise: (N, T), uniform in [0, 1). Others: see `code_probabilities`."""
    probability, candidates = code_probabilities(logits, is_open, options, level)
    return candidates.gather(-1, draw_from(probability, noise).unsqueeze(-1)).squeeze(-1)


__all__ = [
    "SamplingOptions",
    "code_probabilities",
    "draw_codes",
    "draw_from",
    "top_candidates",
]
