"""The M-STAR codec against plain torch written out step by step, and its methods against its forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_mobility.modeling.configuration_mstar import MstarCodecConfig
from hf_mobility.modeling.modeling_mstar_codec import MstarCodecModel

HALF_HOURS = {
    "num_cells": 25,
    "cells_per_resolution": [6, 25],
    "level_lengths": [1, 2, 4, 8, 12, 16, 24, 48],
    "level_resolutions": [0, 0, 0, 0, 1, 1, 1, 1],
    "hidden_size": 16,
    "codebook_size": 32,
    "num_attention_heads": 2,
}
ONE_AND_A_HALF_HOURS = {"level_lengths": [1, 5, 7, 10], "level_resolutions": [0, 0, 1, 1], "num_cells": 16}
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("corrected", {}),
    ("released", {}),
    ("corrected", {"search": "cosine", "code_loss": "last", "straight_through": "finest", "refiner_norm": False}),
    ("corrected", {"num_encoder_layers": 0}),
    ("corrected", {"codebook_update": "gradient", **ONE_AND_A_HALF_HOURS}),
    ("released", HALF_HOURS),
    ("corrected", {**HALF_HOURS, "level_resolutions": [1, 0, 0, 0, 0, 0, 0, 1]}),
]
every_form = pytest.mark.parametrize(("variant", "overrides"), FORMS, ids=str)


@torch.no_grad()
def make_codec(variant: str = "corrected", *, seed: int = 0, **overrides: Any) -> MstarCodecModel:
    """A tiny codec in evaluation mode; every weight is random, biases, norms and codes too."""
    model = MstarCodecModel(MstarCodecConfig.from_preset("tiny", variant=variant, **overrides)).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    codes = model.quantiser.codebook.weight
    codes.copy_(torch.randn(codes.shape, generator=generator))
    for table in model.cell_embeddings:
        table.weight.mul_(10)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.add_(1)
    return model


def make_weeks(config: MstarCodecConfig, n: int = 3, *, seed: int = 0) -> torch.Tensor:
    """(n, R, L): a random walk of stays per resolution. Resolutions need not agree for these tests."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n, 1, config.num_hours)
    ids = [torch.randint(cells, shape, generator=generator) for cells in config.cells_per_resolution]
    stays = torch.rand(shape, generator=generator).gt(0.4).long().cumsum(-1).clamp(max=config.num_hours - 1)
    return torch.cat([cells.gather(-1, stays) for cells in ids], dim=1)


