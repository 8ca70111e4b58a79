"""Splits that put no user on both sides. Groups (users, sequences, blocks of a map) are drawn whole.

Every draw is a permutation of the distinct groups in ascending order by `numpy.random.default_rng(seed)`, so that equal
groups, shares and seed give equal parts, whatever the rows hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.errors import SHOWN, DataError

__all__ = [
    "deal_groups",
    "draw_share",
    "group_folds",
    "hold_out_rows",
    "hold_out_users",
    "split_by_sequence",
    "split_by_user",
    "split_weeks_by_user",
]

Split = tuple[np.ndarray, np.ndarray]  # rows of training and of test
_COLUMNS = ("user_id", "time", "location_id", "lat", "lon")


def split_by_user(visits: pd.DataFrame, fractions: Sequence[float], seed: int = 0) -> tuple[pd.DataFrame, ...]:
    """Split a canonical frame (visits or points) into parts that share no user: `split_by_user(visits, (0.8, 0.2))`.

    Returns one canonical frame per fraction; every visit is in exactly one of them and every part has a user.

    Raises:
        ValueError: fractions that are not positive or do not sum to 1.
        DataError: fewer users than parts, or rows not in canonical order.
    """
    check_canonical(visits, needed=("user_id", "time"))
    counts = user_runs(visits)
    parts = _split_groups(np.repeat(np.arange(len(counts)), counts), fractions, seed, what="user_id: {} users")
    return tuple(visits.iloc[rows].reset_index(drop=True) for rows in parts)


def split_weeks_by_user(
    user_id: Any, *, fractions: Sequence[float] = (0.5, 0.2, 0.3), seed: int = 0
) -> tuple[np.ndarray, ...]:
    """Row numbers of each part, int64 and ascending; all weeks of a user are in one part.

    Fractions are of users, not of weeks. The same users, fractions and seed give the same parts as `split_by_user` on
    their visits.

    Raises:
        ValueError: fractions that are not positive or do not sum to 1.
        DataError: missing ids, or fewer users than parts.
    """
    users = np.asarray(user_id)
    missing = np.flatnonzero(pd.isna(users))
    if len(missing):
        raise DataError(
            f"user_id: {len(missing)} of {len(users)} weeks have none (first rows {missing[:SHOWN].tolist()}); "
            "drop them, or use split_by_sequence."
        )
    return _split_groups(_codes(users)[1], fractions, seed, what="{} users")


def split_by_sequence(
    cells: Any, *, fractions: Sequence[float] = (0.5, 0.2, 0.3), seed: int = 0
) -> tuple[np.ndarray, ...]:
    """Row numbers of each part for sets without users: equal sequences are in one part.

    Fractions are of distinct sequences. The same user may still be on both sides: say so with any result.

    Raises:
        ValueError: fractions that are not positive or do not sum to 1.
        DataError: fewer distinct sequences than parts.
    """
    rows = np.ascontiguousarray(cells)
    if rows.ndim != 2:
        raise DataError(f"cells must be an array (N, L), not of shape {rows.shape}.")
    group = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1) if len(rows) else np.zeros(0, np.int64)
    return _split_groups(group, fractions, seed, what="{} distinct sequences")


def _split_groups(group: np.ndarray, fractions: Sequence[float], seed: int, *, what: str) -> tuple[np.ndarray, ...]:
    """Rows of each part; `group` (n,) counts the groups from 0."""
    if min(fractions, default=0) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions must be positive and sum to 1; they are {tuple(fractions)}.")
    count, parts = int(group.max(initial=-1)) + 1, len(fractions)
    if count < parts:
        raise DataError(f"{what.format(count)} cannot be split into {parts} parts.")
    # Small inputs: every part keeps one group that rounding would take away.
    bounds = np.rint(np.cumsum(fractions) * count).astype(np.int64)
    for i in range(parts):
        bounds[i] = np.clip(bounds[i], (bounds[i - 1] if i else 0) + 1, count - parts + i + 1)
    part = np.empty(count, np.int64)
    part[np.random.default_rng(seed).permutation(count)] = np.searchsorted(bounds, np.arange(count), side="right")
    return tuple(np.flatnonzero(part[group] == i) for i in range(parts))


def draw_share(count: int, share: float, seed: int) -> np.ndarray:
    """bool (count,): a random share of so many groups, rounded, at least one."""
    chosen = np.zeros(count, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(count)[: max(1, round(share * count))]] = True
    return chosen


def hold_out_users(groups: np.ndarray, *, test_share: float, seed: int) -> Split:
    """Rows of training and test, ascending; a share of the groups is held out with all its rows.

    Raises:
        DataError: nobody would be left to train on.
    """
    names, group, _ = _codes(groups)
    held_out = draw_share(len(names), test_share, seed)
    if held_out.all():
        raise DataError(f"{len(names)} users cannot be split with test_share={test_share}.")
    return np.flatnonzero(~held_out[group]), np.flatnonzero(held_out[group])


def hold_out_rows(groups: np.ndarray, *, share: float, seed: int) -> Split:
    """Rows to fit and to validate on: whole random groups that hold that share of the rows or a little more; all rows
    for both where there is one group.
    """
    names, group, size = _codes(groups)
    if len(names) < 2:
        return np.arange(len(groups)), np.arange(len(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    number = 1 + np.searchsorted(np.cumsum(size[order]), share * len(groups))
    held_out = np.isin(group, order[: min(number, len(names) - 1)])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def group_folds(groups: np.ndarray, *, folds: int, seed: int) -> Iterator[Split]:
    """Rows to fit and to validate on, fold by fold, of about equally many groups; nothing where there is one group."""
    names, group, _ = _codes(groups)
    fold = (np.random.default_rng(seed).permutation(len(names)) % folds)[group]
    for k in range(min(folds, len(names)) if len(names) > 1 else 0):
        yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)


def deal_groups(groups: np.ndarray, *, folds: int, seed: int) -> np.ndarray:
    """int64 (N,): fold of each row; whole groups are dealt, at random, each to the smallest fold so far.

    Raises:
        DataError: fewer groups than folds, or fewer than two folds.
    """
    names, group, size = _codes(groups)
    if not 2 <= folds <= len(names):
        raise DataError(f"{len(names)} blocks cannot be dealt into {folds} folds; use smaller blocks or fewer folds.")
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-size[order], kind="stable")]  # large ones first, so that folds come out even
    fold, load = np.zeros(len(names), np.int64), np.zeros(folds)
    for name in order:
        fold[name] = load.argmin()
        load[fold[name]] += size[name]
    return fold[group]


def _codes(groups: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct groups in ascending order, the row in them of each given one, and their sizes."""
    names, group, size = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    return names, group.reshape(-1), size


