"""However many users are answered, the numbers that are alive at one time are those of one batch."""

from __future__ import annotations

import weakref
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_mobility.pipelines.nearness import SUMS

USERS, VISITS = 40, 5


class Alive(TorchDispatchMode):
    """Bytes of the storages of all results that are still held, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self.held: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                self._take(storage.data_ptr(), storage.nbytes(), +1)
                weakref.finalize(leaf, self._take, storage.data_ptr(), storage.nbytes(), -1)
        self.peak = max(self.peak, self.bytes)
        return result

    def _take(self, address: int, size: int, change: int) -> None:
        before = self.held[address] > 0
        self.held[address] += change
        self.bytes += size * ((self.held[address] > 0) - before)


def peak_of(world: SimpleNamespace, users: int) -> int:
    """Of `predict`, for so many users with five visits each."""
    last = world.visits[world.visits["user_id"] == world.visits["user_id"].iloc[0]].tail(VISITS)
    visits = pd.concat([last.assign(user_id=user) for user in range(users)], ignore_index=True)
    with Alive() as alive:
        answers = world.pipe.predict(visits, top_k=1)
    assert len(answers) == users
    return alive.peak


def test_ten_times_as_many_users_hold_no_more_numbers_at_one_time(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = len(world.city) + 2
    monkeypatch.setattr("hf_mobility.pipelines.next_location.SCORES_PER_BATCH", 8 * places)  # eight users a batch
    monkeypatch.setattr("hf_mobility.pipelines.nearness.VALUES", SUMS * 8 * places)  # and a group of batches
    _, few, many = (peak_of(world, users) for users in (USERS, USERS, 10 * USERS))  # the first encodes the city
    assert few > 8 * places * 4  # the scores of a batch are among them
    assert many <= few
