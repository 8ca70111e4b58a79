"""The headline of a generator: noise first, means and spreads over draws of the single measures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from weeks_by_hand import random_weeks

from hf_mobility import DataError
from hf_mobility.evaluation import fidelity, fidelity_report, regularity, two_sample_auc, week_report
from hf_mobility.evaluation.user_pairs import one_user_pairs
from hf_mobility.evaluation.week_report import WEEK_COLUMNS

PLACES = {"lat": np.linspace(0, 0.4, 5), "lon": np.zeros(5)}
REAL, TRAIN = random_weeks(16, seed=1), random_weeks(24, seed=2)
OWNERS = {"real_users": np.arange(16) // 2, "train_users": np.arange(24) // 2}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    made = {"mine": [random_weeks(16, seed=k, sticky=0.9) for k in (3, 4)], "HourlyMarkov": random_weeks(16, seed=5)}
    return week_report(made, real=REAL, train=TRAIN, epochs=1, draws=3, **OWNERS, **PLACES)


def test_rows_are_noise_real_baselines_models(table: pd.DataFrame) -> None:
    assert table["model"].tolist() == ["train sample", "real itself", "HourlyMarkov", "mine"]
    assert table["draws"].tolist() == [3, 1, 1, 2]
    assert {*WEEK_COLUMNS, *(f"{name}_sd" for name in WEEK_COLUMNS)} <= set(table)


def test_values_are_means_and_spreads_of_the_single_measures(table: pd.DataFrame) -> None:
    row = table.set_index("model").loc["mine"]
    draws = [random_weeks(16, seed=k, sticky=0.9) for k in (3, 4)]
    single = {
        "motif_tv": [fidelity(REAL, weeks, **PLACES)["motif_tv"] for weeks in draws],
        "arrival_sd": [regularity(weeks)["arrival_sd"] for weeks in draws],
        "one_user_pairs": [one_user_pairs(weeks, TRAIN, OWNERS["train_users"]) for weeks in draws],
        "two_sample_auc": [
            two_sample_auc(REAL, weeks, real_users=OWNERS["real_users"], epochs=1, seed=k)
            for k, weeks in enumerate(draws)
        ],
    }
    for name, values in single.items():
        assert row[name] == pytest.approx(np.mean(values)), name
        assert row[f"{name}_sd"] == pytest.approx(np.std(values, ddof=1)), name


def test_the_real_row_holds_the_real_numbers_and_no_test(table: pd.DataFrame) -> None:
    row = table.set_index("model").loc["real itself"]
    assert row["mean6"] == 0 and row["motif_tv"] == 0 and row["cpc"] == 1
    assert np.isnan(row["two_sample_auc"])
    for name, value in regularity(REAL).items():
        assert row[name] == pytest.approx(value)


def test_the_columns_of_the_fidelity_report_are_the_same(table: pd.DataFrame) -> None:
    made = {"mine": [random_weeks(16, seed=k, sticky=0.9) for k in (3, 4)], "HourlyMarkov": random_weeks(16, seed=5)}
    plain = fidelity_report(made, real=REAL, train=TRAIN, draws=3, **PLACES).drop(columns="form")
    pd.testing.assert_frame_equal(table[plain.columns], plain)


def test_the_two_sample_test_can_be_left_out() -> None:
    table = week_report({"mine": REAL}, real=REAL, train=TRAIN, epochs=0, draws=1, **PLACES)
    assert table["two_sample_auc"].isna().all()


def test_faults_are_one_sentence() -> None:
    with pytest.raises(DataError, match=r"train_users has shape \(2,\); give one user for each of the 24 weeks"):
        week_report({}, real=REAL, train=TRAIN, train_users=[0, 1], **PLACES)
    with pytest.raises(DataError, match="weeks of seven days"):
        week_report({}, real=REAL[:, :48], train=TRAIN[:, :48], **PLACES)
