"""The canonical frames of visits and points: users' tables are checked and brought into this form.

`validate_visits` and `validate_points` take a table as people have it (any column names, row order, dtypes and
time format) and return a canonical pandas frame, or raise `DataError` with one sentence that names the column,
the number of rows, the first offenders and what to do. The caller's table is never changed, and shuffled rows give
the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.clock import LATEST_EPOCH_SECOND, Zone
from ..tokenization.errors import DataError, refuse
from ..tokenization.tables import coordinate_columns, id_column, label_column, load_table, number_column, plain
from .times import utc_times

__all__ = ["DataError", "validate_points", "validate_visits"]

_OPTIONAL = ("category", "category_group", "duration")


def validate_visits(
    frame: Any,
    *,
    user_id: str = "user_id",
    time: str = "time",
    location_id: str = "location_id",
    lat: str = "lat",
    lon: str = "lon",
    category: str = "category",
    category_group: str = "category_group",
    duration: str = "duration",
    timezone: Zone | None = None,
) -> pd.DataFrame:
    """Check a table of visits and return it in canonical form.

    Args:
        frame: pandas DataFrame, `datasets.Dataset`, `pyarrow.Table` or a path to `.parquet` or `.csv` (also
            `.csv.gz`).
        user_id, time, location_id, lat, lon, category, category_group, duration: names of the columns in `frame`.
            The location, category and duration columns may be absent as long as their names are left at the default.
        timezone: IANA name or `tzinfo` of naive local times; ignored for times that carry their own zone. Numbers
            in `time` are epoch seconds UTC.

    Returns:
        A new DataFrame with a RangeIndex, sorted by user, time and location, columns in this order: `user_id`
        (int64 or str), `time` (datetime64[us, UTC]), `location_id` (str), `lat`, `lon` (float64 degrees),
        `category`, `category_group` (object: str or None), `duration` (float64 seconds, NaN = unknown);
        optional columns only if the input has them.

    Raises:
        DataError: a column is missing or holds values that cannot be used; the table has no rows.
        FileNotFoundError: `frame` is a path that does not exist.
    """
    names = {"user_id": user_id, "time": time, "location_id": location_id, "lat": lat, "lon": lon}
    names |= {"category": category, "category_group": category_group, "duration": duration}
    return _canonical(frame, names, optional=("location_id", *_OPTIONAL), timezone=timezone)


def as_visits(visits: Any, *, timezone: Zone | None = None) -> pd.DataFrame:
    """Visits with places: a canonical frame as it is, with its row order and extra columns; anything else validated."""
    if isinstance(visits, pd.DataFrame) and _is_canonical(visits):
        return visits
    names = {name: name for name in ("user_id", "time", "location_id", "lat", "lon", *_OPTIONAL)}
    return _canonical(visits, names, optional=_OPTIONAL, timezone=timezone)


def validate_points(
    frame: Any,
    *,
    user_id: str = "user_id",
    time: str = "time",
    lat: str = "lat",
    lon: str = "lon",
    keep: Sequence[str] = (),
    timezone: Zone | None = None,
) -> pd.DataFrame:
    """Check a table of GPS points and return it in canonical form.

    The columns are `user_id`, `time`, `lat`, `lon` and those in `keep`: extra columns (a transport mode, a
    taxi's occupied flag) that are copied unchecked. Everything else is as in `validate_visits`.
    """
    names = {"user_id": user_id, "time": time, "lat": lat, "lon": lon}
    return _canonical(frame, names, optional=(), timezone=timezone, keep=keep)


def _canonical(
    frame: Any, names: dict[str, str], *, optional: Sequence[str], timezone: Zone | None, keep: Sequence[str] = ()
) -> pd.DataFrame:
    """Read, check and sort visits or points. `names` maps canonical to given names."""
    table, names = load_table(frame, names, optional=optional, keep=keep)
    if len(table) == 0:
        raise DataError("The frame has no rows; at least one row is needed.")
    columns: dict[str, Any] = {}
    for role, name in names.items():
        if role in ("lat", "lon"):
            continue  # checked as a pair below
        column = plain(table[name])
        if role == "time":
            columns[role] = utc_times(column, name, timezone)
        elif role == "duration":
            columns[role] = _durations(column, name)
        elif role in ("category", "category_group"):
            columns[role] = label_column(column, name)
        else:
            columns[role] = id_column(column, name, as_text=role == "location_id")
    columns["lat"], columns["lon"] = coordinate_columns(table, names["lat"], names["lon"])
    checked = pd.DataFrame({role: columns[role] for role in names})
    for name in keep:
        checked[name] = table[name].set_axis(checked.index)
    return in_order(checked)


def in_order(checked: pd.DataFrame) -> pd.DataFrame:
    """Checked rows by user, time, location, then by every other column: whatever their order was, it leaves no
    trace."""
    order = _order(checked)
    return checked if order is None else checked.take(order).reset_index(drop=True)


def _is_canonical(frame: pd.DataFrame) -> bool:
    """Whether validation would keep the columns of a visits frame; what is slow to check is trusted: order, labels and
    blank ids."""
    dtypes = dict(zip(frame.columns, frame.dtypes.astype(str)))
    return (
        len(frame) > 0
        and frame.columns.is_unique
        and dtypes.get("time") == "datetime64[us, UTC]"
        and dtypes.get("lat") == dtypes.get("lon") == "float64"
        and {"user_id", "location_id"} <= dtypes.keys()
        and not frame["time"].hasnans
        and bool(frame["lat"].between(-90, 90).all() and frame["lon"].between(-180, 180).all())  # no NaN is between
        and (dtypes["user_id"] == "int64" or _is_text(frame["user_id"]))
        and _is_text(frame["location_id"])
    )


def _is_text(column: pd.Series) -> bool:
    return not column.hasnans and pd.api.types.infer_dtype(column, skipna=False) == "string"


# -------------------------------------------------------------------------------------------------------------- columns


def _durations(column: pd.Series, name: str) -> np.ndarray:
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        column = column.dt.total_seconds()
    seconds = number_column(column, name, "seconds")
    refuse(seconds > LATEST_EPOCH_SECOND, name, "infinite or too long", "use NaN for an unknown stay", column)
    refuse(seconds < 0, name, "negative", "durations are seconds from arrival to departure", column)
    return seconds


# ---------------------------------------------------------------------------------------------------------------- order


def _order(checked: pd.DataFrame) -> np.ndarray | None:
    """The order of `in_order`; None where rows lie in it."""
    user = pd.factorize(checked["user_id"], sort=True)[0]
    instant = checked["time"].astype("int64").to_numpy()
    later_user, later = np.diff(user), np.diff(instant) > 0
    if ((later_user > 0) | (later_user == 0) & later).all():
        return None
    order = np.lexsort((instant, user))
    if not ((np.diff(user[order]) == 0) & (np.diff(instant[order]) == 0)).any():
        return order
    others = [name for name in checked.columns if name not in ("user_id", "time")]
    codes = [pd.factorize(checked[name], sort=True, use_na_sentinel=True)[0] for name in others]
    return np.lexsort((*reversed(codes), instant, user))
