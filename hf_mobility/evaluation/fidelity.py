"""Fidelity of generated weeks: one set compared with another.

A week is a row of cell ids, one per hour, -1 = unknown. A divergence between two finite sets is never 0: compare it
with that of a sample of real weeks (`fidelity_report`). What was copied from the training weeks is counted as well,
because copying is the surest way to score well.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.week_arrays import check_weeks
from .fidelity_flows import cpc, hourly_cpc, od_correlation, od_mape, population_mape, population_tv
from .fidelity_metrics import (
    CLEAN_RADIUS_BINS,
    DISTANCE_BINS,
    SIX,
    Form,
    MeasuredWeeks,
    SixTables,
)
from .fidelity_movement import copied_share, movement, nearest_overlap
from .motifs import motif_tv

OVERLAP_WEEKS = 1000  # generated weeks compared with all training weeks


def fidelity(
    real: Any,
    generated: Any,
    *,
    lat: Any,
    lon: Any,
    form: Form = "clean",
    radius_bins: int | None = None,
    slots_per_day: int = 24,
    train: Any = None,
    subsample: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
) -> dict[str, float]:
    """Compare generated weeks with real ones (M-STAR specification, section 5).

    Args:
        real, generated: integer (N, L), cell ids below C, -1 = unknown hour. Column 0 begins at midnight.
        lat, lon: (C,) degrees, centres of the cells.
        form: "clean", or "reference" as the authors' code computes the six JSDs, with its faults (see
            fidelity_metrics).
        radius_bins: bins of the clean radius histogram, default 100. 10,000, as in the reference form, leave about one
            week a bin: between two real samples of 2,500 days that JSD is 0.38, and it swamps the mean of six.
        slots_per_day: columns per day.
        train: integer (M, L) training weeks; adds the copying numbers.
        subsample: where the sets differ in size, cut the larger one (without replacement, by `seed`) instead of
            raising.
        bootstrap: number of resamplings of the weeks of both sets for an interval of `mean6`; 0 leaves it out.
        seed: of every draw.

    Returns:
        n: weeks compared.
        displacement, radius, duration, periodicity, g_rank, i_rank: JSD in nats, 0 is best. Km per step with stays;
            mean distance from the week's middle; hours per stay; distinct cells per week; shares of hours of the 100
            commonest cells by rank; the same of each week's 10 commonest cells, averaged.
        mean6: their mean; compare only means with the same form and radius_bins.
        mean6_low, mean6_high: 95 % interval, with `bootstrap`. The bootstrap draws are centred on the estimate, because
            resampling itself adds to a JSD; the estimate's own excess over 0 is what the noise row shows. Weeks of one
            person are resampled apart, so the interval is too narrow where people have several weeks.
        cpc: common part of commuters, 0..1, 1 is best. hourly_cpc: of trips by hour of the day. od_correlation: of the
            trips by origin and destination, Pearson.
        od_mape, population_mape: relative error of hourly counts, 0 is best. population_tv: total variation of the
            shares of cells, mean over hours.
        jump_length: JSD of displacement without stays. radius_rms: JSD of the root-mean-square radius (radius of
            gyration).
        locations_per_day: JSD of distinct cells per day. visit_rank: JSD of visits per cell by rank (Zipf).
        motifs: JSD of the daily motifs, as graphs. motif_tv: total variation of the daily motifs, as sequences.
        stay_rate: mean over hours of the absolute difference in the share that stays.
        moves_per_day: of the generated weeks; no distance. Compare it with the real weeks' own.
        copied, copied_moving: share of the generated weeks (those with a move) equal to a training week, gaps and all.
            With `train`.
        overlap, overlap_p95: mean and 95th percentile, over at most 1,000 generated weeks, of the largest share of
            hours equal to one training week. Not a guarantee of privacy; compare with real held-out weeks. With
            `train`.
        A value is NaN where a set has nothing to count (nobody moves; every hour unknown).

    Weeks are compared as they are: where real weeks have unknown hours and generated ones have none, hide the same
    hours first (`hide_hours`).

    Raises:
        DataError: faulty weeks or coordinates, weeks of different lengths, sets of different sizes without `subsample`.
        ValueError: unknown form, or radius_bins given for the reference form.
    """
    if form not in ("clean", "reference"):
        raise ValueError(f"Unknown form {form!r}; use 'clean' or 'reference'.")
    if form == "reference" and radius_bins is not None:
        raise ValueError(
            f"The reference form fixes {DISTANCE_BINS} radius bins; leave radius_bins out or use the clean form."
        )
    bins = CLEAN_RADIUS_BINS if radius_bins is None else radius_bins
    if bins < 1:
        raise ValueError(f"radius_bins must be at least 1, not {bins}.")
    a = MeasuredWeeks.of(real, lat=lat, lon=lon, name="real")
    b = MeasuredWeeks.of(generated, lat=lat, lon=lon, name="generated", length=a.cells.shape[1])
    if subsample and len(a) != len(b):
        size, rng = min(len(a), len(b)), np.random.default_rng(seed)
        a, b = (
            MeasuredWeeks(x.cells[draw_rows(len(x), size, rng)], x.lat, x.lon) if len(x) > size else x for x in (a, b)
        )

    tables = SixTables(a, b, form=form, radius_bins=bins)
    six = {name: float(value[0]) for name, value in tables.jsd().items()}
    out = {"n": len(b), **six, "mean6": float(np.mean([six[name] for name in SIX]))}
    if bootstrap:
        out["mean6_low"], out["mean6_high"] = _interval(tables, len(a), len(b), out["mean6"], bootstrap, seed)
    flows = (cpc, od_correlation, od_mape, population_mape, population_tv)
    out |= {measure.__name__: measure(a, b) for measure in flows}
    out["hourly_cpc"] = hourly_cpc(a, b, slots_per_day=slots_per_day)
    out |= movement(a, b, slots_per_day=slots_per_day, radius_bins=bins)
    out["motif_tv"] = motif_tv(a.cells, b.cells, slots_per_day=slots_per_day)
    if train is not None:
        known = check_weeks(train, name="train", num_cells=len(a.lat), length=a.cells.shape[1])
        out |= copying(b.cells, known, seed=seed)
    return out


def hide_hours(cells: Any, like: Any) -> np.ndarray:
    """A copy of the weeks `cells` (N, L) in which the hours that row i of `like` does not know are unknown (-1).

    Where `like` has another number of rows it is repeated or cut.
    """
    cells, like = np.asarray(cells), np.asarray(like)
    rows = np.arange(len(cells)) % len(like)
    return np.where(like[rows] < 0, -1, cells)


def draw_rows(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """`size` of `count` rows without replacement, ascending."""
    return np.sort(rng.choice(count, size, replace=False))


def _interval(tables: SixTables, n: int, m: int, estimate: float, bootstrap: int, seed: int) -> tuple[float, float]:
    """95 % interval of mean6 from resampled weeks, the draws shifted so that their mean is the estimate."""
    rng = np.random.default_rng(seed)
    weights = (rng.multinomial(size, np.full(size, 1 / size), size=bootstrap).astype(np.float64) for size in (n, m))
    values = tables.jsd(*weights)
    mean6 = np.mean([values[name] for name in SIX], axis=0)
    low, high = np.percentile(mean6 - mean6.mean() + estimate, (2.5, 97.5))
    return max(float(low), 0.0), float(high)


def copying(generated: np.ndarray, train: np.ndarray, *, seed: int) -> dict[str, float]:
    """The copying measures of `fidelity`."""
    sample = generated
    if len(generated) > OVERLAP_WEEKS:
        sample = generated[draw_rows(len(generated), OVERLAP_WEEKS, np.random.default_rng(seed))]
    overlap = nearest_overlap(sample, train)
    overlap = overlap[np.isfinite(overlap)]
    return {
        "copied": copied_share(generated, train),
        "copied_moving": copied_share(generated, train, moving=True),
        "overlap": float(overlap.mean()) if len(overlap) else float("nan"),
        "overlap_p95": float(np.percentile(overlap, 95)) if len(overlap) else float("nan"),
    }
