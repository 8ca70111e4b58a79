"""Rivals of trajectory prediction against values worked out by hand, and against plain search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from trajectories_by_hand import KM, plane_task

from hf_mobility.baselines import CityMedian, CopyLast, HourMean, HourMedian, NearestPast, Shrinkage
from hf_mobility.baselines.geometric_median import geometric_median
from hf_mobility.data.past_records import PastRecords
from hf_mobility.data.trajectory_tasks import TrajectoryTask


def task_of(x: list[list[float]], steps: int, slots_per_day: int = 4) -> TrajectoryTask:
    """Users on a line, (N, T + steps) kilometres."""
    points = np.stack([np.asarray(x, np.float32), np.zeros(np.shape(x), np.float32)], axis=-1)
    return plane_task(points, steps, slots_per_day)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=1, max_size=7))
def test_no_point_is_nearer_to_all_than_the_geometric_median(places: list[tuple[int, int]]) -> None:
    points = np.array(places, float)
    found = geometric_median(points, KM)
    around = found + np.random.default_rng(0).normal(0, 1, (200, 2))
    total = np.linalg.norm(np.concatenate([around, points])[:, None] - points, axis=-1).sum(axis=1)
    assert np.linalg.norm(found - points, axis=-1).sum() <= total.min() + 0.02


def test_medians_of_several_sets_leave_out_what_does_not_count() -> None:
    points = np.array([[[0, 0], [1, 0], [9, 9]], [[5, 5], [5, 5], [7, 5]]], float)
    counted = np.array([[1, 1, 0], [1, 1, 1]], bool)
    found = geometric_median(points, KM, counted)
    assert 0 <= found[0, 0] <= 1 and abs(found[0, 1]) < 1e-3 and found[1] == pytest.approx([5, 5], abs=2e-3)
    stretched = geometric_median(points[1], np.array([10.0, 1000.0]))
    assert stretched == pytest.approx([5, 5], abs=0.2)


def test_the_city_is_one_point() -> None:
    training = task_of([[0, 0, 0, 0, 9], [1, 0, 0, 8, 9]], steps=1)
    made = CityMedian().fit(training).predict(task_of([[5, 6, 7, 7]], steps=2))
    assert made == pytest.approx(np.zeros((1, 2, 2)), abs=2e-3)
    with pytest.raises(ValueError, match="CityMedian is not fitted"):
        CityMedian().predict(training)


def test_shrinkage_takes_the_best_share_of_each_horizon() -> None:
    """The middle is 0; one slot later users stand still, two slots later they have gone half the way to it."""
    training = task_of([[0, 0, 0, 4, 4, 2], [0, 0, 0, -8, -8, -4]], steps=2)
    fitted = Shrinkage().fit(training)
    assert fitted.shares == {1: 0.0, 2: pytest.approx(0.5)}
    assert fitted.predict(task_of([[3, 6, 6, 6]], steps=2))[0, :, 0] == pytest.approx([6, 3], abs=2e-3)
    filled = replace(training, recorded=np.zeros((2, 2), bool))
    assert Shrinkage().fit(filled).shares == {1: 0.0, 2: 0.0}
    assert Shrinkage().fit([training, training]).shares == fitted.shares
    with pytest.raises(ValueError, match=r"Shrinkage was fitted for \[1, 2\] slots ahead, not for \[3\]"):
        fitted.predict(task_of([[3, 6, 6, 6, 6]], steps=3))


def test_the_median_of_an_hour_is_a_place_and_the_mean_is_between_them() -> None:
    task = task_of([[0, 1, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0]], steps=1)  # slot 13 is the hour of 1, 1 and 7
    assert HourMean().predict(task)[0, 0, 0] == pytest.approx(3)
    assert HourMedian().predict(task)[0, 0, 0] == pytest.approx(1, abs=2e-3)


def test_records_of_earlier_windows_count_and_filled_slots_do_not() -> None:
    task = task_of([[5, 5, 5, 5, 5]], steps=1)  # four known slots of one day; slot 4 is the first of the day
    day = 4
    past = PastRecords(  # windows of the days 40, 41 and 42; the records are slots 0, 4 and 11 of twelve
        points=np.stack([np.arange(12.0), np.zeros(12)], axis=1),
        recorded=np.array([0, 4, 11]),
        offsets=np.arange(4) * day,
        first_slot=np.arange(40, 43) * day,
        begin=np.array([0]),
        end=np.array([3]),
        origin=np.array([42 * day]),
    )
    assert HourMean().predict(replace(task, past=past))[0, 0, 0] == pytest.approx(2)
    assert HourMean().predict(task)[0, 0, 0] == 5


def test_hours_that_are_near_in_the_day_count_also_over_midnight() -> None:
    x = np.zeros(96 * 2 + 1)
    x[[94, 95, 0, 1, 2]] = [6, 7, 8, 9, 10]  # slots around the first midnight, and the last of the first day
    task = task_of([x.tolist()], steps=1, slots_per_day=96)
    expected = np.concatenate([x[:3], x[94:99], x[190:192]]).mean()
    assert HourMean().predict(task)[0, 0, 0] == pytest.approx(expected)


def nearest_by_search(task: TrajectoryTask, neighbours: int, reach: float) -> np.ndarray:
    predicted = CopyLast().predict(task).astype(float)
    length, day = task.known.shape[1], task.slots_per_day
    for row, x in enumerate(task.known):
        for step in range(task.future.shape[1]):
            moments = []
            for s in range(length - 1 - step):
                apart = (length - 1 - s) % day
                hours = min(apart, day - apart) * 24 / day
                moments.append((np.linalg.norm(x[s] - x[-1]) + hours, s))
            votes = [x[s + step + 1] for far, s in sorted(moments) if far <= reach][:neighbours]
            if votes:
                predicted[row, step] = geometric_median(np.array([*votes, x[-1]]), KM)
    return predicted


def test_nearest_moments_are_those_of_a_plain_search() -> None:
    rng = np.random.default_rng(0)
    x = rng.choice([0.0, 0.4, 3.0], (5, 60)).tolist()
    task = task_of(x, steps=3, slots_per_day=24)
    made = NearestPast(neighbours=4, reach=2.0).predict(task)
    np.testing.assert_allclose(made, nearest_by_search(task, 4, 2.0), atol=2e-3)
    assert (made != CopyLast().predict(task)).any()


def test_who_does_the_same_each_day_is_found_again_and_who_has_no_past_stands_still() -> None:
    day = np.repeat([0.0, 8.0, 0.0], 8)
    task = task_of([np.tile(day, 4)[: 72 + 9].tolist()], steps=3, slots_per_day=24)
    assert NearestPast().predict(task)[0, :, 0] == pytest.approx(task.future[0, :, 0], abs=2e-3)
    short = task_of([[4, 1, 9, 9]], steps=2)
    assert NearestPast(reach=0.1).predict(short)[0, :, 0].tolist() == [1, 1]


def test_only_the_horizons_of_the_task_are_predicted() -> None:
    rng = np.random.default_rng(1)
    every = task_of(rng.normal(size=(4, 30)).tolist(), steps=6, slots_per_day=8)
    some = replace(every, future=every.future[:, [0, 5]], recorded=every.recorded[:, [0, 5]], ahead=np.array([1, 6]))
    for model in (CopyLast(), Shrinkage().fit(every), HourMean(), HourMedian(), NearestPast(reach=9)):
        np.testing.assert_allclose(model.predict(some), model.predict(every)[:, [0, 5]], atol=1e-4)


def test_nothing_is_read_from_the_future() -> None:
    rng = np.random.default_rng(2)
    task = task_of(rng.normal(size=(4, 30)).tolist(), steps=6, slots_per_day=8)
    blind = replace(task, future=np.full_like(task.future, np.nan))
    for model in (CityMedian().fit(task), Shrinkage().fit(task), HourMean(), HourMedian(), NearestPast()):
        assert np.array_equal(model.predict(task), model.predict(blind))
