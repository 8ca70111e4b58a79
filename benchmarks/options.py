"""NAME=VALUE arguments of the training examples."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

_CONSTANTS = {"true": True, "false": False, "none": None}


def config_value(pair: str) -> tuple[str, object]:
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
    values = dict(map(config_value, pairs))
    known = {field.name for field in fields(config_class)} | config_class.attribute_map.keys()  # and older names
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{config_class.__name__} has no {', '.join(unknown)}; see its documentation for the names.")
    return values
