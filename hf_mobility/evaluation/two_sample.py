"""Two-sample test of weeks: can a small network tell generated weeks from real ones of users it has not seen?

A classifier that learns no better than chance sees the same distribution in both sets (Lopez-Paz and Oquab 2017,
arXiv:1610.06545). The noise level is the same test between two sets of real users, which is near 0.5. torch is imported
on use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from ..data.week_arrays import check_users, check_weeks
from ..tokenization.errors import DataError
from .week_places import night_home, ranked_places

if TYPE_CHECKING:
    import torch

TRAIN_SHARE = 0.7
EPOCHS = 12
WIDTH, KERNEL, STRIDES, POOLED = 32, 5, (1, 2, 2), 7
BATCH, LEARNING_RATE = 64, 2e-3
LEAST_USERS = 4  # on each side: fewer leave nothing to test on


def two_sample_auc(
    real: Any,
    generated: Any,
    *,
    real_users: Any = None,
    generated_users: Any = None,
    epochs: int = EPOCHS,
    slots_per_day: int = 24,
    seed: int = 0,
) -> float:
    """Area under the curve of a small 1-d convolutional network that tells the two sets apart, on held-out users.

    70 % of the users of each set train the network, the others test it. Five channels per slot: at home, in the second
    place, in the third, elsewhere, has moved; so cells and their coordinates do not matter, only the course of weeks.

    Args:
        real, generated: integer (N, L) and (M, L) whole weeks, -1 = unknown.
        real_users, generated_users: (N,) and (M,), whose each week is; by default each is another user's.
        epochs: passes over the training weeks.
        slots_per_day: a multiple of 24.
        seed: of the split, the weights and the batches.

    Returns:
        0.5 where the network cannot tell, 1 where it always can. Chance differs from 0.5: compare with real weeks of
        other users.

    Raises:
        DataError: faulty weeks, users that do not fit, or fewer than four users on a side.

    Example:
        >>> two_sample_auc(real, made, real_users=users)  # doctest: +SKIP
    """
    real = check_weeks(real, name="real")
    generated = check_weeks(generated, name="generated", length=real.shape[1])
    rng = np.random.default_rng(seed)
    sides = [
        held_out_weeks(weeks, users, name, rng)
        for weeks, users, name in ((real, real_users, "real"), (generated, generated_users, "generated"))
    ]
    shown = [week_channels(weeks, slots_per_day=slots_per_day) for weeks in (real, generated)]
    train = np.concatenate([x[~held] for x, held in zip(shown, sides)])
    is_generated = np.concatenate([np.full((~held).sum(), label) for label, held in enumerate(sides)])
    scores = _scores(train, is_generated, [x[held] for x, held in zip(shown, sides)], epochs=epochs, seed=seed)
    return auc(scores[1], scores[0])


def week_channels(weeks: np.ndarray, *, slots_per_day: int = 24) -> np.ndarray:
    """float32 (N, 5, L): home, second place, third place, elsewhere, moved; all 0 in an unknown slot."""
    home = night_home(weeks, slots_per_day=slots_per_day)
    others = ranked_places(np.where(weeks == home[:, None], -1, weeks), 2)
    known = weeks >= 0
    named = [known & (weeks == place[:, None]) for place in (home, *others.T)]
    moved = np.zeros_like(known)
    moved[:, 1:] = (weeks[:, 1:] != weeks[:, :-1]) & known[:, 1:] & known[:, :-1]
    elsewhere = known & ~np.any(named, axis=0)
    return np.stack([*named, elsewhere, moved], axis=1).astype(np.float32)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive score is above a negative one, ties counting half; NaN without one of them."""
    if not len(positive) or not len(negative):
        return float("nan")
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    return float((ranks.sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


def held_out_weeks(weeks: np.ndarray, users: Any, name: str, rng: np.random.Generator) -> np.ndarray:
    """bool (N,): the weeks of the users that test."""
    users = check_users(users, weeks, name=f"{name}_users")
    code = np.unique(users, return_inverse=True)[1].ravel()
    count = int(code.max()) + 1
    if count < LEAST_USERS:
        raise DataError(f"{name} has weeks of {count} users; the test needs at least {LEAST_USERS}.")
    return np.asarray(np.isin(code, rng.permutation(count)[round(TRAIN_SHARE * count) :]))


def _scores(
    train: np.ndarray, labels: np.ndarray, tested: list[np.ndarray], *, epochs: int, seed: int
) -> list[np.ndarray]:
    """Scores of the sets `tested` by a network trained on `train`; larger where it takes a week for generated."""
    import torch
    from torch.nn import functional as F

    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(train.shape[1])
        optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
        x, y = torch.from_numpy(train), torch.from_numpy(labels.astype(np.float32))
        for _ in range(epochs):
            for rows in _batches(len(x), rng):
                loss = F.binary_cross_entropy_with_logits(network(x[rows])[:, 0], y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.inference_mode():
            return [network(torch.from_numpy(some))[:, 0].numpy() for some in tested]


def _batches(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    yield from np.array_split(rng.permutation(count), max(1, -(-count // BATCH)))


def _network(channels: int) -> torch.nn.Module:
    from torch import nn

    layers: list[nn.Module] = []
    for width, stride in zip((channels, WIDTH, WIDTH), STRIDES):
        layers += [nn.Conv1d(width, WIDTH, KERNEL, stride=stride, padding=KERNEL // 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(POOLED), nn.Flatten(), nn.Linear(WIDTH * POOLED, 1))
