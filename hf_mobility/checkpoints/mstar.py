"""M-STAR's weeks beside those of held-out users, of simple generators, and of the training part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..baselines import Conditions, ExplorationReturn, HourlyMarkov, ResampledWeeks
from ..data.cutting import describe_weeks, weeks_on
from ..data.parts import split_users
from ..data.weeks import WeekTable
from ..evaluation.two_sample import LEAST_USERS
from ..evaluation.week_report import fidelity_report, week_report
from ..pipelines.slot_generation import SlotGenerationPipeline
from ..pipelines.trajectory_generation import TrajectoryGenerationPipeline
from ..tokenization.errors import DataError
from .unseen import Checkpoint, refuse_seen

UNSEEN_HOME_SHARE = 0.05  # of the test weeks: homes that the conditions do not list
EPOCHS = 4  # of the two-sample test: a third of those of `two_sample_auc`, so that an evaluation stays quick


def evaluate_mstar(
    checkpoint: Checkpoint, data: Any, *, test_fraction: float, seed: int, **weeks: float
) -> pd.DataFrame:
    """The table of `week_report`, or of `fidelity_report` where windows are no whole weeks.

    Args:
        weeks: `min_known` and `fill_hours`.
    """
    pipe = checkpoint.pipeline(TrajectoryGenerationPipeline)
    if isinstance(pipe, SlotGenerationPipeline):
        raise DataError(
            f"{checkpoint.name} generates weeks of slots: compare them with real weeks of a city by "
            "hf_mobility.evaluation.week_report."
        )
    tokenizer = pipe.tokenizer
    (train, real), (train_users, real_users), report = _parts(tokenizer, data, test_fraction, seed, weeks)
    if tokenizer.conditions is None:
        raise DataError(f"The city of {checkpoint.name} has no conditions to draw from: call its fit_conditions first.")
    fitted = tokenizer.conditions.home_counts
    of_train, of_test = weeks_by_home(tokenizer, train), weeks_by_home(tokenizer, real)
    listed = fitted > 0  # a saved city lists homes of several people only
    refuse_seen(checkpoint.name, fitted[listed], (of_train + of_test)[listed], of_train[listed])
    notes = [describe_weeks(report, min_known=weeks.get("min_known"))]
    if len(real) > len(train):  # the training weeks are one of the baselines, and are compared with as many
        notes.append(f"{len(train)} of the {len(real)} test weeks, drawn by the seed, are compared.")
        rows = np.sort(np.random.default_rng(seed).permutation(len(real))[: len(train)])
        real, real_users = real[rows], real_users[rows]
    lat, lon, slots = tokenizer.lat, tokenizer.lon, 24 * 60 // tokenizer.interval_minutes
    drawn = Conditions(**tokenizer.sample_conditions(len(real), seed=seed))
    made = {name: rival.generate(drawn, seed=seed) for name, rival in _rivals(train, lat, lon, slots).items()}
    made[checkpoint.name] = pipe.generate(len(real), seed=seed, to="weeks")
    compared: dict[str, Any] = {"real": real, "train": train, "lat": lat, "lon": lon, "slots_per_day": slots}
    if slots % 24 or real.shape[1] != 7 * slots:
        table = fidelity_report(made, seed=seed, **compared)
    else:
        few = min(len(np.unique(users)) for users in (train_users, real_users)) < LEAST_USERS
        table = week_report(
            made,
            real_users=real_users,
            train_users=train_users,
            epochs=0 if few else EPOCHS,
            seed=seed,
            **compared,
        )
    unseen = weeks_by_home(tokenizer, real)[:, ~listed.any(axis=0)].sum() / len(real)
    if unseen > UNSEEN_HOME_SHARE:
        notes.append(
            f"{unseen:.0%} of the test weeks have their home where nobody of the generator's training data lives, or "
            "too few users for its city to list them: if these are other users than those of its city, the table "
            "compares two cities."
        )
    table.attrs["notes"] = notes
    return table


def weeks_by_home(tokenizer: Any, cells: np.ndarray) -> np.ndarray:
    """(2, cells of the grid) weeks by home, rows as in `ConditionTables.home_counts`."""
    home, work = tokenizer.home_and_work(cells)
    places = tokenizer.num_cells
    return np.bincount((home == work) * places + home, minlength=2 * places).reshape(2, places)


def _parts(
    tokenizer: Any, data: Any, test_fraction: float, seed: int, weeks: dict[str, float]
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], dict[str, Any]]:
    """Cells of the training and of the test part, their users, and the report on all weeks."""
    if isinstance(data, WeekTable):
        parts = [
            weeks_on(tokenizer, part, **weeks) for part in split_users(data, test_fraction=test_fraction, seed=seed)
        ]
        (train, train_users, report), (real, real_users, other) = parts
        owners = (_owners(train_users, train), _owners(real_users, real))
        return (train, real), owners, {name: _sum(report[name], other[name]) for name in report}
    cells, known, report = weeks_on(tokenizer, data, **weeks)
    users = _owners(known, cells)
    _, held_out = split_users(data, test_fraction=test_fraction, seed=seed)
    testing = np.isin(users, held_out["user_id"].unique())  # type: ignore[arg-type]
    return (cells[~testing], cells[testing]), (users[~testing], users[testing]), report


def _owners(users: np.ndarray | None, weeks: np.ndarray) -> np.ndarray:
    """The users of weeks, where these do not say any each another one."""
    return np.arange(len(weeks)) if users is None else users


def _sum(one: Any, other: Any) -> Any:
    return None if one is None or other is None else one + other


def _rivals(train: np.ndarray, lat: np.ndarray, lon: np.ndarray, slots: int) -> dict[str, Any]:
    return {
        "ResampledWeeks": ResampledWeeks().fit(train),
        "HourlyMarkov": HourlyMarkov(by_home=False, slots_per_day=slots).fit(train, num_cells=len(lat)),
        "HourlyMarkov, by home": HourlyMarkov(by_home=True, slots_per_day=slots).fit(train, num_cells=len(lat)),
        "ExplorationReturn": ExplorationReturn(slots_per_day=slots).fit(train, lat=lat, lon=lon),
    }
