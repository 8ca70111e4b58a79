"""Evaluate the baselines on the four target cities and write benchmarks/next_location/results/baselines.csv.

    HF_MOBILITY_DATA=... python -m benchmarks.next_location.evaluate_baselines            # count tables, about half a minute
    HF_MOBILITY_DATA=... python -m benchmarks.next_location.evaluate_baselines --neural   # and the GRU and the transformer

The weights of the mixture are the shipped ones (`fit_mix_weights.py`). Rows with "5 %" take the city's counts from the
training visits of 5 % of the users and are the mean of three draws; the neural baselines learn from all training visits
of the target city.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.next_location.evaluate_transfer import open_task
from benchmarks.open_data import TARGETS
from benchmarks.tables import save_table
from hf_mobility.baselines.count import UserFrequency, UserMarkov
from hf_mobility.baselines.mix import ContextMix
from hf_mobility.baselines.mix_weights import SHIPPED, MixWeights
from hf_mobility.data.tasks import NextLocationTask
from hf_mobility.evaluation import evaluate, new_place_mask, summarize
from hf_mobility.evaluation.report import order_rows, to_markdown

FRACTION = 0.05
DRAWS = (0, 1, 2)
NEURAL = ("gru", "transformer")


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Run the command line and return the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cities", nargs="+", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--count", default=True, action=argparse.BooleanOptionalAction, help="the count tables")
    parser.add_argument("--neural", nargs="*", choices=NEURAL, help="train these too (minutes); both if none is named")
    parser.add_argument("--epochs", type=int, default=30, help="at most, for the neural baselines")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each neural baseline, averaged")
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/next_location/results/baselines.csv"))
    parser.add_argument("--update", action="store_true", help="keep the rows of the file that are not made again")
    options = parser.parse_args(arguments)

    weights = {fraction: MixWeights.shipped(fraction) for fraction in SHIPPED}
    tasks = {name: open_task(name) for name in options.cities}
    neural = () if options.neural is None else options.neural or NEURAL

    tables: list[pd.DataFrame] = []
    for kind in (*(["count"] if options.count else []), *neural):
        for name, task in tasks.items():
            if kind == "count":
                rows = count_rows(task, weights, options.bootstrap)
            else:
                rows = neural_rows(task, kind, options.epochs, range(options.seeds), options.bootstrap)
            table = pd.concat(rows, ignore_index=True)
            table.insert(0, "city", name)
            print(to_markdown(table[table["subset"] == "all"], intervals=False), flush=True)
            tables.append(table)
            # After every city: the neural ones take minutes, and what is done should not be lost.
            table = order_rows(pd.concat(tables, ignore_index=True))
            save_table(table, options.output, update=["city", "model"] if options.update else ())
    return pd.concat(tables, ignore_index=True)


def count_rows(task: NextLocationTask, weights: dict[float, MixWeights], bootstrap: int) -> list[pd.DataFrame]:
    """Tables of the count baselines."""
    few = [task.train_visits(FRACTION, seed) for seed in DRAWS]
    predictors = {
        "UserFrequency (ties by popularity, 5 %)": [UserFrequency(counts) for counts in few],
        "UserMarkov (ties by popularity, 5 %)": [UserMarkov(counts) for counts in few],
        "ContextMix (no counts)": [ContextMix(weights[0.0])],
        "ContextMix (counts of 5 %)": [ContextMix(weights[FRACTION], counts) for counts in few],
        "ContextMix (counts of 100 %)": [ContextMix(weights[1.0], task.train_visits())],
    }
    return [_averaged(name, some, task, bootstrap) for name, some in predictors.items()]


def neural_rows(
    task: NextLocationTask, kind: str, epochs: int, seeds: Sequence[int], bootstrap: int
) -> list[pd.DataFrame]:
    """Tables of a neural baseline, trained here on all training visits of the city."""
    # torch takes a second to import and the count tables do without it.
    import torch

    from hf_mobility.baselines.neural import GRUBaseline, TransformerBaseline

    torch.set_num_threads(1)
    baseline = {"gru": GRUBaseline, "transformer": TransformerBaseline}[kind]
    fitted = [baseline().fit(task, seed=seed, epochs=epochs) for seed in seeds]
    for model in fitted:
        print(f"{task.city.name}: {model.name}, best epoch {model.best_epoch} by validation on training visits")
    return [_averaged(f"{baseline.name} (100 %)", fitted, task, bootstrap)]


def _averaged(name: str, predictors: list, task: NextLocationTask, bootstrap: int) -> pd.DataFrame:
    """One table for several draws or seeds: means of every number, plus the spread of Acc@1 and MRR between them."""
    subsets = {"new places": new_place_mask(task)}
    draws = [summarize(evaluate(p, task), subsets=subsets, bootstrap=bootstrap) for p in predictors]
    table = draws[0].copy()
    numeric = table.select_dtypes("number").columns
    values = pd.concat([draw[numeric] for draw in draws], keys=range(len(draws)))
    table[numeric] = values.groupby(level=1).mean().astype(table.dtypes[numeric])
    table["model"] = name
    table["draws"] = len(draws)
    for metric in ("acc@1", "mrr"):
        table[f"sd of {metric}"] = values[metric].groupby(level=1).std(ddof=1) if len(draws) > 1 else float("nan")
    return table


if __name__ == "__main__":
    main()
