"""What the command `evaluate` does for each of the three systems, and the part of the data that it needs unseen.

Unusual: a model that was made from exactly the visits it is to be judged on is refused. What the tokenizer counted of
its training data (popularity, homes) tells so without a record of whose data they were; RAW's has its box only, which
is worth a note.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..baselines import Conditions, CopyLast, ExplorationReturn, HourlyMarkov, HourMean, ResampledWeeks
from ..baselines.count import UserFrequency, UserMarkov
from ..baselines.mix import ContextMix
from ..data.simulation.cities import simulate_cities
from ..data.splits import split_by_user
from ..data.tasks import make_task, training_visits
from ..data.trajectory_tasks import TrajectoryTask
from ..evaluation import RollOut, fidelity_report, horizon_table
from ..evaluation.ranking import evaluate, summarise
from ..hub.loading import adapter_base
from ..modeling.modeling_raw import RawForTrajectoryPrediction
from ..pipelines.next_location import NextLocationPipeline
from ..pipelines.trajectory_generation import TrajectoryGenerationPipeline
from ..tokenization.city import City
from ..tokenization.errors import DataError
from ..tokenization.tokenization_mstar import MstarTokenizer
from ..tokenization.tokenization_raw import RawTokenizer
from ..tokenization.tokenization_samoe import SamoeTokenizer

STRANGE_HOMES = 0.05  # share of weeks with a home where nobody of the training data lives


def training_part(system: str, visits: pd.DataFrame, *, test_fraction: float, seed: int) -> pd.DataFrame:
    """The visits that `evaluate` with the same fraction and seed does not judge by: SAMoE the earlier ones of everybody
    with ten or more, M-STAR and RAW all of the other people."""
    if system == "samoe":
        return training_visits(visits, test_fraction=test_fraction)
    return split_by_user(visits, (1 - test_fraction, test_fraction), seed=seed)[0]


def judge(model: str, visits: pd.DataFrame, **options: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The whole table and its main columns; `attrs["notes"]` of the first holds sentences for the reader.

    Raises:
        ValueError: a model that is not judged alone (a codec), or one made from these very visits.
    """
    from transformers import AutoConfig

    adapter = adapter_base(model) is not None
    kind = "mobility_samoe" if adapter else AutoConfig.from_pretrained(model).model_type
    if kind not in JUDGES:
        raise ValueError(f"{model} is a {kind}; evaluate judges {', '.join(JUDGES)}.")
    judged, shown = JUDGES[kind]
    table = judged(model, visits, **options)
    short = table[shown]
    numbers = short.select_dtypes("number").columns
    return table, short.assign(**{name: np.round(short[name], 4) for name in numbers})


def judge_samoe(model: str, visits: pd.DataFrame, *, city: City | None, test_fraction: float, seed: int) -> Any:
    """Ranking of the last visits of everybody, count tables first. Without `city`, that of the checkpoint."""
    pipe = NextLocationPipeline.from_pretrained(model, city=city, name=Path(model).name)
    places = pipe.tokenizer.city if city is None else city
    task = make_task(visits, places, test_fraction=test_fraction)
    known = task.train_visits()
    own = places if city is None else _saved_city(model)
    if own is not None and (own.index_of(visits["location_id"]) >= 0).any():
        _refuse_seen(model, own.popularity, *(own.with_popularity(part).popularity for part in (visits, known)))
    if city is not None:  # its popularity must not come from what is to be predicted
        pipe = pipe.for_city(city.with_popularity(known))
    sources = []
    for made in simulate_cities(2, num_users=100, num_days=28, num_locations=200, observe=0.3, seed=seed):
        sources.append(make_task(made.visits, City.from_visits(made.visits, timezone=made.timezone, name=made.name)))
    mix = ContextMix(ContextMix.fit(sources, seed=seed), counts_from=known)
    rivals: list[Any] = [UserFrequency(known), UserMarkov(known), mix]
    return summarise([evaluate(one, task) for one in (*rivals, pipe)], seed=seed)


