"""A tiny generator of M-STAR whose weights are drawn, shared by the tests of its networks."""

from __future__ import annotations

from typing import Any

import torch

from hf_mobility.modeling.configuration_mstar import MstarConfig
from hf_mobility.modeling.modeling_mstar import MstarForTrajectoryGeneration


def make_model(*, seed: int = 0, **overrides: Any) -> MstarForTrajectoryGeneration:
    """A tiny model in evaluation mode; every weight of its own is drawn, zero-initialised ones too."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny", **overrides)).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.2)
    return model
