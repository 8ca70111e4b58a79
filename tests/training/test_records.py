"""Batches for RAW's `extended` variant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hf_mobility import City, RawConfig, RawTokenizer, TrajectoryPredictionPipeline, train
from hf_mobility.data.record_contexts import RecordHistories
from hf_mobility.modeling import RawExtendedForTrajectoryPrediction
from hf_mobility.tokenization.errors import DataError
from hf_mobility.training.records import LATER, RecordRows


def make_histories(users: int = 3, records: int = 120, seed: int = 0) -> RecordHistories:
    rng = np.random.default_rng(seed)
    slots = 1_800_000 + rng.integers(1, 9, (users, records)).cumsum(1)
    return RecordHistories(
        users=np.arange(users),
        offsets=np.arange(users + 1) * records,
        slots=slots.ravel(),
        km=rng.standard_normal((users * records, 2)).astype(np.float32),
        origin=np.zeros((users, 2)),
        last=900 * slots[:, -1],
    )


def test_a_label_is_the_record_of_that_user_at_that_time() -> None:
    histories = make_histories()
    place = {
        (user, int(histories.slots[row])): histories.km[row]
        for user in range(3)
        for row in range(*histories.offsets[user : user + 2])
    }
    owner = {tuple(km.tolist()): key for key, km in place.items()}
    batch = RecordRows([histories], rows=64, records=32, times=8).__getitems__(list(range(64)))
    counted = 0
    for row in range(64):
        user, now = owner[tuple(batch["positions"][row, -1].tolist())]
        assert now == int(batch["slots"][row, -1])
        for slot, label in zip(batch["target_slots"][row].tolist(), batch["labels"][row]):
            if not label.isnan().any():
                assert 0 < slot - now <= 96
                assert label.tolist() == place[user, slot].tolist()
                counted += 1
    assert counted > 200


def test_a_time_without_a_record_teaches_nothing() -> None:
    histories = make_histories(users=1, records=2)
    histories.slots[1] = histories.slots[0] + 50
    rows = RecordRows([histories], rows=8, records=32, horizons=(4,), times=16)
    batch = rows.__getitems__(list(range(8)))
    drawn = batch["target_slots"][~batch["labels"].isnan().any(-1)]
    assert set(drawn.tolist()) <= {int(histories.slots[1])}
    assert batch["labels"].isnan().any(-1).float().mean() > 0.5  # 50 slots later is not 4 slots later
    assert 50 > LATER * 4


def test_batches_are_drawn_by_the_seed_from_several_cities() -> None:
    cities = [make_histories(), make_histories(records=60, seed=1)]
    rows = RecordRows(cities, rows=100, records=16, shares=(1, 3))
    one, same = (rows.__getitems__(list(range(20))) for _ in range(2))
    assert all(torch.equal(one[name].nan_to_num(), same[name].nan_to_num()) for name in one)
    other = RecordRows(cities, rows=100, records=16, seed=1).__getitems__(list(range(20)))
    assert not torch.equal(one["slots"], other["slots"])
    assert len(rows) == 100 and one["slots"].shape == one["attention_mask"].shape == (20, 16)
    assert one["attention_mask"][:, -1].all()


def test_a_trained_model_goes_on_with_points_of_another_city(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = RawExtendedForTrajectoryPrediction(RawConfig.from_preset("tiny", variant="extended"))
    model.save_pretrained(tmp_path)
    RawTokenizer.from_bounds((52.3, 13.1, 52.7, 13.7), timezone="UTC").save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    home = rng.normal((-12.0, -77.0), 0.05, (4, 2))
    user = np.arange(400) % 4
    place = home[user] + 0.03 * (np.arange(400) // 40 % 2)[:, None]
    times = pd.Timestamp("2024-05-06", tz="UTC") + pd.to_timedelta(np.arange(400) * 30, unit="min")
    points = pd.DataFrame({"user_id": user, "time": times, "lat": place[:, 0], "lon": place[:, 1]})
    lima = City.from_bounds((-12.3, -77.3, -11.7, -76.7), timezone="America/Lima")
    made = train("raw", points, start=tmp_path, city=lima, steps=60, batch_size=16, learning_rate=3e-3)
    assert made.tokenizer.timezone == "America/Lima" and "400 slots of 4 users" in made.notes[0]
    assert made.history["loss"].iloc[-1] < made.history["loss"].iloc[0]
    made.save_pretrained(tmp_path / "made")
    table = TrajectoryPredictionPipeline.from_pretrained(tmp_path / "made").predict(points, horizon=1)
    assert len(table) == 16 and table["lat"].between(-13, -11).all()


def moving_points(latitude: float) -> pd.DataFrame:
    """Two users at two places each, in turns of five hours."""
    number = np.arange(80)
    times = pd.Timestamp("2024-05-06", tz="UTC") + pd.to_timedelta(number // 2 * 30, unit="min")
    place = latitude + 0.1 * (number % 2) + 0.02 * (number // 20 % 2)
    return pd.DataFrame({"user_id": number % 2, "time": times, "lat": place, "lon": 10.0})


def test_a_new_model_is_trained_on_several_cities(tmp_path: Path) -> None:
    lima = City.from_bounds((-12.3, -77.3, -11.7, -76.7), timezone="America/Lima")
    cities = [(moving_points(52.0), "Europe/Berlin"), (moving_points(-12.0), lima)]
    made = train("raw", cities, variant="extended", size="tiny", steps=2, batch_size=8)
    assert made.model.config.variant == "extended" and made.tokenizer.timezone == "Europe/Berlin"
    assert made.notes == ("records: 80 slots of 2 users",) * 2
    made.save_pretrained(tmp_path)
    pipe = TrajectoryPredictionPipeline.from_pretrained(tmp_path, city=lima)
    assert len(pipe.predict(moving_points(-12.0), horizon=[1, 2])) == 4
    tested = train("raw", cities, variant="extended", size="tiny", steps=1, batch_size=8, test_fraction=0.5)
    assert tested.notes == ("records: 40 slots of 1 users",) * 2


def test_what_contradicts_the_variant_is_refused(tmp_path: Path) -> None:
    points = moving_points(52.0)
    for system, options, sentence in (
        ("samoe", {}, "variant is for raw and one of released, extended, not 'extended' of samoe"),
        ("raw", {"variant": "paper"}, "variant is for raw and one of released, extended, not 'paper' of raw"),
        ("raw", {"start": tmp_path}, "variant: of a new model"),
        ("raw", {"coverage": 0.9}, "coverage is for mstar-codec and raw, not for raw of variant extended"),
    ):
        with pytest.raises(DataError, match=sentence):
            train(system, points, timezone="UTC", **{"variant": "extended", **options})
    with pytest.raises(DataError, match="time zone is missing"):
        train("raw", points, variant="extended", steps=1)
    with pytest.raises(DataError, match="vocabulary is for mstar"):
        train("raw", points, variant="extended", vocabulary="slots", timezone="UTC")


def test_users_without_a_following_record_are_refused() -> None:
    with pytest.raises(DataError, match="another one follows"):
        RecordRows([make_histories(users=2, records=1)], rows=4, records=8)
