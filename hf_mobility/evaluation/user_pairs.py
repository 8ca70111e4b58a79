"""How many training users have the home and the second place of a generated week?

A pair of places that one training user has alone is the surest mark of a user that weeks can carry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .week_places import night_home, second_place

NO_SECOND = -1
GROUPS = {"no training user": (0, 0), "one user": (1, 1), "two to four users": (2, 4), "five users or more": (5, None)}


def pair_users(weeks: np.ndarray, train: np.ndarray, users: Any = None, *, slots_per_day: int = 24) -> np.ndarray:
    """int64 (N,): of how many users of the training weeks the (home, second place) of each week is one as well.

    Args:
        weeks, train: integer (N, L) and (M, L) whole weeks, -1 = unknown. Home is the commonest cell of the hours 0-5,
            the second place the commonest other cell.
        users: (M,) whose the training weeks are; by default each is another user's.
        slots_per_day: a multiple of 24.

    Returns:
        -1 for a week without a home or a second place.
    """
    users = np.arange(len(train)) if users is None else np.unique(users, return_inverse=True)[1].ravel()
    return users_of_pair(_home_and_second(weeks, slots_per_day), _home_and_second(train, slots_per_day), users)


def users_of_pair(pairs: np.ndarray, known: np.ndarray, users: np.ndarray) -> np.ndarray:
    """int64 (N,): users (M,) of rows of `known` (M, 2) that equal each row of `pairs` (N, 2); -1 for a pair with a
    negative place.
    """
    code = np.unique(np.concatenate([known, pairs]), axis=0, return_inverse=True)[1].ravel()
    held = np.unique(np.stack([code[: len(known)], users], axis=1)[(known >= 0).all(axis=1)], axis=0)
    count = np.bincount(held[:, 0], minlength=code.max() + 1)
    return np.where((pairs >= 0).all(axis=1), count[code[len(known) :]], NO_SECOND)


def one_user_pairs(weeks: np.ndarray, train: np.ndarray, users: Any = None, *, slots_per_day: int = 24) -> float:
    """Share of the weeks with a second place whose pair is that of exactly one training user; NaN without any."""
    count = pair_users(weeks, train, users, slots_per_day=slots_per_day)
    count = count[count != NO_SECOND]
    return float((count == 1).mean()) if len(count) else float("nan")


def pair_table(sets: dict[str, np.ndarray], train: np.ndarray, users: Any = None, **clock: int) -> pd.DataFrame:
    """One row per set of weeks: the shares of its weeks with a second place by how many training users have the pair.

    Args:
        sets: name -> weeks (N, L); show unseen users' weeks among them.
        train, users: as in `pair_users`.

    Returns:
        Columns model, weeks (with a second place), then the groups 0, 1, 2-4 and 5 or more.
    """
    rows = []
    for name, weeks in sets.items():
        count = pair_users(weeks, train, users, **clock)
        count = count[count != NO_SECOND]
        inside = {
            group: ((count >= low) & (count <= (count.max(initial=0) if high is None else high)))
            for group, (low, high) in GROUPS.items()
        }
        shares = {group: float(rows_in.mean()) if len(count) else float("nan") for group, rows_in in inside.items()}
        rows.append({"model": name, "weeks": len(count), **shares})
    return pd.DataFrame(rows)


def _home_and_second(weeks: np.ndarray, slots_per_day: int) -> np.ndarray:
    home = night_home(weeks, slots_per_day=slots_per_day)
    return np.stack([home, second_place(weeks, home)], axis=1)
