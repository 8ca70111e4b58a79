"""A pre-trained SAMoE in cities it never saw: baselines first, with intervals and paired differences.

    HF_MOBILITY_DATA=... python -m benchmarks.next_location.evaluate_transfer checkpoints/samoe-small --output benchmarks/next_location/results
    ... --cities milwaukee boston --checkpoint runs/without   # cross-validation on sources, never on the targets

Protocol: users with at least 10 visits; the last 20 % of each user's visits are the targets, every one scored once over
all venues of the city file; the arrival time is not given. "5 %" is the training part of a random 5 % of users (3
draws), "100 %" of all of them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.open_data import CITIES, TARGETS, open_checkins, source_pairs
from benchmarks.tables import save_table
from hf_mobility import (
    City,
    ContextMix,
    NextLocationPipeline,
    adapt,
    evaluate,
    make_task,
    paired_difference,
    summarize,
)
from hf_mobility.baselines.count import UserFrequency, UserMarkov
from hf_mobility.baselines.mix_weights import SHIPPED, MixWeights
from hf_mobility.evaluation.ranking import RankingResult, new_place_mask


def open_task(name: str, visits: pd.DataFrame | None = None) -> Any:
    """The task of one city: every venue of its file is a candidate."""
    visits = open_checkins(name) if visits is None else visits
    return make_task(visits, City.from_visits(visits, timezone=CITIES[name].timezone, name=name, popularity_from=None))


def mix_weights(cities: list[str], *, user_fraction: float = 1.0) -> Any:
    """Weights of the context mix for counts of a share of the people: the shipped ones, or fitted without the sources
    that are evaluated, or for another share."""
    if user_fraction in SHIPPED and set(cities) <= set(TARGETS):
        return MixWeights.shipped(user_fraction)
    sources = source_pairs([name for name in cities if name not in TARGETS])
    return ContextMix.fit([make_task(visits, city) for visits, city in sources], user_fraction=user_fraction)


def named(predictor: Any, name: str) -> Any:
    predictor.name = name
    return predictor


def compare(
    task: Any, checkpoint: str, weights: dict[float, Any], fractions: list[float], *, draws: int, strengths: list[str]
) -> tuple[list[RankingResult], list[dict]]:
    """All rows of one city, baselines first, and a report of every adaptation."""
    base = NextLocationPipeline.from_pretrained(checkpoint, city=task.city)
    full = task.train_visits()
    rows: list[Any] = [
        UserFrequency(full),
        UserMarkov(full),
        named(ContextMix(weights[1.0], counts_from=full), "context mix, 100 %"),
    ]
    ours, reports = [named(base.for_city(task.city), "SAMoE zero-shot, 0 %")], []
    for fraction in fractions:
        for draw in range(draws if fraction < 1 else 1):
            few = task.train_visits(fraction, seed=draw)
            city = task.city.with_popularity(few)
            label = f"{fraction:.0%} draw {draw}".replace("%", " %")
            rows.append(named(ContextMix(weights[fraction], counts_from=few), f"context mix, {label}"))
            ours.append(named(base.for_city(city), f"SAMoE zero-shot, popularity of {label}"))
            for strength in strengths:
                local = adapt(base.model, few, city=city, strength=strength, seed=draw)
                known = {"fraction": fraction, "draw": draw, "people": few["user_id"].nunique(), "visits": len(few)}
                scores = dict(zip("nll of " + local.report["strength"].astype(str), local.report["nll"]))
                reports.append(
                    {**known, **scores, "asked": strength, "used": local.strength, "seconds": round(local.seconds, 1)}
                )
                ours.append(
                    NextLocationPipeline(local.model, local.tokenizer, name=f"SAMoE + LoRA {strength}, {label}")
                )
    return [evaluate(row, task) for row in rows + ours], reports


def differences(results: list[RankingResult]) -> pd.DataFrame:
    """Each row of ours against the mix of the same draw and against the mix of 100 %, paired by person."""
    by_name = {result.name: result for result in results}
    rows = []
    for name in (name for name in by_name if name.startswith("SAMoE")):
        draw = name.partition(", ")[2].removeprefix("popularity of ")
        for rival in dict.fromkeys((f"context mix, {draw}", "context mix, 100 %")):
            for metric in ("acc@1", "mrr") if rival in by_name else ():
                mean, low, high = paired_difference(by_name[name], by_name[rival], metric=metric)
                rows.append({"ours": name, "rival": rival, "metric": metric, "mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--cities", nargs="*", default=list(TARGETS))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--fractions", nargs="*", type=float, default=[0.05], help="shares of the people to adapt on")
    parser.add_argument("--adapt", nargs="*", default=["auto"], help="strengths to try: auto none weak strong")
    parser.add_argument("--output", help="folder for the tables")
    parser.add_argument("--name", default="transfer", help="first part of the tables' file names")
    options = parser.parse_args()

    fractions = sorted(set(options.fractions))
    weights = {fraction: mix_weights(options.cities, user_fraction=fraction) for fraction in {*fractions, 1.0}}
    tables: dict[str, list[pd.DataFrame]] = {"": [], "_pairs": [], "_adaptations": []}
    for name in options.cities:
        task = open_task(name)
        new = new_place_mask(task)
        results, reports = compare(
            task, options.checkpoint, weights, fractions, draws=options.draws, strengths=options.adapt
        )
        summary = summarize(results, subsets={"new places": new, "known places": ~new})
        for kind, table in (("", summary), ("_pairs", differences(results)), ("_adaptations", pd.DataFrame(reports))):
            if len(table):  # without shares of the people there is nothing to adapt on
                table.insert(0, "city", name)
                tables[kind].append(table)
        shown = summary[summary["subset"] == "all"][["model", "acc@1", "acc@5", "acc@10", "mrr", "nll", "ece"]]
        print(
            name,
            shown.round(4).to_string(index=False),
            *(t[-1].round(4).to_string(index=False) for k, t in tables.items() if k and t),
            sep="\n",
        )
        sys.stdout.flush()
        if options.output:
            for kind, parts in tables.items():
                if parts:
                    save_table(pd.concat(parts), Path(options.output) / f"{options.name}{kind}.csv")


if __name__ == "__main__":
    main()
