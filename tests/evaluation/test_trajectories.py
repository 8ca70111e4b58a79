"""Errors of predicted trajectories against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from hf_mobility.baselines.trajectories import CopyLast
from hf_mobility.data import haversine_km
from hf_mobility.data.trajectory_tasks import TrajectoryTask
from hf_mobility.evaluation.roll_out import RollOut
from hf_mobility.evaluation.trajectories import horizon_table, one_step_table
from hf_mobility.modeling.configuration_raw import RawConfig
from hf_mobility.modeling.modeling_raw import RawForTrajectoryPrediction
from hf_mobility.tokenization.tokenization_raw import RawTokenizer

TOKENIZER = RawTokenizer.from_bounds(timezone="Asia/Shanghai")


def make_task(users: int = 6, known: int = 20, steps: int = 3, seed: int = 0) -> TrajectoryTask:
    points = np.random.default_rng(seed).uniform(-0.3, 0.3, (users, known + steps, 2)).astype(np.float32)
    return TrajectoryTask(
        known=points[:, :known],
        future=points[:, known:],
        users=np.arange(users),
        start_weekday=np.arange(users) % 7,
        slots_per_day=96,
        metres_per_unit=TOKENIZER.metres_per_unit(),
        degrees=TOKENIZER.denormalize,
        recorded=np.ones((users, steps), bool),
    )


def test_points_that_were_filled_in_do_not_count_where_only_recorded_ones_do() -> None:
    task = make_task(users=8)
    recorded = np.random.default_rng(1).random((8, 3)) < 0.5
    task = replace(task, recorded=recorded)
    noisy = {"noisy": task.future + np.random.default_rng(2).normal(0, 0.01, task.future.shape)}
    table = horizon_table(noisy, task, recorded_only=True).query("subset == 'all'")
    assert table["users"].tolist() == recorded.sum(axis=0).tolist()
    for step, mae in enumerate(table["mae_m"]):
        deviation = (noisy["noisy"] - task.future)[recorded[:, step], step] * task.metres_per_unit
        assert mae == pytest.approx(np.abs(deviation).mean())
    assert horizon_table(noisy, task).query("subset == 'all'")["users"].tolist() == [8, 8, 8]


class Shifted:
    """The truth and a given error."""

    def __init__(self, shift: list[float], name: str = "shifted") -> None:
        self.shift, self.name = np.array(shift), name

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        return task.future + self.shift


def test_errors_of_a_known_shift_by_hand() -> None:
    task = make_task()
    table = horizon_table(Shifted([0.02, -0.01]), task)
    every = table[table["subset"] == "all"]
    assert every["horizon"].tolist() == [1, 2, 3] and every["minutes"].tolist() == [15, 30, 45]
    assert (every["users"] == 6).all()
    lon, lat = TOKENIZER.metres_per_unit() * [0.02, 0.01]
    for name, value in (("mae_lon_m", lon), ("mae_lat_m", lat), ("mae_m", (lon + lat) / 2)):
        np.testing.assert_allclose(every[name], value, rtol=1e-4)
    np.testing.assert_allclose(every["mse_km2"], (lon**2 + lat**2) / 2e6, rtol=1e-4)
    np.testing.assert_allclose(every["mse_lat_km2"], lat**2 / 1e6, rtol=1e-4)
    np.testing.assert_allclose(every[["pcc", "pcc_lon", "pcc_lat"]], 1, rtol=1e-6)
    np.testing.assert_allclose(every["error_km"], np.hypot(lon, lat) / 1000, rtol=2e-2)  # parallels are not all as long


def test_the_authors_scale_is_eleven_to_thirteen_per_cent_larger() -> None:
    task = make_task()
    ours, theirs = (horizon_table(Shifted([0.02, -0.01]), task, paper_scale=flag) for flag in (False, True))
    np.testing.assert_allclose(theirs["mae_lon_m"] / ours["mae_lon_m"], 1.127, atol=2e-3)
    np.testing.assert_allclose(theirs["mae_lat_m"] / ours["mae_lat_m"], 1.112, atol=2e-3)
    assert (theirs["error_km"] == ours["error_km"]).all() and (theirs["users"] == ours["users"]).all()


def test_metrics_equal_a_loop_over_people() -> None:
    task = make_task(users=30, seed=1)
    predicted = task.future + np.random.default_rng(2).normal(0, 0.05, task.future.shape)
    near = np.random.default_rng(3).normal(0, 0.004, task.future.shape).astype(np.float32)
    task = replace(task, future=task.known[:, -1:] + near)  # some hundred metres: some move, some do not
    table = horizon_table({"noisy": predicted}, task).set_index(["subset", "horizon"])
    lat, lon = task.degrees(task.future)
    here_lat, here_lon = task.degrees(task.known[:, -1:])
    for step in range(3):
        moving = [
            user
            for user in range(30)
            if haversine_km(here_lat[user, 0], here_lon[user, 0], lat[user, step], lon[user, step]) > 0.5
        ]
        assert 0 < len(moving) < 30
        for subset, rows in (("all", list(range(30))), ("moving", moving)):
            row = table.loc[(subset, step + 1)]
            d = (predicted[rows, step] - task.future[rows, step]) * task.metres_per_unit
            assert row["users"] == len(rows)
            assert row["mae_m"] == pytest.approx(np.mean(np.abs(d)))
            assert row["mse_km2"] == pytest.approx(np.mean(d**2) / 1e6)
            pcc = [np.corrcoef(predicted[rows, step, a], task.future[rows, step, a])[0, 1] for a in (0, 1)]
            assert row["pcc"] == pytest.approx(np.mean(pcc)) and row["pcc_lat"] == pytest.approx(pcc[1])
            made_lat, made_lon = task.degrees(predicted[rows, step])
            km = haversine_km(made_lat, made_lon, lat[rows, step], lon[rows, step])
            assert row["error_km"] == pytest.approx(km.mean())


def test_nobody_moving_leaves_gaps_and_a_constant_has_no_correlation() -> None:
    task = make_task()
    still = replace(task, future=np.repeat(task.known[:, -1:], 3, axis=1))
    table = horizon_table([CopyLast(), Shifted([0.1, 0.1])], still)
    assert table["model"].tolist() == ["CopyLast"] * 6 + ["shifted"] * 6
    moving = table[table["subset"] == "moving"]
    assert (moving["users"] == 0).all() and moving[["mae_m", "pcc", "error_km"]].isna().all().all()
    assert table["mae_m"].iloc[0] == 0
    constant = horizon_table({"middle": np.zeros_like(task.future)}, task)
    assert constant["pcc"].isna().all() and constant["mae_m"].notna().any()


def test_predictions_that_do_not_fit_are_refused() -> None:
    task = make_task()
    with pytest.raises(ValueError, match=r"x predicts shape \(6, 2, 2\); expected \(users, steps, 2\) = \(6, 3, 2\)"):
        horizon_table({"x": task.future[:, :2]}, task)
    broken = np.where(np.arange(6)[:, None, None] == 4, np.nan, task.future)
    with pytest.raises(ValueError, match=r"x: predictions of 1 of 6 series are not finite \(first rows: \[4\]\)"):
        horizon_table({"x": broken}, task)
    with pytest.raises(ValueError, match="need names of their own"):
        horizon_table([CopyLast(), CopyLast()], task)


# One step


def test_one_step_errors_by_hand() -> None:
    points = np.array([[[0, 0], [0, 0], [0.1, 0], [0.1, 0.2]]])
    predictions = {"copy": points[:, :-1], "truth": points[:, 1:]}
    table = one_step_table(predictions, points, metres_per_unit=np.array([10_000.0, 20_000.0])).set_index(
        ["model", "subset"]
    )
    assert table.loc[("copy", "all"), "points"] == 3 and table.loc[("copy", "moving"), "points"] == 2
    assert table.loc[("copy", "all"), "mae_m"] == pytest.approx((1000 + 4000) / 6)
    assert table.loc[("copy", "moving"), "error_m"] == pytest.approx((1000 + 4000) / 2)
    assert (table.loc["truth", ["mae_m", "error_m"]] == 0).all().all()
    some = one_step_table(
        predictions, points, metres_per_unit=np.array([1e4, 2e4]), counted=np.array([[True, True, False]])
    )
    assert some["points"].tolist() == [2, 1, 2, 1] and some["mae_m"].tolist()[:2] == [250, 500]
    with pytest.raises(ValueError, match=r"x has predictions of shape \(1, 4, 2\); expected \(1, 3, 2\)"):
        one_step_table({"x": points}, points, metres_per_unit=np.ones(2))


# RAW


def make_model(**overrides: object) -> RawForTrajectoryPrediction:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = RawConfig.from_preset("tiny", max_position_embeddings=32, **overrides)  # type: ignore[arg-type]
        return RawForTrajectoryPrediction(config).eval()


@pytest.mark.parametrize("time_features", [False, True])
def test_raw_is_rolled_out_as_the_model_does_it(time_features: bool) -> None:
    task, model = make_task(), make_model(time_features=time_features)
    inputs = {"start_weekday": torch.from_numpy(task.start_weekday)} if time_features else {}
    expected = model.generate(torch.from_numpy(task.known), steps=3, **inputs).numpy()
    np.testing.assert_allclose(RollOut(model, batch_size=4).predict(task), expected, atol=1e-6)
    table = horizon_table([CopyLast(), RollOut(model)], task)
    assert table["model"].unique().tolist() == ["CopyLast", "RAW"] and np.isfinite(table["mae_m"]).all()


def test_the_next_points_are_those_of_a_full_pass_and_of_the_loss() -> None:
    task, model = make_task(), make_model()
    points = torch.from_numpy(task.known)
    with torch.no_grad():
        output = model(points, labels=points)
    found = RollOut(model, batch_size=4).next_points(task.known)
    np.testing.assert_allclose(found, output.predictions[:, :-1].numpy(), atol=1e-6)
    table = one_step_table(
        {"RAW": found, "CopyLast": CopyLast().next_points(task.known)}, task.known, metres_per_unit=np.ones(2)
    ).set_index(["model", "subset"])["mae_m"]
    assert table["RAW", "all"] == pytest.approx(float(output.mae), rel=1e-5)
    assert table["CopyLast", "all"] == pytest.approx(float(output.copy_last_mae), rel=1e-5)


def test_bfloat16_is_near() -> None:
    task, model = make_task(), make_model()
    difference = np.abs(RollOut(model, bfloat16=True).predict(task) - RollOut(model).predict(task))
    assert 0 < difference.max() < 0.02
    assert pd.api.types.is_float_dtype(difference.dtype)


# Several tasks, users and a rival


def test_median_and_means_of_users_equal_a_loop() -> None:
    task = replace(make_task(users=30), users=np.repeat([0, 1, 2], [25, 4, 1]))
    noise = np.random.default_rng(5).normal(0, 0.05, task.future.shape)
    table = horizon_table({"noisy": task.future + noise}, task).query("subset == 'all'")
    assert (table["windows"] == 30).all() and (table["users"] == 3).all()
    km = haversine_km(*task.degrees(task.future + noise), *task.degrees(task.future))
    for step, (_, row) in enumerate(table.iterrows()):
        assert row["error_km"] == pytest.approx(km[:, step].mean())
        assert row["median_km"] == pytest.approx(np.median(km[:, step]))
        own = [km[task.users == user, step].mean() for user in range(3)]
        assert row["user_error_km"] == pytest.approx(np.mean(own))


def test_tasks_taken_together_are_one_task() -> None:
    whole = make_task(users=12)
    parts = [whole.take(np.arange(12) % 2 == half) for half in (0, 1)]
    models = [CopyLast(), Shifted([0.02, -0.01])]
    one, two = horizon_table(models, whole), horizon_table(models, parts)
    pd.testing.assert_frame_equal(one, two, rtol=1e-9)
    given = {"shifted": [part.future + models[1].shift for part in parts]}
    expected = one[one["model"] == "shifted"].reset_index(drop=True)
    pd.testing.assert_frame_equal(horizon_table(given, parts), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="the same horizons and the same box"):
        horizon_table(CopyLast(), [whole, make_task(steps=2)])


def test_differences_from_a_rival_are_paired_and_draw_users() -> None:
    task = make_task(users=40)
    task = replace(task, users=np.arange(40) // 4)
    near, far = Shifted([0.01, 0], "near"), Shifted([0.03, 0], "far")
    table = horizon_table([far, near], task, rival="far", bootstrap=200).query("subset == 'all'").set_index("model")
    gap = table["error_km"].loc["near"].to_numpy() - table["error_km"].loc["far"].to_numpy()
    np.testing.assert_allclose(table.loc["near", "difference_km"], gap)
    assert (table.loc["near", "difference_low"] <= gap).all() and (table.loc["near", "difference_high"] >= gap).all()
    assert (table.loc["near", "difference_high"] - table.loc["near", "difference_low"] < 0.05).all()  # nearly constant
    assert table.loc["far", "difference_km"].isna().all()
    again = horizon_table([far, near], task, rival="far", bootstrap=200).query("subset == 'all'").set_index("model")
    pd.testing.assert_frame_equal(again, table)
    with pytest.raises(ValueError, match=r"rival is 'x'; the models are \['near'\]"):
        horizon_table(near, task, rival="x")


def test_a_roll_out_gives_the_horizons_that_are_asked_for() -> None:
    every, model = make_task(), make_model()
    some = replace(every, future=every.future[:, 1:], recorded=every.recorded[:, 1:], ahead=np.array([2, 3]))
    np.testing.assert_array_equal(RollOut(model).predict(some), RollOut(model).predict(every)[:, 1:])
