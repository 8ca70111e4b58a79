"""Future positions: against the model's own `generate`, window by window, and the promises about users and horizons."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hf_mobility import DataError, RawConfig, RawForTrajectoryPrediction, RawTokenizer
from hf_mobility.data.simulation.cities import simulate_city
from hf_mobility.data.simulation.points import simulated_points
from hf_mobility.pipelines.trajectory_prediction import RESULT_COLUMNS, TrajectoryPredictionPipeline

TOWN = simulate_city(8, num_days=5, num_locations=60, seed=4)
POINTS = simulated_points(TOWN, interval_seconds=1800, seed=0)
DAY = 24  # slots of an hour
FORMS: list[dict[str, Any]] = [{}, {"delta_targets": True}, {"time_features": True}]


@torch.no_grad()
def make_model(spread: float = 0.15, **overrides: Any) -> RawForTrajectoryPrediction:
    """No parameter is zero, so that positions, days and histories all matter."""
    values = {"max_position_embeddings": 3 * DAY, "slots_per_day": DAY, **overrides}
    model = RawForTrajectoryPrediction(RawConfig.from_preset("tiny", **values)).eval()
    source = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        parameter.copy_(spread * torch.randn(parameter.shape, generator=source) + float(name.endswith("norm.weight")))
    return model


def make_pipe(*, days: int = 3, **overrides: Any) -> TrajectoryPredictionPipeline:
    model = make_model(**overrides)
    options = {"interval_minutes": 60, "model_max_length": days * DAY, "time_features": model.config.time_features}
    return TrajectoryPredictionPipeline(model, RawTokenizer.from_points(POINTS, timezone=TOWN.timezone, **options))


def units(pipe: TrajectoryPredictionPipeline, table: pd.DataFrame) -> np.ndarray:
    """(users, steps, 2) box units of a result."""
    found = pipe.tokenizer.normalize(table["lat"], table["lon"])
    return found.reshape(table["user_id"].nunique(), -1, 2)


def cut_series(pipe: TrajectoryPredictionPipeline, points: pd.DataFrame) -> tuple[torch.Tensor, dict[str, Any]]:
    """By the tokenizer alone: the last window of one user up to the slot of the last record, and its weekday."""
    begin, local = (points["time"].agg(how).tz_convert(TOWN.timezone) for how in ("min", "max"))
    days = pipe.tokenizer.model_max_length // DAY
    first = max(begin.date(), local.date() - dt.timedelta(days=days - 1))
    series = pipe.tokenizer.encode_points(points, start=first, end=local.date() + dt.timedelta(days=1))
    assert len(series) == 1
    slots = (local.date() - first).days * DAY + local.hour + 1
    extra = {"start_weekday": torch.tensor([first.weekday()])} if pipe.model.config.time_features else {}
    return torch.from_numpy(series.coordinates[:slots])[None], extra


def of(user: int, until: str = "2024-01-05 14:20") -> pd.DataFrame:
    rows = (POINTS["user_id"] == user) & (POINTS["time"] <= pd.Timestamp(until, tz=TOWN.timezone))
    return POINTS[rows]


# One window


@pytest.mark.parametrize("overrides", FORMS, ids=lambda form: "-".join(form) or "paper")
def test_it_is_generate_on_the_series_up_to_the_last_record(overrides: dict[str, Any]) -> None:
    pipe = make_pipe(**overrides)
    points = pd.concat([of(user, until) for user, until in ((1, "2024-01-03 09:00"), (4, "2024-01-05 14:20"))])
    table = pipe.predict(points, horizon="6h")
    assert list(table) == RESULT_COLUMNS and len(table) == 12
    for row, user in enumerate((1, 4)):
        series, extra = cut_series(pipe, points[points["user_id"] == user])
        wanted = pipe.model.generate(series, steps=6, **extra)[0]
        np.testing.assert_allclose(units(pipe, table)[row], wanted.numpy(), atol=2e-5)


@pytest.mark.parametrize("overrides", FORMS, ids=lambda form: "-".join(form) or "paper")
def test_what_a_tokenizer_returns_rolls_out_from_the_last_record_too(overrides: dict[str, Any]) -> None:
    pipe = make_pipe(**overrides)
    points = pd.concat([of(user, until) for user, until in ((1, "2024-01-03 09:00"), (4, "2024-01-03 14:20"))])
    batch = pipe.tokenizer(points, return_tensors="pt")
    assert batch["coordinates"].shape == (2, 3 * DAY, 2)
    found = pipe.model.generate(**batch, steps=6)
    np.testing.assert_allclose(found.numpy(), units(pipe, pipe.predict(points, horizon="6h")), atol=2e-5)


def test_times_are_the_slots_after_the_last_record() -> None:
    pipe = make_pipe()
    table = pipe.predict(of(2), horizon=3)
    wanted = pd.date_range("2024-01-05 15:00", periods=3, freq="h", tz=TOWN.timezone).tz_convert("UTC")
    assert table["time"].tolist() == wanted.tolist() and table["horizon"].tolist() == [1.0, 2.0, 3.0]
    assert str(table["time"].dtype) == "datetime64[us, UTC]" and table["horizon"].dtype == np.float64


def test_a_stay_ends_where_its_duration_ends() -> None:
    pipe = make_pipe()
    stays = of(2).head(40).assign(duration=0.0)
    last = stays["time"].max()
    stays.loc[stays.index[-1], "duration"] = 5 * 3600.0
    table = pipe.predict(stays, horizon=1)
    assert table["time"][0] == (last + pd.Timedelta("5h") - pd.Timedelta("1s")).floor("h") + pd.Timedelta("1h")


def test_a_list_of_horizons_picks_rows_of_the_path() -> None:
    pipe = make_pipe()
    path = pipe.predict(of(2), horizon="24h")
    for spans in ([6, "2h"], [pd.Timedelta("2h"), 6.0], np.array([2, 6])):
        pd.testing.assert_frame_equal(pipe.predict(of(2), horizon=spans), path.iloc[[1, 5]].reset_index(drop=True))


@pytest.mark.parametrize("horizon", [0, -1, 0.5, "90min", "soon", None, [], [2, "x"], True and float("nan")])
def test_a_horizon_is_whole_slots(horizon: Any) -> None:
    with pytest.raises(DataError, match="horizon must be a positive whole number of slots of 60 minutes"):
        make_pipe().predict(of(2), horizon=horizon)


# Several windows


@pytest.mark.parametrize("days", [1, 2, 3])
@pytest.mark.parametrize("overrides", FORMS, ids=lambda form: "-".join(form) or "paper")
def test_windows_follow_one_another_as_by_hand(days: int, overrides: dict[str, Any]) -> None:
    """A full window predicts the point behind it; then its oldest day goes."""
    pipe, points, steps = make_pipe(days=days, **overrides), of(4), 60
    found = units(pipe, pipe.predict(points, horizon=steps, spread_samples=0))[0]
    window, extra = cut_series(pipe, points)
    wanted: list[torch.Tensor] = []
    while len(wanted) < steps:
        wanted.append(pipe.model.generate(window, steps=1, **extra)[0, 0])
        window = torch.cat([window, wanted[-1][None, None]], dim=1)
        if window.shape[1] > days * DAY:
            window = window[:, DAY:]
            extra = {name: (day + 1) % 7 for name, day in extra.items()}
    assert wanted[0].std() > 0
    np.testing.assert_allclose(found, torch.stack(wanted).numpy(), atol=5e-5)


def test_a_longer_horizon_goes_on_where_a_shorter_one_ends() -> None:
    pipe, points = make_pipe(days=2), of(4)
    long = pipe.predict(points, horizon="72h", spread_samples=0)
    pd.testing.assert_frame_equal(pipe.predict(points, horizon="5h", spread_samples=0), long.head(5), atol=1e-5)


# Users and rows


def test_nothing_depends_on_other_users_batches_or_row_order() -> None:
    pipe = make_pipe()
    several = pd.concat([of(user, f"2024-01-0{2 + user % 4} {10 + user}:10") for user in range(6)])
    together = pipe.predict(several, horizon="30h")
    before = several.copy(deep=True)
    shuffled = several.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(pipe.predict(shuffled, horizon="30h"), together)
    pd.testing.assert_frame_equal(several, before)
    for size in (1, 4):
        pd.testing.assert_frame_equal(pipe.predict(several, horizon="30h", batch_size=size), together, atol=1e-5)
    for user in range(6):
        alone = pipe.predict(several[several["user_id"] == user], horizon="30h")
        wanted = together[together["user_id"] == user].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, wanted, atol=1e-5)


def test_later_and_earlier_records_of_others_change_nothing() -> None:
    pipe = make_pipe()
    alone = pipe.predict(of(2, "2024-01-03 10:00"), horizon="4h")
    later = POINTS[(POINTS["user_id"] != 2)]
    earlier = later.assign(time=later["time"] - pd.Timedelta(days=30), user_id=later["user_id"] + 100)
    found = pipe.predict(pd.concat([later, of(2, "2024-01-03 10:00"), earlier]), horizon="4h")
    pd.testing.assert_frame_equal(found[found["user_id"] == 2].reset_index(drop=True), alone, atol=1e-5)


def test_days_before_the_window_are_not_read() -> None:
    pipe = make_pipe(days=2)
    early = of(4)["time"] < pd.Timestamp("2024-01-04", tz=TOWN.timezone)
    changed = of(4).assign(lat=of(4)["lat"].where(~early, of(4)["lat"].mean()))
    tables = [pipe.predict(points, horizon=3, spread_samples=0) for points in (of(4), changed)]
    pd.testing.assert_frame_equal(*tables)


# Clock changes (Sunday 31 March 2024 has no 02:00 in Berlin, Sunday 27 October has it twice)


@pytest.mark.parametrize(("last", "slots"), [("2024-03-30 23:30", [1, 3, 4, 5]), ("2024-10-26 22:30", [1, 2, 2, 3])])
def test_horizons_are_hours_and_positions_those_of_the_local_clock(last: str, slots: list[int]) -> None:
    pipe = make_pipe()
    end = pd.Timestamp(last, tz="UTC")
    points = of(4).assign(time=of(4)["time"] + (end - of(4)["time"].max()))
    times = end.floor("h") + pd.to_timedelta([1, 2, 3, 4], unit="h")
    table = pipe.predict(points, horizon=4)
    assert table["time"].tolist() == times.tolist()
    hours = times.tz_convert(TOWN.timezone).hour.to_numpy()
    start = end.tz_convert(TOWN.timezone).hour
    assert ((hours - start) % 24).tolist() == slots  # what the test says about the clock
    series, _ = cut_series(pipe, points)
    path = pipe.model.generate(series, steps=5)[0].numpy()
    np.testing.assert_allclose(units(pipe, table)[0], path[np.array(slots) - 1], atol=2e-5)


# Spread


def test_the_spread_is_the_error_of_the_same_hours_on_earlier_days() -> None:
    pipe = make_pipe()
    table = pipe.predict(of(4), horizon=[1, 5], spread_samples=2)
    series, _ = cut_series(pipe, of(4))
    errors = []
    for day in (1, 2):
        length = series.shape[1] - day * DAY
        path = pipe.model.generate(series[:, :length], steps=5)[0]
        errors.append((path[[0, 4]] - series[0, [length, length + 4]]).numpy())
    km = np.array(errors) * pipe.tokenizer.metres_per_unit() / 1000
    np.testing.assert_allclose(table["spread_km"], np.sqrt((km**2).sum(-1).mean(0)), rtol=1e-3)
    pd.testing.assert_frame_equal(pipe.predict(of(4), horizon=[1, 5], spread_samples=50), table)  # no more days


def test_without_a_day_of_history_or_samples_the_spread_is_not_known() -> None:
    pipe = make_pipe()
    assert pipe.predict(of(4), spread_samples=0)["spread_km"].isna().all()
    short = of(4)[of(4)["time"] >= pd.Timestamp("2024-01-05", tz=TOWN.timezone)]
    assert pipe.predict(short)["spread_km"].isna().all()
    gone = of(4)[~of(4)["time"].between("2024-01-04 13:00", "2024-01-04 18:00")]  # nothing was recorded then
    assert pipe.predict(gone, horizon=3, spread_samples=1)["spread_km"].isna().all()


@pytest.mark.parametrize("components", [1, 3])
def test_the_spread_of_a_mixture_is_that_of_drawn_paths(components: int) -> None:
    """One step ahead there is a formula: the covariance's trace and the means' distance from the predicted point."""
    pipe = make_pipe(mixture_components=components, delta_targets=True)
    table = pipe.predict(of(4), horizon=[1, 4], spread_samples=4000, seed=1, batch_size=1000)
    series, _ = cut_series(pipe, of(4))
    with torch.no_grad():
        output = pipe.model(series)
    parts = {name: value[0, -1].double().numpy() for name, value in output.mixture.items()}
    km = pipe.tokenizer.metres_per_unit() / 1000
    off = (parts["means"] - output.predictions[0, -1].numpy()) * km
    variance = np.exp(parts["log_weights"]) @ ((parts["scales"] * km) ** 2 + off**2).sum(-1)
    assert table["spread_km"][0] == pytest.approx(np.sqrt(variance), rel=0.05)
    assert table["spread_km"][1] > table["spread_km"][0]
    again = pipe.predict(of(4), horizon=[1, 4], spread_samples=40, seed=2)
    pd.testing.assert_frame_equal(again, pipe.predict(of(4), horizon=[1, 4], spread_samples=40, seed=2))
    assert (again["spread_km"] != pipe.predict(of(4), horizon=[1, 4], spread_samples=40, seed=3)["spread_km"]).all()


# Faults


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spread_samples": -1}, "spread_samples must be at least 0, not -1"),
        ({"outside": "clip"}, "outside must be 'keep', 'drop' or 'error'"),
        ({"fill": "linear"}, "fill must be one of"),
    ],
)
def test_requests_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_pipe().predict(of(4), **options)


def test_points_outside_the_box_are_kept_dropped_or_refused() -> None:
    pipe = make_pipe()
    away = of(4).tail(1).assign(lat=60.0, time=of(4)["time"].max() + pd.Timedelta("3h"))
    points = pd.concat([of(4), away])
    dropped = pipe.predict(points, outside="drop")
    pd.testing.assert_frame_equal(dropped, pipe.predict(of(4)))
    assert pipe.predict(points)["time"][0] > dropped["time"][0]
    with pytest.raises(DataError, match=r"1 of \d+ points lie outside the box"):
        pipe.predict(points, outside="error")
    with pytest.raises(DataError, match="lie outside the box"):
        pipe.predict(of(4).assign(lat=-of(4)["lat"]))


def test_many_points_outside_the_box_are_reported() -> None:
    points = of(4).assign(lat=of(4)["lat"].where(np.arange(len(of(4))) % 2 == 0, 60.0))
    with pytest.warns(UserWarning, match=r"^\d+ of \d+ points lie outside the box .* and are kept"):
        make_pipe().predict(points)


def test_a_city_that_is_not_the_models_is_refused() -> None:
    with pytest.raises(DataError, match="The city's windows have 96 slots, the model knows 72"):
        make_pipe(days=4)
    with pytest.raises(DataError, match="The city's days have 24 slots, the model's 12"):
        make_pipe(slots_per_day=12)
