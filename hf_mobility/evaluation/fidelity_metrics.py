"""The six Jensen-Shannon divergences of M-STAR between two sets of weeks.

Every JSD exists in two forms. "reference" reproduces the histograms of the authors' code, which silently drop the top
bin and every generated value above the largest real one, so that a generator that travels too far is not punished for
it. "clean" keeps all values (an overflow bin, integer counts, all runs). Steps and runs that touch an unknown hour
(-1) are not counted. JSDs are in nats, 0 to ln 2; NaN where one of the sets has no value at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import rel_entr

from ..data.week_arrays import PlaceHours, check_weeks, place_hours
from ..tokenization.errors import DataError
from ..tokenization.grid import EARTH_RADIUS_KM, haversine_km, unwrapped

Form = Literal["clean", "reference"]
SIX = ("displacement", "radius", "duration", "periodicity", "g_rank", "i_rank")

DISTANCE_BINS = 10_000
CLEAN_RADIUS_BINS = 100  # 10,000 bins hold one week each: their JSD is sampling noise (0.38 for real against real)
G_RANKS, I_RANKS = 100, 10
_RADIUS_RATIO = 6371.0 / EARTH_RADIUS_KM  # the reference takes a round Earth radius


class Items(NamedTuple):
    """Values that weeks contribute to a histogram; three aligned arrays: row of the week, value, how often."""

    owner: np.ndarray
    value: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True, eq=False)
class MeasuredWeeks:
    """A checked set of weeks with the coordinates of its cells, and what several measures need of it, computed once.

    Fields:
        cells: int32 (N, L), -1 = unknown hour.
        lat, lon: float64 (C,), degrees, centres of the cells; longitudes without the jump at 180 degrees.
    """

    cells: np.ndarray
    lat: np.ndarray
    lon: np.ndarray

    @classmethod
    def of(cls, cells: Any, *, lat: Any, lon: Any, name: str = "cells", length: int | None = None) -> MeasuredWeeks:
        """Check and wrap.

        Raises:
            DataError: see `check_weeks`; or lat and lon are no two aligned axes of degrees.
        """
        lat, lon = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
        if lat.ndim != 1 or lat.shape != lon.shape or not len(lat):
            raise DataError(
                f"lat has shape {lat.shape} and lon {lon.shape}; give the centre of every cell, two arrays (C,)."
            )
        wrong = np.flatnonzero(~(np.abs(lat) <= 90) | ~(np.abs(lon) <= 180))
        if len(wrong):
            raise DataError(f"lat or lon of {len(wrong)} cells is no degree (first cells: {wrong[:5].tolist()}).")
        return cls(check_weeks(cells, name=name, num_cells=len(lat), length=length), lat, unwrapped(lon))

    def __len__(self) -> int:
        return len(self.cells)

    @cached_property
    def places(self) -> PlaceHours:
        return place_hours(self.cells)

    @cached_property
    def displacement(self) -> Items:
        """Great-circle km of every known step, rounded to metres; the stays of a week (0 km) are one weighted item."""
        before, after = self.cells[:, :-1], self.cells[:, 1:]
        known = (before >= 0) & (after >= 0)
        moved = known & (before != after)
        owner = np.nonzero(moved)[0]
        a, b = before[moved], after[moved]
        km = haversine_km(self.lat[a], self.lon[a], self.lat[b], self.lon[b]) * _RADIUS_RATIO
        stays = known.sum(axis=1) - moved.sum(axis=1)
        rows = np.flatnonzero(stays)
        return Items(
            np.concatenate([owner, rows]),
            np.concatenate([km.round(3), np.zeros(len(rows))]),
            np.concatenate([np.ones(len(owner)), stays[rows]]),
        )

    def radius(self, *, rms: bool = False, in_metres: bool = False) -> Items:
        """Mean (or root mean square) km of the known hours of each week to their mean latitude and longitude.

        With `in_metres` (the reference) each distance is rounded to metres first.
        """
        owner, cell, hours = self.places
        total = np.bincount(owner, hours, minlength=len(self))
        with np.errstate(invalid="ignore"):  # weeks without a known hour
            middle_lat = np.bincount(owner, hours * self.lat[cell], minlength=len(self)) / total
            middle_lon = np.bincount(owner, hours * self.lon[cell], minlength=len(self)) / total
        km = haversine_km(self.lat[cell], self.lon[cell], middle_lat[owner], middle_lon[owner]) * _RADIUS_RATIO
        km = km.round(3) if in_metres else km
        rows = np.flatnonzero(total)
        mean = np.bincount(owner, hours * (km**2 if rms else km), minlength=len(self))[rows] / total[rows]
        return Items(rows, np.sqrt(mean) if rms else mean, np.ones(len(rows)))

    def runs(self, *, drop_last: bool = False) -> tuple[Items, np.ndarray]:
        """Lengths in hours of the runs of one cell that touch no unknown hour, and the cell of each run.

        With `drop_last` (the reference) the run that reaches the end of its week is left out.
        """
        starts = np.ones(self.cells.shape, dtype=bool)
        starts[:, 1:] = self.cells[:, 1:] != self.cells[:, :-1]
        at = np.flatnonzero(starts)
        cell, owner = self.cells.ravel()[at], at // self.cells.shape[1]
        hours = np.diff(np.append(at, self.cells.size))
        same_week = owner[1:] == owner[:-1]
        keep = cell >= 0
        keep[1:] &= ~(same_week & (cell[:-1] < 0))
        keep[:-1] &= ~(same_week & (cell[1:] < 0))
        if drop_last:
            keep &= np.append(same_week, False)
        return Items(owner[keep], hours[keep], np.ones(int(keep.sum()))), cell[keep]

    def distinct(self) -> Items:
        """Number of distinct known cells of each week that has one."""
        rows, count = np.unique(self.places.owner, return_counts=True)
        return Items(rows, count, np.ones(len(rows)))

    def individual_ranks(self) -> np.ndarray:
        """Shares of its known hours that each week spends in its ten commonest cells, descending; float64 (N, 10)."""
        owner, _, hours = self.places
        order = np.lexsort((-hours, owner))
        owner, hours = owner[order], hours[order]
        rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
        out = np.zeros((len(self), I_RANKS))
        top = rank < I_RANKS
        total = np.bincount(owner, hours, minlength=len(self))
        out[owner[top], rank[top]] = hours[top] / total[owner[top]]
        return out


def jsd(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in nats of counts p and q (..., K); NaN where one of them is all zero or empty."""
    with np.errstate(invalid="ignore", divide="ignore"):
        p, q = (np.asarray(x) / np.sum(x, axis=-1, keepdims=True) for x in (p, q))
    middle = (p + q) / 2
    divergence = np.maximum((rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=-1) / 2, 0.0)
    return divergence if np.shape(p)[-1] else np.full_like(divergence, np.nan)


