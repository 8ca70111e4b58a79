"""Baselines that every model is shown next to: count tables, the learned count mixture, two single-city networks,
generators of weeks, predictors of trajectories, and hand-made features of people.

The networks need torch and EPR needs scipy's optimisers; they are imported on first use only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .count import UserFrequency, UserMarkov
from .generators import Conditions, HourlyMarkov, ResampledWeeks
from .mix import ContextMix
from .mix_weights import MixWeights

if TYPE_CHECKING:
    from .features import mobility_features
    from .generators_epr import ExplorationReturn
    from .hourly_transformer import HourlyTransformer
    from .neural import GRUBaseline, TransformerBaseline
    from .trajectories import CopyLast, GRUTrajectory, HourMean

__all__ = [
    "Conditions",
    "ContextMix",
    "CopyLast",
    "ExplorationReturn",
    "GRUBaseline",
    "GRUTrajectory",
    "HourMean",
    "HourlyMarkov",
    "HourlyTransformer",
    "MixWeights",
    "ResampledWeeks",
    "TransformerBaseline",
    "UserFrequency",
    "UserMarkov",
    "mobility_features",
]

_LATER = {
    "CopyLast": "trajectories",
    "ExplorationReturn": "generators_epr",
    "GRUBaseline": "neural",
    "GRUTrajectory": "trajectories",
    "HourMean": "trajectories",
    "HourlyTransformer": "hourly_transformer",
    "TransformerBaseline": "neural",
    "mobility_features": "features",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
