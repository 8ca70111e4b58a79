"""ContextMix: a mixture of ten count tables whose weights were learned on other cities. The baseline to beat.

Each component is a distribution over the places of the city: five come from the user's own past, five from the city.
The weights depend on how much is known (length of the context, own and global Markov row present) but on nothing local,
so they carry over to a city never seen; only the city's counts are local, and they may be absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.tasks import NextLocationTask
from ..tokenization.clock import epoch_seconds, to_local, weekday
from ..tokenization.grid import EARTH_RADIUS_KM, unwrapped
from ..tokenization.whole_files import whole_file
from .count import UserHistory, place_counts, user_histories

OWN = ("frequency", "recency_10", "recency_40", "own_markov", "hour_successors")
CITY = ("distance_0.3km", "distance_3km", "popularity", "global_markov", "uniform")
COMPONENTS = OWN + CITY

CONTEXT_BOUNDS = (15, 40, 100)
BUCKETS = (len(CONTEXT_BOUNDS) + 1) * 2 * 2
TARGETS_PER_CITY = 1500

RECENCY_SCALES = (10.0, 40.0)  # visits
MARKOV_SCALE = 60.0  # visits
HOUR_SCALE = 90.0  # minutes
OTHER_DAY_TYPE = 0.23  # weight of a weekend visit for a weekday target and the other way round
DISTANCE_SCALES = (0.3, 3.0)  # km
# Visits added to every place before the distance kernel. Chosen on source cities held out by turns: 0.2 trusts sparse
# counts too much (MRR .367 with the counts of 5 % of the users, against .370 with 20 and .368 without any counts).
UNSEEN_COUNT = 20.0

EM_STEPS = 100
PRIOR_TARGETS = 20.0  # strength with which a bucket leans on the weights of all buckets together


@dataclass(frozen=True, eq=False)
class MixWeights:
    """Mixture weights with their origin.

    Fields:
        table: float64 (16, 10), rows sum to 1, columns as `COMPONENTS`. Row = 4 * context class (< 15, < 40, < 100,
            more visits) + 2 * (own Markov row exists) + (global Markov row exists).
        sources: names of the cities they were fitted on.
        user_fraction: share of the users that gave the city's counts in the fit; use the weights with about that share.
    """

    table: np.ndarray
    sources: tuple[str, ...] = ()
    user_fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.table.shape != (BUCKETS, len(COMPONENTS)):
            raise ValueError(f"The weights have shape {self.table.shape}; expected {(BUCKETS, len(COMPONENTS))}.")
        if (self.table < 0).any() or not np.allclose(self.table.sum(axis=1), 1, atol=1e-4):
            raise ValueError("Each row of the weights must be non-negative and sum to 1.")

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        text = {
            "format": "hf_mobility.context_mix",
            "version": 1,
            "components": list(COMPONENTS),
            "sources": list(self.sources),
            "user_fraction": self.user_fraction,
            "table": self.table.round(6).tolist(),
        }
        with whole_file(path) as file:
            file.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> MixWeights:
        """Read what `save` wrote.

        Raises:
            ValueError: another format, version or set of components.
        """
        text = json.loads(Path(path).read_text(encoding="utf-8"))
        if text.get("format") != "hf_mobility.context_mix" or text.get("version") != 1:
            raise ValueError(f"{path} does not hold ContextMix weights of version 1.")
        if tuple(text["components"]) != COMPONENTS:
            raise ValueError(f"{path} has the components {text['components']}; this version has {list(COMPONENTS)}.")
        return cls(np.asarray(text["table"], dtype=np.float64), tuple(text["sources"]), float(text["user_fraction"]))


class ContextMix:
    """The mixture as a predictor for one city.

    Args:
        weights: from `ContextMix.fit` or `MixWeights.load`.
        counts_from: canonical visits of the target city that give popularity and the global Markov table, normally
            `task.train_visits(...)`; None leaves both out (zero-shot).
        name: shown in tables.
    """

    def __init__(
        self, weights: MixWeights, counts_from: pd.DataFrame | None = None, *, name: str = "ContextMix"
    ) -> None:
        self.weights = weights
        self.counts_from = counts_from
        self.name = name

    @staticmethod
    def fit(source_tasks: Sequence[NextLocationTask], *, user_fraction: float = 1.0, seed: int = 0) -> MixWeights:
        """Learn the weights by EM on the likelihood of up to 1,500 random targets of each source city.

        Args:
            source_tasks: tasks of the source cities; their targets are what the weights are fitted to.
            user_fraction: share of users whose training visits give each source's city counts; 0 for none. Should be
                what the target city will have: weights fitted on all counts trust sparse ones too much (-0.02 MRR).
            seed: of the draws of targets and users.

        Raises:
            ValueError: no source task, or none of them has a listed target.
        """
        rng = np.random.default_rng(seed)
        likelihood, buckets = [], []
        for task in source_tasks:
            rows = task.rows[task.location[task.rows] >= 0]
            rows = np.sort(rng.choice(rows, size=min(len(rows), TARGETS_PER_CITY), replace=False))
            table = _CityTable.build(task.city, task.train_visits(user_fraction, seed) if user_fraction else None)
            local = _local_time(task)
            for history in user_histories(task, rows):
                parts = _Components.build(history, table, *local)
                likelihood.append(parts.at(task.location[history.rows]))
                buckets.append(parts.bucket)
        if not likelihood:
            raise ValueError("The source tasks have no target whose place is listed; there is nothing to fit.")
        return MixWeights(
            _fit_buckets(np.concatenate(likelihood), np.concatenate(buckets)),
            tuple(str(getattr(task.city, "name", "")) for task in source_tasks),
            user_fraction,
        )

    def probabilities(self, task: NextLocationTask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows (m,), p (m, N) float32) user by user."""
        table = _CityTable.build(task.city, self.counts_from)
        local = _local_time(task)
        for history in user_histories(task):
            parts = _Components.build(history, table, *local)
            yield history.rows, parts.mix(self.weights.table[parts.bucket])