# Frames


def user_runs(visits: pd.DataFrame) -> np.ndarray:
    """Number of visits of each user in frame order, int64 (U,)."""
    user = visits["user_id"].to_numpy()
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]]) if len(user) else np.empty(0, dtype=np.int64)
    return np.diff(np.r_[starts, len(user)]) if len(user) else starts


def check_canonical(visits: pd.DataFrame, needed: Sequence[str] = _COLUMNS) -> None:
    """Refuse frames whose order would let a target see its own future.

    Raises:
        DataError: missing columns, or rows that are not sorted by user and time.
    """
    missing = [name for name in needed if name not in visits.columns]
    if missing:
        raise DataError(f"The visits frame lacks the columns {missing}; make it with validate_visits.")
    user, time = visits["user_id"].to_numpy(), visits["time"].to_numpy()
    new_user = user[1:] != user[:-1]
    backwards = np.flatnonzero(~new_user & (time[1:] < time[:-1])) + 1
    if len(backwards):
        raise DataError(
            f"time: {len(backwards)} rows are earlier than the row before them of the same user "
            f"(first rows: {backwards[:5].tolist()}); make the frame with validate_visits."
        )
    if len(user) and int(new_user.sum()) + 1 != visits["user_id"].nunique():
        raise DataError("user_id: the rows of a user are not together; make the frame with validate_visits.")