def judge_mstar(model: str, visits: pd.DataFrame, *, city: City | None, test_fraction: float, seed: int) -> Any:
    """Fidelity of generated weeks to those of people held out, beside the noise level and baselines fitted on the
    others."""
    if city is not None:
        raise DataError("A generator of weeks knows the grid it was trained on: leave --city out.")
    pipe = TrajectoryGenerationPipeline.from_pretrained(model)
    tokenizer = pipe.tokenizer
    weeks = tokenizer.weeks(visits)
    _, held_out = split_by_user(visits, (1 - test_fraction, test_fraction), seed=seed)
    judging = np.isin(weeks.user_id, held_out["user_id"].unique())
    train, real = weeks.cells[~judging], weeks.cells[judging]
    fitted_homes = np.zeros(tokenizer.num_cells, np.int64)
    if tokenizer.conditions is not None:
        fitted_homes = tokenizer.conditions.home_counts.sum(axis=0)
    _refuse_seen(model, fitted_homes, _homes(tokenizer, weeks.cells), _homes(tokenizer, train))
    real = real[: len(train)]
    lat, lon, slots = tokenizer.lat, tokenizer.lon, 24 * 60 // tokenizer.interval_minutes
    shape: dict[str, Any] = {"slots_per_day": slots}
    rivals: dict[str, Any] = {
        "ResampledWeeks": ResampledWeeks().fit(train),
        "HourlyMarkov": HourlyMarkov(by_home=False, **shape).fit(train, num_cells=len(lat)),
        "HourlyMarkov, by home": HourlyMarkov(by_home=True, **shape).fit(train, num_cells=len(lat)),
        "ExplorationReturn": ExplorationReturn(**shape).fit(train, lat=lat, lon=lon),
    }
    drawn = Conditions(**tokenizer.sample_conditions(len(real), seed=seed))
    made = {name: rival.generate(drawn, seed=seed) for name, rival in rivals.items()}
    made[Path(model).name] = pipe.generate(len(real), seed=seed, to="weeks")
    table = fidelity_report(made, real=real, train=train, lat=lat, lon=lon, seed=seed, **shape)
    strange = _homes(tokenizer, real)[fitted_homes == 0].sum() / len(real)
    if strange > STRANGE_HOMES:
        table.attrs["notes"] = [
            f"{strange:.0%} of the weeks held out have their home where nobody of the generator's training data lives: "
            "if these are other people than those of its city, the table compares two cities."
        ]
    return table


def judge_raw(model: str, visits: pd.DataFrame, *, city: City | None, test_fraction: float, seed: int) -> Any:
    """Errors of positions of held-out people rolled out for ten slots, beside standing still and the hour's mean."""
    if city is not None:
        raise DataError("RAW knows the box it was trained in: leave --city out.")
    tokenizer = RawTokenizer.from_pretrained(model)
    _, held_out = split_by_user(visits, (1 - test_fraction, test_fraction), seed=seed)
    task = TrajectoryTask.from_series(tokenizer.encode_points(held_out), tokenizer)
    predictors: list[Any] = [CopyLast(), HourMean(), RollOut(RawForTrajectoryPrediction.from_pretrained(model).eval())]
    table = horizon_table(predictors, task)
    if RawTokenizer.from_points(visits, timezone=tokenizer.timezone).bounds == tokenizer.bounds:
        table.attrs["notes"] = [
            "the model's box is that of all these points: unless it was trained with --test-fraction as here (and the "
            "same --seed), it has seen the people that it is judged by."
        ]
    return table


JUDGES: dict[str, tuple[Callable[..., pd.DataFrame], list[str]]] = {
    "mobility_samoe": (judge_samoe, ["model", "n", "acc@1", "acc@5", "acc@10", "mrr", "mrr_low", "mrr_high"]),
    "mobility_mstar": (judge_mstar, ["model", "n", "displacement", "radius", "duration", "mean6", "cpc", "copied"]),
    "mobility_raw": (judge_raw, ["model", "subset", "minutes", "users", "mae_m", "mse_km2", "error_km"]),
}


def _refuse_seen(model: str, saved: Any, of_all: Any, of_known: Any) -> None:
    """What the tokenizer saved is what all the visits give, and not what the part to learn from gives."""
    if np.array_equal(of_all, saved) and not np.array_equal(of_known, saved):
        raise DataError(
            f"{model} was made from exactly these visits, those to be judged by included: train or adapt with "
            "--test-fraction as here (and the same --seed), or give visits that it has not seen."
        )


def _saved_city(model: str) -> City | None:
    try:
        return SamoeTokenizer.from_pretrained(model).city
    except (OSError, ValueError):
        return None  # weights alone


def _homes(tokenizer: MstarTokenizer, cells: np.ndarray) -> np.ndarray:
    """(cells of the grid,) weeks by home."""
    return np.bincount(tokenizer.home_and_work(cells)[0], minlength=tokenizer.num_cells)
