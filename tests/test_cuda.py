"""The three systems on a CUDA device: they answer as on the CPU, train in bfloat16, compile, and generate there."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Trainer

from hf_mobility import (
    ArrayRows,
    MobilityTrainer,
    MstarCodecModel,
    MstarConfig,
    MstarForTrajectoryGeneration,
    MstarTokenizer,
    NextLocationPipeline,
    RawConfig,
    RawForTrajectoryPrediction,
    SamoeTokenizer,
    TrajectoryGenerationPipeline,
    adapt,
    training_arguments,
)
from hf_mobility.baselines.hourly_transformer import HourlyTransformer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
WEEKS, HOURS, CELLS = 6, 24, 16
CONDITIONS = {name: torch.arange(WEEKS) for name in ("home_ids", "work_ids", "attribute_ids")}


def make_generator(**overrides: Any) -> MstarForTrajectoryGeneration:
    """Tiny, in evaluation mode, with weights large enough to matter."""
    torch.manual_seed(0)
    model = MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny", **overrides)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def make_weeks(model: MstarForTrajectoryGeneration, weeks: int = WEEKS) -> torch.Tensor:
    cells = torch.randint(CELLS, (weeks, HOURS), generator=torch.Generator().manual_seed(1))
    return torch.stack([cells % number for number in model.config.codec.cells_per_resolution], dim=1)


def on_cuda(values: Any) -> Any:
    if isinstance(values, torch.nn.Module):
        return copy.deepcopy(values).cuda()
    return {name: value.cuda() for name, value in values.items()}


def assert_same(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 2e-4) -> None:
    torch.testing.assert_close(found.cpu(), wanted, atol=tolerance, rtol=tolerance)


# M-STAR


def test_a_codec_gives_the_same_codes_and_learns() -> None:
    codec = make_generator().codec
    weeks, there = make_weeks(make_generator()), on_cuda(codec)
    assert torch.equal(there.encode(weeks.cuda()).cpu(), codec.encode(weeks))
    assert torch.equal(there.encode(weeks, batch_size=2), codec.encode(weeks))  # from where they are, in parts
    assert_same(there(weeks.cuda()).logits, codec(weeks).logits)
    learner: MstarCodecModel = there.train().requires_grad_(True)
    before = learner.quantiser.codebook.weight.clone()
    with torch.autocast("cuda", torch.bfloat16):
        loss = learner(weeks.cuda()).loss
    loss.backward()
    assert loss.isfinite()
    assert not torch.equal(before, learner.quantiser.codebook.weight)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_generator_has_the_same_loss_and_gradients(attention: str) -> None:
    model = make_generator(dropout=0.0, drop_path=0.0)
    weeks, there = make_weeks(model), on_cuda(model)
    losses = []
    for one, device in ((model, "cpu"), (there, "cuda")):
        one.set_attn_implementation(attention)
        inputs = {name: value.to(device) for name, value in CONDITIONS.items()}
        losses.append(one.train()(input_ids=weeks.to(device), **inputs).loss)
        losses[-1].backward()
    assert_same(losses[1].detach(), losses[0].detach())
    assert_same(there.lm_head.weight.grad, model.lm_head.weight.grad)
    assert_same(there.in_proj.weight.grad, model.in_proj.weight.grad)


@pytest.mark.parametrize("overrides", [{}, {"within_level_steps": 3, "condition_dropout": 0.1}], ids=["plain", "all"])
def test_the_same_numbers_draw_the_same_weeks(overrides: dict[str, Any]) -> None:
    model = make_generator(**overrides)
    settings = {"guidance": 1.5} if overrides else {}
    drawn = [
        one.generate(**CONDITIONS, generator=torch.Generator().manual_seed(3), **settings).cpu()
        for one in (model, on_cuda(model))
    ]
    assert (drawn[0] == drawn[1]).float().mean() > 0.95  # rounding may turn a draw
    numbers = torch.Generator("cuda").manual_seed(3)
    assert on_cuda(model).generate(**CONDITIONS, generator=numbers, **settings).device.type == "cuda"


def test_a_generator_compiles() -> None:
    model = on_cuda(make_generator())
    weeks = make_weeks(model).cuda()
    with torch.no_grad():
        wanted = model(input_ids=weeks, **on_cuda(CONDITIONS)).logits
        found = torch.compile(model)(input_ids=weeks, **on_cuda(CONDITIONS)).logits
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def test_the_trainer_uses_the_device(tmp_path: Path) -> None:
    model = make_generator(scheduled_sampling=0.5)
    rows = ArrayRows({"input_ids": make_weeks(model), **CONDITIONS})
    arguments = training_arguments(
        str(tmp_path), preset="mstar", max_steps=3, per_device_train_batch_size=2, save_strategy="no"
    )
    assert arguments.device.type == "cuda"
    assert arguments.bf16
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=ArrayRows.collate)
    assert np.isfinite(trainer.train().training_loss)


def test_weeks_are_written_on_the_device() -> None:
    tokenizer = MstarTokenizer.from_grid(
        (0, 0, 0.04, 0.04), rows=4, columns=4, factors=(2, 1), timezone="UTC", num_hours=HOURS
    )
    cells = np.random.default_rng(0).integers(0, CELLS, (40, HOURS))
    tokenizer.fit_conditions(cells, seed=0)
    pipeline = TrajectoryGenerationPipeline(on_cuda(make_generator()), tokenizer)
    assert len(pipeline.generate(9, seed=0)) == 9 * HOURS


def test_the_hourly_transformer_trains_there() -> None:
    cells = np.random.default_rng(0).integers(0, CELLS, (40, HOURS))
    model = HourlyTransformer(width=16, layers=1, heads=2).fit(cells, num_cells=CELLS, epochs=1, device="cuda")
    assert model.generate(5, seed=0).shape == (5, HOURS)


# RAW


def make_raw() -> RawForTrajectoryPrediction:
    torch.manual_seed(0)
    return RawForTrajectoryPrediction(RawConfig.from_preset("tiny")).eval()


def test_raw_predicts_and_rolls_out_the_same() -> None:
    model, points = make_raw(), 2 * torch.rand(3, 20, 2, generator=torch.Generator().manual_seed(0)) - 1
    there = on_cuda(model)
    with torch.no_grad():
        assert_same(there(points.cuda(), labels=points.cuda()).predictions, model(points).predictions)
    wanted = model.generate(points, steps=5)
    assert_same(there.generate(points.cuda(), steps=5), wanted)
    assert_same(there.generate(points.cuda(), steps=5, use_cache=False), wanted)


def test_raw_trains_in_bfloat16_and_compiles(tmp_path: Path) -> None:
    points = 2 * torch.rand(8, 20, 2) - 1
    rows = ArrayRows({"coordinates": points, "labels": points})
    arguments = training_arguments(
        str(tmp_path), preset="raw", max_steps=3, per_device_train_batch_size=4, save_strategy="no", torch_compile=True
    )
    trainer = Trainer(make_raw(), arguments, train_dataset=rows, data_collator=ArrayRows.collate)
    assert np.isfinite(trainer.train().training_loss)


# SAMoE


def test_samoe_trains_adapts_and_predicts_there(toy: Any, tmp_path: Path) -> None:
    visits, city = toy.city(24, seed=1)
    base = toy.model()
    arguments = training_arguments(str(tmp_path), max_steps=3, save_strategy="no")
    corpus = toy.corpus((visits, city), config=base.config)
    trainer = MobilityTrainer(copy.deepcopy(base), arguments, train_dataset=corpus)
    assert np.isfinite(trainer.train().training_loss)

    tokenizer = SamoeTokenizer.from_city(city, base.config)
    tables = [NextLocationPipeline(one, tokenizer).predict(visits) for one in (base, on_cuda(base))]
    assert_same(torch.tensor(tables[1]["probability"]), torch.tensor(tables[0]["probability"]), 2e-3)

    adapted = adapt(on_cuda(base), visits, city=city, strength="weak", seed=0).model
    assert next(adapted.parameters()).device.type == "cuda"
