"""Baselines of trajectory prediction: by hand, and a GRU that learns a regular walk."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from trajectories_by_hand import plane_task  # noqa: E402

from hf_mobility.baselines import CopyLast, GRUTrajectory, HourMean  # noqa: E402


def make_walks(count: int = 64, length: int = 24, seed: int = 0, stay: int = 6) -> np.ndarray:
    """People who go back and forth between two places of their own, `stay` slots at each."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(-1, 1, (count, 2, 2))
    return places[:, np.arange(length) // stay % 2].astype(np.float32)


def test_the_last_point_is_copied() -> None:
    task = plane_task(np.arange(24).reshape(2, 6, 2), steps=2)
    assert CopyLast().predict(task).tolist() == [[[6, 7], [6, 7]], [[18, 19], [18, 19]]]
    points = np.arange(12).reshape(1, 6, 2)
    assert (CopyLast().next_points(points) == points[:, :5]).all()


def test_the_mean_of_the_own_slot_of_the_day_or_else_the_last_point() -> None:
    x = np.array([1, 2, 3, 4, 5, 7, 0, 0], dtype=float)  # days of 4 slots; slots 6 and 7 follow
    points = np.stack([np.stack([x, -x], axis=1), np.stack([10 * x, x], axis=1)])
    predicted = HourMean().predict(plane_task(points, steps=2))
    assert predicted.tolist() == [[[3, -3], [4, -4]], [[30, 3], [40, 4]]]
    both = HourMean().predict(plane_task(points[:, :7], steps=2))  # slots 5 and 6 = 1 and 2 of the day
    assert both[0].tolist() == [[2, -2], [3, -3]]
    short = HourMean().predict(plane_task(points[:, :4], steps=2))  # slots 2 and 3 were never seen
    assert short[0].tolist() == [[2, -2], [2, -2]]
    two_days = HourMean().predict(plane_task(points, steps=3, slots_per_day=2))
    assert two_days[0, :, 0].tolist() == [(2 + 4) / 2, 3, 3]  # slots 5, 6, 7 with slots 0..4 known


def test_nothing_is_read_from_the_future() -> None:
    walks = make_walks()
    task, blind = plane_task(walks, steps=4), plane_task(np.where(np.arange(24)[:, None] < 20, walks, np.nan), steps=4)
    gru = GRUTrajectory(width=8).fit(walks, steps=2)
    for model in (CopyLast(), HourMean(), gru):
        assert np.array_equal(model.predict(task), model.predict(blind))
        assert model.predict(task).shape == (64, 4, 2)


def test_the_gru_learns_when_people_go() -> None:
    train, test = make_walks(256, length=12, seed=1, stay=3), make_walks(64, length=12, seed=2, stay=3)
    gru = GRUTrajectory(width=24, learning_rate=1e-2).fit(train, steps=200)
    task = plane_task(test[:, :11], steps=4)  # at slots 6 and 9 they go back and forth; slots 7 to 10 are wanted
    error = {model.name: np.abs(model.predict(task) - task.future)[:, 2:].mean() for model in (gru, CopyLast())}
    assert error["GRU"] < 0.6 * error["CopyLast"]
    one_step = [np.abs(model.next_points(test) - test[:, 1:])[:, 5::3].mean() for model in (gru, CopyLast())]
    assert one_step[0] < 0.5 * one_step[1]  # of the steps back


def test_a_roll_out_is_what_the_network_says_when_fed_by_hand() -> None:
    walks = make_walks(8)
    gru = GRUTrajectory(width=8).fit(walks, steps=3)
    points = walks[:, :20]
    for _ in range(4):
        extended = np.concatenate([points, np.zeros_like(points[:, :1])], axis=1)
        points = np.concatenate([points, gru.next_points(extended)[:, -1:]], axis=1)
    np.testing.assert_allclose(gru.predict(plane_task(walks, steps=4)), points[:, 20:], atol=1e-5)


def test_the_seed_decides_and_the_callers_generator_is_left_alone() -> None:
    walks = make_walks(8)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    once, again, other = (
        GRUTrajectory(width=8).fit(walks, steps=2, seed=seed).next_points(walks) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(1), expected)
    assert np.array_equal(once, again) and not np.array_equal(once, other)


def test_a_network_that_is_not_fitted_or_too_short_is_refused() -> None:
    walks = make_walks(8)
    with pytest.raises(ValueError, match="GRU is not fitted"):
        GRUTrajectory().predict(plane_task(walks, steps=2))
    gru = GRUTrajectory(width=8).fit(walks[:, :12], steps=1)
    with pytest.raises(ValueError, match="trained on series of 12 slots; slot 22 is beyond them"):
        gru.predict(plane_task(walks, steps=2))
    with pytest.raises(ValueError, match=r"points must be \(series, slots, 2\)"):
        gru.fit(walks[0])
