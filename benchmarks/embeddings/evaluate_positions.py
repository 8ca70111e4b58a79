"""Positions from 15 minutes to a day ahead: simple rivals, and a checkpoint where one is given.

    HF_MOBILITY_DATA=... python -m benchmarks.embeddings.evaluate_positions --points cabs
    python -m benchmarks.embeddings.evaluate_positions --checkpoint checkpoints/raw-small --users 4000 --held-out 0.5 --start-hours 7 10 13 16 19 22 --most 1000

Predictions start from a record and are scored at single end points that hold a record (`recorded end points`). With
`--week-ends`, they are those of benchmarks/embeddings/train_raw.py: ten slots that end on Sundays, of which all were
recorded (`recorded`), or also filled ones count as true (`every one`). Rows of other models of a report stay.

`--users`, `--held-out`, `--validation` and `--seed` are those of the checkpoint's training.
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
from transformers import AutoModelForTimeSeriesPrediction

from benchmarks.embeddings.positions import (
    END_POINTS,
    EVERY,
    THROUGHOUT,
    compare,
    record_tasks,
    rivals,
    week_end_tasks,
)
from benchmarks.embeddings.series import NAMES, SeriesSet, load_series
from benchmarks.tables import save_table
from hf_mobility.evaluation.direct import trajectory_predictor

STEPS = (1, 4, 10, 24, 96)
END_HOURS = (10, 13, 16, 19, 22)
SHOWN = ["slots", "model", "subset", "minutes", "windows", "users", "error_km", "median_km", "user_error_km"]


def table_of(data: SeriesSet, models: list[Any], options: argparse.Namespace) -> pd.DataFrame:
    """Rivals, fitted on the training users, and models."""
    train = ~data.held_out & ~data.validation
    if options.week_ends:
        asked = {"steps": 10, "end_hours": END_HOURS, "recorded": options.week_ends == THROUGHOUT}
        known, tasks = (week_end_tasks(data, part, **asked) for part in (train, data.held_out))
    else:
        asked = {"steps": STEPS, "start_hours": options.start_hours, "most": options.most}
        known, tasks = (record_tasks(data, part, **asked) for part in (train, data.held_out))
    slots = options.week_ends or END_POINTS
    return compare([*rivals(known), *models], tasks, slots=slots, rival=options.rival)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", default="simulated", choices=NAMES)
    parser.add_argument("--checkpoint", help="folder of benchmarks/embeddings/train_raw.py")
    parser.add_argument("--users", type=int, default=1_000, help="people of the simulated city")
    parser.add_argument("--held-out", type=float, default=0.05, help="share of the people that are evaluated")
    parser.add_argument("--validation", type=float, default=0.0, help="share of the others that is not learned from")
    parser.add_argument("--seed", type=int, default=0, help="of the city and the split")
    parser.add_argument("--week-ends", choices=(THROUGHOUT, EVERY), help="ten slots that end on Sundays")
    parser.add_argument("--start-hours", type=int, nargs="+", default=list(range(24)), help="of Monday to Saturday")
    parser.add_argument("--most", type=int, help="predictions that are drawn at most")
    parser.add_argument("--rival", default="Shrinkage", help="the model that the others are compared with")
    parser.add_argument("--report", help="CSV for the table")
    options = parser.parse_args()

    split = {name: getattr(options, name) for name in ("users", "held_out", "validation", "seed")}
    data = load_series(options.points, **split)
    models: list[Any] = []
    if options.checkpoint:
        model = AutoModelForTimeSeriesPrediction.from_pretrained(options.checkpoint)
        models.append(trajectory_predictor(model))
    table = table_of(data, models, options)
    print(table[SHOWN].round(2).to_string(index=False))
    if options.report:
        save_table(table.assign(points=options.points), options.report, update=("slots", "model"))


if __name__ == "__main__":
    main()
