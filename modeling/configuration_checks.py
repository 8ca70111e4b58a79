"""Checks of values that the configurations of all systems share. Each raises a `ValueError` of one sentence, before
anything of an impossible size is built.

(No `from __future__ import annotations` here, as in the configurations.)
"""

from numbers import Integral
from typing import Any

from huggingface_hub.errors import StrictDataclassError

MAX_LABELS = 100_000
# Least and most; fields that a configuration lacks or leaves at None are not looked at.
_WHOLE: dict[str, tuple[int, int]] = {
    "hidden_size": (1, 65_536),
    "intermediate_size": (1, 1_000_000),
    "num_hidden_layers": (1, 1_000),
    "num_encoder_layers": (0, 1_000),
    "num_decoder_layers": (0, 1_000),
    "num_attention_heads": (1, 1_024),
    "num_pointer_heads": (1, 1_024),
    "num_poi_features": (0, 100_000),
    "num_popularity_levels": (1, 1_000),
    "num_stay_bins": (2, 100_000),
    "max_position_embeddings": (1, 10_000_000),
    "slots_per_day": (1, 86_400),
    "mixture_components": (0, 1_000),
    "head_hidden_size": (0, 65_536),
    "context_records": (1, 1_000_000),
    "state_records": (1, 1_000_000),
    "pair_hidden_size": (1, 65_536),
    "num_attributes": (1, 10_000),
    "within_level_context": (0, 1_000),
    "num_cells": (1, 200_000),
    "codebook_size": (1, 1_000_000),
}
_REAL: dict[str, tuple[float, float]] = {
    "layer_norm_eps": (0, 1),
    "initializer_range": (0, 1_000),
    "stay_loss_weight": (0, 1e9),
    "input_noise": (0, 1e9),
    "distance_weight": (0, 1e9),
    "attribute_init": (0, 1e9),
    "code_loss_weight": (0, 1e9),
    "commitment_weight": (0, 1e9),
}
# Entries of a list, and each of them.
_LISTS: dict[str, tuple[int, int]] = {"level_lengths": (1_000, 100_000), "cells_per_resolution": (64, 200_000)}


def preset(size: str, sizes: dict[str, Any], variant: str = "", variants: dict[str, Any] | None = None) -> dict:
    """The values of a named size and, where there are any, of a named variant.

    Raises:
        ValueError: if one of the names is not known.
    """
    values: dict[str, Any] = {}
    for kind, name, known in (("size", size, sizes), ("variant", variant, variants)):
        if known is not None and name not in known:
            raise ValueError(f"unknown {kind} {name!r}; choose one of {sorted(known)}.")
        values |= {} if known is None else known[name]
    return values


def check_heads(config: Any, factor: int = 1) -> None:
    """`hidden_size` is a multiple of `num_attention_heads` and of `factor`."""
    width, heads = config.hidden_size, config.num_attention_heads
    if width % heads or width % factor:
        both = f"{factor} and by num_attention_heads" if factor > 1 else "num_attention_heads"
        raise ValueError(f"hidden_size must be divisible by {both}, got {width} and {heads}.")


def check_shares(config: Any, *names: str) -> None:
    """These values are at least 0 and below 1."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(config, name)}.")


def check_smoothing_window(hours: Any) -> None:
    """A moving average is over an odd number of hours; 0 = none."""
    if not isinstance(hours, Integral) or hours < 0 or (hours and hours % 2 == 0):
        raise ValueError(f"smoothing_window must be 0 or odd, got {hours}.")


def check_choices(config: Any, **choices: tuple[str, ...]) -> None:
    """Each of these values is one of its choices."""
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {getattr(config, name)!r}.")


def check_bounds(config: Any) -> None:
    """Raises a `ValueError` for the first field outside its bounds; NaN is outside all."""
    for name, (least, most) in {**_WHOLE, **_REAL}.items():
        value = getattr(config, name, None)
        if value is not None and not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")
        if value is not None and not value <= most:
            raise ValueError(f"{name} must be at most {most:,}, got {value}.")
    for name, (entries, most) in _LISTS.items():
        values = getattr(config, name, None)
        if values is not None and not (1 <= len(values) <= entries and all(1 <= value <= most for value in values)):
            raise ValueError(
                f"{name} must be 1 to {entries:,} positive numbers up to {most:,}, got {str(values)[:80]}."
            )


class BoundedConfig:
    """A configuration whose file is refused in one sentence where it holds no such configuration. It has no vocabulary
    of tokens: `instead_of_vocabulary` says why not."""

    instead_of_vocabulary = ""

    def __getattr__(self, name: str) -> Any:
        if name == "vocab_size":  # asked for by prompt tuning, for one
            raise AttributeError(
                f"{type(self).__name__} has no vocab_size, as {self.instead_of_vocabulary}; "
                "what needs a vocabulary, such as prompt tuning, does not apply."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As `PreTrainedConfig.from_dict`.

        Raises:
            ValueError: fields of another type, outside their bounds, or that contradict one another.
        """
        labels, saved = config_dict.get("num_labels"), config_dict.get("architectures")
        if isinstance(labels, int) and labels > MAX_LABELS:
            raise ValueError(f"{cls.__name__}: num_labels must be at most {MAX_LABELS:,}, got {labels}.")
        if saved is not None and not (isinstance(saved, list) and all(isinstance(name, str) for name in saved)):
            raise ValueError(f"{cls.__name__}: architectures must be a list of names, got {str(saved)[:80]}.")
        try:
            return super().from_dict(config_dict, **kwargs)  # type: ignore[misc]
        except (StrictDataclassError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
            raise ValueError(f"{cls.__name__}: {' '.join(str(error).split())}") from error
