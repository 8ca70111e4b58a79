"""Who was in which region: points of many people -> pairs (region, user) with the number of points inside.

A region is a cell of a grid, an H3 cell, a disc or any polygon; regions may overlap. Edges belong to discs and
polygons, so a point on the border of two neighbours is in both. Work is done block by block of points, so that memory
does not grow with points times regions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.errors import SHOWN, DataError
from ..tokenization.grid import EARTH_RADIUS_KM, SquareGrid
from .frames import validate_points
from .grid import h3_cells

__all__ = ["Discs", "H3Cells", "Polygons", "Visitors", "visitors"]

_BLOCK = 200_000  # points looked at together
_REGIONS = 1_000  # regions whose overlaps are looked for together
_TOUCHING = 1e-6  # of a region: neighbours whose borders were rounded do not overlap


@dataclass(frozen=True, eq=False)
class Visitors:
    """Who was where. V pairs, sorted by region and user, each once.

    Fields:
        region_ids: (R,) all regions, visited or not, in their own order.
        users: (U,) all people of the points, ascending, whether they were in a region or not.
        region, user: int64 (V,), rows of `region_ids` and `users`.
        count: int64 (V,), how many of the person's points lie inside.
        regions: what the points were looked up in, if it is known.
    """

    region_ids: np.ndarray
    users: np.ndarray
    region: np.ndarray
    user: np.ndarray
    count: np.ndarray
    regions: Any = None

    @cached_property
    def overlap(self) -> tuple[Any, ...]:
        """Ids of two regions that overlap; empty where none do. Looked for when it is asked for."""
        return self.regions.overlap() if isinstance(self.regions, Discs | Polygons) else ()

    @property
    def pairs(self) -> np.ndarray:
        """int64 (V, 2): (region, user), what `RawForRegionAnalysis` takes as `visitors`."""
        return np.stack([self.region, self.user], axis=1)

    def to_frame(self) -> pd.DataFrame:
        """`region_id`, `user_id`, `count`, one row per pair."""
        ids, users = self.region_ids[self.region], self.users[self.user]
        return pd.DataFrame({"region_id": ids, "user_id": users, "count": self.count})


@dataclass(frozen=True)
class H3Cells:
    """All H3 cells of a resolution (0..15) in which there is a point; needs `pip install 'hf_mobility[geo]'`."""

    resolution: int = 8


class Discs:
    """Circles on the Earth's surface.

    Args:
        lat, lon: (R,) centres in degrees. radius_km: (R,) or one number, great-circle.
        region_ids: (R,) names; 0..R-1 by default.

    Raises:
        DataError: no disc, columns of different lengths, coordinates that are none, radii that are not positive, or
            names that repeat.
    """

    def __init__(self, lat: Any, lon: Any, radius_km: Any, *, region_ids: Any = None) -> None:
        self.lat, self.lon = np.atleast_1d(np.asarray(lat, np.float64)), np.atleast_1d(np.asarray(lon, np.float64))
        radius = np.asarray(radius_km, np.float64)
        self.radius_km = np.full(len(self.lat), radius) if radius.ndim == 0 else radius
        self.region_ids = _checked_ids(region_ids, len(self.lat))
        lengths = [len(self.lat), len(self.lon), len(self.radius_km)]
        if len(set(lengths)) > 1:
            raise DataError(f"lat, lon and radius_km of the discs have {lengths} values; give one of each per disc.")
        self._refuse(~((np.abs(self.lat) <= 90) & (np.abs(self.lon) <= 180)), "no centre in degrees (lat, lon)")
        limit = np.pi * EARTH_RADIUS_KM / 2
        self._refuse(~((self.radius_km > 0) & (self.radius_km < limit)), "no positive radius of at most 10,000 km")

    def _refuse(self, bad: np.ndarray, fault: str) -> None:
        if bad.any():
            raise DataError(
                f"{int(bad.sum())} of {len(bad)} discs have {fault} "
                f"(first: {self.region_ids[bad][:SHOWN].tolist()}); repair or drop them."
            )

    def hits(self, lat: np.ndarray, lon: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows of points, discs) that lie in each other, for points in degrees.

        Exact on the sphere at any place: a great-circle radius is a chord between unit vectors. Discs of similar size
        are searched together, each group with its largest radius.
        """
        from scipy.spatial import cKDTree

        tree = cKDTree(_unit_vectors(lat, lon))
        centres, chord = _unit_vectors(self.lat, self.lon), 2 * np.sin(self.radius_km / EARTH_RADIUS_KM / 2)
        size = np.floor(np.log2(chord))
        for some in np.unique(size):
            discs = np.flatnonzero(size == some)
            limit = chord[discs].max()
            found = cKDTree(centres[discs]).sparse_distance_matrix(tree, limit * (1 + 1e-9), output_type="ndarray")
            inside = found["v"] <= chord[discs][found["i"]] * (1 + 1e-12)
            yield found["j"][inside], discs[found["i"][inside]]

    def overlap(self) -> tuple[Any, ...]:
        """Ids of two discs that share more than a point of their edges; empty where none do."""
        from scipy.spatial import cKDTree

        centres, angle = _unit_vectors(self.lat, self.lon), self.radius_km / EARTH_RADIUS_KM
        tree = cKDTree(centres)
        for first in range(0, len(centres), _REGIONS):
            block = cKDTree(centres[first : first + _REGIONS])
            reach = 2 * np.sin((angle[first : first + _REGIONS].max() + angle.max()) / 2)
            near = block.sparse_distance_matrix(tree, reach, output_type="ndarray")
            one, other = near["i"] + first, near["j"]
            apart = 2 * np.arcsin(np.minimum(near["v"] / 2, 1))
            both = np.flatnonzero((one != other) & (apart < (angle[one] + angle[other]) * (1 - _TOUCHING)))
            if len(both):
                return self.region_ids[one[both[0]]], self.region_ids[other[both[0]]]
        return ()


