"""A tiny RAW model and random series, shared by the tests of RAW's networks."""

from __future__ import annotations

from typing import Any

import torch

from hf_mobility.modeling.configuration_raw import RawConfig
from hf_mobility.modeling.modeling_raw import RawForTrajectoryPrediction


@torch.no_grad()
def make_model(seed: int = 0, **overrides: Any) -> RawForTrajectoryPrediction:
    """A tiny model in evaluation mode; every parameter is drawn, so that nothing hides behind a zero or a one."""
    model = RawForTrajectoryPrediction(RawConfig.from_preset("tiny", **overrides)).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator) + float(name.endswith("norm.weight")))
    return model


def make_series(batch: int = 3, length: int = 9, seed: int = 0) -> torch.Tensor:
    return 2 * torch.rand(batch, length, 2, generator=torch.Generator().manual_seed(seed)) - 1


def extra(model: RawForTrajectoryPrediction, batch: int = 3) -> dict[str, torch.Tensor]:
    return {"start_weekday": torch.arange(batch)} if model.config.time_features else {}
