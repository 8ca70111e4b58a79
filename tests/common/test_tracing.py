"""`torch.export`, ONNX and `torch.compile` see one graph. A cache is no tensor, so SAMoE is exported without."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import BATCH, CASES, VISITS, Case
from torch.export import Dim

TRACED = ["samoe", "samoe paper", "raw mixture", "raw users", "mstar pointer", "codec"]


def without_cache(case: Case, model: Any) -> dict[str, Any]:
    return {**case.batch(model), **({"use_cache": False} if "samoe" in model.config.model_type else {})}


@pytest.mark.parametrize("name", TRACED)
def test_an_exported_model_answers_as_the_model(name: str) -> None:
    case = CASES[name]
    model = case.model()
    inputs = without_cache(case, model)
    with torch.no_grad():
        program = torch.export.export(model, (), inputs, strict=False)
        changed = {k: v.flip(0) if k != "location_features" and torch.is_tensor(v) else v for k, v in inputs.items()}
        for values in (inputs, changed):
            found = program.module()(**values)[case.output]
            torch.testing.assert_close(found, getattr(model(**values), case.output), atol=1e-5, rtol=1e-4)


def test_an_exported_samoe_serves_other_batches_and_cities() -> None:
    case = CASES["samoe"]
    model = case.model()
    inputs = case.batch(model)
    rows, length, places = Dim("rows", min=2, max=64), Dim("length", min=3, max=512), Dim("places", min=4, max=10_000)
    shapes: dict[str, Any] = {name: {0: rows, 1: length} for name in inputs}
    shapes["location_features"] = {0: places}
    with torch.no_grad():
        program = torch.export.export(
            model, (), {**inputs, "use_cache": False}, strict=False, dynamic_shapes={**shapes, "use_cache": None}
        )
        smaller = {name: value[:2, :4] for name, value in inputs.items() if name != "location_features"}
        smaller["input_ids"] = smaller["input_ids"].clamp(max=8)
        smaller["location_features"] = inputs["location_features"][:9]
        found = program.module()(**smaller, use_cache=False).logits
        assert found.shape == (2, 4, 9) and (BATCH, VISITS) != (2, 4)
        torch.testing.assert_close(found, model(**smaller).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["samoe", "raw", "mstar"])
def test_a_model_is_written_as_onnx(name: str) -> None:
    pytest.importorskip("onnxscript")
    case = CASES[name]
    model = case.model()
    with torch.no_grad():
        program = torch.onnx.export(model, (), kwargs=without_cache(case, model), dynamo=True, verbose=False)
    assert program.model.graph.outputs


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_the_extended_samoe_compiles_to_one_graph(training: bool) -> None:
    case = CASES["samoe"]
    model = case.model().train(training)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager" if training else "eager")
    batch = case.batch(model, labels=True)
    found, wanted = compiled(**batch), model(**batch)
    torch.testing.assert_close(found.loss, wanted.loss)
    if training:
        gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in (found.loss, wanted.loss)]
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    torch.compiler.reset()
