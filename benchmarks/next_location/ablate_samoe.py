"""Ablations of SAMoE: the same short training with one part changed, evaluated on cities left out.

    HF_MOBILITY_DATA=... python -m benchmarks.next_location.ablate_samoe --epochs 1 --output benchmarks/next_location/results/ablation.csv

Trained on eight source cities, evaluated on four others with the popularity of a random 5 % of their users; the target
cities of the results page take no part. Differences are paired by user against the full model of seed 0; the rows of
its other seeds show how much is noise.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.next_location.training import train_samoe
from benchmarks.open_data import CITIES, open_checkins, source_pairs
from benchmarks.tables import save_table
from hf_mobility import (
    City,
    ContextMix,
    NextLocationPipeline,
    SamoeConfig,
    SamoeTokenizer,
    evaluate,
    make_task,
    paired_difference,
)
from hf_mobility.data.sequences import day_windows
from hf_mobility.evaluation.ranking import RankingResult, new_place_mask

HELD_OUT = ("boston", "los_angeles", "monterrey", "gowalla_dallas")


@dataclass(frozen=True)
class Variant:
    """What is changed: values of the config of a `form`, keywords of the trainer, the number of source cities (with as
    many steps), how many `times` as long the training is, and the visits that are looked back on in the evaluation.
    """

    values: dict[str, Any] = field(default_factory=dict)
    form: str = "extended"
    trainer: dict[str, Any] = field(default_factory=dict)
    cities: int | None = None
    times: float = 1
    context: int = 128


VANILLA: dict[str, Any] = {"values": {"num_poi_features": 60}, "context": 20}  # trained on three days: about 20 visits
VARIANTS: dict[str, Variant] = {
    "full": Variant(),
    "no pointer head": Variant({"pointer_head": False}),
    "one pointer head": Variant({"num_pointer_heads": 1}),
    "pointer without pair features": Variant({"pointer_features": False}),
    "no activity space": Variant({"activity_features": False}),
    "no relative features": Variant({"relative_features": False}),
    "no POI": Variant({"use_poi": False}),
    "no popularity": Variant({"use_popularity": False}),
    "one FFN (d -> 4 d)": Variant({"mixture": False}),
    "one FFN of equal active size (d -> 16 d)": Variant({"mixture": False, "intermediate_size": 2048}),
    "no augmentation": Variant(trainer={"augment": False}),
    "reads 512 visits": Variant(context=512),
    "trained on 512 visits, reads 512": Variant(context=512, trainer={"window": 512}),
    "three times as long": Variant(times=3),
    "four source cities, as many steps": Variant(cities=4),
    "arrival time given (another task)": Variant({"arrival_time": True}),
    "released (vanilla)": Variant(form="released", **VANILLA),
    "paper (vanilla)": Variant(form="paper", **VANILLA),
}


def load() -> tuple[list[tuple[pd.DataFrame, City]], dict[str, Any]]:
    """Training pairs (visits, city) and the held-out tasks."""
    tasks = {}
    for name in HELD_OUT:
        visits = open_checkins(name)
        city = City.from_visits(visits, timezone=CITIES[name].timezone, name=name, popularity_from=None)
        tasks[name] = make_task(visits, city)
    return source_pairs(HELD_OUT), tasks


def train(pairs: list[tuple[pd.DataFrame, City]], variant: Variant, *, epochs: float, seed: int) -> Any:
    chosen = pairs[: variant.cities]
    epochs *= variant.times * sum(len(visits) for visits, _ in pairs) / sum(len(visits) for visits, _ in chosen)
    config = SamoeConfig.from_preset("small", variant=variant.form, **variant.values)
    rule = None if variant.form == "extended" else (lambda sequences, rng: day_windows(sequences))
    options = {"augment": True, "window_rule": rule, **variant.trainer}
    return train_samoe(chosen, config, epochs=epochs, seed=seed, **options)


def score(model: Any, task: Any, context: int) -> RankingResult:
    city = task.city.with_popularity(task.train_visits(0.05, seed=0))
    tokenizer = SamoeTokenizer.from_city(city, model.config)
    return evaluate(NextLocationPipeline(model, tokenizer, context=context), task)


def row(name: str, seed: int, results: dict[str, RankingResult], tasks: dict[str, Any], full: dict | None) -> dict:
    """Means over the held-out cities."""
    out: dict[str, Any] = {"variant": name, "seed": seed}
    for metric in ("acc@1", "acc@5", "acc@10", "mrr", "nll"):
        out[metric] = np.mean([result.metric(metric).mean() for result in results.values()])
    new = {city: new_place_mask(task) for city, task in tasks.items()}
    out["mrr known places"] = np.mean([r.metric("mrr")[~new[city]].mean() for city, r in results.items()])
    out["acc@10 new places"] = np.mean([r.metric("acc@10")[new[city]].mean() for city, r in results.items()])
    if full is not None and not any(result.arrival_time_given for result in results.values()):
        gaps = [paired_difference(results[city], full[city], metric="mrr") for city in results]
        out["mrr minus full"] = np.mean([gap.mean for gap in gaps])
        out["cities clearly below full"] = sum(gap.high < 0 for gap in gaps)
        out["cities clearly above full"] = sum(gap.low > 0 for gap in gaps)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument(
        "--seeds", type=int, default=3, help="seeds of the full model; the variants are run with seed 0"
    )
    parser.add_argument("--output")
    parser.add_argument("--update", action="store_true", help="keep the rows of the file that are not made again")
    options = parser.parse_args()

    pairs, tasks = load()
    mix = ContextMix.fit([make_task(visits, city) for visits, city in pairs], user_fraction=0.05)
    few = {name: task.train_visits(0.05, seed=0) for name, task in tasks.items()}
    results = {name: evaluate(ContextMix(mix, counts_from=few[name]), task) for name, task in tasks.items()}
    rows, full = [row("context mix, 5 %", 0, results, tasks, None)], None
    for name in options.variants:
        for seed in range(options.seeds if name == "full" else 1):
            start = time.process_time()
            model = train(pairs, VARIANTS[name], epochs=options.epochs, seed=seed)
            seconds = time.process_time() - start
            results = {city: score(model, task, VARIANTS[name].context) for city, task in tasks.items()}
            full = results if full is None and name == "full" else full
            line = row(name, seed, results, tasks, full)
            rows.append({**line, "parameters": model.num_parameters(), "training CPU s": round(seconds)})
            print(pd.Series(rows[-1]).to_dict(), flush=True)
            if options.output:
                save_table(pd.DataFrame(rows), options.output, update=["variant", "seed"] if options.update else ())
    print(pd.DataFrame(rows).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
