"""Records at any time -> regular series without gaps, cut into windows of whole days.

Unusual: all rows of all people are one long flat axis of slots, so that filling is one `repeat` over it. Slots are
counted on the local clock: every day has the same number of slots, and a slot is always the same time of day. On the
day when clocks go forward the slots of the missing hour hold no record and are filled; when they go back, two hours
share slots.

Two rules for slots without a record, both with the first record filled back to the window's start and the last one
forward to its end:

- `paper`: a record fills the slots after the previous kept record's end up to the slot of its own last second; a record
  that ends in a slot already filled is skipped (RAW's preparation of signalling records). So a gap takes the position
  that *follows* it. Of several points in a slot the first counts.
- `forward`: a slot takes the last record that begins in it; a gap takes the last known position, so nothing is known
  before it happened.

Windows are filled one by one: a window depends on the records inside it only. A stay over a window's edge is in both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RULES = ("paper", "forward")


@dataclass(frozen=True)
class Grid:
    """The slots of everybody, cut into windows of `window` slots; the last one may be shorter."""

    num_slots: int
    window: int

    @property
    def num_windows(self) -> int:
        return -(-self.num_slots // self.window)


@dataclass(frozen=True)
class Filled:
    """Rows (user-windows) one after the other, sorted by both: source (S,) int64, the record that each slot takes;
    observed (S,) bool; offsets (N + 1,) int64; user, window (N,) int64.
    """

    source: np.ndarray
    observed: np.ndarray
    offsets: np.ndarray
    user: np.ndarray
    window: np.ndarray


def fill_slots(
    grid: Grid,
    *,
    user: np.ndarray,
    order: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    ties: tuple[np.ndarray, ...],
    rule: str,
) -> Filled:
    """Fill every window in which a person has a record.

    Args:
        user: (n,) int64 codes. order: (n,) int64, what records of one slot are sorted by (UTC seconds).
        first, last: (n,) int64 slots, counted from the grid's start, of a record's first and last second.
        ties: arrays (n,) that decide between records of equal slot and time, so that row order leaves no trace: the
            smaller value wins under `paper`, the larger one under `forward`.
        rule: `paper` or `forward`, see above.

    Raises:
        ValueError: if no record lies on the grid.
    """
    last = np.maximum(first, last)  # the clock may go back during a stay
    record = np.flatnonzero((last >= 0) & (first < grid.num_slots))
    if len(record) == 0:
        raise ValueError("no point lies between `start` and `end`.")
    first, last = first[record].clip(min=0), last[record].clip(max=grid.num_slots - 1)
    window = first // grid.window
    copies = last // grid.window - window
    if copies.any():  # a stay is in every window it touches
        piece = np.repeat(np.arange(len(record)), copies + 1)
        window = window[piece] + np.arange(len(piece)) - np.repeat(np.cumsum(copies + 1) - copies - 1, copies + 1)
        record, first, last = record[piece], first[piece], last[piece]

    rows, row = _rows(user[record] * grid.num_windows + window, int(user.max() + 1) * grid.num_windows)
    row_window = rows % grid.num_windows
    widths = np.minimum(grid.window, grid.num_slots - row_window * grid.window)
    offsets = np.concatenate([[0], np.cumsum(widths)])
    shift = offsets[row] - window * grid.window  # from a slot of the grid to one of the flat axis
    first = np.maximum(first + shift, offsets[row])
    last = np.minimum(last + shift, offsets[row + 1] - 1)

    sort = _sorted(first, order[record], (last, *(tie[record] for tie in ties)))
    first, last, record, row = first[sort], last[sort], record[sort], row[sort]
    fill = _fill_paper if rule == "paper" else _fill_forward
    source = record[fill(first, last, row, offsets)]
    observed = _covered(first, last, int(offsets[-1]))
    return Filled(source, observed, offsets, rows // grid.num_windows, row_window)


def _rows(keys: np.ndarray, num_keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct keys, sorted, and each key's place among them."""
    if num_keys > 8 * len(keys) + 1_000_000:
        rows, row = np.unique(keys, return_inverse=True)
        return rows, row
    present = np.zeros(num_keys, bool)
    present[keys] = True
    return np.flatnonzero(present), (np.cumsum(present) - 1)[keys]


def _sorted(slot: np.ndarray, time: np.ndarray, ties: tuple[np.ndarray, ...]) -> np.ndarray:
    """Order by slot, time and, only where both are equal, the rest."""
    earliest = int(time.min())
    span = int(time.max()) - earliest + 1
    if span * (int(slot.max()) + 1) < 2**62:  # one key sorts several times faster than two
        key = slot * span + (time - earliest)
        ascending = bool((key[1:] >= key[:-1]).all())
        sort = np.arange(len(key)) if ascending else np.argsort(key)
        equal = np.diff(key[sort]) == 0
    else:
        sort = np.lexsort((time, slot))
        equal = (np.diff(slot[sort]) == 0) & (np.diff(time[sort]) == 0)
    if equal.any():
        tied = np.append(equal, False) | np.append(False, equal)
        rows = sort[tied]
        sort[tied] = rows[np.lexsort((*(tie[rows] for tie in reversed(ties)), time[rows], slot[rows]))]
    return sort


def _fill_paper(first: np.ndarray, last: np.ndarray, row: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(S,): which record each slot takes. A kept record ends after all before it and fills back to the previous end."""
    before = np.concatenate([[-1], np.maximum.accumulate(last)[:-1]])  # rows lie one after the other, so ends of
    kept = np.flatnonzero(last > before)  # another person's are always smaller
    ends = last[kept]
    closing = np.flatnonzero(np.append(row[kept][1:] != row[kept][:-1], True))
    ends[closing] = offsets[1:] - 1
    return np.repeat(kept, np.diff(ends, prepend=-1))


def _fill_forward(first: np.ndarray, last: np.ndarray, row: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(S,): which record each slot takes: the last one that begins in it or before it; before the first, the first."""
    kept = np.flatnonzero(np.append(first[1:] != first[:-1], True))
    opening = np.flatnonzero(np.append(True, row[kept][1:] != row[kept][:-1]))
    starts = np.insert(first[kept], opening, offsets[:-1])
    taken = np.insert(kept, opening, np.searchsorted(row, np.arange(len(offsets) - 1)))
    return np.repeat(taken, np.diff(starts, append=offsets[-1]))


def _covered(first: np.ndarray, last: np.ndarray, num_slots: int) -> np.ndarray:
    """(S,) bool: slots that lie between some record's first and last second."""
    if (first == last).all():
        covered = np.zeros(num_slots, bool)
        covered[first] = True
        return covered
    change = np.bincount(first, minlength=num_slots + 1) - np.bincount(last + 1, minlength=num_slots + 1)
    return np.cumsum(change[:-1]) > 0
