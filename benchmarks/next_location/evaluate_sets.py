"""Sets of places with a promised coverage: what they hold and how large they are, SAMoE beside the count mix.

    python -m benchmarks.next_location.evaluate_sets checkpoints/samoe-small --output benchmarks/next_location/results/sets.csv

Targets are the last 20 % of each user's visits. The users are split into two halves, twenty times: one calibrates, the
other is predicted. Nothing is adapted; the temperature is 1.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.next_location.evaluate_gaps import visits_of
from benchmarks.tables import GrowingTable
from hf_mobility import City, ContextMix, NextLocationPipeline, make_task, simulate_cities
from hf_mobility.pipelines.sets import least_probability

TARGETS = ("chicago", "calgary", "washington_dc", "simulated, seen always")
COVERAGES = (0.5, 0.7, 0.8, 0.9)
SHOWN = ["city", "model", "wanted", "coverage", "coverage_spread", "places", "places_median"]


def scores(model: Any, task: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row of each target, probability of its true place, and all probabilities (targets, places) float32."""
    parts = list(model.probabilities(task))
    rows = np.concatenate([targets for targets, _ in parts])
    everything = np.concatenate([p.astype(np.float32) for _, p in parts])
    place = task.location[rows]
    true = np.where(place >= 0, everything[np.arange(len(rows)), place.clip(0)], 0.0)
    return rows, true, np.sort(everything, axis=1)


def coverage_and_size(
    task: Any, found: tuple[np.ndarray, np.ndarray, np.ndarray], *, wanted: float, splits: int
) -> dict[str, float]:
    rows, true, everything = found
    users, covered, sizes, middle = task.user[rows], [], [], []
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(task.users)
        calibrating = np.isin(users, order[: task.users // 2])
        least = least_probability(true[calibrating], wanted)
        size = everything.shape[1] - np.array([np.searchsorted(row, least) for row in everything[~calibrating]])
        top = true[~calibrating] >= everything[~calibrating, -1]
        covered.append(((true[~calibrating] >= least) | top).mean())
        sizes.append(np.maximum(size, 1).mean())
        middle.append(np.median(np.maximum(size, 1)))
    return {
        "wanted": wanted,
        "coverage": float(np.mean(covered)),
        "coverage_spread": float(np.std(covered)),
        "places": float(np.mean(sizes)),
        "places_median": float(np.mean(middle)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output")
    options = parser.parse_args()

    sources = []
    for made in simulate_cities(2, num_users=100, num_days=28, num_locations=200, observe=0.3, seed=options.seed):
        sources.append(make_task(made.visits, City.from_visits(made.visits, timezone=made.timezone, name=made.name)))
    weights = ContextMix.fit(sources, seed=options.seed)
    growing = GrowingTable(SHOWN, options.output)
    for name in TARGETS:
        visits, city = visits_of(name, users=options.users, seed=options.seed)
        task = make_task(visits, city)
        models = {
            "count mix": ContextMix(weights, counts_from=task.train_visits()),
            "SAMoE": NextLocationPipeline.from_pretrained(options.checkpoint, city=city),
        }
        for label, model in models.items():
            found = scores(model, task)
            rows = [coverage_and_size(task, found, wanted=wanted, splits=options.splits) for wanted in COVERAGES]
            growing.add(pd.DataFrame(rows).assign(city=name, model=label, number_of_places=len(city), n=len(found[0])))


if __name__ == "__main__":
    main()