def make_mask(n: int, hours: int, *, seed: int = 0) -> torch.Tensor:
    """(n, hours) int64: the first week is whole, the last is empty, others have gaps, one of them a long one."""
    mask = torch.rand(n, hours, generator=torch.Generator().manual_seed(seed)).gt(0.3).long()
    mask[0], mask[-1] = 1, 0
    mask[1, : hours // 2] = 0
    return mask


# The reference


def torch_layers(layers: nn.ModuleList, config: MstarCodecConfig) -> nn.Module:
    """`nn.TransformerEncoder` with the weights of a stack of the codec's layers."""
    plain = nn.TransformerEncoderLayer(
        config.hidden_size, config.num_attention_heads, config.intermediate_size, activation="gelu", batch_first=True
    )
    plain = nn.TransformerEncoder(plain, len(layers), enable_nested_tensor=False).eval()
    for theirs, ours in zip(plain.layers, layers):
        attention = ours.self_attn
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        pairs = [
            (theirs.self_attn.in_proj_weight, torch.cat([part.weight for part in parts])),
            (theirs.self_attn.in_proj_bias, torch.cat([part.bias for part in parts])),
        ]
        for name, module in (
            ("self_attn.out_proj", attention.o_proj),
            ("linear1", ours.up_proj),
            ("linear2", ours.down_proj),
            ("norm1", ours.post_attention_layernorm),
            ("norm2", ours.post_feedforward_layernorm),
        ):
            target = theirs.get_submodule(name)
            pairs += [(target.weight, module.weight), (target.bias, module.bias)]
        for target, value in pairs:
            target.data = value.detach().clone()  # in float64, as the model here
    return plain


def sinusoids(length: int, width: int) -> torch.Tensor:
    table = torch.zeros(length, width, dtype=torch.float64)
    for t in range(length):
        for i in range(0, width, 2):
            angle = t / 10000 ** (i / width)
            table[t, i], table[t, i + 1] = math.sin(angle), math.cos(angle)
    return table


def phi(model: MstarCodecModel, level: int, values: torch.Tensor) -> torch.Tensor:
    """Phi of equation m = h + Conv(h) / 2, Phi = m + W2 GELU(W1 m), after bicubic upsampling of (N, T, D)."""
    refiner, config = model.quantiser.refiners[level], model.config
    target = config.level_lengths[level + 1]
    picture = values.transpose(1, 2).unsqueeze(-1)
    h = F.interpolate(picture, size=(target, 1), mode="bicubic", align_corners=False).squeeze(-1)
    kernel = refiner.conv_proj.weight.unflatten(1, (3, config.hidden_size)).permute(0, 2, 1)
    m = (h + 0.5 * F.conv1d(h, kernel, refiner.conv_proj.bias, padding=1)).transpose(1, 2)
    inner = refiner.norm(m) if config.refiner_norm else m
    return m + refiner.down_proj(F.gelu(refiner.up_proj(inner)))


def reference(model: MstarCodecModel, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Section 1.2 of the paper's tokenizer, all levels encoded one by one, codes searched one by one."""
    config = model.config
    decoder = torch_layers(model.decoder, config)
    places = sinusoids(config.num_hours, config.hidden_size)
    codes = model.quantiser.codebook.weight
    encoded, features, fhat, found = [], [], [], []
    for level, resolution in enumerate(config.level_resolutions):
        vectors = model.cell_embeddings[resolution](ids[:, resolution])
        encoded.append(torch_layers(model.encoder, config)(vectors + places) if model.encoder else vectors)
        pooled = F.adaptive_avg_pool1d(encoded[-1].transpose(1, 2), config.level_lengths[level]).transpose(1, 2)
        features.append(pooled)
        u = phi(model, level - 1, fhat[-1]) if level else torch.zeros_like(pooled)
        reference_point = phi(model, level - 1, features[-2]) if level and config.residual == "continuous" else u
        chosen = torch.zeros(pooled.shape[:2], dtype=torch.int64)
        for n in range(len(ids)):
            for t in range(pooled.shape[1]):
                r = (pooled - reference_point)[n, t].detach()
                if config.search == "cosine":
                    chosen[n, t] = F.cosine_similarity(r[None], codes).argmax()
                else:
                    chosen[n, t] = (r - codes).norm(dim=-1).argmin()
        found.append(chosen)
        fhat.append(u + codes[chosen])
    levels = len(features)
    carrier = sum(encoded) / levels if config.straight_through == "mean" else features[-1]
    z = carrier + (fhat[-1] - carrier).detach()
    logits = model.cell_head(decoder(z + places))
    rec = F.cross_entropy(logits.flatten(0, 1), ids[:, -1].flatten())
    differences = [F.mse_loss(a, b.detach()) for a, b in zip(fhat, features)]
    code = sum(differences) if config.code_loss == "all" else differences[-1]
    commit = sum(F.mse_loss(b, a.detach()) for a, b in zip(fhat, features))
    weight = config.code_loss_weight / (levels if config.code_loss == "all" else 1)
    return {
        "loss": rec + weight * code + config.commitment_weight / levels * commit,
        "reconstruction_loss": rec,
        "codebook_loss": code,
        "commitment_loss": commit,
        "logits": logits,
        "code_ids": torch.cat(found, dim=1),
        "features": torch.cat(features, dim=1),
        "fhat": fhat[-1],
    }


@every_form
def test_outputs_are_those_of_plain_torch(variant: str, overrides: dict[str, Any]) -> None:
    model = make_codec(variant, **overrides).double()
    weeks = make_weeks(model.config)
    wanted, output = reference(model, weeks), model(weeks)
    assert torch.equal(output.code_ids, wanted["code_ids"])
    assert len(output.code_ids.unique()) > 4
    for name in ("loss", "reconstruction_loss", "codebook_loss", "commitment_loss", "logits"):
        torch.testing.assert_close(output[name], wanted[name], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat(model.level_features(weeks), 1), wanted["features"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.teacher_inputs(output.code_ids)[1], wanted["fhat"], atol=1e-5, rtol=1e-5)


@every_form
def test_gradients_are_those_of_plain_torch(variant: str, overrides: dict[str, Any]) -> None:
    """Straight-through and detached terms send the same gradients everywhere. The reference's layers are copies, so it
    is compared where both use one tensor."""
    model = make_codec(variant, **overrides).double()
    weeks = make_weeks(model.config)
    shared = {n: p for n, p in model.named_parameters() if not n.startswith(("encoder", "decoder")) and p.requires_grad}
    wanted = torch.autograd.grad(reference(model, weeks)["loss"], list(shared.values()))
    found = torch.autograd.grad(model(weeks).loss, list(shared.values()))
    assert ("quantiser.codebook.weight" in shared) == (model.config.codebook_update == "gradient")
    for name, ours, theirs in zip(shared, found, wanted):
        assert theirs.abs().max() > 0, name
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@every_form
def test_every_trainable_weight_gets_a_gradient(variant: str, overrides: dict[str, Any]) -> None:
    model = make_codec(variant, **overrides).train()
    model(make_weeks(model.config)).loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    frozen = {name.split(".")[2:4][-1] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == (set() if model.config.refiner_norm else {"norm"})


def test_a_resolution_that_no_level_reads_is_frozen() -> None:
    model = make_codec(level_resolutions=[1, 1, 1])
    assert not model.cell_embeddings[0].weight.requires_grad
    weeks = make_weeks(model.config)
    other = weeks.clone()
    other[:, 0] = 0
    assert torch.equal(model(weeks).logits, model(other).logits)


# Sizes


def test_the_parameters_are_counted_as_in_the_release() -> None:
    released = MstarCodecModel(MstarCodecConfig.from_preset("base", variant="released"))
    assert released.num_parameters() == 7_050_116
    assert released.num_parameters(only_trainable=True) == 7_050_116 - 7 * 512  # norms that are never applied
    corrected = MstarCodecModel(MstarCodecConfig.from_preset("base"))
    assert corrected.num_parameters(only_trainable=True) == 7_050_116 - 4096 * 256  # codes are buffers
    shenzhen = MstarCodecConfig(num_cells=2236, cells_per_resolution=[54, 171, 583, 2236])
    extra = (54 + 171 + 583 + 2236 - 16 - 64 - 225 - 900) * 256 + (2236 - 900) * 257
    assert MstarCodecModel(shenzhen).num_parameters() == corrected.num_parameters() + extra


# Codes


@every_form
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("masked", [False, True])
def test_decoding_codes_gives_the_forward_pass_exactly(
    variant: str, overrides: dict[str, Any], attention: str, masked: bool
) -> None:
    model = make_codec(variant, **overrides)
    model.set_attn_implementation(attention)
    weeks = make_weeks(model.config)
    mask = make_mask(*weeks[:, 0].shape) if masked else None
    output = model(weeks, mask)
    assert torch.equal(model.encode(weeks, mask), output.code_ids)
    assert torch.equal(model.decode(output.code_ids), output.logits)
    assert output.code_ids.shape == (3, model.config.num_codes_per_week) and output.code_ids.dtype == torch.int64


@pytest.mark.parametrize("masked", [False, True], ids=["all known", "masked"])
def test_weeks_are_encoded_alike_in_parts(masked: bool) -> None:
    model = make_codec()
    weeks = make_weeks(model.config)
    mask = make_mask(*weeks[:, 0].shape) if masked else None
    codes = model.encode(weeks, mask)
    for size in (1, 2, 3, 9):
        assert torch.equal(model.encode(weeks, mask, batch_size=size), codes)
    nothing = model.encode(weeks[:0], batch_size=2)
    assert nothing.shape == (0, model.config.num_codes_per_week) and nothing.dtype == torch.int64


@every_form
def test_level_by_level_calls_give_the_same_codes(variant: str, overrides: dict[str, Any]) -> None:
    """What a generator does: quantize, look up, carry on."""
    model = make_codec(variant, **overrides)
    weeks = make_weeks(model.config)
    codes = model.encode(weeks)
    inputs, last = model.teacher_inputs(codes)
    u, fhat, start = torch.zeros_like(model.level_features(weeks)[0]), None, 0
    for level, (length, values) in enumerate(zip(model.config.level_lengths, model.level_features(weeks))):
        ids = codes[:, start : start + length]
        assert torch.equal(inputs[:, start : start + length], u)
        if model.config.residual == "quantized":
            assert torch.equal(model.quantize_level(values - u), ids)
        fhat = u + model.code_vectors(ids)
        if level + 1 < len(model.config.level_lengths):
            u = model.next_level(fhat, level)
        start += length
    assert torch.equal(fhat, last)
    assert torch.equal(model.decode_features(fhat), model.decode(codes))


def test_a_code_changes_no_input_of_its_own_level_or_of_a_coarser_one() -> None:
    model = make_codec()
    codes = model.encode(make_weeks(model.config))
    changed = codes.clone()
    changed[:, 1] = (changed[:, 1] + 1) % model.config.codebook_size
    before, after = model.teacher_inputs(codes)[0], model.teacher_inputs(changed)[0]
    assert torch.equal(before[:, :5], after[:, :5]) and not torch.equal(before[:, 5:], after[:, 5:])


def test_a_nested_cell_is_its_own_vector_and_those_of_the_cells_around_it() -> None:
    nested = make_codec(hierarchical_cells=True, level_resolutions=[0, 1, 1])
    plain = make_codec(level_resolutions=[0, 1, 1])
    plain.load_state_dict(nested.state_dict())
    coarse, fine = plain.cell_embeddings
    around = torch.arange(len(fine.weight)) // 4
    with torch.no_grad():
        fine.weight.add_(coarse.weight[around])
    cells = make_weeks(nested.config, 5)[:, -1]
    weeks = torch.stack([around[cells], cells], dim=1)
    assert torch.equal(nested.encode(weeks), plain.encode(weeks))
    torch.testing.assert_close(nested(weeks).logits, plain(weeks).logits)
    finest = make_codec(hierarchical_cells=True, level_resolutions=[1, 1, 1]).train()
    assert finest.cell_embeddings[0].weight.requires_grad, (
        "no level reads the coarse cells, but the fine ones are made of them"
    )


def test_without_encoder_layers_features_are_means_of_the_vectors_of_their_own_known_hours() -> None:
    model = make_codec(num_encoder_layers=0)
    weeks = make_weeks(model.config)
    known = torch.rand(len(weeks), model.config.num_hours, generator=torch.Generator().manual_seed(0)) < 0.8
    known[:, 6:12] = False
    vectors = [table(weeks[:, index]) for index, table in enumerate(model.cell_embeddings)]
    levels = zip(model.config.level_lengths, model.config.level_resolutions)
    for values, (length, resolution) in zip(model.level_features(weeks, known), levels, strict=True):
        hours = vectors[resolution].unflatten(1, (length, -1))
        counted = known.unflatten(1, (length, -1)).unsqueeze(-1)
        torch.testing.assert_close(values, (hours * counted).sum(2) / counted.sum(2).clamp(min=1))
    assert torch.equal(model.decode(model.encode(weeks)), model(weeks).logits), "the decoder still knows the hour"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_codec_in_training_mode_encodes_as_in_evaluation_mode(attention: str) -> None:
    model = make_codec(dropout=0.5, attention_dropout=0.5)
    model.set_attn_implementation(attention)
    weeks = make_weeks(model.config)
    wanted, state = model.encode(weeks), {name: value.clone() for name, value in model.state_dict().items()}
    parent = nn.ModuleList([model]).train()
    assert model.training
    assert torch.equal(model.encode(weeks), wanted) and torch.equal(model.encode(weeks), wanted)
    assert torch.equal(model.encode_noisy(weeks, flip=0.0)[1], wanted)
    assert not torch.equal(model(weeks).logits, model(weeks).logits), "dropout is on in forward"
    parent.requires_grad_(False)
    model(weeks)
    model.load_state_dict(state)
    model(weeks)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items()), "a frozen codec moved"


def test_noisy_codes_are_corrected_by_finer_levels() -> None:
    model = make_codec(codebook_size=64)
    weeks = make_weeks(model.config, 40)
    clean = model.encode(weeks)
    given, wanted = model.encode_noisy(weeks, flip=0.3, generator=torch.Generator().manual_seed(1))
    again = model.encode_noisy(weeks, flip=0.3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(given, again[0]) and torch.equal(wanted, again[1])
    assert (given != wanted).float().mean().item() == pytest.approx(0.3 * 63 / 64, abs=0.04)
    assert torch.equal(wanted[:, :1], clean[:, :1]), "nothing is coarser than the first level"
    assert not torch.equal(wanted[:, 1:], clean[:, 1:])
    inputs, _ = model.teacher_inputs(given)
    features = torch.cat(model.level_features(weeks), dim=1)
    assert torch.equal(model.quantize_level(features - inputs), wanted)
    assert all(torch.equal(ids, clean) for ids in model.encode_noisy(weeks, flip=0.0))


def test_code_usage_is_the_perplexity_of_each_level() -> None:
    model = make_codec()
    codes = torch.zeros(4, 29, dtype=torch.int64)
    codes[:, 1:5] = torch.tensor([0, 1, 2, 3])
    codes[:2, 5:] = 7
    torch.testing.assert_close(model.code_usage(codes), torch.tensor([1.0, 4.0, 2.0]))


# Smoothing


def test_smoothing_averages_neighbours_and_repeats_the_ends() -> None:
    model = make_codec()
    fhat = torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([fhat[:, :1], fhat, fhat[:, -1:]], dim=1)
    smooth = torch.stack([padded[:, t : t + 3].mean(1) for t in range(24)], dim=1)
    torch.testing.assert_close(model.decode_features(fhat, 3), model.decode_features(smooth), atol=1e-5, rtol=1e-5)
    constant = fhat[:, :1].expand(-1, 24, -1)
    torch.testing.assert_close(model.decode_features(constant, 5), model.decode_features(constant))


# Precision and errors


@pytest.mark.parametrize("variant", ["corrected", "released"])
def test_under_autocast_products_are_bfloat16_and_the_quantizer_is_not(variant: str) -> None:
    model = make_codec(variant).train()
    weeks = make_weeks(model.config)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(weeks, make_mask(*weeks[:, 0].shape))
        features = model.level_features(weeks)
        assert all(values.dtype == torch.float32 for values in [*features, *model.teacher_inputs(output.code_ids)])
        nearest = model.quantize_level(features[-1])
    assert torch.equal(nearest, model.quantize_level(features[-1]))
    assert output.logits.dtype == torch.bfloat16 and output.loss.dtype == torch.float32
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(weeks)
        assert torch.equal(model.encode(weeks), output.code_ids)
        assert torch.equal(model.decode(output.code_ids), output.logits)
    torch.testing.assert_close(output.logits.float(), model.decode(output.code_ids), atol=0.15, rtol=0.1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, w: m(), r"input_ids must be \(weeks, resolutions 2, hours 24\), got None"),
        (lambda m, w: m(w[:, 0]), r"got \(3, 24\)"),
        (lambda m, w: m(w[:, :, :20]), r"got \(3, 2, 20\)"),
        (lambda m, w: m(w, torch.ones(3, 23)), r"attention_mask must be \(weeks 3, hours 24\), got \(3, 23\)"),
        (lambda m, w: m.decode(m.encode(w)[:, 1:]), r"code_ids must be \(weeks, 29\).*got \(3, 28\)"),
        (lambda m, w: m.encode(None, batch_size=2), "input_ids must be .* got None"),
        (lambda m, w: m.encode(w, batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda m, w: m.encode_noisy(w, flip=1.5), "flip is a share between 0 and 1, got 1.5"),
        (lambda m, w: m.decode_features(torch.zeros(1, 24, 16), 2), "smoothing_window must be 0 or odd, got 2"),
        (lambda m, w: m.decode_features(torch.zeros(1, 24, 16), -1), "smoothing_window must be 0 or odd, got -1"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call: Callable[..., Any], words: str) -> None:
    model = make_codec()
    with pytest.raises(ValueError, match=words):
        call(model, make_weeks(model.config))


@pytest.mark.parametrize("name", ["num_encoder_layers", "num_decoder_layers"])
def test_there_are_no_negative_numbers_of_layers(name: str) -> None:
    with pytest.raises(Exception, match=f"{name} must be at least 0, got -1"):
        MstarCodecConfig(**{name: -1})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"cells_per_resolution": []},
            r"cells_per_resolution must be 1 to 64 positive numbers",
        ),
        ({"cells_per_resolution": [0, 900]}, "cells_per_resolution must be 1 to 64 positive numbers"),
        ({"level_lengths": []}, r"level_lengths must be 1 to 1,000 positive numbers"),
        ({"codebook_size": 0}, "codebook_size must be at least 1, got 0"),
        ({"num_attention_heads": 0}, "num_attention_heads must be at least 1, got 0"),
    ],
    ids=str,
)
def test_impossible_shapes_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words):
        MstarCodecConfig(**wrong)


@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "ema_decay", "restart_share"])
def test_a_share_above_one_is_refused(name: str) -> None:
    with pytest.raises(Exception, match=rf"{name} must be .*, got 1\.5"):
        MstarCodecConfig(**{name: 1.5})


def test_noise_needs_residuals_that_follow_the_codes() -> None:
    model = make_codec("released")
    with pytest.raises(ValueError, match="needs residual='quantized'"):
        model.encode_noisy(make_weeks(model.config), flip=0.1)
