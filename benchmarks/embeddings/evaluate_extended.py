"""RAW's `extended` variant beside all simple rivals and a GRU, at recorded end points of users it has not seen.

    HF_MOBILITY_DATA=... python -m benchmarks.embeddings.evaluate_extended --checkpoint checkpoints/raw-small --points geolife --report benchmarks/embeddings/results/raw_extended.csv

Rivals are fitted on training users, and each row has the model's error less the rival's with an interval by user. A
simulated city is one that the training has not seen (`--seed`). `--adapt auto` adds the model after `adapt` on the
training users' records, `--beside` other trainings.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers import AutoModelForTimeSeriesPrediction

from benchmarks.embeddings.record_sets import SPLITS
from benchmarks.embeddings.series import NAMES, SeriesSet, load_series
from benchmarks.tables import save_table
from hf_mobility import adapt
from hf_mobility.baselines import CityMedian, CopyLast, GRUTrajectory, HourMean, HourMedian, NearestPast, Shrinkage
from hf_mobility.benchmark.record_tasks import record_tasks
from hf_mobility.evaluation import horizon_table
from hf_mobility.evaluation.direct import DirectHorizons

OURS = "RAW extended"
KEPT = ["model", "subset", "minutes", "windows", "users", "error_km", "median_km", "user_error_km"]
LESS = {"difference_km": "ours_less", "difference_low": "ours_less_low", "difference_high": "ours_less_high"}
STEPS = (1, 4, 10, 24, 96)  # 15 min, 60 min, 150 min, 6 h, 24 h
UNSEEN = {"users": 200, "held_out": 0.5, "seed": 100}  # a simulated city


def table_of(data: SeriesSet, model: Any, options: argparse.Namespace) -> pd.DataFrame:
    """One row per model, subset and horizon; `ours_less` is our error less that of the row's model."""
    train = ~data.held_out & ~data.validation
    asked: dict[str, Any] = {"steps": STEPS, "start_hours": options.start_hours, "most": options.most}
    parts = (np.isin(data.series.users, data.users[part]) for part in (train, getattr(data, options.part)))
    known, tasks = (record_tasks(data.series, data.tokenizer, users=users, **asked) for users in parts)
    simple = [CopyLast(), CityMedian().fit(known), Shrinkage().fit(known), HourMean(), HourMedian(), NearestPast()]
    models = [*simple, DirectHorizons(model, name=OURS)]
    if options.gru_steps:
        gru = GRUTrajectory().fit(data.train["coordinates"], steps=options.gru_steps, seed=0)
        models.insert(-1, gru)
    if options.adapt:
        points = data.points[data.points["user_id"].isin(data.users[train])]
        adapted = adapt(model, points, timezone=data.tokenizer.timezone, strength=options.adapt)
        print(adapted.report.round(4).to_string(index=False), adapted.strength)
        models.append(DirectHorizons(adapted.model, name=f"{OURS}, adapted"))
    for folder in options.beside:
        other = AutoModelForTimeSeriesPrediction.from_pretrained(folder)
        models.append(DirectHorizons(other, name=f"{OURS}, {Path(folder).name}"))
    if len({one.name for one in models}) < len(models):
        raise ValueError("two models have one name: give --beside folders that end differently.")
    made = {one.name: [one.predict(task) for task in tasks] for one in models}
    table = horizon_table(made, tasks, recorded_only=True, bootstrap=0)[KEPT]
    found = []
    for name in made:
        pair = {each: made[each] for each in dict.fromkeys((OURS, name))}
        against = horizon_table(pair, tasks, recorded_only=True, rival=name)
        ours = against[against["model"] == OURS].assign(model=name)
        found.append(ours[["model", "subset", "minutes", *LESS]].rename(columns=LESS))
    return table.merge(pd.concat(found), on=["model", "subset", "minutes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="folder of benchmarks/embeddings/train_raw_extended.py")
    parser.add_argument("--points", default="simulated", choices=NAMES)
    parser.add_argument("--part", default="held_out", choices=("held_out", "validation"), help="who is evaluated")
    parser.add_argument("--start-hours", type=int, nargs="+", default=list(range(24)), help="of Monday to Saturday")
    parser.add_argument("--most", type=int, default=10**6, help="predictions that are drawn at most")
    parser.add_argument("--gru-steps", type=int, default=300, help="of the baseline network; 0 leaves it out")
    parser.add_argument("--adapt", metavar="STRENGTH", help="also evaluate what `adapt` makes of it")
    parser.add_argument(
        "--beside", nargs="*", default=[], help="folders of further trainings, named by their last part"
    )
    parser.add_argument("--report", help="CSV for the table")
    options = parser.parse_args()

    data = load_series(options.points, **SPLITS.get(options.points, UNSEEN))
    model = AutoModelForTimeSeriesPrediction.from_pretrained(options.checkpoint)
    table = table_of(data, model, options).assign(points=options.points)
    print(table.round(2).to_string(index=False))
    if options.report:
        save_table(table, options.report, update=("points", "model"))


if __name__ == "__main__":
    main()
