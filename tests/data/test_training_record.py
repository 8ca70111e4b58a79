"""The record of a training: which share of other records was trained on, from a sample of hashes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.data import training_record
from hf_mobility.data.training_record import TrainingRecord
from hf_mobility.data.weeks import WeekTable


def frame(rows: int, *, users: int = 50, first: int = 0, lat: float = 50.0) -> pd.DataFrame:
    number = np.arange(first, first + rows)
    time = pd.to_datetime(1_700_000_000 + 60 * number, unit="s", utc=True)
    return pd.DataFrame({"user_id": number % users, "time": time, "lat": lat, "lon": 8.0})


def weeks(rows: range) -> WeekTable:
    cells = np.array([np.random.default_rng(row).integers(-1, 9, 168) for row in rows], np.int32)
    return WeekTable(cells, np.array([f"p{row // 2}" for row in rows]), None, pd.DataFrame(index=range(len(rows))))


@given(trained=st.integers(1, 60), first=st.integers(0, 70), rows=st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_a_small_training_is_known_exactly(trained: int, first: int, rows: int) -> None:
    record = TrainingRecord.of([frame(trained)])
    shared = len(range(first, min(trained, first + rows)))
    assert record.share_of(frame(rows, first=first))["records"] == pytest.approx(shared / rows)


def test_a_large_training_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    record = TrainingRecord.of([frame(60_000)])
    assert len(record.hashes["records"]) == training_record.SAMPLE < 60_000
    assert record.share_of(frame(40_000, first=50_000))["records"] == pytest.approx(0.25, abs=0.05)
    assert record.share_of(frame(40_000, first=60_000))["records"] < 0.001  # a hash of 32 bits is shared by chance
    assert record.share_of(frame(10_000))["records"] == 1


def test_a_test_of_few_records_is_not_judged_by_a_sample() -> None:
    record = TrainingRecord.of([frame(400_000, users=40_000)])
    few, many = frame(200, users=40_000), frame(20_000, users=40_000)  # all of them were trained on
    assert np.isnan(record.share_of(few)["records"]) and record.share_of(many)["records"] == 1


def test_another_city_with_the_same_ids_and_times_is_another() -> None:
    record = TrainingRecord.of([frame(500)])
    assert record.share_of(frame(500, lat=40.0)) == {"records": 0.0, "people": 0.0}
    moved = record.share_of(frame(500, lat=50.003))  # the same, put on the middle of a cell
    assert moved == {"records": 1.0, "people": 1.0}
    as_text = frame(500).astype({"user_id": str})
    assert record.share_of(as_text)["records"] == 1.0
    assert record.share_of(frame(500, first=500)) == {"records": 0.0, "people": 1.0}


def test_weeks_are_compared_by_their_cells() -> None:
    record = TrainingRecord.of([weeks(range(10))])
    assert record.share_of(weeks(range(5, 15))) == {"records": 0.5, "people": pytest.approx(3 / 6)}
    assert record.share_of(frame(20)) == {"records": 0.0, "people": 0.0}


@pytest.mark.parametrize("size", [20, 200, 5000])
def test_a_model_that_goes_on_has_seen_both(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_record, "SAMPLE", 256)
    first = TrainingRecord.of([frame(size)])
    both = TrainingRecord.of([frame(size, first=size)], earlier=first)
    at_once = TrainingRecord.of(
        [frame(2 * size)], earlier=TrainingRecord(first.salt, {k: v[:0] for k, v in first.hashes.items()})
    )
    for kind, hashes in both.hashes.items():
        np.testing.assert_array_equal(hashes, at_once.hashes[kind])


def test_the_file_names_nobody_and_comes_back(tmp_path: Path) -> None:
    visits = frame(100).assign(user_id=[f"somebody-{i}" for i in range(100)])
    record = TrainingRecord.of([visits], system="samoe", test_fraction=0.3, seed=4)
    record.save(tmp_path)
    assert "somebody" not in (tmp_path / training_record.FILE).read_text()
    again = TrainingRecord.load(tmp_path)
    assert again is not None and (again.system, again.test_fraction, again.seed) == ("samoe", 0.3, 4)
    assert again.share_of(visits) == {"records": 1.0, "people": 1.0}
    assert TrainingRecord.load(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    "change", [{"records": "!"}, {"salt": 3}, {"more": 1}, {"records": None}, {"test_fraction": "x"}]
)
def test_a_damaged_file_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    TrainingRecord.of([frame(3)]).save(tmp_path)
    path = tmp_path / training_record.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="is no record of a training"):
        TrainingRecord.load(tmp_path)
