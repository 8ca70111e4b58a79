"""RAW's roll-out: with a cache it equals recomputing everything, whatever the padding, and nothing is drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from raw_town import extra, make_model, make_series
from torch.nn import functional as F
from transformers import StaticCache

from hf_mobility.modeling.generation_raw import roomy_cache
from hf_mobility.modeling.modeling_raw import RawForTrajectoryPrediction

FORMS: list[dict[str, Any]] = [
    {},
    {"delta_targets": True},
    {"mixture_components": 2, "mixture_prediction": "mode"},
    {"time_features": True, "slots_per_day": 4},
]
every_form = pytest.mark.parametrize("overrides", FORMS, ids=lambda form: "-".join(form) or "paper")


def step_by_step(model: RawForTrajectoryPrediction, x: torch.Tensor, steps: int, **inputs: Any) -> torch.Tensor:
    """The definition: forward over everything, append the last prediction, again."""
    for _ in range(steps):
        with torch.no_grad():
            x = torch.cat([x, model(x, **inputs).predictions[:, -1:]], dim=1)
    return x[:, -steps:]


def assert_same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)


@every_form
@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "recomputed"])
def test_a_roll_out_is_one_prediction_after_the_other(overrides: dict, use_cache: bool) -> None:
    model, x = make_model(**overrides), make_series()
    found = model.generate(x, steps=6, use_cache=use_cache, **extra(model))
    assert found.shape == (3, 6, 2) and found.dtype == torch.float32
    assert_same(found, step_by_step(model, x, 6, **extra(model)))


@every_form
@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "recomputed"])
def test_padded_series_roll_out_as_alone(overrides: dict, side: str, use_cache: bool) -> None:
    model, x, lengths = make_model(**overrides), make_series(), [9, 4, 1]
    split = {"left": (1, 0), "right": (0, 1), "both": (1, 1)}[side]
    total = 9 + (2 if side == "both" else 0)
    pads = [((total - n) // sum(split) * split[0], 0) for n in lengths]
    pads = [(left, total - n - left) for (left, _), n in zip(pads, lengths)]
    batch = torch.stack([F.pad(x[b, :n], (0, 0, *pads[b]), value=9.0) for b, n in enumerate(lengths)])
    mask = torch.stack([F.pad(torch.ones(n, dtype=torch.long), pads[b]) for b, n in enumerate(lengths)])
    found = model.generate(batch, attention_mask=mask, steps=5, use_cache=use_cache, **extra(model))
    for b, n in enumerate(lengths):
        alone = {name: value[b : b + 1] for name, value in extra(model).items()}
        assert_same(found[b : b + 1], step_by_step(model, x[b : b + 1, :n], 5, **alone))


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "recomputed"])
def test_a_roll_out_begins_behind_the_last_record(use_cache: bool) -> None:
    """Gaps before it were filled and are read; what a tokenizer filled behind it is not."""
    model, x = make_model(), make_series()
    observed = torch.tensor([[1, 0, 1, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 1, 1, 0]])
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[2, 7:] = 0
    given = {"attention_mask": mask, "observed_mask": observed, "use_cache": use_cache}
    found = model.generate(x, steps=5, **given)
    for b, n in enumerate((5, 9, 7)):
        assert_same(found[b : b + 1], step_by_step(model, x[b : b + 1, :n], 5))
    assert not torch.allclose(found[0], model.generate(x, steps=5, use_cache=use_cache)[0])


def test_series_without_records_cannot_be_rolled_out_from_them() -> None:
    model, x = make_model(), make_series()
    observed = torch.ones(3, 9, dtype=torch.long)
    observed[1] = 0
    with pytest.raises(ValueError, match="1 of 3 series have no record to start from"):
        model.generate(x, observed_mask=observed)
    with pytest.raises(ValueError, match=r"observed_mask has shape \(3, 8\), the series have \(3, 9\)"):
        model.generate(x, observed_mask=observed[:, 1:])


def test_given_positions_go_on_where_they_end() -> None:
    model, x = make_model(), make_series()
    positions = torch.arange(100, 109).expand(3, -1)
    found = model.generate(x, position_ids=positions, steps=4)
    series = x
    for step in range(4):
        with torch.no_grad():
            output = model(series, position_ids=torch.arange(100, 109 + step).expand(3, -1))
        series = torch.cat([series, output.predictions[:, -1:]], dim=1)
    assert_same(found, series[:, -4:])
    assert not torch.allclose(found, model.generate(x, steps=4))


@pytest.mark.parametrize("right", [0, 4])
def test_a_static_cache_gives_the_same(right: int) -> None:
    model, x = make_model(), make_series()
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 9 - right :] = 0
    cache = StaticCache(config=model.config, max_cache_len=9 + 5)
    found = model.generate(x, attention_mask=mask, steps=6, past_key_values=cache)
    assert_same(found, model.generate(x, attention_mask=mask, steps=6))


def test_nothing_is_drawn() -> None:
    model, x = make_model(), make_series()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = model.generate(x, steps=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, model.generate(x, steps=5)) and not first.requires_grad


def test_the_first_step_is_the_last_prediction_and_the_input_is_not_changed() -> None:
    model, x = make_model(), make_series()
    before = x.clone()
    with torch.no_grad():
        assert_same(model.generate(x, steps=1), model(x).predictions[:, -1:])
    assert torch.equal(x, before)


def test_the_last_point_needs_no_position() -> None:
    """The paper's protocol on a full table: 12 slots, 9 known, 3 steps; the point behind the table is still given."""
    model, x = make_model(max_position_embeddings=12), make_series()
    assert model.generate(x, steps=4).shape == (3, 4, 2)
    with pytest.raises(ValueError, match="5 steps after slot 8 need 13 positions, this model has max_position_emb"):
        model.generate(x, steps=5)


def test_faulty_calls_get_a_sentence() -> None:
    model, x = make_model(), make_series()
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        model.generate(x, steps=0)
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1] = 0
    with pytest.raises(ValueError, match="1 of 3 series are all padding"):
        model.generate(x, attention_mask=mask)
    with pytest.raises(ValueError, match="coordinates must be"):
        model.generate(x[0])


def test_the_cache_has_room_and_copies_nothing() -> None:
    model, x = make_model(), make_series()
    cache = roomy_cache(model.config.num_hidden_layers, 9 + 5)
    with torch.no_grad():
        model(x, past_key_values=cache, use_cache=True)
        before = [(layer.keys.data_ptr(), layer.values.data_ptr(), layer.keys.clone()) for layer in cache.layers]
        model(x[:, :5], past_key_values=cache, use_cache=True)
    assert cache.get_seq_length() == 14
    for layer, (keys, values, old) in zip(cache.layers, before):
        assert (layer.keys.data_ptr(), layer.values.data_ptr()) == (keys, values)
        assert torch.equal(layer.keys[:, :, :9], old) and layer.keys.shape[2] == 14
    with pytest.raises(RuntimeError):
        model(x[:, :1], past_key_values=cache, use_cache=True)