def histogram_bins(
    real: np.ndarray, values: np.ndarray, *, bins: int, top: float, form: Form
) -> tuple[np.ndarray, np.ndarray, int]:
    """Bin of every real and other value on [0, top], -1 = dropped, and the number of bins.

    clean: `bins` equal bins, the last one closed, and one more for what lies above `top`.
    reference: `bins` edges from a half-open range, hence `bins` - 1 bins; all above the last edge is dropped.
    """
    last = bins - 1 if form == "clean" else bins - 2
    edges = np.linspace(0.0, top, bins + 1) if form == "clean" else np.asarray(np.arange(bins) * (top / bins))

    def place(value: np.ndarray) -> np.ndarray:
        index = np.searchsorted(edges, value, side="right") - 1
        index = np.where(value == edges[-1], last, index)
        return np.where(value > edges[-1], -1 if form == "reference" else bins, index)

    return place(real), place(values), last + 1 + (form == "clean")


def pair_jsd(real: Items, other: Items, *, bins: int, top: float, form: Form = "clean") -> float:
    """JSD of the histograms of two sets of values on [0, top]."""
    a, b, count = histogram_bins(real.value, other.value, bins=bins, top=top, form=form)
    p, q = (np.bincount(i[i >= 0], x.weight[i >= 0], minlength=count) for i, x in ((a, real), (b, other)))
    return float(jsd(p, q))


