"""For whom does SAMoE gain on counts? Means per visit and per user, by group, zero-shot; no adaptation, minutes.

    HF_MOBILITY_DATA=... python -m benchmarks.next_location.evaluate_groups checkpoints/samoe-small --output benchmarks/next_location/results

Two tables. `groups.csv`: every model in every group of `hf_mobility.evaluation.groups`. `groups_pairs.csv`: SAMoE minus
a count mix, paired, with intervals by user. "5 %" is the mean over draws, bounds included. "chosen weights" are those of
`ContextMix.for_task`: the city's own where they are clearly better, else the shipped ones. "with counts" averages SAMoE
and the mix with shipped weights, as `NextLocationPipeline(counts=)` does.
"four cities" pools the users of the four target cities. Protocol as in evaluate_transfer.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.next_location.evaluate_transfer import named, open_task
from benchmarks.next_location.other_kind import OTHER_KINDS
from benchmarks.open_data import TARGETS
from benchmarks.tables import save_table
from hf_mobility import ContextMix, NextLocationPipeline, evaluate, make_task, paired_difference, summarize
from hf_mobility.baselines import MixWeights, UserFrequency, UserMarkov
from hf_mobility.evaluation import RankingResult, groups

POOLED = "four cities"
METRICS = ["acc@1", "mrr", "nll", "ece"]
CHOSEN = "context mix, 100 %, chosen weights"
COUNTED = "SAMoE, 100 %, with counts"
PAIRS = (
    ("SAMoE, 0 %", "context mix, 100 %"),
    ("SAMoE, 0 %", CHOSEN),
    ("SAMoE, 5 %", "context mix, 5 %"),
    ("SAMoE, 5 %", CHOSEN),
    ("SAMoE, 100 %", CHOSEN),
    (COUNTED, CHOSEN),
)
Draws = dict[str, list[RankingResult]]


def task_of(name: str) -> Any:
    return open_task(name) if name in TARGETS else make_task(*OTHER_KINDS[name]())


def results_of(task: Any, base: NextLocationPipeline, draws: int) -> Draws:
    """Name -> results, one a draw; counts first."""
    full = task.train_visits()
    few = [task.train_visits(0.05, seed) for seed in range(draws)]
    known = task.city.with_popularity(full)
    models: dict[str, list[Any]] = {
        "UserFrequency": [UserFrequency(full)],
        "UserMarkov": [UserMarkov(full)],
        "context mix, 5 %": [ContextMix(MixWeights.shipped(0.05), counts) for counts in few],
        "context mix, 100 %": [ContextMix(MixWeights.shipped(), full)],
        CHOSEN: [ContextMix.for_task(task)],
        "SAMoE, 0 %": [base.for_city(task.city)],
        "SAMoE, 5 %": [base.for_city(task.city.with_popularity(counts)) for counts in few],
        "SAMoE, 100 %": [base.for_city(known)],
        COUNTED: [base.for_city(known, counts=full)],
    }
    return {name: [evaluate(named(one, name), task) for one in some] for name, some in models.items()}


def pooled(results: Sequence[RankingResult]) -> RankingResult:
    """The same model in several cities as one result; no user and no row is shared."""
    users = np.cumsum([0, *(one.user.max() + 1 for one in results)])
    rows = np.cumsum([0, *(one.rows.max() + 1 for one in results)])
    return RankingResult(
        results[0].name,
        np.concatenate([one.rows + start for one, start in zip(results, rows)]),
        np.concatenate([one.user + start for one, start in zip(results, users)]),
        *(
            np.concatenate([getattr(one, part) for one in results])
            for part in ("rank", "probability", "top_probability")
        ),
    )


def measures(results: Draws, masks: dict[str, np.ndarray], bootstrap: int) -> pd.DataFrame:
    """One row per model and group; the mean over the draws."""
    tables = []
    for draws in results.values():
        parts = [summarize(one, subsets=masks, bootstrap=bootstrap) for one in draws]
        numbers = parts[0].select_dtypes("number").columns
        mean = pd.concat(parts)[numbers].groupby(level=0).mean()
        tables.append(parts[0][["model", "subset"]].join(mean).astype({"n": int, "users": int}))
    ends = [f"{who}{metric}_{end}" for who in ("", "user_") for metric in ("acc@1", "mrr") for end in ("low", "high")]
    both = [f"{who}{metric}" for who in ("", "user_") for metric in METRICS]
    return pd.concat(tables)[["model", "subset", "n", "users", *both, *ends]]


def differences(results: Draws, masks: dict[str, np.ndarray], bootstrap: int) -> pd.DataFrame:
    """SAMoE minus the mix in every group, for two metrics, per visit and per user; the mean over the draws."""
    rows = []
    for ours, rival in PAIRS:
        rivals = results[rival] * (len(results[ours]) if len(results[rival]) == 1 else 1)
        for subset, mask in masks.items():
            for metric in ("acc@1", "mrr"):
                for per in ("visit", "user"):
                    found = [
                        paired_difference(a, b, metric, bootstrap, per=per, subset=mask)
                        for a, b in zip(results[ours], rivals, strict=True)
                    ]
                    head = {"ours": ours, "rival": rival, "subset": subset, "metric": metric, "per": per}
                    users = len(np.unique(results[ours][0].user[mask]))
                    ends = dict(zip(("mean", "low", "high"), np.mean(found, axis=0)))
                    rows.append({**head, "n": int(mask.sum()), "users": users, **ends})
    return pd.DataFrame(rows)


def tables_of(found: dict[str, tuple[Draws, dict[str, np.ndarray]]], bootstrap: int) -> dict[str, pd.DataFrame]:
    """The two tables of all cities, the target cities together last."""
    targets = [found[name] for name in found if name in TARGETS]
    if len(targets) > 1:
        together = {
            name: [pooled(draws) for draws in zip(*(results[name] for results, _ in targets), strict=True)]
            for name in targets[0][0]
        }
        masks = {name: np.concatenate([masks[name] for _, masks in targets]) for name in targets[0][1]}
        found = {**found, POOLED: (together, masks)}
    tables: dict[str, list[pd.DataFrame]] = {"groups": [], "groups_pairs": []}
    for name, (results, masks) in found.items():
        rest = {subset: mask for subset, mask in masks.items() if subset != "all"}
        tables["groups"].append(measures(results, rest, bootstrap).assign(city=name))
        tables["groups_pairs"].append(differences(results, masks, bootstrap).assign(city=name))
    whole = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    return {name: table[table["n"] > 0].set_index("city").reset_index() for name, table in whole.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--cities", nargs="*", default=[*TARGETS, "cabs", "demo"])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--output", help="folder of the two tables")
    options = parser.parse_args()

    base: Any = None
    found: dict[str, tuple[Draws, dict[str, np.ndarray]]] = {}
    for name in options.cities:
        task = task_of(name)
        base = base or NextLocationPipeline.from_pretrained(options.checkpoint, city=task.city)
        masks = {"all": np.ones(len(task.rows), dtype=bool), **groups(task)}
        found[name] = results_of(task, base, options.draws), masks
        print(name, "done", flush=True)
    for name, table in tables_of(found, options.bootstrap).items():
        print(table[table["subset"] == "all"].round(4).to_string(index=False), flush=True)
        if options.output:
            save_table(table, Path(options.output) / f"{name}.csv")


if __name__ == "__main__":
    main()
