"""The time to the next visit: the pipeline's median beside the median of the user's own gaps and of the city's.

    python -m benchmarks.next_location.evaluate_gaps checkpoints/samoe-small --output benchmarks/next_location/results/gaps.csv

Targets are the last 20 % of each user's visits, at most ten, each predicted from all visits before it. `--sources` evaluates cities
that the checkpoint was trained in, with several values of `hf_mobility.pipelines.gaps.PRIOR_GAPS`, to choose one.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.open_data import CITIES, open_checkins
from benchmarks.tables import GrowingTable
from hf_mobility import City, NextLocationPipeline, simulate_city
from hf_mobility.pipelines import gaps

TARGETS = ("chicago", "calgary", "washington_dc", "simulated", "simulated, seen always")
SOURCES = ("atlanta", "boston", "philadelphia", "gowalla_kansas_city")
MOST = 10  # targets of a user
PRIORS = (2.0, 5.0, 10.0, 20.0, 50.0)
SHOWN = ["city", "model", "n", "users", "mae_hours", "mae_hours_by_user"]


def visits_of(name: str, *, users: int, seed: int) -> tuple[pd.DataFrame, City]:
    if name.startswith("simulated"):
        observe = 1.0 if "always" in name else 0.3
        made = simulate_city(users, num_days=28, observe=observe, seed=seed)
        return made.visits, City.from_visits(made.visits, timezone=made.timezone, name=name)
    visits = open_checkins(name)
    count = visits.groupby("user_id")["user_id"].transform("size")
    visits = visits[count >= 10]
    chosen = np.random.default_rng(seed).permutation(visits["user_id"].unique())[:users]
    city = City.from_visits(visits, timezone=CITIES[name].timezone, name=name)
    return visits[visits["user_id"].isin(chosen)].reset_index(drop=True), city


def targets_of(visits: pd.DataFrame) -> pd.DataFrame:
    """One row per target: user, `rest` (visits from it to the user's last), true gap, and the baselines, in seconds."""
    rows = []
    typical = visits.groupby("user_id")["time"].diff().dt.total_seconds().median()
    for user, own in visits.groupby("user_id"):
        seconds = own["time"].diff().dt.total_seconds().to_numpy()
        for position in range(max(2, int(0.8 * len(own)), len(own) - MOST), len(own)):
            baseline = float(np.median(seconds[1:position]))
            rows.append((user, len(own) - position, seconds[position], baseline, typical))
    return pd.DataFrame(rows, columns=["user_id", "rest", "gap", "median of the user's gaps", "median of the city"])


def predicted(pipe: NextLocationPipeline, visits: pd.DataFrame, targets: pd.DataFrame) -> pd.DataFrame:
    """Of all targets, from the visits before each."""
    order, parts = visits.groupby("user_id").cumcount(ascending=False), []
    for rest, group in targets.groupby("rest"):
        before = visits[(order >= rest) & visits["user_id"].isin(group["user_id"])]
        parts.append(pipe.predict(before, top_k=1)[["user_id", "expected_gap", "expected_stay"]].assign(rest=rest))
    return pd.concat(parts)


def table_of(name: str, targets: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for model, column in columns.items():
        error = (targets[column] - targets["gap"]).abs() / 3600
        by_user = error.groupby(targets["user_id"]).mean()
        numbers = {"n": len(error), "users": len(by_user), "mae_hours": error.mean()}
        rows.append({"city": name, "model": model, **numbers, "mae_hours_by_user": by_user.mean()})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--sources", action="store_true")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output")
    options = parser.parse_args()

    growing = GrowingTable(SHOWN, options.output)
    for name in SOURCES if options.sources else TARGETS:
        visits, city = visits_of(name, users=options.users, seed=options.seed)
        pipe = NextLocationPipeline.from_pretrained(options.checkpoint, city=city)
        targets = targets_of(visits)
        columns = {column: column for column in ("median of the user's gaps", "median of the city")}
        for prior in PRIORS if options.sources else (gaps.PRIOR_GAPS,):
            gaps.PRIOR_GAPS = prior
            label = f"SAMoE, median, {prior:g} gaps" if options.sources else "SAMoE, median"
            found = predicted(pipe, visits, targets).rename(
                columns={"expected_gap": label, "expected_stay": f"{label} (stay)"}
            )
            targets = targets.merge(found, on=["user_id", "rest"], validate="one_to_one")
            columns |= {"SAMoE, mean without own gaps": f"{label} (stay)", label: label}
        growing.add(table_of(name, targets, columns))


if __name__ == "__main__":
    main()
