"""A city is an immutable value; popularity, POI columns and constructors against hand-made figures."""

from __future__ import annotations

import dataclasses
import json
import math
import zlib
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file, save_file
from scipy.spatial import cKDTree

from hf_mobility import City, DataError, SamoeTokenizer, SquareGrid, make_task, simulate_city, validate_visits
from hf_mobility.data import haversine_km
from hf_mobility.data.grid import assign_cells
from hf_mobility.tokenization import poi
from hf_mobility.tokenization.poi import (
    NEVER_SEEN,
    NUM_HASH_BINS,
    POI_COLUMNS,
    POI_GROUPS,
    poi_features,
    popularity_levels,
)


def make_city(**changes: Any) -> City:
    values = {
        "name": "Town",
        "timezone": "Europe/Berlin",
        "location_ids": np.array(["b", "a", "c"]),
        "lat": np.array([48.0, 48.01, 48.02]),
        "lon": np.array([11.0, 11.0, 11.1]),
        "poi": np.arange(6).reshape(3, 2) / 8,
        "poi_names": ("x", "y"),
        "popularity": np.array([1, 8, 9]),
    }
    return City(**{**values, **changes})


def make_visits(places: list[str], **columns: list) -> pd.DataFrame:
    """One visit per entry, an hour apart; place k of the alphabet lies k hundredths of a degree north."""
    north = [0.01 * (ord(place[0]) - ord("a")) for place in places]
    return pd.DataFrame(
        {
            "user_id": 1,
            "time": pd.date_range("2024-01-01", periods=len(places), freq="h", tz="UTC"),
            "location_id": places,
            "lat": 48 + np.array(north),
            "lon": 11.0,
            **columns,
        }
    )


# An immutable value


def test_a_city_cannot_be_changed() -> None:
    city = make_city()
    with pytest.raises(dataclasses.FrozenInstanceError):
        city.name = "Village"
    for field in ("location_ids", "lat", "lon", "poi", "popularity"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(city, field)[0] = 0


def test_a_city_does_not_follow_the_callers_arrays() -> None:
    lat = np.array([48.0, 48.01, 48.02])
    city = make_city(lat=lat)
    lat[0] = 0
    assert city.lat[0] == 48.0 and lat.flags.writeable


def test_types_are_those_of_the_contract() -> None:
    city = make_city(
        lat=[48, 48, 49], popularity=np.array([1, 2, 3], np.int8), location_ids=np.array([1, 2, 3], object)
    )
    assert city.location_ids.dtype == object and city.location_ids.tolist() == ["1", "2", "3"]
    assert (city.lat.dtype, city.lon.dtype, city.poi.dtype, city.popularity.dtype) == ("f8", "f8", "f4", "i8")


def test_equal_cities_have_equal_hashes_and_any_difference_shows() -> None:
    city, same = make_city(), make_city()
    assert (
        city == same and hash(city) == hash(same) and city.content_hash == same.content_hash and len({city, same}) == 1
    )
    changes = {
        "name": "Village",
        "timezone": "UTC",
        "location_ids": np.array(["b", "a", "d"]),
        "lat": np.array([48.0, 48.01, 48.021]),
        "lon": np.array([11.0, 11.0, 11.2]),
        "poi": np.zeros((3, 2)),
        "poi_names": ("x", "z"),
        "popularity": np.array([1, 8, 8]),
    }
    different = [make_city(**{field: value}) for field, value in changes.items()]
    assert len({city, *different}) == 1 + len(changes) and city != "Town"


def test_a_row_is_found_by_its_id() -> None:
    city = make_city()
    assert city.index_of(["a", "b", "c", "z", ""]).tolist() == [1, 0, 2, -1, -1]
    assert city.index_of(np.array([], dtype=str)).shape == (0,) and city.index_of(["a"]).dtype == np.int64
    numbered = make_city(location_ids=np.array([10, 9, 100]))
    assert numbered.index_of([9, 10, 1]).tolist() == [1, 0, -1]
    for gap in (np.array([9.0, 10.0, np.nan, 9.5]), [9.0, np.float32(10), None, 2.0**60]):  # of tables with gaps
        assert numbered.index_of(gap).tolist() == [1, 0, -1, -1]
    assert make_city(location_ids=[10.0, 9.0, 2.5]).location_ids.tolist() == ["10", "9", "2.5"]


def test_a_zone_without_an_iana_name_is_refused() -> None:
    with pytest.raises(DataError, match=r"Unknown time zone 'UTC\+02:00'; give an IANA name"):
        make_city(timezone=timezone(timedelta(hours=2)))  # its files could not be read back
    assert make_city(timezone=ZoneInfo("Asia/Tokyo")).timezone == "Asia/Tokyo"
    assert make_city(timezone=timezone.utc).timezone == "UTC"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"location_ids": np.array(["a", "a", "b"])}, r"1 location ids occur more than once, first \['a'\]"),
        ({"lat": np.array([48.0, np.nan, 95.0])}, r"2 locations have no valid lat/lon, first \['a', 'c'\]"),
        ({"lon": np.array([0.0, 181.0, np.inf])}, r"2 locations have no valid lat/lon"),
        ({"poi": np.zeros((2, 2))}, "poi has 2 rows for 3 locations"),
        ({"popularity": np.zeros(4)}, "popularity has 4 rows for 3 locations"),
        ({"popularity": np.array([1, 2, 300])}, r"popularity holds levels, 1 .* to 9 .*; got 1\.\.300"),
        ({"popularity": np.array([1, 2, 10])}, r"popularity holds levels, 1 .* to 9 .*; got 1\.\.10"),
        ({"popularity": np.array([0, 2, 9])}, r"popularity holds levels, 1 .* to 9 .*; got 0\.\.9"),
        ({"poi_names": ("x",)}, "poi_names names 1 columns, poi has the shape"),
        ({"poi": np.full((3, 2), 1e6)}, "poi holds 6 values that are not finite at half precision"),
    ],
)
def test_a_bad_city_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        make_city(**changes)


