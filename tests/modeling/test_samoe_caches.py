"""Rolling out from every kind of cache gives what no cache gives: dynamic, static, filled in chunks, continued."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from torch.nn import functional as F
from transformers import CompileConfig, DynamicCache, GenerationMixin, StaticCache

from hf_mobility.modeling.layers import CACHE
from hf_mobility.modeling.times_samoe import stay_class

VARIANTS = ("extended", "released", "paper")
STEPS = 8
# Before 5.23, transformers read a context in chunks as if the cache were empty.
CHUNKS_GO_ON = "past_length = 0" not in inspect.getsource(GenerationMixin._prefill)


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
    static = {"cache_implementation": "static", "compile_config": compiled}
    assert_alike(roll_out(model, city, visits, **static), wanted)
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    assert_alike(roll_out(model, city, visits, **static, prefill_chunk_size=3), wanted)
    torch.compiler.reset()


@pytest.mark.parametrize("size, kind", [(1, "dynamic"), (4, "dynamic"), (4, "static"), (20, "dynamic")])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("which", ["one", "padded"])
def test_a_context_read_in_chunks_rolls_out_as_read_at_once(
    build: SimpleNamespace, size: int, which: str, variant: str, kind: str
) -> None:
    model = build.model(variant, use_eos=False)
    city, visits = build.city(model.config), people(build, model.config, which)
    wanted = roll_out(model, city, visits, use_cache=False)
    assert_alike(roll_out(model, city, visits, prefill_chunk_size=size, cache_implementation=kind), wanted)


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("all_visits", [True, False], ids=["all", "new"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("which", ["one", "padded"])
def test_a_cache_is_continued_with_all_visits_or_with_new_ones(
    build: SimpleNamespace, which: str, variant: str, all_visits: bool, size: int | None
) -> None:
    model = build.model(variant, use_eos=False)
    city, visits = build.city(model.config), people(build, model.config, which)
    wanted = roll_out(model, city, visits, use_cache=False)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(**build.rows_of(visits, slice(0, 5)), location_features=city, **{CACHE: cache})
    mask = {"attention_mask": (visits["input_ids"] > 0).long()}
    given = visits if all_visits else {**build.rows_of(visits, slice(5, 9)), **mask}
    if size and not CHUNKS_GO_ON:
        with pytest.raises(ValueError, match="attention_mask has 2 columns for 5 visits in the cache and 2 new ones"):
            roll_out(model, city, given, prefill_chunk_size=size, **{CACHE: cache})
        return
    found = roll_out(model, city, given, prefill_chunk_size=size, **{CACHE: cache})
    assert_alike([part[:, -STEPS:] for part in found], [part[:, -STEPS:] for part in wanted])


def test_a_roll_out_is_continued_from_its_own_cache(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    whole = roll_out(model, city, visits)
    cache = DynamicCache(config=model.config)
    ids, times = model.generate(
        **visits, location_features=city, max_new_tokens=3, do_sample=False, return_timestamps=True, **{CACHE: cache}
    )
    gaps = stay_class(times.diff(dim=1)[:, 8:], model.config)
    grown = {
        "input_ids": ids,
        "time_ids": times // 1800 % 48,
        "weekday_ids": (times // 86400 + 3) % 7,
        "stay_ids": torch.cat([visits["stay_ids"], gaps], dim=1),
        "timestamps": times,
    }
    found = model.generate(**grown, location_features=city, max_new_tokens=STEPS - 3, do_sample=False, **{CACHE: cache})
    assert torch.equal(found, whole[0])


@pytest.mark.parametrize("name", ["time_ids", "weekday_ids", "stay_ids", "timestamps"])
@pytest.mark.parametrize("rows", [slice(0, 8), slice(0, 1)])
def test_inputs_of_other_visits_are_refused(build: SimpleNamespace, name: str, rows: slice) -> None:
    model, city, visits = build.all()
    with pytest.raises(ValueError, match=rf"{name} has shape \(3, {rows.stop}\), input_ids has \(3, 9\)"):
        roll_out(model, city, {**visits, name: visits[name][:, rows]})


@pytest.mark.parametrize("columns", [None, 4, 8, 10], ids=["none", "new", "short", "long"])
def test_a_cache_that_does_not_fit_the_visits_is_refused(build: SimpleNamespace, columns: int | None) -> None:
    model, city, visits = build.all()
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(**build.rows_of(visits, slice(0, 5)), location_features=city, **{CACHE: cache})
    given = build.rows_of(visits, slice(5, 9))
    mask = {} if columns is None else {"attention_mask": torch.ones(3, columns, dtype=torch.long)}
    with pytest.raises(ValueError, match=f"input_ids has 4 visits, attention_mask {columns or 4} columns"):
        roll_out(model, city, {**given, **mask}, **{CACHE: cache})
    if columns:
        with pytest.raises(ValueError, match=f"attention_mask has {columns} columns; 5 visits in the cache and 4 new"):
            model(**given, **mask, location_features=city, **{CACHE: cache})
