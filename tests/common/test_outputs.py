"""What every model answers: the same each time, in any batch, by any kernel of attention, and in the form asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import BATCH, CASES, TRAINED, Case

LAYERS = [name for name in CASES if name not in ("codec", "raw regions")]  # outputs with states of the layers


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_the_same_input_gives_the_same_output(case: Case) -> None:
    model = case.model()
    torch.testing.assert_close(case.answer(model), case.answer(model), rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in CASES if name != "raw regions"])  # regions share their visitors
def test_a_row_alone_is_answered_as_in_a_batch(name: str) -> None:
    case = CASES[name]
    model = case.model()
    batch, wanted = case.batch(model), case.answer(model)
    for row in range(BATCH):
        alone = {k: v if k == "location_features" else v[row : row + 1] for k, v in batch.items()}
        with torch.no_grad():
            found = getattr(model(**alone), case.output)
        torch.testing.assert_close(found, wanted[row : row + 1], atol=1e-5, rtol=1e-4)


def test_the_paper_variant_keeps_users_of_one_row_apart_by_their_positions() -> None:
    """Several users packed into one row; the pointer head of the extended variant reads the whole row."""
    case = CASES["samoe paper"]
    model = case.model()
    batch, wanted = case.batch(model), case.answer(model)
    packed = {k: v if k == "location_features" else v.reshape(1, -1) for k, v in batch.items()}
    positions = torch.arange(packed["input_ids"].shape[1]) % batch["input_ids"].shape[1]
    with torch.no_grad():
        found = model(**packed, position_ids=positions[None], use_cache=False).logits
    torch.testing.assert_close(found.view_as(wanted), wanted, atol=1e-5, rtol=1e-4)


def test_a_tuple_holds_the_values_of_the_output(case: Case) -> None:
    model = case.model()
    batch = case.batch(model, labels=True)
    with torch.no_grad():
        named, listed = model(**batch), model(**batch, return_dict=False)
    assert isinstance(listed, tuple) and len(listed) == len(named)
    for wanted, found in zip(named.values(), listed, strict=True):
        if isinstance(wanted, torch.Tensor):
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name, kernel", [*((name, "sdpa") for name in CASES), ("raw", "flex_attention")])
def test_kernels_of_attention_agree(name: str, kernel: str) -> None:
    case = CASES[name]
    model = case.model()
    model.set_attn_implementation("eager")
    wanted = case.answer(model)
    model.set_attn_implementation(kernel)
    torch.testing.assert_close(case.answer(model), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["mstar", "codec"])
def test_flex_attention_is_refused_by_models_that_make_masks_of_their_own(name: str) -> None:
    with pytest.raises(ValueError, match="does not support an attention implementation through torch's flex_attention"):
        CASES[name].model().set_attn_implementation("flex_attention")


@pytest.mark.parametrize("name", LAYERS)
def test_states_and_attentions_of_the_layers_are_given_on_request(name: str) -> None:
    case = CASES[name]
    model = case.model(attn_implementation="eager")
    batch = case.batch(model)
    with torch.no_grad():
        output = model(**batch, output_hidden_states=True, output_attentions=True)
        assert model(**batch).hidden_states is None
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    length = next(iter(batch.values())).shape[1]
    streams = 4 if getattr(model.config, "mixture", False) else 1
    assert len(output.hidden_states) == layers + 1 and len(output.attentions) == layers
    assert {state.shape[-2:] for state in output.hidden_states} == {(length, model.config.hidden_size)}
    assert {found.shape for found in output.attentions} == {(BATCH, streams * heads, length, length)}
    sums = torch.stack(output.attentions).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize(
    "name, sentence",
    [("samoe", "input_ids are needed"), ("mstar", "give either code_ids"), ("codec", r"input_ids must be \(weeks")],
)
def test_embedded_inputs_are_refused_where_an_id_is_needed(name: str, sentence: str) -> None:
    """SAMoE looks places up in a city's table, M-STAR and its codec look up codes and cells; RAW takes embeddings."""
    case = CASES[name]
    model = case.model()
    batch = {k: v for k, v in case.batch(model).items() if k not in ("input_ids", "code_ids")}
    with pytest.raises(ValueError, match=sentence):
        model(**batch, inputs_embeds=torch.zeros(BATCH, 4, 16))


@pytest.mark.parametrize("name", TRAINED)
def test_in_float64_results_are_those_of_float32_and_finer(name: str) -> None:
    case = CASES[name]
    with torch.no_grad():
        wanted = case.model()(**case.batch(case.model(), labels=True))
        model = case.model().double()
        batch: dict[str, Any] = case.batch(model, labels=True)
        for values in ({}, {k: v.double() for k, v in batch.items() if v.is_floating_point()}):
            output = model(**{**batch, **values})
            for key in ("loss", case.output):
                assert output[key].dtype == torch.float64
                torch.testing.assert_close(output[key].float(), wanted[key], atol=1e-4, rtol=1e-4)