def test_a_city_of_one_place_is_refused() -> None:
    with pytest.raises(DataError, match="a city needs at least two locations, got 1"):
        City.from_visits(make_visits(["a", "a"]), timezone="UTC")


# Box and grid


def test_the_bounds_are_the_grids_or_those_given_or_the_places() -> None:
    assert make_city().bounds == pytest.approx((48.0, 11.0, 48.02, 11.1))
    grid = SquareGrid(47.0, 10.0, 49.0, 12.0, rows=4, columns=3)
    assert make_city(grid=grid).bounds == (47.0, 10.0, 49.0, 12.0) == make_city(bounds=(47, 10, 49, 12)).bounds
    assert (
        make_city(grid=grid) == make_city().with_grid(grid) != make_city() and make_city().with_grid(grid).grid == grid
    )
    narrow = make_city(lat=[48.0, 48.001, 48.002]).bounds
    assert narrow == pytest.approx((47.996, 11.0, 48.006, 11.1))  # at least a hundredth of a degree wide
    with pytest.raises(DataError, match=r"the bounds \(0, 0, 1, 1\) are not the grid's \(47.0, 10.0, 49.0, 12.0\)"):
        make_city(grid=grid, bounds=(0, 0, 1, 1))
    with pytest.raises(DataError, match="is empty or off the globe"):
        make_city(bounds=(48.1, 11.0, 48.0, 11.2))


def test_a_city_may_have_no_places() -> None:
    city = City.from_bounds((48.0, 11.0, 48.2, 11.4), timezone="Europe/Berlin", name="Box")
    assert len(city) == 0 and city and city.poi.shape == (0, 0) and city.index_of(["a"]).tolist() == [-1]
    assert repr(city) == "City('Box', Europe/Berlin, bounds (48, 11, 48.2, 11.4))"
    with pytest.raises(DataError, match="a city without places needs bounds"):
        City("Nowhere", "UTC")
    with pytest.raises(DataError, match="none of 1 visits is at one of the city's 0 locations"):
        city.with_popularity(pd.DataFrame({"location_id": ["a"]}))
    cells = city.with_grid(cell_km=2.0)
    assert cells.grid == SquareGrid.from_cell_km(city.bounds, cell_km=2.0) and len(cells) == 0
    assert repr(cells) == "City('Box', Europe/Berlin, grid of 12 x 15 cells)"


