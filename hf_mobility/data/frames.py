"""The canonical visits and points frames, and the one place where users' tables are checked.

``validate_visits`` and ``validate_points`` take a table as people have it (any column names, row order, dtypes and
time format) and return a canonical pandas frame, or raise :class:`DataError` with one sentence that names the column,
the number of rows, the first offenders and what to do. The caller's table is never changed, and shuffled rows give
the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.clock import Zone
from ..tokenization.errors import DataError, listing, refuse
from .times import utc_times

__all__ = ["DataError", "validate_points", "validate_visits"]

_OPTIONAL = ("category", "category_group", "duration")
_MISSING_TEXT = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "<NA>"]


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
        frame: pandas DataFrame, ``datasets.Dataset``, ``pyarrow.Table`` or a path to ``.parquet`` or ``.csv`` (also
            ``.csv.gz``).
        user_id, time, location_id, lat, lon, category, category_group, duration: names of the columns in ``frame``.
            The location, category and duration columns may be absent as long as their names are left at the default.
        timezone: IANA name or ``tzinfo`` of naive local times; ignored for times that carry their own zone. Numbers
            in ``time`` are epoch seconds UTC.

    Returns:
        A new DataFrame with a RangeIndex, sorted by user, time and location, columns in this order: ``user_id``
        (int64 or str), ``time`` (datetime64[us, UTC]), ``location_id`` (str), ``lat``, ``lon`` (float64 degrees),
        ``category``, ``category_group`` (object: str or None), ``duration`` (float64 seconds, NaN = unknown);
        optional columns only if the input has them.

    Raises:
        DataError: a column is missing or holds values that cannot be used; the table has no rows.
        FileNotFoundError: ``frame`` is a path that does not exist.
    """
    names = {"user_id": user_id, "time": time, "location_id": location_id, "lat": lat, "lon": lon}
    names |= {"category": category, "category_group": category_group, "duration": duration}
    return _canonical(frame, names, optional=("location_id", *_OPTIONAL), timezone=timezone)


def validate_places(
    frame: Any,
    *,
    location_id: str = "location_id",
    lat: str = "lat",
    lon: str = "lon",
    category: str = "category",
    category_group: str = "category_group",
) -> pd.DataFrame:
    """The columns of places of any table, of visits too, one row per row: ``location_id`` (str), ``lat``, ``lon``
    (float64 degrees) and, where they are there, ``category`` and ``category_group`` (object: str or None). Checked as
    in :func:`validate_visits`, which raises the same errors."""
    names = {"location_id": location_id, "lat": lat, "lon": lon, "category": category, "category_group": category_group}
    return _checked(frame, names, optional=("category", "category_group"), timezone=None)


