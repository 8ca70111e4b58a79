"""Commuting flows between the regions of an area: classical models, boosted trees and a small network.

Frames go in and come out. Regions have coordinates, population, census columns and points of interest; flows are an
OD table. `FlowNetworkModel.from_pretrained` opens the shipped network. LightGBM is imported on first use only.
"""

from __future__ import annotations

from .boosting import BoostedTrees
from .gravity import GravityModel, RadiationModel
from .metrics import common_part, evaluate_flows, paired_flows, summarize_flows
from .model import FlowNetworkModel
from .prediction import FlowModel
from .task import FlowArea, FlowTask
from .training import FlowTraining

__all__ = [
    "BoostedTrees",
    "FlowArea",
    "FlowModel",
    "FlowNetworkModel",
    "FlowTask",
    "FlowTraining",
    "GravityModel",
    "RadiationModel",
    "common_part",
    "evaluate_flows",
    "paired_flows",
    "summarize_flows",
]
