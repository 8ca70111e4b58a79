"""Generated weeks beside the noise level and the baselines, for users that no part of the training has seen.

    python -m benchmarks.generation.evaluate_mstar checkpoints/mstar-cells-small --output benchmarks/generation/results/mstar_simulated.csv
    HF_MOBILITY_DATA=... python -m benchmarks.generation.evaluate_mstar runs/cabs --weeks sf_cabs --output mstar_cabs.csv

Every generator gets conditions drawn from the training users (home, work, movement class), never those of the test
weeks. Several draws each (`--draws`, more where weeks are few); hours that a test week does not know are hidden in the
generated one as well. The sampling settings of the hour-by-hour transformer are chosen on the validation users, with as
many draws, as for M-STAR.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.generation.train_mstar import CONDITIONS, PLAIN, compare, draw, judged_weeks, over_draws
from benchmarks.generation.weeks import NAMES, WeekSet, check_trained_on, load_weeks, shifted
from benchmarks.tables import save_table
from hf_mobility import MstarForTrajectoryGeneration
from hf_mobility.baselines.generators import Conditions, HourlyMarkov, ResampledWeeks
from hf_mobility.baselines.generators_epr import ExplorationReturn
from hf_mobility.baselines.hourly_transformer import HourlyTransformer
from hf_mobility.evaluation.week_report import fidelity_report

TEMPERATURES = (0.95, 1.0, 1.05, 1.1)  # tried for the hour-by-hour transformer
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHOWN = ["model", "displacement", "radius", "duration", "periodicity", "g_rank", "i_rank", "mean6", "mean6_sd", "cpc"]
SHOWN += ["moves_per_day", "motifs", "stay_rate", "copied_moving", "overlap"]


def fitted_baselines(weeks: WeekSet, *, seed: int) -> dict[str, Any]:
    """name -> generator, of those that count."""
    train = weeks.cells[weeks.train]
    lat, lon, slots = weeks.tokenizer.lat, weeks.tokenizer.lon, weeks.slots_per_day
    return {
        "ResampledWeeks": ResampledWeeks().fit(train),
        "HourlyMarkov": HourlyMarkov(by_home=False, slots_per_day=slots).fit(train, num_cells=len(lat)),
        "HourlyMarkov by home": HourlyMarkov(slots_per_day=slots).fit(train, num_cells=len(lat)),
        "ExplorationReturn": ExplorationReturn(slots_per_day=slots).fit(train, lat=lat, lon=lon),
    }


def fitted_hourly(weeks: WeekSet, *, epochs: int, width: int, seed: int, before: list[int]) -> HourlyTransformer:
    """The hour-by-hour transformer, stopped where its validation loss is lowest. before: COPIES, EPOCHS of training on
    shifted copies of each week that come first.
    """
    model = HourlyTransformer(width=width, slots_per_day=weeks.slots_per_day, warm_start=True)
    held_out = weeks.cells[weeks.validation]
    validation = held_out, conditions_of(weeks, held_out)
    for copies, rounds in ([before] if any(before) else []) + [[0, epochs]]:
        cells = shifted(weeks, copies=copies, seed=seed)
        given = conditions_of(weeks, cells)
        model.fit(
            cells,
            num_cells=weeks.tokenizer.num_cells,
            home=given.home_ids,
            work=given.work_ids,
            attribute=given.attribute_ids,
            validation=validation,
            epochs=rounds,
            seed=seed,
            device=DEVICE,
        )
    return model


def conditions_of(weeks: WeekSet, cells: np.ndarray) -> Conditions:
    """Those of these very weeks."""
    found = weeks.tokenizer(cells)
    return Conditions(**{name: np.asarray(found[name]) for name in CONDITIONS})


def drawn(weeks: WeekSet, number: int, seed: int) -> Conditions:
    """Those of nobody: drawn from what the training weeks have."""
    return Conditions(**weeks.tokenizer.sample_conditions(number, seed=seed))


def best_settings(generator: HourlyTransformer, weeks: WeekSet, number: int, draws: int) -> dict[str, Any]:
    """The temperature, with all cells or the 20 best, whose weeks are nearest to as many validation weeks."""
    rows = judged_weeks(weeks, number)
    cuts = (None, min(20, weeks.tokenizer.num_cells))
    tried: list[dict[str, Any]] = [{"temperature": one, "top_k": cut} for one in TEMPERATURES for cut in cuts]
    found = []
    for settings in tried:
        made = (
            generator.generate(drawn(weeks, len(rows), seed), seed=seed, **settings) for seed in range(1, draws + 1)
        )
        score = over_draws(compare(weeks, rows, cells) for cells in made)
        found.append(score["mean6"])
        print(f"HourlyTransformer, {settings}: mean6 {score['mean6']:.4f}, moves {score['moves_per_day']:.2f}")
    return tried[int(np.nanargmin(found))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="one or more folders of benchmarks/generation/train_mstar.py")
    parser.add_argument("--weeks", default="simulated", choices=NAMES)
    parser.add_argument("--users", type=int, default=3_000)
    parser.add_argument("--number", type=int, default=2_000, help="weeks compared")
    parser.add_argument("--draws", type=int, default=3, help="of each generator, and of each setting that is tried")
    parser.add_argument("--plain", action="store_true", help="draw as well at temperature 1 from all codes, no search")
    parser.add_argument("--hourly-epochs", type=int, default=0, help="train the hour-by-hour transformer as well")
    parser.add_argument("--hourly-width", type=int, default=128)
    parser.add_argument(
        "--hourly-before",
        type=int,
        nargs=2,
        default=[0, 0],
        metavar=("COPIES", "EPOCHS"),
        help="train it first on shifted copies of each week",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output")
    parser.add_argument("--update", action="store_true", help="keep the rows of the file that are not made again")
    options = parser.parse_args()
    names = [f"M-STAR {Path(folder).name}" for folder in options.checkpoints]
    if any(options.hourly_before) and not (all(options.hourly_before) and options.hourly_epochs):
        parser.error("--hourly-before needs copies, epochs, and --hourly-epochs")
    if len(set(names)) < len(names):
        parser.error(f"two checkpoints would have one name in the table: {', '.join(names)}")

    weeks = load_weeks(options.weeks, seed=options.seed, users=options.users)
    for folder in options.checkpoints:
        check_trained_on(weeks, folder)
    rows = np.random.default_rng(options.seed).permutation(weeks.test)[: min(options.number, len(weeks.train))]
    real = weeks.cells[rows]
    made: dict[str, list[np.ndarray]] = {}
    baselines = fitted_baselines(weeks, seed=options.seed)
    settings: dict[str, dict[str, Any]] = {}
    if options.hourly_epochs:
        form = {"width": options.hourly_width, "before": options.hourly_before}
        hourly = fitted_hourly(weeks, epochs=options.hourly_epochs, seed=options.seed, **form)
        nats = min(hourly.validation_loss) * weeks.cells.shape[1]
        print(f"HourlyTransformer: {hourly.num_parameters:,} parameters, {nats:.1f} nats a validation week")
        name = "HourlyTransformer, shifted copies" if options.hourly_before[0] else "HourlyTransformer"
        baselines[name], settings[name] = hourly, best_settings(hourly, weeks, len(rows), options.draws)
    for name, generator in baselines.items():
        way = settings.get(name, {})
        made[name] = [generator.generate(drawn(weeks, len(real), k), seed=k, **way) for k in range(options.draws)]
    for name, folder in zip(names, options.checkpoints):
        model = MstarForTrajectoryGeneration.from_pretrained(folder).eval().to(DEVICE)
        print(f"{name}: {model.num_parameters() - model.codec.num_parameters():,} parameters beside the codec")
        ways = {name: {}, f"{name}, drawn plainly": PLAIN} if options.plain else {name: {}}
        for title, way in ways.items():
            made[title] = [draw(model, weeks, len(real), seed=seed, **way) for seed in range(options.draws)]
    table = fidelity_report(
        made,
        real=real,
        train=weeks.cells[weeks.train],
        lat=weeks.tokenizer.lat,
        lon=weeks.tokenizer.lon,
        slots_per_day=weeks.slots_per_day,
        draws=max(5, options.draws),
    )
    table.insert(0, "data", options.weeks)
    print(table[SHOWN].round(4).to_string(index=False))
    if options.output:
        save_table(table, options.output, update=["model"] if options.update else ())


if __name__ == "__main__":
    main()
