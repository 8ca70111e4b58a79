"""What a past record says of a time to come: features of pairs of a query and a record (RAW's `extended` variant).

A query is "where after h slots", asked at a user's last record. A past record speaks for it where it is at the same
time of the day or the week, near, recent, or where the user came to it h slots after being here, which is the analogue
forecast (E. N. Lorenz, 1969).
"""

from __future__ import annotations

import math

import torch

NUM_PAIR_FEATURES = 22
WEEK_DAYS = 7
THURSDAY = 3  # 1 January 1970, Monday = 0
# What a model starts as, weights of features by index: the last record, the way from here the last times, records at
# that hour.
FIRST_WEIGHTS = {0: -0.5, 1: 1.0, 2: 0.5, 4: 3.0, 10: 1.0, 13: 0.5, 15: 1.5, 16: 1.0, 18: 1.5}
NOWHERE = -(2**40)  # the slot of padding: before everything


def clock(slots: torch.Tensor, slots_per_day: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Share of the day that has passed, 0..1 float32, and day of the week, 0 = Monday, of slots since 1970."""
    day = slots.div(slots_per_day, rounding_mode="floor")
    return (slots - day * slots_per_day).float() / slots_per_day, (day + THURSDAY) % WEEK_DAYS


def pair_features(
    positions: torch.Tensor, slots: torch.Tensor, targets: torch.Tensor, *, slots_per_day: int
) -> torch.Tensor:
    """(B, N, 2) km, (B, N) int64 ascending, (B, Q) int64 -> (B, Q, N, 22) float32. The last record is the present."""
    here, now = positions[:, -1:], slots[:, -1:]
    hour = slots_per_day / 24
    age = (now - slots).clamp(max=10_000 * slots_per_day).float()
    apart = length(positions - here)
    last = torch.zeros_like(age)
    last[:, -1] = 1.0
    alone = [
        torch.log1p(age) / 4,
        _decay(age / hour),
        _decay(age / slots_per_day),
        _decay(age / (WEEK_DAYS * slots_per_day)),
        last,
        torch.log1p(apart / 0.1) / 4,
        _decay(apart / 0.2),
        _decay(apart / 2),
        torch.log1p(length(positions)) / 3,
    ]
    share, weekday = (part.unsqueeze(1) for part in clock(slots, slots_per_day))
    asked_share, asked_day = (part.unsqueeze(-1) for part in clock(targets, slots_per_day))
    turn = share - asked_share
    hours = 24 * (turn - turn.round()).abs()
    same_hour, same_day = _decay(hours), (weekday == asked_day).float()
    same_kind = ((weekday >= 5) == (asked_day >= 5)).float()
    before, stale = _before(positions, slots, targets - now)
    moved = length(before - here.unsqueeze(1))
    fresh = _decay(stale / hour)
    alike = [fresh * _decay(moved / reach) for reach in (0.2, 1.0, 5.0)]
    both = [
        (2 * math.pi * turn).cos(),
        same_hour,
        _decay(hours / 4),
        same_kind,
        same_kind * same_hour,
        same_day * same_hour,
        *alike,
        alike[1] * same_hour,
        alike[1] * same_kind * same_hour,
        torch.log1p(moved) / 3 * fresh,
        fresh,
    ]
    shape = hours.shape
    return torch.stack([*(one.unsqueeze(1).expand(shape) for one in alone), *both], dim=-1)


def length(vectors: torch.Tensor) -> torch.Tensor:
    """(..., 2) -> (...)."""
    east, north = vectors.unbind(-1)
    return (east * east + north * north).sqrt()


def _decay(values: torch.Tensor) -> torch.Tensor:
    """exp(-x), at least 1e-12: products of several stay far from subnormal numbers, which processors are slow with."""
    return (-values.clamp(max=28.0)).exp()


def _before(positions: torch.Tensor, slots: torch.Tensor, ahead: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the user was `ahead` (B, Q) slots before each record: positions (B, Q, N, 2) of the last record by then,
    and by how many slots it is older, float32 (B, Q, N); where there is none, far older.
    """
    wanted = slots.unsqueeze(1) - ahead.unsqueeze(-1)  # (B, Q, N)
    batch, queries, records = wanted.shape
    row = (torch.searchsorted(slots, wanted.flatten(1), right=True) - 1).clamp(min=0)
    found = positions.gather(1, row.unsqueeze(-1).expand(-1, -1, 2)).view(batch, queries, records, 2)
    stale = (wanted.flatten(1) - slots.gather(1, row)).view_as(wanted)
    stale = torch.where((stale < 0) | (stale > 10_000), 10_000, stale)
    return found, stale.float()


__all__ = ["FIRST_WEIGHTS", "NOWHERE", "NUM_PAIR_FEATURES", "clock", "length", "pair_features"]
