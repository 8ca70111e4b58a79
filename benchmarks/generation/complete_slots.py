"""Completion of known weeks in simulated cities that no training has seen, beside copying.

    python -m benchmarks.generation.complete_slots checkpoints/mstar-small --output benchmarks/generation/results/completion_slots.csv

Cities as in `evaluate_slots`; places are compared, not cells. `with 30 users` was adapted on their weeks.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.generation.complete_weeks import COPIES, VOTES
from benchmarks.generation.evaluate_slots import CITIES, Unseen
from benchmarks.tables import save_table
from hf_mobility import TrajectoryGenerationPipeline
from hf_mobility.evaluation import completion_report


def completed(pipe: Any, draws: int, seed: int, given: np.ndarray) -> np.ndarray:
    return np.asarray(pipe.complete(given, draws=draws, seed=seed, to="places"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of the model of slots")
    parser.add_argument("--cities", nargs="+", default=list(CITIES), choices=list(CITIES))
    parser.add_argument("--number", type=int, default=300, help="weeks of each city")
    parser.add_argument("--votes", type=int, default=VOTES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe, tables = TrajectoryGenerationPipeline.from_pretrained(options.model), []
    for name in options.cities:
        unseen = Unseen(name)
        there, tuned = unseen.pipelines(pipe)
        models = dict(COPIES)
        for title, own in (("M-STAR, slots", there), ("M-STAR, slots, with 30 users", tuned)):
            models[f"{title}, one draw"] = partial(completed, own, 1, options.seed)
            models[f"{title}, vote of {options.votes}"] = partial(completed, own, options.votes, options.seed)
        rows = np.random.default_rng(options.seed).permutation(unseen.other)[: options.number]
        table = completion_report(models, unseen.places[rows])
        table.insert(0, "city", name)
        print(table.pivot(index="model", columns="gap", values="accuracy").round(3).to_string(), flush=True)
        tables.append(table)
    if options.output:
        save_table(pd.concat(tables), options.output)


if __name__ == "__main__":
    main()
