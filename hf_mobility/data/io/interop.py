"""Frames to the tables of scikit-mobility, trackintel, movingpandas and geopandas, and back.

None of the first three is imported: they read tables with certain column names, and such tables are made and read here.
Where points become geometries, geopandas is needed (`pip install 'hf_mobility[geo]'`).

Times come out aware, in UTC or in `timezone`, and mean the same instant. Sources of the names: scikit-mobility 1.3
(`skmob.utils.constants`), trackintel 1.4 (`trackintel.model`), movingpandas 0.23 (`TrajectoryCollection`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ...tokenization.clock import Zone
from ...tokenization.errors import DataError
from ...tokenization.table_files import readable
from ..frames import validate_points, validate_visits

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = [
    "from_geo",
    "from_locations",
    "from_movingpandas",
    "from_positionfixes",
    "from_skmob",
    "from_staypoints",
    "read_geo",
    "to_geo",
    "to_locations",
    "to_movingpandas",
    "to_positionfixes",
    "to_skmob",
    "to_staypoints",
]

_WGS84 = "EPSG:4326"
_OPTIONAL = ("location_id", "category", "category_group", "duration")


# ------------------------------------------------------------------------------------------------------ scikit-mobility


def to_skmob(
    frame: Any, *, trajectory_id: str | None = None, timezone: Zone | None = None, **columns: str
) -> pd.DataFrame:
    """Visits or points as `skmob.TrajDataFrame(table)` reads them.

    Args:
        frame: anything that `validate_visits` takes; other column names by keyword, as in `lat="y"`.
        trajectory_id: a column that becomes `tid`; the frame is then read as points.
        timezone: of naive local times in `frame`, and of the times that come out (UTC without it). scikit-mobility
            reads hours off the clock, so give the city's zone where hours matter.

    Returns:
        `uid`, `datetime` (aware), `lat`, `lng`, then `tid`; or for visits `leaving_datetime` (datetime + duration, NaT
        = unknown) and `location_id`, `category`, `category_group`, where the frame has them.

    Raises:
        DataError: see `validate_visits`.
    """
    names = {"user_id": "uid", "time": "datetime", "lat": "lat", "lon": "lng"}
    if trajectory_id is not None:
        table = validate_points(frame, keep=(trajectory_id,), timezone=timezone, **columns)
        return _local(table, timezone).rename(columns={**names, trajectory_id: "tid"})[[*names.values(), "tid"]]
    table = _local(validate_visits(frame, timezone=timezone, **columns), timezone)
    if "duration" in table:
        table["leaving_datetime"] = _ends(table)
    rest = [name for name in ("leaving_datetime", *_OPTIONAL[:3]) if name in table]
    return table.rename(columns=names)[[*names.values(), *rest]]


def from_skmob(table: pd.DataFrame, *, timezone: Zone | None = None) -> pd.DataFrame:
    """A scikit-mobility table as a canonical frame.

    Args:
        table: `TrajDataFrame` or any table with `uid`, `datetime`, `lat`, `lng`.
        timezone: of naive times.

    Returns:
        With `tid` a points frame that keeps it as `trajectory_id`; else a visits frame with `duration` where there is a
        `leaving_datetime`, and location and category columns as they are.

    Raises:
        DataError: see `validate_visits`; someone leaves before they arrive.
    """
    if not isinstance(table, pd.DataFrame):
        raise DataError(f"Cannot read a scikit-mobility table from {type(table).__name__}; give a TrajDataFrame.")
    table = pd.DataFrame(table)
    names = {"user_id": "uid", "time": "datetime", "lon": "lng"}
    if "tid" in table:
        points = validate_points(table, keep=("tid",), timezone=timezone, **names)
        return points.rename(columns={"tid": "trajectory_id"})
    return _visits_with_ends(table, "leaving_datetime", timezone=timezone, **names)


# ----------------------------------------------------------------------------------------------------------- trackintel


def to_positionfixes(points: Any, *, timezone: Zone | None = None, **columns: str) -> GeoDataFrame:
    """Points as trackintel's position fixes: index `id`; `user_id`, `tracked_at` (aware), `geom` (EPSG:4326).

    Arguments and errors as in `to_skmob`; `trackintel.Positionfixes(table)` takes the result.
    """
    table = _local(validate_points(points, timezone=timezone, **columns), timezone)
    return _indexed(with_geometry(table, "geom"), {"time": "tracked_at"}, ["user_id", "tracked_at"])


def from_positionfixes(table: Any, *, timezone: Zone | None = None) -> pd.DataFrame:
    """trackintel's position fixes (`user_id`, `tracked_at`, points in any CRS) as a canonical points frame.

    Raises:
        DataError: see `from_geo`.
    """
    return validate_points(_with_degrees(table), time="tracked_at", timezone=timezone)


def to_staypoints(visits: Any, *, timezone: Zone | None = None, **columns: str) -> GeoDataFrame:
    """Visits as trackintel's stay points: index `id`; `user_id`, `started_at`, `finished_at` (aware), `location_id` and
    `purpose` (the category) where the frame has them, `geom` (EPSG:4326).

    Arguments as in `to_skmob`; `trackintel.Staypoints(table)` takes the result.

    Raises:
        DataError: see `validate_visits`; without durations, or where one is unknown: a stay point has an end.
    """
    table = _local(validate_visits(visits, timezone=timezone, **columns), timezone)
    unknown = table["duration"].isna() if "duration" in table else pd.Series(True, index=table.index)
    if unknown.any():
        raise DataError(
            f"Column {columns.get('duration', 'duration')!r}: {int(unknown.sum())} of {len(table)} visits have no "
            f"duration (first of user {table['user_id'][unknown].iloc[0]} at "
            f"{table['time'][unknown].iloc[0].isoformat()}); a stay point needs an end, so fill the column in or drop "
            "these rows."
        )
    table["finished_at"] = _ends(table)
    names = {"time": "started_at", "category": "purpose"}
    wanted = ["user_id", "started_at", "finished_at", "location_id", "purpose"]
    return _indexed(with_geometry(table, "geom"), names, wanted)


def from_staypoints(table: Any, *, timezone: Zone | None = None) -> pd.DataFrame:
    """trackintel's stay points as a canonical visits frame with `duration`, and with `location_id` and `category` where
    the table has `location_id` and `purpose`.

    Raises:
        DataError: see `from_geo`; a stay that ends before it starts, or (as trackintel leaves them) one that belongs to
            no location.
    """
    plain = _with_degrees(table)
    category = {"category": "purpose"} if "purpose" in plain else {}
    return _visits_with_ends(plain, "finished_at", time="started_at", timezone=timezone, **category)


def to_locations(places: Any) -> GeoDataFrame:
    """A list of places as trackintel's locations: index `id` = our `location_id`; `user_id`, `center` (EPSG:4326).

    Args:
        places: a `City`, a tokenizer, or a frame with `location_id`, `lat`, `lon`; of a frame the first row of each
            place counts. `user_id` is that of the frame where every place belongs to one person, else missing: as
            trackintel has it for locations of a whole data set.

    Raises:
        DataError: a column is missing or holds no coordinates.
    """
    if hasattr(places, "location_ids"):
        places = pd.DataFrame({"location_id": places.location_ids, "lat": places.lat, "lon": places.lon})
    missing = [name for name in ("location_id", "lat", "lon") if name not in places]
    if missing:
        raise DataError(f"The places lack the column(s) {', '.join(missing)}; they have {', '.join(places.columns)}.")
    bad = ~np.isfinite(places[["lat", "lon"]].to_numpy(dtype=np.float64)).all(axis=1)
    if bad.any():
        first = places["location_id"][bad].tolist()[:5]
        raise DataError(f"Columns 'lat' and 'lon': {int(bad.sum())} places have no coordinates (first: {first}).")
    table = places.drop_duplicates("location_id").set_index("location_id").rename_axis(index="id")
    if "user_id" not in places or (places.groupby("location_id")["user_id"].nunique() != 1).any():
        table = table.assign(user_id=pd.NA)
    return with_geometry(table, "center")[["user_id", "center"]]


def from_locations(table: Any) -> pd.DataFrame:
    """trackintel's locations as a table of places for `City.from_pois`: `location_id` (str), `lat`, `lon`, and
    `user_id` where locations belong to people.

    Raises:
        DataError: see `from_geo`.
    """
    geo = _geopandas().GeoDataFrame(table)
    plain = _with_degrees(geo.set_geometry("center") if "center" in geo else geo)
    places = pd.DataFrame({"location_id": plain.index.astype(str), "lat": plain["lat"], "lon": plain["lon"]})
    if "user_id" in plain and plain["user_id"].notna().all():
        places["user_id"] = plain["user_id"]
    return places.reset_index(drop=True)


# --------------------------------------------------------------------------------------------------------- movingpandas


def to_movingpandas(
    points: Any, *, trajectory_id: str | None = None, timezone: Zone | None = None, **columns: str
) -> GeoDataFrame:
    """Points (or visits) as `movingpandas.TrajectoryCollection(table, "traj_id")` reads them.

    Args:
        trajectory_id: a column that tells trajectories apart; by default each person has one.
        points, timezone, columns: as in `to_skmob`. movingpandas drops time zones, with a warning, and keeps the clock:
            give the city's zone where hours matter.

    Returns:
        Index `t` (aware); `traj_id`, `user_id`, `geometry` (EPSG:4326).

    Raises:
        DataError: see `validate_points`.
    """
    keep = () if trajectory_id is None else (trajectory_id,)
    table = _local(validate_points(points, keep=keep, timezone=timezone, **columns), timezone)
    table["traj_id"] = table["user_id" if trajectory_id is None else trajectory_id]
    table = table.set_index("time").rename_axis(index="t")
    return with_geometry(table, "geometry")[["traj_id", "user_id", "geometry"]]


def from_movingpandas(trajectories: Any, *, traj_id: str = "traj_id", timezone: Zone | None = None) -> pd.DataFrame:
    """Trajectories as a canonical points frame with `trajectory_id`; people are the trajectories where the table has no
    `user_id`.

    Args:
        trajectories: a `TrajectoryCollection`, or a GeoDataFrame with a DatetimeIndex.
        traj_id: its column of trajectories.
        timezone: of naive times, which is what movingpandas returns.

    Raises:
        DataError: see `from_geo`; an index without times, or no column `traj_id`.
    """
    table = trajectories.to_point_gdf() if hasattr(trajectories, "to_point_gdf") else trajectories
    if not isinstance(table.index, pd.DatetimeIndex):
        raise DataError(f"The index holds {table.index.dtype} values; movingpandas' tables have times there.")
    plain = _with_degrees(table.rename_axis(index="t").reset_index())
    if traj_id not in plain:
        raise DataError(f"The frame lacks the column {traj_id}; it has {', '.join(plain.columns)}: pass traj_id=.")
    owner = "user_id" if "user_id" in plain else traj_id
    plain = plain.assign(trajectory_id=plain[traj_id])
    return validate_points(plain, user_id=owner, time="t", keep=("trajectory_id",), timezone=timezone)


# -------------------------------------------------------------------------------------------------------- GeoDataFrames


def to_geo(frame: Any, *, timezone: Zone | None = None, **columns: str) -> GeoDataFrame:
    """Visits or points as a GeoDataFrame in EPSG:4326: the canonical columns and `geometry`.

    `to_geo(frame).to_parquet(path)` writes GeoParquet. Arguments and errors as in `to_skmob`.
    """
    return with_geometry(_local(validate_visits(frame, timezone=timezone, **columns), timezone), "geometry")


def from_geo(source: Any, *, timezone: Zone | None = None, **columns: str) -> pd.DataFrame:
    """A GeoDataFrame of points in any CRS, or the path of a GeoParquet file, as a canonical visits frame.

    The geometry counts: columns `lat` and `lon` beside it are not read. Other column names by keyword, as in
    `user_id="who"`.

    Raises:
        DataError: see `validate_visits`; a table without geometry or CRS, or with geometries that are no points.
        ImportError: without geopandas.
        FileNotFoundError: there is no such file.
    """
    return validate_visits(read_geo(source), timezone=timezone, **columns)


def read_geo(source: Any) -> pd.DataFrame:
    """The table of `from_geo` before it is checked: its columns, with `lat` and `lon` in place of the geometry."""
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"There is no file {path}.")
        geopandas = _geopandas()
        with readable(path, "GeoParquet"):
            source = geopandas.read_parquet(path)
    return _with_degrees(source)


# -------------------------------------------------------------------------------------------------------------- helpers


def _geopandas() -> Any:
    try:
        import geopandas
    except ImportError as error:
        raise ImportError("GeoDataFrames need geopandas: pip install 'hf_mobility[geo]'") from error
    return geopandas


def _local(table: pd.DataFrame, timezone: Zone | None) -> pd.DataFrame:
    """A canonical frame with its times in the given zone."""
    if timezone is None:
        return table
    try:
        return table.assign(time=table["time"].dt.tz_convert(timezone))
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"Unknown time zone {timezone!r}; give an IANA name such as 'Europe/Berlin'.") from error


def _ends(table: pd.DataFrame) -> pd.Series:
    """time + duration to the microsecond; NaT where the duration is unknown."""
    seconds = np.round(table["duration"].to_numpy() * 1e6)
    micros = np.where(np.isnan(seconds), np.iinfo(np.int64).min, np.nan_to_num(seconds)).astype(np.int64)
    return table["time"] + pd.Series(micros.view("timedelta64[us]"), index=table.index)


def _visits_with_ends(table: pd.DataFrame, end: str, *, time: str, timezone: Zone | None, **names: str) -> pd.DataFrame:
    """`validate_visits`, the duration computed from a column of ends (NaT = unknown) where there is one."""
    if end not in table:
        return validate_visits(table, time=time, timezone=timezone, **names)
    for name in (time, end):
        if name not in table or not pd.api.types.is_datetime64_any_dtype(table[name]):
            raise DataError(f"Column {name!r} holds no times; parse it first with pandas.to_datetime.")
    if (table[time].dt.tz is None) != (table[end].dt.tz is None):
        raise DataError(f"Of the columns {time!r} and {end!r} only one knows its time zone; give both one.")
    if table[end].dt.tz is None:  # the clock may change during a stay, so both are read as instants first
        known = table[end].notna()
        both = [table, table[known].assign(**{time: table[end][known]})]
        start, stop = (_instants(part, time, timezone) for part in both)
        table = table.assign(**{time: start, end: stop.reindex(table.index)})
    duration = (table[end] - table[time]).dt.total_seconds()
    early = duration < 0
    if early.any():
        raise DataError(
            f"Column {end!r}: {int(early.sum())} of {len(table)} values lie before {time!r} (first rows "
            f"{', '.join(map(str, table.index[early][:5]))}); stays end after they begin."
        )
    return validate_visits(table.assign(duration=duration), time=time, **names)


def _instants(table: pd.DataFrame, time: str, timezone: Zone | None) -> pd.Series:
    """Naive local times as validate_visits reads them, in the table's own order."""
    if not len(table):
        return pd.Series([], dtype="datetime64[us, UTC]", index=table.index)
    rows = pd.DataFrame({"user_id": np.arange(len(table)), "time": table[time].to_numpy(), "lat": 0.0, "lon": 0.0})
    return validate_points(rows, timezone=timezone)["time"].set_axis(table.index)


