"""One row of a result: a metric on one case and subset, per visit and per user."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Score:
    """A number with its interval; None = not defined.

    Fields:
        case: name of the test set. subset: of its targets. metric: its name.
        value, low, high: per visit (window, week), with its 95 % interval over users.
        by_user, by_user_low, by_user_high: mean of the users' means.
        n, users: counted. draws: averaged. spread: standard deviation over draws.
    """

    case: str
    subset: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    by_user: float | None = None
    by_user_low: float | None = None
    by_user_high: float | None = None
    n: int = 0
    users: int | None = None
    draws: int = 1
    spread: float | None = None


NUMBERS = ("value", "low", "high", "by_user", "by_user_low", "by_user_high")


def over_draws(scores: Iterable[Score]) -> list[Score]:
    """Means over the draws of a case; bounds are averaged too. `spread` is that of the values."""
    groups: dict[tuple[str, str, str], list[Score]] = {}
    for one in scores:
        groups.setdefault((one.case, one.subset, one.metric), []).append(one)
    return [_mean(some) for some in groups.values()]


def _mean(some: Sequence[Score]) -> Score:
    values = {name: [getattr(one, name) for one in some] for name in NUMBERS}
    means: dict[str, Any] = {
        name: None if None in found else rounded(float(np.mean(found))) for name, found in values.items()
    }
    known = [one.value for one in some if one.value is not None]
    spread = rounded(float(np.std(known, ddof=1))) if len(known) > 1 else None
    return replace(some[0], **means, draws=len(some), spread=spread)


def rounded(value: Any) -> float | None:
    """Six digits; None for what is no number, which JSON does not know."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), 6)


def user_means(values: np.ndarray, user: np.ndarray, *, bootstrap: int, seed: int = 0) -> dict[str, Any]:
    """Mean of the users' means, and its 95 % interval over resampled users.

    Args:
        values: (m,) per target. user: (m,) whose they are.
    """
    if not len(values):
        return {}
    code = np.unique(user, return_inverse=True)[1]
    means = np.bincount(code, values) / np.bincount(code)
    found: dict[str, Any] = {"by_user": rounded(means.mean())}
    if bootstrap:
        draws = np.random.default_rng(seed).integers(len(means), size=(bootstrap, len(means)))
        low, high = np.percentile(means[draws].mean(axis=1), (2.5, 97.5))
        found |= {"by_user_low": rounded(low), "by_user_high": rounded(high)}
    return found


def ratio_interval(part: Any, whole: Any, group: Any, *, bootstrap: int, seed: int = 0) -> tuple[float, float]:
    """95 % interval of sum(part) / sum(whole) over resampled groups; with ones as `whole`, of a mean.

    Args:
        part, whole: (m,) numbers. group: (m,) whose they are.
    """
    code = np.unique(np.asarray(group), return_inverse=True)[1].reshape(-1)
    parts, wholes = np.bincount(code, part), np.bincount(code, whole)
    if not bootstrap or not len(parts):
        return math.nan, math.nan
    draws = np.random.default_rng(seed).multinomial(len(parts), np.full(len(parts), 1 / len(parts)), size=bootstrap)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (draws @ parts) / (draws @ wholes)
    low, high = np.nanpercentile(found, (2.5, 97.5))
    return float(low), float(high)


def as_rows(scores: Iterable[Score]) -> list[dict[str, Any]]:
    return [asdict(one) for one in scores]


def from_rows(rows: Iterable[dict[str, Any]]) -> list[Score]:
    known = {one.name for one in fields(Score)}
    return [Score(**{name: value for name, value in row.items() if name in known}) for row in rows]
