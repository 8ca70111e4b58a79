"""The expected gap: quantiles of the model's classes, corrected by a person's own gaps."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from hf_mobility import NextLocationPipeline, SamoeConfig, SamoeTokenizer
from hf_mobility.modeling.times_samoe import stay_class, stay_quantile, stay_seconds
from hf_mobility.pipelines.gaps import PRIOR_GAPS, expected_gaps

LOG = SamoeConfig.from_preset("tiny")
HALF_HOURS = SamoeConfig.from_preset("tiny", variant="released")


@pytest.mark.parametrize("config", [LOG, HALF_HOURS], ids=["log", "half_hours"])
def test_a_quantile_has_its_share_of_the_classes_below_it(config: SamoeConfig) -> None:
    rng = np.random.default_rng(0)
    shares = torch.from_numpy(rng.dirichlet(np.full(config.num_stay_bins, 0.3), 50))
    for level in (0.1, 0.5, 0.9):
        seconds = stay_quantile(shares, level, config)
        found = stay_class((seconds + 1).long(), config).numpy()
        for row, (own, c) in enumerate(zip(shares.numpy(), found)):
            if 0 < seconds[row] and c < config.num_stay_bins - 1:
                assert own[:c].sum() - 1e-3 <= level <= own[: c + 1].sum() + 1e-3


@pytest.mark.parametrize("config", [LOG, HALF_HOURS], ids=["log", "half_hours"])
def test_quantiles_ascend_and_stay_in_their_class(config: SamoeConfig) -> None:
    for c in range(1, config.num_stay_bins - 1):
        one = torch.nn.functional.one_hot(torch.tensor([c]), config.num_stay_bins).double()
        low, middle, high = (float(stay_quantile(one, level, config)) for level in (0.1, 0.5, 0.9))
        assert low < middle < high and stay_class(torch.tensor([int(middle)]), config) == c
        assert middle == pytest.approx(float(stay_seconds(torch.tensor(c), config)), rel=1e-3, abs=1)


def test_own_gaps_change_the_prior_of_the_classes() -> None:
    """Worked out again in numpy, with left padding and people of one visit."""
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.normal(size=(4, 6, LOG.num_stay_bins)))
    times = torch.from_numpy(np.cumsum(rng.integers(600, 90_000, (4, 6)), axis=1))
    known = torch.ones(4, 6, dtype=torch.bool)
    known[1, :3] = False
    known[2, :5] = False
    found = expected_gaps(logits, times, known, LOG)
    for row in range(4):
        p = logits[row].double().numpy().copy()
        p[:, 0] = -np.inf
        p = np.exp(p) / np.exp(p).sum(axis=1, keepdims=True)
        first = int(np.flatnonzero(known[row].numpy())[0])
        gaps = np.diff(times[row, first:].numpy())
        own = np.zeros(LOG.num_stay_bins)
        for gap in gaps:
            own[int(1.6 * np.log2(1 + gap / 600)) + 1] += 1
        expected = p[-1]
        if len(gaps):
            usual = p[first:-1].sum(axis=0) / len(gaps) + 1e-4
            expected = p[-1] * (own + PRIOR_GAPS * usual) / ((len(gaps) + PRIOR_GAPS) * usual)
            expected /= expected.sum()
        wanted = stay_quantile(torch.from_numpy(expected), 0.5, LOG)
        assert float(found["expected_gap"][row]) == pytest.approx(float(wanted), rel=1e-3)
        assert found["gap_low"][row] < found["expected_gap"][row] < found["gap_high"][row]


def test_who_tells_every_hour_where_they_are_is_expected_in_an_hour(toy: SimpleNamespace) -> None:
    """It was a mean of 60 hours, whatever the person's own gaps."""
    _, city = toy.city(6)
    times = pd.date_range("2024-01-01", periods=120, freq="h", tz="UTC")
    ids = np.resize(city.location_ids[:3], len(times))
    hourly = pd.DataFrame({"user_id": 1, "time": times, "location_id": ids})
    hourly[["lat", "lon"]] = np.stack([city.lat[city.index_of(ids)], city.lon[city.index_of(ids)]], axis=1)
    model = toy.model()
    table = NextLocationPipeline(model, SamoeTokenizer.from_city(city, model.config)).predict(hourly, top_k=1)
    assert 0.7 * 3600 < table["expected_gap"].item() < 1.4 * 3600
    assert table["expected_stay"].item() > 10 * 3600
