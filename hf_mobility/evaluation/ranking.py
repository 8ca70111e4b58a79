"""Ranking metrics of next-location prediction: one row per target, intervals by user.

The true place is ranked among all places of the city. Tied places share the middle of their ranks, so a predictor that
gives every place the same score gains nothing from the order of the table. A target outside the city's table is a miss;
it is not dropped. Means are over visits and, side by side, over users (each user's own mean counts once): a few users
with long histories can carry the first. Intervals resample users, because the visits of one user are not independent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd

from ..data.tasks import NextLocationTask

ECE_BINS = 15
DRAWS_AT_ONCE = 2**22  # numbers of draws, 32 MiB
PROBABILITY_FLOOR = 1e-9  # NLL of a place that a predictor excludes or the city does not list: 20.7 nats


class Predictor(Protocol):
    """Anything that gives a distribution over the city's places for every target of a task."""

    name: str

    def probabilities(self, task: NextLocationTask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows (m,), p (m, N) float32 with rows summing to 1), together every target row once, in any order."""
        ...


@dataclass(frozen=True, eq=False)
class RankingResult:
    """One predictor's outcome on each target of a task; arrays are aligned and in ascending order of `rows`.

    Fields:
        name: of the predictor.
        rows: int64 (m,), target rows of the task.
        user: int64 (m,), user codes.
        rank: float64 (m,), 1 is best, ties at the middle (1.5 for two tied at the top), inf where not listed.
        probability: float64 (m,), given to the true place; 0 where not listed.
        top_probability: float64 (m,), of the most probable place.
        ks: the k of Acc@k.
        arrival_time_given: whether the predictor knew when the target visit begins. Never compare rows that differ.
    """

    name: str
    rows: np.ndarray
    user: np.ndarray
    rank: np.ndarray
    probability: np.ndarray
    top_probability: np.ndarray
    ks: tuple[int, ...] = (1, 5, 10)
    arrival_time_given: bool = False

    @property
    def correct(self) -> np.ndarray:
        """bool (m,): the true place alone is on top."""
        return self.rank <= 1

    @property
    def listed(self) -> np.ndarray:
        """bool (m,): the city lists the true place."""
        return np.isfinite(self.rank)

    def metric(self, name: str) -> np.ndarray:
        """Values per target of "acc@k", "mrr" or "nll" (natural logarithm), float64 (m,)."""
        if name == "mrr":
            return 1 / self.rank
        if name == "nll":
            return -np.log(np.maximum(self.probability, PROBABILITY_FLOOR))
        if name.startswith("acc@") and name[4:].isdigit():
            return (self.rank <= int(name[4:])).astype(np.float64)
        raise ValueError(f"Unknown metric {name!r}; use acc@k, mrr or nll.")


class PairedDifference(NamedTuple):
    """Mean of a - b over targets or users, and its 95 % bootstrap interval by user."""

    mean: float
    low: float
    high: float


def evaluate(predictor: Predictor, task: NextLocationTask, *, ks: Sequence[int] = (1, 5, 10)) -> RankingResult:
    """Rank the true place of every target among all places of the city.

    Raises:
        ValueError: the predictor leaves targets out, repeats them, or gives values that are no distributions.
    """
    n, places = len(task.visits), len(task.city.location_ids)
    rank, probability, top = np.full(n, np.inf), np.zeros(n), np.zeros(n)
    seen = np.zeros(n, dtype=np.int64)
    for rows, p in predictor.probabilities(task):
        rows, p = np.asarray(rows), np.asarray(p)
        _check_distributions(predictor.name, rows, p, places)
        np.add.at(seen, rows, 1)
        truth = task.location[rows]
        listed = truth >= 0
        own = p[np.arange(len(rows)), np.where(listed, truth, 0)]
        greater = (p > own[:, None]).sum(axis=1)
        equal = (p == own[:, None]).sum(axis=1)
        rank[rows] = np.where(listed, greater + (equal + 1) / 2, np.inf)
        probability[rows] = np.where(listed, own, 0.0)
        top[rows] = p.max(axis=1)
    wrong = np.flatnonzero(seen != task.target)
    if len(wrong):
        raise ValueError(
            f"{predictor.name}: {len(wrong)} rows were predicted not exactly once or are no targets "
            f"(first rows: {wrong[:5].tolist()})."
        )
    rows = task.rows
    return RankingResult(
        name=predictor.name,
        rows=rows,
        user=task.user[rows],
        rank=rank[rows],
        probability=probability[rows],
        top_probability=top[rows],
        ks=tuple(ks),
        arrival_time_given=bool(getattr(predictor, "arrival_time_given", False)),
    )


def summarize(
    results: RankingResult | Sequence[RankingResult],
    *,
    subsets: Mapping[str, np.ndarray] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Metrics with 95 % intervals, one row per result and subset.

    Args:
        results: one or several results; with `subsets` all over the same targets.
        subsets: name -> bool (number of targets,), aligned with `RankingResult.rows`: `groups(task)` makes some.
        bootstrap: number of resamplings of the users; 0 leaves the intervals out.
        seed: of the resampling.

    Returns:
        Columns model, subset, arrival_time_given, n, users, unlisted (share of targets the city does not list), then
        acc@k for each k, mrr, nll, ece over targets and, as `user_<metric>`, with the same weight for every user: the
        mean of the users' own means; for the ECE, the targets of a user share the weight 1. Each has an interval,
        `<metric>_low` and `<metric>_high`. Subset "all" counts unlisted targets as misses; where there are any, a row
        "listed" leaves them out. Subsets without a target have n = 0 and NaN.

    Example:
        >>> table = summarize(evaluate(UserFrequency(), task), subsets=groups(task))  # doctest: +SKIP
        >>> table[["subset", "users", "acc@1", "user_acc@1"]]  # doctest: +SKIP
    """
    results = [results] if isinstance(results, RankingResult) else list(results)
    table = []
    for result in results:
        masks = {"all": np.ones(len(result.rows), dtype=bool)}
        if not result.listed.all():
            masks["listed"] = result.listed
        for subset, mask in {**masks, **(subsets or {})}.items():
            mask = _checked_subset(f"Subset {subset!r}", mask, result)
            head = {"model": result.name, "subset": subset, "arrival_time_given": result.arrival_time_given}
            table.append(head | _metrics(result, mask, bootstrap, seed))
    return pd.DataFrame(table)


