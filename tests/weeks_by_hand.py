"""Small random weeks, and their places worked out with plain loops."""

from __future__ import annotations

from collections import Counter

import numpy as np


def random_weeks(n: int, *, seed: int = 0, cells: int = 5, unknown: float = 0.0, sticky: float = 0.7) -> np.ndarray:
    """(n, 168) weeks; at night most users are in cell 0 or 1, by day some work in cell 2."""
    rng = np.random.default_rng(seed)
    out = rng.integers(0, cells, (n, 168))
    for t in range(1, 168):
        stay = rng.random(n) < sticky
        out[stay, t] = out[stay, t - 1]
    hour, day = np.arange(168) % 24, np.arange(168) // 24
    out[:, hour < 6] = rng.integers(0, 2, n)[:, None]
    working = (hour >= 9) & (hour < 16) & (day < 5)
    some = rng.random(n) < 0.6
    out[np.ix_(some, working)] = np.where(rng.random((some.sum(), working.sum())) < 0.8, 2, out[np.ix_(some, working)])
    return np.where(rng.random((n, 168)) < unknown, -1, out)


def commonest(values: list[int]) -> int:
    """The commonest known value, the smaller one on ties; -1 without any."""
    count = Counter(value for value in values if value >= 0)
    return min(count, key=lambda value: (-count[value], value)) if count else -1


def home_of(week: np.ndarray) -> int:
    return commonest([int(week[24 * day + hour]) for day in range(7) for hour in range(6)])


def second_of(week: np.ndarray) -> int:
    home = home_of(week)
    return commonest([int(cell) for cell in week if cell != home])
