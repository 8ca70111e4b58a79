"""How people move and what was copied: checks that distances and popularity do not show.

Two sets of weeks may agree in all six divergences of M-STAR and still differ in how often people move and in which
pattern they visit places within a day; or one may be a copy of the other. Unknown hours (-1) are never counted.
"""

from __future__ import annotations

import numpy as np

from ..data.week_arrays import place_hours, split_days
from .fidelity_metrics import DISTANCE_BINS, Items, MeasuredWeeks, jsd, largest, pair_jsd
from .motifs import daily_motifs

_BLOCK = 1 << 20  # comparisons at a time: the running sums stay in the processor's cache


def movement(
    real: MeasuredWeeks, generated: MeasuredWeeks, *, slots_per_day: int, radius_bins: int
) -> dict[str, float]:
    """The movement measures of `fidelity`, which documents them."""
    jumps = [_without_stays(x.displacement) for x in (real, generated)]
    radii = [x.radius(rms=True) for x in (real, generated)]
    days = [_daily_places(x, slots_per_day) for x in (real, generated)]
    return {
        "jump_length": pair_jsd(*jumps, bins=DISTANCE_BINS, top=largest(jumps[0])),
        "radius_rms": pair_jsd(*radii, bins=radius_bins, top=largest(radii[0])),
        "locations_per_day": float(jsd(*days)),
        "visit_rank": float(jsd(*(visits_by_rank(x) for x in (real, generated)))),
        "motifs": _matched_jsd(*(daily_motifs(x.cells, slots_per_day=slots_per_day) for x in (real, generated))),
        "stay_rate": _stay_rate_difference(real, generated),
        "moves_per_day": moves_per_day(generated, slots_per_day=slots_per_day),
    }


def visits_by_rank(weeks: MeasuredWeeks) -> np.ndarray:
    """Share of all visits at the most visited cell, the second, ... (Zipf's law); float64 (C,), descending.

    A visit is a run of hours in one cell, however long; `g_rank` counts hours instead.
    """
    counts = np.bincount(weeks.runs()[1], minlength=len(weeks.lat))
    return -np.sort(-counts) / max(counts.sum(), 1)


def stay_rate(weeks: MeasuredWeeks) -> np.ndarray:
    """Share of the known steps from each hour to the next that stay in the cell; float64 (L - 1,), NaN where none."""
    before, after = weeks.cells[:, :-1], weeks.cells[:, 1:]
    known = (before >= 0) & (after >= 0)
    with np.errstate(invalid="ignore"):
        return ((before == after) & known).sum(axis=0) / known.sum(axis=0)


def moves_per_day(weeks: MeasuredWeeks, *, slots_per_day: int) -> float:
    """Moves per known step, times the steps of a whole week, per day; NaN without a known step."""
    items = weeks.displacement
    if not len(items.value):
        return float("nan")
    before, after = weeks.cells[:, :-1], weeks.cells[:, 1:]
    known = (before >= 0) & (after >= 0)
    length = weeks.cells.shape[1]
    return float(((before != after) & known).sum() / known.sum() * (length - 1) * slots_per_day / length)


def copied_share(generated: np.ndarray, train: np.ndarray, *, moving: bool = False) -> float:
    """Share of the generated weeks (N, L) that equal a training week (M, L) in every hour.

    With `moving` only generated weeks with at least one move count: a week at home is no secret. NaN if there is none.
    """
    if moving:
        before, after = generated[:, :-1], generated[:, 1:]
        generated = generated[((before != after) & (before >= 0) & (after >= 0)).any(axis=1)]
    if not len(generated):
        return float("nan")
    both = np.concatenate([train, generated])
    group = np.unique(both, axis=0, return_inverse=True)[1].ravel()
    return float(np.isin(group[len(train) :], group[: len(train)]).mean())


def nearest_overlap(generated: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Largest share of its known hours in which each generated week equals one and the same training week; (N,).

    All N * M * L pairs of hours are compared, in blocks. NaN for a week without a known hour.
    """
    small = np.int16 if max(generated.max(), train.max()) < np.iinfo(np.int16).max else np.int32
    other = np.ascontiguousarray(np.where(train < 0, -2, train).T.astype(small))
    own = np.where(generated < 0, -1, generated).astype(small)
    best = np.zeros(len(own))
    rows = max(1, _BLOCK // other.shape[1])
    for low in range(0, len(own), rows):
        block = own[low : low + rows]
        equal = np.zeros((len(block), other.shape[1]), dtype=np.uint16)
        for hour, cells in enumerate(other):
            equal += block[:, hour, None] == cells
        best[low : low + rows] = equal.max(axis=1)
    with np.errstate(invalid="ignore"):
        return best / (generated >= 0).sum(axis=1)


def _without_stays(items: Items) -> Items:
    # Two cells may round to the same metre, so a jump is told by its weight of one only where it has a length.
    keep = items.value > 0
    return Items(items.owner[keep], items.value[keep], items.weight[keep])


def _daily_places(weeks: MeasuredWeeks, slots_per_day: int) -> np.ndarray:
    """Number of days with 0, 1, 2, ... distinct known cells; days without a known hour are left out."""
    days = split_days(weeks.cells, slots_per_day)
    owner = place_hours(days).owner
    return np.bincount(np.unique(owner, return_counts=True)[1], minlength=slots_per_day + 1)


def _matched_jsd(real: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    keys = np.union1d(real[0], other[0])
    p, q = np.zeros(len(keys)), np.zeros(len(keys))
    p[np.searchsorted(keys, real[0])] = real[1]
    q[np.searchsorted(keys, other[0])] = other[1]
    return float(jsd(p, q))


def _stay_rate_difference(real: MeasuredWeeks, generated: MeasuredWeeks) -> float:
    difference = np.abs(stay_rate(real) - stay_rate(generated))
    known = np.isfinite(difference)
    return float(difference[known].mean()) if known.any() else float("nan")
