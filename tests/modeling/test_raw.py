"""RAW against independent computations: parameter counts, a reference in plain tensors, losses, options, pooling."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from raw_town import make_model, make_series
from torch.nn import functional as F

from hf_mobility.modeling.configuration_raw import RawConfig
from hf_mobility.modeling.mixture_raw import negative_log_likelihood, predicted_point, read_mixture
from hf_mobility.modeling.modeling_raw import RawForTrajectoryPrediction, RawModel

# Sizes


def count(**config: Any) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in RawForTrajectoryPrediction(RawConfig(**config)).parameters())


def formula(layers: int, width: int, slots: int) -> int:
    """Section 1.2 of the specification."""
    return layers * (12 * width**2 + 13 * width) + 10 * width**2 + 16 * width + slots * width + 2


@pytest.mark.parametrize(
    ("size", "millions"), [("tiny", 0.0247), ("small", 1.08), ("base", 91.7), ("large", 489.9), ("1b", 1045.0)]
)
def test_sizes_have_the_parameters_of_the_formula(size: str, millions: float) -> None:
    config = RawConfig.from_preset(size)
    found = count(**config.to_diff_dict())
    assert found == formula(config.num_hidden_layers, config.hidden_size, 960)
    assert found / 1e6 == pytest.approx(millions, rel=2e-3)


def test_base_has_the_papers_number_of_parameters() -> None:
    assert count(hidden_size=768, num_hidden_layers=12, num_attention_heads=16) == 91_702_274
    assert count(hidden_size=768, num_hidden_layers=16, num_attention_heads=16) == pytest.approx(120.1e6, rel=1e-3)
    assert count(hidden_size=512, num_hidden_layers=6, num_attention_heads=8) == pytest.approx(22.0e6, rel=3e-3)


def test_the_figures_linear_head_is_smaller() -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    assert count(**small) - count(**small, output_head="linear") == 8 * 16**2 + 5 * 16


# The model, written a second time


def reference(weights: dict[str, torch.Tensor], x: torch.Tensor, heads: int, layers: int) -> tuple[torch.Tensor, ...]:
    """Section 1.2 with matrices and sums only: (B, T, 2) -> states (B, T, D), next points (B, T, 2)."""

    def linear(name: str, value: torch.Tensor) -> torch.Tensor:
        return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, value: torch.Tensor) -> torch.Tensor:
        centred = value - value.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    length = x.shape[1]
    z = linear("model.point_embedding.down_proj", linear("model.point_embedding.up_proj", x).clamp(min=0))
    z = z + weights["model.position_embedding.weight"][:length]
    for layer in range(layers):
        name = f"model.layers.{layer}"
        normed = norm(f"{name}.input_layernorm", z)
        q, k, v = (
            linear(f"{name}.self_attn.{part}_proj", normed).split(z.shape[-1] // heads, dim=-1) for part in "qkv"
        )
        mixed = []
        for head in range(heads):
            scores = q[head] @ k[head].transpose(1, 2) / math.sqrt(z.shape[-1] // heads)
            scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
            weight = scores.exp() / scores.exp().sum(-1, keepdim=True)
            mixed.append(weight @ v[head])
        z = z + linear(f"{name}.self_attn.o_proj", torch.cat(mixed, dim=-1))
        hidden = linear(f"{name}.mlp.up_proj", norm(f"{name}.post_attention_layernorm", z))
        z = z + linear(f"{name}.mlp.down_proj", hidden / (1 + (-hidden).exp()))
    z = norm("model.norm", z)
    first = linear("prediction_head.up_proj", z).clamp(min=0)
    return z, linear("prediction_head.out_proj", linear("prediction_head.down_proj", first).clamp(min=0))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_model_is_the_reference(heads: int) -> None:
    model, x = make_model(num_attention_heads=heads).double(), make_series().double()
    states, points = reference(model.state_dict(), x, heads=heads, layers=2)
    with torch.no_grad():
        output = model(x, output_hidden_states=True)
        body = model.model(x)
    torch.testing.assert_close(output.hidden_states[-1], states, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(output.predictions.double(), points, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(body.user_embedding, states.mean(1), atol=1e-6, rtol=1e-6)


def test_weights_start_as_the_authors_code_starts_them() -> None:
    """PyTorch's defaults, and N(0, 0.02) for positions."""
    torch.manual_seed(0)
    model = RawForTrajectoryPrediction(RawConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2))
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            for weight in (module.weight, module.bias):
                assert weight.abs().max() <= bound, name
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15), name
        if isinstance(module, torch.nn.LayerNorm):
            assert (module.weight == 1).all() and (module.bias == 0).all()
    assert model.model.position_embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)


# Losses


