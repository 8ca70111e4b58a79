"""Places new to the user: what the city's transitions or popularity could add to SAMoE's own prediction.

    HF_MOBILITY_DATA=... python -m benchmarks.next_location.evaluate_new_places checkpoints/samoe-small --output benchmarks/next_location/results

Two tables. `new_places_reach.csv`: how many of the new places a count table could know at all, because others were seen
there, or went there from the same place. `new_places_priors.csv`: the model's distribution mixed with the transitions
and the popularity of the adaptation set; the weights of the mixture are fitted by EM on source cities, one set where
the last place has a row of transitions and one where it has none.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from benchmarks.next_location.evaluate_transfer import open_task
from benchmarks.open_data import TARGETS
from benchmarks.tables import save_table
from hf_mobility import NextLocationPipeline, evaluate, paired_difference, summarize
from hf_mobility.evaluation.ranking import new_place_mask

SOURCES = ("boston", "los_angeles", "monterrey", "gowalla_dallas")  # the weights are fitted on these
EM_STEPS = 50


@dataclass(frozen=True)
class CityCounts:
    """Counts of a share of the people: `transitions` (N, N) and `visits` (N,)."""

    transitions: csr_array
    visits: np.ndarray

    @classmethod
    def of(cls, city: Any, visits: pd.DataFrame) -> CityCounts:
        place, user = city.index_of(visits["location_id"].to_numpy(dtype=object)), visits["user_id"].to_numpy()
        pair = (user[1:] == user[:-1]) & (place[1:] != place[:-1]) & (place[1:] >= 0) & (place[:-1] >= 0)
        origin, destination, size = place[:-1][pair], place[1:][pair], len(city)
        table = csr_array((np.ones(len(origin)), (origin, destination)), shape=(size, size))
        return cls(table, np.bincount(place[place >= 0], minlength=size).astype(np.float64))

    def priors(self, here: np.ndarray) -> np.ndarray:
        """(2, m, N): successors of each place of `here` (zero rows where there are none), popularity."""
        rows = self.transitions[here].toarray()
        rows /= np.maximum(rows.sum(axis=1, keepdims=True), 1)
        return np.stack([rows, np.broadcast_to(self.visits / self.visits.sum(), rows.shape)])


def last_places(task: Any, rows: np.ndarray) -> np.ndarray:
    return task.location[rows - 1]


@dataclass
class WithPriors:
    """The pipeline's distribution mixed with the priors; `weights` (2, 3): without and with a row of transitions."""

    pipe: NextLocationPipeline
    counts: CityCounts
    weights: np.ndarray
    name: str

    def probabilities(self, task: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows, p in self.pipe.probabilities(task):
            parts = np.stack([p, *self.counts.priors(last_places(task, rows))])
            weights = self.weights[(parts[1].sum(axis=1) > 0).astype(int)]
            yield rows, np.einsum("mk,kmn->mn", weights, parts)


def fit_weights(checkpoint: str, cities: tuple[str, ...], fraction: float) -> np.ndarray:
    """(2, 3) weights of model, transitions, popularity that make the targets of the source cities most likely."""
    likelihood, row_exists = [], []
    for name in cities:
        task = open_task(name)
        few = task.train_visits(fraction, seed=0)
        pipe = NextLocationPipeline.from_pretrained(checkpoint, city=task.city.with_popularity(few))
        counts = CityCounts.of(task.city, few)
        for rows, p in pipe.probabilities(task):
            parts = np.stack([p, *counts.priors(last_places(task, rows))])
            likelihood.append(parts[:, np.arange(len(rows)), task.location[rows]].T)
            row_exists.append(parts[1].sum(axis=1) > 0)
    points, exists = np.concatenate(likelihood), np.concatenate(row_exists)
    fitted = np.zeros((2, 3))
    for bucket in (0, 1):
        here = points[exists == bucket] + 1e-12
        weights = np.full(3, 1 / 3) if bucket else np.array([0.5, 0.0, 0.5])
        for _ in range(EM_STEPS):
            share = here * weights
            weights = (share / share.sum(axis=1, keepdims=True)).mean(axis=0)
        fitted[bucket] = weights
    return fitted


def reach(task: Any, fraction: float) -> dict[str, float]:
    """Which part of the new places a count table of so many people could know."""
    counts = CityCounts.of(task.city, task.train_visits(fraction, seed=0))
    rows = task.rows[new_place_mask(task)]
    here, there = last_places(task, rows), task.location[rows]
    successor = np.zeros(len(rows), dtype=bool)
    among_ten = np.zeros(len(rows), dtype=bool)
    for block in np.array_split(np.arange(len(rows)), len(rows) // 256 + 1):
        table = counts.transitions[here[block]].toarray()
        own = table[np.arange(len(block)), there[block]]
        successor[block] = own > 0
        among_ten[block] = (own > 0) & ((table > own[:, None]).sum(axis=1) < 10)
    popular = np.argsort(-counts.visits, kind="stable")[:10]
    return {
        "share of people": fraction,
        "new places": len(rows),
        "visited by somebody": float((counts.visits[there] > 0).mean()),
        "somebody went there from here": float(successor.mean()),
        "among the ten commonest successors": float(among_ten.mean()),
        "among the ten most popular": float(np.isin(there, popular).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--cities", nargs="*", default=list(TARGETS))
    parser.add_argument("--fractions", nargs="*", type=float, default=[0.05, 1.0], help="shares of the people")
    parser.add_argument("--output", help="folder for the tables")
    options = parser.parse_args()

    fitted = {fraction: fit_weights(options.checkpoint, SOURCES, fraction) for fraction in options.fractions}
    for fraction, weights in fitted.items():
        print(f"{fraction:.0%}: weights of model, transitions, popularity\n{weights.round(4)}", flush=True)
    reached, judged = [], []
    for name in options.cities:
        task = open_task(name)
        new = new_place_mask(task)
        for fraction, weights in fitted.items():
            reached.append({"city": name, **reach(task, fraction)})
            few = task.train_visits(fraction, seed=0)
            share = f"{fraction:.0%}".replace("%", " %")
            pipe = NextLocationPipeline.from_pretrained(options.checkpoint, city=task.city.with_popularity(few))
            pipe.name = f"SAMoE zero-shot, popularity of {share}"
            mixed = WithPriors(pipe, CityCounts.of(task.city, few), weights, f"{pipe.name}, with priors of {share}")
            alone, together = evaluate(pipe, task), evaluate(mixed, task)
            gap = paired_difference(together, alone, metric="mrr")
            table = summarize([alone, together], subsets={"new places": new, "known places": ~new})
            table.insert(0, "city", name)
            table["mrr gain"] = np.where(table["model"] == together.name, gap.mean, np.nan)
            table["mrr gain low"] = np.where(table["model"] == together.name, gap.low, np.nan)
            table["mrr gain high"] = np.where(table["model"] == together.name, gap.high, np.nan)
            judged.append(table)
            print(table[["city", "model", "subset", "acc@1", "acc@10", "mrr", "nll"]].round(4).to_string(index=False))
            print(pd.Series(reached[-1]).to_dict(), f"gain {gap.mean:.4f} [{gap.low:.4f}, {gap.high:.4f}]", flush=True)
            if options.output:
                save_table(pd.DataFrame(reached), Path(options.output) / "new_places_reach.csv")
                save_table(pd.concat(judged), Path(options.output) / "new_places_priors.csv")


if __name__ == "__main__":
    main()