class Polygons:
    """Areas with borders; needs `pip install 'hf_mobility[geo]'` (shapely 2).

    Args:
        geometries: (R,) shapely Polygons or MultiPolygons in longitude and latitude (WGS84), the order of GeoJSON. None
            may cross the antimeridian: GeoJSON cuts such areas in two. They are not changed.
        region_ids: (R,) names; 0..R-1 by default.

    Raises:
        DataError: no polygon, other geometries, empty or invalid ones (a border that crosses itself), coordinates that
            are no degrees, or names that repeat.
    """

    def __init__(self, geometries: Any, *, region_ids: Any = None) -> None:
        shapely = _shapely()
        given = list(geometries)
        self.geometries = np.empty(len(given), dtype=object)
        self.geometries[:] = given
        self.region_ids = _checked_ids(region_ids, len(given))
        areas = np.array([getattr(area, "geom_type", "") in ("Polygon", "MultiPolygon") for area in given])
        self._refuse(~areas, "no readable Polygon or MultiPolygon", "give areas")
        self._refuse(shapely.is_empty(self.geometries), "empty", "drop them")
        invalid = ~shapely.is_valid(self.geometries)
        if invalid.any():
            reason = shapely.is_valid_reason(self.geometries[invalid][0])
            self._refuse(invalid, f"invalid (the first: {reason})", "repair them, as with shapely.make_valid")
        west, south, east, north = shapely.bounds(self.geometries).T
        off = (west < -180) | (east > 180) | (south < -90) | (north > 90)
        self._refuse(off, "not in degrees", "coordinates are longitude and latitude (EPSG:4326): reproject them")

    @classmethod
    def from_geojson(cls, source: Any, *, id_property: str | None = None) -> Polygons:
        """Areas of a GeoJSON object or file.

        Args:
            source: a dict (FeatureCollection, Feature or geometry) or the path of a file.
            id_property: the property that holds a feature's name; by default its `id`, else 0..R-1 where no feature has
                one.
        """
        shapely = _shapely()
        if not isinstance(source, Mapping):
            try:
                source = json.loads(Path(source).read_text(encoding="utf-8"))
            except json.JSONDecodeError as error:
                raise DataError(f"{source} is no GeoJSON: {error}.") from error
        features = _features(source)
        if id_property is None:
            names = [feature.get("id") for feature in features]
        else:
            names = [(feature.get("properties") or {}).get(id_property) for feature in features]
        missing = [row for row, name in enumerate(names) if name is None]
        if missing and (id_property is not None or len(missing) < len(names)):
            wanted = "id" if id_property is None else f"property {id_property!r}"
            raise DataError(
                f"{len(missing)} of {len(names)} GeoJSON features have no {wanted} (first rows {missing[:SHOWN]}); "
                "name all of them or, with ids, none."
            )
        texts = [json.dumps(feature.get("geometry")) for feature in features]
        geometries = shapely.from_geojson(texts, on_invalid="ignore")  # unreadable ones become None
        return cls(geometries, region_ids=None if missing else names)

    def _refuse(self, bad: np.ndarray, fault: str, advice: str) -> None:
        if bad.any():
            raise DataError(
                f"{int(bad.sum())} of {len(bad)} regions are {fault} "
                f"(first: {self.region_ids[bad][:SHOWN].tolist()}); {advice}."
            )

    def hits(self, lat: np.ndarray, lon: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows of points, polygons) that lie in each other, borders included."""
        shapely = _shapely()
        polygons = shapely.from_wkb(shapely.to_wkb(self.geometries))  # copies: preparing writes to a geometry
        shapely.prepare(polygons)
        rows, near = shapely.STRtree(polygons).query(shapely.points(lon, lat))
        order = np.argsort(near, kind="stable")  # one polygon after the other
        rows, near = rows[order], near[order]
        inside = shapely.intersects_xy(polygons[near], lon[rows], lat[rows])
        yield rows[inside], near[inside]

    def overlap(self) -> tuple[Any, ...]:
        """Ids of two areas that share more than a millionth of the smaller one; empty where none do."""
        shapely = _shapely()
        tree, area = shapely.STRtree(self.geometries), shapely.area(self.geometries)
        for first in range(0, len(self.geometries), _REGIONS):
            one, other = tree.query(self.geometries[first : first + _REGIONS])
            one, other = (one + first)[one + first < other], other[one + first < other]
            shared = shapely.area(shapely.intersection(self.geometries[one], self.geometries[other]))
            both = np.flatnonzero(shared > _TOUCHING * np.minimum(area[one], area[other]))
            if len(both):
                return self.region_ids[one[both[0]]], self.region_ids[other[both[0]]]
        return ()


def visitors(points: Any, regions: Any, *, min_visits: int = 1) -> Visitors:
    """Which people were in which regions, and with how many points.

    Args:
        points: anything that `validate_points` takes; row order leaves no trace.
        regions: a `SquareGrid` (every cell is a region), `H3Cells`, `Discs`, `Polygons`, a GeoJSON object (dict) or the
            path of a GeoJSON file, or a list of shapely areas.
        min_visits: pairs with fewer points are left out. Points are counted, not stays: fixes every five minutes make
            twelve an hour.

    Raises:
        DataError: for faulty points or regions, `min_visits` below 1, or if no point lies in any region.
        ImportError: polygons without shapely, H3 cells without h3.
    """
    return count_visitors(validate_points(points), regions, min_visits=min_visits)


def count_visitors(points: pd.DataFrame, regions: Any, *, min_visits: int = 1) -> Visitors:
    """`visitors` of points or visits that `validate_points` or `validate_visits` checked before."""
    if min_visits < 1:
        raise DataError(f"min_visits must be at least 1, not {min_visits}.")
    regions = _as_regions(regions)
    users, user = np.unique(points["user_id"].to_numpy(), return_inverse=True)
    lat, lon = points["lat"].to_numpy(), points["lon"].to_numpy()
    if isinstance(regions, H3Cells):
        region_ids, cell = np.unique(h3_cells(lat, lon, resolution=regions.resolution), return_inverse=True)
        found = iter([(np.arange(len(cell)), cell)])
    elif isinstance(regions, SquareGrid):
        region_ids = regions.cell_id(np.arange(len(regions)))
        cell = regions.cell(lat, lon)
        found = iter([(np.flatnonzero(cell >= 0), cell[cell >= 0])])
    else:
        region_ids = regions.region_ids
        found = _in_blocks(regions, lat, lon)

    keys, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for rows, region in found:
        key, count = np.unique(region.astype(np.int64) * len(users) + user[rows], return_counts=True)
        keys.append(key)
        counts.append(count)
    pair, row = np.unique(np.concatenate(keys), return_inverse=True)
    if not len(pair):
        raise DataError(
            f"None of the {len(points)} points lies in any of the {len(region_ids)} regions; are they of one city, and "
            "lat and lon not swapped?"
        )
    total = np.bincount(row, np.concatenate(counts)).astype(np.int64)
    kept = total >= min_visits
    region, person = np.divmod(pair[kept], len(users))
    return Visitors(region_ids, users, region, person, total[kept], regions)


def _in_blocks(regions: Discs | Polygons, lat: np.ndarray, lon: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for first in range(0, len(lat), _BLOCK):
        for rows, region in regions.hits(lat[first : first + _BLOCK], lon[first : first + _BLOCK]):
            yield rows + first, region


def _as_regions(regions: Any) -> SquareGrid | H3Cells | Discs | Polygons:
    if isinstance(regions, SquareGrid | H3Cells | Discs | Polygons):
        return regions
    if isinstance(regions, Mapping | str | Path):
        return Polygons.from_geojson(regions)
    if isinstance(regions, Sequence | np.ndarray | pd.Series):
        return Polygons(regions)
    raise DataError(
        f"Cannot read regions from {type(regions).__name__}; give a SquareGrid, H3Cells, Discs, Polygons, GeoJSON or a "
        "list of shapely areas."
    )


def _features(source: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    kind = source.get("type")
    if kind == "FeatureCollection":
        return list(source.get("features") or [])
    if kind == "Feature":
        return [source]
    if "coordinates" in source or "geometries" in source:
        return [{"geometry": source}]
    raise DataError(f"This is no GeoJSON with areas: its type is {kind!r}; give a FeatureCollection.")


def _checked_ids(region_ids: Any, number: int) -> np.ndarray:
    if number == 0:
        raise DataError("There are no regions: the list is empty.")
    if region_ids is None:
        return np.arange(number)
    ids = np.asarray(region_ids)
    if ids.dtype.kind in "OUS":  # numpy would take 1 and "1" for the same name
        ids = np.array([*region_ids], dtype=object)
    if ids.shape != (number,):
        raise DataError(f"region_ids has shape {ids.shape}; {number} regions need one name each.")
    twice = pd.Index(ids).duplicated()
    if twice.any():
        raise DataError(
            f"region_ids: {int(twice.sum())} of {number} names repeat (first: {ids[twice][:SHOWN].tolist()}); each "
            "region needs its own."
        )
    return ids


def _unit_vectors(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """(n, 3) points on the unit sphere."""
    a, b = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)], axis=1)


def _shapely() -> Any:
    try:
        import shapely
    except ImportError as error:
        raise ImportError("Polygons need the shapely package: pip install 'hf_mobility[geo]'") from error
    return shapely
