"""The key/value cache under both of its names, whichever the installed transformers uses."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_models import recomputing
from transformers import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import logging

from hf_mobility.modeling.configuration_raw import RawConfig
from hf_mobility.modeling.layers import CACHE, either_cache_name
from hf_mobility.modeling.modeling_raw import RawForTrajectoryPrediction, RawPredictionOutput
from hf_mobility.modeling.modeling_samoe import SamoeForNextLocation, SamoeOutput

NAMES = ("cache", "past_key_values")


@pytest.fixture(params=["samoe", "raw"])
def case(request: pytest.FixtureRequest, build: SimpleNamespace) -> tuple[Any, Any, str]:
    """(model, function from a slice of positions to the model's inputs there, name of the output)."""
    if request.param == "samoe":
        model, city, visits = build.all()
        return model, lambda rows: {**build.rows_of(visits, rows), "location_features": city}, "logits"
    torch.manual_seed(0)
    series = 2 * torch.rand(3, 9, 2) - 1
    model = RawForTrajectoryPrediction(RawConfig.from_preset("tiny")).eval()
    return model, lambda rows: {"coordinates": series[:, rows]}, "predictions"


def test_it_is_the_name_that_the_library_generates_with() -> None:
    assert {field.name for field in fields(CausalLMOutputWithPast)} & set(NAMES) == {CACHE}
    for model in (SamoeForNextLocation, RawForTrajectoryPrediction):
        assert model._skip_keys_device_placement == [CACHE]


@pytest.mark.parametrize("name", NAMES)
def test_a_cache_is_taken_by_either_name(case: tuple[Any, Any, str], name: str) -> None:
    model, at, output = case
    with torch.no_grad():
        whole = getattr(model(**at(slice(0, 9))), output)
        cache = DynamicCache(config=model.config)
        first = model(**at(slice(0, 6)), **{name: cache}, use_cache=True)
        assert first.past_key_values is cache and first[CACHE] is cache and cache.get_seq_length() == 6
        rest = model(**at(slice(6, 9)), **{name: cache})
        body = model.model(**at(slice(0, 6)), **{name: DynamicCache(config=model.config)})
    assert body.past_key_values.get_seq_length() == 6
    torch.testing.assert_close(torch.cat([getattr(first, output), getattr(rest, output)], 1), whole, atol=2e-5, rtol=0)


def test_both_names_at_once_are_refused(case: tuple[Any, Any, str]) -> None:
    model, at, _ = case
    caches = {name: DynamicCache(config=model.config) for name in NAMES}
    with pytest.raises(ValueError, match="two names of one argument"):
        model(**at(slice(0, 6)), **caches)


def test_a_roll_out_warns_of_no_old_name(
    build: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, case: tuple[Any, Any, str]
) -> None:
    model, at, _ = case
    told: list[str] = []
    for name in ("warning", "warning_once"):
        monkeypatch.setattr(logging.logging.Logger, name, lambda self, text, *args: told.append(str(text)))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        model(**at(slice(0, 6)), use_cache=True)
        if isinstance(model, SamoeForNextLocation):
            model.generate(**at(slice(0, 6)), max_new_tokens=2, do_sample=False)
        else:
            model.generate(**at(slice(0, 6)), steps=2)
    assert not [text for text in told if "past_key_values" in text]


def test_a_cache_is_put_aside_where_activations_are_recomputed(case: tuple[Any, Any, str]) -> None:
    """A layer that runs a second time in the backward pass would write its keys twice."""
    model, at, output = case
    recomputing(model.train())
    cache = DynamicCache(config=model.config)
    getattr(model(**at(slice(0, 6)), cache=cache), output).sum().backward()
    assert cache.get_seq_length() == 0


@pytest.mark.parametrize("output_class", [SamoeOutput, RawPredictionOutput])
def test_an_output_can_be_copied_with_its_cache(output_class: type) -> None:
    cache = DynamicCache()
    output = output_class(loss=torch.ones(()), **{CACHE: cache})
    assert output_class(**output).past_key_values is cache and list(output) == ["loss", CACHE]


def test_a_function_keeps_its_signature() -> None:
    @either_cache_name
    def function(x: int, cache: Any = None) -> tuple[int, Any]:
        return x, cache

    assert list(inspect.signature(function).parameters) == ["x", "cache"]
    assert function(1, past_key_values="a") == function(1, cache="a") == function(1, "a") == (1, "a")
    assert function(1, past_key_values=None, cache="a") == (1, "a")
