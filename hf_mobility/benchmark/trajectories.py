"""Protocols of future positions: held-out users from their records on, errors in km by horizon, per prediction and per
user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..baselines.trajectories import CityMedian, CopyLast, Shrinkage
from ..baselines.trajectories_own_past import HourMean, HourMedian, NearestPast
from ..data.splits import draw_share
from ..data.trajectory_tasks import TrajectoryTask
from ..evaluation.direct import DirectHorizons
from ..evaluation.trajectories import MOVING_METRES
from ..pipelines.trajectory_prediction import TrajectoryPredictionPipeline
from ..tokenization.errors import DataError
from ..tokenization.grid import haversine_km
from ..tokenization.tokenization_raw import RawTokenizer
from .bench import Bench, Case, FittedBaseline
from .forecaster import PipelineForecaster
from .predictors import TrajectoryTraining
from .record_tasks import record_tasks
from .scores import Score, ratio_interval, rounded, user_means

MEDIAN = "median_km"
SLOTS_PER_DAY = 96


@dataclass(frozen=True, eq=False)
class Errors:
    """error_km, moving, counted: (N, H). users: (N,)."""

    error_km: np.ndarray
    moving: np.ndarray
    counted: np.ndarray
    users: np.ndarray


class FittedForecaster(FittedBaseline):
    """A baseline that learns from other users."""

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        return np.asarray(self.made.predict(task))


class TrajectoryBench(Bench):
    """`split`: `held_out` share of the users, `seed`, and `linked`: whether users with one and the same point are held
    out together. `known`: `bounds` (without them, the box of the other users' points), `timezone`, `days` of a window,
    `steps` (slots ahead), `start_hours` of Monday to Saturday, `most` predictions that are drawn, `outside` (what
    becomes of points there), and `least_observed` of a whole window that may be learned from.

    Predictions start from a record, and count where their end point holds one.
    """

    @cached_property
    def cases(self) -> list[Case]:
        test, training = self._made
        return [Case(self.test_set.name, 0, training, test)]

    def baselines(self) -> dict[str, Callable[[], Any]]:
        fitted: dict[str, tuple[type, Callable[[TrajectoryTraining], Any]]] = {
            "CityMedian": (CityMedian, lambda train: CityMedian().fit(train.tasks)),
            "Shrinkage": (Shrinkage, lambda train: Shrinkage().fit(train.tasks)),
        }
        plain: tuple[Any, ...] = (CopyLast, HourMean, HourMedian, NearestPast)
        return {
            **{one.name: one for one in plain},
            **{name: partial(FittedForecaster, name, *way) for name, way in fitted.items()},
        }

    def checkpoint(self, folder: str, *, name: str) -> PipelineForecaster | DirectHorizons:
        model = TrajectoryPredictionPipeline.from_pretrained(folder).model
        if model.config.variant == "extended":  # which belongs to no box
            return DirectHorizons(model, name=name)
        _, training = self._made
        return PipelineForecaster.in_box(model, training.tokenizer.city.bounds, name=name)

    def outcome(self, predictor: Any, case: Case) -> Errors:
        parts = [self._errors(predictor, task) for task in case.task]
        names = [one.name for one in fields(Errors)]
        return Errors(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def scores(self, case: Case, outcome: Errors) -> list[Score]:
        minutes = 24 * 60 // case.task[0].slots_per_day
        found = []
        for column, step in enumerate(self.protocol.known["steps"]):
            for subset, mask in (("all", True), ("moving", outcome.moving[:, column])):
                rows = outcome.counted[:, column] & mask
                where = f"{subset}, {step * minutes} minutes"
                errors, users = outcome.error_km[rows, column], outcome.users[rows]
                found += [self._score(case.name, where, metric, errors, users) for metric in self.protocol.metrics]
        return found

    def differences(self, case: Case, ours: Errors, theirs: Errors) -> dict[str, Any]:
        """Of the mean error, over all users and over those who move, at each horizon."""
        minutes, found = 24 * 60 // case.task[0].slots_per_day, {}
        for subset, mask in (("", True), ("moving, ", ours.moving)):
            for column, step in enumerate(self.protocol.known["steps"]):
                rows = (ours.counted & mask)[:, column]
                gap, users = (ours.error_km - theirs.error_km)[rows, column], ours.users[rows]
                if len(gap):
                    ends = ratio_interval(gap, np.ones(len(gap)), users, bootstrap=self.protocol.bootstrap)
                    found[f"error_km, {subset}{step * minutes} minutes"] = (float(gap.mean()), *ends)
        return found

    def parts(self) -> tuple[Any, Any]:
        held_out = self._points["user_id"].isin(self._held_out)
        return self._points[held_out], self._points[~held_out]

    def split_content(self, case: Case) -> Sequence[np.ndarray]:
        return [part for task in case.task for part in (task.known[:, -1], task.future, task.recorded)]

    # The parts

    @cached_property
    def _points(self) -> pd.DataFrame:
        return self.read(self.test_set)[["user_id", "time", "lat", "lon"]]

    @cached_property
    def _held_out(self) -> np.ndarray:
        split = self.protocol.split
        users = np.unique(self._points["user_id"])
        group = linked_users(self._points) if split["linked"] else pd.Series(np.arange(len(users)), index=users)
        chosen = draw_share(len(group), float(split["held_out"]), int(split["seed"]))
        return group.index[group.isin(group[chosen])].to_numpy()

    @cached_property
    def _made(self) -> tuple[list[TrajectoryTask], TrajectoryTraining]:
        known = self.protocol.known
        slots, zone = int(known["days"]) * SLOTS_PER_DAY, known["timezone"]
        _, others = self.parts()
        form = {"timezone": zone, "model_max_length": slots}
        if "bounds" in known:
            tokenizer = RawTokenizer.from_bounds(tuple(known["bounds"]), **form)
        else:
            tokenizer = RawTokenizer.from_points(others, **form)
        first = self._points["time"].min().tz_convert(zone).tz_localize(None).normalize()
        monday = (first - pd.Timedelta(days=first.day_of_week)).date()
        outside = known.get("outside", "drop")
        series = tokenizer.encode_points(self._points, start=str(monday), outside=outside)
        asked = {"steps": known["steps"], "start_hours": known["start_hours"], "most": int(known["most"])}
        is_test = np.isin(series.users, self._held_out)
        test, tasks = (record_tasks(series, tokenizer, users=part, **asked) for part in (is_test, ~is_test))
        return test, TrajectoryTraining(self._windows(series, slots), tokenizer, tasks)

    def _windows(self, series: Any, slots: int) -> np.ndarray:
        """(M, slots, 2): whole windows of users that are not held out."""
        lengths = np.diff(series.offsets)
        rows = np.flatnonzero((lengths == slots) & ~np.isin(series.user_ids, self._held_out))
        at = series.offsets[rows][:, None] + np.arange(slots)
        kept = series.observed[at].mean(axis=1) >= float(self.protocol.known["least_observed"])
        return series.coordinates[at[kept]]

    def _errors(self, predictor: Any, task: TrajectoryTask) -> Errors:
        hidden = replace(task, future=np.zeros_like(task.future))
        made = np.asarray(predictor.predict(hidden))
        if made.shape != task.future.shape or not np.isfinite(made).all():
            raise DataError(
                f"{predictor.name} predicts shape {made.shape}, or values that are not finite; expected finite "
                f"(users, steps, 2) = {task.future.shape}."
            )
        lat, lon = task.degrees(task.future.astype(np.float64))
        start = task.degrees(task.known[:, -1:].astype(np.float64))
        error = haversine_km(*task.degrees(made.astype(np.float64)), lat, lon)
        moving = haversine_km(*start, lat, lon) * 1000 > MOVING_METRES
        return Errors(error, moving, task.recorded, task.users)

    def _score(self, case: str, subset: str, metric: str, errors: np.ndarray, users: np.ndarray) -> Score:
        if not len(errors):
            return Score(case, subset, metric, None)
        bootstrap, more = self.protocol.bootstrap, {"n": len(errors), "users": len(np.unique(users))}
        if metric == MEDIAN:
            value, (low, high) = np.median(errors), _median_interval(errors, users, bootstrap)
        else:
            ones = np.ones(len(errors))
            value, (low, high) = np.mean(errors), ratio_interval(errors, ones, users, bootstrap=bootstrap)
            more |= user_means(errors, users, bootstrap=bootstrap)
        return Score(case, subset, metric, rounded(value), rounded(low), rounded(high), **more)


def linked_users(points: pd.DataFrame) -> pd.Series:
    """Group of each user (index `user_id`, ascending): users with a point at the same time and place are probably one,
    or went together, and so are those whom these share one with."""
    names, user = np.unique(points["user_id"], return_inverse=True)
    keys = ["time", "lat", "lon"]
    shared = points.duplicated(keys, keep=False).to_numpy()
    point = points[shared].groupby(keys, sort=False).ngroup().to_numpy()
    size = len(names) + int(point.max(initial=-1)) + 1
    pairs = coo_array((np.ones(len(point)), (user[shared], len(names) + point)), shape=(size, size))
    return pd.Series(connected_components(pairs, directed=False)[1][: len(names)], index=names)


def _median_interval(values: np.ndarray, users: np.ndarray, bootstrap: int) -> tuple[float, float]:
    """95 % interval of the median over resampled users."""
    rows = pd.Series(np.arange(len(values))).groupby(users).apply(lambda some: some.to_numpy()).to_list()
    rng = np.random.default_rng(0)
    draws = [
        np.median(values[np.concatenate([rows[one] for one in rng.integers(len(rows), size=len(rows))])])
        for _ in range(bootstrap)
    ]
    low, high = np.percentile(draws, (2.5, 97.5)) if draws else (np.nan, np.nan)
    return float(low), float(high)
