"""M-STAR's transformer under teacher forcing: sizes, who sees whom, the frozen codec, what counts in the loss, and what
is refused.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mstar_model import make_model
from small_models import recomputing

from hf_mobility.modeling.configuration_mstar import MstarCodecConfig, MstarConfig
from hf_mobility.modeling.modeling_mstar import MstarCodecModel, MstarForTrajectoryGeneration

LEVELS = torch.tensor([0] + [1] * 4 + [2] * 24)
STILL = {"dropout": 0.0, "drop_path": 0.0}


def make_batch(weeks: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "code_ids": torch.randint(0, 32, (weeks, 29), generator=generator),
        "home_ids": torch.randint(0, 16, (weeks,), generator=generator),
        "work_ids": torch.randint(0, 16, (weeks,), generator=generator),
        "attribute_ids": torch.randint(0, 8, (weeks,), generator=generator),
    }


def make_weeks(weeks: int = 3, seed: int = 0) -> torch.Tensor:
    """(N, R, L) cells: 4 x 4 fine ones in 2 x 2 coarse ones."""
    fine = torch.randint(0, 16, (weeks, 24), generator=torch.Generator().manual_seed(seed))
    return torch.stack([fine // 8 * 2 + fine % 4 // 2, fine], dim=1)


# Sizes


@pytest.mark.parametrize("variant", ["released", "corrected"])
def test_the_base_size_has_the_published_number_of_parameters(variant: str) -> None:
    with torch.device("meta"):
        model = MstarForTrajectoryGeneration(MstarConfig.from_preset("base", variant=variant))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 6_877_184
    assert model.slot_embedding.shape == (470, 256)


def test_our_additions_are_one_matrix_and_one_vector() -> None:
    plain, passes, guided = (
        sum(p.numel() for p in make_model(**options).parameters() if p.requires_grad)
        for options in ({}, {"within_level_steps": 2}, {"condition_dropout": 0.1})
    )
    assert (passes - plain, guided - plain) == (2 * 16 * 16, 16)


def test_the_released_variant_is_the_paper_with_a_wide_attribute_embedding() -> None:
    released, corrected = (MstarConfig.from_preset("base", variant=v) for v in ("released", "corrected"))
    assert released.decoding_order.max_steps == 1 and released.decoding == "argmax" and released.top_k == 10
    assert (released.dropout, released.attention_dropout, released.drop_path) == (0.2, 0.2, 0.2)
    assert (released.code_noise, released.condition_dropout, released.guidance) == (0, 0, 1)
    torch.manual_seed(0)
    values = {"num_attributes": 400, "codec_config": MstarCodecConfig.from_preset("tiny")}
    for config, std in ((released, 1.0), (corrected, 0.02)):
        model = MstarForTrajectoryGeneration(MstarConfig(**{**config.to_dict(), **values}))
        assert float(model.conditions.attribute_embedding.weight.detach().std()) == pytest.approx(std, rel=0.05)


def test_initial_values_are_the_published_ones() -> None:
    torch.manual_seed(0)
    model = MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny", hidden_size=64, within_level_steps=2))
    for name in ("start", "slot_embedding"):
        assert not getattr(model, name).any()
    bound = (6 / (4 * 64)) ** 0.5
    weight = model.layers[0].self_attn.qkv_proj.weight
    assert 0.98 * bound < weight.abs().max() <= bound
    assert float(model.conditions.place_embedding.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert float(model.norm_modulation.up_proj.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not any(p.any() for n, p in model.named_parameters() if n.endswith("bias") and not n.startswith("codec"))


# Who sees whom


@pytest.mark.parametrize("position", [0, 2, 10, 28])
def test_a_changed_code_changes_finer_levels_only(position: int) -> None:
    model, batch = make_model(), make_batch()
    before = model(**batch).logits
    batch["code_ids"][:, position] = (batch["code_ids"][:, position] + 1) % 32
    change = (model(**batch).logits - before).abs().amax((0, 2))
    finer = LEVELS[position] < LEVELS
    assert not change[~finer].any() and (change[finer] > 0).all()


@pytest.mark.parametrize("position", [0, 1, 2, 3, 10, 11, 13, 28])
def test_with_passes_a_changed_code_changes_what_is_drawn_after_it(position: int) -> None:
    """Levels of 1, 4 and 24 positions in three passes: multiples of four, the other even ones, the odd ones."""
    model, batch = make_model(within_level_steps=3), make_batch()
    drawn_in = [0, *([0, 2, 1, 2] * 7)]
    before = model(**batch).logits
    batch["code_ids"][:, position] = (batch["code_ids"][:, position] + 1) % 32
    change = (model(**batch).logits - before).abs().amax((0, 2))
    later = torch.tensor([(LEVELS[i], drawn_in[i]) > (LEVELS[position], drawn_in[position]) for i in range(29)])
    assert not change[~later].any() and (change[later] > 0).all()


def test_every_condition_reaches_every_position() -> None:
    model, batch = make_model(), make_batch()
    before = model(**batch).logits
    for name, limit in (("home_ids", 16), ("work_ids", 16), ("attribute_ids", 8)):
        changed = {**batch, name: (batch[name] + 1) % limit}
        assert ((model(**changed).logits - before).abs().amax((0, 2)) > 0).all()


def test_one_week_does_not_change_another() -> None:
    model, batch = make_model(), make_batch()
    alone = {name: value[1:2] for name, value in batch.items()}
    torch.testing.assert_close(model(**batch).logits[1:2], model(**alone).logits, atol=1e-5, rtol=1e-5)


def test_training_in_half_precision_uses_the_same_attention_as_evaluation() -> None:
    """On a CPU another routine runs there; its gradients are those of the library's."""
    batch = make_batch()
    gradients = []
    for implementation in ("sdpa", "eager"):
        model = make_model(**STILL).train()
        model.set_attn_implementation(implementation)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        gradients.append((loss.detach(), model.layers[0].self_attn.qkv_proj.weight.grad))
    torch.testing.assert_close(gradients[0][0], gradients[1][0], atol=1e-2, rtol=1e-2)
    assert F.cosine_similarity(gradients[0][1].flatten(), gradients[1][1].flatten(), dim=0) > 0.999