def paired_difference(
    a: RankingResult,
    b: RankingResult,
    metric: str = "mrr",
    bootstrap: int = 2000,
    seed: int = 0,
    *,
    per: str = "visit",
    subset: np.ndarray | None = None,
) -> PairedDifference:
    """Mean of metric(a) - metric(b), with a 95 % interval that resamples users.

    The pairing makes it far sharper than the two single intervals.

    Args:
        a, b: results over the same targets.
        metric: "mrr", "acc@k" or "nll".
        bootstrap: number of resamplings.
        seed: of the resampling.
        per: "visit", every target counts the same, or "user", every user does.
        subset: bool (number of targets,), aligned with `RankingResult.rows`; None takes all. NaN where it is empty.

    Raises:
        ValueError: the results are not over the same targets, or differ in whether arrival time was given.

    Example:
        >>> paired_difference(ours, mix, "acc@1", per="user").low > 0  # doctest: +SKIP
    """
    if not np.array_equal(a.rows, b.rows) or not np.array_equal(a.user, b.user):
        raise ValueError(f"{a.name} and {b.name} were not evaluated on the same targets.")
    if a.arrival_time_given != b.arrival_time_given:
        raise ValueError(
            f"{a.name} and {b.name} differ in whether the arrival time was given; they cannot be compared."
        )
    if per not in ("visit", "user"):
        raise ValueError(f"per must be 'visit' or 'user', not {per!r}.")
    chosen = slice(None) if subset is None else _checked_subset("subset", subset, a)
    user, difference = a.user[chosen], (a.metric(metric) - b.metric(metric))[chosen]
    if not len(user):
        return PairedDifference(np.nan, np.nan, np.nan)
    sums = _by_user(user, np.column_stack([difference, np.ones_like(difference)]))
    if per == "user":
        sums /= sums[:, -1:]
    draws = _resampled(sums, bootstrap, seed)
    low, high = np.percentile(draws[:, 0] / draws[:, 1], (2.5, 97.5))
    mean = sums[:, 0].sum() / sums[:, 1].sum()
    return PairedDifference(float(mean), float(low), float(high))


