"""Records of users to weeks: one cell per hour of local clock time, -1 where nothing is known.

Three kinds of records become one sparse list of (user, hour, cell, weight); every hour takes the cell of the greatest
weight. Clock changes: an hour that occurs twice takes the first of the two; an hour that does not exist stays unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .clock import DAY_SECONDS, clock_of, local_dates
from .errors import SHOWN, DataError, listing, refuse
from .records import check_lengths, column, factorize, has_column, read_durations, read_numbers, read_times, read_users

FIRST_MONDAY = 4 * DAY_SECONDS  # 1970-01-05
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOME_HOURS = (0, 8)  # hours 0..7 of every day
WORK_HOURS = (10, 18)  # hours 10..17
WORK_DAYS = (0, 5)  # Monday to Friday
BLOCK = 8_192  # weeks at one time
OUTSIDE = -2  # somewhere outside the grid: known not to be a cell, unlike -1
KINDS = ("auto", "visits", "points", "weeks")
NAMES = (
    "user_id", "time", "lat", "lon", "cell", "location_id", "category", "duration", "slot", "start", "trajectory_id",
)  # fmt: skip
Locate = Callable[[Any, dict[str, str]], np.ndarray]


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

    Windows of whole weeks start on `first_weekday` (0 = Monday); windows of d other days on every d-th midnight,
    counted from the first such day from Monday 5 January 1970 on.
    """

    num_slots: int
    interval: int
    timezone: str
    first_weekday: int = 0

    @property
    def origin(self) -> int:
        """Start of a window, in seconds of local time from 1970."""
        return FIRST_MONDAY + self.first_weekday * DAY_SECONDS

    @property
    def days(self) -> int:
        days, rest = divmod(self.num_slots * self.interval, DAY_SECONDS)
        if rest:
            raise ValueError(
                f"{self.num_slots} slots of {self.interval // 60} minutes are no whole number of days: records with "
                "times cannot be cut into such windows."
            )
        return days

    def check_starts(self, days: np.ndarray) -> None:
        """Raise a `DataError` if windows are whole weeks and any of these days (datetime64[D]) is no first day."""
        late = days[(days.astype(np.int64) - self.origin // DAY_SECONDS) % 7 != 0]
        if len(late) and self.num_slots * self.interval % (7 * DAY_SECONDS) == 0:
            raise DataError(
                f"start must be a {WEEKDAYS[self.first_weekday]}, the weeks begin there; {len(late)} of {len(days)} "
                f"are none (first {listing(late[:SHOWN])})."
            )


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


# Places of a week


def first_hour_of_cell(cells: np.ndarray) -> np.ndarray:
    """int64 (N, L): the first hour of the row with the same cell. Where that is the hour itself, it is a first visit.

    Unknown hours count as one cell of their own: mask them out.
    """
    order = np.argsort(cells, axis=1, kind="stable")
    ordered = np.take_along_axis(cells, order, axis=1)
    starts = np.ones(ordered.shape, dtype=bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    group = np.maximum.accumulate(np.where(starts, np.arange(cells.shape[1]), 0), axis=1)
    first = np.empty_like(order)
    np.put_along_axis(first, order, np.take_along_axis(order, group, axis=1), axis=1)
    return first


def commonest_cell(cells: np.ndarray) -> np.ndarray:
    """int64 (N,): the cell with most hours of each row, on ties the one visited first; -1 where no hour is known."""
    commonest = np.full(len(cells), -1, np.int64)
    if cells.shape[1] == 0:
        return commonest
    for rows in blocks(len(cells)):
        block = cells[rows]
        first = first_hour_of_cell(block) + np.arange(len(block))[:, None] * block.shape[1]
        hours = np.bincount(first[block >= 0], minlength=block.size).reshape(block.shape)
        best = hours.argmax(axis=1)  # of equal ones the first, and hours are counted where a cell was visited first
        commonest[rows] = np.where(hours.any(axis=1), block[np.arange(len(block)), best], -1)
    return commonest


def home_and_work(
    cells: np.ndarray,
    *,
    slots_per_day: int = 24,
    first_weekday: int = 0,
    home_hours: tuple[int, int] = HOME_HOURS,
    work_hours: tuple[int, int] = WORK_HOURS,
    work_days: tuple[int, int] = WORK_DAYS,
) -> tuple[np.ndarray, np.ndarray]:
    """Home and work of each week, two int64 arrays (N,): the one definition of both.

    Home is the commonest cell of the home hours of all days, work the commonest cell of the working hours of the
    working days; on ties the cell visited first in these hours. Where those hours are unknown, home is the commonest
    cell of the week and work is home; both are -1 in a week without a known hour. Windows that are no whole weeks have
    no weekdays: there every day counts.

    Args:
        cells: (N, L) integers, -1 = unknown, column 0 at midnight.
        slots_per_day: columns per day.
        first_weekday: of column 0, 0 = Monday.
        home_hours, work_hours, work_days: hours of the day and weekdays (0 = Monday), ends excluded.
    """
    slot = np.arange(cells.shape[1])
    hour, day = slot % slots_per_day * 24 // slots_per_day, (first_weekday + slot // slots_per_day) % 7
    at_home = (hour >= home_hours[0]) & (hour < home_hours[1])
    at_work = (hour >= work_hours[0]) & (hour < work_hours[1])
    if cells.shape[1] % (7 * slots_per_day) == 0:
        at_work &= (day >= work_days[0]) & (day < work_days[1])
    home = commonest_cell(cells[:, at_home])
    home = np.where(home < 0, commonest_cell(cells), home)
    work = commonest_cell(cells[:, at_work])
    return home, np.where(work < 0, home, work)


def blocks(count: int) -> Iterator[slice]:
    """Rows 0..count-1 a block at a time, so that memory stays small."""
    for start in range(0, count, BLOCK):
        yield slice(start, start + BLOCK)


# Time


def local_slots(utc: np.ndarray, shape: WeekShape) -> np.ndarray:
    """Slot of each time, counted in local time from 1970; the least int64 where the clock repeats an hour."""
    clock = clock_of(utc, shape.timezone)
    row = np.searchsorted(clock.start, utc, side="right") - 1
    return np.where(utc >= clock.fresh[row], (utc + clock.offset[row]) // shape.interval, np.iinfo(np.int64).min)


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
    for _, stop, shift, fresh in zip(*clock_of(np.concatenate([utc, end]), shape.timezone)):
        begin, finish = np.maximum(utc, fresh) + shift, np.minimum(end, stop) + shift
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
    first = shape.origin // shape.interval
    week = (sparse.slot - first) // shape.num_slots
    new = _changes(sparse.person, week)
    row = np.cumsum(new) - 1
    cells = np.full((int(new.sum()), shape.num_slots), -1, np.int32)
    position = sparse.slot - first - week * shape.num_slots
    cells[row, position] = np.maximum(sparse.cell, -1)
    days = np.datetime64(shape.origin // DAY_SECONDS, "D") + week[new] * shape.days
    return cells, sparse.person[new], days


def _changes(*keys: np.ndarray) -> np.ndarray:
    """Where a row differs from the one before it in any key."""
    new = np.zeros(len(keys[0]), bool)
    new[:1] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return new


# Frames


def weeks_of(
    frame: Any,
    *,
    kind: str,
    names: dict[str, str],
    locate: Locate,
    shape: WeekShape,
    max_stay_hours: float,
    fill_hours: float,
    min_known: float,
) -> Weeks:
    """See `MstarTokenizer.weeks`; `locate` gives the cell of every row, -1 = unknown, -2 = outside the grid."""
    _check_options(max_stay_hours, fill_hours, min_known)
    names = _column_names(names)
    kind = kind_of(frame, kind, names)
    check_lengths(frame, (names["slot" if kind == "weeks" else "time"], *names.values()))
    if kind == "weeks":
        cells, users, start, report = _from_slots(frame, names, locate, shape)
    else:
        cells, users, start, report = _from_times(frame, kind, names, locate, shape, max_stay_hours, fill_hours)
    known = (cells >= 0).sum(axis=1)
    needed = max(1, int(np.ceil(min_known * shape.num_slots - 1e-9)))
    kept = known >= needed
    report |= {
        "weeks_found": len(cells),
        "weeks_dropped": int((~kept).sum()),
        "users_dropped": len(np.unique(users)) - len(np.unique(users[kept])),
    }
    if not kept.any():
        outside = report["rows_outside"]
        if 2 * outside > report["rows"]:
            raise DataError(
                f"{outside} of {report['rows']} rows lie outside the grid, so no week is known: use a tokenizer of "
                "these records' city (MstarTokenizer.from_visits)."
            )
        raise DataError(
            f"None of the {len(cells)} weeks has {needed} of its {shape.num_slots} hours known (the best has "
            f"{int(known.max(initial=0))}): lower min_known, or raise max_stay_hours or fill_hours."
        )
    return Weeks(cells[kept], users[kept], start[kept], report)


def _check_options(max_stay_hours: float, fill_hours: float, min_known: float) -> None:
    if not max_stay_hours > 0 or fill_hours < 0 or not 0 <= min_known <= 1:
        raise DataError(
            "max_stay_hours must be positive, fill_hours at least 0 and min_known a share in 0..1, got "
            f"{max_stay_hours}, {fill_hours} and {min_known}."
        )


def _column_names(names: dict[str, str]) -> dict[str, str]:
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise DataError(f"unknown argument(s) {unknown}; columns that can be named are {list(NAMES)}.")
    return {name: names.get(name, name) for name in NAMES}


def _from_times(
    frame: Any,
    kind: str,
    names: dict[str, str],
    locate: Locate,
    shape: WeekShape,
    max_stay_hours: float,
    fill_hours: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    utc = read_times(frame, names["time"])
    users, person = read_users(frame, names["user_id"], len(utc))
    cell = locate(frame, names)
    report = {"kind": kind, "rows": len(utc), "users": len(users), "rows_outside": int((cell == OUTSIDE).sum())}
    if kind == "visits":
        duration = read_durations(frame, names["duration"]) if has_column(frame, names["duration"]) else None
        # Somewhere unknown is no longer at the place before.
        cell = np.where(cell < 0, OUTSIDE, cell)
        max_stay = int(max_stay_hours * 3600)
        sparse = from_visits(person, utc, cell, duration=duration, max_stay=max_stay, shape=shape)
    else:
        rows = cell != -1
        sparse, report["rows_in_repeated_hours"] = from_points(person[rows], utc[rows], cell[rows], shape=shape)
    sparse, report["hours_filled"] = sparse.majority().filled(int(fill_hours * 3600) // shape.interval)
    cells, person, start = to_matrix(sparse, shape)
    return cells, users[person], start, report


def _from_slots(
    frame: Any, names: dict[str, str], locate: Locate, shape: WeekShape
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    given = read_numbers(frame, names["slot"], "slot")
    if len(given) == 0:
        raise DataError("There are no hours to make weeks of: the frame is empty.")
    slot = np.nan_to_num(given, nan=-1).astype(np.int64)
    strange = np.flatnonzero((slot != given) | (slot < 0) | (slot >= shape.num_slots))
    if len(strange):
        raise DataError(
            f"Column {names['slot']!r}: {len(strange)} of {len(slot)} values are no slot 0..{shape.num_slots - 1} "
            f"(first rows {strange[:SHOWN].tolist()}); the tokenizer's windows have {shape.num_slots} slots."
        )
    days = np.full(len(slot), np.datetime64("NaT"), "datetime64[D]")
    if has_column(frame, names["start"]):
        days = local_dates(column(frame, names["start"]))
        shape.check_starts(days[~np.isnat(days)])
    users, person = read_users(frame, names["user_id"], len(slot))
    if has_column(frame, names["trajectory_id"]):
        ids, group = factorize(column(frame, names["trajectory_id"]), names["trajectory_id"])
        first = np.unique(group, return_index=True)[1]
        for name, values in (("user_id", person), ("start", days.astype(np.int64))):
            fault = f"other than in the first row of their {names['trajectory_id']!r}"
            refuse(values != values[first][group], names[name], fault, "give every week an id of its own")
        ids = users[person[first]] if has_column(frame, names["user_id"]) else ids
    else:
        weeks = np.stack([person, days.astype(np.int64)])
        code, first, group = np.unique(weeks, axis=1, return_index=True, return_inverse=True)
        ids = users[code[0]]
    group = group.reshape(-1)
    _check_hours_once(group, slot, ids, names, shape.num_slots)
    cell = locate(frame, names)
    cells = np.full((len(ids), shape.num_slots), -1, np.int32)
    cells[group, slot] = np.maximum(cell, -1)
    start = days[first]
    report = {"kind": "weeks", "rows": len(slot), "users": len(np.unique(ids)), "hours_filled": 0}
    report["rows_outside"] = int((cell == OUTSIDE).sum())
    order = np.lexsort((start, np.unique(ids, return_inverse=True)[1].reshape(-1)))
    return cells[order], ids[order], start[order], report


def _check_hours_once(group: np.ndarray, slot: np.ndarray, ids: np.ndarray, names: dict[str, str], slots: int) -> None:
    rows = np.bincount(group * slots + slot)
    twice = np.flatnonzero(rows > 1)
    if len(twice):
        week, hour = np.divmod(twice[:SHOWN], slots)
        raise DataError(
            f"Column {names['slot']!r}: {len(twice)} hours of weeks occur more than once (first ids and slots "
            f"{list(zip(ids[week].tolist(), hour.tolist()))}); keep one row an hour, and name every week in "
            f"{names['trajectory_id']!r} or give its {names['start']!r}."
        )


def kind_of(frame: Any, kind: str, names: dict[str, str]) -> str:
    """`weeks` with a column `slot`; `visits` with `location_id`, `category` or `duration`; else `points`."""
    if kind not in KINDS:
        raise DataError(f"kind must be one of {KINDS}, got {kind!r}.")
    if kind != "auto":
        return kind
    if has_column(frame, names["slot"]):
        return "weeks"
    return (
        "visits"
        if any(has_column(frame, names[name]) for name in ("location_id", "category", "duration"))
        else "points"
    )
