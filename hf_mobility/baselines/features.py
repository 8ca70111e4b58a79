"""Hand-made mobility features of people: the rival of every learned user embedding.

They are computed from the same regular series that RAW reads, so that both see the same. A person's home is taken to be
the cell of most night slots; what the features say about work follows from the hours away from it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..data.week_arrays import place_hours
from ..tokenization.errors import DataError
from ..tokenization.grid import SquareGrid, haversine_km, to_km
from ..tokenization.weeks import home_and_work

NIGHT_HOURS = (0, 6)
WORK_HOURS = (10, 17)  # of Monday to Friday
LEAST_WORK_DAYS, LEAST_COMMUTE_KM = 3, 1.0


def mobility_features(
    lat: Any, lon: Any, *, slots_per_day: int = 96, mask: Any = None, cell_km: float = 0.5
) -> pd.DataFrame:
    """Features of N people from their positions at regular times.

    Args:
        lat, lon: (N, T) degrees, slot 0 at a local midnight; whole days are not needed.
        slots_per_day: slots of a day.
        mask: (N, T) bool or 0/1, which slots are known; by default all. Rows without any are refused.
        cell_km: side of the cells that places are told apart by, in km.

    Returns:
        One row per person, float64: `radius_of_gyration_km` (root mean squared distance from the mean position);
        `distinct_cells`; `night_cell_share` (of the night slots, 0-6 h, those in the commonest night cell);
        `moves_per_day` (changes of cell between neighbouring known slots, per day of such pairs); `away_h00` ..
        `away_h23` (share of the slots of that hour that are not in the night cell; where nothing is known at night or
        in the hour, the person's overall share of the commonest cell takes their place).

    Raises:
        DataError: arrays of other shapes, or people without a known slot.
    """
    lat, lon, known, cells, _ = _cells(lat, lon, mask, cell_km)
    places = place_hours(cells)
    pair = known[:, 1:] & known[:, :-1]
    moved = ((cells[:, 1:] != cells[:, :-1]) & pair).sum(axis=1)
    hour = np.arange(lat.shape[1]) % slots_per_day * 24 // slots_per_day
    home, _ = home_and_work(cells, slots_per_day=slots_per_day, home_hours=NIGHT_HOURS)
    at_home = cells == home[:, None]
    night_share = _share(at_home, known & (hour < NIGHT_HOURS[1]))
    overall = _share(at_home, known)
    columns = {
        "radius_of_gyration_km": _radius_of_gyration(lat, lon, known),
        "distinct_cells": np.bincount(places.owner, minlength=len(lat)).astype(np.float64),
        "night_cell_share": np.where(np.isnan(night_share), overall, night_share),
        "moves_per_day": moved / np.maximum(pair.sum(axis=1), 1) * slots_per_day,
    }
    for h in range(24):
        share = _share(at_home, known & (hour == h))
        columns[f"away_h{h:02d}"] = 1 - np.where(np.isnan(share), overall, share)
    return pd.DataFrame(columns)


def work_features(
    lat: Any, lon: Any, *, slots_per_day: int = 96, mask: Any = None, cell_km: float = 0.5
) -> pd.DataFrame:
    """Where N people work, from positions in weeks that begin on a Monday.

    Home is the commonest cell of the nights (0-6 h), work that of Monday to Friday from 10 to 17 h.

    Args:
        lat, lon, slots_per_day, mask, cell_km: as in `mobility_features`; T is a number of whole weeks.

    Returns:
        One row per person, float64: `commutes` (1 = at work on three weekdays or more, over 1 km from home);
        `days_at_work` (weekdays with a slot at work in these hours); `log_commute_km`, log(1 + km from home to work).

    Raises:
        DataError: as `mobility_features`, and for slots that are no whole weeks.

    Example:
        >>> work_features(lat, lon, slots_per_day=96)["commutes"].mean()  # doctest: +SKIP
    """
    _, _, _, cells, grid = _cells(lat, lon, mask, cell_km)
    if cells.shape[1] % (7 * slots_per_day):
        raise DataError(f"{cells.shape[1]} slots are no whole weeks of {7 * slots_per_day}.")
    home, work = home_and_work(cells, slots_per_day=slots_per_day, home_hours=NIGHT_HOURS, work_hours=WORK_HOURS)
    day, slot = np.divmod(np.arange(cells.shape[1]), slots_per_day)
    hour = slot * 24 // slots_per_day
    working = (hour >= WORK_HOURS[0]) & (hour < WORK_HOURS[1]) & (day % 7 < 5)
    there = (cells == work[:, None]) & working
    days = there.reshape(len(cells), -1, slots_per_day).any(axis=2).sum(axis=1)
    km = haversine_km(*grid.centre(home), *grid.centre(work))
    commutes = (days >= LEAST_WORK_DAYS) & (km > LEAST_COMMUTE_KM)
    return pd.DataFrame({"commutes": commutes * 1.0, "days_at_work": days * 1.0, "log_commute_km": np.log1p(km)})


def _cells(
    lat: Any, lon: Any, mask: Any, cell_km: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, SquareGrid]:
    """Checked latitudes and longitudes, which slots are known, their cells (-1 = unknown), all (N, T), and the grid."""
    lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
    known = np.ones(lat.shape, bool) if mask is None else np.asarray(mask).astype(bool)
    if lat.ndim != 2 or lat.shape != lon.shape or lat.shape != known.shape or not lat.size:
        raise DataError(f"lat, lon and mask must be (people, slots), got {lat.shape}, {lon.shape} and {known.shape}.")
    empty = np.flatnonzero(~known.any(axis=1))
    if len(empty):
        raise DataError(
            f"{len(empty)} of {len(known)} people have no known slot (first rows {empty[:5].tolist()}); drop them."
        )
    grid = SquareGrid.around(lat[known], lon[known], cell_km=cell_km)
    cells = np.full(lat.shape, -1, np.int64)
    cells[known] = grid.cell(lat[known], lon[known])
    return lat, lon, known, cells, grid


def _share(hit: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """(N,) share of the counted slots that are hits; NaN where none counts."""
    number = counted.sum(axis=1)
    return np.where(number > 0, (hit & counted).sum(axis=1) / np.maximum(number, 1), np.nan)


def _radius_of_gyration(lat: np.ndarray, lon: np.ndarray, known: np.ndarray) -> np.ndarray:
    origin = float(lat[known].mean()), float(lon[known][0])
    east, north = (np.where(known, axis, 0.0) for axis in to_km(lat, lon, origin=origin))
    number = known.sum(axis=1)
    square = np.zeros(len(lat))
    for axis in (east, north):
        deviation = np.where(known, axis - (axis.sum(axis=1) / number)[:, None], 0.0)
        square += np.square(deviation).sum(axis=1) / number
    return np.sqrt(square)


__all__ = ["NIGHT_HOURS", "WORK_HOURS", "mobility_features", "work_features"]
