"""What a batch is: one city, a budget of tokens, every target once, and nothing random but by (seed, epoch, batch)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hf_mobility import CityCollator, CityCorpus, SamoeConfig, SamoeTokenizer
from hf_mobility.data.sequences import day_windows
from hf_mobility.tokenization.poi import popularity_levels
from hf_mobility.training.corpus import CityBatchSampler, WindowKey, augment_city

CONFIG = SamoeConfig.from_preset("tiny")


@pytest.fixture(scope="module")
def corpus(toy: SimpleNamespace) -> CityCorpus:
    return toy.corpus(toy.city(24, seed=1), toy.city(18, seed=2), config=CONFIG)


def batches(corpus: CityCorpus, *, epoch: int = 0, **options: Any) -> list[list[WindowKey]]:
    sampler = CityBatchSampler(corpus, **{"tokens_per_batch": 128, "window": 8, **options})
    sampler.set_epoch(epoch)
    return list(sampler)


def targets(keys: Iterable[WindowKey]) -> list[tuple[int, int]]:
    """(city, row) of every visit that is predicted: all of a window but its first."""
    return [(key.city, row) for key in keys for row in range(key.start + 1, key.stop)]


def all_targets(corpus: CityCorpus) -> list[tuple[int, int]]:
    return [
        (index, row)
        for index, city in enumerate(corpus.cities)
        for first, stop in zip(city.sequences.offsets[:-1], city.sequences.offsets[1:])
        for row in range(first + 1, stop)
    ]


def collate(corpus: CityCorpus, keys: list[WindowKey], **options: Any) -> dict[str, torch.Tensor]:
    return CityCollator(corpus, **options)([corpus[key] for key in keys])


# Batches


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_batch_holds_one_city_and_an_epoch_all_of_them(corpus: CityCorpus, shuffle: bool) -> None:
    held = [{key.city for key in keys} for keys in batches(corpus, shuffle=shuffle)]
    assert all(len(cities) == 1 for cities in held)
    assert set().union(*held) == {0, 1}


def test_batches_of_evaluation_are_bounded_by_the_scores_of_all_places(
    corpus: CityCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every visit a score for each place; batches of training have sampled places."""

    def scores(keys: list[WindowKey]) -> int:
        tokens = len(keys) * max(key.stop - key.start for key in keys)
        return tokens * len(corpus.cities[keys[0].city].location_features)

    trained, evaluated = batches(corpus), batches(corpus, shuffle=False)
    limit = max(map(scores, evaluated)) // 3
    monkeypatch.setattr("hf_mobility.training.corpus.SCORES_PER_BATCH", limit)
    assert batches(corpus) == trained
    bounded = batches(corpus, shuffle=False)
    assert all(scores(keys) <= limit or len(keys) == 1 for keys in bounded)
    assert sorted(targets(chain(*bounded))) == sorted(targets(chain(*evaluated)))


def test_every_target_comes_once_per_epoch_without_shuffling(corpus: CityCorpus) -> None:
    expected = all_targets(corpus)
    for epoch in (0, 3):
        seen = [target for keys in batches(corpus, shuffle=False, epoch=epoch) for target in targets(keys)]
        assert sorted(seen) == expected
    assert len(corpus) == len(expected)


def test_every_target_comes_once_in_the_first_shuffled_epoch(corpus: CityCorpus) -> None:
    seen = [target for keys in batches(corpus, seed=4) for target in targets(keys)]
    assert sorted(seen) == all_targets(corpus)


def test_no_batch_is_larger_than_the_budget_padding_included(corpus: CityCorpus) -> None:
    for budget in (4, 40, 300):
        for keys in batches(corpus, tokens_per_batch=budget):
            longest = max(key.stop - key.start for key in keys)
            assert len(keys) * longest <= budget or len(keys) == 1


def test_batches_are_filled_with_people_of_similar_length(corpus: CityCorpus) -> None:
    for city in (0, 1):
        made = [keys for keys in batches(corpus, window=1000, shuffle=False) if keys[0].city == city]
        lengths = [[key.stop - key.start for key in keys] for keys in made]
        assert len(made) > 2
        assert all(max(shorter) <= min(longer) for shorter, longer in pairwise(lengths))


