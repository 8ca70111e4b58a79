"""Tokenizers of the three systems: a city each. Installed as `hf_mobility.tokenization`; never import the top-level
name.

Every other file here imports only transformers, torch, numpy, safetensors, the standard library and its siblings, so
that it also works as remote code.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Public class -> the file that defines it, which is loaded on first use.
_NAMES = {
    "SamoeTokenizer": "tokenization_samoe",
    "MstarTokenizer": "tokenization_mstar",
    "MstarSlotTokenizer": "tokenization_mstar_slots",
    "RawTokenizer": "tokenization_raw",
}

__all__ = ["MstarTokenizer", "RawTokenizer", "SamoeTokenizer"]  # one of each system; others are had by their name

if TYPE_CHECKING:
    from .tokenization_mstar import MstarTokenizer as MstarTokenizer
    from .tokenization_mstar_slots import MstarSlotTokenizer as MstarSlotTokenizer
    from .tokenization_raw import RawTokenizer as RawTokenizer
    from .tokenization_samoe import SamoeTokenizer as SamoeTokenizer


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_NAMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