def test_a_city_across_180_degrees_is_whole() -> None:
    """Fiji's Taveuni: the same places, moved 170 degrees west, have the same features and the same width."""
    rng = np.random.default_rng(0)
    pois = pd.DataFrame(
        {"location_id": range(60), "lat": rng.normal(-16.8, 0.05, 60), "lon": rng.normal(180, 0.05, 60)}
    )
    pois = pois.assign(category_group=rng.choice([*POI_GROUPS, None], 60))
    fiji = City.from_pois(pois.assign(lon=(pois["lon"] + 180) % 360 - 180), timezone="Pacific/Fiji")
    assert fiji.lon.min() < -179 and fiji.lon.max() > 179
    moved = City.from_pois(pois.assign(lon=pois["lon"] - 170), timezone="Pacific/Fiji")
    np.testing.assert_allclose(fiji.poi, moved.poi, atol=1e-3)
    _, west, _, east = fiji.bounds
    assert -180 <= west < 180 < east and east - west == pytest.approx(moved.bounds[3] - moved.bounds[1])
    assert fiji.with_grid(cell_km=1.0).grid.columns == moved.with_grid(cell_km=1.0).grid.columns
    assert (fiji.with_grid().grid.cell(fiji.lat, fiji.lon) >= 0).all()
    km, other = (SamoeTokenizer.from_city(city).places.km for city in (fiji, moved))
    np.testing.assert_allclose(km, other, atol=1e-6)


def test_a_place_seen_on_both_sides_of_180_degrees_lies_between() -> None:
    visits = make_visits(["a", "a", "b"]).assign(lon=[179.9998, -179.9999, 179.5])
    assert City.from_visits(visits, timezone="UTC").lon == pytest.approx([179.99995, 179.5])


# Files


def test_a_saved_city_is_loaded_as_it_was(tmp_path: Path) -> None:
    city = make_city(name="Zürich")
    city.save(tmp_path / "new" / "folder")
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == {"city.json", "city.safetensors"}
    assert City.load(tmp_path / "new" / "folder") == city


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    make_city().save(tmp_path)
    arrays = load_file(tmp_path / "city.safetensors")
    save_file({**arrays, "popularity": arrays["popularity"] + 1}, tmp_path / "city.safetensors")
    with pytest.raises(DataError, match="do not match their content_hash"):
        City.load(tmp_path)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    make_city().save(tmp_path)
    header = json.loads((tmp_path / "city.json").read_text())
    (tmp_path / "city.json").write_text(json.dumps({**header, "format_version": 7}))
    with pytest.raises(DataError, match="format version 7; this release reads 1 and 2"):
        City.load(tmp_path)


def test_a_tokenizer_gives_its_city_back(tmp_path: Path) -> None:
    city = make_city()  # eighths are exact at half precision
    assert SamoeTokenizer.from_city(city).city == city
    SamoeTokenizer.from_city(city).save_pretrained(tmp_path)
    assert City.load(tmp_path) == city
    city.save(tmp_path / "plain")
    files = (str(tmp_path / "plain" / name) for name in ("city.json", "city.safetensors"))
    assert SamoeTokenizer(*files).city == city


# Constructors


def test_places_of_visits_have_mean_coordinates_and_their_first_known_category() -> None:
    visits = make_visits(
        ["b", "a", "b", "b"], category=[None, "Bar", "Park", "Zoo"], category_group=[None, None, "Food", "Food"]
    )
    visits.loc[0, "lat"] = 48.04
    city = City.from_visits(visits, timezone="Europe/Berlin", name="Town")
    assert (city.name, city.timezone, city.poi_names) == ("Town", "Europe/Berlin", POI_COLUMNS)
    assert city.location_ids.tolist() == ["a", "b"]
    assert city.lat == pytest.approx([48.0, 48.02]) and city.lon == pytest.approx([11, 11])
    assert city.poi[:, POI_COLUMNS.index("is Food")].tolist() == [0, 1]
    assert (
        city.poi[1, 11 + zlib.crc32(b"park") % NUM_HASH_BINS] == 1 and city.poi[1, 11 : 11 + NUM_HASH_BINS].sum() == 1
    )
    assert city.popularity.tolist() == popularity_levels(np.array([1, 3])).tolist()


