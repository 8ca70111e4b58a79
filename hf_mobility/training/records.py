"""Batches for RAW's `extended` variant: a user's records up to one of them, and where the user was later."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..data.record_contexts import RecordHistories
from ..tokenization.errors import DataError

CITIES = 4  # of a batch
SPAN = 2**40  # slots, more than any history has
LATER = 1.25  # a record that is later than the time that was drawn by this factor does not stand for it


class RecordRows(torch.utils.data.Dataset):
    """Drawn rows of one or several cities. A batch is made at once, in equal parts of up to four drawn cities.

    A user counts by the square root of the number of records, a city by its share. The times ahead are drawn on a
    logarithmic scale, up to `longest`, or from `horizons`; without a record at that time or soon after it, nothing is
    learned of it.

    Args:
        cities: histories of the training users.
        rows: how many rows are drawn in all, `len()` of the set.
        records: of a context at most; `config.context_records`.
        shares: of the cities among the batches; by default equal.
        horizons: slots ahead that half of the times are drawn from.
        times: drawn for each row.
        longest: slots.
        seed: of all draws.

    Raises:
        DataError: nobody has a record that another one follows.
    """

    def __init__(
        self,
        cities: Sequence[RecordHistories],
        *,
        rows: int,
        records: int,
        shares: Sequence[float] | None = None,
        horizons: Sequence[int] = (1, 4, 10, 24, 96),
        times: int = 6,
        longest: int = 96,
        seed: int = 0,
    ) -> None:
        self.cities, self.rows, self.records, self.times, self.seed = list(cities), rows, records, times, seed
        self.horizons, self.longest = np.asarray(horizons, np.int64), longest
        self.shares = np.ones(len(self.cities)) if shares is None else np.asarray(shares, np.float64)
        owners = [np.repeat(np.arange(len(city.users)), np.diff(city.offsets)) for city in self.cities]
        self._origins = [_origins(city, user, longest) for city, user in zip(self.cities, owners)]
        self._keys = [user * SPAN + city.slots for city, user in zip(self.cities, owners)]

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, indices[0], len(indices)))
        parts = [self._drawn(len(some), rng) for some in np.array_split(indices, CITIES) if len(some)]
        width = max(part["slots"].shape[1] for part in parts)
        return {name: torch.cat([_widened(part[name], name, width) for part in parts]) for name in parts[0]}

    def _drawn(self, number: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Rows of one city."""
        chosen = int(rng.choice(len(self.cities), p=self.shares / self.shares.sum()))
        city, (rows, total) = self.cities[chosen], self._origins[chosen]
        ends = rows[np.searchsorted(total, rng.random(number) * total[-1])]
        targets, found = self._targets(city, self._keys[chosen], ends, rng)
        labels = np.where(targets[..., None] >= 0, city.km[found], np.nan).astype(np.float32)
        asked = np.where(targets >= 0, targets, city.slots[ends][:, None] + 1)
        given = city.before(ends, self.records)
        return {**given, "target_slots": torch.from_numpy(asked), "labels": torch.from_numpy(labels)}

    def _targets(
        self, city: RecordHistories, key: np.ndarray, ends: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(B, Q): slots of later records, -1 = none at that time, and their rows. `key` (P,) ascends over users and
        slots."""
        shape = (len(ends), self.times)
        ahead = np.exp(rng.random(shape) * np.log(self.longest + 1)).astype(np.int64)
        ahead = np.where(rng.random(shape) < 0.5, rng.choice(self.horizons, shape), ahead)
        stop = city.offsets[np.searchsorted(city.offsets, ends, side="right")]
        row = np.searchsorted(key, key[ends][:, None] + ahead)
        there = row < stop[:, None]
        row = np.minimum(row, stop[:, None] - 1)
        late = city.slots[row] - city.slots[ends][:, None]
        there &= (late <= LATER * ahead) & (late <= self.longest)
        return np.where(there, city.slots[row], -1), row


def _widened(values: torch.Tensor, name: str, width: int) -> torch.Tensor:
    """Padding on the left, where there are records."""
    if name in ("target_slots", "labels"):
        return values
    return torch.cat([values.new_zeros(len(values), width - values.shape[1], *values.shape[2:]), values], dim=1)


def _origins(city: RecordHistories, user: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that another record follows within `longest` slots, and the cumulated weights of drawing them; `user` (P,)
    is whose records they are."""
    follows = np.append((user[1:] == user[:-1]) & (np.diff(city.slots) <= longest), False)
    rows = np.flatnonzero(follows)
    if not len(rows):
        raise DataError(
            f"None of {len(city.users)} users has a record that another one follows within {longest} slots."
        )
    weight = np.maximum(np.bincount(user[rows], minlength=len(city.users)), 1) ** -0.5
    return rows, np.cumsum(weight[user[rows]])
