"""How well does a pre-trained SAMoE work in cities it never saw? Baselines first, with intervals and paired
differences.

    HF_MOBILITY_DATA=... python examples/evaluate_transfer.py checkpoints/samoe-small --output docs/results
    ... --cities milwaukee boston --checkpoint runs/without   # cross-validation over source cities: choose here,
    never on the targets

Protocol: people with at least 10 visits; the last 20 % of each person's visits are the targets, every one scored once
over all venues of the city
file; the arrival time is not given. "5 %" is the training part of a random 5 % of people (3 draws), "100 %" of all of
them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _open_data import CITIES, TARGETS, drop_shared_users, open_checkins, source_cities

from hf_mobility import City, ContextMix, NextLocationPipeline, adapt, evaluate, make_task, paired_difference, summarise
from hf_mobility.baselines.count import UserFrequency, UserMarkov
from hf_mobility.evaluation.ranking import new_place_mask


def open_task(name: str, visits: pd.DataFrame | None = None) -> Any:
    """The task of one city: every venue of its file is a candidate."""
    visits = open_checkins(name) if visits is None else visits
    return make_task(visits, City.from_visits(visits, timezone=CITIES[name].timezone, name=name, popularity_from=None))


def mix_weights(cities: list[str]) -> Any:
    """Weights of the context mix, from source cities that are not evaluated, without the people of the evaluated
    ones."""
    sources = {name: open_checkins(name) for name in source_cities() if name not in cities}
    cleaned = drop_shared_users(sources, {name: open_checkins(name) for name in cities})
    tasks = [
        make_task(visits, City.from_visits(sources[name], timezone=CITIES[name].timezone, name=name))
        for name, visits in cleaned.items()
    ]
    return ContextMix.fit(tasks)


def named(predictor: Any, name: str) -> Any:
    predictor.name = name
    return predictor


def city_table(
    name: str, checkpoint: str, weights: Any, *, draws: int, adaptations: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, list[dict]]:
    task = open_task(name)
    full = task.train_visits()
    base = NextLocationPipeline.from_pretrained(checkpoint, city=task.city)
    results = [
        evaluate(named(UserFrequency(), "user frequency"), task),
        evaluate(named(UserMarkov(), "user Markov-1"), task),
        evaluate(named(ContextMix(weights, counts_from=full), "context mix, 100 %"), task),
    ]
    chosen = []
    results.append(evaluate(named(base.for_city(task.city), "SAMoE zero-shot, 0 %"), task))
    for draw in range(draws):
        few = task.train_visits(0.05, seed=draw)
        city = task.city.with_popularity(few)
        results.append(evaluate(named(ContextMix(weights, counts_from=few), f"context mix, 5 % draw {draw}"), task))
        results.append(evaluate(named(base.for_city(city), f"SAMoE zero-shot, 5 % popularity draw {draw}"), task))
        for strength in adaptations:
            local = adapt(base.model, city, few, strength=strength, seed=draw)
            chosen.append(
                {
                    "city": name,
                    "draw": draw,
                    "asked": strength,
                    "used": local.strength,
                    "seconds": local.seconds,
                    "reason": local.reason,
                }
            )
            results.append(
                evaluate(
                    NextLocationPipeline(
                        local.model, local.tokenizer, name=f"SAMoE + LoRA {strength}, 5 % draw {draw}"
                    ),
                    task,
                )
            )
    new = new_place_mask(task)
    table = summarise(results, subsets={"new places": new, "known places": ~new})
    table.insert(0, "city", name)
    by_name = {result.name: result for result in results}
    pairs = []
    for ours in (n for n in by_name if n.startswith("SAMoE") and ("draw 0" in n or "0 %" in n)):
        for rival in ("context mix, 5 % draw 0", "context mix, 100 %"):
            for metric in ("acc@1", "mrr"):
                if rival in by_name:
                    mean, low, high = paired_difference(by_name[ours], by_name[rival], metric=metric)
                    pairs.append(
                        {
                            "city": name,
                            "ours": ours,
                            "rival": rival,
                            "metric": metric,
                            "mean": mean,
                            "low": low,
                            "high": high,
                        }
                    )
    return table, pd.DataFrame(pairs), chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--cities", nargs="*", default=list(TARGETS))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--adapt", nargs="*", default=["auto"], help="strengths to try: auto none weak strong")
    parser.add_argument("--output", help="folder for transfer.csv, transfer_pairs.csv and adaptations.csv")
    options = parser.parse_args()

    weights = mix_weights(options.cities)
    tables, pairs, chosen = [], [], []
    for name in options.cities:
        table, differences, reports = city_table(
            name, options.checkpoint, weights, draws=options.draws, adaptations=options.adapt
        )
        tables.append(table), pairs.append(differences), chosen.extend(reports)
        print(table.round(4).to_string(), differences.round(4).to_string(), *reports, sep="\n", flush=True)
    everything = pd.concat(tables, ignore_index=True)
    if options.output:
        folder = Path(options.output)
        folder.mkdir(parents=True, exist_ok=True)
        everything.to_csv(folder / "transfer.csv", index=False)
        pd.concat(pairs).to_csv(folder / "transfer_pairs.csv", index=False)
        pd.DataFrame(chosen).to_csv(folder / "adaptations.csv", index=False)


if __name__ == "__main__":
    main()
