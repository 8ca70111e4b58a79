"""Tables of generated weeks: the noise level first, then the real weeks themselves, baselines, models.

`fidelity_report` compares distributions. `week_report` adds what users do from day to day, a two-sample test, and pairs
of places that tell single users; it is the headline of a generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..data.week_arrays import check_users, check_weeks
from ..tokenization.errors import DataError
from .fidelity import copying, draw_rows, fidelity, hide_hours
from .fidelity_metrics import Form
from .report import order_rows
from .two_sample import EPOCHS, two_sample_auc
from .user_pairs import one_user_pairs
from .week_places import days_of_week
from .week_regularity import regularity

NOISE, REAL = "train sample", "real itself"
GENERATOR_BASELINES = (NOISE, REAL, "ResampledWeeks", "HourlyMarkov", "ExplorationReturn", "HourlyTransformer")
DISTANCES = ("mean6", "two_sample_auc", "motif_tv", "locations_per_day", "stay_rate", "population_tv")
FLOWS = ("cpc", "hourly_cpc", "od_correlation")
HABITS = (
    *("workers", "arrival_sd", "work_places", "together_again"),
    *("still_weekend_days", "saturday_away", "one_hour_stays", "one_user_pairs"),
)
WEEK_COLUMNS = (*DISTANCES, *FLOWS, *HABITS)  # of the headline: distances, agreement of flows, numbers of one set
Draws = Any | Sequence[Any]


def fidelity_report(
    generated: Mapping[str, Draws],
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

    Example:
        >>> fidelity_report({"mine": weeks}, real=real, train=train, lat=lat, lon=lon)  # doctest: +SKIP
    """
    sets = _Sets.of(generated, real, train, cells=_cells(lat), draws=draws, subsample=subsample, seed=seed)

    def measure(name: str, draw: int, weeks: np.ndarray) -> dict[str, float]:
        options: dict[str, Any] = {"lat": lat, "lon": lon, "form": form, "radius_bins": radius_bins, "seed": seed}
        resamplings = bootstrap if name != REAL else 0
        return fidelity(sets.real, weeks, slots_per_day=slots_per_day, bootstrap=resamplings, **options)

    rows = sets.rows(measure, match_unknown=match_unknown, spread=("mean6",), seed=seed)
    table = pd.DataFrame(rows)
    table.insert(1, "form", form)
    return order_rows(table, baselines=baselines)


def week_report(
    generated: Mapping[str, Draws],
    *,
    real: Any,
    train: Any,
    lat: Any,
    lon: Any,
    real_users: Any = None,
    train_users: Any = None,
    slots_per_day: int = 24,
    epochs: int = EPOCHS,
    draws: int = 5,
    seed: int = 0,
    baselines: Sequence[str] = GENERATOR_BASELINES,
) -> pd.DataFrame:
    """`fidelity_report` with what it does not show: users from day to day, a two-sample test, pairs of places.

    Args:
        generated, real, train, lat, lon, draws, seed, baselines: as in `fidelity_report`. All weeks are whole ones.
        real_users, train_users: (N,) and (M,) whose the weeks are; by default each is another user's.
        slots_per_day: a multiple of 24.
        epochs: of the network of the two-sample test; 0 leaves the test out (NaN).

    Returns:
        The columns of `fidelity_report` and `two_sample_auc` (0.5 is best), those of `regularity`, and
        `one_user_pairs`: the share of weeks with a second place whose home and second place are together those of
        exactly one training user. For each name of `WEEK_COLUMNS` there is `<name>_sd`, over draws.

        The row "train sample" is the noise level: other real users (its `one_user_pairs` are its own). The row "real
        itself" says what the measures of one set are in the real weeks.

    Raises:
        DataError: as `fidelity_report`; windows that are no whole weeks; users that do not fit.

    Example:
        >>> week_report({"mine": weeks}, real=real, train=train, lat=lat, lon=lon)  # doctest: +SKIP
    """
    owners = {"real": real_users, "train": train_users}
    sets = _Sets.of(generated, real, train, cells=_cells(lat), draws=draws, subsample=False, seed=seed, owners=owners)
    days_of_week(sets.real, slots_per_day)

    def measure(name: str, draw: int, weeks: np.ndarray) -> dict[str, float]:
        out = fidelity(sets.real, weeks, lat=lat, lon=lon, slots_per_day=slots_per_day, seed=seed)
        out |= regularity(weeks, slots_per_day=slots_per_day)
        pairs = one_user_pairs(weeks, sets.train, sets.train_users, slots_per_day=slots_per_day)
        tested = epochs and name != REAL
        return out | {
            "one_user_pairs": pairs,
            "two_sample_auc": two_sample_auc(
                sets.real,
                weeks,
                real_users=sets.real_users,
                generated_users=sets.noise_users[draw] if name == NOISE else None,
                epochs=epochs,
                slots_per_day=slots_per_day,
                seed=seed + draw,
            )
            if tested
            else float("nan"),
        }

    rows = sets.rows(measure, match_unknown=True, spread=WEEK_COLUMNS, seed=seed)
    return order_rows(pd.DataFrame(rows), baselines=baselines)