def test_an_id_that_names_places_far_apart_is_refused() -> None:
    """As in tables of several cities that number their places from 0."""
    visits = make_visits(["a", "b", "c", "a", "b"])
    visits.loc[3, "lat"], visits.loc[4, "lat"] = 60.0, visits["lat"][1] + 0.5  # 1,334 km and 56 km
    sentence = r"^Column 'location_id': 1 of 3 ids have coordinates more than 100 km apart \(first a: 1,334 km\); "
    with pytest.raises(DataError, match=sentence):
        City.from_visits(visits, timezone="Europe/Berlin")
    pois = visits.drop_duplicates("location_id").assign(lon=13.0)
    with pytest.raises(DataError, match="'location_id': 3 of 3 ids have coordinates more than 100 km apart"):
        City.from_visits(visits, pois=pois, timezone="Europe/Berlin")


def test_popularity_may_come_from_other_visits_or_none() -> None:
    visits = make_visits(["a", "b", "b", "c"])
    training = make_visits(["c", "c", "a", "z"])  # z is not listed and does not count
    city = City.from_visits(visits, timezone="UTC", popularity_from=training)
    assert city.popularity.tolist() == popularity_levels(np.array([1, 0, 2])).tolist()
    assert City.from_visits(visits, timezone="UTC", popularity_from=None).popularity.tolist() == [NEVER_SEEN] * 3
    assert city.with_popularity(visits) == City.from_visits(visits, timezone="UTC")


def test_a_map_adds_places_that_nobody_has_visited() -> None:
    pois = pd.DataFrame(
        {
            "location_id": ["b", "d"],
            "lat": [48.01, 48.03],
            "lon": [11.0, 11.0],
            "category_group": ["Residence", "Event"],
        }
    )
    city = City.from_visits(make_visits(["a", "b"]), timezone="UTC", pois=pois)
    assert city.location_ids.tolist() == ["a", "b", "d"]
    assert city.popularity.tolist() == [*popularity_levels(np.array([1, 1, 0]))]
    assert city.poi[1:, POI_COLUMNS.index("is Residence")].tolist() == [1, 0]
    known = City.from_pois(pois, timezone="UTC")
    assert known.location_ids.tolist() == ["b", "d"] and set(known.popularity) == {NEVER_SEEN}


def test_missing_columns_are_named() -> None:
    visits = make_visits(["a", "b"])
    with pytest.raises(
        DataError, match=r"The frame lacks the column\(s\) location_id; it has .* location_id='my_column'"
    ):
        City.from_visits(visits.drop(columns="location_id"), timezone="UTC")
    with pytest.raises(DataError, match=r"The frame lacks the column\(s\) lat, lon"):
        City.from_visits(visits[["location_id"]], timezone="UTC")
    with pytest.raises(DataError, match=r"The frame lacks the column\(s\) lat"):
        City.from_pois(pd.DataFrame({"location_id": ["a"], "lon": [1.0]}), timezone="UTC")
    with pytest.raises(DataError, match=r"The frame lacks the column\(s\) location_id"):
        City.from_grid(
            SquareGrid.around([48.0, 48.1], [11.0, 11.0], cell_km=0.5),
            timezone="UTC",
            visits=visits[["lat", "lon"]],
        )
    renamed = visits.rename(columns={"location_id": "venue", "lat": "y"})
    assert City.from_visits(renamed, timezone="UTC", location_id="venue", lat="y") == City.from_visits(
        visits, timezone="UTC"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lat": [48.0, np.nan]}, r"Column 'lat': 1 of 2 values are missing, NaN or infinite \(first rows 1: nan\)"),
        ({"lon": [11.0, 400.0]}, "Column 'lon': 1 of 2 values are outside -180..180"),
        ({"lat": ["48.0", "north"]}, r"Column 'lat': 1 of 2 values are not numbers \(first rows 1: north\)"),
        ({"location_id": ["a", None]}, "Column 'location_id': 1 of 2 values are missing"),
        ({"location_id": [1.0, 2.5]}, "Column 'location_id': 1 of 2 values are not whole numbers"),
        ({"category": [1.5, "Bar"]}, "Column 'category': 1 of 2 values are neither text nor integers"),
    ],
)
def test_values_that_cannot_be_used_are_named(changes: dict[str, list], message: str) -> None:
    visits = make_visits(["a", "b"]).assign(**changes)
    with pytest.raises(DataError, match=message):
        City.from_visits(visits, timezone="UTC")
    with pytest.raises(DataError, match=message):
        City.from_pois(visits, timezone="UTC")


