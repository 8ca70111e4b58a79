"""Public check-in formats and plain tables to canonical visits frames.

Every reader streams its file in blocks, leaves out rows that cannot be used, and says how many and why: the returned
frame carries `frame.attrs["read_report"] = {"rows_read": int, "rejected": {reason: rows}}`, and `"joined_lines"`
where quoted cells hold line breaks: a file has `rows_read + joined_lines` filled lines. No value is repaired.
Time-zone offset columns are ignored, because the times of these formats are UTC. Files may be gzipped (`.gz`).
GPS formats are in :mod:`hf_mobility.data.io.readers_gps`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...tokenization.city import Bounds
from ...tokenization.clock import Zone
from ...tokenization.errors import DataError, renamed_argument
from ...tokenization.grid import Box, from_km
from ...tokenization.table_files import file_blocks, file_columns, text_blocks
from ...tokenization.tables import numbers_where_exact
from ...tokenization.text_lines import LineCount
from ...tokenization.texts import unusable_texts
from ..frames import validate_visits
from ..times import from_text

__all__ = [
    "Rejections",
    "read_foursquare_tist2015",
    "read_foursquare_tsmc2014",
    "read_gowalla",
    "read_table",
    "read_yjmob100k",
]

_FOURSQUARE_TIME = "%a %b %d %H:%M:%S %z %Y"
_YJMOB_CELL_KM, _YJMOB_CELLS = 0.5, 200  # side of a cell, and cells along a side
_YJMOB_DAYS = 36_500
ROLES = ("user_id", "time", "location_id", "lat", "lon", "category", "category_group", "duration")


class Rejections(LineCount):
    """Counts rows read and rows left out, each under the first reason that applies."""

    def drop(self, table: pd.DataFrame, bad: pd.Series | np.ndarray, reason: str) -> pd.DataFrame:
        """`table` without the bad rows, which are counted under `reason`."""
        bad = np.asarray(bad, dtype=bool)
        if not bad.any():
            return table
        self.rejected[reason] += int(bad.sum())
        return table[~bad]

    def keep_usable(self, table: pd.DataFrame) -> pd.DataFrame:
        """Drop rows without ids, time or valid coordinates. Columns: ids as text, time, lat and lon as given."""
        for name in ("user_id", "location_id"):
            if name in table.columns:
                blank = table[name].isna() | (table[name].astype(str).str.strip() == "")
                table = self.drop(table, blank, f"missing {name}")
        for name in ("user_id", "location_id", "category", "category_group"):
            if name in table.columns:
                faults = unusable_texts(table[name].unique(), category=name.startswith("category"))
                bad = set().union(*faults.values())
                if bad:
                    table = self.drop(table, table[name].isin(bad), f"unusable {name}")
        table = self.drop(table, table["time"].isna(), "unreadable time")
        degrees = {name: pd.to_numeric(table[name], errors="coerce").astype("float64") for name in ("lat", "lon")}
        table = table.assign(**degrees)
        table = self.drop(table, ~np.isfinite(table[["lat", "lon"]].to_numpy()).all(axis=1), "unreadable coordinates")
        outside = (table["lat"].abs() > 90) | (table["lon"].abs() > 180)
        return self.drop(table, outside, "coordinates out of range")

    def keep_inside(self, table: pd.DataFrame, bounds: Bounds | None) -> pd.DataFrame:
        if bounds is None:
            return table
        return self.drop(table, ~Box.checked(bounds).contains(table["lat"], table["lon"]), "outside the box")

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = {"rows_read": self.rows_read, "rejected": dict(sorted(self.rejected.items()))}
        return report | ({"joined_lines": self.joined_lines} if self.joined_lines else {})

    def finish(self, tables: Iterable[pd.DataFrame], what: Path, *, number_users: bool = True) -> pd.DataFrame:
        """All kept rows in one table; DataError if there are none. User ids that all spell integers become integers."""
        kept = [table for table in tables if len(table)]
        if not kept:
            raise DataError(f"No row of {what.name} could be used: {self.report()}.")
        table = pd.concat(kept, ignore_index=True)
        if number_users and not pd.api.types.is_numeric_dtype(table["user_id"].dtype):
            table = numbers_where_exact(table, "user_id")
        return table


@renamed_argument("box", "bounds")
def read_foursquare_tsmc2014(path: str | Path, *, bounds: Bounds | None = None) -> pd.DataFrame:
    """Foursquare check-ins of New York or Tokyo (`dataset_TSMC2014_NYC.txt`): visits with `category`.

    Args:
        path: tab-separated file of user, venue, category id, category name, lat, lon, offset in minutes, UTC time.
        bounds: (south, west, north, east) in degrees; check-ins elsewhere are left out and counted.

    Raises:
        DataError: no row can be used.
    """
    names = ["user_id", "location_id", "category_id", "category", "lat", "lon", "offset", "time"]
    wanted = ["user_id", "time", "location_id", "lat", "lon", "category"]
    return _read_checkins(path, names, wanted, time_format=_FOURSQUARE_TIME, encoding="latin-1", bounds=bounds)


@renamed_argument("box", "bounds")
def read_foursquare_tist2015(
    checkins_path: str | Path, pois_path: str | Path, *, bounds: Bounds | None = None, country: str | None = None
) -> pd.DataFrame:
    """Foursquare global check-ins (`dataset_TIST2015_Checkins.txt` and `..._POIs.txt`): visits with `category`.

    Args:
        checkins_path: tab-separated file of user, venue, UTC time, offset in minutes.
        pois_path: tab-separated file of venue, lat, lon, category name, country code.
        bounds: (south, west, north, east) in degrees; the set has 33 million check-ins, one city is far less.
        country: two-letter code, such as "JP".

    Raises:
        DataError: no row can be used, or a venue is listed twice with different data.
    """
    pois = _read_pois(Path(pois_path), bounds=bounds, country=country)
    names = ["user_id", "location_id", "time", "offset"]
    count, path = Rejections(), Path(checkins_path)

    def usable(block: pd.DataFrame) -> pd.DataFrame:
        block = count.drop(block, ~block["location_id"].isin(pois.index), "venue unknown or outside the selection")
        block = block.join(pois, on="location_id")
        block["time"] = pd.to_datetime(block["time"], format=_FOURSQUARE_TIME, errors="coerce", utc=True)
        return count.keep_usable(block[["user_id", "time", "location_id", "lat", "lon", "category"]])

    return _visits(count, (usable(block) for block in text_blocks(path, names, count=count)), path)


@renamed_argument("box", "bounds")
def read_gowalla(path: str | Path, *, bounds: Bounds | None = None) -> pd.DataFrame:
    """Gowalla or Brightkite check-ins of SNAP (`loc-gowalla_totalCheckins.txt.gz`): visits without categories.

    Args:
        path: tab-separated file of user, ISO time UTC, lat, lon, location.
        bounds: (south, west, north, east) in degrees; check-ins elsewhere are left out and counted.

    Check-ins at latitude 0 and longitude 0, which Brightkite uses for "unknown", are left out and counted.

    Raises:
        DataError: no row can be used.
    """
    names = ["user_id", "time", "lat", "lon", "location_id"]
    return _read_checkins(
        path, names, names, time_format="ISO8601", encoding="utf-8", bounds=bounds, zero_is_unknown=True
    )


def read_yjmob100k(
    path: str | Path, *, anchor: tuple[float, float], start: str, timezone: str = "Asia/Tokyo"
) -> pd.DataFrame:
    """YJMob100K (also the HuMob challenge): visits to 500 m cells `x<x>y<y>` in half-hours.

    The set hides where and when it was recorded, so both must be made up by the caller; distances and clock times are
    real, absolute coordinates and dates are not. Here x grows eastwards and y northwards; the true orientation is
    hidden too.

    Args:
        path: CSV file with the columns uid, d, t, x, y (days and half-hours from 0, cells 1..200).
        anchor: latitude and longitude given to the middle of cell (1, 1).
        start: local ISO date given to day 0.
        timezone: IANA name of the zone in which the half-hours are read.

    Cells of 999, which the challenge uses for hidden positions, are left out and counted.

    Raises:
        DataError: no row can be used, or the columns differ.
    """
    count, path = Rejections(), Path(path)
    first_day = pd.Timestamp(start)

    def usable(block: pd.DataFrame) -> pd.DataFrame:
        block = block.apply(pd.to_numeric, errors="coerce").astype("float64")
        block = count.drop(
            block, ~(block.abs() < 2**53).all(axis=1) | (block % 1 != 0).any(axis=1), "unreadable numbers"
        )
        block = count.drop(block, (block["x"] == 999) | (block["y"] == 999), "hidden position")
        inside = block["x"].between(1, _YJMOB_CELLS) & block["y"].between(1, _YJMOB_CELLS)
        block = count.drop(block, ~inside, "cell out of range")
        on_calendar = block["d"].between(0, _YJMOB_DAYS) & block["t"].between(0, 47)
        block = count.drop(block, ~on_calendar, "time out of range")
        block = block.astype("int64")
        east, north = ((block[axis].to_numpy() - 1) * _YJMOB_CELL_KM for axis in "xy")
        lat, lon = from_km(east, north, origin=anchor)
        clock = first_day + pd.to_timedelta(block["d"] * 1440 + block["t"] * 30, unit="min")
        cell = "x" + block["x"].astype(str) + "y" + block["y"].astype(str)
        return pd.DataFrame({"user_id": block["uid"], "time": clock, "location_id": cell, "lat": lat, "lon": lon})

    needed = ["uid", "d", "t", "x", "y"]
    has = file_columns(path)
    if not set(needed) <= set(has):
        raise DataError(f"{path.name} must have the columns {', '.join(needed)}; it has {', '.join(has)}.")
    blocks = text_blocks(path, has, count=count, sep=",", header=True)
    return _visits(count, (usable(block[needed]) for block in blocks), path, timezone=timezone)


def read_table(
    path: str | Path, *, timezone: Zone | None = None, number_users: bool = True, **columns: str
) -> pd.DataFrame:
    """A CSV (`.csv`, `.csv.gz`) or Parquet file of visits with any column names, leaving out unusable rows.

    `columns` maps canonical names to the file's, as in `read_table(path, user_id="uid", location_id="venue")`;
    others must have their canonical name. Unlike `validate_visits(path)`, which refuses a file with a bad row, this
    reads what can be used and reports the rest. Text ids of users become integers where all of them spell one;
    `number_users=False` keeps them as they are.

    Raises:
        DataError: a column is missing, times need `timezone`, or no row can be used.
    """
    path, count = Path(path), Rejections()
    unknown = sorted(set(columns) - set(ROLES))
    if unknown:
        raise DataError(f"Unknown column role(s) {', '.join(unknown)}; the roles are {', '.join(ROLES)}.")
    names = {role: columns.get(role, role) for role in ROLES}
    has = file_columns(path)
    twice = sorted({name for name in names.values() if has.count(name) > 1})
    if twice:
        raise DataError(f"{path.name} has the column(s) {', '.join(twice)} more than once; keep one of each.")
    wanted = {role: name for role, name in names.items() if name in has or role in columns or role in ROLES[:2]}
    missing = [name for role, name in (wanted | {r: names[r] for r in ("lat", "lon")}).items() if name not in has]
    if missing:
        raise DataError(
            f"{path.name} lacks the column(s) {', '.join(missing)}; it has {', '.join(has)}: "
            "pass the names that you have, as in user_id='my_column'."
        )

    def usable(block: pd.DataFrame) -> pd.DataFrame:
        block = block[list(wanted.values())].set_axis(list(wanted), axis=1)
        if pd.api.types.is_string_dtype(block["time"].dtype):
            block = count.drop(block, block["time"].isna(), "unreadable time")
            block = count.drop(block, from_text(block["time"].astype(str))[0].isna(), "unreadable time")
        if "duration" in block:
            block = block.assign(duration=pd.to_numeric(block["duration"], errors="coerce"))
            block = count.drop(block, (block["duration"] < 0) | np.isinf(block["duration"]), "unusable duration")
        return count.keep_usable(block)

    blocks = file_blocks(path, count=count, ids=[names["user_id"], names["location_id"]])
    tables = (usable(block) for block in blocks)
    return _visits(count, tables, path, timezone=timezone, number_users=number_users)


# ------------------------------------------------------------------------------------------------------------ the parts


def _read_checkins(
    path: str | Path,
    names: Sequence[str],
    wanted: Sequence[str],
    *,
    time_format: str,
    encoding: str,
    bounds: Bounds | None,
    zero_is_unknown: bool = False,
) -> pd.DataFrame:
    path, count = Path(path), Rejections()

    def usable(block: pd.DataFrame) -> pd.DataFrame:
        block["time"] = pd.to_datetime(block["time"], format=time_format, errors="coerce", utc=True)
        block = count.keep_usable(block[list(wanted)])
        if zero_is_unknown:
            block = count.drop(block, (block["lat"] == 0) & (block["lon"] == 0), "coordinates 0, 0")
        return count.keep_inside(block, bounds)

    return _visits(count, (usable(block) for block in text_blocks(path, names, count=count, encoding=encoding)), path)


def _read_pois(path: Path, *, bounds: Bounds | None, country: str | None) -> pd.DataFrame:
    """Venues by id with lat, lon and category, only those of the selection."""
    selection = Rejections()  # what is not selected is no fault of the file
    tables = []
    for block in text_blocks(path, ["location_id", "lat", "lon", "category", "country"], count=selection):
        if country is not None:
            block = block[block["country"] == country]
        block[["lat", "lon"]] = block[["lat", "lon"]].apply(pd.to_numeric, errors="coerce")
        tables.append(selection.keep_inside(block[["location_id", "lat", "lon", "category"]], bounds))
    pois = selection.finish(tables, path, number_users=False).drop_duplicates()
    twice = pois.loc[pois["location_id"].duplicated(), "location_id"]
    if len(twice):
        raise DataError(f"{path.name} lists {len(twice)} venues twice with different data (first {twice.iloc[0]}).")
    return pois.set_index("location_id")


def _visits(
    count: Rejections,
    tables: Iterable[pd.DataFrame],
    path: Path,
    *,
    timezone: Zone | None = None,
    number_users: bool = True,
) -> pd.DataFrame:
    visits = validate_visits(count.finish(tables, path, number_users=number_users), timezone=timezone)
    visits.attrs["read_report"] = count.report()
    return visits
