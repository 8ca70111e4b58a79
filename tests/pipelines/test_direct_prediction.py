"""Positions of RAW's `extended` variant as a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hf_mobility import DataError, MobilityEmbeddingPipeline, RawConfig, RawTokenizer, TrajectoryPredictionPipeline
from hf_mobility.data.record_contexts import RecordHistories
from hf_mobility.modeling.modeling_raw_extended import RawExtendedForTrajectoryPrediction
from hf_mobility.pipelines.direct_prediction import RESULT_COLUMNS, DirectPredictionPipeline
from hf_mobility.tokenization.grid import haversine_km

BERLIN = (52.3, 13.1, 52.7, 13.7)


def make_points(lat: float = 52.5, lon: float = 13.4, number: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    seconds = np.sort(rng.integers(0, 9 * 86_400, number))
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 3, number),
            "time": pd.Timestamp("2024-06-03", tz="UTC") + pd.to_timedelta(seconds, unit="s"),
            "lat": lat + 0.03 * rng.standard_normal(number),
            "lon": lon + 0.03 * rng.standard_normal(number),
        }
    )


@pytest.fixture(scope="module")
def pipe() -> DirectPredictionPipeline:
    torch.manual_seed(0)
    model = RawExtendedForTrajectoryPrediction(RawConfig.from_preset("tiny", variant="extended"))
    return DirectPredictionPipeline(model, RawTokenizer.from_bounds(BERLIN, timezone="Europe/Berlin"))


def test_a_row_is_what_the_model_says_of_the_users_own_records(pipe: DirectPredictionPipeline) -> None:
    points = make_points()
    table = pipe.predict(points, horizon=[0.25, 6])
    assert list(table.columns) == RESULT_COLUMNS and len(table) == 6
    for user, rows in table.groupby("user_id"):
        own = RecordHistories.of_points(points[points["user_id"] == user], timezone="Europe/Berlin")
        now = int(own.slots[-1])
        with torch.no_grad():
            made = pipe.model(
                **own.before(np.array([len(own.slots) - 1]), pipe.model.config.context_records),
                target_slots=torch.tensor([[now + 1, now + 24]]),
            )
        lat, lon = own.degrees(made.predictions.numpy())
        assert np.max(haversine_km(lat[0], lon[0], rows["lat"], rows["lon"])) < 0.01
        last = points[points["user_id"] == user]["time"].max()
        assert rows["time"].iloc[0] == last.floor("15min") + pd.Timedelta("15min")


def test_users_do_not_depend_on_one_another_or_on_the_batch(pipe: DirectPredictionPipeline) -> None:
    points = make_points()
    table = pipe.predict(points)
    alone = pd.concat([pipe.predict(points[points["user_id"] == user], batch_size=1) for user in range(3)])
    pd.testing.assert_frame_equal(table, alone.reset_index(drop=True), rtol=1e-3, atol=1e-4)


def test_any_city_will_do(pipe: DirectPredictionPipeline) -> None:
    """The same records on the equator of another continent: only the clock is the tokenizer's."""
    here, there = make_points(0.0, 13.4), make_points(0.0, -78.0)
    one, other = pipe.predict(here), pipe.predict(there)
    assert other["lon"].to_numpy() - one["lon"].to_numpy() == pytest.approx(-91.4, abs=1e-3)
    assert other["radius90_km"].to_numpy() == pytest.approx(one["radius90_km"].to_numpy(), rel=1e-2)


def test_radii_hold_their_share_of_the_draws(pipe: DirectPredictionPipeline) -> None:
    points = make_points()
    table, drawn = pipe.predict(points, horizon=[1]), pipe.sample(points, 400, horizon=[1], seed=1)
    assert len(drawn) == 3 * 400 and drawn["sample"].max() == 399
    assert (table["radius50_km"] < table["radius90_km"]).all()
    assert table["stay"].between(0, 1).all()
    for user, rows in drawn.groupby("user_id"):
        row = table[table["user_id"] == user].iloc[0]
        distance = haversine_km(row["lat"], row["lon"], rows["lat"], rows["lon"])
        assert np.mean(distance <= row["radius50_km"]) == pytest.approx(0.5, abs=0.12)
        assert np.mean(distance <= row["radius90_km"]) == pytest.approx(0.9, abs=0.08)


def test_a_folder_says_which_form_it_holds(pipe: DirectPredictionPipeline, tmp_path: Path) -> None:
    pipe.model.save_pretrained(tmp_path)
    pipe.tokenizer.save_pretrained(tmp_path)
    loaded = TrajectoryPredictionPipeline.from_pretrained(tmp_path)
    assert type(loaded) is DirectPredictionPipeline
    pd.testing.assert_frame_equal(loaded.predict(make_points()), pipe.predict(make_points()))
    with pytest.raises(ValueError, match="variant"):
        MobilityEmbeddingPipeline.from_pretrained(tmp_path)


def test_the_callers_frame_stays_and_faults_are_named(pipe: DirectPredictionPipeline) -> None:
    points = make_points()
    before = points.copy()
    pipe(points, horizon="45min")
    pd.testing.assert_frame_equal(points, before)
    with pytest.raises(DataError, match="horizon must be"):
        pipe.predict(points, horizon="7min")
    with pytest.raises(DataError, match="samples must be"):
        pipe.sample(points, 0)
    with pytest.raises(DataError, match="slots"):
        other = RawTokenizer.from_bounds(BERLIN, timezone="Europe/Berlin", interval_minutes=30, model_max_length=48)
        DirectPredictionPipeline(pipe.model, other)
