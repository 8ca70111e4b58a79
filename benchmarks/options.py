"""Arguments that the training benchmarks share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

_CONSTANTS = {"true": True, "false": False, "none": None}


def add_training(parser: argparse.ArgumentParser, *, steps: int, batch_size: int, learning_rate: float) -> None:
    """`--set`, `--steps`, `--batch-size`, `--learning-rate` and `--seed`, with these defaults."""
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="single config values")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch-size", type=int, default=batch_size)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--seed", type=int, default=0, help="of the city, the split, and the training")


def training_of(options: argparse.Namespace) -> dict[str, Any]:
    """Steps, batch size and learning rate, as keywords of a `train` function."""
    return {name: getattr(options, name) for name in ("steps", "batch_size", "learning_rate")}


def _config_value(pair: str) -> tuple[str, object]:
    """`width=64` -> ("width", 64): numbers, true, false, none and [lists]; anything else is text."""
    name, _, text = pair.partition("=")
    if text.lower() in _CONSTANTS:
        return name, _CONSTANTS[text.lower()]
    try:
        return name, json.loads(text)
    except json.JSONDecodeError:
        return name, text


def config_values(pairs: Iterable[str], config_class: Any) -> dict[str, Any]:
    """All `NAME=VALUE` as a dict. Configurations keep names that they do not know, so these raise a `ValueError`."""
    values = dict(map(_config_value, pairs))
    known = {field.name for field in fields(config_class)} | config_class.attribute_map.keys()  # and older names
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{config_class.__name__} has no {', '.join(unknown)}; see its documentation for the names.")
    return values