def test_the_same_seed_and_epoch_give_the_same_batches_and_another_epoch_other_cuts(corpus: CityCorpus) -> None:
    first = batches(corpus, seed=3, epoch=1)
    assert batches(corpus, seed=3, epoch=1) == first
    for other in (batches(corpus, seed=3, epoch=2), batches(corpus, seed=4, epoch=1)):
        cuts = [{(key.city, key.start) for keys in made for key in keys} for made in (first, other)]
        assert cuts[0] != cuts[1]


def test_every_epoch_has_as_many_batches_as_the_sampler_says(corpus: CityCorpus) -> None:
    sampler = CityBatchSampler(corpus, tokens_per_batch=64, window=5)
    for epoch in range(6):
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler)


def test_no_two_batches_share_their_seed_whatever_the_epoch(corpus: CityCorpus) -> None:
    seeds = [{key.batch_seed for key in keys} for epoch in range(3) for keys in batches(corpus, epoch=epoch)]
    assert all(len(of_batch) == 1 for of_batch in seeds)
    assert len(set().union(*seeds)) == len(seeds)


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_the_shares_of_the_ranks_are_disjoint_and_together_the_whole_batch(corpus: CityCorpus, world_size: int) -> None:
    # Batches of 48 tokens hold as few as five windows, so that some of seven ranks have nothing to predict.
    whole = batches(corpus, tokens_per_batch=48)
    shares = [batches(corpus, tokens_per_batch=48, rank=r, world_size=world_size) for r in range(world_size)]
    assert min(len(keys) for keys in whole) < 7
    for keys, *of_ranks in zip(whole, *shares, strict=True):
        assert all(share for share in of_ranks)
        assert sorted(t for share in of_ranks for t in targets(share)) == sorted(targets(keys))
        assert {key.batch_seed for share in of_ranks for key in share} == {keys[0].batch_seed}


def test_windows_may_be_cut_by_another_rule(corpus: CityCorpus) -> None:
    made = batches(corpus, window_rule=lambda sequences, rng: day_windows(sequences, days=2, min_visits=4))
    windows = {(key.start, key.stop) for keys in made for key in keys if key.city == 0}
    assert windows == set(map(tuple, day_windows(corpus.cities[0].sequences, days=2, min_visits=4).tolist()))


def test_people_with_one_visit_alone_are_nothing_to_train_on(toy: SimpleNamespace) -> None:
    visits, city = toy.city(5)
    corpus = toy.corpus((visits.groupby("user_id").head(1).reset_index(drop=True), city), config=CONFIG)
    with pytest.raises(ValueError, match="nobody in the training set has two visits"):
        CityBatchSampler(corpus)


def test_unknown_places_are_refused_or_dropped_as_asked(toy: SimpleNamespace) -> None:
    visits, city = toy.city(5)
    visits = visits.assign(location_id=visits["location_id"].where(visits.index != 3, "elsewhere"))
    pair = (visits, SamoeTokenizer.from_city(city, CONFIG))
    with pytest.raises(ValueError, match="elsewhere"):
        CityCorpus.from_visits([pair])
    kept = CityCorpus.from_visits([pair], unknown="drop").cities[0]
    assert len(kept.sequences) == len(visits) - 1
    assert kept.visit_counts.sum() == len(visits) - 1


# Tensors


