"""RAW's series: records at any time -> slots without gaps, cut into windows of whole days, and their batches.

All rows of all users are one long flat axis of slots, so that filling is one `repeat` over it. Slots are
counted on the local clock: every day has the same number of slots, and a slot is always the same time of day. On the
day when clocks go forward the slots of the missing hour hold no record and are filled; when they go back, two hours
share slots.

Two rules for slots without a record, both with the first record filled back to the window's start and the last one
forward to its end:

- `paper`: a record fills the slots after the previous kept record's end up to the slot of its own last second; a record
  that ends in a slot already filled is skipped (RAW's preparation of signalling records). So a gap takes the position
  that *follows* it. Of several points in a slot the first counts.
- `forward`: a slot takes the last record that begins in it; a gap takes the last known position, so nothing is known
  before it happened.

Windows are filled one by one: a window depends on the records inside it only. A stay over a window's edge is in both.
Rows of a series lie one after the other in flat arrays (`RawSeries`): nearly all have the same length, and a batch is
then a view of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from .clock import weekday
from .errors import DataError, NoRecordsError

RULES = ("paper", "forward")
PER_SLOT = ("coordinates", "attention_mask", "observed_mask", "position_ids")
IGNORED = -100.0  # of labels


def fill_rule(fill: str, *, stays: bool) -> str:
    """`paper` or `forward`, whichever `fill` names; `auto` is the first for stays, the second for points.

    Raises:
        DataError: for any other name.
    """
    if fill not in ("auto", *RULES):
        raise DataError(f"fill must be one of {('auto', *RULES)}, got {fill!r}.")
    usual = "paper" if stays else "forward"
    return usual if fill == "auto" else fill


def last_seconds(arrival: np.ndarray, duration: np.ndarray) -> np.ndarray:
    """The last whole second of each stay, int64 (n,), of its arrival and its length in seconds (NaN = unknown): the
    arrival itself where the length is unknown or at most a second."""
    return arrival + (np.ceil(np.nan_to_num(duration)).astype(np.int64) - 1).clip(min=0)


@dataclass(frozen=True)
class SlotAxis:
    """The slots of everybody, cut into windows of `window` slots; the last one may be shorter."""

    num_slots: int
    window: int

    @property
    def num_windows(self) -> int:
        return -(-self.num_slots // self.window)


@dataclass(frozen=True)
class Filled:
    """Rows (user-windows) one after the other, sorted by both: source (S,) int64, the record that each slot takes;
    observed (S,) bool; offsets (N + 1,) int64; user, window (N,) int64.
    """

    source: np.ndarray
    observed: np.ndarray
    offsets: np.ndarray
    user: np.ndarray
    window: np.ndarray


def fill_slots(
    axis: SlotAxis,
    *,
    user: np.ndarray,
    order: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    ties: tuple[np.ndarray, ...],
    rule: str,
) -> Filled:
    """Fill every window in which a person has a record.

    Args:
        user: (n,) int64 codes. order: (n,) int64, what records of one slot are sorted by (UTC seconds).
        first, last: (n,) int64 slots, counted from the start of the axis, of a record's first and last second.
        ties: arrays (n,) that decide between records of equal slot and time, so that row order leaves no trace: the
            smaller value wins under `paper`, the larger one under `forward`.
        rule: `paper` or `forward`, see above.

    Raises:
        DataError: if no record lies on the axis.
    """
    last = np.maximum(first, last)  # the clock may go back during a stay
    record = np.flatnonzero((last >= 0) & (first < axis.num_slots))
    if len(record) == 0:
        raise NoRecordsError("no point lies between `start` and `end`.")
    first, last = first[record].clip(min=0), last[record].clip(max=axis.num_slots - 1)
    window = first // axis.window
    copies = last // axis.window - window
    if copies.any():  # a stay is in every window it touches
        piece = np.repeat(np.arange(len(record)), copies + 1)
        window = window[piece] + np.arange(len(piece)) - np.repeat(np.cumsum(copies + 1) - copies - 1, copies + 1)
        record, first, last = record[piece], first[piece], last[piece]

    rows, row = _rows(user[record] * axis.num_windows + window, int(user.max() + 1) * axis.num_windows)
    row_window = rows % axis.num_windows
    widths = np.minimum(axis.window, axis.num_slots - row_window * axis.window)
    offsets = np.concatenate([[0], np.cumsum(widths)])
    shift = offsets[row] - window * axis.window  # from a slot of the axis to one of the flat axis
    first = np.maximum(first + shift, offsets[row])
    last = np.minimum(last + shift, offsets[row + 1] - 1)

    sort = _sorted(first, order[record], (last, *(tie[record] for tie in ties)))
    first, last, record, row = first[sort], last[sort], record[sort], row[sort]
    fill = _fill_paper if rule == "paper" else _fill_forward
    source = record[fill(first, last, row, offsets)]
    observed = _covered(first, last, int(offsets[-1]))
    return Filled(source, observed, offsets, rows // axis.num_windows, row_window)


def _rows(keys: np.ndarray, num_keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct keys, sorted, and each key's place among them."""
    if num_keys > 8 * len(keys) + 1_000_000:
        rows, row = np.unique(keys, return_inverse=True)
        return rows, row
    present = np.zeros(num_keys, bool)
    present[keys] = True
    return np.flatnonzero(present), (np.cumsum(present) - 1)[keys]


