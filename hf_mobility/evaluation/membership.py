"""Membership inference: do generated weeks tell who was in the training?

The attacker knows a user's week and the generated weeks. The nearer the nearest generated week, the likelier he takes
the user for one of the training (Hilprecht et al. 2019, doi:10.2478/popets-2019-0067). A generator that gives nothing
away leaves him at 0.5. Other attackers may do better: a good result is no proof.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.week_arrays import check_users, check_weeks
from .fidelity_movement import nearest_overlap
from .two_sample import auc


def membership(
    generated: Any,
    *,
    members: Any,
    others: Any,
    member_users: Any = None,
    other_users: Any = None,
    bootstrap: int = 200,
    seed: int = 0,
) -> dict[str, float]:
    """How well the nearest generated week separates training users from others.

    Args:
        generated: integer (N, L) generated weeks, -1 = unknown.
        members, others: (M, L) weeks of training users and (K, L) of users who are in no part of the training.
        member_users, other_users: (M,) and (K,), whose the weeks are; by default each is another user's.
        bootstrap: resamplings of the users for the interval.
        seed: of the resamplings.

    Returns:
        auc: chance that a member's week shares more of its hours with its nearest generated week than another user's
        does, ties counting half. auc_low, auc_high: 95 % interval over users. members, others: number of users.

    Raises:
        DataError: faulty weeks, or users that do not fit.

    Example:
        >>> membership(made, members=train, others=held_out)  # doctest: +SKIP
    """
    generated = check_weeks(generated, name="generated")
    scores, starts = [], []
    for weeks, users, name in ((members, member_users, "member"), (others, other_users, "other")):
        weeks = check_weeks(weeks, name=f"{name}s", length=generated.shape[1])
        score = nearest_overlap(weeks, generated)
        code = np.unique(check_users(users, weeks, name=f"{name}_users"), return_inverse=True)[1].ravel()
        known = np.isfinite(score)
        order = np.argsort(code[known], kind="stable")
        scores.append(score[known][order])
        starts.append(np.unique(code[known][order], return_index=True)[1])
    rng = np.random.default_rng(seed)
    drawn = [auc(*(_resampled(score, at, rng) for score, at in zip(scores, starts))) for _ in range(bootstrap)]
    low, high = np.percentile(drawn, (2.5, 97.5)) if bootstrap else (np.nan, np.nan)
    found = {"auc": auc(*scores), "auc_low": float(low), "auc_high": float(high)}
    return found | {"members": len(starts[0]), "others": len(starts[1])}


def _resampled(score: np.ndarray, starts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The scores of as many users, drawn with replacement; `starts` is the first row of each."""
    ends = np.append(starts[1:], len(score))
    chosen = rng.integers(len(starts), size=len(starts))
    count = (ends - starts)[chosen]
    first = np.repeat(starts[chosen] - np.cumsum(count) + count, count)
    return score[first + np.arange(len(first))]
