"""Configurations of M-STAR (arXiv 2512.07314): the multi-scale codec of weeks, the next-scale transformer over its
codes, and the order in which it decodes them.

Levels are listed coarse to fine, and `level_resolutions` says which spatial resolution each of them reads; the released
code's off-by-one mapping is another list. `variant="released"` is what the authors' code does. `corrected`, the
default, is what trains (docs/results/codec.md).

(No `from __future__ import annotations` here: `@strict` does not check types that are given as strings.)
"""

import math
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from numbers import Integral
from typing import Any, cast

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .configuration_checks import (
    BoundedConfig,
    check_bounds,
    check_choices,
    check_heads,
    check_shares,
    check_smoothing_window,
    preset,
)

WEEK_LEVELS = [1, 7, 14, 28, 56, 84, 112, 168]

CODEC_VARIANTS: dict[str, dict[str, Any]] = {
    "released": {
        "attention_dropout": 0.1,
        "input_dropout": False,
        "bias_init": "uniform",
        "codebook_update": "gradient",
        "code_loss": "last",
        "code_loss_weight": 1.0,
        "residual": "continuous",
        "search": "cosine",
        "refiner_norm": False,
    },
    "corrected": {},
}
CODEC_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "num_cells": 16,
        "cells_per_resolution": [4, 16],
        "level_lengths": [1, 4, 24],
        "level_resolutions": [0, 0, 1],
        "hidden_size": 16,
        "codebook_size": 32,
        "num_attention_heads": 2,
    },
    "small": {"hidden_size": 64, "codebook_size": 512, "num_attention_heads": 4},
    "base": {},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "released": {
        "attention_dropout": 0.2,
        "dropout_form": "released",
        "start_at_generation": False,
        "attribute_init": 1.0,
        "within_level_steps": 1,
        "code_noise": 0.0,
        "scheduled_sampling": 0.0,
        "decoding": "argmax",
    },
    "corrected": {},
}
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    "small": {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4},
    "base": {},
}


@dataclass(frozen=True)
class DecodingStep:
    """Step number `step` (0, 1, ..) of a level: the ranks `start` to `end` of the decoding order."""

    level: int
    step: int
    start: int
    end: int


