"""Copying places: which codes are offered, that they are the codec's own, who sees whom, drawing, files, what is
refused. The equations themselves are in `test_mstar_reference.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_mobility.modeling import generation_mstar
from hf_mobility.modeling.configuration_mstar import MstarCodecConfig, MstarConfig
from hf_mobility.modeling.modeling_mstar import MstarForTrajectoryGeneration
from hf_mobility.modeling.pointer_mstar import PointerScores

FINE = torch.arange(16)
CELL_MAP = torch.stack([FINE // 8 * 2 + FINE % 4 // 2, FINE], dim=1)  # 4 x 4 fine cells in 2 x 2 coarse ones
PEOPLE = (torch.tensor([3, 0, 15]), torch.tensor([3, 9, 1]), torch.tensor([0, 7, 4]))
LEVELS = torch.tensor([0] + [1] * 4 + [2] * 24)
STILL: dict[str, Any] = {"dropout": 0.0, "drop_path": 0.0}
DRAWN_IN = torch.tensor([0, *([0, 2, 1, 2] * 7)])  # the pass of each position, of three


def codec_config(**values: Any) -> MstarCodecConfig:
    return MstarCodecConfig.from_preset("tiny", num_encoder_layers=0, **values)


def make_model(*, fitted: bool = True, nested: bool = True, **overrides: Any) -> MstarForTrajectoryGeneration:
    """A tiny model in evaluation mode that copies; every weight, and every code, is drawn."""
    values: dict[str, Any] = {"within_level_steps": 3, "pointer_head": True} | overrides
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = MstarConfig.from_preset("tiny", codec_config=codec_config(hierarchical_cells=nested), **values)
        model = MstarForTrajectoryGeneration(config).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.2)
        model.codec.quantiser.codebook.weight.normal_()
        model.fit_transition(torch.randint(0, 3, (50, 24)))
    if fitted:
        model.fit_places(CELL_MAP)
    return model


def make_weeks(weeks: int = 3) -> torch.Tensor:
    """(N, R, L), of two hours or more at each place."""
    fine = torch.randint(0, 16, (weeks, 12), generator=torch.Generator().manual_seed(1)).repeat_interleave(2, dim=1)
    return CELL_MAP[fine].movedim(-1, 1)


def make_codes(weeks: int = 3) -> torch.Tensor:
    return torch.randint(0, 32, (weeks, 29), generator=torch.Generator().manual_seed(2))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# What is offered


@pytest.mark.parametrize("nested", [False, True])
def test_the_code_that_puts_a_place_somewhere_is_the_codecs_own_where_the_week_is_there(nested: bool) -> None:
    """On the finest level, one position per hour: whatever the coarser levels have left to say."""
    model, weeks = make_model(nested=nested), make_weeks()
    codes = model.codec.encode(weeks)
    features, _ = model.codec.teacher_inputs(codes)
    for cell in range(16):
        people = torch.full((3,), cell)
        known = model.copies.known_places(model.codec, people, people)
        nothing = features.new_empty(3, 24, 0, 16)
        offered = model.copies.codes(model.codec, known, features[:, 5:], nothing, {2: 24})
        there = weeks[:, -1] == cell
        assert torch.equal(offered[..., 0][there], codes[:, 5:][there])


def test_new_models_take_what_may_be_copied_for_likely_and_all_of_it_alike() -> None:
    model = MstarForTrajectoryGeneration(
        MstarConfig.from_preset("tiny", codec_config=codec_config(), pointer_head=True)
    )
    assert not model.copies.score_proj.weight.any() and (model.copies.score_proj.bias == 3).all()
    assert (model.copies.cell_map == -1).all()


@pytest.mark.parametrize(("steps", "places"), [(1, 2), (3, 4)])
def test_one_pass_has_no_sides_to_copy_from(steps: int, places: int) -> None:
    model = make_model(within_level_steps=steps)
    assert model.copies.score_proj.out_features == places and model.usable.shape == (29, places)
    plain = make_model(within_level_steps=steps, pointer_head=False)
    count, wanted = (sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (model, plain))
    assert count - wanted == 17 * places + 16 * places * (places - 1) // 2


def test_a_score_raises_the_code_it_is_for_and_two_places_of_one_code_raise_it_twice() -> None:
    codes, scores = torch.tensor([[[1, 3], [2, 2]]]), torch.tensor([[[0.5, -1.0], [2.0, 3.0]]])
    raised = PointerScores(codes, scores).add_to(torch.zeros(1, 2, 5))
    assert raised.tolist() == [[[0, 0.5, 0, -1, 0], [0, 0, 5, 0, 0]]]


# Who sees whom


@pytest.mark.parametrize("position", [0, 1, 2, 3, 10, 11, 13, 28])
def test_a_changed_code_changes_what_is_drawn_after_it(position: int) -> None:
    model, codes = make_model(), make_codes()
    before = model(codes, *PEOPLE).logits
    codes[:, position] = (codes[:, position] + 1) % 32
    change = (model(codes, *PEOPLE).logits - before).abs().amax((0, 2))
    finer = LEVELS > LEVELS[position]
    later = finer | ((LEVELS == LEVELS[position]) & (DRAWN_IN > DRAWN_IN[position]))
    assert not change[~later].any() and (change[later] > 0).all()


# Training


@pytest.mark.parametrize("training", [False, True])
def test_the_forward_pass_compiles_as_one_graph(training: bool) -> None:
    model = make_model(**STILL).train(training)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    losses = [forward(make_codes(), *PEOPLE).loss for forward in (model, compiled)]
    torch.testing.assert_close(losses[0], losses[1])


def test_the_loss_in_training_is_that_of_the_logits_with_its_gradients() -> None:
    model, codes = make_model(**STILL), make_codes()
    found = []
    for training in (True, False):
        model.zero_grad()
        model.train(training)
        loss = model(codes, *PEOPLE).loss
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.requires_grad)])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
    assert model.copies.score_proj.weight.grad.any() and model.copies.agreement_proj.weight.grad.any()


def test_codes_of_scheduled_sampling_are_drawn_with_the_pointer() -> None:
    model = make_model(scheduled_sampling=0.999, **STILL).train()
    weeks, home = make_weeks(), make_weeks()[:, -1, 0]
    with torch.no_grad():
        model.copies.score_proj.bias[0] = 1e4  # every code puts the home there
    inputs: list[torch.Tensor] = []
    model.codec.teacher_inputs = _recorded(model.codec.teacher_inputs, inputs)
    model(None, home, home, PEOPLE[2], input_ids=weeks).loss.backward()
    known = model.copies.known_places(model.codec, home, home)
    at_home = model.codec.quantize_level(known.vectors[0][home])
    assert torch.equal(inputs[-1][:, 0], at_home)


def _recorded(function: Any, calls: list[torch.Tensor]) -> Any:
    def record(code_ids: torch.Tensor) -> Any:
        calls.append(code_ids)
        return function(code_ids)

    return record


# Drawing


@pytest.mark.parametrize("steps", [1, 3])
def test_cached_logits_equal_one_pass_over_the_drawn_codes(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[torch.Tensor] = []
    original = generation_mstar.draw_codes
    monkeypatch.setattr(
        generation_mstar, "draw_codes", lambda x, *rest: recorded.append(x.clone()) or original(x, *rest)
    )
    model = make_model(within_level_steps=steps)
    _, codes = model.generate(*PEOPLE, generator=seeded(), return_codes=True)
    wanted = model(codes, *PEOPLE).logits[:, model.order.positions]
    torch.testing.assert_close(torch.cat(recorded, dim=1), wanted, atol=1e-5, rtol=1e-5)


def test_a_seed_gives_the_same_weeks_however_they_are_batched() -> None:
    model = make_model().double()
    first = model.generate(*PEOPLE, generator=seeded())
    for batch_size in (1, 2):
        assert torch.equal(model.generate(*PEOPLE, generator=seeded(), batch_size=batch_size), first)


def test_known_hours_are_kept_exactly() -> None:
    weeks, mask = make_weeks(), torch.zeros(3, 24, dtype=torch.int64)
    mask[:, :9] = 1
    made = make_model().generate(*PEOPLE, generator=seeded(), prefix_ids=weeks, prefix_mask=mask)
    assert torch.equal(made[:, :9], weeks[:, -1, :9])


# Files


def test_a_folder_holds_all_that_copying_needs(tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    loaded = MstarForTrajectoryGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded(make_codes(), *PEOPLE).logits, model(make_codes(), *PEOPLE).logits)
    half = MstarForTrajectoryGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert torch.equal(half.copies.cell_map, CELL_MAP) and half.generate(*PEOPLE).shape == (3, 24)


@pytest.mark.usefixtures("torn_weights_are_read")
@pytest.mark.parametrize(("missing", "value"), [("score_proj.weight", 0), ("score_proj.bias", 3), ("cell_map", -1)])
def test_a_missing_value_gets_its_initial_one(tmp_path: Path, missing: str, value: int) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[f"copies.{missing}"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = MstarForTrajectoryGeneration.from_pretrained(tmp_path)
    found = loaded.state_dict()
    assert (found[f"copies.{missing}"] == value).all()
    assert all(torch.equal(found[name], x) for name, x in model.state_dict().items() if name != f"copies.{missing}")
    if missing == "cell_map":
        with pytest.raises(ValueError, match="needs fit_places"):
            loaded(make_codes(), *PEOPLE)


# What is refused


def test_places_must_be_known() -> None:
    model = make_model(fitted=False)
    for ask in (lambda: model(make_codes(), *PEOPLE), lambda: model.generate(*PEOPLE)):
        with pytest.raises(ValueError, match=r"pointer_head=True needs fit_places\(tokenizer.cell_map\) first"):
            ask()


@pytest.mark.parametrize("wrong", [CELL_MAP[:15], CELL_MAP[:, 1:], CELL_MAP + 1, CELL_MAP - 1, CELL_MAP.flip(1)])
def test_a_map_of_other_cells_is_refused(wrong: torch.Tensor) -> None:
    model = make_model(fitted=False)
    with pytest.raises(ValueError, match=r"cell_map must be \(16, 2\).* which has \[4, 16\]"):
        model.fit_places(wrong)
    assert (model.copies.cell_map == -1).all()


def test_a_model_that_copies_nothing_needs_no_places() -> None:
    model = make_model(pointer_head=False, fitted=False)
    model.fit_places(CELL_MAP)
    assert not any(name.startswith("copies") for name in model.state_dict())


def test_a_codec_whose_hours_know_one_another_has_no_vector_of_a_place() -> None:
    with pytest.raises(Exception, match=r"needs a codec with num_encoder_layers=0.*this one has 2"):
        MstarConfig.from_preset("tiny", pointer_head=True)


def test_a_hidden_home_cannot_be_copied() -> None:
    with pytest.raises(Exception, match=r"choose pointer_head=True or condition_dropout=0.1, not both"):
        MstarConfig.from_preset("tiny", codec_config=codec_config(), pointer_head=True, condition_dropout=0.1)
