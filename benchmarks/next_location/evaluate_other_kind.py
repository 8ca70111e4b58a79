"""A model trained on check-ins, moved to another kind of data: does the fold check choose to adapt, and does it pay?

    HF_MOBILITY_DATA=... python -m benchmarks.next_location.evaluate_other_kind checkpoints/samoe-small --output other_kind.csv
    HF_MOBILITY_DATA=... python -m benchmarks.next_location.evaluate_other_kind checkpoints/samoe-small --data geolife --output ...

160 San Francisco cabs on 900 cells, or the stays of about 90 GeoLife users on 1,600; the last 20 % of their visits are
the targets; 5 % = the training part of 8 cabs or 5 users, in several draws. The count mix is given 100 % of the
training visits, for its counts and, in a second row, for its weights; in a third, the same 5 % as the model.
"""

from __future__ import annotations

import argparse

from benchmarks.next_location.evaluate_transfer import mix_weights, named
from benchmarks.next_location.other_kind import OTHER_KINDS
from benchmarks.tables import save_table
from hf_mobility import ContextMix, NextLocationPipeline, adapt, evaluate, make_task, summarize
from hf_mobility.baselines.count import UserFrequency, UserMarkov

SHOWN = ["model", "n", "acc@1", "acc@5", "acc@10", "mrr", "mrr_low", "mrr_high", "nll", "ece"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--data", default="cabs", choices=list(OTHER_KINDS))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--output")
    options = parser.parse_args()

    visits, city = OTHER_KINDS[options.data]()
    task = make_task(visits, city)
    full = task.train_visits()
    on_target = ContextMix.fit([make_task(full, city)])
    rows = [
        UserFrequency(),
        UserMarkov(),
        named(ContextMix(mix_weights([]), counts_from=full), "context mix, weights of check-ins, 100 %"),
        named(ContextMix(on_target, counts_from=full), "context mix, weights and counts 100 %"),
    ]
    results = [evaluate(row, task) for row in rows]
    for draw in range(options.draws):
        few = task.train_visits(0.05, seed=draw)
        here = city.with_popularity(few)
        mix = ContextMix(ContextMix.fit([make_task(few, city)]), counts_from=few)
        results.append(evaluate(named(mix, f"context mix, weights and counts 5 %, draw {draw}"), task))
        base = NextLocationPipeline.from_pretrained(options.checkpoint, city=here, name=f"SAMoE zero-shot, draw {draw}")
        results.append(evaluate(base, task))
        local = adapt(base.model, few, city=here, seed=draw)
        print(f"draw {draw}: {len(few)} visits, {local.reason} ({local.seconds:.0f} s)")
        print(local.report.round(3), flush=True)
        name = f"SAMoE + LoRA {local.strength} on 5 %, draw {draw}"
        results.append(evaluate(NextLocationPipeline(local.model, local.tokenizer, name=name), task))
    table = summarize(results)
    table.insert(0, "city", city.name)
    print(table[SHOWN].round(3).to_string(index=False))
    if options.output:
        save_table(table, options.output)


if __name__ == "__main__":
    main()