def new_place_mask(task: NextLocationTask) -> np.ndarray:
    """bool (number of targets,), in order of `task.rows`: the user never visited the target's place before."""
    places = task.visits["location_id"] if "location_id" in task.visits else pd.Series(task.location)
    keys = pd.DataFrame({"user": task.user, "place": places.to_numpy()})
    return ~keys.duplicated().to_numpy()[task.rows]


def _check_distributions(name: str, rows: np.ndarray, p: np.ndarray, places: int) -> None:
    if p.shape != (len(rows), places):
        raise ValueError(f"{name}: probabilities have shape {p.shape}; expected {(len(rows), places)}.")
    if not len(rows):
        return
    bad = ~(np.abs(p.sum(axis=1, dtype=np.float64) - 1) < 1e-3) | (p.min(axis=1) < 0)
    if bad.any():
        raise ValueError(
            f"{name}: {int(bad.sum())} rows are no distribution over the places (first rows: {rows[bad][:5].tolist()})."
        )


def _checked_subset(what: str, mask: np.ndarray, result: RankingResult) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.shape != result.rows.shape or mask.dtype != bool:
        raise ValueError(f"{what} is {mask.dtype} {mask.shape}; {result.name} needs bool {result.rows.shape}.")
    return mask


def _metrics(result: RankingResult, mask: np.ndarray, bootstrap: int, seed: int) -> dict[str, float]:
    names = [f"acc@{k}" for k in result.ks] + ["mrr", "nll"]
    user = result.user[mask]
    out: dict[str, float] = {"n": int(mask.sum()), "users": len(np.unique(user))}
    if not len(user):
        missing = [f"{prefix}{name}" for prefix in ("", "user_") for name in (*names, "ece")]
        return out | dict.fromkeys(["unlisted", *missing], np.nan)
    out["unlisted"] = float(1 - result.listed[mask].mean())

    # Every mean is a ratio of sums over users, so a resampled user is a weight on that user's sums. Divided by the
    # user's number of targets, the same sums give every user the same weight.
    gap = _calibration_gap(result.top_probability[mask], result.correct[mask])
    values = [result.metric(name)[mask] for name in names]
    sums = _by_user(user, np.column_stack([*values, gap, np.ones(len(user))]))
    both = np.hstack([sums, sums / sums[:, -1:]])
    draws = both.sum(axis=0, keepdims=True)  # the estimate comes first
    if bootstrap:
        draws = np.concatenate([draws, _resampled(both, bootstrap, seed)])
    for prefix, part in zip(("", "user_"), np.split(draws, 2, axis=1)):
        means = part[:, :-1] / part[:, -1:]
        ece = np.abs(means[:, len(names) :]).sum(axis=1)
        for name, draw in zip([*names, "ece"], [*means.T[: len(names)], ece], strict=True):
            out[f"{prefix}{name}"] = float(draw[0])
            if bootstrap:
                low, high = np.percentile(draw[1:], (2.5, 97.5))
                out |= {f"{prefix}{name}_low": float(low), f"{prefix}{name}_high": float(high)}
    return out


def _calibration_gap(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Correctness minus confidence of each target, in the column of its confidence bin, float64 (m, ECE_BINS)."""
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gap = np.zeros((len(confidence), ECE_BINS))
    gap[np.arange(len(confidence)), bins] = correct - confidence
    return gap


def _by_user(user: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums of the columns of `values` (m, c) over the targets of each user, float64 (users, c)."""
    code = np.unique(user, return_inverse=True)[1]
    sums = np.zeros((int(code.max()) + 1, values.shape[1]))
    np.add.at(sums, code, values)
    return sums


def _resampled(sums: np.ndarray, bootstrap: int, seed: int) -> np.ndarray:
    """Sums of the rows (users, c) of as many users as there are, drawn anew each time; float64 (bootstrap, c). Draws
    are made in blocks: together they are as many as users times resamplings."""
    users = len(sums)
    rng, share = np.random.default_rng(seed), np.full(users, 1 / users)
    rows = max(1, DRAWS_AT_ONCE // users)
    sizes = (min(rows, bootstrap - start) for start in range(0, bootstrap, rows))
    return np.concatenate([rng.multinomial(users, share, size=size).astype(np.float64) @ sums for size in sizes])
