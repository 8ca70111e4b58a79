"""How far ahead: hours or time spans as whole slots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.errors import SHOWN, DataError


def slots_of(horizon: Any, minutes: int) -> np.ndarray:
    """Slots ahead (H,) int64, ascending: all up to one horizon, or those of a list.

    Raises:
        DataError: for what is no time span, or not a whole positive number of slots.
    """
    several = isinstance(horizon, Sequence | np.ndarray | pd.Series) and not isinstance(horizon, str)
    spans = list(horizon) if several else [horizon]
    slots = np.array([_minutes(span) for span in spans]) / minutes
    bad = ~((slots >= 1) & (np.abs(slots - np.round(slots)) < 1e-6))
    if bad.any() or not len(slots):
        raise DataError(
            f"horizon must be a positive whole number of slots of {minutes} minutes, such as 2 (hours) or '2h', not "
            f"{[span for span, is_bad in zip(spans, bad) if is_bad][:SHOWN]}."
        )
    whole = np.round(slots).astype(np.int64)
    return np.unique(whole) if several else np.arange(1, whole[0] + 1)


def _minutes(span: Any) -> float:
    """Hours or anything that `pandas.Timedelta` reads; NaN for the rest."""
    if isinstance(span, (int, float, np.integer, np.floating)):
        return 60.0 * float(span)
    try:
        return pd.Timedelta(span).total_seconds() / 60
    except (ValueError, TypeError):
        return math.nan


__all__ = ["slots_of"]
