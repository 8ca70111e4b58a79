"""Tables as people have them: opened whatever holds them, and their columns of ids, places and numbers checked.

Needs pandas, which the tokenizers do without: only a new city and the canonical frames of `hf_mobility.data` read
tables. The caller's table is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import SHOWN, DataError, listing, refuse
from .grid import haversine_km, unwrapped, wrapped
from .records import checked_degrees
from .table_files import file_columns, is_csv, read_file
from .texts import unusable_texts

try:
    import pandas as pd
except ImportError as error:
    raise ImportError("tables are read by pandas: pip install pandas") from error

LABELS = ("category", "category_group")
FAR_APART_KM = 100.0  # no two records of one place, were it a large cell


def read_places(
    frame: Any,
    *,
    location_id: str = "location_id",
    lat: str = "lat",
    lon: str = "lon",
    category: str = "category",
    category_group: str = "category_group",
) -> pd.DataFrame:
    """The columns of places of any table, of visits too, one row per row.

    Args:
        frame: pandas DataFrame, `datasets.Dataset`, `pyarrow.Table` or a path to `.parquet` or `.csv` (also
            `.csv.gz`).
        location_id, lat, lon, category, category_group: names of the columns in `frame`; the last two may be absent
            as long as their names are left at the default.

    Returns:
        `location_id` (str), `lat`, `lon` (float64 degrees) and, where they are there, `category` and `category_group`
        (object: str or None).

    Raises:
        DataError: a column is missing or holds values that cannot be used; the table has no rows.
    """
    names = {"location_id": location_id, "lat": lat, "lon": lon, "category": category, "category_group": category_group}
    table, names = load_table(frame, names, optional=LABELS)
    if len(table) == 0:
        raise DataError("The frame has no rows; at least one row is needed.")
    columns: dict[str, Any] = {"location_id": id_column(plain(table[location_id]), location_id, as_text=True)}
    columns |= {role: label_column(plain(table[names[role]]), names[role]) for role in LABELS if role in names}
    columns["lat"], columns["lon"] = coordinate_columns(table, lat, lon)
    return pd.DataFrame(columns)


def merge_places(*tables: pd.DataFrame) -> dict[str, np.ndarray]:
    """Tables of `read_places` -> one row per location, sorted by id: `location_ids` (N,) str, `lat`, `lon` (N,) the
    mean coordinates, `category`, `category_group` (N,) the first that is not None, or None.

    Raises:
        DataError: an id with coordinates more than `FAR_APART_KM` apart.
    """
    places = pd.concat(tables, ignore_index=True)
    labels = [name for name in LABELS if name in places]
    by_id = places.assign(lon=unwrapped(places["lon"])).groupby("location_id", sort=True)
    _refuse_far_apart(by_id)
    merged = by_id.agg({"lat": "mean", "lon": "mean", **dict.fromkeys(labels, "first")})
    return {
        "location_ids": merged.index.to_numpy(object),
        "lat": merged["lat"].to_numpy(np.float64),
        "lon": wrapped(merged["lon"].to_numpy(np.float64)),
        **{name: merged[name].to_numpy(object) if name in merged else np.full(len(merged), None) for name in LABELS},
    }


def _refuse_far_apart(by_id: Any) -> None:
    corners = [by_id[["lat", "lon"]].agg(side) for side in ("min", "max")]
    apart = haversine_km(*(corner[name] for corner in corners for name in ("lat", "lon")))
    far = np.flatnonzero(apart > FAR_APART_KM)
    if len(far):
        first = listing(f"{corners[0].index[row]}: {apart[row]:,.0f} km" for row in far[:SHOWN])
        raise DataError(
            f"Column 'location_id': {len(far)} of {len(apart)} ids have coordinates more than {FAR_APART_KM:g} km "
            f"apart (first {first}); an id names one place: give each place an id of its own, or each city a City."
        )


def location_ids(frame: Any) -> pd.Series:
    """The column `location_id` of any table of visits as text, checked as in `read_places`."""
    table, _ = load_table(frame, {"location_id": "location_id"})
    return id_column(plain(table["location_id"]), "location_id", as_text=True)


def load_table(
    frame: Any, names: dict[str, str], *, optional: Sequence[str] = (), keep: Sequence[str] = ()
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read only the wanted columns of any accepted table; drop absent optional ones from `names`."""
    found, read = open_table(frame, names)
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


