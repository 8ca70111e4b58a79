"""Ten slots that end on Sundays: simple rivals, and a checkpoint where one is given, as in benchmarks/embeddings/train_raw.py.

    HF_MOBILITY_DATA=... python -m benchmarks.embeddings.evaluate_positions --points cabs --week-ends recorded
    python -m benchmarks.embeddings.evaluate_positions --checkpoint checkpoints/raw-released-small --users 4000 --held-out 0.5 --end-hours 19

All ten slots were recorded (`recorded`), or filled ones count as true (`every one`). Rows of other models of a report
stay. `--users`, `--held-out`, `--validation` and `--seed` are those of the checkpoint's training. Single recorded end
points are evaluated by the protocols geolife-horizons, cabs-horizons and simulated-horizons (`hf-mobility benchmark`).
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
from transformers import AutoModelForTimeSeriesPrediction

from benchmarks.embeddings.positions import EVERY, THROUGHOUT, compare, rivals, week_end_tasks
from benchmarks.embeddings.series import NAMES, SeriesSet, load_series
from benchmarks.tables import save_table
from hf_mobility.evaluation.direct import trajectory_predictor

END_HOURS = (10, 13, 16, 19, 22)
SHOWN = ["slots", "model", "subset", "minutes", "windows", "users", "error_km", "median_km", "user_error_km"]


def table_of(data: SeriesSet, models: list[Any], options: argparse.Namespace) -> pd.DataFrame:
    """Rivals, fitted on the training users, and models."""
    train = ~data.held_out & ~data.validation
    asked = {"steps": 10, "end_hours": options.end_hours, "recorded": options.week_ends == THROUGHOUT}
    known, tasks = (week_end_tasks(data, part, **asked) for part in (train, data.held_out))
    return compare([*rivals(known), *models], tasks, slots=options.week_ends, rival=options.rival)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", default="simulated", choices=NAMES)
    parser.add_argument("--checkpoint", help="folder of benchmarks/embeddings/train_raw.py")
    parser.add_argument("--users", type=int, default=1_000, help="people of the simulated city")
    parser.add_argument("--held-out", type=float, default=0.05, help="share of the people that are evaluated")
    parser.add_argument("--validation", type=float, default=0.0, help="share of the others that is not learned from")
    parser.add_argument("--seed", type=int, default=0, help="of the city and the split")
    parser.add_argument("--week-ends", choices=(THROUGHOUT, EVERY), default=EVERY, help="which slots count")
    parser.add_argument("--end-hours", type=int, nargs="+", default=list(END_HOURS), help="of the Sundays")
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
