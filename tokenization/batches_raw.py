"""Rows of RAW's series -> batches: one row per person and window, padded on either side.

Unusual: rows are kept one after the other in flat arrays (`RawSeries`), because nearly all have the same length and a
batch is then a view of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .clock import weekday

PER_SLOT = ("coordinates", "attention_mask", "observed_mask", "position_ids")
IGNORED = -100.0  # of labels


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

    @property
    def start_weekday(self) -> np.ndarray:
        """(N,) int64: day of the week of the window's first day, 0 = Monday."""
        return weekday(self.window_start)


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