def _sorted(slot: np.ndarray, time: np.ndarray, ties: tuple[np.ndarray, ...]) -> np.ndarray:
    """Order by slot, time and, only where both are equal, the rest."""
    earliest = int(time.min())
    span = int(time.max()) - earliest + 1
    if span * (int(slot.max()) + 1) < 2**62:  # one key sorts several times faster than two
        key = slot * span + (time - earliest)
        ascending = bool((key[1:] >= key[:-1]).all())
        sort = np.arange(len(key)) if ascending else np.argsort(key)
        equal = np.diff(key[sort]) == 0
    else:
        sort = np.lexsort((time, slot))
        equal = (np.diff(slot[sort]) == 0) & (np.diff(time[sort]) == 0)
    if equal.any():
        tied = np.append(equal, False) | np.append(False, equal)
        rows = sort[tied]
        sort[tied] = rows[np.lexsort((*(tie[rows] for tie in reversed(ties)), time[rows], slot[rows]))]
    return sort


def _fill_paper(first: np.ndarray, last: np.ndarray, row: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(S,): which record each slot takes. A kept record ends after all before it and fills back to the previous end."""
    # The rows lie one after the other: all ends of earlier rows are smaller.
    before = np.concatenate([[-1], np.maximum.accumulate(last)[:-1]])
    kept = np.flatnonzero(last > before)
    ends = last[kept]
    closing = np.flatnonzero(np.append(row[kept][1:] != row[kept][:-1], True))
    ends[closing] = offsets[1:] - 1
    return np.repeat(kept, np.diff(ends, prepend=-1))


def _fill_forward(first: np.ndarray, last: np.ndarray, row: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(S,): which record each slot takes: the last one that begins in it or before it; before the first, the first."""
    kept = np.flatnonzero(np.append(first[1:] != first[:-1], True))
    opening = np.flatnonzero(np.append(True, row[kept][1:] != row[kept][:-1]))
    starts = np.insert(first[kept], opening, offsets[:-1])
    taken = np.insert(kept, opening, np.searchsorted(row, np.arange(len(offsets) - 1)))
    return np.repeat(taken, np.diff(starts, append=offsets[-1]))


def _covered(first: np.ndarray, last: np.ndarray, num_slots: int) -> np.ndarray:
    """(S,) bool: slots that lie between some record's first and last second."""
    if (first == last).all():
        covered = np.zeros(num_slots, bool)
        covered[first] = True
        return covered
    change = np.bincount(first, minlength=num_slots + 1) - np.bincount(last + 1, minlength=num_slots + 1)
    return np.cumsum(change[:-1]) > 0


# Batches


@dataclass(frozen=True)
class RawSeries:
    """Encoded series, N rows one after the other; a row is one person's window, sorted by person and time.

    coordinates (S, 2) float32 box units; observed (S,) bool, something was recorded in the slot; offsets (N + 1,) int64
    of the rows; users (U,); user_index (N,) int64 rows of `users`; window_start (N,) int64 local civil seconds of the
    window's first midnight; num_outside: points that were outside the box.
    """

    coordinates: np.ndarray
    observed: np.ndarray
    offsets: np.ndarray
    users: np.ndarray
    user_index: np.ndarray
    window_start: np.ndarray
    num_outside: int

    def __len__(self) -> int:
        return len(self.user_index)

    @property
    def user_ids(self) -> np.ndarray:
        """(N,): whose row it is."""
        return self.users[self.user_index]

    @cached_property
    def recorded(self) -> np.ndarray:
        """int64 (any,): the slots of the flat arrays in which something was recorded."""
        return np.flatnonzero(self.observed)

    @property
    def start_weekday(self) -> np.ndarray:
        """(N,) int64: day of the week of the window's first day, 0 = Monday."""
        return weekday(self.window_start)

    def part(self, rows: slice) -> RawSeries:
        """Neighbouring rows, without copying."""
        begin, end = self.offsets[rows.start], self.offsets[rows.stop]
        return replace(
            self,
            coordinates=self.coordinates[begin:end],
            observed=self.observed[begin:end],
            offsets=self.offsets[rows.start : rows.stop + 1] - begin,
            user_index=self.user_index[rows],
            window_start=self.window_start[rows],
        )


def batch_series(series: RawSeries, *, length: int | None, left: bool) -> dict[str, Any]:
    """The four fields, (N, T, ...) arrays where all rows have one length or `length` is given, else lists of rows."""
    lengths = np.diff(series.offsets)
    if length is None and lengths.min() < lengths.max():
        return {name: np.split(value, series.offsets[1:-1]) for name, value in _flat_fields(series, lengths).items()}
    width = int(lengths[0]) if length is None else length
    if lengths.min() == width:
        flat = _flat_fields(series, lengths)
        return {name: value.reshape(len(lengths), width, *value.shape[1:]) for name, value in flat.items()}
    slot = np.arange(width) - ((width - lengths)[:, None] if left else 0)  # (N, T) or (T,)
    known = (slot >= 0) & (slot < lengths[:, None])
    coordinates = np.zeros((len(lengths), width, 2), np.float32)
    coordinates[known] = series.coordinates
    observed = np.zeros((len(lengths), width), np.int64)
    observed[known] = series.observed
    return {
        "coordinates": coordinates,
        "attention_mask": known.astype(np.int64),
        "observed_mask": observed,
        "position_ids": slot * known,
    }


def _flat_fields(series: RawSeries, lengths: np.ndarray) -> dict[str, np.ndarray]:
    slots = np.arange(len(series.observed))
    return {
        "coordinates": series.coordinates,
        "attention_mask": np.ones(len(slots), np.int64),
        "observed_mask": series.observed.astype(np.int64),
        "position_ids": slots - np.repeat(series.offsets[:-1], lengths),
    }


def pad_rows(
    encoded: Any, *, padding: bool | str, max_length: int, multiple: int | None, left: bool
) -> dict[str, np.ndarray | list[np.ndarray]]:
    """A list of dicts, or a dict of lists, of rows -> one array per field; see `RawTokenizer.pad`.

    Raises:
        ValueError: without coordinates.
    """
    if isinstance(encoded, Mapping):
        columns = {name: [to_numpy(row) for row in rows] for name, rows in encoded.items()}
    else:
        columns = {name: [to_numpy(row[name]) for row in encoded] for name in encoded[0]}
    if "coordinates" not in columns:
        raise ValueError(f"there are no coordinates to pad, only {sorted(columns)}.")
    lengths = np.array([len(row) for row in columns["coordinates"]])
    columns.setdefault("attention_mask", [np.ones(length, np.int64) for length in lengths])
    target = target_length(lengths, padding, max_length)
    if target is not None and multiple:
        target = -(-target // multiple) * multiple
    batch: dict[str, np.ndarray | list[np.ndarray]] = {}
    for name, rows in columns.items():
        per_slot = name in PER_SLOT or (name == "labels" and rows[0].ndim == 2)
        if per_slot and target is not None:
            rows = [_padded(row, target, left, IGNORED if name == "labels" else 0) for row in rows]
        if name == "coordinates":
            rows = [row.astype(np.float32, copy=False) for row in rows]
        whole = not per_slot or target is not None or len(set(lengths.tolist())) == 1
        batch[name] = np.stack(rows) if whole else rows
    return batch


def target_length(lengths: np.ndarray, padding: bool | str, max_length: int) -> int | None:
    """Length to pad to, or None for no padding.

    Raises:
        ValueError: for a value of `padding` that transformers does not know.
    """
    if padding not in (True, False, "longest", "max_length", "do_not_pad"):
        raise ValueError(f"padding must be True, False, 'longest', 'max_length' or 'do_not_pad', got {padding!r}.")
    if padding in (False, "do_not_pad"):
        return None
    longest = int(lengths.max())
    return max(longest, max_length) if padding == "max_length" else longest


def _padded(row: np.ndarray, length: int, left: bool, value: float) -> np.ndarray:
    missing = length - len(row)
    sides = [(missing, 0) if left else (0, missing)] + [(0, 0)] * (row.ndim - 1)
    return np.pad(row, sides, constant_values=value)


def to_numpy(values: Any) -> np.ndarray:
    """Any array or tensor as numpy; half precision, which numpy lacks or cannot add up, as float32."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype in (torch.bfloat16, torch.float16) else values).numpy()
