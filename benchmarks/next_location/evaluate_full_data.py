"""The same network trained from scratch on 100 % of the target city: the baseline that sees everything.

    HF_MOBILITY_DATA=... python -m benchmarks.next_location.evaluate_full_data --output benchmarks/next_location/results/full_data.csv

The number of epochs is chosen on the last tenth of each user's training visits (never on targets); then the network is
trained again on all of them for that long. Compare with the zero-shot rows of
benchmarks/next_location/evaluate_transfer.py, which see nothing of the city but its map.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from benchmarks.next_location.evaluate_transfer import open_task
from benchmarks.next_location.training import train_samoe
from benchmarks.open_data import TARGETS
from benchmarks.tables import save_table
from hf_mobility import City, NextLocationPipeline, SamoeConfig, SamoeTokenizer, evaluate, make_task, summarize

SHOWN = ["model", "acc@1", "acc@5", "acc@10", "mrr", "mrr_low", "mrr_high", "nll"]


def train(visits: pd.DataFrame, city: City, config: SamoeConfig, *, epochs: int, seed: int) -> NextLocationPipeline:
    model = train_samoe([(visits, city)], config, epochs=epochs, seed=seed, warmup_steps=10)
    tokenizer = SamoeTokenizer.from_city(city, config)
    return NextLocationPipeline(model, tokenizer, name=f"SAMoE from scratch, 100 %, {epochs} epochs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cities", nargs="*", default=list(TARGETS))
    parser.add_argument("--epochs", nargs="*", type=int, default=[8, 15, 30])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output")
    parser.add_argument("--update", action="store_true", help="keep the rows of other cities that the file has")
    options = parser.parse_args()

    tables = []
    for name in options.cities:
        task = open_task(name)
        visits = task.train_visits()
        city = task.city.with_popularity(visits)
        inner = make_task(visits, city, test_fraction=0.1, min_visits=2)
        scores = []
        for epochs in options.epochs:
            pipe = train(inner.train_visits(), city, SamoeConfig(), epochs=epochs, seed=options.seed)
            scores.append(float(evaluate(pipe, inner).metric("mrr").mean()))
        best = options.epochs[int(np.argmax(scores))]
        print(name, dict(zip(options.epochs, np.round(scores, 4))), "->", best, flush=True)
        table = summarize(evaluate(train(visits, city, SamoeConfig(), epochs=best, seed=options.seed), task))
        table.insert(0, "city", name)
        print(table[SHOWN].round(4).to_string(), flush=True)
        tables.append(table)
        if options.output:
            save_table(pd.concat(tables), options.output, update=["city"] if options.update else ())


if __name__ == "__main__":
    main()
