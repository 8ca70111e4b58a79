"""Counts of points by cell and hour, against a loop over the points."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hf_mobility.baselines.regions import hours_of_visits, region_counts
from hf_mobility.tokenization.grid import SquareGrid

GRID = SquareGrid(37.0, -122.0, 37.2, -121.8, 2, 2)
ZONE = "America/Los_Angeles"


def points(number: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    time = pd.Timestamp("2024-03-08", tz="UTC") + pd.to_timedelta(rng.integers(0, 7 * 86_400, number), unit="s")
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 5, number),
            "time": time,
            "lat": rng.uniform(36.95, 37.25, number),  # some lie outside
            "lon": rng.uniform(-122.0, -121.8, number),
        }
    )


def test_every_point_inside_counts_once_at_its_local_hour() -> None:
    table = points()
    by_hand = np.zeros((4, 7, 24), int)
    for time, lat, lon in zip(table["time"], table["lat"], table["lon"]):
        local = time.tz_convert(ZONE)
        if 37.0 <= lat <= 37.2:
            by_hand[2 * int(lat >= 37.1) + int(lon >= -121.9), local.day_of_week, local.hour] += 1
    found = hours_of_visits(table, GRID, ZONE)
    np.testing.assert_array_equal(found, by_hand)


def test_features_are_logarithms_of_sums_of_the_hours() -> None:
    table = points()
    visits = hours_of_visits(table, GRID, ZONE)
    found = region_counts(table, GRID, ZONE, np.array([1, 2, 3, 0]))
    assert {name: values.shape[1] for name, values in found.items()} == {
        "number of visitors": 1,
        "total points": 1,
        "visits by hour of the day": 24,
        "visits by hour of the week": 168,
    }
    np.testing.assert_allclose(np.expm1(found["number of visitors"][:, 0]), [1, 2, 3, 0])
    np.testing.assert_allclose(np.expm1(found["total points"][:, 0]), visits.sum(axis=(1, 2)))
    np.testing.assert_allclose(np.expm1(found["visits by hour of the week"]).sum(axis=1), visits.sum(axis=(1, 2)))
