"""Drawing weeks with M-STAR: the cache against one pass over the drawn codes, seeds and batches, known hours, guidance,
paths, and what is refused.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mstar_model import make_model as drawn_model

from hf_mobility.modeling import generation_mstar
from hf_mobility.modeling.modeling_mstar import MstarForTrajectoryGeneration

LENGTHS = [1, 4, 24]
HOMES, WORKPLACES, ATTRIBUTES = (
    torch.tensor([3, 0, 15, 7, 7]),
    torch.tensor([3, 9, 1, 7, 2]),
    torch.tensor([0, 7, 4, 1, 1]),
)
PEOPLE = (HOMES, WORKPLACES, ATTRIBUTES)


def make_model(*, seed: int = 0, **overrides: Any) -> MstarForTrajectoryGeneration:
    """The tiny model; paths may be asked for."""
    model = drawn_model(seed=seed, **overrides)
    model.fit_transition(torch.randint(0, 2, (50, 24), generator=seeded(seed)))
    return model


def make_weeks(weeks: int = 5, seed: int = 0) -> torch.Tensor:
    fine = torch.randint(0, 16, (weeks, 24), generator=torch.Generator().manual_seed(seed))
    return torch.stack([fine // 8 * 2 + fine % 4 // 2, fine], dim=1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(logits, open positions) of every pass of `generate`, recorded as they are drawn."""
    recorded: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = generation_mstar.draw_codes

    def draw(logits: torch.Tensor, is_open: torch.Tensor, *rest: Any) -> Any:
        recorded.append((logits.clone(), is_open.clone()))
        return original(logits, is_open, *rest)

    monkeypatch.setattr(generation_mstar, "draw_codes", draw)
    return recorded


# The cache


def test_cached_logits_equal_one_pass_over_the_drawn_codes(passes: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    model = make_model()
    _, codes = model.generate(*PEOPLE, generator=seeded(), return_codes=True)
    logits = torch.cat([logits for logits, _ in passes], dim=1)
    torch.testing.assert_close(logits, model(codes, *PEOPLE).logits, atol=1e-5, rtol=1e-5)
    assert (codes.unsqueeze(-1) == logits.topk(10).indices).any(-1).all()


@pytest.mark.parametrize(("steps", "sizes"), [(3, [1, 1, 1, 2, 6, 6, 12]), ([1, 1, 2], [1, 4, 12, 12])], ids=str)
def test_cached_logits_of_several_passes_equal_one_pass_over_the_drawn_codes(
    passes: list[tuple[torch.Tensor, torch.Tensor]], steps: int | list[int], sizes: list[int]
) -> None:
    model = make_model(within_level_steps=steps)
    _, codes = model.generate(*PEOPLE, generator=seeded(), return_codes=True)
    assert [logits.shape[1] for logits, _ in passes] == sizes
    logits = torch.cat([logits for logits, _ in passes], dim=1)
    wanted = model(codes, *PEOPLE).logits[:, model.order.positions]
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)


def test_cached_logits_of_spaced_passes_that_read_their_context_equal_one_pass(
    passes: list[tuple[torch.Tensor, torch.Tensor]],
) -> None:
    model = make_model(within_level_steps=3, within_level_spacing=[1, 2, 6], within_level_context=4)
    _, codes = model.generate(*PEOPLE, generator=seeded(), return_codes=True)
    logits = torch.cat([logits for logits, _ in passes], dim=1)
    wanted = model(codes, *PEOPLE).logits[:, model.order.positions]
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)


def test_the_cache_has_the_exact_size_and_the_conditions_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, caches, calls = make_model(), [], []
    original = generation_mstar.MstarCache
    monkeypatch.setattr(generation_mstar, "MstarCache", lambda *size: caches.append(original(*size)) or caches[-1])
    model.attention_modulation.register_forward_hook(lambda *_: calls.append(1))
    model.generate(*PEOPLE, generator=seeded(), batch_size=3)
    assert [tuple(cache.keys.shape) for cache in caches] == [(2, 3, 2, 29, 8), (2, 2, 2, 29, 8)]
    assert len(calls) == 2


# Seeds, batches, modes


@pytest.mark.parametrize("settings", [{}, {"within_level_steps": 3, "decoding": "sample"}], ids=str)
def test_a_seed_gives_the_same_weeks_however_they_are_batched(settings: dict[str, Any]) -> None:
    model = make_model(**settings).double()
    first = model.generate(*PEOPLE, generator=seeded())
    assert first.shape == (5, 24) and first.dtype == torch.int64 and first.min() >= 0 and first.max() < 16
    for batch_size in (1, 2, 4, 100):
        assert torch.equal(model.generate(*PEOPLE, generator=seeded(), batch_size=batch_size), first)
    assert not torch.equal(model.generate(*PEOPLE, generator=seeded(1)), first)


