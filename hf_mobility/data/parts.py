"""The part of a city's records that a model is trained on, and the part that `evaluate_checkpoint` holds out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.errors import DataError
from .splits import split_by_sequence, split_by_user, split_weeks_by_user
from .tasks import split_visits
from .weeks import WeekTable

__all__ = ["split_records", "split_users", "training_part"]


def training_part(system: str, data: Any, *, test_fraction: float, seed: int) -> Any:
    """The records that `evaluate_checkpoint` with the same fraction and seed does not test on; all for fraction 0. The
    arguments are those of `split_records`."""
    if not 0 <= test_fraction < 1:
        raise DataError(f"test_fraction must lie in 0..1, 1 excluded; it is {test_fraction}.")
    if not test_fraction:
        return data
    return split_records(system, data, test_fraction=test_fraction, seed=seed)[0]


def split_records(system: str, data: Any, *, test_fraction: float, seed: int) -> tuple[Any, Any]:
    """Training and test part.

    Args:
        system: `samoe`: the earlier and the last visits of every user with ten or more. Any other: of other users.
        data: a canonical frame or a `WeekTable`.
        test_fraction: of each user's visits, or of the users.
        seed: of the split by users.
    """
    if system == "samoe":
        return split_visits(data, test_fraction=test_fraction)
    return split_users(data, test_fraction=test_fraction, seed=seed)


def split_users(data: Any, *, test_fraction: float, seed: int) -> tuple[Any, Any]:
    """Training and test part, which share no user; weeks without users share no sequence.

    Args:
        data: a canonical frame or a `WeekTable`.
    """
    fractions = (1 - test_fraction, test_fraction)
    if isinstance(data, pd.DataFrame):
        train, test = split_by_user(data, fractions, seed=seed)
        return train, test
    return tuple(data.take(rows) for rows in _week_rows(data, fractions, seed))  # type: ignore[return-value]


def _week_rows(table: WeekTable, fractions: tuple[float, float], seed: int) -> tuple[np.ndarray, ...]:
    if table.user_id is None:
        return split_by_sequence(table.cells, fractions=fractions, seed=seed)
    return split_weeks_by_user(table.user_id, fractions=fractions, seed=seed)
