"""Fidelity of generated weeks: the table that shows generators beside the noise level and the baselines.

A week is a row of cell ids, one per hour, -1 = unknown. A divergence between two finite sets is never 0, so the first
row of the table is what a sample of real training weeks reaches. The table also counts what was copied from the
training weeks, because copying is the surest way to score well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ..data.week_arrays import check_weeks
from ..tokenization.errors import DataError
from .fidelity_metrics import (
    CLEAN_RADIUS_BINS,
    DISTANCE_BINS,
    SIX,
    Form,
    MeasuredWeeks,
    SixTables,
    cpc,
    od_mape,
    population_mape,
)
from .fidelity_movement import copied_share, movement, nearest_overlap
from .report import order_rows

NOISE, REAL = "train sample", "real itself"
GENERATOR_BASELINES = (NOISE, REAL, "ResampledWeeks", "HourlyMarkov", "ExplorationReturn", "HourlyTransformer")
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
        cpc: common part of commuters, 0..1, 1 is best.
        od_mape, population_mape: relative error of hourly counts, 0 is best.
        jump_length: JSD of displacement without stays. radius_rms: JSD of the root-mean-square radius (radius of
            gyration).
        locations_per_day: JSD of distinct cells per day. visit_rank: JSD of visits per cell by rank (Zipf).
        motifs: JSD of the daily motifs. stay_rate: mean over hours of the absolute difference in the share that stays.
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
        a, b = (MeasuredWeeks(_draw(x.cells, size, rng), x.lat, x.lon) if len(x) > size else x for x in (a, b))

    tables = SixTables(a, b, form=form, radius_bins=bins)
    six = {name: float(value[0]) for name, value in tables.jsd().items()}
    out = {"n": len(b), **six, "mean6": float(np.mean([six[name] for name in SIX]))}
    if bootstrap:
        out["mean6_low"], out["mean6_high"] = _interval(tables, len(a), len(b), out["mean6"], bootstrap, seed)
    out |= {"cpc": cpc(a, b), "od_mape": od_mape(a, b), "population_mape": population_mape(a, b)}
    out |= movement(a, b, slots_per_day=slots_per_day, radius_bins=bins)
    if train is not None:
        known = check_weeks(train, name="train", num_cells=len(a.lat), length=a.cells.shape[1])
        out |= _copying(b.cells, known, seed)
    return out


def fidelity_report(
    generated: Mapping[str, Any | Sequence[Any]],
    *,
    real: Any,
    train: Any,
    lat: Any,
    lon: Any,
    form: Form = "clean",
    radius_bins: int | None = None,
    slots_per_day: int = 24,
    subsample: bool = False,
    match_unknown: bool = True,
    draws: int = 5,
    bootstrap: int = 0,
    seed: int = 0,
    baselines: Sequence[str] = GENERATOR_BASELINES,
) -> pd.DataFrame:
    """One row per generator: the noise level first, then the real weeks themselves, baselines, models.

    Args:
        generated: name -> weeks (N, L), or a list of several draws of one generator, which gives a mean and a spread.
        real: held-out weeks (N, L) that no generator was fitted or chosen on.
        train: weeks (M, L) that the generators were fitted on. The noise row draws N of them without replacement.
        lat, lon, form, radius_bins, slots_per_day, bootstrap: as in `fidelity`.
        subsample: cut all sets to the smallest one (by `seed`); otherwise all must have N weeks, and M >= N.
        match_unknown: where generated weeks have no unknown hours, hide in each those of the real week of the same row,
            so that gaps of the data do not count as a fault of the generator. The copying numbers are of all hours.
        draws: of the noise row. They overlap, so their spread is less than that of independent samples.
        seed: of every draw.
        baselines: beginnings of names that stand before all others, in this order.

    Returns:
        Columns model, form, draws, then those of `fidelity` as means over draws (bootstrap bounds too), and `mean6_sd`
        after mean6: standard deviation over draws, NaN for one draw. The row "train sample" is the noise level: nothing
        below it is better in earnest (with the conditions of the real weeks a generator can get below it, since these
        are part of the answer; draw them from training weeks). The row "real itself" compares the real weeks with
        themselves and is there for moves_per_day and the copying numbers, which are of the real weeks against the
        training weeks. Copying numbers are of the first draw; those of the noise row are 1 by construction.

    Raises:
        DataError, ValueError: as `fidelity`; fewer training than real weeks without `subsample`.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}.")
    reserved = [name for name in (NOISE, REAL) if name in generated]
    if reserved:
        raise ValueError(
            f"The name {reserved[0]!r} is one of the report's own rows; call the generator something else."
        )
    centres = len(np.asarray(lat))
    real = check_weeks(real, name="real", num_cells=centres)
    length = real.shape[1]
    train = check_weeks(train, name="train", num_cells=centres, length=length)
    sets = {
        name: [check_weeks(x, name=name, num_cells=centres, length=length) for x in _as_draws(value)]
        for name, value in generated.items()
    }
    rng = np.random.default_rng(seed)
    size = len(real)
    if subsample:
        size = min([len(real), len(train), *(len(x) for some in sets.values() for x in some)])
        real = real if len(real) == size else _draw(real, size, rng)
        sets = {name: [x if len(x) == size else _draw(x, size, rng) for x in some] for name, some in sets.items()}
    if len(train) < size:
        raise DataError(
            f"The noise level needs {size} training weeks, as many as real ones, but there are {len(train)}; "
            "give fewer real weeks or let subsample=True cut all sets."
        )
    sets = {NOISE: [_draw(train, size, rng) for _ in range(draws)], REAL: [real], **sets}

    rows = []
    for name, some in sets.items():
        measure = partial(
            fidelity,
            real,
            lat=lat,
            lon=lon,
            form=form,
            radius_bins=radius_bins,
            slots_per_day=slots_per_day,
            bootstrap=bootstrap if name != REAL else 0,
            seed=seed,
        )
        shown = [hide_hours(x, real) if match_unknown and not (x < 0).any() else x for x in some]
        values = _summary([measure(x) for x in shown])
        rows.append({"model": name, "form": form, "draws": len(some), **values, **_copying(some[0], train, seed)})
    return order_rows(pd.DataFrame(rows), baselines=baselines)


