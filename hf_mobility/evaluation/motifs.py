"""Motifs of days: in which pattern distinct places are visited, whatever the places are.

Two forms. A graph motif (Schneider et al. 2013, doi:10.1098/rsif.2013.0246) knows which places are joined by a move. A
sequence motif knows the order as well: home, work, home, shop, home is 0, 1, 0, 2, 0.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

from ..data.week_arrays import split_days
from ..tokenization.weeks import first_hour_of_cell

MOTIF_PLACES = 6  # the daily motifs of Schneider et al. 2013 have at most six places
OTHER_MOTIF = -1  # days of more places


def motif_tv(real: np.ndarray, generated: np.ndarray, *, slots_per_day: int = 24) -> float:
    """Total variation, 0..1, between the shares of sequence motifs of the days of two sets of weeks.

    Args:
        real, generated: integer (N, L) and (M, L) cells, -1 = unknown. Days with an unknown hour are left out.
        slots_per_day: columns per day.

    Returns:
        Half the sum of absolute differences; NaN where a set has no day that is known as a whole.

    Example:
        >>> motif_tv(np.array([[0, 0, 1, 0]]), np.array([[7, 7, 2, 7]]), slots_per_day=4)
        0.0
    """
    a, b = (motif_sequences(cells, slots_per_day=slots_per_day) for cells in (real, generated))
    if not len(a) or not len(b):
        return float("nan")
    motif = np.unique(np.concatenate([a, b]), axis=0, return_inverse=True)[1].ravel()
    p, q = (np.bincount(ids, minlength=motif.max() + 1) / len(ids) for ids in (motif[: len(a)], motif[len(a) :]))
    return float(np.abs(p - q).sum() / 2)


def motif_sequences(cells: np.ndarray, *, slots_per_day: int) -> np.ndarray:
    """int16 (days, slots_per_day): the distinct successive places of each known day, numbered by first visit from 0,
    then -1.
    """
    labels = visit_labels(_known_days(cells, slots_per_day))
    changes = np.ones(labels.shape, dtype=bool)
    changes[:, 1:] = labels[:, 1:] != labels[:, :-1]
    day, slot = np.nonzero(changes)
    out = np.full(labels.shape, -1, dtype=np.int16)
    out[day, np.cumsum(changes, axis=1)[day, slot] - 1] = labels[day, slot]
    return out


def visit_labels(days: np.ndarray) -> np.ndarray:
    """int64 (D, S): the places of each row numbered 0, 1, 2, ... in the order of the first visit."""
    first = first_hour_of_cell(days)
    order = np.cumsum(first == np.arange(days.shape[1]), axis=1) - 1
    return np.take_along_axis(order, first, axis=1)


def daily_motifs(cells: np.ndarray, *, slots_per_day: int) -> tuple[np.ndarray, np.ndarray]:
    """Graph motifs of all days without an unknown hour: which they are (ascending int64 ids) and on how many days.

    A day's motif is the directed graph of its distinct cells, an edge for every move, up to the names of the cells (two
    days have one motif if their graphs are isomorphic). Days of more than six cells are all `OTHER_MOTIF`. An id is the
    smallest adjacency matrix over all orders of the cells, read as binary number with six columns a row, times 8, plus
    the number of cells.
    """
    label = visit_labels(_known_days(cells, slots_per_day))
    places = label.max(axis=1, initial=-1) + 1
    small = places <= MOTIF_PLACES
    a, b = label[small, :-1], label[small, 1:]
    graph = np.bitwise_or.reduce(np.where(a != b, np.int64(1) << (MOTIF_PLACES * a + b), 0), axis=1)
    distinct, count = np.unique(np.column_stack([places[small], graph]), axis=0, return_counts=True)
    motif = np.concatenate([_canonical(distinct[:, 0], distinct[:, 1]), [OTHER_MOTIF]])
    ids, group = np.unique(motif, return_inverse=True)
    days_of = np.bincount(group, np.append(count, (~small).sum())).astype(np.int64)
    return ids[days_of > 0], days_of[days_of > 0]


def _known_days(cells: np.ndarray, slots_per_day: int) -> np.ndarray:
    days = split_days(cells, slots_per_day)
    return days[(days >= 0).all(axis=1)]


def _canonical(places: np.ndarray, graph: np.ndarray) -> np.ndarray:
    """Ids of graphs (m,) of `places` nodes each, bit 6 * from + to for an edge: the least over all relabellings."""
    out = np.zeros(len(graph), dtype=np.int64)
    bits = np.arange(MOTIF_PLACES**2)
    for n in np.unique(places):
        chosen = places == n
        adjacency = (graph[chosen, None] >> bits & 1).reshape(-1, MOTIF_PLACES, MOTIF_PLACES)[:, :n, :n]
        weight = (np.int64(1) << bits).reshape(MOTIF_PLACES, MOTIF_PLACES)
        flat = adjacency.reshape(len(adjacency), -1)
        least = np.full(len(flat), np.iinfo(np.int64).max)
        for order in permutations(range(n)):
            relabelled = weight[np.ix_(order, order)].ravel()
            np.minimum(least, flat @ relabelled, out=least)
        out[chosen] = least * 8 + n
    return out