@pytest.mark.parametrize("ids", [[6, 7], [6.0, 7.0], ["6", "7"], pd.array([6, 7], dtype="Int64")])
def test_ids_are_spelled_as_in_visits(ids: Any) -> None:
    visits = make_visits(["a", "b"]).assign(location_id=ids, lat=["48.0", "48.1"])
    city = City.from_visits(visits, timezone="UTC")
    assert city.location_ids.tolist() == ["6", "7"] == validate_visits(visits)["location_id"].tolist()
    assert city.popularity.max() < NEVER_SEEN and city.lat.tolist() == [48.0, 48.1]


def test_popularity_of_no_listed_place_is_a_mistake() -> None:
    with pytest.raises(DataError, match=r"none of 2 visits is at one of the city's 3 locations \(first \['x', 'y'\]"):
        make_city().with_popularity(pd.DataFrame({"location_id": ["x", "y"]}))
    one = make_city().with_popularity(pd.DataFrame({"location_id": ["x", "c"]}))
    assert one.popularity.tolist() == [NEVER_SEEN, NEVER_SEEN, 1]


@pytest.mark.parametrize("zone", ["Paris", "", "CEST+9", None])
def test_a_time_zone_is_an_iana_name(zone: Any) -> None:
    with pytest.raises(DataError, match=r"Unknown time zone .* give an IANA name such as 'Europe/Berlin'"):
        make_city(timezone=zone)


def test_a_city_is_shown_in_one_line() -> None:
    assert repr(make_city()) == "City('Town', Europe/Berlin, 3 locations, 2 of them visited)"


def test_a_frame_is_no_city() -> None:
    visits = make_visits(["a", "b"])
    for call in (lambda: make_task(visits, visits), lambda: SamoeTokenizer.from_city(visits)):
        with pytest.raises(TypeError, match=r"city must be a City, got DataFrame: City\.from_visits"):
            call()


def test_the_callers_frame_is_not_changed() -> None:
    visits = make_visits(["b", "a"]).assign(location_id=[7, 3])
    before = visits.copy(deep=True)
    assert City.from_visits(visits, timezone="UTC").location_ids.tolist() == ["3", "7"]
    pd.testing.assert_frame_equal(visits, before)


def test_a_grid_is_a_city_of_its_cells() -> None:
    grid = SquareGrid(48.0, 11.0, 48.2, 11.3, rows=2, columns=3)
    points = make_visits(["a", "b", "b"]).assign(lat=[48.05, 48.15, 48.16], lon=[11.05, 11.25, 11.29])
    visits = assign_cells(points, grid)
    city = City.from_grid(grid, timezone="UTC", name="cells", visits=visits)
    assert len(city) == 6 and city.location_ids.tolist() == [f"r{r}c{c}" for r in range(2) for c in range(3)]
    assert city.lat == pytest.approx([48.05] * 3 + [48.15] * 3) and city.lon == pytest.approx([11.05, 11.15, 11.25] * 2)
    assert (grid.cell(city.lat, city.lon) == np.arange(6)).all()
    assert city.popularity.tolist() == popularity_levels(np.array([1, 0, 0, 0, 0, 2])).tolist()
    assert set(City.from_grid(grid, timezone="UTC").popularity) == {NEVER_SEEN}
    assert (city.index_of(visits["location_id"]) == [0, 5, 5]).all()