def test_labels_are_the_places_but_for_the_first_visit_and_padding(corpus: CityCorpus) -> None:
    keys = [WindowKey(0, 0, 4, 0), WindowKey(0, 7, 9, 0)]
    batch = collate(corpus, keys)
    fields = corpus.cities[0].sequences.fields
    ids = fields["input_ids"]
    assert batch["labels"].tolist() == [[-100, *ids[1:4]], [-100, ids[8], -100, -100]]
    assert batch["input_ids"].tolist() == [ids[:4].tolist(), [*ids[7:9], 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["stay_labels"].tolist() == [fields["stay_ids"][:4].tolist(), [*fields["stay_ids"][7:9], 0, 0]]
    assert batch["timestamps"][1, 2:].tolist() == [0, 0]
    assert torch.equal(batch["location_features"], corpus.cities[0].location_features)


def test_a_batch_of_two_cities_is_refused(corpus: CityCorpus) -> None:
    with pytest.raises(ValueError, match="one city only"):
        collate(corpus, [WindowKey(0, 0, 3, 0), WindowKey(1, 0, 3, 0)])


# Sampled candidates


def sampled_batch(corpus: CityCorpus, **options: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The same windows with all places and with a sample of those that do not occur."""
    keys = batches(corpus)[0]
    return collate(corpus, keys), collate(corpus, keys, max_candidates=10, **options)


def test_sampled_candidates_renumber_places_to_the_same_rows_of_the_table(corpus: CityCorpus) -> None:
    full, sampled = sampled_batch(corpus, sampled_candidates=7)
    for name in ("input_ids", "labels"):
        assert torch.equal(full[name] > 0, sampled[name] > 0)
        which = full[name] > 0
        rows = sampled["location_features"][sampled[name][which]]
        assert torch.equal(rows, full["location_features"][full[name][which]])
    assert torch.equal(sampled["location_features"][:2], torch.zeros_like(sampled["location_features"][:2]))
    untouched = ("time_ids", "weekday_ids", "stay_ids", "timestamps", "attention_mask", "stay_labels")
    assert all(torch.equal(full[name], sampled[name]) for name in untouched)


def test_sampled_candidates_are_the_batch_and_others_weighted_for_those_left_out(corpus: CityCorpus) -> None:
    full, sampled = sampled_batch(corpus, sampled_candidates=7)
    present = len(set(full["input_ids"][full["input_ids"] > 0].tolist()))
    rest = len(full["location_features"]) - 2 - present
    weights = sampled["candidate_log_weights"]
    assert len(weights) == len(sampled["location_features"]) == 2 + present + 7
    assert not weights[: 2 + present].any()
    np.testing.assert_allclose(weights[2 + present :], np.log(rest / 7), rtol=1e-6)
    # Nothing is sampled twice, nor sampled from the batch (POI columns alone need not differ; coordinates do).
    assert len(np.unique(sampled["location_features"][2:, -2:], axis=0)) == present + 7


def test_the_sample_is_a_function_of_the_seed_and_the_batch(corpus: CityCorpus) -> None:
    keys = batches(corpus)[0]
    later = [key._replace(batch_seed=key.batch_seed + 1) for key in keys]

    def sample(which: list[WindowKey], seed: int) -> torch.Tensor:
        options = {"max_candidates": 10, "sampled_candidates": 7, "seed": seed}
        return collate(corpus, which, **options)["location_features"]

    assert torch.equal(sample(keys, 0), sample(keys, 0))
    assert not torch.equal(sample(keys, 0), sample(later, 0))
    assert not torch.equal(sample(keys, 0), sample(keys, 1))


def test_a_small_city_is_never_sampled(corpus: CityCorpus) -> None:
    batch = collate(corpus, batches(corpus)[0], max_candidates=10_000)
    assert "candidate_log_weights" not in batch


def test_with_all_candidates_sampled_the_loss_is_the_unsampled_one(toy: SimpleNamespace, corpus: CityCorpus) -> None:
    model = toy.model()
    full, sampled = sampled_batch(corpus, sampled_candidates=10_000)
    assert not torch.equal(full["input_ids"], sampled["input_ids"])
    with torch.no_grad():
        torch.testing.assert_close(model(**sampled).loss, model(**full).loss, rtol=1e-5, atol=1e-6)


def test_sampling_keeps_the_normaliser_right_on_average(toy: SimpleNamespace, corpus: CityCorpus) -> None:
    """With a plain dot-product head, the sampled sum of exp(score + weight) has the full one as its mean."""
    model = toy.model(pointer_head=False, pointer_features=False, relative_features=False, stay_loss_weight=0)
    keys = batches(corpus)[0]
    config = model.config
    columns = config.num_location_features  # without km

    def loss(seed: int | None) -> float:
        options = {} if seed is None else {"max_candidates": 10, "sampled_candidates": 20, "seed": seed}
        batch = collate(corpus, keys, **options)
        batch["location_features"] = batch["location_features"][:, :columns]
        return float(model(**batch).loss.detach())

    estimates = [loss(seed) for seed in range(40)]
    assert abs(np.mean(estimates) - loss(None)) < 4 * np.std(estimates) / np.sqrt(40) + 1e-3
    assert np.std(estimates) > 1e-5


# Augmentation


def table(corpus: CityCorpus) -> tuple[torch.Tensor, slice, slice]:
    """The table of the first city, its standardised columns and those in km."""
    features, poi = corpus.cities[0].location_features, corpus.cities[0].num_poi
    return features, slice(poi, poi + 2), slice(poi + 3, poi + 5)


def test_augmentation_leaves_kilometres_and_poi_columns_alone(corpus: CityCorpus) -> None:
    features, xy, km = table(corpus)
    before = features.clone()
    for seed in range(5):
        made = augment_city(corpus.cities[0], np.random.default_rng(seed))
        assert torch.equal(made[:, km], features[:, km])
        assert torch.equal(made[:, : xy.start], features[:, : xy.start])
        assert not torch.allclose(made[:, xy], features[:, xy])
        assert not made[:2].any()
    assert torch.equal(features, before)


def test_augmentation_turns_mirrors_and_scales_by_up_to_a_tenth(corpus: CityCorpus) -> None:
    features, xy, _ = table(corpus)
    before = torch.cdist(features[2:, xy], features[2:, xy])
    scales, mirrored = [], set()
    for seed in range(12):
        made = augment_city(corpus.cities[0], np.random.default_rng(seed))[2:, xy]
        ratio = torch.cdist(made, made)[before > 0.1] / before[before > 0.1]
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0.0)
        scales.append(float(ratio.mean()))
        turn = np.linalg.lstsq(features[2:, xy].numpy(), made.numpy(), rcond=None)[0]
        mirrored.add(np.linalg.det(turn) < 0)
    assert 0.9 <= min(scales) < max(scales) <= 1.1
    assert mirrored == {True, False}


def test_augmented_popularity_counts_whole_people_and_nobody_else(corpus: CityCorpus) -> None:
    city = corpus.cities[0]
    counts = city.visit_counts.toarray()
    seen_sizes = set()
    for seed in range(30):
        levels = augment_city(city, np.random.default_rng(seed))[2:, city.num_poi + 2].numpy()
        seen = levels < 9
        contained = counts[:, ~seen].sum(axis=1) == 0
        assert (counts[contained].sum(axis=0)[seen] > 0).all()
        seen_sizes.add(int(seen.sum()))
        if seen.sum() == (counts.sum(axis=0) > 0).sum():
            np.testing.assert_array_equal(levels, popularity_levels(counts.sum(axis=0)))
    # 5 % and 20 % of 24 people are one and five of them.
    assert min(seen_sizes) <= (counts > 0).sum(axis=1).max() < max(seen_sizes)


def test_popularity_of_one_person_is_ranked_by_that_persons_visits(corpus: CityCorpus) -> None:
    city = corpus.cities[0]
    counts = city.visit_counts.toarray()
    for seed in range(30):
        levels = augment_city(city, np.random.default_rng(seed))[2:, city.num_poi + 2].numpy()
        alone = np.flatnonzero(((counts > 0) == (levels < 9)).all(axis=1))
        if len(alone):
            np.testing.assert_array_equal(levels, popularity_levels(counts[alone[0]]))
            return
    pytest.fail("in 30 draws popularity was never counted from one person")


def test_augmentation_is_a_function_of_the_seed_and_the_batch(corpus: CityCorpus) -> None:
    keys = batches(corpus)[0]
    later = [key._replace(batch_seed=key.batch_seed + 1) for key in keys]
    first = collate(corpus, keys, augment=True)["location_features"]
    assert torch.equal(first, collate(corpus, keys, augment=True)["location_features"])
    assert not torch.equal(first, collate(corpus, later, augment=True)["location_features"])
    assert not torch.equal(first, collate(corpus, keys, augment=True, seed=1)["location_features"])
