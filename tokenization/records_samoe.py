"""Records of visits as SAMoE's tokenizer reads them: by their columns, whatever holds them. Never imports pandas."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np


def local_seconds(utc: np.ndarray, timezone_name: str) -> np.ndarray:
    """UTC epoch seconds -> seconds of local civil time counted as if it were UTC, int64 (n,).

    No zone changes its offset other than on a quarter of an hour, so each quarter is looked up once.
    """
    zone = ZoneInfo(timezone_name)
    quarters, inverse = np.unique(utc // 900, return_inverse=True)
    moments = (datetime.fromtimestamp(quarter * 900, zone) for quarter in quarters.tolist())
    offsets = np.fromiter((moment.utcoffset().total_seconds() for moment in moments), np.float64, len(quarters))
    return utc + offsets[inverse].astype(np.int64)


def is_records(items: Any) -> bool:
    return len(items) > 0 and isinstance(items[0], dict)


def has_column(visits: Any, name: str) -> bool:
    if isinstance(visits, (list, tuple)):
        return name in visits[0]
    names = getattr(visits, "column_names", None)
    return name in (names if names is not None else visits)


def column(visits: Any, name: str) -> Any:
    if isinstance(visits, (list, tuple)) and not visits:
        raise ValueError("there are no visits to encode: the list is empty.")
    if not has_column(visits, name):
        raise ValueError(f"the visits have no column {name!r}; name it by keyword, as in {name}='my_column'.")
    if isinstance(visits, (list, tuple)):
        return np.asarray([record[name] for record in visits], dtype=object)
    column = visits[name]
    if hasattr(column, "to_pandas") and not hasattr(column, "dtype"):
        return column.to_pandas()  # an Arrow column; numpy would lose its time zone
    return column if hasattr(column, "dtype") else np.asarray(column)


def utc_seconds(times: Any) -> np.ndarray:
    """Time-zone-aware datetimes or integer epoch seconds -> int64 epoch seconds UTC."""
    if getattr(getattr(times, "dtype", None), "tz", None) is not None:  # a pandas column
        return times.to_numpy(dtype="datetime64[s]").astype(np.int64)
    values = np.asarray(times)
    if values.dtype.kind in "iu" or (
        values.dtype.kind == "O" and len(values) and all(isinstance(v, (int, np.integer)) for v in values.tolist())
    ):
        return values.astype(np.int64)
    if (
        values.dtype.kind == "O"
        and len(values)
        and all(isinstance(v, datetime) and v.tzinfo is not None for v in values.tolist())
    ):
        return np.fromiter((int(v.timestamp()) for v in values.tolist()), np.int64, len(values))
    if len(values) == 0:
        return np.zeros(0, np.int64)
    raise ValueError(
        f"column 'time' must hold time-zone-aware times or integer epoch seconds, "
        f"found {values.dtype} such as {values[0]!r}; "
        "use hf_mobility.data.validate_visits(frame, timezone=...) first."
    )