@dataclass(frozen=True)
class DecodingOrder:
    """In which order the T codes of a week are decoded: level by level, and within a level in steps.

    A rank is an index in this order, a position an index in the week's codes. `positions`, `before` and `after` have
    one entry per rank: its position, and those of the nearest codes before and after it that earlier steps of the level
    decoded; T = none.
    """

    steps: list[DecodingStep]
    positions: list[int]
    before: list[int]
    after: list[int]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Codes of each step."""
        return tuple(step.end - step.start for step in self.steps)

    def of_level(self, level: int) -> list[DecodingStep]:
        """The steps of one level, first to last."""
        return [step for step in self.steps if step.level == level]

    def lengths_between(self, start: int, end: int) -> dict[int, int]:
        """Level -> its codes among the ranks from `start` to `end`, without levels that have none."""
        lengths: dict[int, int] = {}
        for step in self.steps:
            inside = min(step.end, end) - max(step.start, start)
            if inside > 0:
                lengths[step.level] = lengths.get(step.level, 0) + inside
        return lengths

    @property
    def max_steps(self) -> int:
        """Steps of the level that takes most."""
        return 1 + max(step.step for step in self.steps)


def max_decoding_steps(length: int) -> int:
    """Steps that a level of this length has room for: the first of so many decodes a single position."""
    return (length - 1).bit_length() + 1


def decoding_order(level_lengths: list[int], steps: list[int], spacing: list[int] | None = None) -> DecodingOrder:
    """The order of a week whose level k takes `steps[k]` steps: with p steps every 2^(p-1)-th position, then the odd
    multiples of 2^(p-2), .., of 1. A step whose positions lie nearer than `spacing[k]` is split into n, each of which
    takes every n-th of them.
    """
    total = sum(level_lengths)
    decoded: list[DecodingStep] = []
    positions: list[int] = []
    before: list[int] = []
    after: list[int] = []
    least = spacing or [1] * len(level_lengths)
    for level, (offset, length) in enumerate(zip(accumulate(level_lengths, initial=0), level_lengths)):
        known: list[int] = []  # indices that earlier steps of the level decoded, ascending
        for step, indices in enumerate(_steps_of_level(length, steps[level], least[level])):
            decoded.append(DecodingStep(level, step, len(positions), len(positions) + len(indices)))
            for index in indices:
                place = bisect(known, index)
                positions.append(offset + index)
                before.append(offset + known[place - 1] if place else total)
                after.append(offset + known[place] if place < len(known) else total)
            known = sorted([*known, *indices])
    return DecodingOrder(decoded, positions, before, after)


def _steps_of_level(length: int, count: int, spacing: int) -> Iterator[range]:
    """The indices that each step of a level decodes."""
    for step in range(count):
        stride = 2 ** (count - 1 - step)
        indices = range(stride, length, 2 * stride) if step else range(0, length, stride)
        parts = min(-(-spacing // indices.step), len(indices))
        yield from (indices[part::parts] for part in range(parts))


@strict
class MstarCodecConfig(BoundedConfig, PreTrainedConfig):
    """Values of the MST-Tokenizer. Defaults are variant `corrected`, size `base` (the paper's Beijing shape).

    Args:
        num_cells: cells C of the finest grid; equals the last of `cells_per_resolution`.
        cells_per_resolution: rows of the embedding table of each spatial resolution, coarse to fine.
        level_lengths: codes T_k of each level, coarse to fine; the last is the number of hours L.
        level_resolutions: index into `cells_per_resolution` that each level reads. `None` spreads the resolutions
            evenly, coarse to fine, which is the paper's table. The released code is off by one:
            `[3, 0, 0, 1, 1, 2, 2, 3]`.
        hidden_size: width D of features and codes; divisible by `num_attention_heads`.
        num_encoder_layers: 2 in the paper. With 0 there is no attention between hours and no position in the features:
            those of a level are means of the vectors of their own hours' cells, and a code speaks of its own hours
            only. The codes of a level then depend far less on one another, and a generator foresees them far better.
        attention_dropout: of attention weights (released: 0.1, as `dropout`; it takes time on a CPU).
        input_dropout: whether `dropout` also falls on what encoder and decoder read (released: not).
        bias_init: how biases outside attention start: `zeros`, or `uniform` as torch's own (released).
        codebook_size: codes V, shared by all levels.
        codebook_update: `ema` = moving average of the features that chose a code, unused codes restarted from
            residuals; `gradient` = trained by the code loss (released; it collapses).
        ema_decay, restart_share: of the moving average; a code below this share of the mean use is restarted.
        code_loss: `all` levels (summed) or the `last` only (released).
        code_loss_weight: weight of that sum divided by the number of levels (`all`), or of the one term (`last`).
        commitment_weight: weight of the commitment sum divided by the number of levels.
        residual: what a level corrects: the `quantized` reconstruction so far or the `continuous` features (released).
        search: nearest code by `euclidean` distance or by `cosine` (released).
        straight_through: where the reconstruction gradient goes: the `mean` of all levels' features or the `finest`.
        hierarchical_cells: whether the vector of a cell is the sum of its own and of those of the coarser cells around
            it (hierarchical cell embeddings), so that finer levels refine what coarser ones said. Older configurations
            call it `nested_cells`. Not in the paper.
        refiner_norm: whether the norm inside each Phi is applied (released: present, but never applied).

    Notes:
        Variant `released` has the outputs, losses, initial values and dropout of the authors' code, but for one point:
        levels that read one resolution share its encoded hours and their dropout (theirs encodes them for each level).

    Example:

        >>> MstarCodecConfig.from_preset("small", level_lengths=[1, 7, 28, 168]).num_codes_per_week
        204
    """

    model_type = "mobility_mstar_codec"
    instead_of_vocabulary = "it reads cells and codes"
    _auto_class = "AutoConfig"  # saved with its code
    attribute_map = {"nested_cells": "hierarchical_cells"}
    keys_to_ignore_at_inference = ["loss", "reconstruction_loss", "codebook_loss", "commitment_loss"]

    num_cells: int = 900
    cells_per_resolution: list[int] | None = None
    level_lengths: list[int] | None = None
    level_resolutions: list[int] | None = None
    hidden_size: int = 256
    intermediate_size: int | None = None
    num_attention_heads: int = 8
    num_encoder_layers: int = 2
    num_decoder_layers: int = 2
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.0
    input_dropout: bool = True
    bias_init: str = "zeros"
    codebook_size: int = 4096
    codebook_update: str = "ema"
    ema_decay: float | int = 0.98
    restart_share: float | int = 0.02
    code_loss: str = "all"
    code_loss_weight: float | int = 2.0
    commitment_weight: float | int = 0.1
    residual: str = "quantized"
    search: str = "euclidean"
    straight_through: str = "mean"
    refiner_norm: bool = True
    hierarchical_cells: bool = False
    layer_norm_eps: float | int = 1e-5

    def __post_init__(self, **kwargs: Any) -> None:
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.cells_per_resolution is None:
            self.cells_per_resolution = [16, 64, 225, self.num_cells]
        if self.level_lengths is None:
            self.level_lengths = list(WEEK_LEVELS)
        if self.level_resolutions is None:
            levels, resolutions = len(self.level_lengths), len(self.cells_per_resolution)
            self.level_resolutions = [level * resolutions // levels for level in range(levels)]
        super().__post_init__(**kwargs)

    def validate_mstar_codec(self) -> None:
        """Raise a `ValueError` for values that contradict one another."""
        check_bounds(self)
        check_heads(self)
        if self.cells_per_resolution[-1:] != [self.num_cells]:
            raise ValueError(
                "cells_per_resolution must be positive and its last, the finest grid, must equal "
                f"num_cells={self.num_cells}, got {self.cells_per_resolution}."
            )
        if sorted(self.level_lengths) != self.level_lengths:
            raise ValueError(f"level_lengths must be positive and grow from coarse to fine, got {self.level_lengths}.")
        if len(self.level_resolutions) != len(self.level_lengths) or not all(
            0 <= index < len(self.cells_per_resolution) for index in self.level_resolutions
        ):
            raise ValueError(
                f"level_resolutions needs one index below {len(self.cells_per_resolution)} for each of the "
                f"{len(self.level_lengths)} levels, got {self.level_resolutions}."
            )
        check_shares(self, "dropout", "attention_dropout", "restart_share")
        if not 0 <= self.ema_decay <= 1:
            raise ValueError(f"ema_decay must be between 0 and 1, got {self.ema_decay}.")
        check_choices(
            self,
            bias_init=("zeros", "uniform"),
            codebook_update=("ema", "gradient"),
            code_loss=("all", "last"),
            residual=("quantized", "continuous"),
            search=("euclidean", "cosine"),
            straight_through=("mean", "finest"),
        )

    @property
    def num_hours(self) -> int:
        """Time steps L of one trajectory."""
        return self.level_lengths[-1]

    @property
    def num_codes_per_week(self) -> int:
        """Codes of one trajectory over all levels, sum of T_k (470 in the paper's shape)."""
        return sum(self.level_lengths)

    @classmethod
    def from_preset(cls, size: str = "base", *, variant: str = "corrected", **overrides: Any) -> "MstarCodecConfig":
        """A named size (`tiny`, `small`, `base`) in a named variant (`released`, `corrected`).

        Raises:
            ValueError: if the size or the variant is not known.
        """
        values = preset(size, CODEC_SIZES, variant, CODEC_VARIANTS)
        if variant == "released" and size != "tiny":
            values["level_resolutions"] = [3, 0, 0, 1, 1, 2, 2, 3]
        return cls(**{**values, **overrides})


@strict
class MstarConfig(BoundedConfig, PreTrainedConfig):
    """Values of the STAR-Transformer and of its frozen codec. Defaults are variant `corrected`, size `base`.

    Args:
        codec_config: a `MstarCodecConfig`, or its values as a dict.
        hidden_size: width; even (half for home, half for work) and divisible by `num_attention_heads`.
        num_attributes: classes of the movement attribute.
        attribute_sizes: classes of each of several attributes, whose embeddings are added; `attribute_ids` are then
            (N, A). `num_attributes` is not read. Not in the paper.
        num_poi_features: POI columns of `location_features` (60 in `City`) that the place head `places` reads; it
            chooses the places of a city for weeks of slots (`places_mstar`). 0 = no such head. Not in the paper.
        dropout, attention_dropout: in training. The latter is 0.2 in the released code; it takes time on a
            CPU. `drop_path`: of the last layer's branches, growing linearly from 0.
        dropout_form: where they fall. `branches`: `dropout` on the output of attention and feed-forward network,
            `drop_path` on whole weeks. `released`: `dropout` behind GELU and on the feed-forward network's output, none
            on attention's, `drop_path` on single numbers.
        start_at_generation: whether generation adds the learned start vector to the condition, as training does
            (released: not).
        attribute_init: standard deviation of the attribute embedding (released code: 1.0, by accident).
        condition_dropout: share of training weeks whose condition is hidden, which guidance needs. Not in the paper.
        code_noise: share of input codes that training replaces at random, so that finer levels learn to correct
            coarser ones; the targets follow the replaced codes (needs the codec in training). Not in the paper.
        scheduled_sampling: share of the levels of a training week whose codes are replaced by what the model itself
            draws there, given the week's coarser codes, so that finer levels meet at training what they will meet at
            generation; the targets follow the replaced codes (needs the codec in training). Older configurations call
            it `own_codes`. Not in the paper.
        within_level_steps: decoding steps per level, an int or one per level: 1 = all positions of a level drawn
            independently (paper); p = every 2^(p-1)-th position first, then those midway between, and so on, each
            seeing the codes on its two sides (`DecodingOrder`). A level has no more steps than its length allows. Not
            in the paper.
        within_level_spacing: least distance, in positions, of codes that one step decodes, an int or one per level.
            Codes of one step are drawn independently: with a spacing of 1 the last step draws every other hour, and
            two of them may put the same trip at both. Nearer ones go to further steps. Not in the paper.
        within_level_context: with several steps, how many positions on either side a position reads, where earlier
            steps decoded them, besides the nearest on both sides. Not in the paper.
        pointer_head: whether the codes that would put the home, the work place or, with several decoding steps, the
            places on the two sides at a position have scores of their own (`pointer_mstar`). Needs a codec without
            encoder layers, in which a place has a vector of its own, and `fit_places`. Older configurations call it
            `copy_places`. Not in the paper.
        top_k: codes that may be drawn; `None` = all.
        temperature: per level, or one value, or `None` = the paper's confidence rule (offset - slope * confidence).
        temperature_offset, temperature_slope: of that rule.
        guidance: weight of the condition, 1 = none (needs `condition_dropout`).
        smoothing_window: moving average over time before decoding, 0 = off.
        decoding: `argmax` per hour (paper), or the best (`viterbi`) or a drawn (`sample`) path when staying, returning
            to a place of the week and going elsewhere have the probabilities that `fit_transition` learned.
        emission_scale: factor of the codec's scores in such a path; the larger, the less the path overrules them.

    Notes:
        Variant `released` has the outputs, losses, dropout and generation of the authors' code, but for one point: the
        codec inside runs without dropout (theirs drops while the generator trains, so that the codes to predict differ
        from one pass to the next).

    Example:

        >>> config = MstarConfig.from_preset("tiny", within_level_steps=3)
        >>> config.codec.num_codes_per_week
        29
    """

    model_type = "mobility_mstar"
    instead_of_vocabulary = "it reads cells and codes"
    _auto_class = "AutoConfig"  # saved with its code
    attribute_map = {"own_codes": "scheduled_sampling", "copy_places": "pointer_head"}
    sub_configs = {"codec_config": MstarCodecConfig}
    keys_to_ignore_at_inference = ["loss", "level_losses"]

    codec_config: dict | PreTrainedConfig | None = None
    hidden_size: int = 256
    intermediate_size: int | None = None
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    num_attributes: int = 8
    attribute_sizes: list[int] | None = None
    num_poi_features: int = 0
    dropout: float | int = 0.2
    attention_dropout: float | int = 0.0
    drop_path: float | int = 0.2
    dropout_form: str = "branches"
    start_at_generation: bool = True
    attribute_init: float | int = 0.02
    condition_dropout: float | int = 0.0
    code_noise: float | int = 0.0
    scheduled_sampling: float | int = 0.0
    within_level_steps: int | list[int] = 1
    within_level_spacing: int | list[int] = 1
    within_level_context: int = 0
    pointer_head: bool = False
    top_k: int | None = 10
    temperature: float | int | list[float | int] | None = None
    temperature_offset: float | int = 1.5
    temperature_slope: float | int = 1.0
    guidance: float | int = 1.0
    smoothing_window: int = 3
    decoding: str = "argmax"
    emission_scale: float | int = 1.0
    initializer_range: float | int = 0.02
    layer_norm_eps: float | int = 1e-6

    def __post_init__(self, **kwargs: Any) -> None:
        if self.codec_config is None:
            self.codec_config = MstarCodecConfig()
        elif isinstance(self.codec_config, dict):
            self.codec_config = MstarCodecConfig(**self.codec_config)
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        super().__post_init__(**kwargs)

    def validate_mstar(self) -> None:
        """Raise a `ValueError` for values that contradict one another."""
        check_bounds(self)
        check_heads(self, 2)
        check_shares(self, "dropout", "attention_dropout", "drop_path")
        check_shares(self, "condition_dropout", "code_noise", "scheduled_sampling")
        check_choices(self, dropout_form=("branches", "released"))
        if self.code_noise and self.scheduled_sampling:
            raise ValueError(
                f"choose code_noise={self.code_noise} or scheduled_sampling={self.scheduled_sampling}, not both."
            )
        if self.pointer_head and self.codec.num_encoder_layers:
            raise ValueError(
                "pointer_head=True needs a codec with num_encoder_layers=0, in which a place has a vector of its own; "
                f"this one has {self.codec.num_encoder_layers}."
            )
        if self.pointer_head and self.condition_dropout:
            raise ValueError(
                f"choose pointer_head=True or condition_dropout={self.condition_dropout}, not both: a pointer to the "
                "home would show what is to be hidden."
            )
        if self.attribute_sizes is not None and (not self.attribute_sizes or min(self.attribute_sizes) < 1):
            raise ValueError(
                f"attribute_sizes must hold a positive number for each attribute, got {self.attribute_sizes}."
            )
        levels = len(self.codec.level_lengths)
        for name in ("within_level_steps", "within_level_spacing"):
            values = self._per_level(name)
            if len(values) != levels:
                raise ValueError(f"{name} needs one value for each of the {levels} levels, got {len(values)}.")
            if min(values) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.within_level_context and self.decoding_order.max_steps == 1:
            raise ValueError("within_level_context needs within_level_steps above 1: nothing else is decoded earlier.")
        self.check_sampling(
            top_k=self.top_k,
            temperature=self.temperature,
            guidance=self.guidance,
            smoothing_window=self.smoothing_window,
            decoding=self.decoding,
            emission_scale=self.emission_scale,
        )

    def check_sampling(
        self,
        *,
        top_k: int | None,
        temperature: float | list[float] | None,
        guidance: float,
        smoothing_window: int,
        decoding: str,
        emission_scale: float,
    ) -> None:
        """Raise a `ValueError` for settings of generation that make no sense, the configuration's own or others."""
        if top_k is not None and (not isinstance(top_k, Integral) or top_k < 1):
            raise ValueError(f"top_k must be at least 1 and an integer, or None for all codes, got {top_k}.")
        levels = len(self.codec.level_lengths)
        if isinstance(temperature, list) and len(temperature) != levels:
            raise ValueError(f"temperature needs one value for each of the {levels} levels, got {len(temperature)}.")
        if temperature is None:
            if self.temperature_slope < 0 or self.temperature_offset <= self.temperature_slope:
                raise ValueError(
                    "temperature_offset must exceed temperature_slope, which must not be negative, or a sure position "
                    f"has no temperature above 0; got {self.temperature_offset} and {self.temperature_slope}."
                )
        elif not all(0 < t < math.inf for t in (temperature if isinstance(temperature, list) else [temperature])):
            raise ValueError(f"temperature must be above 0, got {temperature}; top_k=1 takes the best code.")
        if guidance != 1 and not self.condition_dropout:
            raise ValueError(f"guidance={guidance} needs a model trained with condition_dropout above 0.")
        check_smoothing_window(smoothing_window)
        if decoding not in ("argmax", "viterbi", "sample"):
            raise ValueError(f"decoding must be 'argmax', 'viterbi' or 'sample', got {decoding!r}.")
        if not 0 < emission_scale < math.inf:
            raise ValueError(f"emission_scale must be above 0, got {emission_scale}.")

    @property
    def codec(self) -> MstarCodecConfig:
        """`codec_config`, which is a dict only until the configuration is made."""
        return cast(MstarCodecConfig, self.codec_config)

    @property
    def sizes_of_attributes(self) -> list[int]:
        """Classes of each attribute, one or several."""
        return [self.num_attributes] if self.attribute_sizes is None else self.attribute_sizes

    @property
    def decoding_order(self) -> DecodingOrder:
        """The order in which the codes of a week are decoded."""
        lengths = self.codec.level_lengths
        wanted = self._per_level("within_level_steps")
        steps = [min(steps, max_decoding_steps(length)) for steps, length in zip(wanted, lengths)]
        return decoding_order(lengths, steps, self._per_level("within_level_spacing"))

    def _per_level(self, name: str) -> list[int]:
        value = getattr(self, name)
        return value if isinstance(value, list) else [value] * len(self.codec.level_lengths)

    @classmethod
    def from_preset(cls, size: str = "base", *, variant: str = "corrected", **overrides: Any) -> "MstarConfig":
        """A named size (`tiny`, `small`, `base`) in a named variant, around the codec of the same names.

        Raises:
            ValueError: if the size or the variant is not known.
        """
        values = preset(size, SIZES, variant, VARIANTS)
        values["codec_config"] = MstarCodecConfig.from_preset(size, variant=variant)
        return cls(**{**values, **overrides})


__all__ = ["DecodingOrder", "DecodingStep", "MstarCodecConfig", "MstarConfig", "decoding_order", "max_decoding_steps"]
