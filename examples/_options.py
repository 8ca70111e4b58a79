"""NAME=VALUE arguments of the training examples."""

from __future__ import annotations

import json

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
