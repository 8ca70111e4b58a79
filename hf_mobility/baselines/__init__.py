"""Baselines that every model is shown next to: count tables, the learned count mixture, two single-city networks,
generators of weeks, predictors of trajectories, and hand-made features of people.

The networks need torch and EPR needs scipy's optimisers; they are imported on first use only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_mobility.baselines.count import UserFrequency, UserMarkov
from hf_mobility.baselines.generators import Conditions, HourlyMarkov, ResampledWeeks
from hf_mobility.baselines.mix import ContextMix, MixWeights

if TYPE_CHECKING:
    from hf_mobility.baselines.features import mobility_features
    from hf_mobility.baselines.generators_epr import ExplorationReturn
    from hf_mobility.baselines.hourly_transformer import HourlyTransformer
    from hf_mobility.baselines.neural import GRUBaseline, TransformerBaseline
    from hf_mobility.baselines.trajectories import CopyLast, GRUTrajectory, HourMean

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