def largest(items: Items) -> float:
    """The largest value, 0 if there is none: the upper end of a histogram."""
    return float(items.value.max(initial=0.0))


class SixTables:
    """The counts behind the six JSDs, one row per week, so that any weighting of the weeks is a matrix product.

    Args:
        real, generated: sets of weeks; histogram edges follow the real one.
        form: of all six.
        radius_bins: of the radius histogram in the clean form; the reference has 10,000 on [0, (largest radius)^2].
    """

    def __init__(self, real: MeasuredWeeks, generated: MeasuredWeeks, *, form: Form, radius_bins: int) -> None:
        clean, hours = form == "clean", real.cells.shape[1]
        step = largest(real.displacement)
        a, b = (x.radius(in_metres=not clean) for x in (real, generated))
        edge = largest(a)
        self.tables = {
            "displacement": self._binned(
                real, generated, real.displacement, generated.displacement, DISTANCE_BINS, step, form
            ),
            "radius": self._binned(
                real, generated, a, b, radius_bins if clean else DISTANCE_BINS, edge if clean else edge**2, form
            ),
        }
        a, b = (x.runs(drop_last=not clean)[0] for x in (real, generated))
        for name, (x, y) in {"duration": (a, b), "periodicity": (real.distinct(), generated.distinct())}.items():
            if clean:
                self.tables[name] = tuple(_table(w, i, i.value, hours + 1) for w, i in ((real, x), (generated, y)))
            else:
                x, y = (Items(i.owner, i.value / hours, i.weight) for i in (x, y))
                self.tables[name] = self._binned(real, generated, x, y, hours, largest(x), form)
        self.tables["g_rank"] = tuple(
            _table(w, Items(w.places.owner, w.places.cell, w.places.hours), w.places.cell, len(w.lat))
            for w in (real, generated)
        )
        self.tables["i_rank"] = tuple(sparse.csr_array(w.individual_ranks()) for w in (real, generated))

    @staticmethod
    def _binned(
        real: MeasuredWeeks, other: MeasuredWeeks, x: Items, y: Items, bins: int, top: float, form: Form
    ) -> tuple[Any, Any]:
        a, b, count = histogram_bins(x.value, y.value, bins=bins, top=top, form=form)
        return _table(real, x, a, count), _table(other, y, b, count)

    def jsd(self, weights: np.ndarray | None = None, other_weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The six values (B,) for weights (B, N) of the real and (B, M) of the generated weeks; without, B = 1."""
        out = {}
        for name, (a, b) in self.tables.items():
            p, q = _weighted(a, weights), _weighted(b, other_weights)
            if name == "g_rank":
                p, q = (-np.sort(-x / x.sum(axis=-1, keepdims=True).clip(1e-300), axis=-1)[:, :G_RANKS] for x in (p, q))
            out[name] = jsd(p, q)
        return out


def _table(weeks: MeasuredWeeks, items: Items, column: np.ndarray, columns: int) -> sparse.csr_array:
    keep = column >= 0
    return sparse.csr_array(
        (items.weight[keep].astype(np.float64), (items.owner[keep], column[keep])), shape=(len(weeks), columns)
    )


def _weighted(table: sparse.csr_array, weights: np.ndarray | None) -> np.ndarray:
    if weights is None:
        return np.asarray(table.sum(axis=0), dtype=np.float64).reshape(1, -1)
    return np.asarray((table.T @ weights.T).T)
