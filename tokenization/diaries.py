"""Diaries: weeks in which every hour names one of the user's own places (a slot) instead of a place of the city.

Slot 0 is home and slot 1 the second place, mostly work. Slots 2 to 6 are the other places that the user visits on
several days, by the hours spent there. Slots 7 and 8 are places of one stay: 7, and by turns 8 where one such stay
follows another. So diaries of all cities share nine slots, and the places of a city are chosen afterwards.

Places are rows of a city's table, so that a shop in the home's cell is another place than home.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .weeks import blocks, first_hour_of_cell

HOME, WORK = 0, 1
RECURRING = range(2, 7)
SINGLE = range(7, 9)
NUM_SLOTS = 9
KINDS = ("home", "work", "recurring", "single")
KIND_OF_SLOT = np.array([0, 1, 2, 2, 2, 2, 2, 3, 3])
# (9, 3) what the codec's resolutions read, coarse to fine: at home or not, the kind, the slot.
SLOT_MAP = np.stack([np.minimum(KIND_OF_SLOT, 1), KIND_OF_SLOT, np.arange(NUM_SLOTS)], axis=1)


@dataclass(frozen=True, eq=False)
class Stays:
    """The stays of weeks, in the order of weeks and hours. Unknown hours between two of the same place do not end one.

    row: (S,) int64 week. first, last: (S,) hours, both included. value: (S,) what the hours hold (a place or a slot).
    of_hour: (N, L) int64 number of the stay of each hour, -1 = unknown.
    """

    row: np.ndarray
    first: np.ndarray
    last: np.ndarray
    value: np.ndarray
    of_hour: np.ndarray

    @classmethod
    def of_weeks(cls, values: np.ndarray) -> Stays:
        """(N, L) integers, -1 = unknown -> their stays."""
        row, hour = np.nonzero(values >= 0)
        value = values[row, hour]
        new = np.ones(len(row), bool)
        new[1:] = (row[1:] != row[:-1]) | (value[1:] != value[:-1])
        start = np.flatnonzero(new)
        of_hour = np.full(values.shape, -1, np.int64)
        of_hour[row, hour] = np.cumsum(new) - 1
        return cls(
            row[start], hour[start], hour[np.append(start[1:], len(row))[: len(start)] - 1], value[start], of_hour
        )

    def follow(self) -> np.ndarray:
        """(S,) bool: whether a stay has one before it in the same week."""
        found = np.zeros(len(self.row), bool)
        found[1:] = self.row[1:] == self.row[:-1]
        return found


def to_slots(places: np.ndarray, home: np.ndarray, work: np.ndarray, *, slots_per_day: int = 24) -> np.ndarray:
    """Weeks of places -> diaries.

    Args:
        places: (N, L) integers, -1 = unknown, column 0 at midnight.
        home, work: (N,) places of each week; equal where there is no second place.
        slots_per_day: hours (or shorter steps) of a day.

    Returns:
        (N, L) int8 slots, -1 = unknown.
    """
    slots = np.full(places.shape, -1, np.int8)
    for rows in blocks(len(places)):
        slots[rows] = _slots_of_block(places[rows], home[rows, None], work[rows, None], slots_per_day)
    return slots


def _slots_of_block(places: np.ndarray, home: np.ndarray, work: np.ndarray, slots_per_day: int) -> np.ndarray:
    weeks, length = places.shape
    known = places >= 0
    others = known & (places != home) & (places != work)
    place = (first_hour_of_cell(places) + np.arange(weeks)[:, None] * length)[others]  # one number for each of a week
    day = np.broadcast_to(np.arange(length) // slots_per_day, places.shape)[others]
    slots = np.full(places.shape, -1, np.int64)
    slots[others] = _recurring(place, day, length, weeks * length)[place]
    single = others & (slots < 0)
    elsewhere = int(places.max(initial=0)) + 1
    stays = Stays.of_weeks(np.where(single, places, np.where(known, elsewhere, -1)))
    slots[single] = _by_turns(stays, stays.value < elsewhere)[stays.of_hour[single]]
    slots[known & (places == work)] = WORK
    slots[known & (places == home)] = HOME
    return slots


def _recurring(place: np.ndarray, day: np.ndarray, length: int, places: int) -> np.ndarray:
    """(places,) slot of each place that is visited on several days, -1 for the others; place and day are of hours."""
    hours = np.bincount(place, minlength=places)
    days = np.bincount(np.unique(place * length + day) // length, minlength=places)
    found = np.flatnonzero(days > 1)
    found = found[np.lexsort((found, -hours[found], found // length))]
    rank = np.arange(len(found)) - np.searchsorted(found // length, found // length)
    slot = np.full(places, -1, np.int64)
    kept = rank < len(RECURRING)
    slot[found[kept]] = RECURRING.start + rank[kept]
    return slot


def _by_turns(stays: Stays, single: np.ndarray) -> np.ndarray:
    """(S,) slots of single places: the first for a stay that follows another kind of place, then by turns."""
    chained = stays.follow() & single & np.append(False, single[:-1])
    number = np.arange(len(single))
    start = np.maximum.accumulate(np.where(chained, 0, number))
    return SINGLE.start + (number - start) % len(SINGLE)


def to_places(slots: np.ndarray, place_of_stay: np.ndarray) -> np.ndarray:
    """(N, L) slots, -1 = unknown, and the (S,) place of each of their stays -> (N, L) int32 places, -1 = unknown."""
    return np.append(place_of_stay, -1)[Stays.of_weeks(slots).of_hour].astype(np.int32)
