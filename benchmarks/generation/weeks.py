"""The sets of weeks that the M-STAR benchmarks train and evaluate on, and their split by user."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hf_mobility import MstarTokenizer, simulate_city
from hf_mobility.data.splits import split_weeks_by_user
from hf_mobility.data.week_arrays import shift_weeks

NAMES = ("simulated", "sf_cabs", "geolife_days")
CAB_BOX = (37.58, -122.53, 37.82, -122.36)  # south, west, north, east of the 30 x 30 cells
DAY_BOX = (39.835, 116.174, 40.105, 116.526)  # about 30 km x 30 km of Beijing
NEAR = 1e-5  # degrees, about a metre: another processor's rounding is no other grid
DAY_LEVELS = [1, 2, 4, 8, 12, 16, 24, 48]


@dataclass(frozen=True)
class WeekSet:
    """cells (N, L) with -1 = unknown, the tokenizer (its conditions fitted on `train`), and rows of the three parts.

    person: (N,) int64, whose the weeks are; by default each is another user's.
    """

    name: str
    cells: np.ndarray
    tokenizer: MstarTokenizer
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    level_lengths: list[int] | None = None
    person: np.ndarray | None = None

    def users(self, rows: np.ndarray) -> np.ndarray:
        """(m,) whose these weeks are."""
        return rows if self.person is None else self.person[rows]

    @property
    def slots_per_day(self) -> int:
        return 24 * 60 // self.tokenizer.interval_minutes


def load_weeks(name: str, *, seed: int = 0, users: int = 3_000) -> WeekSet:
    """50 / 20 / 30 % of the people for training, validation and test of both stages.

    simulated: eight weeks of `users` people of one simulated city. sf_cabs: weeks of San Francisco cabs with unknown
    hours. geolife_days: days of 48 half hours without people; equal days are kept on one side.
    """
    if name == "simulated":
        cells, person, tokenizer = _simulated(users, seed)
    elif name == "sf_cabs":
        table = pd.read_parquet(_folder() / "derived_weekly_grid_sf_cabs.parquet")
        cells, person = np.stack(table["cells"].to_list()).astype(np.int32), table["user_id"].to_numpy()
        tokenizer = MstarTokenizer.from_grid(CAB_BOX, rows=30, columns=30, timezone="America/Los_Angeles")
    elif name == "geolife_days":
        cells, person, tokenizer = _days()
    else:
        raise ValueError(f"unknown weeks {name!r}; choose one of {NAMES}.")
    train, validation, test = split_weeks_by_user(person, fractions=(0.5, 0.2, 0.3), seed=seed)
    tokenizer.fit_conditions(cells[train], users=person[train], sample=1_500, seed=seed)
    levels = DAY_LEVELS if name == "geolife_days" else None
    person = np.unique(person, return_inverse=True)[1].ravel()
    return WeekSet(name, cells, tokenizer, train, validation, test, levels, person)


def check_trained_on(weeks: WeekSet, folder: str) -> None:
    """Raise a `ValueError` unless the model in `folder` was trained on these weeks with this split by person.

    Its tokenizer tells: the grid, and how many training weeks live where. Other people of training would be judged on,
    or another city's cells be taken for this one's.
    """
    theirs, ours = MstarTokenizer.from_pretrained(folder), weeks.tokenizer
    same = np.array_equal(theirs.cell_map, ours.cell_map)
    same = same and all(np.allclose(getattr(theirs, name), getattr(ours, name), atol=NEAR) for name in ("lat", "lon"))
    if same and theirs.conditions is not None and ours.conditions is not None:
        listed = theirs.conditions.home_counts  # of several people, where min_users was not 1
        same = np.array_equal(listed, np.where(listed > 0, ours.conditions.home_counts, 0))
    if not same:
        raise ValueError(
            f"{folder} was not trained on the training part of these weeks ({weeks.name}): give the same --weeks, "
            "--users and --seed as in its training."
        )


def shifted(weeks: WeekSet, *, copies: int, seed: int) -> np.ndarray:
    """The training weeks and as many copies of each that are moved over the grid as a whole."""
    grid = weeks.tokenizer
    return shift_weeks(weeks.cells[weeks.train], grid.rows, grid.columns, copies=copies, seed=seed)


def _folder() -> Path:
    return Path(os.environ.get("HF_MOBILITY_DATA", "../shared/data"))


def _simulated(users: int, seed: int) -> tuple[np.ndarray, np.ndarray, MstarTokenizer]:
    city = simulate_city(users, num_days=56, num_locations=800, radius_km=6.0, seed=seed + 7, name="Simville")
    tokenizer = MstarTokenizer.from_visits(city.visits, timezone=city.timezone, cell_km=1.0)
    weeks = tokenizer.weeks(city.visits)
    return weeks.cells, weeks.user_id, tokenizer


def _days() -> tuple[np.ndarray, np.ndarray, MstarTokenizer]:
    days = np.stack(pd.read_parquet(_folder() / "daily_grid_geolife_movesim.parquet")["cells"].to_list())
    places = pd.read_parquet(_folder() / "daily_grid_geolife_movesim_cells.parquet").set_index("cell").sort_index()
    tokenizer = MstarTokenizer.from_grid(
        DAY_BOX, rows=30, columns=30, timezone="Asia/Shanghai", num_hours=48, interval_minutes=30
    )
    cells = tokenizer.cells_at(places["lat"].to_numpy(), places["lon"].to_numpy())[days]
    inside = (cells >= 0).all(axis=1)
    cells = cells[inside].astype(np.int32)
    return cells, np.unique(cells, axis=0, return_inverse=True)[1].ravel(), tokenizer