def with_geometry(table: pd.DataFrame, name: str) -> GeoDataFrame:
    geopandas = _geopandas()
    points = geopandas.points_from_xy(table["lon"], table["lat"])
    return geopandas.GeoDataFrame(table.assign(**{name: points}), geometry=name, crs=_WGS84)


def _indexed(table: GeoDataFrame, names: dict[str, str], wanted: list[str]) -> GeoDataFrame:
    table = table.rename(columns=names).rename_axis(index="id")
    return table[[*(name for name in wanted if name in table), "geom"]]


def _with_degrees(table: Any) -> pd.DataFrame:
    """A plain frame with `lat` and `lon` from the geometry column, which is dropped."""
    geopandas = _geopandas()
    if not isinstance(table, geopandas.GeoDataFrame) or table.active_geometry_name is None:
        raise DataError(f"Cannot read points from {type(table).__name__}; give a GeoDataFrame with a geometry column.")
    if table.crs is None:
        raise DataError("The GeoDataFrame has no CRS; say which with set_crs, as in table.set_crs(4326).")
    bad = ~((table.geom_type == "Point") & ~table.geometry.is_empty)
    if bad.any():
        raise DataError(
            f"Column {table.active_geometry_name!r}: {int(bad.sum())} of {len(table)} geometries are no points (first "
            f"rows {', '.join(map(str, table.index[bad][:5]))}); drop them or take their centroids."
        )
    points = table.geometry.to_crs(_WGS84)
    return pd.DataFrame(table.drop(columns=table.active_geometry_name)).assign(lat=points.y, lon=points.x)
