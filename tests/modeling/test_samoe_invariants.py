"""What must not change SAMoE's output: later visits, padding, the cache, the attention kernel, the order of a city's
places.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_models import recomputing
from torch.nn import functional as F

VARIANTS = ("extended", "released", "paper")
FORMS: list[tuple[str, dict[str, Any]]] = [
    *((variant, {}) for variant in VARIANTS),
    ("extended", {"mixture": False}),
    ("extended", {"num_pointer_heads": 4, "activity_features": True}),
    ("extended", {"pointer_features": False, "relative_features": False}),
    ("extended", {"max_position_embeddings": 16, "time_in_fused_stream": True, "selector": "hard"}),
    ("released", {"pointer_head": True, "relative_features": True}),
]
every_form = pytest.mark.parametrize(
    ("variant", "overrides"), FORMS, ids=lambda value: "-".join(value) if isinstance(value, dict) else value
)


def outputs_of(
    model: Any, city: torch.Tensor, visits: dict[str, torch.Tensor], **kwargs: Any
) -> dict[str, torch.Tensor]:
    """Every output that has a time axis, that axis second: (B, T, ...). Hidden states keep all their streams."""
    output = model(**visits, location_features=city, output_hidden_states=True, output_router_weights=True, **kwargs)
    found = {"logits": output.logits, "stay_logits": output.stay_logits}
    found |= {
        f"hidden_states[{i}]": h.transpose(1, 2) if h.dim() == 4 else h for i, h in enumerate(output.hidden_states)
    }
    found |= {f"router_weights[{i}]": w for i, w in enumerate(output.router_weights or ())}
    return found


def assert_equal_outputs(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], atol: float = 1e-5) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(
            found[name], wanted[name], atol=atol, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def cut(outputs: dict[str, torch.Tensor], which: slice) -> dict[str, torch.Tensor]:
    return {name: value[:, which] for name, value in outputs.items()}


# Causality


@every_form
@pytest.mark.parametrize("changed", [1, 4, 8])
def test_a_changed_visit_changes_nothing_before_it(
    build: SimpleNamespace, variant: str, overrides: dict, changed: int
) -> None:
    model, city, visits = build.all(variant, **overrides)
    other = build.visits(model.config, seed=1)
    altered = {
        name: torch.cat([value[:, :changed], other[name][:, changed : changed + 1], value[:, changed + 1 :]], dim=1)
        for name, value in visits.items()
    }
    before, after = outputs_of(model, city, visits), outputs_of(model, city, altered)
    assert_equal_outputs(cut(after, slice(0, changed)), cut(before, slice(0, changed)), atol=1e-6)
    assert not torch.allclose(after["logits"][:, changed], before["logits"][:, changed])


def test_every_stream_takes_part_in_the_causality_test(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    hidden = outputs_of(model, city, visits)["hidden_states[0]"]
    assert hidden.shape == (3, 9, 4, 16)
    streams = hidden.transpose(0, 2)
    assert all(not torch.allclose(streams[a], streams[b]) for a in range(4) for b in range(a))


def test_streams_do_not_attend_to_each_other(build: SimpleNamespace) -> None:
    """The POI columns of a place reach the POI stream and the fused one, and no other."""
    model, city, visits = build.all()
    changed = city.clone()
    changed[2:, : model.config.num_poi_features] += 1
    before, after = outputs_of(model, city, visits), outputs_of(model, changed, visits)
    for name in ("hidden_states[0]", "hidden_states[1]"):
        difference = (after[name] - before[name]).abs().amax((0, 1, 3))
        assert difference[[1, 2]].max() == 0 and difference[[0, 3]].min() > 1e-3


# Padding


def padded(visits: dict[str, torch.Tensor], left: int, right: int, fill: int = 0) -> dict[str, torch.Tensor]:
    mask = torch.ones_like(visits["input_ids"])
    fields = {
        name: F.pad(value, (left, right), value=0 if name == "input_ids" else fill) for name, value in visits.items()
    }
    return {**fields, "attention_mask": F.pad(mask, (left, right))}


@every_form
@pytest.mark.parametrize(("left", "right"), [(4, 0), (0, 4), (2, 3)])
@pytest.mark.parametrize("fill", [0, 5], ids=["zeros", "garbage"])
def test_padding_changes_nothing(
    build: SimpleNamespace, variant: str, overrides: dict, left: int, right: int, fill: int
) -> None:
    model, city, visits = build.all(variant, **overrides)
    plain = outputs_of(model, city, visits)
    found = outputs_of(model, city, padded(visits, left, right, fill))
    assert_equal_outputs(cut(found, slice(left, left + 9)), plain)
    assert not torch.isnan(found["logits"]).any()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_people_of_different_lengths_in_one_batch_are_scored_as_alone(
    build: SimpleNamespace, variant: str, side: str
) -> None:
    model, city, visits = build.all(variant)
    lengths = [9, 4, 1]
    alone = [{name: value[b : b + 1, :n] for name, value in visits.items()} for b, n in enumerate(lengths)]
    together = [
        padded(person, 9 - n if side == "left" else 0, 0 if side == "left" else 9 - n)
        for person, n in zip(alone, lengths)
    ]
    batch = {name: torch.cat([person[name] for person in together]) for name in together[0]}
    logits = model(**batch, location_features=city).logits
    for b, (person, n) in enumerate(zip(alone, lengths)):
        rows = slice(9 - n, 9) if side == "left" else slice(0, n)
        build.assert_same(logits[b : b + 1, rows], model(**person, location_features=city).logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_does_not_change_the_loss_or_its_gradient(build: SimpleNamespace, variant: str) -> None:
    model, city, visits = build.all(variant)

    def gradients(left: int, right: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        labels = F.pad(visits["input_ids"], (left, right), value=-100)
        labels[:, left] = -100
        batch = padded(visits, left, right)
        stays = batch["stay_ids"].clone()
        stays[:, left] = 0  # as the tokenizer gives it: nothing came before the first visit
        loss = model(**batch, location_features=city, labels=labels, stay_labels=stays).loss
        loss.backward()
        return loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain_loss, plain = gradients(0, 0)
    for sides in ((3, 0), (0, 3)):
        loss, found = gradients(*sides)
        build.assert_same(loss, plain_loss)
        for a, b in zip(found, plain, strict=True):
            build.assert_same(a, b, atol=2e-5, rtol=1e-3)


# Cache


@every_form
@pytest.mark.parametrize("chunks", [[1] * 9, [4, 3, 2], [1, 7, 1]], ids=str)
@pytest.mark.parametrize("left", [0, 3], ids=["plain", "left-padded"])
def test_with_a_cache_pieces_give_the_same_as_the_whole(
    build: SimpleNamespace, variant: str, overrides: dict, chunks: list[int], left: int
) -> None:
    model, city, visits = build.all(variant, **overrides)
    wanted = outputs_of(model, city, visits)
    if left:  # one person has a shorter past than the others
        visits = {
            name: torch.cat([value[:1], F.pad(value[1:, : 9 - left], (left, 0))]) for name, value in visits.items()
        }
    mask = (visits["input_ids"] > 0).long()
    if left:
        wanted = outputs_of(model, city, {**visits, "attention_mask": mask})
    cache, pieces, start = None, [], 0
    for size in chunks:
        stop = start + size
        output = model(
            **build.rows_of(visits, slice(start, stop)),
            attention_mask=mask[:, :stop] if left else None,
            location_features=city,
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=True,
        )
        cache, start = output.past_key_values, stop
        pieces.append((output.logits, output.stay_logits, output.hidden_states[-1]))
    real = mask.bool()
    for found, name in zip(zip(*pieces), ("logits", "stay_logits", f"hidden_states[{len(output.hidden_states) - 1}]")):
        build.assert_same(torch.cat(found, dim=1)[real], wanted[name][real], atol=2e-5)


def test_the_cache_grows_by_what_was_given(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    cache = model(**visits, location_features=city, use_cache=True).past_key_values
    assert cache.get_seq_length() == 9
    model(**build.rows_of(visits, slice(0, 2)), location_features=city, past_key_values=cache)
    assert cache.get_seq_length() == 11


def test_a_cache_keeps_times_exactly(build: SimpleNamespace) -> None:
    """Seconds since 1970 do not fit float32; a pair feature read a minute off would show at the day's and the hour's
    edges.
    """
    model, city, visits = build.all()
    cache = model(**visits, location_features=city, use_cache=True).past_key_values
    _, _, ids, times = model.pointer_head._remember(
        torch.zeros(3, 1, 16), torch.zeros(3, 1, 16), visits["input_ids"][:, -1:], visits["timestamps"][:, -1:], cache
    )
    assert torch.equal(ids[:, :-1], visits["input_ids"]) and torch.equal(times[:, :-1], visits["timestamps"])


def test_a_context_longer_than_the_position_table_is_refused(build: SimpleNamespace) -> None:
    model, city, visits = build.all("released", max_position_embeddings=8)
    with pytest.raises(ValueError, match=r"9 visits is longer than max_position_embeddings=8"):
        model(**visits, location_features=city)
    cache = model(**build.rows_of(visits, slice(0, 8)), location_features=city, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="truncate"):
        model(**build.rows_of(visits, slice(8, 9)), location_features=city, past_key_values=cache)


# Implementations


@every_form
@pytest.mark.parametrize("left", [0, 3])
def test_eager_and_sdpa_attention_agree(build: SimpleNamespace, variant: str, overrides: dict, left: int) -> None:
    model, city, visits = build.all(variant, **overrides)
    batch = padded(visits, left, 0)
    found = {}
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        found[implementation] = cut(outputs_of(model, city, batch), slice(left, None))
    assert_equal_outputs(found["eager"], found["sdpa"])


def test_attention_maps_are_causal_and_sum_to_one(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    model.set_attn_implementation("eager")
    maps = model(**visits, location_features=city, output_attentions=True).attentions
    assert len(maps) == 2 and maps[0].shape == (3, 4 * 2, 9, 9)  # streams x heads
    for attention in maps:
        build.assert_same(attention.sum(-1), torch.ones(3, 8, 9))
        assert attention.triu(1).abs().max() == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_checkpointing_gives_plain_gradients(build: SimpleNamespace, variant: str) -> None:
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        model, city, visits = build.all(variant)
        model.train()
        if checkpointing:
            recomputing(model)
            assert all(layer.gradient_checkpointing for layer in model.model.layers)
        model(
            **visits, location_features=city, labels=visits["input_ids"], stay_labels=visits["stay_ids"]
        ).loss.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    plain, saved = gradients(False), gradients(True)
    for name in plain:
        build.assert_same(saved[name], plain[name], atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient(build: SimpleNamespace, variant: str) -> None:
    model, city, visits = build.all(variant)
    model(**visits, location_features=city, labels=visits["input_ids"], stay_labels=visits["stay_ids"]).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


# Cities


@every_form
def test_the_order_of_a_citys_places_has_no_meaning(build: SimpleNamespace, variant: str, overrides: dict) -> None:
    model, city, visits = build.all(variant, **overrides)
    order = torch.cat([torch.arange(2), 2 + torch.randperm(12, generator=torch.Generator().manual_seed(3))])
    renumbered = {**visits, "input_ids": order.argsort()[visits["input_ids"]]}
    plain = model(**visits, location_features=city).logits
    found = model(**renumbered, location_features=city[order]).logits
    build.assert_same(found, plain[..., order])


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_model_serves_cities_of_different_sizes(build: SimpleNamespace, variant: str) -> None:
    model = build.model(variant)
    for n in (2, 7, 30):
        city, visits = build.city(model.config, n), build.visits(model.config, n)
        logits = model(**visits, location_features=city).logits
        assert logits.shape == (3, 9, n + 2) and torch.isfinite(logits[..., 2:]).all()


def test_unvisited_places_change_the_copy_free_scores_of_others_by_nothing(build: SimpleNamespace) -> None:
    """Without a normaliser (no pointer head) a candidate's score does not depend on the other candidates."""
    model, city, visits = build.all("released")
    more = torch.cat([city, build.city(model.config, 5, seed=9)[2:]])
    build.assert_same(
        model(**visits, location_features=more).logits[..., :14], model(**visits, location_features=city).logits
    )


