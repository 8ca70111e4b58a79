"""Protocols of completion: weeks of held-out users with hours hidden, filled in and compared hour by hour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..baselines.completion import CarryForward, CommonHour, SameHour, StayHome
from ..baselines.generators import Conditions, HourlyMarkov
from ..baselines.generators_epr import ExplorationReturn
from ..evaluation.completion import completion_gaps, right_hours
from .bench import Case, FittedBaseline
from .predictors import WeekTraining
from .scores import Score, ratio_interval, rounded, user_means
from .weeks import MstarCheckpoint, WeekBench, fitted_epr, fitted_markov

ACCURACY = "accuracy"


@dataclass(frozen=True, eq=False)
class CompletionTask:
    """real: (n, L) held-out weeks. users: (n,) whose they are."""

    real: np.ndarray
    users: np.ndarray


class Copied(FittedBaseline):
    """A completion that is made of the week itself."""

    def complete(self, cells: np.ndarray, *, seed: int) -> np.ndarray:
        return np.asarray(self.made.complete(cells))


class Generated(FittedBaseline):
    """A generator of weeks with the home and work of the known hours; these hours stay."""

    def complete(self, cells: np.ndarray, *, seed: int) -> np.ndarray:
        slots = self.made.slots_per_day
        made = self.made.generate(Conditions.of_weeks(cells, slots_per_day=slots), seed=seed)
        return np.where(cells < 0, made, cells)


class MstarCompletion(MstarCheckpoint):
    """An M-STAR folder; an hour takes the place that most of its draws have."""

    def __init__(self, folder: str, *, name: str, votes: int) -> None:
        super().__init__(folder, name=name)
        self.votes = votes

    def complete(self, cells: np.ndarray, *, seed: int) -> np.ndarray:
        return np.asarray(self.pipe.complete(cells, draws=self.votes, seed=seed, to="weeks"))


class CompletionBench(WeekBench):
    """`split` and `known` as of `WeekBench`; `number` of weeks are completed, `votes` are the draws of a checkpoint.
    The gaps are those of `completion_gaps`, each a subset."""

    @cached_property
    def cases(self) -> list[Case]:
        weeks, _ = self._weeks
        rows = self._test_rows
        users = rows if weeks.user_id is None else weeks.user_id[rows]
        task = CompletionTask(weeks.cells[rows], np.asarray(users))
        return [Case(self.test_set.name, draw, self._training(draw), task) for draw in range(self.protocol.draws)]

    def baselines(self) -> dict[str, Callable[[], Any]]:
        makers: dict[str, tuple[type[FittedBaseline], type, Callable[[WeekTraining], Any]]] = {
            "CommonHour": (Copied, CommonHour, lambda train: CommonHour(slots_per_day=train.slots_per_day)),
            "SameHour": (Copied, SameHour, lambda train: SameHour(slots_per_day=train.slots_per_day)),
            "CarryForward": (Copied, CarryForward, lambda train: CarryForward()),
            "StayHome": (Copied, StayHome, lambda train: StayHome(slots_per_day=train.slots_per_day)),
            "HourlyMarkov, by home": (Generated, HourlyMarkov, fitted_markov),
            "ExplorationReturn": (Generated, ExplorationReturn, fitted_epr),
        }
        return {name: partial(form, name, of, make) for name, (form, of, make) in makers.items()}

    def checkpoint(self, folder: str, *, name: str) -> MstarCompletion:
        return MstarCompletion(folder, name=name, votes=int(self.protocol.known.get("votes", 1)))

    def outcome(self, predictor: Any, case: Case) -> Any:
        """Gap -> of each week, how many hidden hours are right, and how many were asked."""
        complete = partial(predictor.complete, seed=case.draw)
        gaps = completion_gaps(self._slots)
        return {gap: right_hours(predictor.name, complete, case.task.real, hidden) for gap, hidden in gaps.items()}

    def scores(self, case: Case, outcome: dict[str, Any]) -> list[Score]:
        users, found = case.task.users, []
        for gap, (right, asked) in outcome.items():
            low, high = ratio_interval(right, asked, users, bootstrap=self.protocol.bootstrap)
            some = asked > 0
            means = user_means(right[some] / asked[some], users[some], bootstrap=self.protocol.bootstrap)
            counted: dict[str, Any] = {"n": int(some.sum()), "users": len(np.unique(users[some]))}
            share = right.sum() / asked.sum()
            bounds: dict[str, Any] = {"low": rounded(low), "high": rounded(high)}
            found.append(Score(case.name, f"all, {gap}", ACCURACY, rounded(share), **bounds, **means, **counted))
        return found

    def differences(self, case: Case, ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
        users, found = case.task.users, {}
        for gap, (right, asked) in ours.items():
            gain = right - theirs[gap][0]
            ends = ratio_interval(gain, asked, users, bootstrap=self.protocol.bootstrap)
            found[f"{ACCURACY}, {gap}"] = (float(gain.sum() / asked.sum()), *ends)
        return found

    def split_content(self, case: Case) -> Sequence[np.ndarray]:
        return case.task.real, case.task.users
