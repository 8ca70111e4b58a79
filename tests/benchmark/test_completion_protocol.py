"""The protocol of completion: its numbers are those of `completion_report`, and known hours must stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_mobility import DataError
from hf_mobility.baselines import SameHour
from hf_mobility.benchmark import Protocol
from hf_mobility.benchmark.completion import CompletionBench, MstarCompletion
from hf_mobility.data.week_arrays import commonest
from hf_mobility.evaluation import completion_report
from hf_mobility.evaluation.completion import completion_gaps

TOWN = {"num_users": 30, "num_days": 14, "num_locations": 80, "radius_km": 4.0, "seed": 5}


@pytest.fixture(scope="module")
def bench() -> CompletionBench:
    known = Protocol.load("weeks-completion")
    one = replace(known.sets[0], options=TOWN)
    return CompletionBench(replace(known, sets=(one,), known={"cell_km": 2.0, "number": 12}, bootstrap=50), Path())


def test_accuracy_is_that_of_the_report(bench: CompletionBench) -> None:
    (case,) = bench.cases
    baseline = bench.baselines()["SameHour"]()
    baseline.fit(case.train)
    wanted = completion_report({"SameHour": SameHour().complete}, case.task.real).set_index("gap")["accuracy"]
    scores = {one.subset: one for one in bench.scores(case, bench.outcome(baseline, case))}
    assert set(scores) == {f"all, {gap}" for gap in completion_gaps()}
    for gap, value in wanted.items():
        found = scores[f"all, {gap}"]
        assert found.value == pytest.approx(value, abs=1e-6)
        assert found.low <= found.value <= found.high and found.n == 12 and found.users <= 12


def test_all_baselines_complete_and_keep_what_is_known(bench: CompletionBench) -> None:
    (case,) = bench.cases
    given = np.where(completion_gaps()["Wednesday"], -1, case.task.real)
    for name in bench.protocol.baselines:
        model = bench.baselines()[name]()
        model.fit(case.train)
        filled = model.complete(given, seed=0)
        assert (filled >= 0).all() and (filled[given >= 0] == given[given >= 0]).all(), name


def test_who_knows_the_weeks_is_right_everywhere_and_the_gain_is_paired(bench: CompletionBench) -> None:
    (case,) = bench.cases

    class Knows:
        name = "Knows"

        def complete(self, cells: np.ndarray, *, seed: int) -> np.ndarray:
            return case.task.real

    still = bench.baselines()["StayHome"]()
    still.fit(case.train)
    ours, theirs = bench.outcome(Knows(), case), bench.outcome(still, case)
    assert all(one.value == 1 for one in bench.scores(case, ours))
    gains = bench.differences(case, ours, theirs)
    by_home = {one.subset.removeprefix("all, "): one.value for one in bench.scores(case, theirs)}
    assert {gap: gains[f"accuracy, {gap}"][0] for gap in by_home} == pytest.approx(
        {gap: 1 - value for gap, value in by_home.items()}, abs=1e-6
    )


def test_a_completion_that_changes_known_hours_is_refused(bench: CompletionBench) -> None:
    class Forgets:
        name = "Forgets"

        def complete(self, cells: np.ndarray, *, seed: int) -> np.ndarray:
            return np.zeros_like(cells)

    with pytest.raises(DataError, match="Forgets left 0 hours unknown and changed"):
        bench.outcome(Forgets(), bench.cases[0])


def test_a_checkpoint_votes() -> None:
    draws = np.array([[[1, 4, 7]], [[2, 5, 7]], [[2, 4, 8]]])
    asked = []

    class Pipe:
        def complete(self, cells: np.ndarray, **options: Any) -> np.ndarray:
            asked.append(options)
            return commonest(draws)

    model = object.__new__(MstarCompletion)
    model.pipe, model.votes = Pipe(), 3  # type: ignore[assignment]
    assert model.complete(np.array([[-1, -1, -1]]), seed=3).tolist() == [[2, 4, 7]]
    assert asked == [{"draws": 3, "seed": 3, "to": "weeks"}]
    assert commonest(np.array([[[5]], [[6]]])).tolist() == [[5]], "on ties the earliest"
