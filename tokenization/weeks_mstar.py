"""Records of people -> weeks: one cell per hour of local clock time, -1 where nothing is known.

Unusual: three kinds of records end in one sparse list of (person, hour, cell, weight), of which every hour takes the
cell with the greatest weight. Clock changes: an hour that occurs twice takes what happened in the first of the two; an
hour that does not exist stays unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

DAY = 86_400
FIRST_MONDAY = 4 * DAY  # 1970-01-05
OUTSIDE = -2  # somewhere outside the grid: known not to be a cell, unlike -1


class _Columns(NamedTuple):
    cells: np.ndarray
    user_id: np.ndarray
    start: np.ndarray


class Weeks(_Columns):
    """Three columns that unpack as `cells, user_id, start`, and a report.

    cells: (N, L) int32, -1 = unknown. user_id: (N,). start: (N,) datetime64[D], the local Monday (NaT where the records
    have no dates). Sorted by user_id and start.
    report: counts of what was read, left out and filled; see `MstarTokenizer.weeks`.
    """

    report: dict[str, Any]

    def __new__(cls, cells: np.ndarray, user_id: np.ndarray, start: np.ndarray, report: dict[str, Any]) -> Weeks:
        weeks = super().__new__(cls, cells, user_id, start)
        weeks.report = report
        return weeks


@dataclass(frozen=True)
class WeekShape:
    """Slots of a window and what they mean: `num_slots` of `interval` seconds in the zone `timezone`.

    Windows of whole weeks start on Mondays; windows of d other days on every d-th midnight, counted from Monday 5
    January 1970.
    """

    num_slots: int
    interval: int
    timezone: str

    @property
    def days(self) -> int:
        days, rest = divmod(self.num_slots * self.interval, DAY)
        if rest:
            raise ValueError(
                f"{self.num_slots} slots of {self.interval // 60} minutes are no whole number of days: records with "
                "times cannot be cut into such windows."
            )
        return days


@dataclass
class Sparse:
    """One row per person, slot (counted from 1970 in local time) and cell: how much speaks for the cell, and when it
    first did."""

    person: np.ndarray
    slot: np.ndarray
    cell: np.ndarray
    weight: np.ndarray
    first: np.ndarray

    def majority(self) -> Sparse:
        """One row per person and slot, sorted: the cell of the greatest total weight, the earlier one on ties."""
        key = self.person * (np.ptp(self.slot) + 1 if len(self.slot) else 1) + self.slot
        order = np.argsort(key, kind="stable")  # quick: records mostly come sorted
        new = _changes(key[order])
        group = np.cumsum(new) - 1
        chosen = order[new]
        disputed = np.bincount(group)[group] > 1
        chosen[np.unique(group[disputed])], weight = self._winners(order[disputed], group[disputed])
        total = self.weight[chosen]
        total[np.unique(group[disputed])] = weight
        return Sparse(self.person[chosen], self.slot[chosen], self.cell[chosen], total, self.first[chosen])

    def _winners(self, rows: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each group of rows: the first row of the cell of the greatest total weight, and that weight."""
        order = np.lexsort((self.first[rows], self.cell[rows], group))
        rows, group = rows[order], group[order]
        start = np.flatnonzero(_changes(group, self.cell[rows]))
        total = np.add.reduceat(self.weight[rows], start) if len(start) else self.weight[rows]
        rows, group = rows[start], group[start]
        order = np.lexsort((self.first[rows], -total, group))
        order = order[_changes(group[order])]
        return rows[order], total[order]

    def filled(self, limit: int) -> tuple[Sparse, int]:
        """Unknown slots between two of the same person in the same cell filled with it, where there are at most
        `limit` of them; and how many. `self` is a result of `majority`."""
        gap = self.slot[1:] - self.slot[:-1] - 1
        same = (self.person[1:] == self.person[:-1]) & (self.cell[1:] == self.cell[:-1]) & (self.cell[1:] >= 0)
        rows = np.flatnonzero(same & (gap > 0) & (gap <= limit))
        source = np.repeat(rows, gap[rows])
        step = np.arange(len(source)) - np.repeat(np.cumsum(gap[rows]) - gap[rows], gap[rows]) + 1
        zeros = np.zeros(len(self.slot) + len(source), np.int64)
        filled = Sparse(
            np.append(self.person, self.person[source]),
            np.append(self.slot, self.slot[source] + step),
            np.append(self.cell, self.cell[source]),
            zeros,
            zeros,
        )
        return filled.majority(), len(source)


# Time


