"""A small case of every model class, with inputs, targets and the name of its main output. The tests of tests/common
hold for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from hf_mobility import (
    MstarCodecConfig,
    MstarCodecModel,
    MstarConfig,
    MstarForTrajectoryGeneration,
    RawConfig,
    RawForRegionAnalysis,
    RawForTrajectoryPrediction,
    RawForUserProfiling,
    RawModel,
    SamoeConfig,
    SamoeForNextLocation,
    SamoeModel,
)
from hf_mobility.modeling import RawExtendedForTrajectoryPrediction

BATCH, VISITS, PLACES = 3, 7, 11
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """How to build one model (`options` go to its configuration) and what to feed it. `output` is batch-first."""

    model_class: type
    output: str
    inputs: Callable[[Any], Tensors]
    targets: Callable[[Tensors], Tensors] = field(default=lambda inputs: {})
    options: dict[str, Any] = field(default_factory=dict)

    def config(self, **overrides: Any) -> Any:
        config_class = self.model_class.config_class
        return config_class.from_preset("tiny", **{**self.options, **overrides})

    @torch.no_grad()
    def model(self, *, seed: int = 0, **overrides: Any) -> Any:
        """In evaluation mode; every trainable weight is drawn, so that nothing hides behind a zero."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.model_class(self.config(**overrides)).eval()
            for module in model.modules():
                for weight in module.parameters(recurse=False):
                    if weight.requires_grad:
                        nn.init.normal_(
                            weight, mean=float(isinstance(module, nn.LayerNorm) and weight is module.weight), std=0.2
                        )
        if getattr(model, "copies", None) is not None:
            model.fit_places(torch.stack([cells_around(torch.arange(16)), torch.arange(16)], dim=1))
        return model

    def batch(self, model: Any, *, labels: bool = False) -> Tensors:
        inputs = self.inputs(model.config)
        return {**inputs, **(self.targets(inputs) if labels else {})}

    @torch.no_grad()
    def answer(self, model: Any, **extra: Any) -> torch.Tensor:
        """The main output without targets."""
        return getattr(model(**self.batch(model), **extra), self.output)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def city(config: SamoeConfig) -> torch.Tensor:
    """(N + 2, F): POI shares, x, y, popularity level and km; two zero rows first."""
    level = torch.randint(1, 9, (PLACES, 1), generator=seeded()).float()
    columns = [
        torch.rand(PLACES, config.num_poi_features, generator=seeded()),
        torch.randn(PLACES, 2, generator=seeded()),
    ]
    columns += [level, 3 * torch.randn(PLACES, 2, generator=seeded(1))]
    table = torch.cat(columns, dim=1)[:, : config.num_location_features]
    return torch.cat([torch.zeros(2, table.shape[1]), table])


