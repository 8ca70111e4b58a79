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
from ..tokenization.grid import SquareGrid, to_km
from ..tokenization.weeks import home_and_work

NIGHT_HOURS = (0, 6)


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


__all__ = ["NIGHT_HOURS", "mobility_features"]
