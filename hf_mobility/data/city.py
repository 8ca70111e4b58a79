"""A city: its list of locations with everything a model may know of them. An immutable value.

Unusual: the POI columns follow one fixed scheme (`POI_COLUMNS`, 60 of them) that is computed from names and coordinates
alone, so that a column means the same in every city and missing categories cost nothing but information. Popularity
comes from *training* visits only and is coarse on purpose.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from ..tokenization.clock import zone_of
from ..tokenization.errors import DataError
from ..tokenization.grid import ROUNDED_KM_PER_DEGREE, unwrapped
from .frames import location_ids, validate_places

FORMAT_VERSION = 1
POI_GROUPS = (
    "Arts & Entertainment",
    "College & University",
    "Event",
    "Food",
    "Nightlife Spot",
    "Outdoors & Recreation",
    "Professional & Other Places",
    "Residence",
    "Shop & Service",
    "Travel & Transport",
)
NUM_HASH_BINS = 32
DENSITY_KM = (0.3, 1.0, 5.0)
NEIGHBOUR_KM = 0.5
POI_COLUMNS = (
    *(f"is {group}" for group in (*POI_GROUPS, "unknown group")),
    *(f"category hash {index}" for index in range(NUM_HASH_BINS)),
    *(f"log density {km} km" for km in DENSITY_KM),
    *(f"density rank {km} km" for km in DENSITY_KM),
    *(f"share of {group} within {NEIGHBOUR_KM} km" for group in (*POI_GROUPS, "unknown group")),
)
NEVER_SEEN = 9
LEVEL_SHARES = (0.01, 0.05, 0.10, 0.20, 0.40, 0.60, 0.80)
_DTYPES = {"location_ids": str, "lat": np.float64, "lon": np.float64, "poi": np.float32, "popularity": np.int64}


@dataclass(frozen=True, eq=False)
class City:
    """name; timezone (IANA); location_ids (N,) str; lat, lon (N,) float64; poi (N, P) float32; poi_names (P,);
    popularity (N,) int64: 1 = most visited 1 % .. 8 = least visited fifth, 9 = never seen.

    Raises:
        DataError: for fewer than two locations, repeated ids, bad coordinates, arrays of different lengths or an
            unknown time zone.
    """

    name: str
    timezone: str
    location_ids: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    poi: np.ndarray
    poi_names: tuple[str, ...]
    popularity: np.ndarray

    def __post_init__(self) -> None:
        for field, dtype in _DTYPES.items():  # own copies that nobody can write to: the content hash stays true
            array: np.ndarray = np.array(getattr(self, field), dtype=dtype)
            array.setflags(write=False)
            object.__setattr__(self, field, array)
        object.__setattr__(self, "poi_names", tuple(self.poi_names))
        object.__setattr__(self, "timezone", str(self.timezone))  # of a ZoneInfo, its name
        zone_of(self.timezone)
        n = len(self.location_ids)
        if n < 2:
            raise DataError(f"a city needs at least two locations, got {n}: with one there is nothing to predict.")
        for field in ("lat", "lon", "poi", "popularity"):
            if len(getattr(self, field)) != n:
                raise DataError(f"{field} has {len(getattr(self, field))} rows for {n} locations.")
        ids, counts = np.unique(self.location_ids, return_counts=True)
        if (counts > 1).any():
            raise DataError(
                f"{int((counts > 1).sum())} location ids occur more than once, first {ids[counts > 1][:5].tolist()}."
            )
        bad = ~(np.isfinite(self.lat) & np.isfinite(self.lon) & (np.abs(self.lat) <= 90) & (np.abs(self.lon) <= 180))
        if bad.any():
            raise DataError(
                f"{int(bad.sum())} locations have no valid lat/lon, first {self.location_ids[bad][:5].tolist()}."
            )
        object.__setattr__(self, "_order", np.argsort(self.location_ids))

    def __len__(self) -> int:
        return len(self.location_ids)

    def __repr__(self) -> str:
        seen = int((self.popularity != NEVER_SEEN).sum())
        return f"City({self.name!r}, {self.timezone}, {len(self)} locations, {seen} of them visited)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, City) and self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)

    @classmethod
    def from_visits(
        cls,
        visits: Any,
        *,
        timezone: str,
        name: str = "",
        pois: pd.DataFrame | None = None,
        popularity_from: Any = "visits",
        **columns: str,
    ) -> City:
        """The locations that occur in `visits` and, if given, in `pois`.

        Args:
            visits: a frame, `datasets.Dataset`, Arrow table or path with `location_id` (points have none: see
                `from_grid`), `lat`, `lon` and optionally `category`, `category_group`; checked as in `validate_visits`.
            timezone: IANA name of the local time zone.
            pois: a table with `location_id`, `lat`, `lon` and optionally `category`, `category_group`: the city's
                map. Its rows come first.
            popularity_from: `"visits"` counts `visits`; another table counts that one (give training visits here when
                `visits` lists the places of the whole file); `None` = nobody has been seen anywhere.
            columns: other names of the columns of `visits`, as in `location_id="venue"`.

        Raises:
            DataError: missing columns, or values that cannot be used; fewer than two places.
        """
        found = validate_places(visits, **columns)
        places = found if pois is None else pd.concat([validate_places(pois), found], ignore_index=True)
        city = cls._from_places(places, timezone=timezone, name=name)
        if isinstance(popularity_from, str) and popularity_from == "visits":
            return city._counting(found["location_id"])
        return city if popularity_from is None else city.with_popularity(popularity_from)

    @classmethod
    def from_pois(cls, pois: pd.DataFrame, *, timezone: str, name: str = "") -> City:
        """A city known by its map only: `location_id`, `lat`, `lon`, optionally `category` and `category_group`.
        Nothing has been visited."""
        return cls._from_places(validate_places(pois), timezone=timezone, name=name)

    @classmethod
    def from_grid(cls, grid: Any, *, timezone: str, name: str = "", visits: pd.DataFrame | None = None) -> City:
        """Every cell of a `SquareGrid` as a location (ids as `assign_cells` writes them), popularity from `visits`."""
        cells = np.arange(len(grid))
        lat, lon = grid.centre(cells)
        places = pd.DataFrame({"location_id": grid.cell_id(cells), "lat": lat, "lon": lon})
        city = cls._from_places(places, timezone=timezone, name=name)
        return city if visits is None else city.with_popularity(visits)

    @classmethod
    def _from_places(cls, places: pd.DataFrame, *, timezone: str, name: str) -> City:
        """One row per location: mean coordinates, first category that is not null."""
        how = {"lat": "mean", "lon": "mean", **{c: "first" for c in ("category", "category_group") if c in places}}
        table = places.groupby("location_id", sort=True).agg(how)
        category = table["category"] if "category" in table else pd.Series(None, index=table.index, dtype=object)
        group = (
            table["category_group"] if "category_group" in table else pd.Series(None, index=table.index, dtype=object)
        )
        lat, lon = table["lat"].to_numpy(np.float64), table["lon"].to_numpy(np.float64)
        return cls(
            name=name,
            timezone=timezone,
            location_ids=table.index.to_numpy(dtype=str),
            lat=lat,
            lon=lon,
            poi=poi_features(lat, lon, category.to_numpy(object), group.to_numpy(object)),
            poi_names=POI_COLUMNS,
            popularity=np.full(len(table), NEVER_SEEN, np.int64),
        )

    def index_of(self, location_ids: Any) -> np.ndarray:
        """Row of each id, int64 (n,); -1 for a place the city does not list."""
        wanted = np.asarray(location_ids).astype(str)
        order = self._order  # type: ignore[attr-defined]
        position = np.searchsorted(self.location_ids, wanted, sorter=order).clip(max=len(self) - 1)
        rows = order[position]
        return np.where(self.location_ids[rows] == wanted, rows, -1)

    def with_popularity(self, visits: Any) -> City:
        """A copy whose popularity levels count these (training) visits: any table with `location_id`. Visits at
        unlisted places do not count.

        Raises:
            DataError: no such column, or none of the visits is at a listed place.
        """
        return self._counting(location_ids(visits))

    def _counting(self, ids: pd.Series) -> City:
        rows = self.index_of(ids.to_numpy(object))
        if (rows < 0).all():
            raise DataError(
                f"column 'location_id': none of {len(ids)} visits is at one of the city's {len(self)} locations (first "
                f"{ids.iloc[:3].tolist()}, the city lists {self.location_ids[:3].tolist()}, ...)."
            )
        counts = np.bincount(rows[rows >= 0], minlength=len(self))
        return replace(self, popularity=popularity_levels(counts))

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> City:
        """The city a tokenizer was built from (POI shares at the half precision the tokenizer keeps)."""
        return cls(
            name=tokenizer.name,
            timezone=tokenizer.timezone,
            location_ids=tokenizer.location_ids,
            lat=tokenizer.lat,
            lon=tokenizer.lon,
            poi=tokenizer.poi.astype(np.float32),
            poi_names=tokenizer.poi_names,
            popularity=tokenizer.popularity.astype(np.int64),
        )

    @property
    def content_hash(self) -> str:
        """SHA-256 over everything the city holds."""
        digest = hashlib.sha256(
            json.dumps([self.name, self.timezone, self.location_ids.tolist(), list(self.poi_names)]).encode()
        )
        for array in (self.lat, self.lon, self.poi, self.popularity):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write `city.json` and `city.safetensors` into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        header = {
            "format_version": FORMAT_VERSION,
            "content_hash": self.content_hash,
            "name": self.name,
            "timezone": self.timezone,
            "location_ids": self.location_ids.tolist(),
            "poi_names": list(self.poi_names),
        }
        (folder / "city.json").write_text(json.dumps(header, ensure_ascii=False, indent=0), encoding="utf-8")
        arrays = {"lat": self.lat, "lon": self.lon, "poi": self.poi, "popularity": self.popularity}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "city.safetensors")

    @classmethod
    def load(cls, folder: str | Path) -> City:
        """Read what `save` wrote (or a tokenizer's folder).

        Raises:
            DataError: for another format version, or contents that do not match their hash.
        """
        folder = Path(folder)
        header = json.loads((folder / "city.json").read_text(encoding="utf-8"))
        if header.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{folder / 'city.json'} has format version {header.get('format_version')}, "
                f"this release reads {FORMAT_VERSION}."
            )
        arrays = load_file(folder / "city.safetensors")
        city = cls(
            name=header["name"],
            timezone=header["timezone"],
            location_ids=np.asarray(header["location_ids"], dtype=str),
            lat=arrays["lat"],
            lon=arrays["lon"],
            poi=arrays["poi"].astype(np.float32),
            poi_names=tuple(header["poi_names"]),
            popularity=arrays["popularity"].astype(np.int64),
        )
        if header.get("content_hash", city.content_hash) != city.content_hash:
            raise DataError(
                f"{folder}: the city's contents do not match their content_hash; one of its two files was changed."
            )
        return city


def popularity_levels(counts: np.ndarray) -> np.ndarray:
    """Visit counts (N,) -> levels (N,) int64 by rank among all N locations (paper, Table 6): top 1 % = 1, 1-5 % = 2,
    5-10 %, 10-20 %, 20-40 %,
    40-60 %, 60-80 % and the rest = 8; 9 where the count is zero. Ties keep the order of the list."""
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    levels = np.searchsorted(np.asarray(LEVEL_SHARES), rank / len(counts), side="right") + 1
    return np.where(counts > 0, levels, NEVER_SEEN)


def poi_features(lat: np.ndarray, lon: np.ndarray, category: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The 60 columns of `POI_COLUMNS`, float32 (N, 60): what kind of place this is and what lies around it."""
    known = {name: index for index, name in enumerate(POI_GROUPS)}
    groups = np.array(
        [known.get(value, len(POI_GROUPS)) if isinstance(value, str) else len(POI_GROUPS) for value in group]
    )
    one_hot = np.eye(len(POI_GROUPS) + 1, dtype=np.float32)[groups]
    hashed = np.zeros((len(lat), NUM_HASH_BINS), np.float32)
    bins = np.array(
        [
            zlib.crc32(value.strip().lower().encode()) % NUM_HASH_BINS if isinstance(value, str) else -1
            for value in category
        ]
    )
    hashed[bins >= 0, bins[bins >= 0]] = 1.0

    centre = np.radians(lat.mean())
    tree = cKDTree(np.stack([unwrapped(lon) * np.cos(centre), lat], axis=1) * ROUNDED_KM_PER_DEGREE)
    counts = np.stack([tree.query_ball_point(tree.data, km, return_length=True) for km in DENSITY_KM], axis=1)
    ranks = (rankdata(counts, axis=0) - 1) / max(len(lat) - 1, 1)
    pairs = tree.query_pairs(NEIGHBOUR_KM, output_type="ndarray")
    around = one_hot.copy()
    for here, there in (pairs.T, pairs.T[::-1]):
        np.add.at(around, here, one_hot[there])
    around /= around.sum(1, keepdims=True)
    return np.concatenate([one_hot, hashed, np.log1p(counts) / 4, ranks, around], axis=1).astype(np.float32)
