"""How near all places are to what users visited, for several batches of users at one time.

Users of a city visit the same places. So the exponentials of a place's distances are computed once for many users.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

SUMS = 3  # values for each place, see `SamoeForNextLocation.nearness`
USERS, VALUES = 1_024, 2**23  # of a group of batches, at most; one batch may have more


def nearness_of(
    batches: Sequence[np.ndarray], spans: np.ndarray, input_ids: np.ndarray, model: Any, city: Any
) -> Iterator[torch.Tensor | None]:
    """What the model takes as `nearness`, for each batch: (B, 3, N + 2), or None where it reads none.

    Args:
        batches: rows of `spans`, by batch.
        spans: (U, 2) where the visits of each user start and stop in `input_ids` (n,); the last one is left out.
        city: the `LocationTable`.
    """
    most = min(USERS, VALUES // (SUMS * len(city.features)))
    for group in _groups([len(batch) for batch in batches], most):
        users = np.concatenate(batches[group])
        ids = np.zeros((len(users), int(np.diff(spans[users]).max()) - 1), np.int64)
        for row, (start, stop) in zip(ids, spans[users]):
            row[: stop - start - 1] = input_ids[start : stop - 1]
        near = model.nearness(torch.from_numpy(ids).to(model.device), city)
        sizes = [len(batch) for batch in batches[group]]
        yield from [None] * len(sizes) if near is None else near.split(sizes)


def _groups(sizes: list[int], most: int) -> Iterator[slice]:
    """Consecutive batches with `most` users, or one batch."""
    start, total = 0, 0
    for stop, size in enumerate(sizes):
        if stop > start and total + size > most:
            yield slice(start, stop)
            start, total = stop, 0
        total += size
    if start < len(sizes):
        yield slice(start, len(sizes))
