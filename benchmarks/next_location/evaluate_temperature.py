"""What the temperature that `adapt` fits does to the probabilities: log-loss and calibration with it and without.

    python -m benchmarks.next_location.evaluate_temperature checkpoints/samoe-small --output benchmarks/next_location/results/temperature.csv

A part of the users adapts (`strength="auto"`), the others are evaluated on the last 20 % of their visits. Users who are
"seen always" are simulated; check-ins are sparse.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from benchmarks.next_location.evaluate_gaps import visits_of
from benchmarks.tables import GrowingTable
from hf_mobility import NextLocationPipeline, SamoeTokenizer, adapt, evaluate, make_task, summarize

CITIES = ("chicago", "calgary", "simulated, seen always")
SHOWN = ["city", "strength", "temperature", "used", "n", "nll", "ece", "mrr"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--users", type=int, default=120)
    parser.add_argument("--adapting", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output")
    options = parser.parse_args()

    growing = GrowingTable(SHOWN, options.output)
    for name in CITIES:
        visits, city = visits_of(name, users=options.users, seed=options.seed)
        users = np.random.default_rng(options.seed).permutation(visits["user_id"].unique())
        adapts = visits["user_id"].isin(users[: options.adapting])
        known, others = visits[adapts].reset_index(drop=True), visits[~adapts].reset_index(drop=True)
        local = adapt(options.checkpoint, known, city=city.with_popularity(known), seed=options.seed, device="cpu")
        task = make_task(others, city)
        plain = SamoeTokenizer.from_city(local.tokenizer.city, local.model.config)
        base = NextLocationPipeline.from_pretrained(options.checkpoint, city=local.tokenizer.city)
        adapted = NextLocationPipeline(local.model, plain)
        fitted = NextLocationPipeline(local.model, local.tokenizer)
        for used, pipe in (("not adapted", base), ("adapted", adapted), ("adapted, fitted temperature", fitted)):
            table = summarize([evaluate(pipe, task)], seed=options.seed)
            facts = {"city": name, "strength": local.strength, "temperature": pipe.tokenizer.temperature}
            growing.add(pd.DataFrame(table).assign(**facts, used=used))


if __name__ == "__main__":
    main()
