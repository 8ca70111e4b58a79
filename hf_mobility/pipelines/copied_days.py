"""A guess of the unknown hours of weeks that are completed: what the user did on other days."""

from __future__ import annotations

import numpy as np

from ..baselines.completion import CommonHour


def copied_days(weeks: np.ndarray, *, slots_per_day: int = 24) -> np.ndarray:
    """Weeks (N, L), -1 = unknown -> without unknown hours, int32: those of `CommonHour`; 0 in a week of which
    nothing is known."""
    filled = np.zeros(weeks.shape, np.int32)
    some = (weeks >= 0).any(axis=1)
    if some.any():
        filled[some] = CommonHour(slots_per_day=slots_per_day).complete(weeks[some])
    return filled
