"""The error of unusable tables, the sentence that says what is wrong with a column, and the warning of an old name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

SHOWN = 5  # offenders named in a message
Function = TypeVar("Function", bound=Callable)


class DataError(ValueError):
    """A table that cannot be used as it is; the message is one sentence that says which rows and what to do."""


class NoRecordsError(DataError):
    """A table of which nothing is left: none of its places is known, or none of its records lies in the days asked
    for."""


def refuse(bad: Any, name: str, fault: str, advice: str, column: Any = None) -> None:
    """Raise the sentence of `fault_of`, if there is one.

    Raises:
        DataError: if any row is bad.
    """
    if sentence := fault_of(bad, name, fault, advice, column):
        raise DataError(sentence)


def fault_of(bad: Any, name: str, fault: str, advice: str, column: Any = None) -> str:
    """One sentence if any row is bad: column, count, first rows and, where `column` is given, their values; else empty.

    Args:
        bad: (n,) bool, which rows are bad. Rows are named by the labels of a pandas column, else by their numbers.
        name: of the column.
        fault: what the values are, as in "missing".
        advice: what to do about it.
        column: (n,) the values.
    """
    mask = np.atleast_1d(np.asarray(bad, dtype=bool))
    count = int(mask.sum())
    if not count:
        return ""
    labels = next((values.index for values in (bad, column) if hasattr(values, "iloc")), range(len(mask)))
    first = np.flatnonzero(mask)[:SHOWN].tolist()
    shown = [str(labels[row]) if column is None else f"{labels[row]!s}: {_value(column, row)}" for row in first]
    more = ", ..." if count > len(first) else ""
    return f"Column {name!r}: {count} of {len(mask)} values are {fault} (first rows {listing(shown)}{more}); {advice}."


def listing(items: Iterable[Any]) -> str:
    """Names of columns and the like, one after the other."""
    return ", ".join(str(item) for item in items) or "no columns"


def _value(column: Any, row: int) -> str:
    text = str(column.iloc[row] if hasattr(column, "iloc") else np.atleast_1d(column)[row])
    text = text if len(text) <= 40 else f"{text[:37]}..."
    return text if text.isprintable() else ascii(text)


def renamed_method(old: str, new: str) -> Callable:
    """A method under its old name: a FutureWarning, then the method `new`."""

    def with_old_name(self: Any, *args: Any, **kwargs: Any) -> Any:
        message = f"{old} is now {new}; the old name is accepted until version 0.2."
        warnings.warn(message, FutureWarning, stacklevel=2)
        return getattr(self, new)(*args, **kwargs)

    return with_old_name


def renamed_argument(old: str, new: str) -> Callable[[Function], Function]:
    """Decorator: the keyword argument `old` of a function still serves as `new`, with a FutureWarning.

    Raises:
        ValueError: at the call, if both are given.
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def with_old_name(*args: Any, **kwargs: Any) -> Any:
            value = kwargs.pop(old, None)
            if value is not None:
                if kwargs.get(new) is not None:
                    raise ValueError(f"{new} and {old} are two names of one argument; give one of them.")
                message = f"{old} is now {new}; the old name is accepted until version 0.2."
                warnings.warn(message, FutureWarning, stacklevel=2)
                kwargs[new] = value
            return function(*args, **kwargs)

        return with_old_name  # type: ignore[return-value]

    return decorate
