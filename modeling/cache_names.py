"""The name of the key/value cache: transformers calls it `cache` from 5.24 on and `past_key_values` before.

The library's generation, masks and gradient checkpointing look for the name of their version, in the arguments of a
`forward` and in the fields of its output. Inside our models it is `cache`; `CACHE` is its name outside.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from transformers.modeling_outputs import BaseModelOutputWithPast

CACHE = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"


def either_cache_name(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let callers of `function(..., cache=)` write `past_key_values=`, whatever version is installed.

    Raises:
        ValueError: where a call gives both.
    """

    @functools.wraps(function)
    def renamed(*args: Any, **kwargs: Any) -> Any:
        cache = kwargs.pop("past_key_values", None)
        if cache is not None:
            if kwargs.get("cache") is not None:
                raise ValueError("cache and past_key_values are two names of one argument; give one of them.")
            kwargs["cache"] = cache
        return function(*args, **kwargs)

    return renamed


__all__ = ["CACHE", "either_cache_name"]
