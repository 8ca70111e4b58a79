"""Pre-train RAW on the next point of users' positions every 15 minutes, and evaluate it on users it has not seen.

    python -m benchmarks.embeddings.train_raw --output runs/raw                                        # simulated users
    HF_MOBILITY_DATA=... python -m benchmarks.embeddings.train_raw --points cabs --output runs/raw-cabs
    python -m benchmarks.embeddings.train_raw --days 10 --size base ...                                # the paper's form
    torchrun --nproc_per_node 2 -m benchmarks.embeddings.train_raw ...                                 # several processes

5 % of the users are held out (`--held-out 0.5` leaves half of them for benchmarks/embeddings/profile_users.py). Printed
are the error of the next point and the errors of a roll-out, beside baselines; figures on simulated users are
synthetic.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import pandas as pd

from benchmarks.embeddings.positions import EVERY, THROUGHOUT, compare, rivals, week_end_tasks
from benchmarks.embeddings.series import NAMES, SeriesSet, load_series, raw_config, train_raw
from benchmarks.options import add_training, config_values, training_of
from benchmarks.tables import save_table
from hf_mobility import RawConfig, RawForTrajectoryPrediction
from hf_mobility.baselines import CopyLast, GRUTrajectory
from hf_mobility.evaluation import RollOut, one_step_table


def judge_one_step(predictors: list[Any], data: SeriesSet) -> pd.DataFrame:
    """Next points of the held-out people, counted where something was recorded."""
    points = data.columns["coordinates"][data.held_out]
    observed = data.columns["observed_mask"][data.held_out][:, 1:].astype(bool)
    day = data.columns["start_weekday"][data.held_out] if data.tokenizer.time_features else None
    made = {
        one.name: one.next_points(points, day) if isinstance(one, RollOut) else one.next_points(points)
        for one in predictors
        if hasattr(one, "next_points")
    }
    metres = data.tokenizer.metres_per_unit()
    return one_step_table(made, points, metres_per_unit=metres, counted=None if data.complete else observed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True)
    parser.add_argument("--points", default="simulated", choices=NAMES)
    parser.add_argument("--users", type=int, default=1_000, help="people of the simulated city")
    parser.add_argument("--days", type=int, default=7, help="of a window; 10 in the paper")
    parser.add_argument("--held-out", type=float, default=0.05, help="share of the people that are not trained on")
    parser.add_argument(
        "--validation", type=float, default=0.0, help="share of the others that choose the best state of the training"
    )
    parser.add_argument("--size", default="small")
    add_training(parser, steps=2_000, batch_size=16, learning_rate=5e-4)  # the paper's rate is 1e-4
    parser.add_argument("--gru-steps", type=int, default=300, help="of the baseline network; 0 leaves it out")
    parser.add_argument("--roll-out", type=int, default=10, metavar="STEPS")
    parser.add_argument("--end-hours", type=int, nargs="+", default=[24], help="local hours at which roll-outs end")
    parser.add_argument("--report", help="CSV for the roll-out table")
    options = parser.parse_args()

    values = config_values(options.set, RawConfig)
    time_features = bool(values.get("time_features", False))
    data = load_series(
        options.points,
        users=options.users,
        days=options.days,
        seed=options.seed,
        held_out=options.held_out,
        validation=options.validation,
        time_features=time_features,
    )
    config = raw_config(data.tokenizer, options.size, **values)
    print(
        f"{len(data.users)} windows of {len(set(data.users.tolist()))} people, {data.held_out.sum()} windows held out, "
        f"{data.validation.sum()} for validation"
    )
    kept = bool(data.validation.any())
    start = time.perf_counter()
    model: RawForTrajectoryPrediction = train_raw(
        data.train,
        config,
        validation=data.windows(data.validation) if kept else None,
        seed=options.seed,
        folder=options.output,
        **training_of(options),
    )
    seconds = time.perf_counter() - start
    model.save_pretrained(options.output)
    data.tokenizer.save_pretrained(options.output)
    print(f"{model.num_parameters():,} parameters, {options.steps} steps in {seconds:.0f} s")

    networks: list[Any] = [RollOut(model)]
    if options.gru_steps:
        gru = GRUTrajectory().fit(data.train["coordinates"], steps=options.gru_steps, seed=options.seed)
        networks.insert(0, gru)
    print("\nNext point, people held out (mae_m: mean over both axes, metres)")
    print(judge_one_step([CopyLast(), *networks], data).round(1).to_string(index=False))
    asked = {"steps": options.roll_out, "end_hours": options.end_hours}
    shown = ["slots", "model", "subset", "minutes", "windows", "users", "mae_m", "error_km", "median_km"]
    for part in ("validation", "held_out") if kept else ("held_out",):
        tables = []
        for slots in (EVERY,) if data.complete else (THROUGHOUT, EVERY):
            recorded = slots == THROUGHOUT
            known = week_end_tasks(data, ~data.held_out & ~data.validation, recorded=recorded, **asked)
            judged = week_end_tasks(data, getattr(data, part), recorded=recorded, **asked)
            predictors = [*rivals(known), *networks]
            tables.append(compare(predictors, judged, slots=slots, rival="Shrinkage"))
        table = pd.concat(tables)
        print(f"\nRoll-out, {part}")
        print(table[shown].round(3).to_string(index=False))
    if options.report:
        save_table(table.assign(points=options.points, seconds=round(seconds)), options.report)


if __name__ == "__main__":
    main()
