"""Boxes and grids anywhere on the Earth, also across 180 degrees."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from hf_mobility import DataError, SquareGrid
from hf_mobility.data import from_km, haversine_km, to_km
from hf_mobility.tokenization.grid import Box, unwrapped, wrapped
from hf_mobility.tokenization.places_samoe import Places


def moved(lon: np.ndarray, turn: float) -> np.ndarray:
    """Longitudes of the same places after the Earth has been turned, -180..180."""
    return (lon + turn + 180) % 360 - 180


@pytest.mark.parametrize("seed", range(5))
def test_a_city_across_180_degrees_has_the_cells_and_distances_of_one_elsewhere(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lat, lon = rng.uniform(-18.3, -17.9, 400), rng.uniform(20.0, 20.6, 400)
    turn = rng.uniform(159.45, 159.95)  # 180 degrees lies somewhere inside
    there = moved(lon, turn)
    assert there.min() < -179 and there.max() > 179
    here, across = (SquareGrid.around(lat, x, cell_km=1.0) for x in (lon, there))
    assert (across.rows, across.columns) == (here.rows, here.columns)
    assert across.west < 180 < across.east and across.cell_km == pytest.approx(here.cell_km)
    np.testing.assert_array_equal(across.cell(lat, there), here.cell(lat, lon))
    centre = across.centre(np.arange(len(across)))
    assert np.abs(centre[1]).max() <= 180
    np.testing.assert_array_equal(across.cell(*centre), np.arange(len(across)))
    np.testing.assert_array_equal(across.parse_id(across.cell_id(across.cell(lat, there))), across.cell(lat, there))
    plane, turned = Places(lat, lon, ""), Places(lat, there, "")
    np.testing.assert_allclose(turned.km, plane.km, atol=1e-6)
    np.testing.assert_array_equal(turned.nearest(lat, there), np.arange(400))


def test_the_nearest_place_is_the_first_of_those_equally_near() -> None:
    """Places on a grid, some of them twice; points in the middle of four, of two, on places, and anywhere."""
    rng = np.random.default_rng(0)
    km = np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0)), axis=-1).reshape(-1, 2)
    km = np.concatenate([km, km[rng.permutation(144)[:60]]])[rng.permutation(204)]
    places = Places(km[:, 1], km[:, 0], "")
    points = np.concatenate([rng.integers(0, 23, (300, 2)) / 2, rng.uniform(-1, 12, (300, 2))])
    apart = ((places.km - places.to_km(points[:, 1], points[:, 0])[:, None]) ** 2).sum(-1)
    assert ((apart == apart.min(1, keepdims=True)).sum(1) > 2).any()
    np.testing.assert_array_equal(places.nearest(points[:, 1], points[:, 0]), apart.argmin(1))


def test_the_nearest_place_is_found_without_a_table_of_places_by_points() -> None:
    lat, lon = np.random.default_rng(0).uniform((48.0, 11.0), (48.3, 11.5), (20_000, 2)).T
    places = Places(lat, lon, "")
    tracemalloc.start()
    rows = places.nearest(lat[::20], lon[::20])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(rows, np.arange(0, 20_000, 20))
    assert peak < 8 * 20_000 * 20  # bytes of 20 numbers a place; 512 points by all places would be 500 times as many


@pytest.mark.parametrize("seed", range(5))
def test_box_units_and_back_across_180_degrees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lat, lon = rng.uniform(51.0, 53.0, 200), moved(rng.uniform(-2.0, 2.0, 200), 180)
    box = Box.around(lat, lon, margin=0.05)
    units = box.normalize(lat, lon)
    assert np.abs(units).max() < 1
    back = box.denormalize(units)
    np.testing.assert_allclose(back[0], lat, atol=1e-9)
    np.testing.assert_allclose(back[1], lon, atol=1e-9)
    km = np.hypot(*((units[:-1] - units[1:]) * box.metres_per_unit() / 1000).T)
    np.testing.assert_allclose(km, haversine_km(lat[:-1], lon[:-1], lat[1:], lon[1:]), rtol=0.03)
    assert box.contains(lat, lon).all() and not box.contains([52.0], [0.0]).any()


def test_ordinary_cities_keep_every_digit() -> None:
    """The published forms of a box and of its cells are those without any unwrapping."""
    lat, lon = np.random.default_rng(0).uniform((48.0, 11.0), (48.3, 11.5), (500, 2)).T
    assert unwrapped(lon) is not None and (unwrapped(lon) == lon).all() and (wrapped(lon) == lon).all()
    box = Box.around(lat, lon)
    assert box == (lat.min() - 1e-6, lon.min() - 1e-6, lat.max() + 1e-6, lon.max() + 1e-6)
    assert (box.unwrap(lon) == lon).all()
    low, high = np.array([box.west, box.south]), np.array([box.east, box.north])
    expected = (np.stack([lon, lat], axis=-1) - (low + high) / 2) / ((high - low) / 2)
    assert (box.normalize(lat, lon) == expected).all()
    grid = SquareGrid(*box, 7, 9)
    cell = ((lat - box.south) / (box.north - box.south) * 7).astype(int) * 9 + (
        (lon - box.west) / (box.east - box.west) * 9
    ).astype(int)
    np.testing.assert_array_equal(grid.cell(lat, lon), cell)


def test_the_plane_and_back_across_180_degrees() -> None:
    east, north = to_km([10.0, 10.1], [179.9, -179.9], origin=(10.0, 180.0))
    np.testing.assert_allclose(east, [-10.95, 10.95], atol=0.01)
    lat, lon = from_km(east, north, origin=(10.0, 180.0))
    np.testing.assert_allclose([lat, lon], [[10.0, 10.1], [179.9, -179.9]])


def test_points_all_around_the_earth_stay_as_they_are() -> None:
    lon = np.array([-170.0, -60.0, 0.0, 90.0, 170.0])
    assert unwrapped(lon).tolist() == lon.tolist()


def test_coverage_leaves_far_points_out() -> None:
    lat, lon = np.append(np.linspace(48.0, 48.1, 99), 60.0), np.append(np.linspace(11.0, 11.1, 99), 30.0)
    assert Box.around(lat, lon, coverage=0.95).north < 48.2 < 59 < Box.around(lat, lon).north


def test_coarse_cells_hold_their_fine_cells() -> None:
    grid = SquareGrid(48.0, 11.0, 48.4, 11.6, 5, 6)
    levels = grid.hierarchy((4, 2, 1))
    assert (levels.max(axis=0) + 1).tolist() == [2 * 2, 3 * 3, 30]
    for level, size in zip(levels.T, (4, 2, 1)):
        rows, columns = -(-5 // size), -(-6 // size)
        expected = [(row // size) * columns + column // size for row in range(5) for column in range(6)]
        assert level.tolist() == expected and level.max() < rows * columns


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box.checked((1, 2, 3)), "bounds must be"),
        (lambda: Box.checked((0, 179, 1, -179)), "across 180 degrees an east above 180"),
        (lambda: Box.around([], []), "no points"),
        (lambda: Box.around([1.0], [2.0], coverage=0), "coverage"),
        (lambda: Box.around([1.0, np.nan], [2.0, 3.0]), r"Column 'lat': 1 of 2 values are missing"),
        (lambda: SquareGrid.from_cell_km((0, 0, 1, 1), cell_km=0), "cell_km must be positive"),
        (lambda: SquareGrid(0, 0, 1, 1, 4, 4).hierarchy((3, 2, 1)), "each a multiple of the next"),
        (lambda: SquareGrid(0, 0, 1, 1, 1000, 1000).hierarchy((2, 1)), "1000000 cells, more than 200000"),
    ],
)
def test_impossible_boxes_and_grids_are_refused(make, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()
