"""Checks of values that the configurations of all systems share. Each raises a `ValueError` of one sentence."""

from __future__ import annotations

from typing import Any


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
    """`hidden_size` is a positive multiple of `num_attention_heads`, which is positive, and of `factor`."""
    check_least(config, 1, "hidden_size", "num_attention_heads")
    width, heads = config.hidden_size, config.num_attention_heads
    if width % heads or width % factor:
        both = f"{factor} and by num_attention_heads" if factor > 1 else "num_attention_heads"
        raise ValueError(f"hidden_size must be divisible by {both}, got {width} and {heads}.")


def check_least(config: Any, least: float, *names: str) -> None:
    """These values are not below `least`; None is no value."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")


def check_shares(config: Any, *names: str) -> None:
    """These values are at least 0 and below 1."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(config, name)}.")


def check_choices(config: Any, **choices: tuple[str, ...]) -> None:
    """Each of these values is one of its choices."""
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {getattr(config, name)!r}.")