def test_without_a_generator_the_global_one_is_used_and_with_one_it_is_left_alone() -> None:
    model = make_model()
    torch.manual_seed(5)
    first = model.generate(*PEOPLE)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    model.generate(*PEOPLE, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.generate(*PEOPLE), first)


def test_training_mode_does_not_change_what_is_drawn_and_is_kept() -> None:
    model = make_model(condition_dropout=0.5)
    first = model.generate(*PEOPLE, generator=seeded())
    model.train()
    assert torch.equal(model.generate(*PEOPLE, generator=seeded()), first)
    assert model.training and not model.codec.training


def test_no_people_give_no_weeks() -> None:
    nobody = torch.zeros(0, dtype=torch.int64)
    assert make_model().generate(nobody, nobody, nobody).shape == (0, 24)


def test_lists_are_taken_for_tensors() -> None:
    model = make_model()
    people = [values.tolist() for values in PEOPLE]
    assert torch.equal(model.generate(*people, generator=seeded()), model.generate(*PEOPLE, generator=seeded()))


def test_progress_is_shown_on_request_only(capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model()
    model.generate(*PEOPLE)
    assert capsys.readouterr().err == ""
    model.generate(*PEOPLE, batch_size=2, progress=True)
    assert "3/3" in capsys.readouterr().err


# Settings


def test_settings_come_from_the_configuration_unless_given() -> None:
    settings: dict[str, Any] = {
        "top_k": 3,
        "temperature": [1.0, 0.5, 2.0],
        "smoothing_window": 0,
        "decoding": "viterbi",
    }
    configured, plain = make_model(**settings), make_model()
    first = configured.generate(*PEOPLE, generator=seeded())
    assert torch.equal(plain.generate(*PEOPLE, generator=seeded(), **settings), first)
    assert not torch.equal(plain.generate(*PEOPLE, generator=seeded()), first)
    by_rule = configured.generate(
        *PEOPLE, generator=seeded(), top_k=10, temperature="confidence", smoothing_window=3, decoding="argmax"
    )
    assert torch.equal(by_rule, plain.generate(*PEOPLE, generator=seeded()))


def test_one_value_per_level_may_come_as_any_sequence() -> None:
    model = make_model()
    drawn = [
        model.generate(*PEOPLE, generator=seeded(), temperature=kind([1.0, 0.9, 0.8]))
        for kind in (list, tuple, torch.tensor)
    ]
    assert all(torch.equal(weeks, drawn[0]) for weeks in drawn)


def test_the_best_code_alone_leaves_nothing_to_chance() -> None:
    model = make_model()
    first = model.generate(*PEOPLE, generator=seeded(), top_k=1)
    assert torch.equal(model.generate(*PEOPLE, generator=seeded(1), top_k=1), first)


def test_released_and_corrected_draw_alike_from_the_same_weights() -> None:
    released, corrected = make_model(variant="released"), make_model(variant="corrected")
    corrected.load_state_dict({**corrected.state_dict(), **_own(released)})
    codes = torch.randint(0, 32, (5, 29), generator=seeded())
    assert _own(released).keys() == _own(corrected).keys()
    with torch.no_grad():
        for model in (released, corrected):
            model.codec.teacher_inputs = lambda ids: (torch.ones(*ids.shape, 16), torch.ones(len(ids), 24, 16))
        torch.testing.assert_close(released(codes, *PEOPLE).logits, corrected(codes, *PEOPLE).logits)


def _own(model: MstarForTrajectoryGeneration) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith("codec.")}


def test_decoding_is_the_codec_on_the_drawn_codes() -> None:
    model = make_model(smoothing_window=0)
    cells, codes = model.generate(*PEOPLE, generator=seeded(), return_codes=True)
    assert torch.equal(cells, model.codec.decode(codes).argmax(-1))
    smoothed, same = model.generate(*PEOPLE, generator=seeded(), return_codes=True, smoothing_window=3)
    assert torch.equal(codes, same)
    _, fhat = model.codec.teacher_inputs(codes)
    assert torch.equal(smoothed, model.codec.decode_features(fhat, 3).argmax(-1))


def test_paths_stay_more_than_the_best_cell_of_each_hour() -> None:
    model = make_model(smoothing_window=0)
    model.fit_transition(torch.zeros(200, 24, dtype=torch.int64))
    found = {d: model.generate(*PEOPLE, generator=seeded(), decoding=d) for d in ("argmax", "viterbi", "sample")}
    moves = {d: int((cells[:, 1:] != cells[:, :-1]).sum()) for d, cells in found.items()}
    assert moves["viterbi"] < moves["argmax"] and moves["sample"] < moves["argmax"]
    sharp = model.generate(*PEOPLE, generator=seeded(), decoding="viterbi", emission_scale=1e4)
    assert torch.equal(sharp, found["argmax"])