# Popularity


def test_levels_of_a_hand_made_ranking() -> None:
    """One hundred places visited 100, 99, ..., 1 times: the shares of the paper's Table 6 are counts."""
    levels = popularity_levels(np.arange(100, 0, -1))
    wanted = [1] * 1 + [2] * 4 + [3] * 5 + [4] * 10 + [5] * 20 + [6] * 20 + [7] * 20 + [8] * 20
    assert levels.tolist() == wanted and levels.dtype == np.int64
    assert popularity_levels(np.array([5, 0, 7, 5])).tolist() == [5, 9, 1, 6]  # ranks 1, -, 0, 2 of four; ties in order


@given(arrays(np.int64, st.integers(2, 300), elements=st.integers(0, 20)))
def test_levels_equal_a_naive_computation(counts: np.ndarray) -> None:
    order = sorted(range(len(counts)), key=lambda k: (-counts[k], k))
    levels = popularity_levels(counts)
    for rank, place in enumerate(order):
        bounds = [1, 5, 10, 20, 40, 60, 80]  # per cent, in whole numbers
        wanted = 1 + sum(100 * rank >= bound * len(counts) for bound in bounds)
        assert levels[place] == (wanted if counts[place] else NEVER_SEEN)


# POI columns


def test_the_columns_of_three_places() -> None:
    """Two restaurants 223 m apart and an unnamed place 3.3 km north of them."""
    lat, lon = np.array([48.0, 48.002, 48.03]), np.array([11.0, 11.0, 11.0])
    category = np.array(["Pizza Place", " PIZZA place ", None], dtype=object)
    group = np.array(["Food", "Food", "No such group"], dtype=object)
    features = poi_features(lat, lon, category, group)
    assert features.shape == (3, 60) == (3, len(POI_COLUMNS)) and features.dtype == np.float32
    rows = [dict(zip(POI_COLUMNS, row.tolist())) for row in features]

    near, far = haversine_km(48.0, 11.0, 48.002, 11.0), haversine_km(48.002, 11.0, 48.03, 11.0)
    assert near < 0.3 and 1 < far < 5
    pizza = f"category hash {zlib.crc32(b'pizza place') % NUM_HASH_BINS}"
    common = {
        "is Food": 1,
        pizza: 1,
        "log density 0.3 km": math.log(1 + 2) / 4,
        "log density 1.0 km": math.log(1 + 2) / 4,
        "log density 5.0 km": math.log(1 + 3) / 4,
        "density rank 0.3 km": 0.75,  # ranks 2.5 and 2.5 of three, from 0 to 1
        "density rank 1.0 km": 0.75,
        "density rank 5.0 km": 0.5,  # all equal
        "share of Food within 0.5 km": 1,
    }
    lonely = {
        "is unknown group": 1,
        "log density 0.3 km": math.log(1 + 1) / 4,
        "log density 1.0 km": math.log(1 + 1) / 4,
        "log density 5.0 km": math.log(1 + 3) / 4,
        "density rank 0.3 km": 0,
        "density rank 1.0 km": 0,
        "density rank 5.0 km": 0.5,
        "share of unknown group within 0.5 km": 1,
    }
    for row, wanted in zip(rows, (common, common, lonely)):
        assert row == pytest.approx({**dict.fromkeys(POI_COLUMNS, 0), **wanted}, abs=1e-6)


