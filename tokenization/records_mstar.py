"""Frames of visits, points or hours -> weeks of M-STAR: columns are read, checked and joined with the grid here.

Never imports pandas: frames are read by their columns, so a pandas frame, an Arrow table, a `datasets.Dataset`, a dict
of lists and a list of dicts all work.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np

from .grid_mstar import SHOWN
from .records_samoe import column, has_column, utc_seconds
from .weeks_mstar import OUTSIDE, Weeks, WeekShape, from_points, from_visits, to_matrix

KINDS = ("auto", "visits", "points", "weeks")
NAMES = (
    "user_id", "time", "lat", "lon", "cell", "location_id", "category", "duration", "slot", "start", "trajectory_id",
)  # fmt: skip
_CELL_NAME = re.compile(r"r(\d+)c(\d+)")
Locate = Callable[[Any, dict[str, str]], np.ndarray]


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
            raise ValueError(
                f"{outside} of {report['rows']} rows lie outside the grid, so no week is known: use a tokenizer of "
                "these records' city (MstarTokenizer.from_visits)."
            )
        raise ValueError(
            f"none of the {len(cells)} weeks has {needed} of its {shape.num_slots} hours known (the best has "
            f"{int(known.max(initial=0))}): lower min_known, or raise max_stay_hours or fill_hours."
        )
    return Weeks(cells[kept], users[kept], start[kept], report)


def _check_options(max_stay_hours: float, fill_hours: float, min_known: float) -> None:
    if not max_stay_hours > 0 or fill_hours < 0 or not 0 <= min_known <= 1:
        raise ValueError(
            "max_stay_hours must be positive, fill_hours at least 0 and min_known a share in 0..1, got "
            f"{max_stay_hours}, {fill_hours} and {min_known}."
        )


def _column_names(names: dict[str, str]) -> dict[str, str]:
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise ValueError(f"unknown argument(s) {unknown}; columns that can be named are {list(NAMES)}.")
    return {name: names.get(name, name) for name in NAMES}


def _people(frame: Any, names: dict[str, str], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted user ids and each row's index into them; one person 0 where there is no such column."""
    if not has_column(frame, names["user_id"]):
        return np.zeros(1, np.int64), np.zeros(rows, np.int64)
    ids = np.asarray(column(frame, names["user_id"]))
    missing = np.flatnonzero(ids != ids) if ids.dtype.kind == "f" else _missing(ids)
    if len(missing):
        raise ValueError(
            f"column {names['user_id']!r}: {len(missing)} of {len(ids)} rows name nobody (first rows "
            f"{missing[:SHOWN].tolist()}); drop these rows or give them an id."
        )
    try:
        users, person = np.unique(ids, return_inverse=True)
    except TypeError as error:
        raise ValueError(f"column {names['user_id']!r} mixes types; ids are all integers or all strings.") from error
    return users, person.reshape(-1)


def _missing(ids: np.ndarray) -> np.ndarray:
    if ids.dtype.kind != "O":
        return np.zeros(0, np.int64)
    return np.flatnonzero([value is None or (isinstance(value, float) and value != value) for value in ids.tolist()])


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
    if len(utc) == 0:
        raise ValueError("there are no records to cut into weeks: the frame is empty.")
    users, person = _people(frame, names, len(utc))
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
    given = np.asarray(column(frame, names["slot"]))
    if len(given) == 0:
        raise ValueError("there are no hours to make weeks of: the frame is empty.")
    slot = given.astype(np.int64)
    strange = np.flatnonzero((slot != given.astype(np.float64)) | (slot < 0) | (slot >= shape.num_slots))
    if len(strange):
        raise ValueError(
            f"column {names['slot']!r}: {len(strange)} of {len(slot)} values are no slot 0..{shape.num_slots - 1} "
            f"(first rows {strange[:SHOWN].tolist()}); the tokenizer's windows have {shape.num_slots} slots."
        )
    days = np.full(len(slot), np.datetime64("NaT"), "datetime64[D]")
    if has_column(frame, names["start"]):
        days = local_dates(column(frame, names["start"]))
    if has_column(frame, names["trajectory_id"]):
        ids, group = np.unique(np.asarray(column(frame, names["trajectory_id"])), return_inverse=True)
        if has_column(frame, names["user_id"]):
            ids = np.asarray(column(frame, names["user_id"]))[np.unique(group, return_index=True)[1]]
    else:
        ids, person = _people(frame, names, len(slot))
        code, group = np.unique(np.stack([person, days.astype(np.int64)]), axis=1, return_inverse=True)
        ids = ids[code[0]]
    group = group.reshape(-1)
    _check_hours_once(group, slot, ids, names, shape.num_slots)
    cell = locate(frame, names)
    cells = np.full((len(ids), shape.num_slots), -1, np.int32)
    cells[group, slot] = np.maximum(cell, -1)
    start = days[np.unique(group, return_index=True)[1]]
    report = {"kind": "weeks", "rows": len(slot), "users": len(np.unique(ids)), "hours_filled": 0}
    report["rows_outside"] = int((cell == OUTSIDE).sum())
    order = np.lexsort((start, np.unique(ids, return_inverse=True)[1].reshape(-1)))
    return cells[order], ids[order], start[order], report


