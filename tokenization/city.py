"""A city: its places with everything that a model may know of them, its time zone, its box and maybe a grid. An
immutable value, the same for all systems.

Popularity comes from *training* visits only and is coarse on purpose: a level says little about anybody. POI columns
are rounded to half precision, which is what files keep, so that a city read back equals the one that was saved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .city_files import (
    CITY_FIELDS,
    CITY_FILE,
    TABLE_FILE,
    content_hash,
    of_file,
    read_city_files,
    read_json,
    write_city_files,
)
from .clock import Zone, zone_of
from .errors import SHOWN, DataError
from .grid import Box, SquareGrid
from .poi import NEVER_SEEN, POI_COLUMNS, poi_features, popularity_levels
from .texts import check_texts

_DTYPES = {"lat": np.float64, "lon": np.float64, "poi": np.float32, "popularity": np.int64}
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class City:
    """Places, time zone, box and grid of a city.

    Fields:
        name: free text. timezone: IANA name.
        location_ids: (N,) str. lat, lon: (N,) float64 degrees, -180..180. poi: (N, P) float32 of half precision.
        poi_names: (P,). popularity: (N,) int64: 1 = most visited 1 % .. 8 = least visited fifth, 9 = never seen.
        grid: a `SquareGrid` or None.
        bounds: (south, west, north, east) in degrees, east above 180 across the antimeridian: the grid's; without a
            grid those given, else the smallest that hold the places, at least 0.01 degrees wide.

    A city has no places (then it needs bounds or a grid) or at least two. `len(city)` counts them.

    Raises:
        DataError: one place alone, repeated ids or ids of more than 1,000 characters, bad coordinates, arrays of
            different lengths, bounds that are not the grid's, or an unknown time zone.

    Example:
        >>> city = City.from_visits(visits, timezone="Europe/Berlin", name="Berlin")
        >>> tokenizer = SamoeTokenizer.from_city(city)
        >>> assert tokenizer.city == city
    """

    name: str
    timezone: str
    location_ids: np.ndarray = ()  # type: ignore[assignment]
    lat: np.ndarray = ()  # type: ignore[assignment]
    lon: np.ndarray = ()  # type: ignore[assignment]
    poi: np.ndarray | None = None  # type: ignore[assignment]
    poi_names: tuple[str, ...] = ()
    popularity: np.ndarray = ()  # type: ignore[assignment]
    grid: SquareGrid | None = None
    bounds: Bounds = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        given: dict[str, Any] = {"name": str(self.name), "poi_names": tuple(map(str, self.poi_names))}
        given["timezone"] = None if self.timezone is None else str(self.timezone)  # of a ZoneInfo, its name
        zone_of(given["timezone"])  # files hold names only
        given["location_ids"] = _texts(self.location_ids)
        n = len(given["location_ids"])
        for field, dtype in _DTYPES.items():  # own copies that nobody can write to: the content hash stays true
            values = getattr(self, field)
            given[field] = np.array(np.zeros((n, 0)) if values is None else values, dtype=dtype)
        with np.errstate(over="ignore"):
            given["poi"] = given["poi"].astype(np.float16).astype(np.float32)
        for field in ("location_ids", *_DTYPES):
            given[field].setflags(write=False)
        for field, value in given.items():
            object.__setattr__(self, field, value)
        self._check_places()
        object.__setattr__(self, "bounds", self._checked_bounds())

    def _check_places(self) -> None:
        n = len(self)
        if n == 1:
            raise DataError("a city needs at least two locations, got 1: with one there is nothing to predict.")
        for field in _DTYPES:
            if len(getattr(self, field)) != n:
                raise DataError(f"{field} has {len(getattr(self, field))} rows for {n} locations.")
        if self.poi.shape != (n, len(self.poi_names)):
            raise DataError(f"poi_names names {len(self.poi_names)} columns, poi has the shape {self.poi.shape}.")
        unusable = int((~np.isfinite(self.poi)).sum())
        if unusable:
            raise DataError(f"poi holds {unusable} values that are not finite at half precision; scale its columns.")
        check_texts(self.location_ids.tolist(), "location ids")
        check_texts([self.name, *self.poi_names], "names of the city and its POI columns")
        if len(self._rows) < n:
            twice = sorted(place for place, count in Counter(self.location_ids.tolist()).items() if count > 1)
            raise DataError(f"{len(twice)} location ids occur more than once, first {twice[:SHOWN]}.")
        bad = ~((np.abs(self.lat) <= 90) & (np.abs(self.lon) <= 180))  # NaN is bad too
        if bad.any():
            raise DataError(
                f"{int(bad.sum())} locations have no valid lat/lon, first {self.location_ids[bad][:SHOWN].tolist()}."
            )
        if n and (self.popularity.min() < 1 or self.popularity.max() > NEVER_SEEN):
            raise DataError(
                f"popularity holds levels, 1 (most visited) to {NEVER_SEEN} (never seen); got "
                f"{self.popularity.min()}..{self.popularity.max()}: popularity_levels makes them of counts."
            )

    def _checked_bounds(self) -> Bounds:
        if self.grid is not None:
            south, west, north, east = map(float, self.grid.bounds)
            if self.bounds is not None and tuple(map(float, self.bounds)) != (south, west, north, east):
                given, own = tuple(self.bounds), (south, west, north, east)
                raise DataError(f"the bounds {given} are not the grid's {own}; give one of the two.")
            return south, west, north, east
        if self.bounds is None and not len(self):
            raise DataError("a city without places needs bounds=(south, west, north, east) or a grid.")
        box = Box.around(self.lat, self.lon, margin=0.0) if self.bounds is None else Box.checked(self.bounds)
        return box.south, box.west, box.north, box.east

    def __len__(self) -> int:
        return len(self.location_ids)

    def __bool__(self) -> bool:
        return True  # also without places

    def __repr__(self) -> str:
        parts = [repr(self.name), self.timezone]
        if len(self):
            seen = int((self.popularity != NEVER_SEEN).sum())
            parts.append(f"{len(self)} locations, {seen} of them visited")
        if self.grid is not None:
            parts.append(f"grid of {self.grid.rows} x {self.grid.columns} cells")
        if len(parts) == 2:
            parts.append("bounds ({:.4g}, {:.4g}, {:.4g}, {:.4g})".format(*self.bounds))
        return f"City({', '.join(parts)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, City) and self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)

    def __deepcopy__(self, memo: Any) -> City:
        return self

    # Constructors

    @classmethod
    def from_visits(
        cls,
        visits: Any,
        *,
        timezone: Zone,
        name: str = "",
        pois: Any = None,
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
        from .tables import merge_places, read_places  # pandas is loaded for a new city only

        found = read_places(visits, **columns)
        tables = [found] if pois is None else [read_places(pois), found]
        city = cls._of_places(**merge_places(*tables), timezone=timezone, name=name)
        if isinstance(popularity_from, str) and popularity_from == "visits":
            return city._counting(found["location_id"].to_numpy(object))
        return city if popularity_from is None else city.with_popularity(popularity_from)

    @classmethod
    def from_pois(cls, pois: Any, *, timezone: Zone, name: str = "") -> City:
        """A city known by its map only: any table with `location_id`, `lat`, `lon`, optionally `category` and
        `category_group`. Nothing has been visited.

        Raises:
            DataError: as `from_visits`.
        """
        from .tables import merge_places, read_places

        return cls._of_places(**merge_places(read_places(pois)), timezone=timezone, name=name)

    @classmethod
    def from_grid(cls, grid: SquareGrid, *, timezone: Zone, name: str = "", visits: Any = None) -> City:
        """Every cell of a `SquareGrid` as a location (ids as `assign_cells` writes them), popularity from `visits`.

        Raises:
            DataError: visits without `location_id`, or none of them in a cell.
        """
        cells = np.arange(len(grid))
        lat, lon = grid.centre(cells)
        nothing = np.full(len(grid), None)
        city = cls._of_places(grid.cell_id(cells), lat, lon, nothing, nothing, timezone=timezone, name=name, grid=grid)
        return city if visits is None else city.with_popularity(visits)

    @classmethod
    def from_bounds(cls, bounds: Sequence[float], *, timezone: Zone, name: str = "") -> City:
        """A city of which only the box is known, (south, west, north, east) in degrees: all that RAW needs.

        Raises:
            DataError: for anything else than such a box.
        """
        return cls(name, timezone, bounds=tuple(Box.checked(bounds)))  # type: ignore[arg-type]

    @classmethod
    def _of_places(
        cls,
        location_ids: np.ndarray,
        lat: np.ndarray,
        lon: np.ndarray,
        category: np.ndarray,
        category_group: np.ndarray,
        **options: Any,
    ) -> City:
        """With the POI columns of these places; nobody has been seen anywhere."""
        return cls(
            location_ids=location_ids,
            lat=lat,
            lon=lon,
            poi=poi_features(lat, lon, category, category_group),
            poi_names=POI_COLUMNS,
            popularity=np.full(len(lat), NEVER_SEEN, np.int64),
            **options,
        )

    # Places

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {place: row for row, place in enumerate(self.location_ids.tolist())}

    def index_of(self, location_ids: Any) -> np.ndarray:
        """Row of each id, int64 (n,); -1 for a place the city does not list."""
        wanted = _texts(location_ids).tolist()
        return np.fromiter((self._rows.get(place, -1) for place in wanted), np.int64, len(wanted))

    def with_popularity(self, visits: Any) -> City:
        """A copy whose popularity levels count these (training) visits: any table with `location_id`. Visits at
        unlisted places do not count.

        Raises:
            DataError: no such column, or none of the visits is at a listed place.
        """
        from .tables import location_ids

        return self._counting(location_ids(visits).to_numpy(object))

    def _counting(self, ids: np.ndarray) -> City:
        rows = self.index_of(ids)
        if (rows < 0).all():
            raise DataError(
                f"column 'location_id': none of {len(ids)} visits is at one of the city's {len(self)} locations (first "
                f"{ids[:3].tolist()}, the city lists {self.location_ids[:3].tolist()}, ...)."
            )
        counts = np.bincount(rows[rows >= 0], minlength=len(self))
        return replace(self, popularity=popularity_levels(counts))

    def with_grid(self, grid: SquareGrid | None = None, *, cell_km: float = 1.0) -> City:
        """A copy with this grid; without one, cells of `cell_km` over the places, or over the bounds where there are no
        places."""
        if grid is None and len(self):
            grid = SquareGrid.around(self.lat, self.lon, cell_km=cell_km)
        return replace(self, grid=grid or SquareGrid.from_cell_km(self.bounds, cell_km=cell_km), bounds=None)

    # Files

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over everything the city holds."""
        return content_hash(*self.contents())

    def contents(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The fields of `city.json` and the arrays of `city.safetensors`."""
        shape = (None, None) if self.grid is None else (self.grid.rows, self.grid.columns)
        values = (self.name, self.timezone, list(self.bounds), *shape, self.location_ids.tolist(), list(self.poi_names))
        arrays = {
            "lat": self.lat,
            "lon": self.lon,
            "poi": self.poi.astype(np.float16),
            "popularity": self.popularity.astype(np.int8),
        }
        return dict(zip(CITY_FIELDS, values)), arrays

    @classmethod
    def from_contents(cls, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> City:
        """The city of what `contents` returned, or of what `read_city_files` did; further fields are left alone."""
        bounds, rows, columns = header["bounds"], header["rows"], header["columns"]
        return cls(
            name=header["name"],
            timezone=header["timezone"],
            location_ids=np.array(header["location_ids"], dtype=object),
            lat=arrays["lat"],
            lon=arrays["lon"],
            poi=arrays["poi"],
            poi_names=tuple(header["poi_names"]),
            popularity=arrays["popularity"],
            grid=None if rows is None else SquareGrid(*bounds, rows=rows, columns=columns),
            bounds=bounds,
        )

    def save(self, folder: str | Path) -> None:
        """Write `city.json` and `city.safetensors` into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        header, arrays = self.contents()
        write_city_files(folder / CITY_FILE, folder / TABLE_FILE, kind="city", header=header, arrays=arrays)

    @classmethod
    def load(cls, folder: str | Path) -> City:
        """The city of a folder: a saved city, or a checkpoint, tokenizer or adapter of any system.

        Raises:
            FileNotFoundError: no such folder.
            DataError: a folder without a city, files of an unknown format, or contents that do not match their hash.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}.")
        if (folder / CITY_FILE).is_file() and (folder / TABLE_FILE).is_file():
            with of_file(folder / CITY_FILE):
                return cls.from_contents(*read_city_files(folder / CITY_FILE, folder / TABLE_FILE))
        tokenizer = _json_in(folder / "tokenizer_config.json")
        if "box" in tokenizer:  # RAW's, before there was a city file
            with of_file(folder / "tokenizer_config.json"):
                return cls.from_bounds(bounds_of_box(tokenizer["box"]), timezone=tokenizer.get("timezone"))
        base = _json_in(folder / "adapter_config.json").get("base_model_name_or_path")
        if isinstance(base, str) and Path(base).is_dir() and Path(base).resolve() != folder.resolve():
            return cls.load(base)
        raise DataError(f"{folder} holds no city: it has no {CITY_FILE} and {TABLE_FILE}.")


def bounds_of_box(box: Sequence[float]) -> Bounds:
    """RAW's box of format 1, (west, east, south, north) -> bounds (south, west, north, east)."""
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        raise DataError(f"the box must be (west, east, south, north) in degrees, got {box!r}.")
    west, east, south, north = box
    return south, west, north, east


def _json_in(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _texts(ids: Any) -> np.ndarray:
    """Ids as Python texts, an object array of its own: fixed-width text would cost every id the longest one's width."""
    values = np.array(ids, dtype=object) if isinstance(ids, (list, tuple)) else np.asarray(ids)
    items = (values.astype(str) if values.dtype.kind == "S" else values).reshape(-1).tolist()
    texts = np.empty(len(items), dtype=object)
    texts[:] = list(map(_text, items))
    return texts


def _text(item: Any) -> str:
    """An id as text; whole floats (integers that once stood beside a gap) count as integers."""
    is_whole = isinstance(item, (float, np.floating)) and item.is_integer() and abs(float(item)) < 2**53
    return str(int(item) if is_whole else item)
