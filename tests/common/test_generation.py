"""SAMoE's `generate` as transformers tests its own: lengths, stops, scores, and one sentence for what needs candidates
without times. Roll-outs, caches and padding are tested in tests/modeling/test_samoe_generate.py and
test_samoe_caches.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import BATCH, CASES, PLACES, VISITS
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer


@pytest.fixture(params=["samoe", "samoe paper"])
def model(request: pytest.FixtureRequest) -> Any:
    return CASES[request.param].model(use_eos=False)


def rolled(model: Any, **options: Any) -> Any:
    batch = CASES["samoe"].inputs(model.config)
    return model.generate(**batch, **{"max_new_tokens": 3, "do_sample": False, **options})


def test_lengths_are_those_asked_for(model: Any) -> None:
    assert rolled(model).shape == (BATCH, VISITS + 3)
    assert rolled(model, max_new_tokens=None, max_length=VISITS + 2).shape == (BATCH, VISITS + 2)
    assert torch.equal(rolled(model, max_new_tokens=5)[:, : VISITS + 3], rolled(model))


def test_settings_may_come_as_a_configuration_and_are_saved(model: Any, tmp_path: Path) -> None:
    wanted, batch = rolled(model, max_new_tokens=2), CASES["samoe"].inputs(model.config)
    settings = GenerationConfig(max_new_tokens=2, do_sample=False, pad_token_id=0)
    assert torch.equal(model.generate(**batch, generation_config=settings), wanted)
    model.generation_config.max_new_tokens = 2
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.generation_config.max_new_tokens == 2
    assert torch.equal(loaded.generate(**batch, do_sample=False), wanted)


def test_a_criterion_stops_and_a_processor_chooses(model: Any) -> None:
    class Always(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            chosen = torch.full_like(scores, float("-inf"))
            chosen[:, 4] = 0
            return chosen

    found = rolled(
        model,
        max_new_tokens=9,
        logits_processor=LogitsProcessorList([Always()]),
        stopping_criteria=StoppingCriteriaList([MaxLengthCriteria(VISITS + 2)]),
    )
    assert found.shape == (BATCH, VISITS + 2) and bool((found[:, VISITS:] == 4).all())
    barred = rolled(model, suppress_tokens=[int(rolled(model)[0, VISITS])])
    assert barred[0, VISITS] != rolled(model)[0, VISITS]


def test_scores_states_and_attentions_are_given_step_by_step(model: Any) -> None:
    model.set_attn_implementation("eager")
    wanted: dict[str, Any] = {"output_scores": True, "output_logits": True}
    wanted |= {"output_attentions": True, "output_hidden_states": True}
    found = rolled(model, return_dict_in_generate=True, **wanted)
    assert torch.equal(found.sequences, rolled(model))
    for step in range(3):
        assert found.scores[step].shape == found.logits[step].shape == (BATCH, PLACES + 2)
        new = VISITS if step == 0 else 1
        heads = 4 * model.config.num_attention_heads
        assert {x.shape for x in found.attentions[step]} == {(BATCH, heads, new, VISITS + step)}
        assert {x.shape[-2:] for x in found.hidden_states[step]} == {(new, model.config.hidden_size)}
        assert torch.equal(found.logits[step].argmax(-1), found.sequences[:, VISITS + step])


@pytest.mark.parametrize("normalized", [False, True])
def test_scores_of_the_new_visits_are_those_of_their_columns(model: Any, normalized: bool) -> None:
    found = rolled(model, do_sample=True, top_k=4, return_dict_in_generate=True, output_scores=True)
    scores = model.compute_transition_scores(found.sequences, found.scores, normalize_logits=normalized)
    for row in range(BATCH):
        for step, columns in enumerate(found.scores):
            values = columns[row].log_softmax(0) if normalized else columns[row]
            assert scores[row, step] == values[found.sequences[row, VISITS + step]]


def test_samples_repeat_with_a_seed_and_keep_to_what_is_likely(model: Any) -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        drawn.append(rolled(model, do_sample=True, num_return_sequences=2, temperature=0.8))
    assert torch.equal(*drawn) and drawn[0].shape == (2 * BATCH, VISITS + 3)
    torch.manual_seed(0)
    first = rolled(model, do_sample=True, top_k=1, max_new_tokens=1)
    assert torch.equal(first, rolled(model, max_new_tokens=1))


def test_a_streamer_is_told_every_visit() -> None:
    class Told(BaseStreamer):
        seen: list[int] = []

        def put(self, value: torch.Tensor) -> None:
            self.seen += value.flatten().tolist()

        def end(self) -> None:
            self.seen.append(-1)

    model = CASES["samoe"].model(use_eos=False)
    batch = {k: v if k == "location_features" else v[:1] for k, v in CASES["samoe"].inputs(model.config).items()}
    told = Told()
    found = model.generate(**batch, max_new_tokens=2, do_sample=False, streamer=told)
    assert told.seen == [*found[0].tolist(), -1]


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"num_beams": 2}, "beam search is not supported: beams differ in the times of their visits"),
        ({"prompt_lookup_num_tokens": 2}, "prompt_lookup_num_tokens is not supported: candidates of several visits"),
        ({"assistant_model": "itself"}, "assistant_model is not supported: candidates of several visits"),
        ({"generation_config": GenerationConfig(prompt_lookup_num_tokens=2)}, "prompt_lookup_num_tokens is not supp"),
        ({"inputs_embeds": torch.zeros(BATCH, VISITS, 16)}, "inputs_embeds"),
    ],
    ids=["beams", "prompt lookup", "assisted", "in the configuration", "embedded"],
)
def test_what_needs_candidates_or_embeddings_is_refused_in_a_sentence(
    model: Any, options: dict[str, Any], sentence: str
) -> None:
    if options.get("assistant_model"):
        options = {"assistant_model": model}
    with pytest.raises(ValueError, match=sentence):
        rolled(model, **options)


@pytest.mark.parametrize("name", ["mstar", "raw"])
def test_other_roll_outs_are_no_generation_mixins(name: str) -> None:
    """Also where transformers adds the mixin, which it does to models that it loads by their own code."""
    from transformers.models.auto.auto_factory import add_generation_mixin_to_remote_model

    model_class = CASES[name].model_class
    assert not model_class.can_generate()
    assert not add_generation_mixin_to_remote_model(model_class).can_generate()
    assert CASES["samoe"].model_class.can_generate()
