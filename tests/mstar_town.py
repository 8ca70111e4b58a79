"""A small grid and random records on it, shared by the tests of M-STAR's tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hf_mobility.tokenization.tokenization_mstar import MstarTokenizer

BOX = (47.9, 10.9, 48.1, 11.2)
ZONE = "Europe/Berlin"


def make_tokenizer(**changes: Any) -> MstarTokenizer:
    return MstarTokenizer.from_grid(BOX, **{"timezone": ZONE, "rows": 6, "columns": 5, "factors": (4, 2, 1), **changes})


TOKENIZER = make_tokenizer()


def make_records(people: int = 3, count: int = 60, *, seed: int = 0, days: int = 20) -> pd.DataFrame:
    """Random records of some people from Sunday 25 February 2024 on, some outside the grid."""
    rng = np.random.default_rng(seed)
    n = people * count
    times = pd.Timestamp("2024-02-25", tz="UTC") + pd.to_timedelta(rng.integers(0, days * 86_400, n), unit="s")
    return pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(people), count),
            "time": times.as_unit("us"),
            "lat": rng.choice([47.93, 47.98, 48.03, 48.15], n, p=[0.4, 0.3, 0.2, 0.1]),
            "lon": rng.choice([10.95, 11.01, 11.15], n),
        }
    ).sort_values(["user_id", "time"], ignore_index=True)
