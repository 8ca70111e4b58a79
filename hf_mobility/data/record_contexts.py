"""Users' records as RAW's `extended` variant reads them: slots of the local clock and kilometres, the last ones whole
and the older ones thinned out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..tokenization.clock import to_local
from ..tokenization.grid import from_km, to_km
from ..tokenization.series_raw import last_seconds
from .past_records import PastRecords

__all__ = ["RecordHistories", "contexts_of"]

MOST_SLOTS = 14 * 96  # of one stay: a longer one counts by its last fortnight


@dataclass(frozen=True, eq=False)
class RecordHistories:
    """Recorded slots of U users, one user after the other.

    Fields:
        users: (U,), sorted. offsets: int64 (U + 1,).
        slots: int64 (P,), slots of the local clock since 1970, ascending for each user.
        km: float32 (P, 2), [east, north] of the user's own `origin`, float64 (U, 2) degrees (latitude, longitude).
        last: int64 (U,), epoch second of each user's last record, or of the end of the last stay.
    """

    users: np.ndarray
    offsets: np.ndarray
    slots: np.ndarray
    km: np.ndarray
    origin: np.ndarray
    last: np.ndarray

    @classmethod
    def of_points(cls, points: pd.DataFrame, *, timezone: Any, interval_minutes: int = 15) -> RecordHistories:
        """The records of points or stays in canonical columns: the last one that begins in a slot counts; a stay is
        recorded in every slot that it touches.

        Example:
            >>> RecordHistories.of_points(points, timezone="Asia/Shanghai").before(np.array([7]), 512)
        """
        users, user = np.unique(points["user_id"].to_numpy(), return_inverse=True)
        begin = end = points["time"].to_numpy("datetime64[s]").astype(np.int64)
        if "duration" in points:
            end = last_seconds(begin, points["duration"].to_numpy())
        lat, lon = points["lat"].to_numpy(np.float64), points["lon"].to_numpy(np.float64)
        first, final = (to_local(each, timezone) // (60 * interval_minutes) for each in (begin, end))
        copies = np.clip(final - first, 0, MOST_SLOTS - 1) + 1
        piece = np.repeat(np.arange(len(user)), copies)
        later = np.arange(len(piece)) - np.repeat(np.cumsum(copies) - copies, copies)
        slot = np.maximum(first, final - MOST_SLOTS + 1)[piece] + later
        order = np.lexsort((lon[piece], lat[piece], begin[piece], slot, user[piece]))
        piece, slot = piece[order], slot[order]
        kept = np.append((np.diff(slot) != 0) | (np.diff(user[piece]) != 0), True)
        piece, slot = piece[kept], slot[kept]
        owner = user[piece]
        offsets = np.searchsorted(owner, np.arange(len(users) + 1))
        origin = np.stack([lat[piece], lon[piece]], axis=1)[offsets[1:] - 1]
        km = np.stack(to_km(lat[piece], lon[piece], origin=(origin[owner, 0], origin[owner, 1])), axis=1)
        last = np.full(len(users), np.iinfo(np.int64).min)
        np.maximum.at(last, user, end)
        return cls(users, offsets, slot, km.astype(np.float32), origin, last)

    def of_users(self, kept: Any) -> RecordHistories:
        """The records of some users, a bool (U,) mask."""
        kept = np.asarray(kept, bool)
        length = np.diff(self.offsets)
        rows = np.repeat(kept, length)
        offsets = np.concatenate([[0], np.cumsum(length[kept])])
        parts = (self.slots[rows], self.km[rows], self.origin[kept], self.last[kept])
        return RecordHistories(self.users[kept], offsets, *parts)

    def degrees(self, km: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Latitudes and longitudes of points (U, ..., 2) in the frames of the users."""
        lat, lon = (self.origin[:, axis].reshape(-1, *[1] * (km.ndim - 2)) for axis in (0, 1))
        origin: Any = (lat, lon)
        return from_km(km[..., 0], km[..., 1], origin=origin)

    def before(self, ends: np.ndarray, records: int) -> dict[str, torch.Tensor]:
        """Inputs of a model: what is known behind the records `ends` (B,), each the last one of its context.

        Args:
            ends: rows of `slots`.
            records: how many a context has at most, see `context_rows`.
        """
        begin = self.offsets[np.searchsorted(self.offsets, ends, side="right") - 1]
        return _inputs(self.slots, self.km, begin, ends + 1, records)


def contexts_of(past: PastRecords, metres_per_unit: np.ndarray, rows: np.ndarray, records: int) -> dict[str, Any]:
    """`RecordHistories.before` of what was recorded before some `rows` of the futures of a task."""
    low, high = int(past.begin[rows].min()), int(past.end[rows].max())
    flat = past.recorded[low:high]
    window = np.searchsorted(past.offsets, flat, side="right") - 1
    slots = past.first_slot[window] + flat - past.offsets[window]
    km = in_km(past.points[flat], metres_per_unit)
    return _inputs(slots, km, past.begin[rows] - low, past.end[rows] - low, records)


def in_km(units: np.ndarray, metres_per_unit: np.ndarray) -> np.ndarray:
    """Box units (..., 2) -> km, float32."""
    return np.asarray(units * (metres_per_unit / 1000), np.float32)


def context_rows(begin: np.ndarray, end: np.ndarray, records: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (B, N) of the records that a context of `begin[i]:end[i]` reads, ascending, and which of them are padding,
    on the left.

    Up to `records` all are read. Of more, the newest half of that number is, and every k-th of the older ones.
    """
    length = end - begin
    recent = min(records, max(1, records // 2)) if int(length.max()) > records else records
    back = np.broadcast_to(np.arange(min(records, int(length.max()))), (len(begin), min(records, int(length.max()))))
    step = np.ones(len(begin), np.int64)
    if recent < records:
        step = np.maximum(1, -(-(length - recent) // (records - recent)))
    older = recent + (back - recent) * step[:, None]
    back = np.where(back < recent, back, older)
    known = back < length[:, None]
    rows = np.where(known, end[:, None] - 1 - back, begin[:, None])
    return rows[:, ::-1], known[:, ::-1]


def _inputs(slots: np.ndarray, km: np.ndarray, begin: np.ndarray, end: np.ndarray, records: int) -> dict[str, Any]:
    rows, known = context_rows(begin, end, records)
    return {
        "positions": torch.from_numpy(km[rows]),
        "slots": torch.from_numpy(slots[rows]),
        "attention_mask": torch.from_numpy(known.astype(np.int64)),
    }