def clock_segments(utc: np.ndarray, timezone: str) -> list[tuple[int, int, int, int]]:
    """Stretches of constant offset that cover the times: (start, end, offset, start of what no earlier clock showed).

    All are UTC seconds but the offset. The last is later than the start where the clock was set back: until then it
    repeats what it showed before. Zones change their offset on a quarter of an hour, at most once a day.
    """
    zone = ZoneInfo(timezone)
    days = np.arange(int(utc.min()) // DAY - 1, int(utc.max()) // DAY + 3) * DAY
    offsets = _offsets(days, zone)
    starts, shifts = [int(days[0])], [int(offsets[0])]
    for day in days[np.flatnonzero(np.diff(offsets))].tolist():
        quarters = np.arange(day, day + DAY + 1, 900)
        changed = _offsets(quarters, zone)
        row = int(np.flatnonzero(np.diff(changed))[0]) + 1
        starts.append(int(quarters[row]))
        shifts.append(int(changed[row]))
    segments, shown = [], None
    for start, end, shift in zip(starts, [*starts[1:], int(days[-1])], shifts):
        fresh = start if shown is None else max(start, shown - shift)
        segments.append((start, end, shift, min(fresh, end)))
        shown = end + shift if shown is None else max(shown, end + shift)
    return segments


def _offsets(utc: np.ndarray, zone: ZoneInfo) -> np.ndarray:
    moments = (datetime.fromtimestamp(second, zone) for second in utc.tolist())
    return np.fromiter((moment.utcoffset().total_seconds() for moment in moments), np.float64, len(utc)).astype(int)


def local_slots(utc: np.ndarray, shape: WeekShape) -> np.ndarray:
    """Slot of each time, counted in local time from 1970; the least int64 where the clock repeats an hour."""
    slot = np.full(len(utc), np.iinfo(np.int64).min)
    for _, end, shift, fresh in clock_segments(utc, shape.timezone):
        rows = (utc >= fresh) & (utc < end)
        slot[rows] = (utc[rows] + shift) // shape.interval
    return slot


# The three kinds


def from_visits(
    person: np.ndarray,
    utc: np.ndarray,
    cell: np.ndarray,
    *,
    duration: np.ndarray | None,
    max_stay: int,
    shape: WeekShape,
) -> Sparse:
    """Stays: from each arrival to the next of the same person, at most `max_stay` seconds, or for `duration` seconds
    where it is known; the weight of a slot is its seconds."""
    order = np.lexsort((np.arange(len(utc)), utc, person))
    person, utc, cell = person[order], utc[order], cell[order]
    follows = np.append(person[1:] == person[:-1], False)
    after = np.where(follows, np.append(utc[1:], 0), np.iinfo(np.int64).max)
    stay = np.full(len(utc), max_stay, np.int64)
    if duration is not None:
        seconds = duration[order]
        stay = np.where(np.isnan(seconds), stay, np.nan_to_num(seconds).astype(np.int64))
    # One second at least: a visit without length still says where somebody was.
    end = np.maximum(np.minimum(utc + stay, after), utc + 1)
    parts = []
    for start, stop, shift, fresh in clock_segments(np.concatenate([utc, end]), shape.timezone):
        begin, finish = np.maximum(utc, max(start, fresh)) + shift, np.minimum(end, stop) + shift
        rows = np.flatnonzero(finish > begin)
        parts.append(_slots_of(person[rows], begin[rows], finish[rows], cell[rows], shape.interval))
    return Sparse(*(np.concatenate(values) for values in zip(*parts)))


def _slots_of(
    person: np.ndarray, begin: np.ndarray, finish: np.ndarray, cell: np.ndarray, interval: int
) -> tuple[np.ndarray, ...]:
    first, last = begin // interval, (finish - 1) // interval
    count = last - first + 1
    row = np.repeat(np.arange(len(begin)), count)
    slot = first[row] + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    start, stop = slot * interval, (slot + 1) * interval
    seconds = np.minimum(finish[row], stop) - np.maximum(begin[row], start)
    return person[row], slot, cell[row], seconds, begin[row]


def from_points(person: np.ndarray, utc: np.ndarray, cell: np.ndarray, *, shape: WeekShape) -> tuple[Sparse, int]:
    """Records: each speaks for its own slot with weight 1; and how many fell into a repeated hour."""
    slot = local_slots(utc, shape)
    rows = slot > np.iinfo(np.int64).min
    sparse = Sparse(person[rows], slot[rows], cell[rows], np.ones(int(rows.sum()), np.int64), utc[rows])
    return sparse, int((~rows).sum())


def to_matrix(sparse: Sparse, shape: WeekShape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dense windows of a result of `majority`: cells (N, L) int32, person (N,), start (N,) datetime64[D]."""
    week = (sparse.slot - FIRST_MONDAY // shape.interval) // shape.num_slots
    new = _changes(sparse.person, week)
    row = np.cumsum(new) - 1
    cells = np.full((int(new.sum()), shape.num_slots), -1, np.int32)
    position = sparse.slot - FIRST_MONDAY // shape.interval - week * shape.num_slots
    cells[row, position] = np.maximum(sparse.cell, -1)
    days = np.datetime64("1970-01-05", "D") + week[new] * shape.days
    return cells, sparse.person[new], days


def _changes(*keys: np.ndarray) -> np.ndarray:
    """Where a row differs from the one before it in any key."""
    new = np.zeros(len(keys[0]), bool)
    new[:1] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return new
