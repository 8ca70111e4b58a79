"""Trips and presence of two sets of weeks: how much of the flows between cells and of the hourly population agree.

Trips are steps between different cells. Steps and hours that are unknown (-1) are not counted. Most measures compare
counts, so the sets must be of one size.
"""

from __future__ import annotations

import numpy as np

from ..tokenization.errors import DataError
from .fidelity_metrics import MeasuredWeeks


def cpc(real: MeasuredWeeks, generated: MeasuredWeeks) -> float:
    """Common part of commuters: twice the shared trips over all trips, 0..1, higher is better; NaN if nobody moves.

    Trips are steps between different cells, counted by origin and destination over all hours.
    """
    _same_size(real, generated, "CPC")
    return _common_part(*(_counts(_trips(x)) for x in (real, generated)))


def hourly_cpc(real: MeasuredWeeks, generated: MeasuredWeeks, *, slots_per_day: int) -> float:
    """`cpc` of trips counted by the slot of the day in which they begin as well: does the right flow run at the right
    hour?
    """
    _same_size(real, generated, "CPC by hour")
    return _common_part(*(_counts(_trips(x, slots_per_day=slots_per_day)) for x in (real, generated)))


def od_correlation(real: MeasuredWeeks, generated: MeasuredWeeks) -> float:
    """Pearson correlation of the trips of both sets over the pairs of cells that one of them has; NaN for under two
    pairs or equal counts everywhere.
    """
    counts = [_counts(_trips(x)) for x in (real, generated)]
    keys = np.union1d(counts[0][0], counts[1][0])
    a, b = (_lookup(*some, keys).astype(np.float64) for some in counts)
    if len(keys) < 2 or not a.std() or not b.std():
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def population_tv(real: MeasuredWeeks, generated: MeasuredWeeks) -> float:
    """Mean over the hours of the week of the total variation, 0..1, between the shares of users in each cell.

    Hours that a set does not know are left out.
    """
    shares = []
    for weeks in (real, generated):
        present = np.bincount(_presence(weeks), minlength=weeks.cells.shape[1] * len(weeks.lat))
        by_hour = present.reshape(weeks.cells.shape[1], len(weeks.lat))
        with np.errstate(invalid="ignore"):
            shares.append(by_hour / by_hour.sum(axis=1, keepdims=True))
    distance = np.abs(shares[0] - shares[1]).sum(axis=1) / 2
    known = np.isfinite(distance)
    return float(distance[known].mean()) if known.any() else float("nan")


def od_mape(real: MeasuredWeeks, generated: MeasuredWeeks) -> float:
    """Mean over hours of the mean |g - r| / r over the pairs of cells (stays included) that real weeks have then."""
    _same_size(real, generated, "OD-MAPE")
    squared = len(real.lat) ** 2
    return _mape(_counts(_steps(real)), _counts(_steps(generated)), squared)


def population_mape(real: MeasuredWeeks, generated: MeasuredWeeks) -> float:
    """Mean over hours of the mean |g - r| / r over the cells in which real weeks are then."""
    _same_size(real, generated, "Population-MAPE")
    return _mape(_counts(_presence(real)), _counts(_presence(generated)), len(real.lat))


def _same_size(real: MeasuredWeeks, generated: MeasuredWeeks, what: str) -> None:
    if len(real) != len(generated):
        raise DataError(
            f"{what} compares counts and needs as many generated weeks as real ones, not {len(generated)} and "
            f"{len(real)}; generate {len(real)}, or let subsample=True cut the larger set."
        )


def _trips(weeks: MeasuredWeeks, *, slots_per_day: int = 1) -> np.ndarray:
    """Key (slot of the day, origin, destination) of every known move; by default of one slot for all."""
    before, after, count = weeks.cells[:, :-1].astype(np.int64), weeks.cells[:, 1:], len(weeks.lat)
    moved = (before >= 0) & (after >= 0) & (before != after)
    slot = np.arange(before.shape[1]) % slots_per_day
    return ((slot * count + before) * count + after)[moved]


def _common_part(real: tuple[np.ndarray, np.ndarray], generated: tuple[np.ndarray, np.ndarray]) -> float:
    (others, r), (keys, g) = real, generated
    total = g.sum() + r.sum()
    return float(2 * np.minimum(g, _lookup(others, r, keys)).sum() / total) if total else float("nan")


def _steps(weeks: MeasuredWeeks) -> np.ndarray:
    """Key (hour, origin, destination) of every known step."""
    cells, count = weeks.cells.astype(np.int64), len(weeks.lat)
    known = (cells[:, :-1] >= 0) & (cells[:, 1:] >= 0)
    hour = np.arange(cells.shape[1] - 1)
    return ((hour * count + cells[:, :-1]) * count + cells[:, 1:])[known]


def _presence(weeks: MeasuredWeeks) -> np.ndarray:
    """Key (hour, cell) of every known hour."""
    return (np.arange(weeks.cells.shape[1]) * len(weeks.lat) + weeks.cells.astype(np.int64))[weeks.cells >= 0]


def _counts(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.unique(keys, return_counts=True)


def _lookup(keys: np.ndarray, counts: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Counts of the wanted keys, 0 where absent; `keys` ascending."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, counts[at], 0)


def _mape(real: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], keys_per_hour: int) -> float:
    keys, r = real
    if not len(keys):
        return float("nan")
    error = np.abs(_lookup(*other, keys) - r) / r
    hour = np.unique(keys // keys_per_hour, return_inverse=True)[1]
    return float((np.bincount(hour, error) / np.bincount(hour)).mean())