def _check_hours_once(group: np.ndarray, slot: np.ndarray, ids: np.ndarray, names: dict[str, str], slots: int) -> None:
    rows = np.bincount(group * slots + slot)
    twice = np.flatnonzero(rows > 1)
    if len(twice):
        week, hour = np.divmod(twice[:SHOWN], slots)
        raise ValueError(
            f"column {names['slot']!r}: {len(twice)} hours of weeks occur more than once (first ids and slots "
            f"{list(zip(ids[week].tolist(), hour.tolist()))}); keep one row an hour, and name every week in "
            f"{names['trajectory_id']!r} or give its {names['start']!r}."
        )


def local_dates(values: Any) -> np.ndarray:
    """Dates as datetime64[D], of the shape given; of an aware time the date on its own clock, not in UTC.

    Raises:
        ValueError: for text that is no ISO date, and for times of day: windows begin at midnight.
    """
    given = np.asarray(values)
    if given.dtype.kind in "OU":
        times = [_read_time(time) if isinstance(time, str) else time for time in given.ravel().tolist()]
        naive = [time.replace(tzinfo=None) if getattr(time, "tzinfo", None) else time for time in times]
        given = np.array(naive, dtype="datetime64[s]").reshape(given.shape)
    dates = given.astype("datetime64[D]")
    late = np.flatnonzero((dates != given) & ~np.isnat(dates))
    if len(late):
        raise ValueError(
            f"start: {len(late)} of {dates.size} are no dates but times of day (first {given.ravel()[late[0]]}); "
            "windows begin at midnight, so give dates."
        )
    return dates


def _read_time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"start: {text!r} is no date; write it as 2024-01-31.") from error


def kind_of(frame: Any, kind: str, names: dict[str, str]) -> str:
    """`weeks` with a column `slot`; `visits` with `location_id`, `category` or `duration`; else `points`."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}.")
    if kind != "auto":
        return kind
    if has_column(frame, names["slot"]):
        return "weeks"
    return (
        "visits"
        if any(has_column(frame, names[name]) for name in ("location_id", "category", "duration"))
        else "points"
    )


def read_times(frame: Any, name: str) -> np.ndarray:
    utc = utc_seconds(column(frame, name))
    strange = np.flatnonzero(np.abs(utc) >= 10**11)
    if len(strange):
        raise ValueError(
            f"column {name!r}: {len(strange)} of {len(utc)} values are no epoch seconds (first "
            f"{utc[strange[:SHOWN]].tolist()}); convert milliseconds or nanoseconds to seconds first."
        )
    return utc


def read_durations(frame: Any, name: str) -> np.ndarray:
    """Seconds as float64, NaN = unknown."""
    seconds = np.asarray(column(frame, name))
    seconds = seconds / np.timedelta64(1, "s") if seconds.dtype.kind == "m" else seconds.astype(np.float64)
    bad = np.flatnonzero((seconds < 0) | np.isinf(seconds))
    if len(bad):
        raise ValueError(
            f"column {name!r}: {len(bad)} of {len(seconds)} values are negative or infinite (first rows "
            f"{bad[:5].tolist()}); durations are seconds from arrival to departure, NaN where unknown."
        )
    return seconds


def parse_cells(values: Any, name: str, *, columns: int | None, num_cells: int) -> np.ndarray:
    """Cell numbers, or names `r<row>c<column>` of a grid of so many columns, as int64; -1 = unknown.

    Raises:
        ValueError: values that are neither, or cells outside 0..C-1.
    """
    given = np.asarray(values)
    if given.dtype.kind in "fiu":
        known = np.nan_to_num(given, nan=-1)
        numbers = known.astype(np.int64)
        numbers = np.where(numbers == known, numbers, num_cells)  # a part of a cell is no cell
    else:
        names, back = np.unique(given.astype(str), return_inverse=True)
        numbers = np.array([_cell_number(text, columns, num_cells) for text in names.tolist()], np.int64)[
            back.reshape(-1)
        ]
    strange = np.flatnonzero((numbers < -1) | (numbers >= num_cells))
    if len(strange):
        raise ValueError(
            f"column {name!r}: {len(strange)} of {len(numbers)} values are no cell of this grid of {num_cells} cells "
            f"(first {given[strange[:SHOWN]].tolist()}); give cells 0..{num_cells - 1}, -1 for unknown, or lat and lon."
        )
    return numbers


def _cell_number(text: str, columns: int | None, num_cells: int) -> int:
    named = _CELL_NAME.fullmatch(text)
    if named and columns:
        row, right = int(named[1]), int(named[2])
        return row * columns + right if right < columns else num_cells
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else num_cells
