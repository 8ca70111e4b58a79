"""Many cities as one training set: windows, batches of one city, and the collator that makes tensors of them.

Batches are bounded by tokens (padding included) and hold one city and users of similar length; windows are cut anew
each epoch. Everything random is a function of (seed, epoch, batch), never of a global generator, so that a resumed run
sees the very same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from ..data.sequences import FIELDS, SCORES_PER_BATCH, CitySequences, WindowRule, bounded_runs, pad_visits
from ..tokenization.poi import popularity_levels

NUM_SPECIAL = 2
TOKENS_PER_BATCH, WINDOW, SAMPLED_CANDIDATES = 2048, 128, 800
POPULARITY_SHARES = (0.05, 0.05, 0.20, 1.00)


class WindowKey(NamedTuple):
    """One training window: rows start..stop of a city, and the number of the batch it belongs to (the seed of its
    augmentation)."""

    city: int
    start: int
    stop: int
    batch_seed: int


@dataclass(frozen=True)
class TrainingCity:
    """One city of a corpus: its users, its table (N + 2, F), and who was seen where (U, N) for popularity
    resampling."""

    name: str
    sequences: CitySequences
    location_features: torch.Tensor
    num_poi: int
    visit_counts: sp.csr_matrix

    @classmethod
    def build(cls, sequences: CitySequences, tokenizer: Any) -> TrainingCity:
        lengths = np.diff(sequences.offsets)
        person = np.repeat(np.arange(len(lengths)), lengths)
        place = sequences.fields["input_ids"] - NUM_SPECIAL
        shape = (len(lengths), len(tokenizer.location_ids))
        counts = sp.csr_matrix((np.ones(len(place)), (person, place)), shape=shape)
        return cls(tokenizer.name, sequences, tokenizer.location_features, tokenizer.poi.shape[1], counts)


class CityCorpus(torch.utils.data.Dataset):
    """A training set of several cities. Items are fetched by `WindowKey`; `batches` says which."""

    def __init__(self, cities: list[TrainingCity]) -> None:
        self.cities = cities

    @classmethod
    def from_visits(cls, pairs: list[tuple[Any, Any]], *, unknown: str = "error") -> CityCorpus:
        """From (canonical visits, tokenizer) pairs, one per city."""
        return cls(
            [TrainingCity.build(CitySequences.from_visits(visits, tok, unknown=unknown), tok) for visits, tok in pairs]
        )

    def __len__(self) -> int:
        """Number of targets: visits that have a past."""
        return sum(len(city.sequences) - len(city.sequences.users) for city in self.cities)

    def __getitem__(self, key: WindowKey) -> dict[str, Any]:
        fields = self.cities[key.city].sequences.fields
        return {"key": key, **{name: fields[name][key.start : key.stop] for name in FIELDS}}


class CityBatchSampler(torch.utils.data.Sampler[list[WindowKey]]):
    """Batches of one city each, at most `tokens_per_batch` tokens with padding; shuffled by (seed, epoch).

    Batches that are not shuffled are for evaluation, where all places of a city are scored after every visit, so they
    are bounded by that product, too.

    An epoch always has as many batches as the first one: a new cut that gives a few more or fewer loses or repeats
    some of the shuffled list. With several processes each takes every `world_size`-th window of the same batch; where
    there are fewer windows than processes, the others get a window of one visit, which has no target.
    """

    def __init__(
        self,
        corpus: CityCorpus,
        *,
        tokens_per_batch: int = TOKENS_PER_BATCH,
        window: int = WINDOW,
        window_rule: WindowRule | None = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.corpus, self.tokens_per_batch = corpus, tokens_per_batch
        self.window, self.window_rule = window, window_rule
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self.epoch = 0
        # Where the Trainer looks for set_epoch, with and without a skipping wrapper around it.
        self.batch_sampler = self
        self._length = len(self._batches(0))
        if not self._length:
            raise ValueError("nobody in the training set has two visits, so there is nothing to predict.")

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[WindowKey]]:
        batches = self._batches(self.epoch)
        for number in range(self._length):
            city, windows = batches[number % len(batches)]
            mine = windows[self.rank :: self.world_size]
            if not len(mine):
                mine = windows[:1, :1] + [0, 1]
            batch_seed = self.epoch * self._length + number if self.shuffle else number
            yield [WindowKey(city, int(start), int(stop), batch_seed) for start, stop in mine]

    def _batches(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        rng = np.random.default_rng([self.seed, epoch if self.shuffle else 0])
        batches = []
        for index, city in enumerate(self.corpus.cities):
            if self.window_rule is not None:
                windows = self.window_rule(city.sequences, rng)
            else:
                windows = city.sequences.windows(self.window, rng if self.shuffle else None)
            lengths = windows[:, 1] - windows[:, 0]
            windows = windows[np.lexsort((rng.random(len(windows)), lengths))]
            fitting = SCORES_PER_BATCH if self.shuffle else SCORES_PER_BATCH // len(city.location_features)
            runs = bounded_runs((np.sort(lengths), min(self.tokens_per_batch, fitting)))
            batches += [(index, windows[run]) for run in runs]
        order = rng.permutation(len(batches)) if self.shuffle else np.arange(len(batches))
        return [batches[position] for position in order]


class CityCollator:
    """Windows of one city -> tensors for `SamoeForNextLocation`.

    Args:
        augment: rotate, reflect and scale the coordinates (scale 10 %) and count popularity from a random 5, 5, 20 or
            100 % of the users. Distances in km are left alone. For pre-training; off for adaptation and evaluation.
        max_candidates, sampled_candidates: a city with more places than `max_candidates` is scored on the places of
            the batch and `sampled_candidates` others, whose weight in the normalizer is corrected. `None` = always all
            places.
        seed: of the augmentation and the sampling, together with the batch's number.

    Raises:
        ValueError: for a batch with more than one city.
    """

    def __init__(
        self,
        corpus: CityCorpus,
        *,
        augment: bool = False,
        max_candidates: int | None = None,
        sampled_candidates: int = SAMPLED_CANDIDATES,
        seed: int = 0,
    ) -> None:
        self.corpus, self.augment, self.seed = corpus, augment, seed
        self.max_candidates, self.sampled_candidates = max_candidates, sampled_candidates

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        keys = [item["key"] for item in items]
        if len({key.city for key in keys}) > 1:
            raise ValueError("a batch holds one city only; use CityBatchSampler.")
        city = self.corpus.cities[keys[0].city]
        rng = np.random.default_rng([self.seed, keys[0].batch_seed])
        batch = {name: torch.from_numpy(value) for name, value in pad_visits(items).items()}
        features = augment_city(city, rng) if self.augment else city.location_features
        if self.max_candidates is not None and len(features) - NUM_SPECIAL > self.max_candidates:
            features, batch["candidate_log_weights"] = self._sample_candidates(features, batch, rng)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        labels[:, 0] = -100  # no past to be predicted from
        return {**batch, "location_features": features, "labels": labels, "stay_labels": batch["stay_ids"]}

    def _sample_candidates(
        self, features: torch.Tensor, batch: dict[str, torch.Tensor], rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep the batch's places and a sample of the rest; renumbers `input_ids` in place of the batch."""
        ids = batch["input_ids"].numpy()
        present = np.union1d(np.arange(NUM_SPECIAL), ids)
        rest = np.setdiff1d(np.arange(len(features)), present, assume_unique=True)
        sampled = rng.choice(rest, min(self.sampled_candidates, len(rest)), replace=False)
        batch["input_ids"] = torch.from_numpy(np.searchsorted(present, ids))
        weights = torch.zeros(len(present) + len(sampled))
        if len(sampled):
            weights[len(present) :] = float(np.log(len(rest) / len(sampled)))
        return features[torch.from_numpy(np.concatenate([present, sampled]))], weights


def augment_city(city: TrainingCity, rng: np.random.Generator) -> torch.Tensor:
    """The city's table turned, mirrored and scaled, with popularity counted from a random share of its users."""
    features = city.location_features.clone()
    angle, scale = rng.uniform(0, 2 * np.pi), 1 + rng.uniform(-0.1, 0.1)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        turn[:, 0] *= -1
    xy = slice(city.num_poi, city.num_poi + 2)
    features[:, xy] = features[:, xy] @ torch.from_numpy(turn).float()
    users = city.visit_counts.shape[0]
    chosen = rng.choice(users, max(1, round(rng.choice(POPULARITY_SHARES) * users)), replace=False)
    counts = np.asarray(city.visit_counts[chosen].sum(0)).ravel()
    features[NUM_SPECIAL:, city.num_poi + 2] = torch.from_numpy(popularity_levels(counts)).float()
    return features