def visits(config: SamoeConfig) -> Tensors:
    timestamps = 1_700_000_000 + torch.randint(600, 40_000, (BATCH, VISITS), generator=seeded()).cumsum(1)
    return {
        "input_ids": torch.randint(2, PLACES + 2, (BATCH, VISITS), generator=seeded()),
        "time_ids": timestamps // 1800 % 48,
        "weekday_ids": (timestamps // 86_400 + 3) % 7,
        "stay_ids": torch.randint(1, config.num_stay_bins, (BATCH, VISITS), generator=seeded(1)),
        "timestamps": timestamps,
        "location_features": city(config),
    }


def points(config: RawConfig) -> Tensors:
    series = {"coordinates": 2 * torch.rand(BATCH, VISITS, 2, generator=seeded()) - 1}
    return {**series, "start_weekday": torch.arange(BATCH)} if config.time_features else series


def regions(config: RawConfig) -> Tensors:
    return {**points(config), "visitors": torch.tensor([[0, 0], [0, 2], [1, 1], [2, 0], [2, 1]])}


def records(config: RawConfig) -> Tensors:
    slots = 1_800_000 + torch.randint(1, 40, (BATCH, VISITS), generator=seeded()).cumsum(1)
    positions = 3 * torch.randn(BATCH, VISITS, 2, generator=seeded(1))
    return {"positions": positions, "slots": slots, "target_slots": slots[:, -1:] + torch.tensor([1, 10, 96])}


def record_targets(inputs: Tensors) -> Tensors:
    return {"labels": torch.randn(*inputs["target_slots"].shape, 2, generator=seeded(2))}


def cells_around(cells: torch.Tensor) -> torch.Tensor:
    """The cell of a 2 x 2 grid around each of a 4 x 4 grid."""
    return cells // 8 * 2 + cells % 4 // 2


def weeks(config: MstarCodecConfig) -> Tensors:
    fine = torch.randint(0, 16, (BATCH, 24), generator=seeded())
    return {"input_ids": torch.stack([cells_around(fine), fine], dim=1)}


def codes(config: MstarConfig) -> Tensors:
    conditions = torch.randint(0, 8, (3, BATCH), generator=seeded())
    ids = torch.randint(0, 32, (BATCH, 29), generator=seeded(1))
    return {"code_ids": ids, **dict(zip(("home_ids", "work_ids", "attribute_ids"), conditions))}


def visit_targets(inputs: Tensors) -> Tensors:
    return {"labels": inputs["input_ids"], "stay_labels": inputs["stay_ids"]}


def point_targets(inputs: Tensors) -> Tensors:
    return {"labels": inputs["coordinates"]}


def class_targets(inputs: Tensors) -> Tensors:
    return {"labels": torch.tensor([0, 2, 1])}


STILL = {"dropout": 0.0, "drop_path": 0.0}
TASK = {"num_labels": 3, "head_dropout": 0.0, "freeze_encoder": False}
POINTER = {
    "within_level_steps": 2,
    "pointer_head": True,
    "codec_config": MstarCodecConfig.from_preset("tiny", num_encoder_layers=0),
}

CASES = {
    "samoe body": Case(
        SamoeModel,
        "last_hidden_state",
        lambda config: {name: value for name, value in visits(config).items() if name != "timestamps"},
    ),
    "samoe": Case(SamoeForNextLocation, "logits", visits, visit_targets),
    "samoe paper": Case(SamoeForNextLocation, "logits", visits, visit_targets, {"variant": "paper"}),
    "samoe one stream": Case(SamoeForNextLocation, "logits", visits, visit_targets, {"mixture": False}),
    "raw body": Case(RawModel, "last_hidden_state", points),
    "raw": Case(RawForTrajectoryPrediction, "predictions", points, point_targets),
    "raw mixture": Case(
        RawForTrajectoryPrediction,
        "predictions",
        points,
        point_targets,
        {"delta_targets": True, "mixture_components": 2, "time_features": True},
    ),
    "raw extended": Case(
        RawExtendedForTrajectoryPrediction, "predictions", records, record_targets, {"variant": "extended"}
    ),
    "raw users": Case(RawForUserProfiling, "logits", points, class_targets, TASK),
    "raw regions": Case(RawForRegionAnalysis, "logits", regions, class_targets, TASK),
    "mstar": Case(MstarForTrajectoryGeneration, "logits", codes, options=STILL),
    "mstar pointer": Case(MstarForTrajectoryGeneration, "logits", codes, options={**STILL, **POINTER}),
    "codec": Case(MstarCodecModel, "logits", weeks, options={"dropout": 0.0}),
}
TRAINED = [name for name in CASES if not name.endswith("body")]  # these have a loss


def recomputing(model: Any, *, reentrant: bool = False) -> Any:
    """The model, with activations that are recomputed in the backward pass."""
    switch = getattr(model, "activation_checkpointing_enable", None)  # from transformers 5.23 on
    (switch or model.gradient_checkpointing_enable)({"use_reentrant": reentrant})
    return model


def loss_and_gradients(case: Case, model: Any) -> Tensors:
    """Gradients by name, and the loss as `loss`, of one batch with the same random numbers each time."""
    model.zero_grad()
    torch.manual_seed(0)
    loss = model(**case.batch(model, labels=True)).loss
    loss.backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return {"loss": loss.detach(), **found}