def open_table(frame: Any, names: dict[str, str]) -> tuple[list[str], Callable[[list[str]], pd.DataFrame]]:
    """Column names of any accepted table and a function that reads some of them."""
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
    ids = [names[role] for role in ("user_id", "location_id") if role in names]

    def read(wanted: list[str]) -> pd.DataFrame:
        table = read_file(path, wanted, ids=ids)
        return numbers_where_exact(table, names.get("user_id")) if is_csv(path) else table

    return file_columns(path), read


def numbers_where_exact(table: pd.DataFrame, user_id: str | None) -> pd.DataFrame:
    """Turn the text user ids of a CSV file into int64 where every one is the plain spelling of an integer."""
    if user_id in table and table[user_id].str.fullmatch(r"0|-?[1-9]\d{0,17}").fillna(False).all():
        table[user_id] = table[user_id].astype("int64")
    return table


def _role_of(name: str, names: dict[str, str]) -> str:
    return next((role for role, given in names.items() if given == name), "keep")


def plain(column: pd.Series) -> pd.Series:
    """The same values as numpy, datetime or string dtype: categories, Arrow types and nullable numbers are unpacked."""
    if isinstance(column.dtype, pd.ArrowDtype):
        column = pd.Series(column.array.__arrow_array__().to_pandas().array, index=column.index, name=column.name)
    if isinstance(column.dtype, pd.CategoricalDtype):
        values = column.cat.categories.dtype
        column = column.astype(object if column.isna().any() else values)
    if pd.api.types.is_extension_array_dtype(column.dtype) and pd.api.types.is_numeric_dtype(column.dtype):
        column = column.astype("float64") if column.isna().any() else column.astype(column.dtype.numpy_dtype)  # type: ignore[union-attr]
    return column


def id_column(column: pd.Series, name: str, *, as_text: bool) -> pd.Series:
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
            outside = [not -(2**63) <= value < 2**63 for value in column]
            refuse(outside, name, "outside the range of int64", "pass these ids as strings", column)
            column = column.astype("int64")
        elif kind != "string":
            raise DataError(f"Column {name!r} holds {kind} values; ids must be all integers or all strings.")
        else:
            _refuse_unusable(column, name)
            refuse(column.str.strip() == "", name, "blank", "drop these rows or give them an id")
    return (column.astype(str) if as_text else column).reset_index(drop=True)


def label_column(column: pd.Series, name: str) -> pd.Series:
    """Category names as an object column of str or None."""
    try:
        codes, found = pd.factorize(column, use_na_sentinel=True)
    except TypeError as error:
        raise DataError(f"Column {name!r} holds lists or the like; give each POI category a name.") from error
    strange = [i for i, value in enumerate(found) if not isinstance(value, str | int | np.integer)]
    refuse(np.isin(codes, strange), name, "neither text nor integers", "give each POI category a name", column)
    _refuse_unusable(column, name, category=True)
    texts = [str(value).strip() or None for value in found]
    return pd.Series(np.array([*texts, None], dtype=object)[codes], dtype=object)  # code -1 takes the last entry


def _refuse_unusable(column: pd.Series, name: str, *, category: bool = False) -> None:
    for fault, bad in unusable_texts(column.unique(), category=category).items():
        refuse(column.isin(bad), name, fault, "give each a short text of printable characters", column)


def coordinate_columns(table: pd.DataFrame, lat_name: str, lon_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes, two (n,) float64; see `checked_degrees`."""
    names = (lat_name, lon_name)
    columns = [plain(table[name]) for name in names]
    lat, lon = (number_column(column, name, "degrees") for column, name in zip(columns, names))
    return checked_degrees(lat, lon, names=names, columns=columns)


def number_column(column: pd.Series, name: str, unit: str) -> np.ndarray:
    """float64 copy; text that spells a number is accepted."""
    no_numbers = pd.api.types.is_datetime64_any_dtype, pd.api.types.is_bool_dtype, pd.api.types.is_complex_dtype
    if any(is_such(column.dtype) for is_such in no_numbers):
        raise DataError(f"Column {name!r} holds {column.dtype} values; numbers ({unit}) are needed.")
    try:
        values = pd.to_numeric(column, errors="coerce")
    except OverflowError:  # integers that no float holds
        values = pd.to_numeric(
            column.map(lambda value: value if isinstance(value, float) else str(value)), errors="coerce"
        )
    refuse(values.isna() & column.notna(), name, "not numbers", f"numbers ({unit}) are needed", column)
    return values.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)


def counts_column(table: pd.DataFrame, name: str, unit: str) -> np.ndarray:
    """(n,) float64, finite and not negative."""
    values = number_column(plain(table[name]), name, unit)
    refuse(~(np.isfinite(values) & (values >= 0)), name, "missing or negative", "repair or drop them", table[name])
    return values
