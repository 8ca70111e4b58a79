"""What the next-location pipeline and its sessions share: visits that are read, and scores that become shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from ..modeling.layers import finite
from ..tokenization.errors import DataError
from ..tokenization.tokenization_samoe import NUM_SPECIAL, SamoeTokenizer
from .base import read_records

READ = ("user_id", "time", "location_id", "lat", "lon")


def check_top_k(top_k: int, tokenizer: SamoeTokenizer) -> None:
    """Raises a `DataError` for fewer places than one or more than the city's."""
    if not 1 <= top_k <= len(tokenizer.location_ids):
        raise DataError(f"top_k must be between 1 and the city's {len(tokenizer.location_ids)} locations, got {top_k}.")


def read_visits(visits: Any, tokenizer: SamoeTokenizer, *, timezone: Any, columns: dict[str, str]) -> pd.DataFrame:
    """Checked visits; where there is no `location_id`, the city's nearest places count."""
    frame = read_records(visits, timezone=timezone, columns=columns, names=READ)
    if "location_id" not in frame:
        rows = tokenizer.nearest(frame["lat"].to_numpy(), frame["lon"].to_numpy()) - NUM_SPECIAL
        frame = frame.assign(location_id=tokenizer.location_ids[rows])
    return frame


def place_shares(scores: torch.Tensor, tokenizer: SamoeTokenizer, model: Any) -> torch.Tensor:
    """(..., N + 2) scores -> (..., N) float32 probabilities of the places, at the city's temperature.

    Raises:
        ValueError: scores that are not finite.
    """
    return finite((scores[..., NUM_SPECIAL:].float() / tokenizer.temperature).softmax(-1), model)


def best_places(
    scores: torch.Tensor, tokenizer: SamoeTokenizer, model: Any, top_k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The most probable places: (B, N + 2) scores -> rows of the city (B, k) and their `place_shares`, of which no
    others are computed."""
    logits = scores[..., NUM_SPECIAL:].float() / tokenizer.temperature
    best = logits.topk(top_k, dim=-1)
    return best.indices, finite((best.values - logits.logsumexp(-1, keepdim=True)).exp(), model)


def answers_table(
    users: np.ndarray, places: np.ndarray, shares: np.ndarray, seconds: dict[str, np.ndarray], tokenizer: SamoeTokenizer
) -> pd.DataFrame:
    """One row per user and rank, from rows of the city and their probabilities (U, k), and seconds (U,) by name."""
    top_k, rows = places.shape[1], places.ravel()
    return pd.DataFrame(
        {
            "user_id": np.repeat(users, top_k),
            "rank": np.tile(np.arange(1, top_k + 1), len(users)),
            "location_id": tokenizer.location_ids[rows],
            "lat": tokenizer.lat[rows],
            "lon": tokenizer.lon[rows],
            "probability": shares.ravel(),
            **{name: np.repeat(values, top_k) for name, values in seconds.items()},
        }
    )
