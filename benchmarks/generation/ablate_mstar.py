r"""Ablations of M-STAR: the same short training with one part changed, several seeds.

    HF_MOBILITY_DATA=... python -m benchmarks.generation.ablate_mstar codec --weeks geolife_days --output mstar_codec_ablation.csv
    HF_MOBILITY_DATA=... python -m benchmarks.generation.ablate_mstar generator --weeks geolife_days --codec runs/codec-days \
        --output mstar_ablation.csv

Evaluated on the validation users: codecs by the round trip, generators by the fidelity of weeks for drawn conditions.
Beside the generators stand a sample of training weeks and two counting baselines. Rows are written one by one.
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

from benchmarks.generation import train_mstar, train_mstar_codec
from benchmarks.generation.evaluate_mstar import fitted_baselines
from benchmarks.generation.weeks import NAMES, WeekSet, check_trained_on, load_weeks
from benchmarks.options import training_of
from benchmarks.tables import GrowingTable
from hf_mobility import MstarCodecModel
from hf_mobility.baselines.generators import Conditions


@dataclass(frozen=True)
class Variant:
    """Values of the config that are changed in a `form`. Of generators also ways of drawing: name -> changes of the
    plain settings; what is not named is drawn as it was trained.
    """

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
    "finest cells on every level": Variant({"level_resolutions": [3] * 8}),
    "nested cells": Variant({"hierarchical_cells": True}),
    "as published": Variant(form="released"),
}
FOUR = {"within_level_steps": 4}
THREE_WAYS = {"plain": {}, "of the 20 best codes": {"top_k": 20}, "best path": {"decoding": "viterbi"}}
GENERATORS = {
    "one pass": Variant(
        drawing={
            "plain": {},
            "temperature .9": {"temperature": 0.9},
            "of the 20 best codes": {"top_k": 20},
            "smoothed": {"smoothing_window": 3},
            "best path": {"decoding": "viterbi"},
            "drawn path": {"decoding": "sample"},
        },
    ),
    "two passes": Variant({"within_level_steps": 2}),
    "four passes": Variant(FOUR, drawing=THREE_WAYS),
    "seven passes": Variant({"within_level_steps": 7}),
    "places copied": Variant({"pointer_head": True}),
    "places copied, four passes": Variant({**FOUR, "pointer_head": True}, drawing=THREE_WAYS),
    "own codes": Variant({"scheduled_sampling": 0.25}),
    "own codes, four passes": Variant({**FOUR, "scheduled_sampling": 0.25}),
    "noisy codes, four passes": Variant({**FOUR, "code_noise": 0.1}),
    "conditions hidden, four passes": Variant(
        {**FOUR, "condition_dropout": 0.1}, drawing={"plain": {}, "guidance 1.5": {"guidance": 1.5}}
    ),
    "no dropout, four passes": Variant({**FOUR, "dropout": 0.0, "drop_path": 0.0}),
    "as published": Variant(form="released", drawing={"published": train_mstar.PAPER}),
}
COUNTED = ("HourlyMarkov by home", "ExplorationReturn")
Row = dict[str, Any]


def trained(train: Callable[..., Any], *given: Any, options: argparse.Namespace, seed: int, **more: Any) -> Any:
    """A model of `train_mstar_codec.train` or `train_mstar.train`; nothing of the run is kept."""
    with tempfile.TemporaryDirectory() as folder:
        return train(*given, seed=seed, folder=folder, **training_of(options), **more)


def codec_rows(weeks: WeekSet, variant: Variant, seed: int, options: argparse.Namespace) -> Iterator[Row]:
    config = train_mstar_codec.codec_config(weeks, options.size, variant.form, **variant.values)
    model = trained(train_mstar_codec.train, weeks, config, options=options, seed=seed)
    yield train_mstar_codec.judge(model, weeks, weeks.validation)


def generator_rows(weeks: WeekSet, variant: Variant, seed: int, options: argparse.Namespace) -> Iterator[Row]:
    codec = MstarCodecModel.from_pretrained(options.codec)
    what = {"size": options.size, "variant": variant.form, "values": variant.values}
    model = train_mstar.new_generator(codec, weeks, seed=seed, **what)
    model = trained(train_mstar.train, model, weeks, options=options, seed=seed)
    rows = train_mstar.judged_weeks(weeks, options.judged)
    for name, change in variant.drawing.items():
        yield {"drawing": name, **train_mstar.score(model, weeks, rows, **train_mstar.PLAIN | change)}


def counting_rows(weeks: WeekSet, number: int) -> Iterator[Row]:
    """What needs no training: a sample of training weeks, the Markov chain of a home, and exploration and return."""
    rows, train = train_mstar.judged_weeks(weeks, number), weeks.cells[weeks.train]
    given = Conditions(**weeks.tokenizer.sample_conditions(len(rows), seed=1))
    baselines = fitted_baselines(weeks, seed=0)
    made = {"train sample": train[np.random.default_rng(1).choice(len(train), len(rows), replace=False)]}
    made |= {name: baselines[name].generate(given, seed=1) for name in COUNTED}
    for name, cells in made.items():
        yield {"variant": name, "drawing": "-", **train_mstar.compare(weeks, rows, cells)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["codec", "generator"])
    parser.add_argument("--weeks", default="simulated", choices=NAMES)
    parser.add_argument("--users", type=int, default=3_000)
    parser.add_argument("--codec", help="of the generators: folder of benchmarks/generation/train_mstar_codec.py")
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
