"""`adapt` of RAW's variant `extended`: an adapter on points of some users of a city."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hf_mobility import City, RawConfig, RawTokenizer, TrajectoryPredictionPipeline, adapt
from hf_mobility.checkpoints.evaluate import kind_of
from hf_mobility.data.record_contexts import RecordHistories
from hf_mobility.data.weeks import WeekTable
from hf_mobility.modeling import RawExtendedForTrajectoryPrediction
from hf_mobility.modeling.destinations_raw import negative_log_density
from hf_mobility.tokenization.errors import DataError
from hf_mobility.training.adapt_records import HORIZONS, ORIGINS, STEPS, adapt_records, nll_by_user, tune_records

LIMA = City.from_bounds((-12.3, -77.3, -11.7, -76.7), timezone="America/Lima")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    RawExtendedForTrajectoryPrediction(RawConfig.from_preset("tiny", variant="extended")).save_pretrained(folder)
    RawTokenizer.from_bounds((52.3, 13.1, 52.7, 13.7), timezone="UTC").save_pretrained(folder)
    return folder


def make_points(users: int = 6, records: int = 120) -> pd.DataFrame:
    """Users who are at one of two places, ten hours each, recorded every half an hour."""
    rng = np.random.default_rng(0)
    home = rng.normal((-12.0, -77.0), 0.05, (users, 2))
    user = np.repeat(np.arange(users), records)
    step = np.tile(np.arange(records), users)
    place = home[user] + 0.03 * (step // 20 % 2)[:, None]
    times = pd.Timestamp("2024-05-06", tz="UTC") + pd.to_timedelta(step * 30, unit="min")
    return pd.DataFrame({"user_id": user, "time": times, "lat": place[:, 0], "lon": place[:, 1]})


def test_an_adapter_is_saved_and_predicts_as_it_did(base: Path, tmp_path: Path) -> None:
    points = make_points()
    local = adapt(base, points, city=LIMA, strength="weak")
    assert local.strength == "weak" and local.tokenizer.timezone == "America/Lima"
    assert local.history["loss"].iloc[-1] < local.history["loss"].iloc[0]
    trained = [name for name, values in local.model.named_parameters() if values.requires_grad]
    assert trained and not any("record_embedding" in name or "pair_weights" in name for name in trained)
    local.save_pretrained(tmp_path)
    loaded = TrajectoryPredictionPipeline.from_pretrained(tmp_path)
    made = loaded.predict(points, horizon=[1, 6])
    direct = type(loaded)(local.model, local.tokenizer).predict(points, horizon=[1, 6])
    pd.testing.assert_frame_equal(made, direct)
    plain = TrajectoryPredictionPipeline.from_pretrained(base, city=LIMA).predict(points, horizon=[1, 6])
    assert not made["lat"].equals(plain["lat"])
    merged = type(loaded)(local.model.merge_and_unload(), local.tokenizer).predict(points, horizon=[1, 6])
    np.testing.assert_allclose(merged[["lat", "lon"]], made[["lat", "lon"]], atol=1e-4)


def test_the_check_takes_what_gains_on_the_other_half(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEPS, "weak", 15)
    monkeypatch.setitem(STEPS, "strong", 40)
    local = adapt(base, make_points(users=8), city=LIMA, seed=1)
    assert local.report["strength"].tolist() == ["none", "weak", "strong"] and local.report["chosen"].sum() == 1
    assert local.strength == local.report.loc[local.report["chosen"], "strength"].item()
    assert local.report["gain"].iloc[0] == 0 and local.report["nll"].iloc[1:].lt(local.report["nll"].iloc[0]).any()


def test_an_adapter_is_evaluated_as_its_base_is(base: Path, tmp_path: Path) -> None:
    points = make_points()
    adapt(base, points, city=LIMA, strength="none", test_fraction=0.5).save_pretrained(tmp_path)
    assert kind_of(tmp_path) == "mobility_raw"
    assert not (tmp_path / "handler.py").exists()


def test_users_without_a_record_at_the_times_that_are_scored_do_not_count(base: Path) -> None:
    points = make_points(users=6, records=3)
    points["time"] = points["time"] + pd.to_timedelta(points.groupby("user_id").cumcount() * 12, unit="h")  # 50 slots
    local = adapt(base, points, city=LIMA)
    assert local.strength == "weak" and local.reason.startswith("0 users are too few")


def test_few_users_are_adapted_to_weakly_and_none_is_the_model_itself(base: Path) -> None:
    assert adapt(base, make_points(users=3), city=LIMA).strength == "weak"
    model = RawExtendedForTrajectoryPrediction.from_pretrained(base).eval()
    histories = RecordHistories.of_points(make_points(), timezone="UTC")
    same, history = tune_records(model, histories, 0, seed=0)
    assert history.empty
    np.testing.assert_allclose(nll_by_user(same.eval(), histories), nll_by_user(model, histories), rtol=1e-6)


def test_scores_are_of_the_records_at_each_time_ahead(base: Path) -> None:
    model = RawExtendedForTrajectoryPrediction.from_pretrained(base).eval()
    histories = RecordHistories.of_points(make_points(users=2, records=30), timezone="UTC")
    wanted = np.zeros((2, 2))
    for user, (begin, end) in enumerate(zip(histories.offsets, histories.offsets[1:])):
        assert end - 1 - begin < ORIGINS
        for row in range(begin, end - 1):
            for ahead in HORIZONS:
                late = [histories.slots[other] - histories.slots[row] for other in range(begin, end)]
                found = next((begin + number for number, slots in enumerate(late) if slots >= ahead), None)
                if found is None or late[found - begin] > 1.25 * ahead or late[found - begin] > 96:
                    continue
                slot = torch.tensor([[histories.slots[found]]])
                with torch.no_grad():
                    answer = model(**histories.before(np.array([row]), 24), target_slots=slot)
                    place = torch.from_numpy(histories.km[found]).view(1, 1, 2)
                    wanted[user] += float(negative_log_density(answer.destinations, place)), 1
    np.testing.assert_allclose(nll_by_user(model, histories), wanted, rtol=1e-4)


def test_what_cannot_be_used_is_refused(base: Path) -> None:
    points = make_points(users=4, records=4)
    with pytest.raises(ValueError, match="strength must be 'auto' or one of"):
        adapt(base, points, city=LIMA, strength="wild")
    with pytest.raises(DataError, match="strength of positions must be auto, none, weak, strong"):
        adapt_records(base, points, city=LIMA, strength="wild")
    with pytest.raises(DataError, match="time zone is missing"):
        adapt(base, points)
    with pytest.raises(DataError, match="none of 4 users has a record that another one follows"):
        adapt(base, points.groupby("user_id").head(1), city=LIMA)
    weeks = WeekTable(np.zeros((2, 24), np.int32), None, None, pd.DataFrame(index=range(2)))
    with pytest.raises(DataError, match="not on weeks of cells"):
        adapt(base, weeks, city=LIMA)
    with pytest.raises(ValueError, match="are for SAMoE only"):
        adapt(base, points, city=LIMA, window=12)
