"""Baselines that every model is shown next to: count tables, the learned count mixture, two single-city networks,
generators and completions of weeks, predictors of trajectories, and hand-made features of users and of regions.

The networks need torch and EPR needs scipy's optimisers; they are imported on first use only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .completion import CarryForward, CommonHour, SameHour, StayHome
from .count import UserFrequency, UserMarkov
from .generators import Conditions, HourlyMarkov, ResampledWeeks
from .mix import ContextMix
from .mix_weights import MixWeights

if TYPE_CHECKING:
    from .features import mobility_features, work_features
    from .generators_epr import ExplorationReturn
    from .hourly_transformer import HourlyTransformer
    from .neural import GRUBaseline, TransformerBaseline
    from .regions import hours_of_visits, region_counts
    from .trajectories import CityMedian, CopyLast, Shrinkage
    from .trajectories_gru import GRUTrajectory
    from .trajectories_own_past import HourMean, HourMedian, NearestPast

__all__ = [
    "CarryForward",
    "CityMedian",
    "CommonHour",
    "Conditions",
    "ContextMix",
    "CopyLast",
    "ExplorationReturn",
    "GRUBaseline",
    "GRUTrajectory",
    "HourMean",
    "HourMedian",
    "HourlyMarkov",
    "HourlyTransformer",
    "MixWeights",
    "NearestPast",
    "ResampledWeeks",
    "SameHour",
    "Shrinkage",
    "StayHome",
    "TransformerBaseline",
    "UserFrequency",
    "UserMarkov",
    "hours_of_visits",
    "mobility_features",
    "region_counts",
    "work_features",
]

_LATER = {
    "CityMedian": "trajectories",
    "CopyLast": "trajectories",
    "ExplorationReturn": "generators_epr",
    "GRUBaseline": "neural",
    "GRUTrajectory": "trajectories_gru",
    "HourMean": "trajectories_own_past",
    "HourMedian": "trajectories_own_past",
    "HourlyTransformer": "hourly_transformer",
    "NearestPast": "trajectories_own_past",
    "Shrinkage": "trajectories",
    "TransformerBaseline": "neural",
    "hours_of_visits": "regions",
    "mobility_features": "features",
    "region_counts": "regions",
    "work_features": "features",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
