"""RAW compiles to one graph, with padding and labels, and trains the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hf_mobility.modeling.configuration_raw import RawConfig
from hf_mobility.modeling.modeling_raw import RawForTrajectoryPrediction, RawForUserProfiling

FORMS: list[dict[str, Any]] = [{}, {"delta_targets": True, "mixture_components": 2, "time_features": True}]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Any:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def make_model(cls: type = RawForTrajectoryPrediction, **overrides: Any) -> Any:
    torch.manual_seed(0)
    return cls(RawConfig.from_preset("tiny", num_hidden_layers=1, **overrides)).eval()


def make_series() -> torch.Tensor:
    return 2 * torch.rand(3, 9, 2, generator=torch.Generator().manual_seed(0)) - 1


@pytest.mark.parametrize("overrides", FORMS, ids=["paper", "all options"])
def test_the_whole_model_compiles_to_one_graph(overrides: dict) -> None:
    model, x = make_model(**overrides), make_series()
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = 0
    inputs = {"attention_mask": mask, "labels": x, "start_weekday": torch.arange(3)}
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        found, wanted = compiled(x, **inputs), model(x, **inputs)
    torch.testing.assert_close(found.predictions[mask.bool()], wanted.predictions[mask.bool()])
    torch.testing.assert_close(found.loss, wanted.loss)


def test_compiled_training_gives_the_same_gradients() -> None:
    gradients = []
    for compiled in (False, True):
        model, x = make_model(), make_series()
        run = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
        run(x, labels=x).loss.backward()
        gradients.append([weight.grad for weight in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_user_profiling_compiles_to_one_graph() -> None:
    model, x = make_model(RawForUserProfiling), make_series()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    labels = torch.tensor([0, 1, 1])
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, labels=labels).loss, model(x, labels=labels).loss)
