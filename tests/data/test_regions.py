"""Who was in which region: grids, H3 cells, discs and polygons against plain definitions, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.data import DataError, SquareGrid, haversine_km
from hf_mobility.data import regions as module
from hf_mobility.data.regions import Discs, H3Cells, Polygons, Visitors, visitors

GRID = SquareGrid(48.0, 11.0, 48.2, 11.4, 2, 4)


def points_of(rows: list[tuple[Any, float, float]]) -> pd.DataFrame:
    """(user, lat, lon), a minute apart."""
    user, lat, lon = zip(*rows)
    time = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(np.arange(len(rows)), unit="min")
    return pd.DataFrame({"user_id": list(user), "time": time, "lat": lat, "lon": lon})


def make_points(seed: int = 0, count: int = 400, users: int = 9) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    lat, lon = rng.uniform(47.95, 48.25, count), rng.uniform(10.95, 11.45, count)
    return points_of(list(zip(rng.integers(0, users, count).tolist(), lat.tolist(), lon.tolist())))


def as_set(found: Visitors) -> set[tuple[Any, Any, int]]:
    return set(found.to_frame().itertuples(index=False, name=None))


def square(south: float, west: float, size: float, **feature: Any) -> dict[str, Any]:
    north, east = south + size, west + size
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}, **feature}


def collection(*features: dict[str, Any]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


# Pairs


def test_pairs_and_counts_by_hand() -> None:
    points = points_of(
        [("b", 48.05, 11.05), ("a", 48.05, 11.05), ("b", 48.06, 11.06), ("b", 48.15, 11.35), ("c", 50, 9)]
    )
    found = visitors(points, GRID)
    assert found.users.tolist() == ["a", "b", "c"] and len(found.region_ids) == 8
    assert found.pairs.tolist() == [[0, 0], [0, 1], [7, 1]] and found.count.tolist() == [1, 2, 1]
    assert np.bincount(found.region, minlength=8).tolist() == [2, 0, 0, 0, 0, 0, 0, 1]
    assert as_set(found) == {("r0c0", "a", 1), ("r0c0", "b", 2), ("r1c3", "b", 1)}
    assert as_set(visitors(points, GRID, min_visits=2)) == {("r0c0", "b", 2)}
    assert len(visitors(points, GRID, min_visits=3).pairs) == 0


@given(seed=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_shuffled_rows_give_the_same_and_the_frame_is_not_changed(seed: int) -> None:
    points = make_points(seed)
    before = points.copy(deep=True)
    shuffled = points.sample(frac=1, random_state=seed)
    for regions in (GRID, Discs([48.1, 48.0], [11.2, 11.0], [6.0, 30.0])):
        one, two = visitors(points, regions), visitors(shuffled, regions)
        for name in ("region_ids", "users", "region", "user", "count"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    pd.testing.assert_frame_equal(points, before)


def test_people_add_up() -> None:
    points = make_points()
    first = points["user_id"] < 4
    parts = as_set(visitors(points[first], GRID)) | as_set(visitors(points[~first], GRID))
    assert as_set(visitors(points, GRID)) == parts


# Discs


@given(seed=st.integers(0, 1000), north=st.floats(-80, 80), east=st.floats(-180, 180))
@settings(max_examples=30, deadline=None)
def test_discs_hold_the_points_within_the_great_circle_radius(seed: int, north: float, east: float) -> None:
    rng = np.random.default_rng(seed)
    lat = north + rng.uniform(-1, 1, 60)
    lon = (east + rng.uniform(-1, 1, 60) + 180) % 360 - 180  # across the antimeridian too
    discs = Discs(lat[:12], lon[:12], rng.uniform(0.1, 1, 12) * 10.0 ** rng.integers(-1, 3, 12))
    points = points_of(list(zip((np.arange(60) % 7).tolist(), lat.tolist(), lon.tolist())))
    inside = haversine_km(lat[:, None], lon[:, None], discs.lat, discs.lon) <= discs.radius_km
    expected = np.stack([inside[np.arange(60) % 7 == user].sum(axis=0) for user in range(7)], axis=1)
    found = visitors(points, discs)
    table = np.zeros((12, 7), int)
    table[found.region, found.user] = found.count
    np.testing.assert_array_equal(table, expected)


def test_discs_have_names_and_one_radius_may_serve_all() -> None:
    points = points_of([(1, 48.0, 11.0), (2, 48.1, 11.0)])
    found = visitors(points, Discs([48.0, 48.1], [11.0, 11.0], 5, region_ids=["x", "y"]))
    assert as_set(found) == {("x", 1, 1), ("y", 2, 1)}


def test_blocks_of_points_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    points, discs = make_points(), Discs([48.1, 48.0], [11.2, 11.0], [6.0, 30.0])
    whole = visitors(points, discs)
    monkeypatch.setattr(module, "_BLOCK", 7)
    pieces = visitors(points, discs)
    np.testing.assert_array_equal(whole.pairs, pieces.pairs)
    np.testing.assert_array_equal(whole.count, pieces.count)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], 1.0), "There are no regions: the list is empty"),
        (([48.0], [11.0, 12.0], 1.0), r"lat, lon and radius_km of the discs have \[1, 2, 1\] values"),
        (([48.0, 95.0], [11.0, 11.0], 1.0), r"1 of 2 discs have no centre in degrees \(lat, lon\) \(first: \[1\]\)"),
        (([48.0, 48.0], [11.0, np.nan], 1.0), "1 of 2 discs have no centre"),
        (([48.0, 48.0], [11.0, 11.0], [0.0, -1.0]), "2 of 2 discs have no positive radius"),
    ],
)
def test_faulty_discs_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Discs(*arguments)


def test_names_must_differ_and_fit() -> None:
    with pytest.raises(DataError, match=r"2 of 3 names repeat \(first: \['x', 'x'\]\)"):
        Discs([48.0] * 3, [11.0] * 3, 1, region_ids=["x", "x", "x"])
    with pytest.raises(DataError, match=r"region_ids has shape \(1,\); 2 regions need one name each"):
        Discs([48.0] * 2, [11.0] * 2, 1, region_ids=["x"])
    assert Discs([48.0] * 2, [11.0] * 2, 1, region_ids=[1, "1"]).region_ids.tolist() == [1, "1"]


# H3


def test_h3_cells_that_occur_are_the_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = SimpleNamespace(latlng_to_cell=lambda lat, lon, resolution: f"{resolution}:{lat:.1f},{lon:.1f}")
    monkeypatch.setitem(sys.modules, "h3", stand_in)
    points = points_of([(1, 48.01, 11.0), (2, 48.02, 11.0), (2, 48.1, 11.0)])
    found = visitors(points, H3Cells(7))
    assert as_set(found) == {("7:48.0,11.0", 1, 1), ("7:48.0,11.0", 2, 1), ("7:48.1,11.0", 2, 1)}
    monkeypatch.setitem(sys.modules, "h3", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_mobility\[geo\]'"):
        visitors(points, H3Cells())


# Polygons


def test_polygons_hold_what_is_inside_a_hole_not_and_the_border_too() -> None:
    shapely = pytest.importorskip("shapely")
    ring = [(11.0, 48.0), (12.0, 48.0), (12.0, 49.0), (11.0, 49.0)]
    hole = [(11.4, 48.4), (11.6, 48.4), (11.6, 48.6), (11.4, 48.6)]
    areas = [
        shapely.Polygon(ring, [hole]),
        shapely.MultiPolygon([shapely.box(12, 48, 13, 49), shapely.box(0, 0, 1, 1)]),
    ]
    rows = [(1, 48.2, 11.2), (1, 48.5, 11.5), (2, 48.5, 12.0), (3, 0.5, 0.5), (4, 11.2, 48.2)]
    found = visitors(points_of(rows), areas)
    assert as_set(found) == {(0, 1, 1), (0, 2, 1), (1, 2, 1), (1, 3, 1)}


@given(seed=st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_polygons_equal_one_test_per_point(seed: int) -> None:
    shapely = pytest.importorskip("shapely")
    rng = np.random.default_rng(seed)
    angle, reach = np.linspace(0, 2 * np.pi, 8)[:-1], rng.uniform(0.02, 0.2, (5, 7))
    middle = rng.uniform([10.9, 47.9], [11.5, 48.3], (5, 2))
    corners = middle[:, None] + reach[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    areas = [shapely.Polygon(some) for some in corners]
    points = make_points(seed, count=150)
    found = visitors(points, areas)
    for region, area in enumerate(areas):
        inside = [area.contains(shapely.Point(lon, lat)) for lat, lon in zip(points["lat"], points["lon"])]
        expected = points["user_id"][inside].value_counts().to_dict()
        own = found.region == region
        assert dict(zip(found.users[found.user[own]].tolist(), found.count[own].tolist())) == expected


def test_a_grid_and_its_cells_as_polygons_agree() -> None:
    shapely = pytest.importorskip("shapely")
    row, col = np.divmod(np.arange(8), 4)
    areas = shapely.box(11 + col * 0.1, 48 + row * 0.1, 11.1 + col * 0.1, 48.1 + row * 0.1)
    points, before = make_points(), shapely.to_wkb(areas).tolist()
    by_cell = as_set(visitors(points, GRID))
    assert as_set(visitors(points, Polygons(areas, region_ids=GRID.cell_id(np.arange(8))))) == by_cell
    assert shapely.to_wkb(areas).tolist() == before and not shapely.is_prepared(areas).any()


def test_geojson_is_read_from_objects_and_files(tmp_path: Path) -> None:
    pytest.importorskip("shapely")
    points = points_of([(1, 48.05, 11.05), (2, 48.15, 11.15)])
    named = collection(square(48, 11, 0.1, id="west"), square(48.1, 11.1, 0.1, id="east"))
    path = tmp_path / "areas.geojson"
    path.write_text(json.dumps(named), encoding="utf-8")
    for source in (named, path, str(path)):
        assert as_set(visitors(points, source)) == {("west", 1, 1), ("east", 2, 1)}
    assert visitors(points, collection(square(48, 11, 0.2))).region_ids.tolist() == [0]
    assert as_set(visitors(points, square(48, 11, 0.1)["geometry"])) == {(0, 1, 1)}
    by_property = collection(
        square(48, 11, 0.1, properties={"name": "A"}), square(48.1, 11, 0.1, properties={"name": "B"})
    )
    assert Polygons.from_geojson(by_property, id_property="name").region_ids.tolist() == ["A", "B"]


def bow_tie() -> dict[str, Any]:
    ring = [[11, 48], [12, 49], [12, 48], [11, 49], [11, 48]]
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (collection(), "There are no regions: the list is empty"),
        (
            collection(square(48, 11, 1), bow_tie()),
            r"1 of 2 regions are invalid \(the first: Self-intersection.*first: \[1\]",
        ),
        (collection(square(48, 11, 1, id="a"), square(48, 11, 1, id="a")), r"1 of 2 names repeat \(first: \['a'\]\)"),
        (
            collection(square(48, 11, 1, id="a"), square(48, 11, 1)),
            r"1 of 2 GeoJSON features have no id \(first rows \[1\]\)",
        ),
        (collection({"geometry": {"type": "Point", "coordinates": [1, 2]}}), "1 of 1 regions are no readable Polygon"),
        (collection({"geometry": None}), "1 of 1 regions are no readable Polygon"),
        (collection({"geometry": {"type": "Polygon", "coordinates": []}}), "1 of 1 regions are empty"),
        (collection(square(5_000_000, 4_000_000, 1)), "1 of 1 regions are not in degrees"),
        ({"type": "Topology"}, "This is no GeoJSON with areas: its type is 'Topology'"),
        ([], "There are no regions: the list is empty"),
        (["x"], "1 of 1 regions are no readable Polygon"),
        (7, "Cannot read regions from int"),
    ],
)
def test_faulty_regions_are_refused(source: Any, message: str) -> None:
    pytest.importorskip("shapely")
    with pytest.raises(DataError, match=message):
        visitors(make_points(), source)


def test_files_that_are_no_geojson_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("shapely")
    (tmp_path / "a.geojson").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.geojson is no GeoJSON"):
        visitors(make_points(), tmp_path / "a.geojson")
    with pytest.raises(FileNotFoundError):
        visitors(make_points(), tmp_path / "b.geojson")
    with pytest.raises(DataError, match="2 of 2 GeoJSON features have no property 'name'"):
        Polygons.from_geojson(collection(square(48, 11, 1), square(49, 11, 1)), id_property="name")


def test_without_shapely_there_is_an_install_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shapely", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_mobility\[geo\]'"):
        visitors(make_points(), collection(square(48, 11, 1)))
    assert len(visitors(make_points(), GRID).pairs)


def test_requests_that_make_no_sense_are_refused() -> None:
    with pytest.raises(DataError, match="min_visits must be at least 1, not 0"):
        visitors(make_points(), GRID, min_visits=0)
    with pytest.raises(DataError, match="None of the 400 points lies in any of the 1 regions"):
        visitors(make_points(), Discs(0, 0, 5))
    with pytest.raises(DataError, match="lacks the column"):
        visitors(make_points().drop(columns="lat"), GRID)


# Overlaps


@pytest.mark.parametrize(("km", "overlapping"), [(9.9, ()), (10.1, (0, 1)), (40.0, (0, 1))])
def test_discs_overlap_where_their_radii_exceed_the_distance(km: float, overlapping: tuple[int, ...]) -> None:
    degrees = np.degrees(20.0 / 6371.0088)
    for where in ([[0.0, degrees], [5.0, 5.0]], [[0.0, 0.0], [179.95, 179.95 - 360 + degrees]]):
        discs = Discs(*where, [km, 20.0 - 10.0])
        assert discs.overlap() == overlapping
    assert Discs(0.0, 0.0, 5.0).overlap() == ()


def test_discs_of_many_sizes_overlap_as_each_pair_says() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        lat, lon, radius = rng.uniform(48, 49, 8), rng.uniform(11, 12, 8), rng.exponential(4.0, 8) + 0.01
        a, b = np.radians(lat), np.radians(lon)
        cos = np.sin(a)[:, None] * np.sin(a) + np.cos(a)[:, None] * np.cos(a) * np.cos(b[:, None] - b)
        near = np.arccos(cos.clip(-1, 1)) * 6371.0088 < radius[:, None] + radius
        np.fill_diagonal(near, False)
        found = Discs(lat, lon, radius).overlap()
        assert bool(found) == near.any() and (not found or near[found]), seed


def test_neighbouring_areas_do_not_overlap_and_nested_ones_do() -> None:
    box = pytest.importorskip("shapely").box
    assert Polygons([box(0, 0, 1, 1), box(1, 0, 2, 1), box(5, 5, 6, 6)]).overlap() == ()
    assert Polygons([box(0, 0, 1, 1), box(1 - 1e-9, 0, 2, 1)]).overlap() == ()  # a rounded border
    ids = ["a", "b", "c"]
    assert Polygons([box(0, 0, 1, 1), box(3, 3, 4, 4), box(3.9, 3.9, 5, 5)], region_ids=ids).overlap() == ("b", "c")
    assert Polygons([box(0, 0, 9, 9), box(1, 1, 2, 2)]).overlap() == (0, 1)
    assert visitors(make_points(), Polygons([box(-180, -90, 180, 90), box(-170, -80, 170, 80)])).overlap == (0, 1)
