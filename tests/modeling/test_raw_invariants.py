"""What must not change RAW's output: later points, padding, the cache, the kernel, checkpointing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from raw_town import extra, make_model, make_series
from small_models import recomputing
from torch.nn import functional as F

from hf_mobility.modeling.modeling_raw import RawForTrajectoryPrediction

FORMS: list[dict[str, Any]] = [
    {},
    {"output_head": "linear"},
    {"delta_targets": True, "mixture_components": 2},
    {"time_features": True, "slots_per_day": 4, "user_pooling": "last_day"},
]
every_form = pytest.mark.parametrize("overrides", FORMS, ids=lambda form: "-".join(form) or "paper")


def assert_same(found: torch.Tensor, wanted: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found, wanted, atol=atol, rtol=1e-5)


# Causality


@every_form
@pytest.mark.parametrize("changed", [1, 5, 8])
def test_changing_a_later_point_changes_no_earlier_output(overrides: dict, changed: int) -> None:
    model, x = make_model(**overrides), make_series()
    other = x.clone()
    other[:, changed] += 0.5
    with torch.no_grad():
        before = model(x, output_hidden_states=True, **extra(model))
        after = model(other, output_hidden_states=True, **extra(model))
    for a, b in zip((before.predictions, *before.hidden_states), (after.predictions, *after.hidden_states)):
        assert torch.equal(a[:, :changed], b[:, :changed])
        assert not torch.allclose(a[:, changed], b[:, changed])


# Padding


@every_form
@pytest.mark.parametrize(("left", "right"), [(4, 0), (0, 4), (2, 3)])
@pytest.mark.parametrize("fill", [0.0, 5.0, float("nan")], ids=["zeros", "garbage", "nan"])
def test_padding_changes_nothing(overrides: dict, left: int, right: int, fill: float) -> None:
    model, x = make_model(**overrides), make_series()
    mask = F.pad(torch.ones(3, 9, dtype=torch.long), (left, right))
    with torch.no_grad():
        plain = model(x, **extra(model)).predictions
        padded = model(F.pad(x, (0, 0, left, right), value=fill), attention_mask=mask, **extra(model)).predictions
    assert_same(padded[:, left : left + 9], plain)
    assert torch.isfinite(padded).all()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_series_of_different_lengths_are_scored_as_alone(side: str, attention: str) -> None:
    model, x, lengths = make_model(), make_series(), [9, 4, 1]
    model.set_attn_implementation(attention)
    pads = [(9 - n, 0) if side == "left" else (0, 9 - n) for n in lengths]
    batch = torch.stack([F.pad(x[b, :n], (0, 0, *pads[b])) for b, n in enumerate(lengths)])
    mask = torch.stack([F.pad(torch.ones(n, dtype=torch.long), pads[b]) for b, n in enumerate(lengths)])
    with torch.no_grad():
        together = model(batch, attention_mask=mask).predictions
        for b, n in enumerate(lengths):
            assert_same(together[b, mask[b].bool()], model(x[b : b + 1, :n]).predictions[0])


def test_padding_does_not_change_the_loss_or_its_gradient() -> None:
    model, x = make_model(), make_series()

    def gradients(left: int, right: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        series, mask = F.pad(x, (0, 0, left, right)), F.pad(torch.ones(3, 9, dtype=torch.long), (left, right))
        loss = model(series, attention_mask=mask, labels=series).loss
        loss.backward()
        return loss.detach(), [weight.grad.clone() for weight in model.parameters()]

    plain_loss, plain = gradients(0, 0)
    for sides in ((3, 0), (0, 3)):
        loss, found = gradients(*sides)
        assert_same(loss, plain_loss)
        for a, b in zip(found, plain, strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-3)


# Positions


def test_given_positions_are_used_and_may_have_gaps() -> None:
    """A jump in the positions is a gap in time; the points before it are still seen."""
    model, x = make_model(), make_series()
    positions = torch.tensor([[0, 1, 2, 50, 51, 52, 400, 401, 402]]).expand(3, -1)
    with torch.no_grad():
        plain = model(x).predictions
        assert_same(model(x, position_ids=torch.arange(9).expand(3, -1)).predictions, plain)
        jumped = model(x, position_ids=positions).predictions
        assert_same(jumped[:, :3], plain[:, :3])
        changed = x.clone()
        changed[:, 0] += 0.5
        assert not torch.allclose(model(changed, position_ids=positions).predictions[:, 8], jumped[:, 8])


# Cache


@every_form
@pytest.mark.parametrize("chunks", [[1] * 9, [4, 3, 2], [1, 7, 1]], ids=str)
@pytest.mark.parametrize("left", [0, 3], ids=["plain", "left-padded"])
def test_with_a_cache_pieces_give_the_same_as_the_whole(overrides: dict, chunks: list[int], left: int) -> None:
    model, x = make_model(**overrides), make_series()
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1:, :left] = 0
    with torch.no_grad():
        wanted = model(x, attention_mask=mask, **extra(model)).predictions
        cache, pieces, start = None, [], 0
        for size in chunks:
            stop = start + size
            output = model(
                x[:, start:stop],
                attention_mask=mask[:, :stop] if left else None,
                past_key_values=cache,
                use_cache=True,
                **extra(model),
            )
            cache, start = output.past_key_values, stop
            pieces.append(output.predictions)
    assert cache.get_seq_length() == 9
    real = mask.bool()
    assert_same(torch.cat(pieces, dim=1)[real], wanted[real], atol=2e-5)


def test_with_a_cache_the_mask_must_cover_the_past() -> None:
    model, x = make_model(), make_series()
    cache = model(x[:, :6], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="attention_mask has 3 columns; 6 slots in the cache and 3 new ones need 9"):
        model(x[:, 6:], attention_mask=torch.ones(3, 3), past_key_values=cache)


def test_by_default_no_cache_is_built() -> None:
    model = make_model()
    assert model(make_series()).past_key_values is None
    assert model(make_series(), use_cache=True).past_key_values.get_seq_length() == 9


# Implementations


@every_form
@pytest.mark.parametrize("left", [0, 3])
def test_eager_and_sdpa_attention_agree(overrides: dict, left: int) -> None:
    model, x = make_model(**overrides), make_series()
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, :left] = 0
    found = []
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        with torch.no_grad():
            found.append(model(x, attention_mask=mask, **extra(model)).predictions[mask.bool()])
    assert_same(*found)


def test_attention_maps_are_causal_and_sum_to_one() -> None:
    model = make_model()
    model.set_attn_implementation("eager")
    maps = model(make_series(), output_attentions=True).attentions
    assert len(maps) == 2 and maps[0].shape == (3, 2, 9, 9)
    for attention in maps:
        assert_same(attention.sum(-1), torch.ones(3, 2, 9))
        assert attention.triu(1).abs().max() == 0


@every_form
def test_gradient_checkpointing_gives_plain_gradients(overrides: dict) -> None:
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        model, x = make_model(**overrides), make_series()
        model.train()
        if checkpointing:
            recomputing(model)
            assert all(layer.gradient_checkpointing for layer in model.model.layers)
        model(x, labels=x, **extra(model)).loss.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    plain, saved = gradients(False), gradients(True)
    assert None not in plain.values()
    for name in plain:
        assert_same(saved[name], plain[name], atol=1e-6)


# Precision


def test_bfloat16_is_close_and_keeps_coordinates(tmp_path: Path) -> None:
    """The first and last matrix stay float32: two points 100 m apart in a box of 180 km are still two points."""
    model, x = make_model(), make_series()
    model.save_pretrained(tmp_path)
    half = RawForTrajectoryPrediction.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert half.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert (
        half.model.point_embedding.up_proj.weight.dtype == half.prediction_head.out_proj.weight.dtype == torch.float32
    )
    with torch.no_grad():
        wanted, found = model(x, labels=x), half(x, labels=x)
        assert found.predictions.dtype == torch.float32 and found.loss.dtype == torch.float32
        torch.testing.assert_close(found.predictions, wanted.predictions, atol=0.1, rtol=0.1)
        near = x[:, :1] + 0.001
        seen = half.model.point_embedding.up_proj(near) - half.model.point_embedding.up_proj(x[:, :1])
        assert (seen != 0).any(-1).all()
        half.bfloat16()
        torch.testing.assert_close(half(x).predictions, wanted.predictions, atol=0.15, rtol=0.15)


def test_autocast_is_close_and_gives_float32_points() -> None:
    model, x = make_model(delta_targets=True), make_series()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(x, labels=x)
    with torch.no_grad():
        wanted = model(x, labels=x)
    assert found.predictions.dtype == torch.float32
    torch.testing.assert_close(found.predictions, wanted.predictions, atol=0.1, rtol=0.1)
    torch.testing.assert_close(found.copy_last_mae, wanted.copy_last_mae)