def test_the_loss_is_the_mean_squared_error_of_the_next_point() -> None:
    model, x = make_model(), make_series()
    with torch.no_grad():
        output = model(x, labels=x)
    error = output.predictions[:, :-1] - x[:, 1:]
    torch.testing.assert_close(output.loss, error.square().mean())
    torch.testing.assert_close(output.mae, error.abs().mean())
    torch.testing.assert_close(output.copy_last_mae, (x[:, :-1] - x[:, 1:]).abs().mean())


@pytest.mark.parametrize("fill", [0.0, 7.0, math.nan])
def test_padded_and_ignored_targets_do_not_count(fill: float) -> None:
    model, x = make_model(), make_series(2, 9)
    mask = torch.tensor([[1] * 6 + [0] * 3, [0] * 2 + [1] * 7])
    padded = torch.where(mask.bool().unsqueeze(-1), x, fill)
    labels = padded.clone()
    labels[0, 3] = -100.0
    output = model(padded, attention_mask=mask, labels=labels)
    rows = [output.predictions[0, [0, 1, 3, 4]] - x[0, [1, 2, 4, 5]], output.predictions[1, 2:8] - x[1, 3:9]]
    torch.testing.assert_close(output.loss, torch.cat(rows).square().mean())
    output.loss.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_only_observed_targets_may_count() -> None:
    model, x = make_model(loss_on_observed_only=True), make_series(1, 9)
    observed = torch.tensor([[1, 1, 0, 0, 1, 0, 0, 1, 0]])
    with torch.no_grad():
        output = model(x, labels=x, observed_mask=observed)
    error = output.predictions[0, [0, 3, 6]] - x[0, [1, 4, 7]]
    torch.testing.assert_close(output.loss, error.square().mean())
    with pytest.raises(ValueError, match="observed_mask is needed"):
        model(x, labels=x)


def test_a_batch_of_nothing_but_padding_has_loss_zero() -> None:
    model, x = make_model(), make_series(2, 4)
    output = model(x, attention_mask=torch.zeros(2, 4, dtype=torch.long), labels=x)
    assert output.loss == 0 and output.mae == 0


# Options that are not in the paper


def test_noise_is_on_what_is_read_in_training_and_never_on_the_targets() -> None:
    """The head says "no displacement": the loss is that of the noisy points as predictions, 0.1 squared per axis."""
    model, x = make_model(input_noise=0.1, delta_targets=True), torch.full((40, 60, 2), 0.25)
    torch.nn.init.zeros_(list(model.prediction_head.parameters())[-1])
    torch.nn.init.zeros_(list(model.prediction_head.parameters())[-2])
    model.train()
    torch.manual_seed(0)
    assert model(x, labels=x).loss.item() == pytest.approx(0.01, rel=0.1)
    model.eval()
    assert model(x, labels=x).loss == 0


def test_displacements_are_added_to_the_last_point() -> None:
    plain, shifted, x = make_model(), make_model(delta_targets=True), make_series()
    with torch.no_grad():
        torch.testing.assert_close(shifted(x).predictions, plain(x).predictions + x)
    with pytest.raises(ValueError, match="predicts displacements"):
        shifted(inputs_embeds=torch.zeros(1, 2, 16))


