"""Protocols of future positions: whole windows of held-out users, errors in km by horizon, per window and per user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..baselines.trajectories import CopyLast
from ..baselines.trajectories_own_past import HourMean
from ..data.splits import draw_share
from ..data.trajectory_tasks import TrajectoryTask
from ..evaluation.direct import trajectory_predictor
from ..evaluation.trajectories import MOVING_METRES
from ..pipelines.trajectory_prediction import TrajectoryPredictionPipeline
from ..tokenization.errors import DataError
from ..tokenization.grid import haversine_km
from ..tokenization.tokenization_raw import RawTokenizer
from .bench import Bench, Case
from .predictors import TrajectoryTraining
from .scores import Score, rounded, user_means
from .seen import Seen

MEDIAN = "median_km"


@dataclass(frozen=True, eq=False)
class Errors:
    """error_km, moving, counted: (N, H). users: (N,)."""

    error_km: np.ndarray
    moving: np.ndarray
    counted: np.ndarray
    users: np.ndarray


class RawCheckpoint:
    """A RAW folder in the protocol's box; weights of variant `released` belong to the box of their training."""

    def __init__(self, folder: str, *, name: str) -> None:
        self.pipe, self.name = TrajectoryPredictionPipeline.from_pretrained(folder), name

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        slots = int(self.pipe.tokenizer.slots_per_day)
        if slots != task.slots_per_day:
            raise DataError(f"{self.name} has {slots} slots a day, the protocol {task.slots_per_day}.")
        return trajectory_predictor(self.pipe.model, batch_size=int(self.pipe.batch_size or 64)).predict(task)


class TrajectoryBench(Bench):
    """`split`: `held_out` share of the users and `seed`. Users with one and the same point are held out together.
    `known`: `bounds`, `timezone`, `days` of a window, `steps`, `end_hours` of its last day, `least_observed`, and
    `horizons` (slots) of the table. A horizon counts where something was recorded in its slot."""

    @cached_property
    def cases(self) -> list[Case]:
        tasks, training = self._made
        return [Case(self._name, 0, training, tasks)]

    def baselines(self) -> dict[str, Callable[[], Any]]:
        return {CopyLast.name: CopyLast, HourMean.name: HourMean}

    def checkpoint(self, folder: str, *, name: str) -> RawCheckpoint:
        return RawCheckpoint(folder, name=name)

    def outcome(self, predictor: Any, case: Case) -> Errors:
        parts = [self._errors(predictor, task) for task in case.task]
        names = [one.name for one in fields(Errors)]
        return Errors(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def scores(self, case: Case, outcome: Errors) -> list[Score]:
        minutes = 24 * 60 // case.task[0].slots_per_day
        found = []
        for horizon in self.protocol.known["horizons"]:
            step = horizon - 1
            for subset, mask in (("all", True), ("moving", outcome.moving[:, step])):
                rows = outcome.counted[:, step] & mask
                where = f"{subset}, {horizon * minutes} minutes"
                errors, users = outcome.error_km[rows, step], outcome.users[rows]
                found += [self._score(case.name, where, metric, errors, users) for metric in self.protocol.metrics]
        return found

    def differences(self, case: Case, ours: Errors, theirs: Errors) -> dict[str, Any]:
        step = self.protocol.known["horizons"][-1] - 1
        rows = ours.counted[:, step]
        gap = (ours.error_km - theirs.error_km)[rows, step]
        low, high = _interval(gap, ours.users[rows], np.mean, self.protocol.bootstrap)
        return {"error_km": (float(gap.mean()), low, high)}

    def parts(self) -> tuple[Any, Any]:
        held_out = self._points["user_id"].isin(self._held_out)
        return self._points[held_out], self._points[~held_out]

    def seen_by_tokenizer(self, tokenizer: Any) -> Seen | None:
        return None

    def split_content(self, case: Case) -> Sequence[np.ndarray]:
        return [part for task in case.task for part in (task.known[:, -1], task.future, task.recorded)]

    # The parts

    @cached_property
    def _points(self) -> pd.DataFrame:
        (one,) = self.protocol.role("test")
        self._name = one.name
        return self.read(one)[["user_id", "time", "lat", "lon"]]

    @cached_property
    def _held_out(self) -> np.ndarray:
        group = linked_users(self._points)
        chosen = draw_share(len(group), float(self.protocol.split["held_out"]), int(self.protocol.split["seed"]))
        return group.index[group.isin(group[chosen])].to_numpy()

    @cached_property
    def _made(self) -> tuple[list[TrajectoryTask], TrajectoryTraining]:
        known = self.protocol.known
        slots = int(known["days"]) * 96
        tokenizer = RawTokenizer.from_bounds(tuple(known["bounds"]), timezone=known["timezone"], model_max_length=slots)
        first = self._points["time"].min().tz_convert(known["timezone"]).tz_localize(None).normalize()
        monday = (first - pd.Timedelta(days=first.day_of_week)).date()
        series = tokenizer.encode_points(self._points, start=str(monday), outside="drop")
        tasks = []
        for hour in known["end_hours"]:
            options = {"steps": int(known["steps"]), "end_slot": slots - (24 - hour) * 4}
            task = TrajectoryTask.from_series(
                series, tokenizer, least_observed=float(known["least_observed"]), **options
            )
            counted = task.recorded[:, np.array(known["horizons"]) - 1].any(axis=1)
            tasks.append(task.take(np.isin(task.users, self._held_out) & counted))
        return tasks, TrajectoryTraining(self._windows(series, slots), tokenizer)

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
        mean = np.median if metric == MEDIAN else np.mean
        low, high = _interval(errors, users, mean, self.protocol.bootstrap)
        own: dict[str, Any] = {} if metric == MEDIAN else user_means(errors, users, bootstrap=self.protocol.bootstrap)
        counted: dict[str, Any] = {"n": len(errors), "users": len(np.unique(users))}
        return Score(case, subset, metric, rounded(mean(errors)), rounded(low), rounded(high), **own, **counted)


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


def _interval(
    values: np.ndarray, users: np.ndarray, mean: Callable[[np.ndarray], Any], bootstrap: int
) -> tuple[float, float]:
    """95 % interval of a mean or median over resampled users."""
    rows = pd.Series(np.arange(len(values))).groupby(users).apply(lambda some: some.to_numpy()).to_list()
    rng = np.random.default_rng(0)
    draws = [
        mean(values[np.concatenate([rows[one] for one in rng.integers(len(rows), size=len(rows))])])
        for _ in range(bootstrap)
    ]
    low, high = np.percentile(draws, (2.5, 97.5)) if draws else (np.nan, np.nan)
    return float(low), float(high)
