"""What each choice in M-STAR is worth: the same short training with one part changed, several seeds.

    HF_MOBILITY_DATA=... python examples/ablate_mstar.py codec --weeks geolife_days --output mstar_codec_ablation.csv
    HF_MOBILITY_DATA=... python examples/ablate_mstar.py generator --weeks geolife_days --codec runs/codec-days \
        --output mstar_ablation.csv

Judged on the validation people: codecs by the round trip, generators by the fidelity of weeks for drawn conditions.
Beside the generators stand what a sample of training weeks and two counting baselines reach. Rows come one by one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import train_mstar
import train_mstar_codec
from _tables import GrowingTable
from _weeks import NAMES, WeekSet, check_trained_on, load_weeks

from hf_mobility import MstarCodecModel
from hf_mobility.baselines.generators import Conditions, HourlyMarkov
from hf_mobility.baselines.generators_epr import ExplorationReturn
from hf_mobility.evaluation.fidelity import fidelity, hide_hours


@dataclass(frozen=True)
class Variant:
    """Values of the config that are changed in a `form`, and ways of drawing: name -> changes of the plain settings."""

    values: dict[str, Any] = field(default_factory=dict)
    form: str = "corrected"
    drawing: dict[str, dict[str, Any]] = field(default_factory=lambda: {"plain": {}})


CODECS = {
    "corrected": Variant(),
    "trained codebook": Variant({"codebook_update": "gradient"}),
    "code loss on the last level": Variant({"code_loss": "last", "code_loss_weight": 1.0}),
    "trained codebook, code loss on the last level": Variant(
        {"codebook_update": "gradient", "code_loss": "last", "code_loss_weight": 1.0}
    ),
    "residual of continuous features": Variant({"residual": "continuous"}),
    "cosine search": Variant({"search": "cosine"}),
    "gradient to the finest level": Variant({"straight_through": "finest"}),
    "no norm in Phi": Variant({"refiner_norm": False}),
    "as published": Variant(form="released"),
}
FOUR, ONE = {"within_level_steps": 4}, {"within_level_steps": 1}
GENERATORS = {
    "four passes": Variant(
        FOUR,
        drawing={
            "plain": FOUR,
            "one pass": ONE,
            "most certain first": {**FOUR, "settling_order": "certain"},
            "temperature .9": {**FOUR, "temperature": 0.9},
            "drawn path": {**FOUR, "decoding": "sample"},
        },
    ),
    "one pass": Variant(ONE, drawing={"plain": ONE, "smoothed": {**ONE, "smoothing_window": 3}}),
    "noisy codes": Variant({**FOUR, "code_noise": 0.1}, drawing={"plain": FOUR}),
    "conditions hidden": Variant(
        {**FOUR, "condition_dropout": 0.1}, drawing={"plain": FOUR, "guidance 1.5": {**FOUR, "guidance": 1.5}}
    ),
    "no dropout": Variant({**FOUR, "dropout": 0.0, "drop_path": 0.0}, drawing={"plain": FOUR}),
    "as published": Variant(form="released", drawing={"published": train_mstar.PAPER}),
}
Row = dict[str, Any]


def codec_rows(weeks: WeekSet, variant: Variant, seed: int, options: argparse.Namespace) -> Iterator[Row]:
    config = train_mstar_codec.codec_config(weeks, options.size, variant.form, **variant.values)
    with tempfile.TemporaryDirectory() as folder:
        model = train_mstar_codec.train(
            weeks,
            config,
            steps=options.steps,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            seed=seed,
            folder=folder,
        )
    yield train_mstar_codec.judge(model, weeks, weeks.validation)


def generator_rows(weeks: WeekSet, variant: Variant, seed: int, options: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        model = train_mstar.train(
            MstarCodecModel.from_pretrained(options.codec),
            weeks,
            size=options.size,
            variant=variant.form,
            values=variant.values,
            steps=options.steps,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            seed=seed,
            folder=folder,
        )
    rows = judged(weeks, options.judged)
    for name, change in variant.drawing.items():
        yield {"drawing": name, **train_mstar.score(model, weeks, rows, **train_mstar.START | change)}


def counting_rows(weeks: WeekSet, number: int) -> Iterator[Row]:
    """What needs no training: a sample of training weeks, the Markov chain of a home, and exploration and return."""
    rows, train = judged(weeks, number), weeks.cells[weeks.train]
    lat, lon, slots = weeks.tokenizer.lat, weeks.tokenizer.lon, weeks.slots_per_day
    place = {"lat": lat, "lon": lon, "slots_per_day": slots}
    given = Conditions(**weeks.tokenizer.sample_conditions(len(rows), seed=1))
    chosen = np.random.default_rng(1).choice(len(train), len(rows), replace=False)
    markov = HourlyMarkov(slots_per_day=slots).fit(train, num_cells=len(lat))
    returning = ExplorationReturn(slots_per_day=slots).fit(train, lat=lat, lon=lon)
    made = {
        "train sample": train[chosen],
        "HourlyMarkov by home": markov.generate(given, seed=1),
        "ExplorationReturn": returning.generate(given, seed=1),
    }
    for name, cells in made.items():
        real = weeks.cells[rows]
        yield {"variant": name, "drawing": "-", **fidelity(real, hide_hours(cells, real), **place)}


def judged(weeks: WeekSet, number: int) -> np.ndarray:
    """The validation weeks that every generator is compared with, no more than there are training weeks."""
    return np.random.default_rng(0).permutation(weeks.validation)[: min(number, len(weeks.train))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["codec", "generator"])
    parser.add_argument("--weeks", default="simulated", choices=NAMES)
    parser.add_argument("--users", type=int, default=3_000)
    parser.add_argument("--codec", help="of the generators: folder of examples/train_mstar_codec.py")
    parser.add_argument("--variants", nargs="*", help="all by default")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--size", default="small")
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--judged", type=int, default=1_000, help="validation weeks, of the generators")
    parser.add_argument("--output")
    parser.add_argument("--update", action="store_true", help="keep the rows of the file that are not made again")
    options = parser.parse_args()
    generates = options.stage == "generator"
    if generates != bool(options.codec):
        parser.error("--codec goes with generators, and they need one")
    variants = GENERATORS if generates else CODECS
    unknown = set(options.variants or []) - set(variants)
    if unknown:
        parser.error(f"no variant {sorted(unknown)}; choose from {list(variants)}")

    weeks = load_weeks(options.weeks, users=options.users)
    key = ["variant", "drawing", "seed"] if generates else ["variant", "seed"]
    shown = [*key, *(("mean6", "moves_per_day") if generates else ("accuracy", "moves per day, round trip"))]
    table = GrowingTable(shown, options.output, update=key if options.update else ())
    if generates:
        check_trained_on(weeks, options.codec)
        table.add(pd.DataFrame(counting_rows(weeks, options.judged)).assign(seed=1))
    rows_of: Callable[..., Iterator[Row]] = generator_rows if generates else codec_rows
    for name in options.variants or variants:
        for seed in options.seeds:
            start = time.perf_counter()
            rows = pd.DataFrame(rows_of(weeks, variants[name], seed, options))
            rows.insert(0, "variant", name)
            table.add(rows.assign(seed=seed, seconds=round(time.perf_counter() - start)))


if __name__ == "__main__":
    main()