@pytest.mark.parametrize("delta", [False, True])
def test_a_mixtures_loss_is_the_likelihood_of_torchs_distributions(delta: bool) -> None:
    model, x = make_model(mixture_components=3, delta_targets=delta), make_series()
    with torch.no_grad():
        output = model(x, labels=x)
    mix = output.mixture
    covariance = torch.diag_embed(mix.scales**2)
    covariance[..., 0, 1] = covariance[..., 1, 0] = mix.correlations * mix.scales.prod(-1)
    independent = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=mix.log_weights),
        torch.distributions.MultivariateNormal(mix.means, covariance),
    )
    target = torch.cat([x[:, 1:], x[:, :1]], dim=1)
    torch.testing.assert_close(output.loss, -independent.log_prob(target)[:, :-1].mean(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.predictions, independent.mean, atol=1e-5, rtol=1e-5)


def test_a_mixture_may_predict_its_most_likely_component() -> None:
    mean, mode = make_model(mixture_components=3), make_model(mixture_components=3, mixture_prediction="mode")
    with torch.no_grad():
        mixture, points = mean(make_series()).mixture, mode(make_series()).predictions
    best = mixture.log_weights.argmax(-1)
    for b in range(3):
        for t in range(9):
            assert torch.equal(points[b, t], mixture.means[b, t, best[b, t]])


def test_people_who_stand_still_have_a_bounded_likelihood() -> None:
    raw = torch.tensor([[0.0, 0.2, 0.3, -1e4, -1e4, 50.0]])
    mixture = read_mixture(raw, None, min_scale=0.001)
    point = predicted_point(mixture, "mean")
    torch.testing.assert_close(point, torch.tensor([[0.2, 0.3]]))
    assert torch.isfinite(negative_log_likelihood(mixture, point)).all()


def test_time_features_are_those_of_slot_and_weekday() -> None:
    model, x = make_model(time_features=True, slots_per_day=4), make_series(2, 9)
    start = torch.tensor([5, 0])  # Saturday, Monday
    features = []
    for weekday in start.tolist():
        slots = [(2 * math.pi * (t % 4) / 4, 2 * math.pi * ((weekday + t // 4) % 7) / 7) for t in range(9)]
        features.append([[math.sin(a), math.sin(b), math.cos(a), math.cos(b)] for a, b in slots])
    with torch.no_grad():
        added = model.model.time_features.proj(torch.tensor(features))
        found = model(x, start_weekday=start).predictions
        embeds = model.model.point_embedding(x) + added
        model.model.time_features = None
        torch.testing.assert_close(found, model(inputs_embeds=embeds).predictions)


def test_time_features_need_the_first_day() -> None:
    model = make_model(time_features=True)
    with pytest.raises(ValueError, match="start_weekday is needed"):
        model(make_series())
    sunday, monday = (model(make_series(), start_weekday=torch.full((3,), day)).predictions for day in (6, 0))
    assert not torch.allclose(sunday, monday)


# User embeddings


@pytest.mark.parametrize(("pooling", "first"), [("mean", 0), ("last_day", 5), ("last", 8)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_user_is_the_mean_of_unpadded_states(pooling: str, first: int, side: str) -> None:
    model = RawModel(RawConfig.from_preset("tiny", user_pooling=pooling, slots_per_day=4)).eval()
    x = make_series()
    pad = (0, 0, 3, 0) if side == "left" else (0, 0, 0, 3)
    mask = F.pad(torch.ones(3, 9, dtype=torch.long), pad[2:])
    with torch.no_grad():
        plain, padded = model(x), model(F.pad(x, pad, value=5.0), attention_mask=mask)
    wanted = plain.last_hidden_state[:, first:].mean(1)
    torch.testing.assert_close(plain.user_embedding, wanted)
    torch.testing.assert_close(padded.user_embedding, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_parts_of_the_day_are_pooled_apart(side: str) -> None:
    model = RawModel(RawConfig.from_preset("tiny", user_pooling="day_parts", slots_per_day=4)).eval()
    x = make_series()  # nine slots from midnight on: two days and a night
    pad = (0, 0, 3, 0) if side == "left" else (0, 0, 0, 3)
    mask = F.pad(torch.ones(3, 9, dtype=torch.long), pad[2:])
    with torch.no_grad():
        plain, padded = model(x), model(F.pad(x, pad, value=5.0), attention_mask=mask)
        morning = model(x, position_ids=torch.arange(1, 10)[None])  # begins six hours later
    states = plain.last_hidden_state
    wanted = torch.cat([states[:, [0, 4, 8]].mean(1), *(states[:, [k, k + 4]].mean(1) for k in (1, 2, 3))], dim=-1)
    torch.testing.assert_close(plain.user_embedding, wanted)
    torch.testing.assert_close(padded.user_embedding, wanted, atol=1e-5, rtol=1e-5)
    states = morning.last_hidden_state
    torch.testing.assert_close(morning.user_embedding[:, 16:32], states[:, [0, 4, 8]].mean(1))
    assert not model(x[:, :2]).user_embedding[:, 32:].any()  # quarters without a slot
    torch.testing.assert_close(model(x, position_ids=torch.arange(9)).user_embedding, wanted)  # one row for all


def test_a_piece_of_a_series_is_no_user() -> None:
    body, x = make_model().model, make_series()
    first = body(x[:, :5], use_cache=True)
    assert first.user_embedding is not None
    assert body(x[:, 5:], past_key_values=first.past_key_values).user_embedding is None


# Inputs


def test_misshapen_inputs_get_a_sentence() -> None:
    model, x = make_model(max_position_embeddings=8), make_series()
    with pytest.raises(ValueError, match="coordinates are needed"):
        model()
    with pytest.raises(ValueError, match="coordinates are needed"):
        model(x, inputs_embeds=torch.zeros(3, 9, 16))
    with pytest.raises(ValueError, match=r"coordinates must be \(series, slots, 2\), got \(3, 9\)"):
        model(x[..., 0])
    with pytest.raises(ValueError, match="slot 8 lies beyond max_position_embeddings=8"):
        model(x)
    with pytest.raises(ValueError, match="slot 11 lies beyond"):
        model(x[:, :4], position_ids=torch.arange(8, 12).unsqueeze(0))


def test_embedded_points_may_be_given() -> None:
    model, x = make_model(), make_series()
    with torch.no_grad():
        torch.testing.assert_close(
            model(inputs_embeds=model.model.point_embedding(x)).predictions, model(x).predictions
        )


def test_a_step_of_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model, x = RawForTrajectoryPrediction(RawConfig.from_preset("tiny")), make_series()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = model(x, labels=x).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
