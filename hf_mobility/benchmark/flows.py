"""Protocols of commuting flows: areas that no model was fitted on, with and without the outflows of their regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..flows import BoostedTrees, FlowArea, FlowNetworkModel, FlowTask, GravityModel, RadiationModel
from ..flows.metrics import SIZE_CLASSES, common_part, correlation
from ..tokenization.errors import DataError
from .bench import Bench, Case, FittedBaseline
from .predictors import AreaTraining
from .scores import Score, ratio_interval, rounded

ALL = "all"  # of `SIZE_CLASSES`
OUTFLOWS = {False: "outflows predicted", True: "outflows given"}


@dataclass(frozen=True, eq=False)
class Areas:
    """metrics: name -> (A,), one value an area. regions: (A,) how many it has."""

    metrics: dict[str, np.ndarray]
    regions: np.ndarray

    def of_size(self, size: str) -> np.ndarray:
        """bool (A,)."""
        low, high = SIZE_CLASSES[size]
        return (self.regions >= low) & (self.regions <= high)


class FittedFlows(FittedBaseline):
    """A classical model or boosted trees."""

    def predict(self, area: FlowArea, outflows: np.ndarray | None) -> np.ndarray:
        return np.asarray(self.made.predict(area, outflows))


class FlowCheckpoint:
    """A folder of `FlowNetworkModel`."""

    def __init__(self, folder: str, *, name: str) -> None:
        self.model, self.name = FlowNetworkModel.from_pretrained(folder), name

    def predict(self, area: FlowArea, outflows: np.ndarray | None) -> np.ndarray:
        return self.model.predict(area, outflows)


class FlowBench(Bench):
    """Sets of role "train" may be fitted on, those of role "test" are predicted. `known`: `outflows`, a list of false
    and true, each a case."""

    @cached_property
    def cases(self) -> list[Case]:
        test, train = (self._areas(role) for role in ("test", "train"))
        return [
            Case(OUTFLOWS[given], draw, AreaTraining(train, given, seed=draw), test)
            for draw in range(self.protocol.draws)
            for given in self.protocol.known["outflows"]
        ]

    def baselines(self) -> dict[str, Callable[[], Any]]:
        def gravity(train: AreaTraining, *, deterrence: Any, constrained: bool) -> Any:
            return GravityModel(deterrence, constrained=constrained).fit(train.task)

        def boosted(train: AreaTraining) -> Any:
            objective = "log" if train.outflows_given else "poisson"
            return BoostedTrees(objective, outflows_given=train.outflows_given, seed=train.seed).fit(train.task)  # type: ignore[arg-type]

        makers: dict[str, tuple[type, Callable[[AreaTraining], Any]]] = {
            "radiation": (RadiationModel, lambda train: RadiationModel().fit(train.task)),
            "LightGBM": (BoostedTrees, boosted),
        }
        for deterrence in ("power", "exponential"):
            for constrained in (False, True):
                name = GravityModel(deterrence, constrained=constrained).name  # type: ignore[arg-type]
                makers[name] = (GravityModel, partial(gravity, deterrence=deterrence, constrained=constrained))
        return {name: partial(FittedFlows, name, *way) for name, way in makers.items()}

    def checkpoint(self, folder: str, *, name: str) -> FlowCheckpoint:
        return FlowCheckpoint(folder, name=name)

    def outcome(self, predictor: Any, case: Case) -> Areas:
        rows = [_errors(predictor, area, given=case.train.outflows_given) for area in case.task.areas]
        metrics = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        return Areas(metrics, np.array([len(area) for area in case.task.areas]))

    def scores(self, case: Case, outcome: Areas) -> list[Score]:
        """Means over areas; areas are resampled for the intervals."""
        return [
            self._score(case.name, size if size == ALL else f"{size} regions", metric, outcome.metrics[metric][rows])
            for size in SIZE_CLASSES
            for metric in self.protocol.metrics
            if (rows := outcome.of_size(size)).any()
        ]

    def differences(self, case: Case, ours: Areas, theirs: Areas) -> dict[str, Any]:
        metric = self.protocol.metrics[0]
        gap, found = ours.metrics[metric] - theirs.metrics[metric], {}
        for size in SIZE_CLASSES:
            some = gap[ours.of_size(size)]
            if len(some):
                name = metric if size == ALL else f"{metric}, {size} regions"
                found[name] = (float(some.mean()), *self._interval(some))
        return found

    def parts(self) -> None:
        """Areas hold no records of users."""
        return

    def split_content(self, case: Case) -> Sequence[np.ndarray]:
        return [part for area in case.task.areas for part in (area.lat, area.lon, area.observed)]

    # The parts

    def _areas(self, role: str) -> FlowTask:
        found = [area for one in self.protocol.role(role) for area in self.read(one).areas]
        return FlowTask(tuple(found))

    def _interval(self, values: np.ndarray) -> tuple[float, float]:
        return ratio_interval(values, np.ones(len(values)), np.arange(len(values)), bootstrap=self.protocol.bootstrap)

    def _score(self, case: str, subset: str, metric: str, values: np.ndarray) -> Score:
        known = values[np.isfinite(values)]
        if not len(known):
            return Score(case, subset, metric, None)
        low, high = self._interval(known)
        return Score(case, subset, metric, rounded(known.mean()), rounded(low), rounded(high), n=len(known))


def _errors(predictor: Any, area: FlowArea, *, given: bool) -> dict[str, float]:
    hidden = replace(area, flows=None)
    made = np.asarray(predictor.predict(hidden, area.outflows if given else None))
    if made.shape != area.observed.shape or not (np.isfinite(made) & (made >= 0)).all():
        raise DataError(
            f"{predictor.name} predicts shape {made.shape} for area {area.name!r}, or flows that are negative or not "
            f"finite; expected flows of shape {area.observed.shape}."
        )
    error = made.astype(np.float64) - area.observed
    return {
        "cpc": common_part(area.observed, made),
        "pcc": correlation(area.observed, made),
        "rmse": float(np.sqrt(np.mean(error**2))),
    }