# The codec


def test_the_codec_stays_frozen_in_evaluation_mode_and_its_codes_never_move() -> None:
    model, weeks = make_model(), make_weeks()
    codes = model.codec.encode(weeks)
    model.train()
    assert model.training and not any(module.training for module in model.codec.modules())
    assert torch.equal(model.codec.encode(weeks), codes) and torch.equal(model.codec.encode(weeks), codes)
    before = {name: value.clone() for name, value in model.codec.state_dict().items()}
    conditions = {name: value for name, value in make_batch().items() if name != "code_ids"}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(input_ids=weeks, **conditions).loss.backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.codec.state_dict().items())
    assert all(parameter.grad is None for parameter in model.codec.parameters())
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_weeks_and_their_cached_codes_give_the_same_loss() -> None:
    model, weeks = make_model(), make_weeks()
    conditions = {name: value for name, value in make_batch().items() if name != "code_ids"}
    mask = torch.ones(3, 24, dtype=torch.int64)
    codes = model.codec.encode(weeks, mask)
    first = model(input_ids=weeks, attention_mask=mask, **conditions)
    torch.testing.assert_close(first.loss, model(code_ids=codes, **conditions).loss)


def test_a_trained_codec_is_copied_into_a_new_generator() -> None:
    torch.manual_seed(0)
    codec = MstarCodecModel(MstarCodecConfig.from_preset("tiny", num_attention_heads=4))
    model = MstarForTrajectoryGeneration.from_codec(codec, "tiny", num_hidden_layers=1, within_level_steps=2)
    assert len(model.layers) == 1 and model.config.codec_config.num_attention_heads == 4
    weeks = make_weeks()
    assert torch.equal(model.codec.encode(weeks), codec.encode(weeks))
    with torch.no_grad():
        next(codec.parameters()).add_(1)
    assert not torch.equal(next(codec.parameters()), next(model.codec.parameters()))


# The loss


def test_training_and_evaluation_give_the_same_loss_where_nothing_is_random() -> None:
    model, batch = make_model(**STILL), make_batch()
    evaluated = model(**batch)
    trained = model.train()(**batch)
    assert trained.logits is None and evaluated.logits.shape == (3, 29, 32)
    torch.testing.assert_close(trained.loss, evaluated.loss)
    torch.testing.assert_close(trained.level_losses, evaluated.level_losses)
    torch.testing.assert_close(
        evaluated.loss, F.cross_entropy(evaluated.logits.flatten(0, 1), batch["code_ids"].flatten())
    )
    assert not trained.level_losses.requires_grad


