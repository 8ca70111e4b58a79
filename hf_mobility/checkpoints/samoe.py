"""SAMoE's ranking of every user's last visits, count tables first."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..baselines.count import UserFrequency, UserMarkov
from ..baselines.mix import ContextMix
from ..data.simulation.cities import simulate_cities
from ..data.tasks import make_task
from ..evaluation.ranking import evaluate, summarize
from ..pipelines.next_location import NextLocationPipeline
from ..tokenization.city import City
from .unseen import Checkpoint, refuse_seen


def evaluate_samoe(
    checkpoint: Checkpoint, visits: pd.DataFrame, *, test_fraction: float, seed: int, city: City | None = None
) -> pd.DataFrame:
    """The table of `summarize` for three count tables and the model; without `city`, in that of the checkpoint."""
    options: dict[str, Any] = {"name": checkpoint.name}
    if checkpoint.made is None and city is not None:
        options["city"] = city
    pipe = checkpoint.pipeline(NextLocationPipeline, **options)
    places = pipe.tokenizer.city if city is None else city
    task = make_task(visits, places, test_fraction=test_fraction)
    known = task.train_visits()
    own = places if city is None else _city_beside(checkpoint)
    if own is not None and (own.index_of(visits["location_id"]) >= 0).any():
        refuse_seen(
            checkpoint.name, own.popularity, *(own.with_popularity(part).popularity for part in (visits, known))
        )
    if city is not None:  # its popularity must not come from what is to be predicted
        pipe = pipe.for_city(city.with_popularity(known))
    rivals: list[Any] = [UserFrequency(known), UserMarkov(known), _context_mix(known, seed)]
    return summarize([evaluate(one, task) for one in (*rivals, pipe)], seed=seed)


def _context_mix(known: pd.DataFrame, seed: int) -> ContextMix:
    """Fitted in two simulated cities, counts from the training visits."""
    sources = []
    for made in simulate_cities(2, num_users=100, num_days=28, num_locations=200, observe=0.3, seed=seed):
        sources.append(make_task(made.visits, City.from_visits(made.visits, timezone=made.timezone, name=made.name)))
    return ContextMix(ContextMix.fit(sources, seed=seed), counts_from=known)


def _city_beside(checkpoint: Checkpoint) -> City | None:
    tokenizer = checkpoint.tokenizer()
    return None if tokenizer is None else tokenizer.city