@dataclass(frozen=True, eq=False)
class _CityTable:
    """What the city contributes: places, visit counts and transitions (sorted by origin)."""

    lat: np.ndarray
    lon: np.ndarray
    counts: np.ndarray
    origin: np.ndarray
    destination: np.ndarray

    @classmethod
    def build(cls, city: Any, visits: pd.DataFrame | None) -> _CityTable:
        lat, lon = np.radians(np.asarray(city.lat)), np.radians(unwrapped(city.lon))
        none = np.empty(0, dtype=np.int64)
        if visits is None:
            return cls(lat, lon, np.zeros(len(lat), dtype=np.float32), none, none)
        index = city.index_of(visits["location_id"].to_numpy(dtype=object))
        user = visits["user_id"].to_numpy()
        pair = (user[1:] == user[:-1]) & (index[1:] >= 0) & (index[:-1] >= 0)
        origin, destination = index[:-1][pair], index[1:][pair]
        order = np.argsort(origin, kind="stable")
        return cls(lat, lon, place_counts(city, visits), origin[order], destination[order])

    def distance_kernels(self, places: np.ndarray) -> np.ndarray:
        """Distributions over all places around each of `places`, float32 (2, C, N)."""
        north = self.lat[places, None] - self.lat
        east = (self.lon[places, None] - self.lon) * np.cos(self.lat[places, None])
        km = (EARTH_RADIUS_KM * np.hypot(north, east)).astype(np.float32)
        kernels = np.stack([np.exp(-km / scale) for scale in DISTANCE_SCALES]) * (self.counts + UNSEEN_COUNT)
        return _normalised(kernels)

    def markov(self, places: np.ndarray) -> np.ndarray:
        """Distributions over the successors of each of `places`, float32 (C, N); zero rows where there are none."""
        first, last = np.searchsorted(self.origin, places), np.searchsorted(self.origin, places, side="right")
        out = np.zeros((len(places), len(self.lat)), dtype=np.float32)
        for row, (a, b) in enumerate(zip(first, last, strict=True)):
            np.add.at(out[row], self.destination[a:b], 1)
        return _normalised(out)


