"""The one error of unusable tables, and the one sentence in which it says what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

_SHOWN = 5  # offenders named in a message


class DataError(ValueError):
    """A table that cannot be used as it is; the message is one sentence that says which rows and what to do."""


def refuse(bad: Any, name: str, fault: str, advice: str, column: pd.Series | None = None) -> None:
    """Raise one sentence if any row is bad: count, row labels and, where ``column`` is given, the values."""
    mask = np.asarray(bad, dtype=bool)
    count = int(mask.sum())
    if not count:
        return
    labels = (
        bad.index if isinstance(bad, pd.Series) else column.index if column is not None else pd.RangeIndex(len(mask))
    )
    first = np.flatnonzero(mask)[:_SHOWN]
    rows = listing([_short(labels[i]) if column is None else f"{labels[i]!s}: {_short(column.iloc[i])}" for i in first])
    more = ", ..." if count > len(first) else ""
    raise DataError(f"Column {name!r}: {count} of {len(mask)} values are {fault} (first rows {rows}{more}); {advice}.")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def listing(items: Iterable[Any]) -> str:
    return ", ".join(str(item) for item in items) or "no columns"