Measure = Callable[[str, int, np.ndarray], dict[str, float]]


@dataclass(frozen=True, eq=False)
class _Sets:
    """Checked weeks of a table: name -> draws, the noise level and the real weeks first.

    Fields:
        real, train: (N, L) and (M, L). real_users, train_users: (N,) and (M,).
        sets: name -> draws, (N, L) each. noise_users: the users of each draw of the noise level.
    """

    real: np.ndarray
    train: np.ndarray
    real_users: np.ndarray
    train_users: np.ndarray
    sets: dict[str, list[np.ndarray]]
    noise_users: list[np.ndarray]

    @classmethod
    def of(
        cls,
        generated: Mapping[str, Draws],
        real: Any,
        train: Any,
        *,
        cells: int,
        draws: int,
        subsample: bool,
        seed: int,
        owners: Mapping[str, Any] | None = None,
    ) -> _Sets:
        if draws < 1:
            raise ValueError(f"draws must be at least 1, not {draws}.")
        reserved = [name for name in (NOISE, REAL) if name in generated]
        if reserved:
            raise ValueError(
                f"The name {reserved[0]!r} is one of the report's own rows; call the generator something else."
            )
        real = check_weeks(real, name="real", num_cells=cells)
        length = real.shape[1]
        train = check_weeks(train, name="train", num_cells=cells, length=length)
        sets = {
            name: [check_weeks(x, name=name, num_cells=cells, length=length) for x in _as_draws(value)]
            for name, value in generated.items()
        }
        rng = np.random.default_rng(seed)
        size = len(real)
        real_users, train_users = (
            check_users((owners or {}).get(name), weeks, name=f"{name}_users")
            for name, weeks in (("real", real), ("train", train))
        )
        if subsample:
            size = min([len(real), len(train), *(len(x) for some in sets.values() for x in some)])
            real = real if len(real) == size else real[draw_rows(len(real), size, rng)]
            sets = {
                name: [x if len(x) == size else x[draw_rows(len(x), size, rng)] for x in some]
                for name, some in sets.items()
            }
        if len(train) < size:
            raise DataError(
                f"The noise level needs {size} training weeks, as many as real ones, but there are {len(train)}; "
                "give fewer real weeks or let subsample=True cut all sets."
            )
        noise = [draw_rows(len(train), size, rng) for _ in range(draws)]
        sets = {NOISE: [train[rows] for rows in noise], REAL: [real], **sets}
        return cls(real, train, real_users, train_users, sets, [train_users[rows] for rows in noise])

    def rows(self, measure: Measure, *, match_unknown: bool, spread: Sequence[str], seed: int) -> list[dict[str, Any]]:
        """One row per set: means over draws, and standard deviations of the columns `spread`."""
        rows = []
        for name, some in self.sets.items():
            shown = [hide_hours(x, self.real) if match_unknown and not (x < 0).any() else x for x in some]
            values = _summary([measure(name, draw, weeks) for draw, weeks in enumerate(shown)], spread)
            rows.append({"model": name, "draws": len(some), **values, **copying(some[0], self.train, seed=seed)})
        return rows


def _cells(lat: Any) -> int:
    return len(np.asarray(lat))


def _as_draws(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) and np.ndim(value[0]) == 2 else [value]


def _summary(values: list[dict[str, float]], spread: Sequence[str]) -> dict[str, float]:
    """Means over draws, and after a column of `spread` its standard deviation, NaN for one draw."""
    out: dict[str, float] = {}
    for key in values[0]:
        out[key] = values[0][key] if key == "n" else float(np.mean([v[key] for v in values]))
        if key in spread:
            out[f"{key}_sd"] = float(np.std([v[key] for v in values], ddof=1)) if len(values) > 1 else float("nan")
    return out
