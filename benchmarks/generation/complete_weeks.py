"""Completion of known weeks beside copying, and homes that no training user has.

    python -m benchmarks.generation.complete_weeks checkpoints/mstar-cells-small --output benchmarks/generation/results/weeks_completion.csv

`--homes` writes the share of the nights that generated weeks spend in the home that was asked for, for homes of training
users and for cells where none lives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.generation.evaluate_mstar import fitted_baselines
from benchmarks.generation.made import arguments, opened
from benchmarks.generation.weeks import WeekSet
from benchmarks.tables import save_table
from hf_mobility.baselines import CarryForward, CommonHour, Conditions, SameHour, StayHome
from hf_mobility.evaluation import completion_report
from hf_mobility.evaluation.week_places import NIGHT, days_of_week

VOTES = 15
COPIES = {copy.name: copy.complete for copy in (CommonHour(), SameHour(), CarryForward(), StayHome())}


def completions(
    weeks: WeekSet, pipe: Any, name: str, *, votes: int, seed: int
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """name -> completion: copies, EPR with home and work of the known hours, one draw of the model, a vote of some."""
    epr = fitted_baselines(weeks, seed=seed)["ExplorationReturn"]

    def explored(given: np.ndarray) -> np.ndarray:
        return np.where(given < 0, epr.generate(Conditions.of_weeks(given), seed=seed), given)

    def drawn(given: np.ndarray, draws: int) -> np.ndarray:
        return np.asarray(pipe.complete(given, draws=draws, seed=seed, to="weeks"))

    found = {
        **COPIES,
        "ExplorationReturn, same home and work": explored,
        name: lambda given: drawn(given, 1),
    }
    if votes > 1:
        found[f"{name}, vote of {votes}"] = lambda given: drawn(given, votes)
    return found


def homes(weeks: WeekSet, pipe: Any, name: str, *, number: int, seed: int) -> pd.DataFrame:
    """Share of the hours 0-5 in the home asked for; work places are those of training users."""
    given = Conditions.of_weeks(weeks.cells[weeks.train])
    rng = np.random.default_rng(seed)
    lived = Counter(given.home_ids.tolist())
    empty = np.setdiff1d(np.arange(weeks.tokenizer.num_cells), list(lived))
    drawn = given.take(rng.integers(len(given), size=number))
    asked = {"of training users": drawn.home_ids, "of nobody in training": rng.choice(empty, number)}
    rivals = fitted_baselines(weeks, seed=seed)
    rows = []
    for kind, home in asked.items():
        wanted = Conditions(home, np.where(drawn.work_ids == home, given.work_ids[0], drawn.work_ids))
        made = {
            rival: rivals[rival].generate(wanted, seed=seed) for rival in ("HourlyMarkov by home", "ExplorationReturn")
        }
        fixed = {"home_ids": wanted.home_ids, "work_ids": wanted.work_ids}
        made[name] = pipe.generate(number, seed=seed, to="weeks", **fixed)
        for model, cells in made.items():
            at_home = days_of_week(cells)[:, :, :NIGHT] == home[:, None, None]
            rows.append({"model": model, "homes": kind, "cells": len(np.unique(home)), "weeks": number})
            rows[-1]["nights_at_home"] = float(at_home.mean())
    return pd.DataFrame(rows)


def main() -> None:
    parser = arguments(__doc__, number=400)
    parser.add_argument("--votes", type=int, default=VOTES, help="draws that vote on each hour; 1 for none")
    parser.add_argument("--homes", help="where to write the table of homes")
    options = parser.parse_args()
    weeks, pipe, name = opened(options)
    if options.homes:
        save_table(homes(weeks, pipe, name, number=options.number, seed=options.seed), options.homes)
    rows = np.random.default_rng(options.seed).permutation(weeks.test)[: options.number]
    table = completion_report(completions(weeks, pipe, name, votes=options.votes, seed=options.seed), weeks.cells[rows])
    print(table.pivot(index="model", columns="gap", values="accuracy").round(3).to_string())
    if options.output:
        save_table(table, options.output)


if __name__ == "__main__":
    main()
