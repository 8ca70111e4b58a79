"""Next-location tasks: which visits are to be predicted, and from what.

One task is one city's visits in canonical order plus a mask of the rows to predict; every predictor, count table or
network, reads the same object. The arrival time of a target stands in the frame, because it is the context of later
targets, but the protocol does not give it to the predictor of that very target.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.errors import DataError
from .frames import as_visits
from .splits import check_canonical, draw_share, user_runs


@dataclass(frozen=True, eq=False)
class NextLocationTask:
    """What is to be predicted: the `target` rows, each from the earlier rows of the same user.

    Fields:
        city: any object with `location_ids` (N,), `lat`, `lon` (N,), `timezone` and `index_of(ids)`.
        visits: canonical visits frame of n rows, sorted by user and time, RangeIndex.
        location: int64 (n,), index into `city.location_ids`; -1 is a place the city does not list.
        user: int64 (n,), user code 0..U-1, non-decreasing. For grouping only: models do not see it as a feature.
        target: bool (n,), rows to be predicted. Earlier targets belong to the context of later ones.
    """

    city: Any
    visits: pd.DataFrame
    location: np.ndarray
    user: np.ndarray
    target: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.visits)
        for name in ("location", "user", "target"):
            if getattr(self, name).shape != (n,):
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; the task has {n} visits.")
        if n and (self.user[0] != 0 or not np.isin(np.diff(self.user), (0, 1)).all()):
            raise ValueError("user must be codes 0, 1, 2, ... in non-decreasing order without gaps.")

    @cached_property
    def rows(self) -> np.ndarray:
        """The target rows in ascending order, int64 (number of targets,)."""
        return np.flatnonzero(self.target)

    @cached_property
    def user_starts(self) -> np.ndarray:
        """First row of each user and, as a last entry, n: int64 (U + 1,). User u holds rows starts[u]:starts[u + 1]."""
        return np.searchsorted(self.user, np.arange(self.users + 1))

    @property
    def users(self) -> int:
        """Number of users."""
        return int(self.user[-1]) + 1 if len(self.user) else 0

    def train_visits(self, user_fraction: float = 1.0, seed: int = 0) -> pd.DataFrame:
        """The visits that are no target, of a random fraction of the users (rounded, at least one); a canonical frame.

        The draw depends on `seed`, `user_fraction` and the number of users only.
        """
        if not 0 < user_fraction <= 1:
            raise ValueError(f"user_fraction must lie in (0, 1]; it is {user_fraction}.")
        chosen = np.ones(self.users, dtype=bool)
        if user_fraction < 1:
            chosen = draw_share(self.users, user_fraction, seed)
        return self.visits[~self.target & chosen[self.user]].reset_index(drop=True)


def make_task(visits: Any, city: Any, *, test_fraction: float = 0.2, min_visits: int = 10) -> NextLocationTask:
    """Make the last `test_fraction` of each user's visits the targets.

    Users with fewer than `min_visits` visits are dropped; of a user with n visits the last n - floor((1 -
    test_fraction) * n) are targets. A user's first visit is never a target: it has no context.

    Args:
        visits: visits with location_id in any form that `validate_visits` reads; validated unless its dtypes are
            canonical, in which case the order must be, too.
        city: the city whose places are the candidates; visits elsewhere get location -1.
        test_fraction: in (0, 1), share of each user's visits.
        min_visits: at least 2.

    Raises:
        DataError: no location_id column, rows not in canonical order, or no user left.
        ValueError: an argument outside its range.
        TypeError: something else than a city.
    """
    if not hasattr(city, "index_of"):
        raise TypeError(f"city must be a City, got {type(city).__name__}: City.from_visits(visits, timezone=...).")
    zone = getattr(city, "timezone", None)
    visits, user, target = _with_targets(visits, zone, test_fraction, min_visits)
    return NextLocationTask(
        city=city,
        visits=visits,
        location=np.asarray(city.index_of(visits["location_id"].to_numpy(dtype=object)), dtype=np.int64),
        user=user,
        target=target,
    )


def split_visits(visits: Any, *, test_fraction: float = 0.2, min_visits: int = 10) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The visits that are no targets of `make_task` with the same arguments, and the targets, of the users it keeps; no
    city is needed. Arguments and errors as there; times are aware or epoch seconds."""
    visits, _, target = _with_targets(visits, None, test_fraction, min_visits)
    return visits[~target].reset_index(drop=True), visits[target].reset_index(drop=True)


def _with_targets(
    visits: Any, timezone: str | None, test_fraction: float, min_visits: int
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The visits of users with enough of them, (n,) their user codes and (n,) which are targets."""
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie between 0 and 1; it is {test_fraction}.")
    if min_visits < 2:
        raise ValueError(f"min_visits must be at least 2 (a target needs one earlier visit); it is {min_visits}.")
    visits = as_visits(visits, timezone=timezone)
    check_canonical(visits)

    counts = user_runs(visits)
    keep = np.repeat(counts >= min_visits, counts)
    if not keep.any():
        raise DataError(
            f"No user has {min_visits} visits or more (users: {len(counts)}, most visits: {counts.max(initial=0)})."
        )
    visits = visits[keep].reset_index(drop=True)
    counts = counts[counts >= min_visits]

    # The small term undoes rounding such as (1 - 0.9) * 10 = 0.999..., which floor would turn into 0.
    first_target = np.maximum(np.floor((1 - test_fraction) * counts + 1e-9).astype(np.int64), 1)
    position = np.arange(len(visits)) - np.repeat(np.cumsum(counts) - counts, counts)
    user = np.repeat(np.arange(len(counts)), counts)
    return visits, user, position >= np.repeat(first_target, counts)
