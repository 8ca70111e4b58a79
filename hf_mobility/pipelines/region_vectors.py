"""Vectors of regions: which are kept, and pooling over the slots that were spent in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data.regions import Visitors, count_visitors
from ..tokenization.errors import DataError
from ..tokenization.tokenization_raw import RawSeries, RawTokenizer


def slots_in_regions(
    series: RawSeries, tokenizer: RawTokenizer, regions: Any, *, min_visits: int
) -> tuple[Visitors, np.ndarray, np.ndarray]:
    """Who was where, counted in recorded slots, and what is pooled.

    Returns:
        The visitors; and pairs (P,) of a flat slot of the series, ascending, and the row of its region. A user with
        fewer than `min_visits` slots in a region is in none of the three.
    """
    slot = series.recorded
    row = np.searchsorted(series.offsets, slot, side="right") - 1
    lat, lon = tokenizer.denormalize(series.coordinates[slot])
    user = series.user_ids[row]
    there = count_visitors(pd.DataFrame({"user_id": user, "lat": lat, "lon": lon}), regions, min_visits=min_visits)
    each = count_visitors(pd.DataFrame({"user_id": np.arange(len(slot)), "lat": lat, "lon": lon}), regions)
    region, place = each.region, each.users[each.user]  # a slot is a visitor of its own here
    region = pd.Index(there.region_ids).get_indexer(pd.Index(each.region_ids))[region]
    code = pd.Index(there.users).get_indexer(pd.Index(user))[place]
    counted = np.isin(region * len(there.users) + code, there.region * len(there.users) + there.user)
    order = np.argsort(place[counted], kind="stable")
    return there, slot[place[counted][order]], region[counted][order]


def pool_slots(
    series: RawSeries,
    slot: np.ndarray,
    region: np.ndarray,
    *,
    num_regions: int,
    slices: Iterable[slice],
    states_of: Callable[[RawSeries], torch.Tensor],
) -> np.ndarray:
    """float32 (R, D): signed logarithms, `sign(x) log(1 + |x|)`, of the sums of the states of these slots.

    Args:
        slot, region: (P,), as `slots_in_regions` returns them.
        slices: rows of the series that are read at one time. states_of: their slots' states (slots, D), flat.
    """
    total = None
    for rows in slices:
        begin, end = np.searchsorted(slot, series.offsets[[rows.start, rows.stop]])
        states = states_of(series.part(rows)).double()
        if total is None:
            total = torch.zeros(num_regions, states.shape[1], dtype=torch.float64)
        own = torch.from_numpy(slot[begin:end] - series.offsets[rows.start])
        total.index_add_(0, torch.from_numpy(region[begin:end]), states[own])
    assert total is not None  # a series has a row
    return np.asarray((total.sign() * total.abs().log1p()).float().numpy())


def check_apart(there: Visitors, min_users: int) -> None:
    """Raise a `DataError` where regions overlap and the difference of two would tell of few users."""
    if min_users > 1 and there.overlap:
        one, other = there.overlap
        raise DataError(
            f"Regions overlap (first {one!r} and {other!r}): the difference of their vectors tells of fewer than "
            f"min_users={min_users} users. Give regions that do not overlap, or min_users=1 for users who agreed "
            "or simulated ones."
        )


def region_table(there: Visitors, users: np.ndarray, values: np.ndarray, *, min_users: int) -> pd.DataFrame:
    """Regions with users enough, and what was left out in `attrs`; `users` (R,), `values` (R, D).

    Raises:
        DataError: no region has so many users.
    """
    users = users.astype(np.int64)
    kept = np.flatnonzero(users >= min_users)
    if not len(kept):
        raise DataError(
            f"Every region has fewer than min_users={min_users} visitors (at most {users.max()}); take larger "
            "regions or more users."
        )
    table = with_columns({"region_id": there.region_ids[kept], "users": users[kept]}, values[kept])
    table.attrs["left_out"] = {
        "min_users": min_users,
        "regions": int(((users > 0) & (users < min_users)).sum()),
        "unvisited": int((users == 0).sum()),
        "reason": f"privacy: the vector of a region with fewer than {min_users} visitors tells who was there",
    }
    return table


def with_columns(first: dict[str, np.ndarray], values: np.ndarray) -> pd.DataFrame:
    """The columns `first`, and one column `e0`, `e1`, .. for each of the values (n, D)."""
    names = [f"e{i}" for i in range(values.shape[1])]
    return pd.concat([pd.DataFrame(first), pd.DataFrame(values, columns=names)], axis=1)


__all__ = ["check_apart", "pool_slots", "region_table", "slots_in_regions", "with_columns"]
