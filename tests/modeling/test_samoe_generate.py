"""Rolling out visits: greedy equals a loop written here, sampling is reproducible, times follow the stay classes."""

from __future__ import annotations

from functools import wraps
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import GenerationConfig

from hf_mobility.modeling.times_samoe import stay_class, stay_seconds

VARIANTS = ("extended", "released", "paper")
STEPS = 6


def step_by_step(
    model: Any, city: torch.Tensor, visits: dict[str, torch.Tensor], steps: int
) -> dict[str, torch.Tensor]:
    """Greedy, without a cache: all is computed anew for every visit; time fields are derived from the arrival."""
    for _ in range(steps):
        output = model(**visits, location_features=city, use_cache=False)
        place = output.logits[:, -1].argmax(-1, keepdim=True)
        stay = 1 + output.stay_logits[:, -1, 1:].argmax(-1, keepdim=True)
        arrival = visits["timestamps"][:, -1:] + stay_seconds(stay, model.config)
        new = {
            "input_ids": place,
            "time_ids": arrival % 86_400 // 1_800,
            "weekday_ids": (arrival // 86_400 + 3) % 7,
            "stay_ids": stay,
            "timestamps": arrival,
        }
        visits = {name: torch.cat([value, new[name]], dim=1) for name, value in visits.items()}
    return visits


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_a_greedy_rollout_equals_a_loop_that_recomputes_everything(
    build: SimpleNamespace, variant: str, use_cache: bool
) -> None:
    for seed in range(3):
        model = build.model(variant, seed=seed, use_eos=False)
        city, visits = build.city(model.config), build.visits(model.config)
        ids, times = model.generate(
            **visits,
            location_features=city,
            max_new_tokens=STEPS,
            return_timestamps=True,
            do_sample=False,
            use_cache=use_cache,
        )
        wanted = step_by_step(model, city, visits, STEPS)
        assert torch.equal(ids, wanted["input_ids"]) and torch.equal(times, wanted["timestamps"])


def test_several_pointer_heads_roll_out_alike(build: SimpleNamespace) -> None:
    model = build.model(num_pointer_heads=2, activity_features=True)
    city, visits = build.city(model.config), build.visits(model.config)
    ids = model.generate(**visits, location_features=city, max_new_tokens=STEPS, do_sample=False)
    assert torch.equal(ids, step_by_step(model, city, visits, STEPS)["input_ids"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_left_padded_people_are_rolled_out_as_alone(build: SimpleNamespace, variant: str) -> None:
    model = build.model(variant, use_eos=False)
    city, visits = build.city(model.config), build.visits(model.config)
    lengths = [9, 5, 2]
    alone = [{name: value[b : b + 1, :n] for name, value in visits.items()} for b, n in enumerate(lengths)]
    batch = {name: torch.cat([F.pad(person[name], (9 - n, 0)) for person, n in zip(alone, lengths)]) for name in visits}
    ids, times = model.generate(
        **batch,
        attention_mask=(batch["input_ids"] > 0).long(),
        location_features=city,
        max_new_tokens=STEPS,
        return_timestamps=True,
    )
    for b, person in enumerate(alone):
        wanted = step_by_step(model, city, person, STEPS)
        assert torch.equal(ids[b, -STEPS:], wanted["input_ids"][0, -STEPS:])
        assert torch.equal(times[b, -STEPS:], wanted["timestamps"][0, -STEPS:])


@pytest.mark.parametrize("variant", VARIANTS)
def test_sampling_is_reproducible_with_a_seed(build: SimpleNamespace, variant: str) -> None:
    model, city, visits = build.all(variant)

    def sample(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return model.generate(
                **visits, location_features=city, max_new_tokens=STEPS, do_sample=True, top_k=5, return_timestamps=True
            )

    first, again, other = sample(0), sample(0), sample(1)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])


def test_the_callers_tensors_are_not_changed(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    before = {name: value.clone() for name, value in visits.items()}
    model.generate(**visits, location_features=city, max_new_tokens=2)
    assert all(torch.equal(visits[name], before[name]) for name in before)


@pytest.mark.parametrize("use_table", [False, True], ids=["features", "table"])
def test_several_samples_per_person_share_one_city(
    build: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, use_table: bool
) -> None:
    model, city, visits = build.all()
    tables, encodings = [], []
    forward, encode = model.forward, model.encode_locations
    seen_forward = wraps(forward)(lambda **kwargs: tables.append(kwargs["location_table"]) or forward(**kwargs))
    monkeypatch.setattr(model, "forward", seen_forward)
    monkeypatch.setattr(model, "encode_locations", lambda table: encodings.append(table) or encode(table))
    given = {"location_table": model.encode_locations(city)} if use_table else {"location_features": city}
    ids, times = model.generate(
        **visits, **given, max_new_tokens=3, do_sample=True, num_return_sequences=4, return_timestamps=True
    )
    assert ids.shape == times.shape == (12, 12)
    assert torch.equal(ids[:, :9], visits["input_ids"].repeat_interleave(4, 0))
    assert torch.equal(times[:, :9], visits["timestamps"].repeat_interleave(4, 0))
    assert len(encodings) == 1 and len(tables) == 3
    assert all(table.embeddings.shape == (14, 16) for table in tables)


@pytest.mark.parametrize("variant", ["extended", "released"])
@pytest.mark.parametrize("do_sample", [True, False])
def test_times_rise_by_what_a_stay_class_stands_for(build: SimpleNamespace, variant: str, do_sample: bool) -> None:
    model, city, visits = build.all(variant, use_eos=False)
    ids, times = model.generate(
        **visits, location_features=city, max_new_tokens=STEPS, do_sample=do_sample, return_timestamps=True
    )
    assert ids.shape == times.shape == (3, 9 + STEPS) and times.dtype == torch.int64
    gaps = times[:, 8:].diff(dim=1)
    assert (gaps > 0).all()
    assert torch.equal(stay_seconds(stay_class(gaps, model.config), model.config), gaps)


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_places_of_the_city_are_generated(build: SimpleNamespace, variant: str) -> None:
    model, city, visits = build.all(variant, use_eos=False)
    ids = model.generate(**visits, location_features=city, max_new_tokens=STEPS, do_sample=True, num_return_sequences=5)
    assert ids.min() >= 2 and ids.max() < 14


def test_after_the_end_of_a_trajectory_comes_padding(build: SimpleNamespace) -> None:
    model, city, visits = build.all("released")
    ids = model.generate(
        **visits, location_features=city, max_new_tokens=30, do_sample=True, num_return_sequences=20, temperature=5.0
    )[:, 9:]
    ended = (ids == 1).int().cumsum(1)
    assert ended[:, -1].max() == 1  # at least one ends, nobody ends twice
    assert torch.equal(ids == 0, (ended == 1) & (ids != 1))


def test_without_timestamps_only_ids_are_returned(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    ids = model.generate(**visits, location_features=city, max_new_tokens=2)
    assert isinstance(ids, torch.Tensor) and ids.shape == (3, 11)


@pytest.mark.parametrize(
    "beams",
    [{"num_beams": 2}, {"generation_config": GenerationConfig(num_beams=3, pad_token_id=0)}],
    ids=["argument", "config"],
)
def test_beam_search_is_refused(build: SimpleNamespace, beams: dict) -> None:
    model, city, visits = build.all()
    with pytest.raises(ValueError, match="beam search is not supported"):
        model.generate(**visits, location_features=city, max_new_tokens=2, **beams)


def test_missing_times_and_cities_are_refused(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    with pytest.raises(ValueError, match="timestamps are needed to roll out"):
        model.generate(input_ids=visits["input_ids"], location_features=city, max_new_tokens=2)
    with pytest.raises(ValueError, match="location_features"):
        model.generate(**visits, max_new_tokens=2)


def test_a_model_that_is_told_the_arrival_time_cannot_roll_out(build: SimpleNamespace) -> None:
    model, city, visits = build.all(arrival_time=True)
    with pytest.raises(ValueError, match="arrival_time=True cannot roll out"):
        model.generate(**visits, location_features=city, max_new_tokens=2)


def test_an_unknown_argument_is_refused(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    with pytest.raises(ValueError, match="not_an_argument"):
        model.generate(**visits, location_features=city, max_new_tokens=2, not_an_argument=1)