@dataclass(frozen=True, eq=False)
class _Components:
    """The ten distributions for the targets of one user, kept where they are small.

    Fields:
        own: float32 (5, T, K) over the user's places; zero rows are missing components.
        places: int64 (K,).
        around: float32 (3, C, N), the two distance kernels and the global Markov row of each distinct current place.
        here: int64 (T,), which of the C current places; -1 where the city does not list it.
        popularity: float32 (N,), zero where the city has no counts.
        context: int64 (T,), number of earlier visits.
    """

    own: np.ndarray
    places: np.ndarray
    around: np.ndarray
    here: np.ndarray
    popularity: np.ndarray
    context: np.ndarray

    @classmethod
    def build(cls, history: UserHistory, table: _CityTable, minute: np.ndarray, weekend: np.ndarray) -> _Components:
        visits = slice(history.start, history.start + len(history.location))
        current, here = np.unique(history.current, return_inverse=True)
        if len(current) and current[0] < 0:
            current, here = current[1:], here - 1
        around = np.concatenate([table.distance_kernels(current), table.markov(current)[None]])
        return cls(
            own=_own_components(history, minute[visits], weekend[visits]),
            places=history.places,
            around=around,
            here=here,
            popularity=_normalised(table.counts),
            context=history.position,
        )

    @property
    def available(self) -> np.ndarray:
        """bool (T, 10): the component says something."""
        targets = len(self.here)
        around = np.zeros((3, targets), dtype=bool)
        if self.around.shape[1]:
            around = np.asarray(self.around.any(axis=2))[:, self.here] & (self.here >= 0)
        popularity = np.full(targets, bool(self.popularity.any()))
        city = np.stack([around[0], around[1], popularity, around[2], np.ones(targets, dtype=bool)])
        return np.concatenate([self.own.any(axis=2), city]).T

    @property
    def bucket(self) -> np.ndarray:
        """int64 (T,): context length (4 classes), own Markov row exists, global Markov row exists."""
        length = np.searchsorted(CONTEXT_BOUNDS, self.context, side="right")
        available = self.available
        own = available[:, COMPONENTS.index("own_markov")]
        city = available[:, COMPONENTS.index("global_markov")]
        return length * 4 + own * 2 + city

    def at(self, truth: np.ndarray) -> np.ndarray:
        """What each component gives to the true places, float64 (T, 10); NaN where it is missing."""
        targets = np.arange(len(truth))
        k = np.minimum(np.searchsorted(self.places, truth), len(self.places) - 1)
        own = np.where(self.places[k] == truth, self.own[:, targets, k], 0.0)
        uniform = np.full(len(truth), 1 / len(self.popularity))
        around = self.around[:, self.here, truth] if self.around.shape[1] else np.zeros((3, len(truth)))
        city = np.stack([around[0], around[1], self.popularity[truth], around[2], uniform])
        return np.where(self.available, np.concatenate([own, city]).T, np.nan)

    def mix(self, weights: np.ndarray) -> np.ndarray:
        """The mixture over all places, float32 (T, N), with `weights` (T, 10) renormalised over what is available."""
        weights = weights * self.available
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        own, city = weights[:, : len(OWN)], weights[:, len(OWN) :, None]
        near, far, popularity, markov, uniform = city.transpose(1, 0, 2)
        p = popularity * self.popularity + uniform / np.float32(len(self.popularity))
        if self.around.shape[1]:
            for weight, rows in zip((near, far, markov), self.around, strict=True):
                p += weight * rows[self.here]
        p[:, self.places] += np.einsum("tc,ctk->tk", own, self.own)
        return p


def _own_components(history: UserHistory, minute: np.ndarray, weekend: np.ndarray) -> np.ndarray:
    """The five distributions over the user's own places, float32 (5, T, K); zero where there is nothing to count."""
    age, last = history.age, history.position - 1
    past = (age >= 0).astype(np.float32)
    earlier = (age > 0).astype(np.float32)  # visits whose successor is already known
    decay = np.maximum(age, 0).astype(np.float32)
    counts = [past @ history.indicator]
    counts += [(past * np.exp(-decay / scale)) @ history.indicator for scale in RECENCY_SCALES]

    same_place = (history.location == history.current[:, None]) & (history.current[:, None] >= 0)
    counts.append(history.successor_counts(earlier * same_place * np.exp(-decay / MARKOV_SCALE)))

    apart = np.abs(minute - minute[last, None])
    apart = np.minimum(apart, 1440 - apart)
    same_day_type = np.where(weekend == weekend[last, None], 1.0, OTHER_DAY_TYPE)
    similar = np.exp(-0.5 * (apart / HOUR_SCALE) ** 2) * same_day_type
    counts.append(history.successor_counts(earlier * similar.astype(np.float32)))
    return _normalised(np.stack(counts))


def _local_time(task: NextLocationTask) -> tuple[np.ndarray, np.ndarray]:
    """Minute of the local day, float32 (n,), and whether it is a weekend, bool (n,)."""
    local = to_local(epoch_seconds(task.visits["time"]), task.city.timezone)
    return (local // 60 % 1440).astype(np.float32), weekday(local) >= 5


def _normalised(counts: np.ndarray) -> np.ndarray:
    """Divide by the sum along the last axis; rows without a count stay zero."""
    total = counts.sum(axis=-1, keepdims=True)
    return (counts / np.where(total > 0, total, 1)).astype(np.float32)


def _fit_buckets(likelihood: np.ndarray, bucket: np.ndarray) -> np.ndarray:
    """EM for all targets together, then in each bucket with the result as a prior; float64 (BUCKETS, 10)."""
    start = np.full(len(COMPONENTS), 1 / len(COMPONENTS))
    overall = _em(likelihood, start, np.zeros_like(start))
    rows = [_em(likelihood[bucket == b], overall, PRIOR_TARGETS * overall) for b in range(BUCKETS)]
    return np.stack(rows)


def _em(likelihood: np.ndarray, start: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Mixture weights that maximise the likelihood (m, c) plus `prior` pseudo-targets; NaN marks missing components."""
    available = ~np.isnan(likelihood)
    values = np.where(available, likelihood, 0.0)
    weights = start
    for _ in range(EM_STEPS if len(values) else 0):
        joint = values * weights
        joint /= np.maximum(joint.sum(axis=1, keepdims=True), 1e-300)
        # A missing component is neither confirmed nor refuted: it keeps its share of that target.
        kept = (~available) * weights
        share = joint * (1 - kept.sum(axis=1, keepdims=True)) + kept
        weights = share.sum(axis=0) + prior
        weights = weights / weights.sum()
    return weights