def test_gradients_without_kept_logits_are_those_of_cross_entropy() -> None:
    model, batch = make_model(**STILL).train(), make_batch()
    model(**batch).loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    model.eval()(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_gradients_survive_the_loss_scale_of_float16() -> None:
    model, batch, scale = make_model(**STILL).train(), make_batch(), 65_536.0  # the first one of a `GradScaler`
    exact = [p.clone() for p in torch.autograd.grad(model(**batch).loss, list(model.lm_head.parameters()))]
    with torch.autocast("cpu", dtype=torch.float16):
        loss = model(**batch).loss
    for found, wanted in zip(torch.autograd.grad(loss * scale, list(model.lm_head.parameters())), exact):
        torch.testing.assert_close(found / scale, wanted, atol=1e-4, rtol=2e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_moved_to_half_precision_still_reads_weeks(dtype: torch.dtype) -> None:
    model, batch = make_model(), {name: ids for name, ids in make_batch().items() if name != "code_ids"}
    mask = torch.ones(3, 24, dtype=torch.int64)
    mask[:, 5:9] = 0
    exact = model(input_ids=make_weeks(), attention_mask=mask, **batch).loss
    rounded = model.to(dtype)(input_ids=make_weeks(), attention_mask=mask, **batch).loss
    torch.testing.assert_close(rounded.float(), exact, atol=0, rtol=0.1)


def test_only_labels_that_count_are_counted() -> None:
    model, batch = make_model(), make_batch()
    labels = torch.randint(0, 32, (3, 29), generator=torch.Generator().manual_seed(9))
    labels[0, 5:] = -100
    labels[1, 1:20] = -100
    known = torch.ones(3, 24, dtype=torch.int64)
    known[2, 6:12] = 0  # one position of the second level, six of the third
    output = model(**batch, labels=labels, attention_mask=known)
    counted = labels >= 0
    counted[2, 2] = False
    counted[2, 11:17] = False
    losses = F.cross_entropy(output.logits.transpose(1, 2), labels.clamp(min=0), reduction="none")
    torch.testing.assert_close(output.loss, losses[counted].mean())
    for level in range(3):
        torch.testing.assert_close(output.level_losses[level], losses[counted & (level == LEVELS)].mean())


def test_hidden_conditions_are_replaced_by_the_null_vector() -> None:
    model, batch = make_model(condition_dropout=0.999, **STILL), make_batch()
    torch.manual_seed(0)
    model.train()
    first = model(**batch).loss
    others = {**batch, "home_ids": (batch["home_ids"] + 1) % 16, "attribute_ids": (batch["attribute_ids"] + 1) % 8}
    assert torch.equal(first, model(**others).loss)
    assert not torch.equal(model.eval()(**batch).loss, model(**others).loss)


def test_noisy_codes_are_predicted_by_targets_that_follow_them() -> None:
    model, weeks = make_model(code_noise=0.3, **STILL), make_weeks(weeks=40)
    conditions = {name: value for name, value in make_batch(weeks=40).items() if name != "code_ids"}
    torch.manual_seed(0)
    trained = model.train()(input_ids=weeks, **conditions).loss
    torch.manual_seed(0)
    codes, labels = model.codec.encode_noisy(weeks, None, flip=0.3)
    assert not torch.equal(codes, labels)
    torch.testing.assert_close(trained, model(code_ids=codes, labels=labels, **conditions).loss)
    clean = model.eval()(input_ids=weeks, **conditions).loss
    torch.testing.assert_close(clean, model(code_ids=model.codec.encode(weeks), **conditions).loss)


def recorded_codes(model: MstarForTrajectoryGeneration, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The codes of each later training step, and what is right instead, as they come."""
    found, encode_perturbed = [], model.codec.encode_perturbed

    def spy(*arguments: Any) -> Any:
        found.append(encode_perturbed(*arguments))
        return found[-1]

    monkeypatch.setattr(model.codec, "encode_perturbed", spy)
    return found


def test_scheduled_sampling_draws_codes_by_the_model_and_corrects_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, weeks = make_model(scheduled_sampling=0.999, **STILL).train(), make_weeks(weeks=40)
    conditions = {name: value for name, value in make_batch(weeks=40).items() if name != "code_ids"}
    favourite = 7
    with torch.no_grad():
        model.lm_head.bias[favourite] += 50
    found = recorded_codes(model, monkeypatch)
    trained = model(input_ids=weeks, **conditions).loss
    [(codes, labels)] = found
    finest = model.config.codec.level_lengths[-1]
    assert (codes[:, :-finest] == favourite).all(), "levels that finer ones follow are the model's own"
    assert torch.equal(codes[:, -finest:], labels[:, -finest:]), "nothing follows the finest level"
    inputs, _ = model.codec.teacher_inputs(codes)
    features = torch.cat(model.codec.level_features(weeks), dim=1)
    assert torch.equal(model.codec.quantize_level(features - inputs), labels)
    model.eval()
    torch.testing.assert_close(trained, model(code_ids=codes, labels=labels, **conditions).loss)
    clean = model.codec.encode(weeks)
    assert torch.equal(model(input_ids=weeks, **conditions).loss, model(code_ids=clean, **conditions).loss)


def test_codes_of_a_decoding_step_follow_those_of_the_steps_before(monkeypatch: pytest.MonkeyPatch) -> None:
    model, weeks = make_model(scheduled_sampling=0.999, within_level_steps=3, **STILL), make_weeks(weeks=40)
    conditions = {name: value for name, value in make_batch(weeks=40).items() if name != "code_ids"}
    with torch.no_grad():
        model.lm_head.weight.mul_(1e4)  # what is drawn is the best code
    clean = model.codec.encode(weeks)
    wanted = clean.clone()
    for position in (1, 3, 2, 4):  # of the level of four, in three passes: 0; 2; 1 and 3
        wanted[:, position] = model(code_ids=wanted, **conditions).logits[:, position].argmax(-1)
    found = recorded_codes(model, monkeypatch)
    model.train()(input_ids=weeks, **conditions)
    [(codes, _)] = found
    assert torch.equal(codes[:, 1:5], wanted[:, 1:5]) and not torch.equal(wanted, clean)


def test_scheduled_sampling_needs_the_weeks_themselves_in_training() -> None:
    model, batch = make_model(scheduled_sampling=0.1), make_batch()
    assert model(**batch).loss.isfinite()
    with pytest.raises(ValueError, match="needs input_ids"):
        model.train()(**batch)


# Library


def test_hidden_states_and_attentions_are_given_on_request() -> None:
    model, batch = make_model(), make_batch()
    model.set_attn_implementation("eager")
    output = model(**batch, output_hidden_states=True, output_attentions=True)
    assert len(output.attentions) == 2 and output.attentions[0].shape == (3, 2, 29, 29)
    assert output.hidden_states[0].shape == (3, 29, 16)
    assert not output.attentions[0][:, :, 3, 5:].any()


def test_gradient_checkpointing_changes_no_gradient() -> None:
    batch, found = make_batch(), []
    for checkpointing in (False, True):
        model = make_model(**STILL).train()
        if checkpointing:
            recomputing(model)
        model(**batch).loss.backward()
        found.append(model.layers[0].mlp.up_proj.weight.grad)
    torch.testing.assert_close(found[0], found[1])


# What is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"work_ids": None}, "work_ids is missing"),
        ({"home_ids": torch.zeros(2, dtype=torch.int64)}, "home_ids must have one value for each of 3 weeks"),
        ({"code_ids": None}, "give either code_ids"),
        ({"input_ids": torch.zeros(3, 2, 24, dtype=torch.int64)}, "give either code_ids"),
        ({"code_ids": torch.zeros(3, 28, dtype=torch.int64)}, r"code_ids must be \(N, 29\)"),
        ({"labels": torch.zeros(3, 28, dtype=torch.int64)}, r"labels has shape \(3, 28\)"),
        ({"code_ids": None, "input_ids": torch.zeros(3, 2, 24), "labels": torch.zeros(3, 29)}, "labels are codes"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_inputs_that_contradict_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_model()(**{**make_batch(), **change})


def test_noise_without_targets_is_refused_in_training() -> None:
    model, batch = make_model(code_noise=0.1), make_batch()
    assert model(**batch).loss.isfinite()
    with pytest.raises(ValueError, match="needs labels beside code_ids"):
        model.train()(**batch)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"hidden_size": 18, "num_attention_heads": 4}, "divisible"),
        (
            {"hidden_size": 17, "num_attention_heads": 1},
            "hidden_size must be divisible by 2 and by num_attention_heads",
        ),
        ({"num_attention_heads": 0}, "num_attention_heads must be at least 1, got 0"),
        ({"num_attributes": 0}, "num_attributes must be at least 1, got 0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1, got 0"),
        ({"attribute_init": -1.0}, "attribute_init must be at least 0"),
        ({"code_noise": 0.1, "scheduled_sampling": 0.1}, "choose code_noise=0.1 or scheduled_sampling=0.1"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"temperature": [1.0, 1.0]}, "one value for each of the 8 levels"),
        ({"temperature_offset": 1.0}, "temperature_offset must exceed"),
        ({"within_level_steps": 0}, "within_level_steps must be at least 1"),
        ({"within_level_steps": [1, 2]}, "within_level_steps needs one value for each of the 8 levels, got 2"),
        ({"within_level_spacing": 0}, "within_level_spacing must be at least 1"),
        ({"within_level_spacing": [1, 2]}, "within_level_spacing needs one value for each of the 8 levels, got 2"),
        ({"within_level_context": 2}, "within_level_context needs within_level_steps above 1"),
        ({"guidance": 2.0}, "needs a model trained with condition_dropout"),
        ({"smoothing_window": 2}, "0 or odd"),
        ({"decoding": "best"}, "decoding must be"),
        ({"emission_scale": 0.0}, "emission_scale must be above 0"),
        ({"drop_path": 1.0}, "drop_path must be at least 0 and below 1"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_contradictory_values_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words):
        MstarConfig(**wrong)
