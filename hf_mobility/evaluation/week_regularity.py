"""Do users behave alike from day to day? Measures within a week that averages over all users do not show.

Weeks are integer (N, 7 * slots_per_day) cells, Monday first, -1 = unknown. Each measure is a number of one set, to be
read beside that of real weeks; the noise level is that of other real users.
"""

from __future__ import annotations

import numpy as np

from .week_places import HOURS, WEEKDAYS, at_hour, days_of_week, night_home, ranked_places

DAYTIME = (9, 16)  # hours 9..15
WORKER_HOURS = 15  # of a week's 35 in one place
DAY_HOURS = 4  # in a day's place that counts as its work place
MORNING = 11
SATURDAY, EVENING = 5, 22


def regularity(cells: np.ndarray, *, slots_per_day: int = HOURS) -> dict[str, float]:
    """All measures of this module by name.

    Args:
        cells: integer (N, 7 * slots_per_day), -1 = unknown.
        slots_per_day: a multiple of 24.

    Returns:
        workers: share of users with at least 15 hours of 9-16 h, Monday to Friday, in one place that is not home.
        arrival_sd: hours; standard deviation over the weekdays of the first hour there, mean over workers.
        work_places: of a worker, mean: distinct places that hold at least four hours of 9-16 h of a weekday.
        together_again: of the pairs of users that share a cell on Monday at 11 h, those that share one on Tuesday.
        still_weekend_days: share of the Saturdays and Sundays without a move.
        saturday_away: share of users who are not at home on Saturday at 22 h.
        one_hour_stays: share of the stays, those that touch an end of the week or an unknown hour left out.
        A value is NaN where a set has nothing to count.

    Raises:
        DataError: windows that are no whole weeks.

    Example:
        >>> regularity(np.zeros((2, 168), int))["still_weekend_days"]
        1.0
    """
    home = night_home(cells, slots_per_day=slots_per_day)
    days = days_of_week(cells, slots_per_day)
    workers, arrival, places = work_rhythm(cells, home, slots_per_day=slots_per_day)
    evening = at_hour(cells, SATURDAY, EVENING, slots_per_day)
    known = (evening >= 0) & (home >= 0)
    weekend = days[:, WEEKDAYS:].reshape(-1, slots_per_day)
    weekend = weekend[(weekend >= 0).all(axis=1)]
    return {
        "workers": float(workers.mean()),
        "arrival_sd": _mean(arrival[workers]),
        "work_places": _mean(places[workers]),
        "together_again": together_again(
            at_hour(cells, 0, MORNING, slots_per_day), at_hour(cells, 1, MORNING, slots_per_day)
        ),
        "still_weekend_days": _mean((weekend == weekend[:, :1]).all(axis=1)),
        "saturday_away": _mean((evening != home)[known]),
        "one_hour_stays": _mean(stay_lengths(cells) * HOURS == slots_per_day),
    }


def work_rhythm(
    cells: np.ndarray, home: np.ndarray, *, slots_per_day: int = HOURS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three (N,) arrays: bool, is a worker; float64, standard deviation of the arrival in hours (NaN without a day at
    work); int64, number of work places. `regularity` says what these are.
    """
    per_hour = slots_per_day // HOURS
    days = days_of_week(cells, slots_per_day)[:, :WEEKDAYS]
    daytime = days[:, :, DAYTIME[0] * per_hour : DAYTIME[1] * per_hour]
    away = np.where(daytime == home[:, None, None], -1, daytime)
    work = ranked_places(away.reshape(len(cells), -1), 1)[:, 0]
    at_work = (away == work[:, None, None]) & (work >= 0)[:, None, None]
    workers = at_work.sum(axis=(1, 2)) >= WORKER_HOURS * per_hour

    there = (days == work[:, None, None]) & (work >= 0)[:, None, None]
    first = np.where(there.any(axis=2), there.argmax(axis=2) / per_hour, np.nan)
    arrival = np.full(len(cells), np.nan)
    present = np.isfinite(first).any(axis=1)
    arrival[present] = np.nanstd(first[present], axis=1)

    own = ranked_places(away.reshape(-1, away.shape[2]), 1).reshape(len(cells), WEEKDAYS)
    long = (away == own[:, :, None]).sum(axis=2) >= DAY_HOURS * per_hour
    return workers, arrival, _distinct(np.where(long, own, -1))


def together_again(before: np.ndarray, after: np.ndarray) -> float:
    """Of the pairs of rows that share a known cell in `before` (N,), the share that shares one in `after` (N,).

    Rows that are unknown in one of the two are left out.
    """
    known = (before >= 0) & (after >= 0)
    before, after = before[known].astype(np.int64), after[known].astype(np.int64)
    pairs = _pairs(before)
    return _pairs(before * (after.max(initial=0) + 1) + after) / pairs if pairs else float("nan")


def stay_lengths(cells: np.ndarray) -> np.ndarray:
    """int64: slots of every stay in one cell that touches neither an end of its week nor an unknown hour."""
    starts = np.ones(cells.shape, dtype=bool)
    starts[:, 1:] = cells[:, 1:] != cells[:, :-1]
    at = np.flatnonzero(starts)
    lengths = np.diff(np.append(at, cells.size))
    cell, column = cells.ravel()[at], at % cells.shape[1]
    unknown = cell < 0
    after = np.append(unknown[1:], False)  # a stay before the end of its week is left out anyhow
    before = np.append(False, unknown[:-1])
    whole = (column > 0) & (column + lengths < cells.shape[1])
    return lengths[whole & ~unknown & ~before & ~after]


def _pairs(keys: np.ndarray) -> float:
    """Pairs of equal keys."""
    count = np.unique(keys, return_counts=True)[1].astype(np.float64)
    return float((count * (count - 1) / 2).sum())


def _distinct(places: np.ndarray) -> np.ndarray:
    """Number of distinct known values of each row."""
    ordered = np.sort(places, axis=1)
    new = np.ones(ordered.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return (new & (ordered >= 0)).sum(axis=1)


def _mean(values: np.ndarray) -> float:
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")