def test_an_encoded_city_gives_the_same_as_its_table(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    table = model.encode_locations(city)
    assert table.embeddings.shape == (14, 16) and table.levels.shape == (14,) and table.km.shape == (14, 2)
    assert torch.equal(model(**visits, location_table=table).logits, model(**visits, location_features=city).logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_several_cities_in_a_batch_are_refused(build: SimpleNamespace, variant: str) -> None:
    model, city, visits = build.all(variant)
    for run in (model, model.model):
        with pytest.raises(ValueError, match="one city only"):
            run(**visits, location_features=city.expand(3, -1, -1))


def test_tables_with_other_columns_are_refused(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    for table in (city[:, :-1], F.pad(city, (0, 1))):
        with pytest.raises(ValueError, match="this model needs 65"):
            model(**visits, location_features=table)
    released = build.model("released")
    with pytest.raises(ValueError, match="has 71 columns, this model needs 37"):  # the authors' arrays, not cut
        released(**visits, location_features=torch.rand(14, 71))


def test_columns_in_km_may_be_there_unused(build: SimpleNamespace) -> None:
    model, city, visits = build.all("released")
    wide = torch.cat([city, torch.randn(14, 2)], dim=1)
    other = torch.cat([city, torch.randn(14, 2)], dim=1)
    with_them = model(**visits, location_features=wide).logits
    assert torch.equal(with_them, model(**visits, location_features=other).logits)
    torch.testing.assert_close(with_them, model(**visits, location_features=city).logits)  # other strides, same sums


def test_missing_or_misshapen_inputs_get_a_sentence(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    with pytest.raises(ValueError, match="location_features"):
        model(**visits)
    with pytest.raises(ValueError, match="timestamps are needed"):
        model(input_ids=visits["input_ids"], location_features=city)
    with pytest.raises(ValueError, match="time_ids has shape"):
        model(**{**visits, "time_ids": visits["time_ids"][:, :-1]}, location_features=city)
    with pytest.raises(ValueError, match="input_ids are needed"):
        model.model(location_features=city)


def test_monday_is_0_and_row_0_is_of_visits_without_a_weekday(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    visits["weekday_ids"] = torch.arange(27).view(3, 9) % 7
    given = {**visits, "location_features": city}
    table = model.model.time_embedding.weekday.weight
    with torch.no_grad():
        logits = model(**given).logits
        table[0] += 1
        assert torch.equal(model(**given).logits, logits), "no place reads row 0"
        without = model(**{name: value for name, value in given.items() if name != "weekday_ids"}).logits
        table[1:] += 1
        again = model(**{name: value for name, value in given.items() if name != "weekday_ids"}).logits
        assert torch.equal(without, again), "visits without weekdays read row 0 only"
        special = {**given, "input_ids": visits["input_ids"].clone()}
        special["input_ids"][:, 0] = 1
        before = model(**special).logits
        other = {**special, "weekday_ids": visits["weekday_ids"].clone()}
        other["weekday_ids"][:, 0] = 3
        assert torch.equal(model(**other).logits, before), "EOS has no weekday"
