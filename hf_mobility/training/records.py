"""Batches for RAW's `extended` variant: a user's records up to one of them, and where the user was later."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..data.record_contexts import RecordHistories
from ..tokenization.errors import DataError

CITIES = 4  # of a batch
DAY = 96  # slots of 15 minutes
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
        longest: int = DAY,
        seed: int = 0,
    ) -> None:
        self.cities, self.rows, self.records, self.times, self.seed = list(cities), rows, records, times, seed
        self.horizons, self.longest = np.asarray(horizons, np.int64), longest
        self.shares = np.ones(len(self.cities)) if shares is None else np.asarray(shares, np.float64)
        self._origins = [_origins(city, longest) for city in self.cities]
        self._keys = [keys_of(city) for city in self.cities]

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
        targets, found = later_records(city, self._keys[chosen], ends, self._ahead(number, rng), longest=self.longest)
        labels = np.where(targets[..., None] >= 0, city.km[found], np.nan).astype(np.float32)
        asked = np.where(targets >= 0, targets, city.slots[ends][:, None] + 1)
        given = city.before(ends, self.records)
        return {**given, "target_slots": torch.from_numpy(asked), "labels": torch.from_numpy(labels)}

    def _ahead(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """(B, Q) slots."""
        shape = (number, self.times)
        ahead = np.exp(rng.random(shape) * np.log(self.longest + 1)).astype(np.int64)
        return np.where(rng.random(shape) < 0.5, rng.choice(self.horizons, shape), ahead)


def later_records(
    city: RecordHistories, key: np.ndarray, ends: np.ndarray, ahead: np.ndarray, *, longest: int = DAY
) -> tuple[np.ndarray, np.ndarray]:
    """The first records that are at least `ahead` (B, Q) slots later than the records `ends` (B,) of the same user.

    Args:
        key: `keys_of` the city.
        longest: slots; later ones do not count, nor those that are late for the time asked for.

    Returns:
        (B, Q): their slots, -1 = none at that time, and their rows.
    """
    stop = city.offsets[np.searchsorted(city.offsets, ends, side="right")]
    row = np.searchsorted(key, key[ends][:, None] + ahead)
    there = row < stop[:, None]
    row = np.minimum(row, stop[:, None] - 1)
    late = city.slots[row] - city.slots[ends][:, None]
    there &= (late <= LATER * ahead) & (late <= longest)
    return np.where(there, city.slots[row], -1), row


def owners_of(city: RecordHistories) -> np.ndarray:
    """(P,): whose records these are, as numbers of users."""
    return np.repeat(np.arange(len(city.users)), np.diff(city.offsets))


def keys_of(city: RecordHistories) -> np.ndarray:
    """(P,) int64, ascending over users and slots."""
    return owners_of(city) * SPAN + city.slots


def following(city: RecordHistories, longest: int = DAY) -> np.ndarray:
    """Rows that another record of the user follows within `longest` slots."""
    user = owners_of(city)
    return np.flatnonzero((user[1:] == user[:-1]) & (np.diff(city.slots) <= longest))


def _widened(values: torch.Tensor, name: str, width: int) -> torch.Tensor:
    """Padding on the left, where there are records."""
    if name in ("target_slots", "labels"):
        return values
    return torch.cat([values.new_zeros(len(values), width - values.shape[1], *values.shape[2:]), values], dim=1)


def _origins(city: RecordHistories, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that another record follows, and the cumulated weights of drawing them."""
    user, rows = owners_of(city), following(city, longest)
    if not len(rows):
        raise DataError(
            f"None of {len(city.users)} users has a record that another one follows within {longest} slots."
        )
    weight = np.maximum(np.bincount(user[rows], minlength=len(city.users)), 1) ** -0.5
    return rows, np.cumsum(weight[user[rows]])
