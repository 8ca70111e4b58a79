"""Count-table baselines that learn nothing but the user's own past: frequency and first-order Markov.

Both see the whole history of the user before the target and no other user. The counts are smoothed (strength 1), which
leaves the ranking of the counts alone and gives every place of the city some probability.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..data.tasks import NextLocationTask


@dataclass(frozen=True, eq=False)
class UserHistory:
    """One user's visits, arranged so that a weighted count of places is a matrix product.

    Fields:
        rows: int64 (T,), rows of the task to predict.
        position: int64 (T,), their positions among the user's visits; the context is everything before, the current
            visit is the one at position - 1.
        location: int64 (n,), places of all visits of the user, -1 where the city does not list the place.
        places: int64 (K,), the listed places among them, ascending.
        indicator: float32 (n, K), 1 where visit j is at places[k].
        start: first row of the user in the task.
    """

    rows: np.ndarray
    position: np.ndarray
    location: np.ndarray
    places: np.ndarray
    indicator: np.ndarray
    start: int

    @property
    def age(self) -> np.ndarray:
        """Age in visits of visit j at target t: 0 for the current visit, negative for what lies ahead; (T, n)."""
        return self.position[:, None] - 1 - np.arange(len(self.location))

    @property
    def current(self) -> np.ndarray:
        """int64 (T,), the place of the visit before each target."""
        return self.location[self.position - 1]

    def successor_counts(self, weight: np.ndarray) -> np.ndarray:
        """Weighted counts of the places visited right after each past visit.

        `weight` is (T, n) over visits; those whose successor is not yet in the past must weigh 0. Returns (T, K).
        """
        return weight[:, :-1] @ self.indicator[1:]


def user_histories(task: NextLocationTask, rows: np.ndarray | None = None) -> Iterator[UserHistory]:
    """The users that have rows to predict (by default all targets of the task), in order."""
    rows = task.rows if rows is None else np.sort(rows)
    for user, wanted in zip(*_split(task.user[rows], rows), strict=True):
        start, stop = task.user_starts[user : user + 2]
        location = task.location[start:stop]
        places = np.unique(location[location >= 0])
        indicator = (location[:, None] == places).astype(np.float32)
        yield UserHistory(wanted, wanted - start, location, places, indicator, int(start))


class UserFrequency:
    """The user's most frequent places so far.

    `counts_from`, a canonical visits frame of the city or None, orders equally frequent places and those that the user
    has not seen yet by their popularity.
    """

    name = "UserFrequency"

    def __init__(self, counts_from: pd.DataFrame | None = None) -> None:
        self.counts_from = counts_from

    def probabilities(self, task: NextLocationTask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows (m,), p (m, N) float32) user by user."""
        prior = _prior(task.city, self.counts_from)
        for history in user_histories(task):
            yield history.rows, _frequency(history, prior)


class UserMarkov:
    """Where the user went next from the current place so far; the user's frequency breaks ties and orders the rest.

    `counts_from` as in `UserFrequency`.
    """

    name = "UserMarkov"

    def __init__(self, counts_from: pd.DataFrame | None = None) -> None:
        self.counts_from = counts_from

    def probabilities(self, task: NextLocationTask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows (m,), p (m, N) float32) user by user."""
        prior = _prior(task.city, self.counts_from)
        for history in user_histories(task):
            here = (history.location == history.current[:, None]) & (history.current[:, None] >= 0)
            counts = history.successor_counts((here & (history.age > 0)).astype(np.float32))
            p = _frequency(history, prior)
            p[:, history.places] += counts
            yield history.rows, p / (counts.sum(axis=1, keepdims=True) + 1)


def place_counts(city: Any, visits: pd.DataFrame) -> np.ndarray:
    """Number of visits to each place of the city, float32 (N,); visits to other places are left out."""
    index = city.index_of(visits["location_id"].to_numpy(dtype=object))
    return np.bincount(index[index >= 0], minlength=len(city.location_ids)).astype(np.float32)


def _prior(city: Any, visits: pd.DataFrame | None) -> np.ndarray:
    counts = np.ones(len(city.location_ids), dtype=np.float32)
    if visits is not None:
        counts += place_counts(city, visits)
    return counts / counts.sum()


def _frequency(history: UserHistory, prior: np.ndarray) -> np.ndarray:
    """Share of each place in the past of each target, with one visit's weight spread as the prior; float32 (T, N)."""
    counts = (history.age >= 0).astype(np.float32) @ history.indicator
    p = np.tile(prior, (len(history.rows), 1))
    p[:, history.places] += counts
    return p / (counts.sum(axis=1, keepdims=True) + 1)


def _split(user: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    users, first = np.unique(user, return_index=True)
    return users, np.split(rows, first[1:]) if len(users) else []
