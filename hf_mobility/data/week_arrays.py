"""Weeks as plain arrays: cell ids (N, L), one row per week, one column per hour (or shorter slot), -1 = unknown hour.

What training, evaluation and the generator baselines need to know about such an array, without a loop over weeks. A
column is called an hour throughout, whatever `slots_per_day` says; column 0 begins at local midnight of
`first_weekday`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..tokenization.errors import SHOWN, DataError

__all__ = [
    "PlaceHours",
    "check_users",
    "check_weeks",
    "commonest",
    "day_type",
    "place_hours",
    "shift_weeks",
    "split_days",
]


class PlaceHours(NamedTuple):
    """The distinct known cells of each week, ascending by week and cell; three aligned int64 arrays (m,).

    Fields:
        owner: row of the week.
        cell: the cell.
        hours: number of hours of the week spent there.
    """

    owner: np.ndarray
    cell: np.ndarray
    hours: np.ndarray


def check_weeks(
    cells: Any, *, name: str = "cells", num_cells: int | None = None, length: int | None = None
) -> np.ndarray:
    """The weeks as an int32 array (N, L), or one sentence on what is wrong with them.

    Args:
        cells: integer array (N, L).
        name: of the argument, for the message.
        num_cells: ids must be below it, if given.
        length: L must equal it, if given.

    Raises:
        DataError: no integer array of two axes, no week, fewer than two hours, another length, or ids out of range.
    """
    cells = np.asarray(cells)
    if cells.ndim != 2 or not np.issubdtype(cells.dtype, np.integer):
        raise DataError(
            f"{name} is {cells.dtype} of shape {cells.shape}; give an integer array (weeks, hours), -1 = unknown hour."
        )
    if cells.shape[0] < 1 or cells.shape[1] < 2:
        raise DataError(f"{name} has shape {cells.shape}; at least one week of at least two hours is needed.")
    if length is not None and cells.shape[1] != length:
        raise DataError(
            f"{name} has {cells.shape[1]} hours a week where {length} are needed; give weeks of one length."
        )
    wrong = cells < -1
    if num_cells is not None:
        wrong |= cells >= num_cells
    if wrong.any():
        rows = np.flatnonzero(wrong.any(axis=1))
        limit = f"-1 (unknown) to {num_cells - 1}" if num_cells is not None else "-1 (unknown) or more"
        raise DataError(
            f"{name}: {int(wrong.sum())} cell ids are not in {limit} (first: {cells[wrong][:SHOWN].tolist()}, "
            f"first rows: {rows[:SHOWN].tolist()}); map the weeks to the cells of lat and lon first."
        )
    return cells.astype(np.int32, copy=False)


def check_users(users: Any, weeks: np.ndarray, *, name: str) -> np.ndarray:
    """(N,) whose each of the weeks (N, L) is: as given, or another user's each for None.

    Raises:
        DataError: not one user for each week; the sentence calls them `name`.
    """
    users = np.arange(len(weeks)) if users is None else np.asarray(users)
    if users.shape != (len(weeks),):
        raise DataError(f"{name} has shape {users.shape}; give one user for each of the {len(weeks)} weeks.")
    return users


def place_hours(cells: np.ndarray) -> PlaceHours:
    """Hours spent in each distinct cell of each week, from (N, L) with -1 for unknown hours."""
    ordered = np.sort(cells, axis=1)
    starts = np.ones(ordered.shape, dtype=bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    at = np.flatnonzero(starts)
    cell = ordered.ravel()[at].astype(np.int64)
    hours = np.diff(np.append(at, ordered.size))
    known = cell >= 0
    return PlaceHours(at[known] // cells.shape[1], cell[known], hours[known])


def split_days(cells: np.ndarray, slots_per_day: int) -> np.ndarray:
    """The days of all weeks below each other, (N * L / slots_per_day, slots_per_day)."""
    if slots_per_day < 2 or cells.shape[1] % slots_per_day:
        raise DataError(
            f"Weeks of {cells.shape[1]} slots do not divide into days of slots_per_day={slots_per_day}; "
            "give the number of slots of one day."
        )
    return cells.reshape(-1, slots_per_day)


def shift_weeks(cells: np.ndarray, rows: int, columns: int, *, copies: int, seed: int) -> np.ndarray:
    """The weeks, and copies of them that are moved as a whole, each by another random step, over the grid and around
    its edges: (N, L) -> (N * (1 + copies), L).

    When people stay, go and return is the same in a copy, and so are their distances but for the grid's edges; which
    places are popular is not. A model of few weeks learns the one from many copies, and then the other from the weeks
    as they are.

    Args:
        cells: integer (N, L) of a grid of `rows` x `columns`, row by row; -1 = unknown, also in the copies.
        copies: of each week.
        seed: of the steps.
    """
    cells = check_weeks(cells, num_cells=rows * columns)
    again = np.tile(cells, (copies, 1))
    down, right = np.random.default_rng(seed).integers((rows, columns), size=(len(again), 2)).T[..., None]
    moved = (again // columns + down) % rows * columns + (again % columns + right) % columns
    return np.concatenate([cells, np.where(again < 0, again, moved).astype(cells.dtype)])


def day_type(length: int, *, slots_per_day: int = 24, first_weekday: int = 0) -> np.ndarray:
    """int64 (length,): 1 in the slots of Saturday and Sunday, else 0."""
    return ((first_weekday + np.arange(length) // slots_per_day) % 7 >= 5).astype(np.int64)


def commonest(draws: np.ndarray) -> np.ndarray:
    """The value that most of the draws (D, N, L) have at each place, on ties that of the earliest: (N, L)."""
    found, most = draws[0].copy(), np.zeros(draws.shape[1:], np.int64)
    for draw in draws:
        votes = (draws == draw).sum(axis=0)
        np.copyto(found, draw, where=votes > most)
        np.maximum(most, votes, out=most)
    return found
