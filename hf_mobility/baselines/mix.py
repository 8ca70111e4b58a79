"""ContextMix: a mixture of ten count tables whose weights were learned on other cities. The baseline to beat.

Each component is a distribution over the places of the city: five come from the user's own past, five from the city.
The weights depend on how much is known (length of the context, own and global Markov row present) but on nothing local,
so they carry over to a city never seen; only the city's counts are local, and they may be absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..data.tasks import NextLocationTask, make_task
from ..tokenization.clock import epoch_seconds, to_local, weekday
from ..tokenization.grid import EARTH_RADIUS_KM, unwrapped
from .count import UserHistory, place_counts, user_histories
from .mix_weights import COMPONENTS, CONTEXT_BOUNDS, OWN, MixWeights

TARGETS_PER_CITY = 1500
LEAST_OWN_TARGETS = 1000  # below that, `for_task` does not fit weights on the city itself

RECENCY_SCALES = (10.0, 40.0)  # visits
MARKOV_SCALE = 60.0  # visits
HOUR_SCALE = 90.0  # minutes
OTHER_DAY_TYPE = 0.23  # weight of a weekend visit for a weekday target and the other way round
DISTANCE_SCALES = (0.3, 3.0)  # km
# Visits added to every place before the distance kernel. Chosen on source cities held out by turns: 0.2 trusts sparse
# counts too much (MRR .367 with the counts of 5 % of the users, against .370 with 20 and .368 without any counts).
UNSEEN_COUNT = 20.0


class ContextMix:
    """The mixture as a predictor for one city.

    Args:
        weights: from `MixWeights.shipped`, `ContextMix.fit` or `MixWeights.load`; see also `ContextMix.for_task`.
        counts_from: canonical visits of the target city that give popularity and the global Markov table, normally
            `task.train_visits(...)`; None leaves both out (zero-shot).
        name: shown in tables.

    Example:
        >>> mix = ContextMix(MixWeights.shipped(0.05), task.train_visits(0.05))  # doctest: +SKIP
        >>> evaluate(mix, task)  # doctest: +SKIP
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
        parts = []
        for task in source_tasks:
            rows = task.rows[task.location[task.rows] >= 0]
            rows = np.sort(rng.choice(rows, size=min(len(rows), TARGETS_PER_CITY), replace=False))
            parts.append(likelihoods(task, rows, task.train_visits(user_fraction, seed) if user_fraction else None))
        if not sum(len(buckets) for _, buckets in parts):
            raise ValueError("The source tasks have no target whose place is listed; there is nothing to fit.")
        return MixWeights.fit(
            *(np.concatenate(values) for values in zip(*parts, strict=True)),
            sources=[str(getattr(task.city, "name", "")) for task in source_tasks],
            user_fraction=user_fraction,
        )

    @classmethod
    def for_task(cls, task: NextLocationTask, *, seed: int = 0, name: str = "ContextMix") -> ContextMix:
        """The mixture with the counts of all training visits, and the better of two sets of weights.

        Those fitted on this city compete with the shipped ones. The last fifth of each user's training visits are
        inner targets. Weights fitted on one half of the users are compared by log-loss on the other half, both ways.
        The city's own win where they gain more than one standard error over users, and where there are at least 1,000
        inner targets; then they are fitted on all of these. No target of the task is read.

        Args:
            task: of the city that is to be predicted.
            seed: of the halves of the users.
            name: shown in tables.

        Example:
            >>> evaluate(ContextMix.for_task(task), task)  # doctest: +SKIP
        """
        known = task.train_visits()
        return cls(_better_weights(task.city, known, seed), counts_from=known, name=name)

    def probabilities(self, task: NextLocationTask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows (m,), p (m, N) float32) user by user."""
        yield from self.reader(task)(task.rows)

    def reader(self, task: NextLocationTask) -> Callable[[np.ndarray], Iterator[tuple[np.ndarray, np.ndarray]]]:
        """A function that yields what `probabilities` does, for some of the rows; the city is counted once."""
        table, local = _CityTable.build(task.city, self.counts_from), _local_time(task)

        def read(rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for history in user_histories(task, rows):
                parts = _Components.build(history, table, *local)
                yield history.rows, parts.mix(self.weights.table[parts.bucket])

        return read


def likelihoods(
    task: NextLocationTask, rows: np.ndarray, counts_from: pd.DataFrame | None
) -> tuple[np.ndarray, np.ndarray]:
    """What the components give to the true places of `rows` (ascending, at listed places), and their buckets.

    Returns:
        float64 (m, 10), NaN where a component is missing, and int64 (m,), as `MixWeights.fit` reads them.
    """
    table, local = _CityTable.build(task.city, counts_from), _local_time(task)
    likelihood, buckets = [np.empty((0, len(COMPONENTS)))], [np.empty(0, dtype=np.int64)]
    for history in user_histories(task, rows):
        parts = _Components.build(history, table, *local)
        likelihood.append(parts.at(task.location[history.rows]))
        buckets.append(parts.bucket)
    return np.concatenate(likelihood), np.concatenate(buckets)


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


def _better_weights(city: Any, known: pd.DataFrame, seed: int) -> MixWeights:
    """The city's own weights where they are clearly better on users who did not fit them, else the shipped ones."""
    shipped = MixWeights.shipped()
    inner = make_task(known, city, min_visits=2)
    rows = inner.rows[inner.location[inner.rows] >= 0]
    if len(rows) < LEAST_OWN_TARGETS:
        return shipped
    likelihood, bucket = likelihoods(inner, rows, inner.train_visits())
    user = inner.user[rows]
    half = np.random.default_rng(seed).permutation(inner.users)[user] % 2 == 0
    gain = shipped.log_loss(likelihood, bucket)
    for fitting in (half, ~half):
        own = MixWeights.fit(likelihood[fitting], bucket[fitting])
        gain[~fitting] -= own.log_loss(likelihood[~fitting], bucket[~fitting])
    by_user = np.bincount(user, gain, inner.users) / np.maximum(np.bincount(user, minlength=inner.users), 1)
    by_user = by_user[np.unique(user)]
    if by_user.mean() <= by_user.std(ddof=1) / np.sqrt(len(by_user)):
        return shipped
    return MixWeights.fit(likelihood, bucket, sources=[str(getattr(city, "name", ""))])