def hide_hours(cells: Any, like: Any) -> np.ndarray:
    """A copy of the weeks `cells` (N, L) in which the hours that row i of `like` does not know are unknown (-1).

    Where `like` has another number of rows it is repeated or cut.
    """
    cells, like = np.asarray(cells), np.asarray(like)
    rows = np.arange(len(cells)) % len(like)
    return np.where(like[rows] < 0, -1, cells)


def _as_draws(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) and np.ndim(value[0]) == 2 else [value]


def _draw(cells: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return cells[np.sort(rng.choice(len(cells), size, replace=False))]


def _interval(tables: SixTables, n: int, m: int, estimate: float, bootstrap: int, seed: int) -> tuple[float, float]:
    """95 % interval of mean6 from resampled weeks, the draws shifted so that their mean is the estimate."""
    rng = np.random.default_rng(seed)
    weights = (rng.multinomial(size, np.full(size, 1 / size), size=bootstrap).astype(np.float64) for size in (n, m))
    values = tables.jsd(*weights)
    mean6 = np.mean([values[name] for name in SIX], axis=0)
    low, high = np.percentile(mean6 - mean6.mean() + estimate, (2.5, 97.5))
    return max(float(low), 0.0), float(high)


def _copying(generated: np.ndarray, train: np.ndarray, seed: int) -> dict[str, float]:
    sample = generated
    if len(generated) > OVERLAP_WEEKS:
        sample = _draw(generated, OVERLAP_WEEKS, np.random.default_rng(seed))
    overlap = nearest_overlap(sample, train)
    overlap = overlap[np.isfinite(overlap)]
    return {
        "copied": copied_share(generated, train),
        "copied_moving": copied_share(generated, train, moving=True),
        "overlap": float(overlap.mean()) if len(overlap) else float("nan"),
        "overlap_p95": float(np.percentile(overlap, 95)) if len(overlap) else float("nan"),
    }


def _summary(values: list[dict[str, float]]) -> dict[str, float]:
    """Means over draws, and `mean6_sd` after mean6."""
    out: dict[str, float] = {}
    for key in values[0]:
        out[key] = values[0][key] if key == "n" else float(np.mean([v[key] for v in values]))
        if key == "mean6":
            spread = np.std([v[key] for v in values], ddof=1) if len(values) > 1 else np.nan
            out["mean6_sd"] = float(spread)
    return out
