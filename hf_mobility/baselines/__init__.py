"""Baselines that every model is shown next to: count tables, the learned count mixture, and two single-city networks.

The networks need torch and are imported on first use only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_mobility.baselines.count import UserFrequency, UserMarkov
from hf_mobility.baselines.mix import ContextMix, MixWeights

if TYPE_CHECKING:
    from hf_mobility.baselines.neural import GRUBaseline, TransformerBaseline

__all__ = ["ContextMix", "GRUBaseline", "MixWeights", "TransformerBaseline", "UserFrequency", "UserMarkov"]


def __getattr__(name: str) -> Any:
    if name in ("GRUBaseline", "TransformerBaseline"):
        from hf_mobility.baselines import neural

        return getattr(neural, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
