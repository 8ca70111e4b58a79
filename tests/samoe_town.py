"""A town of eight places and its visits, shared by the tests of SAMoE's tokenizer (`pythonpath` in pyproject.toml)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hf_mobility import City, SamoeConfig, SamoeTokenizer

FIELDS = ("input_ids", "time_ids", "weekday_ids", "stay_ids", "timestamps")
PLACES = [f"p{k}" for k in range(8)]
LAT = 48 + 0.01 * np.arange(8)
LON = 11 + 0.02 * (np.arange(8) ** 2 % 5)


def make_city(timezone: str = "Europe/Berlin", **changes: Any) -> City:
    rng = np.random.default_rng(1)
    values = {
        "name": "Town",
        "timezone": timezone,
        "location_ids": np.array(PLACES),
        "lat": LAT,
        "lon": LON,
        "poi": rng.random((8, 5)),
        "poi_names": tuple("abcde"),
        "popularity": np.arange(1, 9),
    }
    return City(**{**values, **changes})


def make_visits(lengths: tuple[int, ...] = (6, 3, 4), seed: int = 0) -> pd.DataFrame:
    """Canonical visits of people 5, 6, 7, ...; minutes to days apart."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    rows = rng.integers(0, 8, n)
    return pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(5, 5 + len(lengths)), lengths),
            "time": pd.to_datetime(1_711_800_000 + rng.integers(60, 100_000, n).cumsum(), unit="s", utc=True).as_unit(
                "us"
            ),
            "location_id": np.array(PLACES, dtype=object)[rows],
            "lat": LAT[rows],
            "lon": LON[rows],
        }
    )


CITY = make_city()
CONFIG = SamoeConfig.from_preset("tiny", num_poi_features=5)
TOKENIZER = SamoeTokenizer.from_city(CITY, CONFIG)