def location_ids(frame: Any) -> pd.Series:
    """The column ``location_id`` of any table of visits as text, checked as in :func:`validate_visits`."""
    table, _ = _load(frame, {"location_id": "location_id"}, optional=(), keep=())
    return _ids(_plain(table["location_id"]), "location_id", as_text=True)


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

    The columns are ``user_id``, ``time``, ``lat``, ``lon`` and those in ``keep``: extra columns (a transport mode, a
    taxi's occupied flag) that are carried along unchecked. Everything else is as in :func:`validate_visits`.
    """
    names = {"user_id": user_id, "time": time, "lat": lat, "lon": lon}
    return _canonical(frame, names, optional=(), timezone=timezone, keep=keep)


def _canonical(
    frame: Any, names: dict[str, str], *, optional: Sequence[str], timezone: Zone | None, keep: Sequence[str] = ()
) -> pd.DataFrame:
    """Read, check and sort visits or points. ``names`` maps canonical to given names."""
    checked = _checked(frame, names, optional=optional, timezone=timezone, keep=keep)
    return checked.take(_order(checked)).reset_index(drop=True)


def _checked(
    frame: Any, names: dict[str, str], *, optional: Sequence[str], timezone: Zone | None, keep: Sequence[str] = ()
) -> pd.DataFrame:
    """Shared core: read, check column by column, in the order of the rows."""
    table, names = _load(frame, names, optional=optional, keep=keep)
    if len(table) == 0:
        raise DataError("The frame has no rows; at least one row is needed.")
    columns: dict[str, Any] = {}
    for role, name in names.items():
        if role in ("lat", "lon"):
            continue  # checked as a pair below
        column = _plain(table[name])
        if role == "time":
            columns[role] = utc_times(column, name, timezone)
        elif role == "duration":
            columns[role] = _durations(column, name)
        elif role in ("category", "category_group"):
            columns[role] = _labels(column, name)
        else:
            columns[role] = _ids(column, name, as_text=role == "location_id")
    columns["lat"], columns["lon"] = _coordinates(table, names["lat"], names["lon"])
    checked = pd.DataFrame({role: columns[role] for role in names})
    for name in keep:
        checked[name] = table[name].set_axis(checked.index)
    return checked


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


# --------------------------------------------------------------------------------------------------------------- tables


def _load(
    frame: Any, names: dict[str, str], *, optional: Sequence[str], keep: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read only the wanted columns of any accepted table; drop absent optional ones from ``names``."""
    found, read = _open(frame, names)
    present = {role: name for role, name in names.items() if name in found or role not in optional or name != role}
    wanted = [*present.values(), *(name for name in keep if name not in present.values())]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(
            f"The frame lacks the column(s) {listing(missing)}; it has {listing(found)}: column names are arguments, "
            f"so pass the one that you have, as in {_role_of(missing[0], names)}='my_column'."
        )
    twice = [name for name in dict.fromkeys(wanted) if found.count(name) > 1]
    if twice:
        raise DataError(f"The column(s) {listing(twice)} occur more than once in the frame; keep one of each.")
    if len(set(present.values())) < len(present):
        raise DataError(f"One column is used for two purposes ({present}); give each its own column.")
    return read(wanted), present


def _open(frame: Any, names: dict[str, str]) -> tuple[list[str], Callable[[list[str]], pd.DataFrame]]:
    """Column names of ``frame`` and a function that reads some of them."""
    if isinstance(frame, pd.DataFrame):
        return list(frame.columns), lambda wanted: frame[wanted]
    if isinstance(frame, str | Path):
        return _open_file(Path(frame), names)
    if hasattr(frame, "select_columns") and hasattr(frame, "to_pandas"):  # datasets.Dataset
        return list(frame.column_names), lambda wanted: frame.select_columns(wanted).to_pandas()
    if hasattr(frame, "to_pandas"):  # pyarrow.Table and relatives
        found = list(getattr(frame, "column_names", None) or frame.columns)
        return found, lambda wanted: frame.select(wanted).to_pandas()
    raise DataError(
        f"Cannot read a table from {type(frame).__name__}; give a pandas DataFrame, a datasets.Dataset (one split), "
        "a pyarrow.Table or a path to a .parquet or .csv file."
    )


def _open_file(path: Path, names: dict[str, str]) -> tuple[list[str], Callable[[list[str]], pd.DataFrame]]:
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_schema(path).names, lambda wanted: pd.read_parquet(path, columns=wanted)
    if path.suffix == ".csv" or path.name.endswith(".csv.gz"):
        found = list(pd.read_csv(path, nrows=0).columns)
        ids = [names[role] for role in ("user_id", "location_id") if role in names]

        def read(wanted: list[str]) -> pd.DataFrame:
            # Ids are read as text so that "007" stays "007" and a venue called "NA" is no missing value.
            missing_text = {name: [""] if name in ids else _MISSING_TEXT for name in found}
            return pd.read_csv(
                path,
                usecols=wanted,
                dtype={name: str for name in ids if name in found},
                na_values=missing_text,
                keep_default_na=False,
                low_memory=False,
            ).pipe(numbers_where_exact, names.get("user_id"))

        return found, read
    raise DataError(f"Cannot read {path.name}: the known file types are .parquet, .csv and .csv.gz.")


def numbers_where_exact(table: pd.DataFrame, user_id: str | None) -> pd.DataFrame:
    """Turn the text user ids of a CSV file into int64 where every one is the plain spelling of an integer."""
    if user_id in table and table[user_id].str.fullmatch(r"0|-?[1-9]\d{0,17}").fillna(False).all():
        table[user_id] = table[user_id].astype("int64")
    return table


def _plain(column: pd.Series) -> pd.Series:
    """The same values as numpy, datetime or string dtype: categories, Arrow types and nullable numbers are unpacked."""
    if isinstance(column.dtype, pd.ArrowDtype):
        column = pd.Series(column.array.__arrow_array__().to_pandas().array, index=column.index, name=column.name)
    if isinstance(column.dtype, pd.CategoricalDtype):
        values = column.cat.categories.dtype
        column = column.astype(object if column.isna().any() else values)
    if pd.api.types.is_extension_array_dtype(column.dtype) and pd.api.types.is_numeric_dtype(column.dtype):
        column = column.astype("float64") if column.isna().any() else column.astype(column.dtype.numpy_dtype)  # type: ignore[union-attr]
    return column


# -------------------------------------------------------------------------------------------------------------- columns


def _ids(column: pd.Series, name: str, *, as_text: bool) -> pd.Series:
    """Integers or strings without gaps; whole floats (integers that once stood beside a gap) count as integers."""
    refuse(column.isna(), name, "missing", "drop these rows or give them an id")
    if pd.api.types.is_bool_dtype(column.dtype) or isinstance(column.dtype, pd.DatetimeTZDtype):
        raise DataError(f"Column {name!r} holds {column.dtype} values; ids must be integers or strings.")
    if pd.api.types.is_numeric_dtype(column.dtype):
        numbers = column.to_numpy()
        if numbers.dtype.kind == "f":
            whole = np.isfinite(numbers) & (numbers == np.round(numbers)) & (np.abs(numbers) < 2**53)
            refuse(~whole, name, "not whole numbers", "use integers or strings as ids", column)
        elif numbers.dtype.kind == "u":
            refuse(
                numbers > np.iinfo(np.int64).max, name, "above the range of int64", "pass these ids as strings", column
            )
        elif numbers.dtype.kind != "i":
            raise DataError(f"Column {name!r} holds {column.dtype} values; ids must be integers or strings.")
        column = pd.Series(numbers.astype(np.int64), index=column.index)
    else:
        kind = pd.api.types.infer_dtype(column, skipna=False)
        if kind == "integer":
            column = column.astype("int64")
        elif kind != "string":
            raise DataError(f"Column {name!r} holds {kind} values; ids must be all integers or all strings.")
        else:
            refuse(column.str.strip() == "", name, "blank", "drop these rows or give them an id")
    return (column.astype(str) if as_text else column).reset_index(drop=True)


def _labels(column: pd.Series, name: str) -> pd.Series:
    """Category names as an object column of str or None."""
    codes, found = pd.factorize(column, use_na_sentinel=True)
    strange = [i for i, value in enumerate(found) if not isinstance(value, str | int | np.integer)]
    refuse(np.isin(codes, strange), name, "neither text nor integers", "give each POI category a name", column)
    texts = [str(value).strip() or None for value in found]
    return pd.Series(np.array([*texts, None], dtype=object)[codes], dtype=object)  # code -1 takes the last entry


def _durations(column: pd.Series, name: str) -> np.ndarray:
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        column = column.dt.total_seconds()
    seconds = _numbers(column, name, "seconds")
    refuse(np.isinf(seconds), name, "infinite", "use NaN for an unknown stay", column)
    refuse(seconds < 0, name, "negative", "durations are seconds from arrival to departure", column)
    return seconds


def _coordinates(table: pd.DataFrame, lat_name: str, lon_name: str) -> tuple[np.ndarray, np.ndarray]:
    lat_column, lon_column = _plain(table[lat_name]), _plain(table[lon_name])
    lat, lon = _numbers(lat_column, lat_name, "degrees"), _numbers(lon_column, lon_name, "degrees")
    for values, name, column in ((lat, lat_name, lat_column), (lon, lon_name, lon_column)):
        refuse(~np.isfinite(values), name, "missing, NaN or infinite", "drop or repair these rows", column)
    swapped = bool((np.abs(lat) <= 180).all() and (np.abs(lon) <= 90).all())
    advice = f"{lat_name!r} and {lon_name!r} look swapped" if swapped else "latitudes are degrees (WGS84)"
    refuse(np.abs(lat) > 90, lat_name, "outside -90..90", advice, lat_column)
    full_circle = bool((lon >= 0).all() and (lon <= 360).all())
    advice = "subtract 360 from longitudes above 180" if full_circle else "longitudes are degrees (WGS84)"
    refuse(np.abs(lon) > 180, lon_name, "outside -180..180", advice, lon_column)
    return lat, lon


def _numbers(column: pd.Series, name: str, unit: str) -> np.ndarray:
    """float64 copy; text that spells a number is accepted."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype):
        raise DataError(f"Column {name!r} holds {column.dtype} values; numbers ({unit}) are needed.")
    values = pd.to_numeric(column, errors="coerce")
    refuse(values.isna() & column.notna(), name, "not numbers", f"numbers ({unit}) are needed", column)
    return values.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)


# ---------------------------------------------------------------------------------------------------------------- order


def _order(checked: pd.DataFrame) -> np.ndarray:
    """Row order by user, time, location, then by every other column, so that the input's row order leaves no trace."""
    user = pd.factorize(checked["user_id"], sort=True)[0]
    instant = checked["time"].astype("int64").to_numpy()
    order = np.lexsort((instant, user))
    if not ((np.diff(user[order]) == 0) & (np.diff(instant[order]) == 0)).any():
        return order
    others = [name for name in checked.columns if name not in ("user_id", "time")]
    codes = [pd.factorize(checked[name], sort=True, use_na_sentinel=True)[0] for name in others]
    return np.lexsort((*reversed(codes), instant, user))


def _role_of(name: str, names: dict[str, str]) -> str:
    return next((role for role, given in names.items() if given == name), "keep")
