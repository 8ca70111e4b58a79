"""Next-location protocols: cities, their tasks, baselines, and the scores per visit and per user."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from ..baselines import ContextMix, MixWeights, UserFrequency, UserMarkov
from ..data.frames import validate_visits
from ..data.tasks import NextLocationTask, make_task
from ..data.weeks import WeekTable
from ..evaluation.ranking import RankingResult, evaluate, new_place_mask, paired_difference, summarize
from ..hub.loading import adapter_base
from ..pipelines.next_location import NextLocationPipeline
from ..tokenization.city import City
from ..tokenization.errors import DataError
from ..training.adapt import adapt
from .ahead import refuse_looking_ahead
from .bench import Bench, Case, FittedBaseline
from .predictors import NextLocationTraining
from .protocol import ProtocolSet
from .scores import Score, rounded, user_means

UNKNOWN_BY_USER = ("ece",)  # which is no mean over targets


class Counts(FittedBaseline):
    """A table of counts, or the mix of them."""

    def probabilities(self, task: NextLocationTask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return iter(self.made.probabilities(task))


class SamoeCheckpoint:
    """A SAMoE folder in the test city: popularity of the visits that may be known; adapted to them where `adapts`."""

    def __init__(self, folder: str, *, name: str, adapts: bool) -> None:
        self.folder, self.name, self.adapts = folder, name, adapts
        self.pipe: Any = None

    def fit(self, train: NextLocationTraining) -> None:
        if self.adapts and adapter_base(self.folder) is None:
            local = adapt(self.folder, train.visits, city=train.city, seed=train.seed)
            self.pipe = NextLocationPipeline(local.model, local.tokenizer, name=self.name)
        else:
            self.pipe = NextLocationPipeline.from_pretrained(self.folder, city=train.city, name=self.name)

    @property
    def arrival_time_given(self) -> bool:
        return bool(self.pipe.arrival_time_given)

    def probabilities(self, task: NextLocationTask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return iter(self.pipe.probabilities(task))


@dataclass(frozen=True, eq=False)
class _TestCity:
    city: City
    task: NextLocationTask


class NextLocationBench(Bench):
    """`split`: `test_fraction` and `min_visits` of `make_task`. `known`: `share_of_users` whose training visits a model
    may learn, and whether checkpoints `adapt` to them. Test sets without sources fit the mix on the known visits."""

    @cached_property
    def cases(self) -> list[Case]:
        return [
            Case(one.name, draw, self._training(opened, draw), opened.task)
            for one, opened in self._tests
            for draw in range(self.protocol.draws)
        ]

    def baselines(self) -> dict[str, Callable[[], Any]]:
        return {
            "UserFrequency": partial(Counts, "UserFrequency", UserFrequency, lambda train: UserFrequency(train.visits)),
            "UserMarkov": partial(Counts, "UserMarkov", UserMarkov, lambda train: UserMarkov(train.visits)),
            "ContextMix": partial(Counts, "ContextMix", ContextMix, self._mix),
        }

    def checkpoint(self, folder: str, *, name: str) -> SamoeCheckpoint:
        return SamoeCheckpoint(folder, name=name, adapts=bool(self.protocol.known.get("adapt", False)))

    def outcome(self, predictor: Any, case: Case) -> RankingResult:
        return evaluate(predictor, case.task)

    def check(self, predictor: Any, case: Case) -> None:
        refuse_looking_ahead(predictor, case.task)

    def scores(self, case: Case, outcome: RankingResult) -> list[Score]:
        new = new_place_mask(case.task)
        subsets = {"new places": new, "known places": ~new}
        table = summarize(outcome, subsets=subsets, bootstrap=self.protocol.bootstrap)
        rows = {str(row["subset"]): row for row in table.to_dict("records")}
        masks = {"all": np.ones(len(new), dtype=bool), **subsets}
        return [
            self._score(case, outcome, rows[subset], mask, subset, metric)
            for subset, mask in masks.items()
            for metric in self.protocol.metrics
        ]

    def differences(self, case: Case, ours: RankingResult, theirs: RankingResult) -> dict[str, Any]:
        if ours.arrival_time_given != theirs.arrival_time_given:
            return {}
        names = [name for name in self.protocol.metrics if name not in UNKNOWN_BY_USER]
        return {name: paired_difference(ours, theirs, name, self.protocol.bootstrap) for name in names}

    def parts(self) -> tuple[Any, Any]:
        tests = [case.task for case in self.cases if case.draw == 0]
        test = pd.concat([task.visits[task.target] for task in tests], ignore_index=True)
        return test, pd.concat([task.train_visits() for task in tests], ignore_index=True)

    def split_content(self, case: Case) -> Sequence[np.ndarray]:
        task = case.task
        return task.user, task.location, task.target

    # The parts

    @property
    def _share(self) -> float:
        return float(self.protocol.known.get("share_of_users", 1.0))

    @cached_property
    def _tests(self) -> list[tuple[ProtocolSet, _TestCity]]:
        return [(one, self._opened(one)) for one in self.protocol.role("test")]

    @cached_property
    def _sources(self) -> list[NextLocationTask]:
        """Tasks of the sets to learn from, without users who also stand in a test set of the same service."""
        tasks = []
        for one in self.protocol.role("train"):
            same = [opened.task for other, opened in self._tests if _service(other) == _service(one)]
            tasks.append(_without(self._opened(one), same, self.protocol.split))
        return tasks

    @cached_property
    def _mix_weights(self) -> MixWeights:
        return ContextMix.fit(self._sources, user_fraction=self._share)

    def _opened(self, one: ProtocolSet) -> _TestCity:
        visits, city = city_of(one, self.read(one))
        return _TestCity(city, make_task(visits, city, **self.protocol.split))

    def _training(self, opened: _TestCity, draw: int) -> NextLocationTraining:
        visits = opened.task.train_visits(self._share, seed=draw)
        city = opened.city.with_popularity(visits)
        return NextLocationTraining(visits, city, lambda: self._sources, seed=draw)

    def _mix(self, train: NextLocationTraining) -> ContextMix:
        if self.protocol.role("train"):
            weights = self._mix_weights
        else:
            weights = ContextMix.fit([make_task(train.visits, train.city, **self.protocol.split)])
        return ContextMix(weights, counts_from=train.visits)

    def _score(
        self, case: Case, outcome: RankingResult, row: dict[Any, Any], mask: np.ndarray, subset: str, metric: str
    ) -> Score:
        means: dict[str, Any] = {}
        if metric not in UNKNOWN_BY_USER:
            values, users = outcome.metric(metric)[mask], outcome.user[mask]
            means = user_means(values, users, bootstrap=self.protocol.bootstrap)
        bounds: dict[str, Any] = {end: rounded(row.get(f"{metric}_{end}")) for end in ("low", "high")}
        counted: dict[str, Any] = {"n": int(row["n"]), "users": int(row["users"])}
        return Score(case.name, subset, metric, rounded(row[metric]), **bounds, **means, **counted)


def city_of(one: ProtocolSet, data: Any) -> tuple[pd.DataFrame, City]:
    """Visits, and their city with all places and no popularity.

    Visits come as a frame, with `about["timezone"]`; as a simulated city; or as weeks of cells, of which
    `about["users"]` users are drawn by `about["seed"]`.
    """
    if isinstance(data, WeekTable):
        return visits_of_weeks(data, one)
    simulated = not isinstance(data, pd.DataFrame)
    visits, zone = (data.visits, data.timezone) if simulated else (data, one.about.get("timezone"))
    if zone is None:
        raise DataError(f"{one.name}: the protocol names no timezone in `about`.")
    return visits, City.from_visits(visits, timezone=zone, name=one.name, popularity_from=None)


def visits_of_weeks(weeks: WeekTable, one: ProtocolSet) -> tuple[pd.DataFrame, City]:
    """Hours in a row in the same cell are one visit; unknown hours are dropped."""
    if weeks.user_id is None or weeks.start is None or weeks.grid is None or weeks.timezone is None:
        raise DataError(f"{one.name}: visits need weeks with users, first days, a grid and a time zone.")
    if "users" in one.about:
        users = np.random.default_rng(one.about["seed"]).permutation(pd.unique(weeks.user_id))[: one.about["users"]]
        return visits_of_weeks(weeks.take(np.isin(weeks.user_id, users)), replace(one, about={}))
    slots = weeks.cells.shape[1]
    first = np.repeat(weeks.start.astype("datetime64[h]"), slots)
    hours = pd.DataFrame(
        {
            "user_id": np.repeat(weeks.user_id, slots),
            "time": first + np.tile(np.arange(slots), len(weeks)),
            "cell": weeks.cells.ravel(),
        }
    )
    hours = hours[hours["cell"] >= 0].sort_values(["user_id", "time"], ignore_index=True)
    hours = hours[(hours["cell"].diff() != 0) | (hours["user_id"].diff() != 0)]
    cell = hours["cell"].to_numpy()
    lat, lon = weeks.grid.centre(cell)
    frame = hours.assign(location_id=weeks.grid.cell_id(cell), lat=lat, lon=lon)
    city = City.from_grid(weeks.grid, timezone=weeks.timezone, name=one.name)
    return validate_visits(frame, timezone=weeks.timezone), city


def _service(one: ProtocolSet) -> str:
    """Within which user ids are unique."""
    return str(one.about.get("service", one.name))


def _without(opened: _TestCity, tests: Sequence[NextLocationTask], split: dict[str, Any]) -> NextLocationTask:
    users = np.concatenate([np.zeros(0, object), *(task.visits["user_id"].unique() for task in tests)])
    kept = ~opened.task.visits["user_id"].isin(users)
    if kept.all():
        return opened.task
    return make_task(opened.task.visits[kept].reset_index(drop=True), opened.city, **split)