def test_guidance_of_one_is_no_guidance(passes: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    model = make_model(condition_dropout=0.1)
    first = model.generate(*PEOPLE, generator=seeded())
    assert torch.equal(model.generate(*PEOPLE, generator=seeded(), guidance=1.0), first)
    passes.clear()
    _, codes = model.generate(*PEOPLE, generator=seeded(), guidance=2.5, return_codes=True)
    guided = torch.cat([logits for logits, _ in passes], dim=1)
    asked = model(codes, *PEOPLE).logits
    model.conditions.register_forward_hook(lambda module, _, output: module.null.expand_as(output))
    unasked = model(codes, *PEOPLE).logits
    torch.testing.assert_close(guided, unasked + 2.5 * (asked - unasked), atol=1e-4, rtol=1e-4)


# Known hours


@pytest.mark.parametrize("decoding", ["argmax", "viterbi", "sample"])
@pytest.mark.parametrize("steps", [1, 3])
def test_known_hours_are_kept_exactly(decoding: str, steps: int) -> None:
    model, weeks = make_model(within_level_steps=steps), make_weeks()
    mask = torch.rand(5, 24, generator=seeded()) < torch.tensor([0.0, 0.3, 0.6, 0.9, 1.0]).unsqueeze(1)
    cells = model.generate(*PEOPLE, generator=seeded(), decoding=decoding, prefix_ids=weeks, prefix_mask=mask.long())
    assert torch.equal(cells[mask], weeks[:, -1][mask])


def test_a_week_known_as_a_whole_gets_the_codes_of_the_codec() -> None:
    model, weeks = make_model(), make_weeks()
    everything = torch.ones(5, 24, dtype=torch.int64)
    _, codes = model.generate(*PEOPLE, prefix_ids=weeks, prefix_mask=everything, return_codes=True)
    assert torch.equal(codes, model.codec.encode(weeks, everything))


def test_codes_are_computed_only_where_all_their_hours_are_known() -> None:
    model, weeks = make_model(), make_weeks()
    mask = torch.zeros(5, 24, dtype=torch.int64)
    mask[:, :9] = 1  # one position of six hours and nine of one
    _, codes = model.generate(*PEOPLE, generator=seeded(), prefix_ids=weeks, prefix_mask=mask, return_codes=True)
    features, _ = model.codec.teacher_inputs(codes)
    known = torch.cat(model.codec.level_features(weeks, mask), dim=1)
    computed = model.codec.quantize_level(known - features) == codes
    assert computed[:, [1, *range(5, 14)]].all()
    assert not computed[:, 2:5].all() and not computed[:, 14:].all()


def test_with_a_guess_codes_are_computed_where_any_of_their_hours_is_known() -> None:
    model, weeks = make_model(), make_weeks()
    mask = torch.zeros(5, 24, dtype=torch.int64)
    mask[:, :7] = 1  # of the whole day, a position of six hours, one hour of the next one, and seven of one
    given = {"prefix_ids": weeks, "prefix_mask": mask, "filled_ids": make_weeks().roll(1, 0)}
    cells, codes = model.generate(*PEOPLE, generator=seeded(), return_codes=True, **given)
    assert torch.equal(cells[:, :7], weeks[:, -1, :7])
    filled = torch.where(mask.bool().unsqueeze(1), weeks, given["filled_ids"])
    features, _ = model.codec.teacher_inputs(codes)
    guessed = torch.cat(model.codec.level_features(filled), dim=1)
    computed = model.codec.quantize_level(guessed - features) == codes
    assert computed[:, [0, 1, 2, *range(5, 12)]].all()
    assert not computed[:, 3:5].all() and not computed[:, 12:].all()
    assert torch.equal(model.generate(*PEOPLE, generator=seeded(), batch_size=2, **given), cells)


def test_nothing_known_is_the_same_as_no_prefix() -> None:
    model, weeks = make_model(within_level_steps=2), make_weeks()
    nothing = torch.zeros(5, 24, dtype=torch.int64)
    found = model.generate(*PEOPLE, generator=seeded(), prefix_ids=weeks, prefix_mask=nothing)
    assert torch.equal(found, model.generate(*PEOPLE, generator=seeded()))


def test_the_cells_of_unknown_hours_are_not_read() -> None:
    model, weeks = make_model(), make_weeks()
    mask = torch.zeros(5, 24, dtype=torch.int64)
    mask[:, 6:18] = 1
    first = model.generate(*PEOPLE, generator=seeded(), prefix_ids=weeks, prefix_mask=mask)
    other = weeks.clone()
    other[:, :, 18:] = -1
    assert torch.equal(model.generate(*PEOPLE, generator=seeded(), prefix_ids=other, prefix_mask=mask), first)
    assert (other[:, :, 18:] == -1).all()


# What is refused


@pytest.mark.parametrize(
    ("people", "words"),
    [
        ((HOMES, None, ATTRIBUTES), "work_ids is missing: home_ids, work_ids and attribute_ids go together"),
        ((HOMES, WORKPLACES[:4], ATTRIBUTES), "work_ids has 4 values, home_ids has 5"),
        (
            (HOMES + 1, WORKPLACES, ATTRIBUTES),
            r"home_ids must be cells of this model's grid, 0 to 15; 1 are not.* \[16\]",
        ),
        ((HOMES, WORKPLACES - 5, ATTRIBUTES), r"work_ids must be cells .* 3 are not, the first ones \[-2, -4, -3\]"),
        ((HOMES, WORKPLACES, ATTRIBUTES + 1), "attribute_ids must be classes of the movement attribute, 0 to 7"),
        ((HOMES.float(), WORKPLACES, ATTRIBUTES), "home_ids must be integers"),
        ((HOMES[None], WORKPLACES[None], ATTRIBUTES[None]), r"home_ids must be integers of shape \(N,\)"),
    ],
    ids=range(7),
)
def test_wrong_conditions_are_refused_in_one_sentence(people: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_model().generate(*people)


ALL_KNOWN = {"prefix_ids": make_weeks(), "prefix_mask": torch.ones(5, 24)}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_k": -3}, "top_k must be at least 1"),
        ({"top_k": 1.5}, "top_k must be at least 1 and an integer"),
        ({"temperature": float("nan")}, "temperature must be above 0"),
        ({"temperature": [1.0, float("inf"), 1.0]}, "temperature must be above 0"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"temperature": [1.0, 1.0, -0.5]}, "temperature must be above 0"),
        ({"temperature": [1.0]}, "temperature needs one value for each of the 3 levels"),
        ({"temperature": "hot"}, "temperature must be"),
        ({"guidance": 2.0}, "needs a model trained with condition_dropout"),
        ({"smoothing_window": 4}, "smoothing_window must be 0 or odd"),
        ({"smoothing_window": 3.0}, r"smoothing_window must be 0 or odd, got 3\.0"),
        ({"decoding": "beam"}, "decoding must be"),
        ({"emission_scale": -1.0}, "emission_scale must be above 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"prefix_ids": make_weeks()}, "prefix_ids, the cells, and prefix_mask"),
        ({"prefix_ids": make_weeks(4), "prefix_mask": torch.ones(4, 24)}, r"prefix_ids must be \(5, 2, 24\)"),
        ({"prefix_ids": make_weeks(), "prefix_mask": torch.ones(4, 24)}, r"and prefix_mask \(5, 24\)"),
        ({"filled_ids": make_weeks()}, "filled_ids needs prefix_ids and prefix_mask"),
        ({**ALL_KNOWN, "filled_ids": make_weeks(4)}, r"filled_ids must be \(5, 2, 24\)"),
        ({**ALL_KNOWN, "filled_ids": make_weeks() - 1}, r"filled_ids must lie inside the grids"),
        ({"prefix_ids": make_weeks() + 9, "prefix_mask": torch.ones(5, 24)}, r"inside the grids of \[4, 16\] cells"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_make_no_sense_are_refused_in_one_sentence(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_model().generate(*PEOPLE, **settings)


def test_a_path_needs_training_weeks_first() -> None:
    model = make_model()
    model.arrival_share.zero_()
    with pytest.raises(ValueError, match="needs fit_transition"):
        model.generate(*PEOPLE, decoding="viterbi")
    with pytest.raises(ValueError, match="weeks of 24 hours"):
        model.fit_transition(torch.zeros(3, 23))
    with pytest.raises(ValueError, match=r"0 to 15, or be -1 = unknown; 2 do not, the first ones \[16, 99\]"):
        model.fit_transition(torch.tensor([[16, 99, *[-1] * 22]]))
    with pytest.raises(ValueError, match=r"1 do not, the first ones \[-5\]"):
        model.fit_transition(torch.tensor([[0, -5, *[-1] * 22]]))
    with pytest.raises(ValueError, match=r"cells must be integers, got torch\.float32"):
        model.fit_transition(torch.zeros(3, 24))
    for weeks in (torch.zeros(0, 24, dtype=torch.int64), torch.full((3, 24), -1)):
        with pytest.raises(ValueError, match=f"nothing can be learned from {len(weeks)} weeks without a known hour"):
            model.fit_transition(weeks)
