"""Weeks of slots -> places of a city, stay after stay, for users with a given home and work."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..tokenization.diaries import HOME, KIND_OF_SLOT, NUM_SLOTS, RECURRING, WORK, Stays, to_places

LEVELS = 3  # uniform numbers of one choice
CANDIDATES = 24  # works that are drawn for a user whose distance to work is given


def place_weeks(
    head: Any,
    city: Any,
    slots: np.ndarray,
    *,
    home: np.ndarray,
    work: np.ndarray,
    source: torch.Generator,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Places of diaries, (N, T) int32 rows of the city's table, -1 where the slot is unknown.

    Recurring slots keep their place over all T hours, which may be several weeks of a user; every stay at a single slot
    gets a place of its own.

    Args:
        head: `model.places`. city: what its `read_city` made.
        slots: (N, T) integers, -1 = unknown.
        home, work: (N,) rows of places; work -1 = none, which is then chosen where a diary has it.
        source: of all numbers, three for each stay.
        known: (N, T) places that are given, -1 = none; a stay in which one is given keeps it.
    """
    stays = Stays.of_weeks(slots.astype(np.int64))
    given = np.full(len(stays.row), -1, np.int64) if known is None else _given(stays, known)
    own = np.full((len(slots), NUM_SLOTS), -1, np.int64)
    own[:, HOME], own[:, WORK] = home, work
    lasting = (given >= 0) & (stays.value < RECURRING.stop)
    own[stays.row[lasting], stays.value[lasting]] = given[lasting]
    place = np.full(len(stays.row), -1, np.int64)
    before = np.array(home, np.int64)
    number = np.arange(len(stays.row)) - np.searchsorted(stays.row, stays.row)
    numbers = torch.rand(len(stays.row), LEVELS, generator=source)  # of every stay, so that batches do not matter
    for step in range(int(number.max(initial=-1)) + 1):
        at = np.flatnonzero(number == step)
        row, slot = stays.row[at], stays.value[at]
        found = np.where(given[at] >= 0, given[at], own[row, slot])
        new = np.flatnonzero(found < 0)
        if len(new):
            who = row[new]
            context = KIND_OF_SLOT[slot[new]], home[who], own[who, WORK], before[who]
            found[new] = _choose(head, city, *context, numbers[at[new]])
        keeps = slot < RECURRING.stop
        own[row[keeps], slot[keeps]] = found[keeps]
        place[at], before[row] = found, found
    return to_places(slots, place)


def choose_work(
    head: Any, city: Any, home: np.ndarray, least: np.ndarray, most: np.ndarray, source: torch.Generator
) -> np.ndarray:
    """A work for each home (B,), `least` to `most` km away: of some works that are drawn the first in this range, and
    the nearest to it where none is."""
    none = np.full(len(home) * CANDIDATES, -1)
    again = np.repeat(home, CANDIDATES)
    numbers = torch.rand(len(again), LEVELS, generator=source)
    drawn = _choose(head, city, np.full(len(again), KIND_OF_SLOT[WORK]), again, none, none, numbers)
    km = city.km.cpu().numpy()
    away = np.hypot(*(km[drawn] - km[again]).T).reshape(-1, CANDIDATES)
    outside = np.maximum(least[:, None] - away, 0) + np.maximum(away - most[:, None], 0)
    return drawn.reshape(-1, CANDIDATES)[np.arange(len(home)), outside.argmin(axis=1)]


def _choose(
    head: Any,
    city: Any,
    kind: np.ndarray,
    home: np.ndarray,
    work: np.ndarray,
    before: np.ndarray,
    numbers: torch.Tensor,
) -> np.ndarray:
    """`MstarPlaces.choose` of arrays (B,)."""
    device = city.km.device
    given = (torch.from_numpy(np.ascontiguousarray(x, np.int64)).to(device) for x in (kind, home, work, before))
    return head.choose(city, *given, numbers.to(device)).cpu().numpy()


def _given(stays: Stays, known: np.ndarray) -> np.ndarray:
    """(S,) the place that is known in a stay, -1 = none."""
    hours = (stays.of_hour >= 0) & (known >= 0)
    given = np.full(len(stays.row), -1, np.int64)
    given[stays.of_hour[hours]] = known[hours]
    return given
