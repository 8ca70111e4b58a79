"""What the context mix is worth with weights from elsewhere: two simulated cities, the shipped ones, and the city itself.

    HF_MOBILITY_DATA=... python -m benchmarks.next_location.evaluate_mix_weights --output benchmarks/next_location/results/mix_weights.csv

All rows have the counts of all training visits; "chosen" is `ContextMix.for_task`. No row reads a target.
"""

from __future__ import annotations

import argparse

from benchmarks.next_location.evaluate_groups import task_of
from benchmarks.open_data import TARGETS
from benchmarks.tables import GrowingTable
from hf_mobility import City, ContextMix, evaluate, make_task, simulate_cities, summarize
from hf_mobility.baselines import MixWeights

SHOWN = ["city", "model", "acc@1", "mrr", "user_acc@1", "user_mrr", "nll"]


def simulated_weights() -> MixWeights:
    """As the command line fitted them before weights were shipped."""
    made = simulate_cities(2, num_users=100, num_days=28, num_locations=200, observe=0.3, seed=0)
    return ContextMix.fit([make_task(one.visits, City.from_visits(one.visits, timezone=one.timezone)) for one in made])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cities", nargs="*", default=[*TARGETS, "cabs", "demo"])
    parser.add_argument("--output")
    options = parser.parse_args()
    table, from_simulated = GrowingTable(SHOWN, options.output), simulated_weights()
    for name in options.cities:
        task = task_of(name)
        known = task.train_visits()
        inner = ContextMix.fit([make_task(known, task.city, min_visits=2)])
        chosen = ContextMix.for_task(task)
        origin = "shipped" if len(chosen.weights.sources) > 1 else "its own"
        models = {
            "weights of two simulated cities": ContextMix(from_simulated, known),
            "shipped weights": ContextMix(MixWeights.shipped(), known),
            "weights of the city itself": ContextMix(inner, known),
            f"chosen: {origin}": chosen,
        }
        for label, model in models.items():
            model.name = label
        rows = summarize([evaluate(model, task) for model in models.values()])
        rows.insert(0, "city", name)
        table.add(rows)


if __name__ == "__main__":
    main()
