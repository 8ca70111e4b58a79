"""How the preset `adapt(strength="strong")` was chosen: on the cabs that evaluate_other_kind.py leaves out.

    HF_MOBILITY_DATA=... python -m benchmarks.next_location.choose_strength runs/check-ins --output benchmarks/next_location/results/strengths.csv

The weights are those of the first step of `pretrain_samoe`, which has seen no cab. Each preset is tuned on the training part of eight cabs and evaluated on the last 20 % of the visits of all 206.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from benchmarks.next_location.evaluate_transfer import named
from benchmarks.next_location.other_kind import cab_visits
from benchmarks.tables import GrowingTable
from hf_mobility import ContextMix, NextLocationPipeline, adapt, evaluate, make_task, summarize
from hf_mobility.training.adapt import STRENGTHS

CABS = 8
SHOWN = ["model", "draw", "acc@1", "acc@5", "mrr", "nll", "ece", "seconds"]
# (dropout, part of the way, longest context)
RECIPES = ((0.0, 0.5, 128), (0.0, 1.0, 128), (0.2, 0.75, 128), (0.0, 0.5, 512), (0.2, 0.75, 512))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--output")
    options = parser.parse_args()

    visits, city = cab_visits(others=True)
    task = make_task(visits, city)
    full = task.train_visits()
    results = GrowingTable(SHOWN, options.output)

    def judge(predictor: Any, name: str, draw: int | None = None, seconds: float = 0.0) -> None:
        results.add(summarize(evaluate(named(predictor, name), task)).assign(draw=draw, seconds=round(seconds)))

    mix = ContextMix(ContextMix.fit([make_task(full, city)]), counts_from=full)
    judge(mix, "context mix, weights and counts 100 %")
    for draw in range(options.draws):
        few = task.train_visits(CABS / task.users, seed=draw)
        here = city.with_popularity(few)
        base = NextLocationPipeline.from_pretrained(options.checkpoint, city=here)
        for context in (128, 512):
            judge(NextLocationPipeline(base.model, base.tokenizer, context=context), f"no adaptation, {context}", draw)
        for dropout, shrink, context in RECIPES:
            recipe = replace(STRENGTHS["strong"], dropout=dropout, shrink=shrink)
            local = adapt(base.model, few, city=here, strength=recipe, window=context, seed=draw)
            pipe = NextLocationPipeline(local.model, local.tokenizer, context=context)
            judge(pipe, f"dropout {dropout:g}, {shrink:.0%} of the way, {context}", draw, local.seconds)


if __name__ == "__main__":
    main()
