"""Rolling out from every kind of cache gives what no cache gives: dynamic, static, filled in chunks, continued."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from torch.nn import functional as F
from transformers import CompileConfig, StaticCache

from hf_mobility.modeling.layers import CACHE

VARIANTS = ("extended", "released", "paper")
STEPS = 8


def roll_out(model: Any, city: torch.Tensor, visits: dict[str, torch.Tensor], **how: Any) -> Any:
    return model.generate(
        **visits, location_features=city, max_new_tokens=STEPS, return_timestamps=True, do_sample=False, **how
    )


def assert_alike(found: Any, wanted: Any) -> None:
    assert torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])


def people(build: SimpleNamespace, config: Any, which: str) -> dict[str, torch.Tensor]:
    """One person alone, three of one length, or three with padding on the left."""
    visits = build.visits(config, batch=1 if which == "one" else 3)
    if which != "padded":
        return visits
    shift = lambda x, n: F.pad(x[:, : 9 - n], (n, 0))  # noqa: E731
    padded = {
        name: torch.cat([shift(value[b : b + 1], n) for b, n in enumerate((0, 4, 7))]) for name, value in visits.items()
    }
    return {**padded, "attention_mask": (padded["input_ids"] > 0).long()}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("which", ["one", "several", "padded"])
def test_a_static_cache_rolls_out_as_a_dynamic_one_and_as_none(
    build: SimpleNamespace, which: str, variant: str, attention: str
) -> None:
    for seed in range(3):
        model = build.model(variant, seed=seed, use_eos=False, attn_implementation=attention)
        city, visits = build.city(model.config), people(build, model.config, which)
        wanted = roll_out(model, city, visits, use_cache=False)
        for kind in ("dynamic", "static"):
            assert_alike(roll_out(model, city, visits, cache_implementation=kind), wanted)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("options", [{}, {"num_pointer_heads": 8, "activity_features": True}], ids=["plain", "heads"])
def test_scores_from_a_static_cache_are_those_of_the_whole_context(
    build: SimpleNamespace, options: dict, attention: str
) -> None:
    model = build.model(attn_implementation=attention, **options)
    city, visits = build.city(model.config), build.visits(model.config, batch=1)
    with torch.no_grad():
        whole = model(**visits, location_features=city)
        cache = StaticCache(config=model.config, max_cache_len=16)
        for begin, end in ((0, 5), (5, 6), (6, 9)):
            rows = build.rows_of(visits, slice(begin, end))
            part = model(**rows, location_features=city, cache=cache)
            build.assert_same(part.logits, whole.logits[:, begin:end])
            build.assert_same(part.stay_logits, whole.stay_logits[:, begin:end])
    assert part[CACHE] is cache and cache.is_compileable


def test_a_static_cache_can_be_emptied_and_used_again(build: SimpleNamespace) -> None:
    model = build.model()
    city, visits = build.city(model.config), build.visits(model.config)
    cache = StaticCache(config=model.config, max_cache_len=9 + STEPS)
    roll_out(model, city, visits, **{CACHE: cache})
    cache.reset()
    other = build.visits(model.config, seed=1)
    wanted = roll_out(model, city, other, use_cache=False)
    assert_alike(roll_out(model, city, other, **{CACHE: cache}), wanted)


@pytest.mark.parametrize(
    "variant, options",
    [
        ("paper", {}),
        ("released", {}),
        ("extended", {}),
        ("extended", {"num_pointer_heads": 8, "activity_features": True}),
    ],
    ids=["paper", "released", "extended", "heads"],
)
def test_a_roll_out_from_a_static_cache_compiles_to_one_graph(
    build: SimpleNamespace, variant: str, options: dict
) -> None:
    model = build.model(variant, use_eos=False, **options)
    assert model._can_compile_fullgraph
    city, visits = build.city(model.config), build.visits(model.config)
    wanted = roll_out(model, city, visits, use_cache=False)
    torch.compiler.reset()
    counters.clear()
    compiled = CompileConfig(fullgraph=True, backend="eager", mode=None)
    compiled._compile_all_devices = True
    assert_alike(roll_out(model, city, visits, cache_implementation="static", compile_config=compiled), wanted)
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    torch.compiler.reset()
