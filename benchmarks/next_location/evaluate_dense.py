"""Dense cities, the regime of the paper: does 5 % of a city's users do as well as training on all of them?

    python -m benchmarks.next_location.evaluate_dense runs/check-ins --output benchmarks/next_location/results/dense.csv
    python -m benchmarks.next_location.evaluate_dense checkpoints/samoe-small --rows zero-shot --update --output benchmarks/next_location/results/dense.csv

Everything is simulated. The target has 20,000 users with habits of their own (drawn per city). 500 other users of it
are evaluated: the last 20 % of their visits, the arrival time not given; none of them is in any training set. Two
models start without data of the city: one of check-ins, which does not know the generator, and one trained on four other
simulated cities. With `--rows zero-shot` a checkpoint is evaluated as it is. Both are adapted as `adapt` chooses, and by a longer training than it knows,
because 5 % of such a city are more visits than all of a small one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.next_location.evaluate_transfer import named
from benchmarks.next_location.other_kind import simulated_pairs
from benchmarks.next_location.training import train_samoe
from benchmarks.tables import GrowingTable
from hf_mobility import (
    City,
    ContextMix,
    NextLocationPipeline,
    SamoeConfig,
    SamoeForNextLocation,
    SamoeTokenizer,
    adapt,
    evaluate,
    make_task,
    simulate_cities,
    simulate_city,
    summarize,
)
from hf_mobility.baselines.count import UserFrequency, UserMarkov
from hf_mobility.evaluation.ranking import new_place_mask
from hf_mobility.training.adapt import STRENGTHS

ROWS = ("baselines", "check-ins", "simulated cities", "scratch", "zero-shot")
# All the way, and through the visits ten times, however many they are.
LONG = replace(STRENGTHS["strong"], shrink=1.0, max_steps=10_000)
SHOWN = ["model", "subset", "n", "acc@1", "acc@5", "acc@10", "mrr", "mrr_low", "mrr_high", "nll", "seconds"]


def people(visits: pd.DataFrame, first: int, stop: int) -> pd.DataFrame:
    """Visits of the people numbered first..stop - 1; people of a simulated city are alike in distribution."""
    return visits[visits["user_id"].between(first, stop - 1)].reset_index(drop=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--judged", type=int, default=500)
    parser.add_argument("--locations", type=int, default=2_000)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--source-people", type=int, default=1_500, help="of each of the four source cities")
    parser.add_argument("--epochs", type=float, default=2, help="from scratch on 100 %%; ten times as many on 5 %%")
    parser.add_argument("--source-epochs", type=float, default=6, help="on the four other cities")
    parser.add_argument("--rows", nargs="+", default=list(ROWS[:-1]), choices=ROWS)
    parser.add_argument("--update", action="store_true", help="keep the rows of the file that are not made again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output")
    options = parser.parse_args()

    target = simulate_city(
        options.people + options.judged,
        num_days=options.days,
        num_locations=options.locations,
        seed=options.seed + 1,
        radius_km=9.0,
        shape="polycentric",
    )
    bare = City.from_visits(target.visits, timezone=target.timezone, pois=target.pois, popularity_from=None)
    start = int(target.visits["user_id"].min())
    full = people(target.visits, start, start + options.people)
    few = people(target.visits, start, start + options.people // 20)
    task = make_task(people(target.visits, start + options.people, start + options.people + options.judged), bare)
    print(f"{len(full):,} visits, {len(few):,} of 5 %, {len(task.rows):,} targets, {len(bare):,} places", flush=True)

    sources = simulated_pairs(
        simulate_cities(
            4,
            num_users=options.source_people,
            num_days=options.days,
            num_locations=options.locations // 2,
            seed=options.seed + 100,
        )
    )
    results = GrowingTable(SHOWN, options.output, update=["model"] if options.update else ())

    def report(predictor: Any, name: str, seconds: float = 0.0) -> None:
        table = summarize(evaluate(named(predictor, name), task), subsets={"new places": new_place_mask(task)})
        results.add(table.assign(seconds=round(seconds)))

    if "baselines" in options.rows:
        report_baselines(report, sources, full, few, bare)
    config = SamoeConfig.from_preset("small")
    bases: dict[str, tuple[SamoeForNextLocation, float]] = {}
    if "check-ins" in options.rows:
        bases["check-ins"] = SamoeForNextLocation.from_pretrained(options.checkpoint), 0.0
    if "simulated cities" in options.rows:
        bases["four simulated cities"] = _timed(
            train_samoe, sources, config, epochs=options.source_epochs, seed=options.seed, augment=True
        )
    here = bare.with_popularity(few)
    for kind, (base, seconds) in bases.items():
        pipe = NextLocationPipeline(base, SamoeTokenizer.from_city(here, base.config))
        report(pipe, f"pre-trained on {kind}, zero-shot", seconds)
        for strength in ("auto", LONG):
            local = adapt(base, few, city=here, strength=strength, seed=options.seed)
            print(local.report.round(4).to_string(index=False), local.reason)
            name = "ten epochs" if strength is LONG else f"auto: {local.strength}"
            pipe = NextLocationPipeline(local.model, local.tokenizer)
            report(pipe, f"pre-trained on {kind}, 5 % LoRA ({name})", local.seconds)
    if "zero-shot" in options.rows:
        pipe = NextLocationPipeline.from_pretrained(options.checkpoint, city=here)
        report(pipe, f"{Path(options.checkpoint).name}, zero-shot")
    for visits, share in ((few, "5 %"), (full, "100 %")) if "scratch" in options.rows else ():
        here = bare.with_popularity(visits)
        epochs = options.epochs if share == "100 %" else 10 * options.epochs
        model, seconds = _timed(train_samoe, [(visits, here)], config, epochs=epochs, seed=options.seed)
        pipe = NextLocationPipeline(model, SamoeTokenizer.from_city(here, config))
        report(pipe, f"from scratch, {share}, {epochs:g} epochs", seconds)


def report_baselines(
    report: Callable[..., None],
    sources: list[tuple[pd.DataFrame, City]],
    full: pd.DataFrame,
    few: pd.DataFrame,
    bare: City,
) -> None:
    """Count tables; the mix has its weights from the other cities or, in the last row, from this one."""
    report(UserFrequency(full), "user frequency")
    report(UserMarkov(full), "user Markov")
    mix = ContextMix.fit(
        [make_task(people(visits, 0, 400 + visits["user_id"].min()), city) for visits, city in sources]
    )
    report(ContextMix(mix, counts_from=few), "context mix, 5 %")
    report(ContextMix(mix, counts_from=full), "context mix, 100 %")
    start = int(full["user_id"].min())
    on_target = ContextMix.fit([make_task(people(full, start, start + 2_000), bare.with_popularity(full))])
    report(ContextMix(on_target, counts_from=full), "context mix, weights and counts 100 %")


def _timed(action: Callable[..., Any], *arguments: Any, **keywords: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return action(*arguments, **keywords), time.perf_counter() - start


if __name__ == "__main__":
    main()
