"""Weeks of slots in three simulated cities that no training has seen, beside generators that were fitted there.

    python -m benchmarks.generation.evaluate_slots checkpoints/mstar-small --output benchmarks/generation/results/weeks_slots.csv

City A is polycentric; city B is a valley whose days off are Friday and Saturday; in city C users choose among nearer
opportunities first and a quarter of those who work do shifts. The rivals are fitted on the weeks of one half of the
users; the other half is compared with. `with means` knows the means of eight traits of the first half, and
`30 users` also weeks of so many of them, by `adapt`, which matches the distribution of traits to theirs. `with traits`
draws all traits of single users of the first half, which no tokenizer may hold: what the network does with right traits.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.tables import save_table
from hf_mobility import City, SquareGrid, TrajectoryGenerationPipeline, adapt, simulate_city
from hf_mobility.baselines.generators import Conditions, HourlyMarkov
from hf_mobility.baselines.generators_epr import ExplorationReturn
from hf_mobility.data.simulation.profiles import draw_habits
from hf_mobility.data.splits import split_weeks_by_user
from hf_mobility.evaluation.week_report import WEEK_COLUMNS, week_report
from hf_mobility.tokenization.diaries import to_slots
from hf_mobility.tokenization.tokenization_mstar_slots import MstarSlotTokenizer
from hf_mobility.tokenization.traits import NAMES, trait_classes

CITIES: dict[str, tuple[str, dict[str, Any]]] = {
    "A": ("polycentric", {"weekend": (5, 6)}),
    "B": ("valley", {"weekend": (4, 5)}),
    "C": (
        "coastal",
        {"weekend": (5, 6), "venue_law": "opportunities", "commute_law": "opportunities", "shift_work": 0.25},
    ),
}
USERS, DAYS, FEW = 400, 35, 30
HOURS = ("lunch_hour", "evening_hour")  # traits whose means are never given


class Unseen:
    """One city: weeks of places of both halves of its users, and the cells of its places."""

    def __init__(self, name: str) -> None:
        shape, own = CITIES[name]
        number, days_off = list(CITIES).index(name), own["weekend"]
        habits = replace(draw_habits(np.random.default_rng(900 + number)), **own)
        made = simulate_city(USERS, num_days=DAYS, seed=700 + number, shape=shape, habits=habits, name=name)
        self.city = City.from_pois(made.pois, timezone=made.timezone, name=name)
        self.tokenizer = MstarSlotTokenizer.from_city(self.city, days_off=days_off)
        weeks = self.tokenizer.weeks(made.visits, min_known=1.0)
        self.visits = made.visits
        known, other = split_weeks_by_user(weeks.user_id, fractions=(0.5, 0.5), seed=0)
        self.places, self.users = weeks.cells, np.asarray(weeks.user_id)
        self.known, self.other = known, other[: min(len(known), len(other))]
        self.grid = SquareGrid.around(self.city.lat, self.city.lon, cell_km=1.0)
        self.cell = self.grid.cell(self.city.lat, self.city.lon)

    def few_visits(self) -> pd.DataFrame:
        """Visits of some users of the first half."""
        users = np.unique(self.users[self.known])[:FEW]
        return self.visits[self.visits["user_id"].isin(users)]

    def pipelines(self, pipe: TrajectoryGenerationPipeline) -> tuple[Any, Any]:
        """The model in this city as it is, and adapted on the weeks of some users."""
        there = pipe.for_city(self.city, days_off=self.tokenizer.days_off)
        local = adapt(pipe, self.few_visits(), city=self.city, strength="strong")
        own = MstarSlotTokenizer.from_city(self.city, traits=local.tokenizer.traits, days_off=self.tokenizer.days_off)
        return there, type(there)(local.model, own)

    def cells(self, places: np.ndarray) -> np.ndarray:
        return self.cell[places].astype(np.int32)

    def traits(self) -> np.ndarray:
        """(N, 10) measured traits of the first half of the users."""
        places = self.places[self.known]
        home, work = self.tokenizer.home_and_work(places)
        return self.tokenizer.traits_of(to_slots(places, home, work), home, work)

    def means(self) -> dict[str, float]:
        """Of eight traits of the first half of the users; the hours of lunches and evenings are left out."""
        means = dict(zip(NAMES, np.nanmean(self.traits(), axis=0).tolist()))
        return {name: mean for name, mean in means.items() if name not in HOURS}


@dataclass(frozen=True)
class Copied:
    """Traits of users as they were measured, in place of a `TraitModel`."""

    classes: np.ndarray

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return self.classes[rng.integers(len(self.classes), size=n)]


def generated(pipe: TrajectoryGenerationPipeline, unseen: Unseen, draws: int) -> dict[str, list[np.ndarray]]:
    train, count = unseen.cells(unseen.places[unseen.known]), len(unseen.other)
    lat, lon = unseen.grid.centre(np.arange(len(unseen.grid)))
    rivals = {
        "HourlyMarkov, by home": HourlyMarkov(by_home=True).fit(train, num_cells=len(lat)),
        "ExplorationReturn": ExplorationReturn().fit(train, lat=lat, lon=lon),
    }
    conditions = Conditions.of_weeks(train)
    sets = {
        name: [rival.generate(conditions.draw(count, np.random.default_rng(seed)), seed=seed) for seed in range(draws)]
        for name, rival in rivals.items()
    }
    days, means = unseen.tokenizer.days_off, unseen.means()
    there, tuned = unseen.pipelines(pipe)
    right = there.for_city(unseen.city, days_off=days)
    right.tokenizer.traits = Copied(trait_classes(unseen.traits()))
    models = {
        "M-STAR, slots, zero-shot": there,
        "M-STAR, slots, with means": there.for_city(unseen.city, days_off=days, means=means),
        "M-STAR, slots, with means and 30 users": tuned.for_city(unseen.city, days_off=days, means=means),
        "M-STAR, slots, with traits": right,
    }
    for name, own in models.items():
        sets[name] = [unseen.cells(own.generate(count, seed=seed, to="places")) for seed in range(draws)]
    return sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of the model of slots")
    parser.add_argument("--cities", nargs="+", default=list(CITIES), choices=list(CITIES))
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--output")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe, tables = TrajectoryGenerationPipeline.from_pretrained(options.model), []
    for name in options.cities:
        unseen = Unseen(name)
        lat, lon = unseen.grid.centre(np.arange(len(unseen.grid)))
        table = week_report(
            generated(pipe, unseen, options.draws),
            real=unseen.cells(unseen.places[unseen.other]),
            train=unseen.cells(unseen.places[unseen.known]),
            real_users=unseen.users[unseen.other],
            train_users=unseen.users[unseen.known],
            lat=lat,
            lon=lon,
            draws=options.draws,
        )
        table.insert(0, "city", name)
        print(table[["city", "model", *WEEK_COLUMNS]].round(4).T.to_string(), flush=True)
        tables.append(table)
    if options.output:
        save_table(pd.concat(tables), options.output)


if __name__ == "__main__":
    main()