def test_shares_count_neighbours_and_the_place_itself() -> None:
    lat, lon = np.array([48.0, 48.002, 48.004, 48.05]), np.full(4, 11.0)
    groups = np.array(["Food", "Food", "Residence", "Event"], dtype=object)
    shares = poi_features(lat, lon, np.full(4, None), groups)[:, -11:]
    names = [*POI_GROUPS, "unknown group"]
    food, home, event = (shares[:, names.index(name)] for name in ("Food", "Residence", "Event"))
    assert food == pytest.approx([2 / 3, 2 / 3, 2 / 3, 0]) and home == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert event.tolist() == [0, 0, 0, 1] and shares.sum(1) == pytest.approx(np.ones(4))


def test_neighbours_are_counted_as_if_every_pair_were_listed() -> None:
    """Bit for bit, also where places coincide or lie exactly on a grid of half kilometres."""
    rng = np.random.default_rng(0)
    lat, lon = 48 + rng.normal(0, 0.02, 2_000), 11 + rng.normal(0, 0.03, 2_000)
    lat[:500], lon[:500] = lat[500:1_000], lon[500:1_000]
    lat[1_500:] = 48 + np.arange(500) % 20 * 0.5 / 111.195
    group = rng.choice([*POI_GROUPS[:4], None], 2_000)
    groups = np.array([POI_GROUPS.index(name) if name else len(POI_GROUPS) for name in group])
    one_hot = np.eye(len(POI_GROUPS) + 1, dtype=np.float32)[groups]
    tree = cKDTree(np.stack([lon * np.cos(np.radians(lat.mean())), lat], axis=1) * 111.195)
    around = one_hot.copy()
    pairs = tree.query_pairs(0.5, output_type="ndarray")
    for here, there in (pairs.T, pairs.T[::-1]):
        np.add.at(around, here, one_hot[there])
    found = poi_features(lat, lon, np.full(2_000, None), group)[:, -11:]
    assert len(pairs) > 10_000 and np.array_equal(found, around / around.sum(1, keepdims=True))


def test_places_at_one_point_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree cannot split equal places: n questions about n of them would take n x n steps."""
    asked: list[int] = []

    class Tree(cKDTree):
        def query_ball_point(self, points: np.ndarray, *args: Any, **options: Any) -> Any:
            asked.append(len(points))
            return super().query_ball_point(points, *args, **options)

    _, rankdata = poi.from_scipy()
    monkeypatch.setattr(poi, "from_scipy", lambda: (Tree, rankdata))
    nothing = np.full(40_000, None)
    features = poi_features(np.full(40_000, 48.0), np.full(40_000, 11.0), nothing, nothing)
    assert asked == [1] * 4 and len(np.unique(features, axis=0)) == 1
    assert features[0, 43] == np.float32(np.log1p(40_000) / 4)  # places within 0.3 km


def test_columns_do_not_depend_on_the_order_of_places() -> None:
    rng = np.random.default_rng(0)
    lat, lon = 48 + rng.random(40) / 20, 11 + rng.random(40) / 20
    category = rng.choice(["Bar", "Park", None], 40)
    group = rng.choice([*POI_GROUPS, None], 40)
    order = rng.permutation(40)
    np.testing.assert_allclose(
        poi_features(lat[order], lon[order], category[order], group[order]),
        poi_features(lat, lon, category, group)[order],
        atol=1e-6,
    )


def test_a_dataset_an_arrow_table_and_a_file_are_as_good_as_a_frame(tmp_path: Path) -> None:
    made = simulate_city(20, num_days=14, num_locations=60, seed=0)
    plain = made.visits.drop(columns=["category"]).sample(frac=1, random_state=0)  # in any order
    plain.to_parquet(tmp_path / "visits.parquet")
    wanted = City.from_visits(made.visits.drop(columns=["category"]), timezone=made.timezone)
    task = make_task(made.visits, wanted)
    for source in (
        datasets.Dataset.from_pandas(plain, preserve_index=False),
        datasets.load_dataset("parquet", data_files=str(tmp_path / "visits.parquet"), cache_dir=str(tmp_path))["train"],
        pa.Table.from_pandas(plain, preserve_index=False),
        tmp_path / "visits.parquet",
    ):
        city = City.from_visits(source, timezone=made.timezone)
        assert city == wanted
        assert np.array_equal(make_task(source, city).rows, task.rows)
