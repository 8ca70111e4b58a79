"""SAMoE's ranking of every user's last visits, count tables first."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..baselines.count import UserFrequency, UserMarkov
from ..baselines.mix import ContextMix
from ..data.tasks import make_task
from ..evaluation.groups import groups as groups_of
from ..evaluation.ranking import evaluate, summarize
from ..evaluation.report import order_rows
from ..pipelines.next_location import NextLocationPipeline
from ..tokenization.city import City
from .unseen import Checkpoint, refuse_seen


def evaluate_samoe(
    checkpoint: Checkpoint,
    visits: pd.DataFrame,
    *,
    test_fraction: float,
    seed: int,
    city: City | None = None,
    groups: bool = False,
) -> pd.DataFrame:
    """The table of `summarize` for three count tables and the model; without `city`, in that of the checkpoint. With
    `groups`, blocks of rows by `evaluation.groups` follow that of all targets."""
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
    rivals: list[Any] = [UserFrequency(known), UserMarkov(known), ContextMix.for_task(task, seed=seed)]
    results = [evaluate(one, task) for one in (*rivals, pipe)]
    table = summarize(results, subsets=groups_of(task) if groups else None, seed=seed)
    return order_rows(table[table["n"] > 0])


def _city_beside(checkpoint: Checkpoint) -> City | None:
    tokenizer = checkpoint.tokenizer()
    return None if tokenizer is None else tokenizer.city
