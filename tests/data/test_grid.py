"""Distances, planes and grids against independent arithmetic."""

from __future__ import annotations

import math
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_mobility.data import DataError, SquareGrid, from_km, haversine_km, to_km
from hf_mobility.data.grid import assign_cells, h3_cells

LAT = st.floats(-90, 90)
LON = st.floats(-180, 180)
GRID = SquareGrid(south=48.0, west=11.0, north=48.4, east=11.6, rows=4, columns=6)


@given(LAT, LON, LAT, LON)
def test_haversine_equals_the_angle_between_unit_vectors(lat1: float, lon1: float, lat2: float, lon2: float) -> None:
    def vector(lat: float, lon: float) -> np.ndarray:
        a, b = math.radians(lat), math.radians(lon)
        return np.array([math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a)])

    u, v = vector(lat1, lon1), vector(lat2, lon2)
    angle = math.atan2(np.linalg.norm(np.cross(u, v)), float(u @ v))
    assert haversine_km(lat1, lon1, lat2, lon2) == pytest.approx(angle * 6371.0088, abs=1e-3)


def test_haversine_broadcasts() -> None:
    lat, lon = np.array([48.0, 49.0]), np.array([11.0, 12.0])
    table = haversine_km(lat[:, None], lon[:, None], lat, lon)
    assert table.shape == (2, 2) and table[0, 0] == 0 and table[0, 1] == table[1, 0] > 100


@given(st.floats(-60, 60), st.floats(-179.9, 179.9), st.floats(-30, 30), st.floats(-30, 30))
def test_the_plane_is_inverted_exactly_and_keeps_distances(lat: float, lon: float, east: float, north: float) -> None:
    y, x = from_km(east, north, origin=(lat, lon))
    back = to_km(y, x, origin=(lat, lon))
    assert back[0] == pytest.approx(east, abs=1e-6) and back[1] == pytest.approx(north, abs=1e-6)
    assert haversine_km(lat, lon, y, x) == pytest.approx(math.hypot(east, north), rel=5e-3, abs=1e-6)


def test_cells_are_numbered_row_by_row_from_the_south_west() -> None:
    assert GRID.cell([48.01, 48.01, 48.11, 48.39], [11.01, 11.11, 11.01, 11.59]).tolist() == [0, 1, 6, 23]


def test_edges_belong_to_the_grid_and_everything_else_is_minus_one() -> None:
    assert GRID.cell([48.0, 48.4, 47.999, 48.2, np.nan], [11.0, 11.6, 11.1, 11.601, 11.1]).tolist() == [
        0,
        23,
        -1,
        -1,
        -1,
    ]


@given(st.integers(0, 23))
def test_the_centre_of_a_cell_lies_in_it(cell: int) -> None:
    assert GRID.cell(*GRID.centre(cell)) == cell


def test_cells_agree_with_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(47.9, 48.5, 500), rng.uniform(10.9, 11.7, 500)
    expected = []
    for y, x in zip(lat, lon, strict=True):
        row, col = math.floor((y - 48.0) / 0.4 * 4), math.floor((x - 11.0) / 0.6 * 6)
        expected.append(row * 6 + col if 0 <= row < 4 and 0 <= col < 6 else -1)
    assert GRID.cell(lat, lon).tolist() == expected


def test_cells_of_a_size_are_square_over_the_whole_box() -> None:
    grid = SquareGrid.from_cell_km((48.0, 11.0, 48.2, 11.4), cell_km=0.5)
    assert grid.cell_km == pytest.approx((0.5, 0.5), rel=1e-6)
    middle = (grid.south + grid.north) / 2
    step = (grid.east - grid.west) / grid.columns
    assert haversine_km(middle, 11.0, middle, 11.0 + step) == pytest.approx(0.5, rel=1e-3)
    assert grid.south <= 48.0 and grid.east >= 11.4 and (grid.cell([48.0, 48.2], [11.0, 11.4]) >= 0).all()


def test_a_grid_around_points_holds_them_all() -> None:
    lat, lon = np.array([10.0, 10.5, 10.2]), np.array([20.0, 20.3, 20.9])
    assert (SquareGrid.around(lat, lon, cell_km=1.0).cell(lat, lon) >= 0).all()
    assert len(SquareGrid.around([1.0], [1.0], cell_km=1.0)) == 1
    with pytest.raises(DataError, match="no points"):
        SquareGrid.around([], [], cell_km=1.0)


def test_cell_names_are_read_back() -> None:
    cells = np.array([0, 7, 23, -1, 7])
    names = GRID.cell_id(cells)
    assert names.tolist() == ["r0c0", "r1c1", "r3c5", None, "r1c1"]
    assert GRID.parse_id(names).tolist() == cells.tolist()
    assert GRID.parse_id(["r9c9", "cafe", "r0c6"]).tolist() == [-1, -1, -1]


def test_assigned_cells_leave_the_frame_alone_and_drop_what_lies_outside() -> None:
    frame = pd.DataFrame(
        {"user_id": [1, 2, 3], "lat": [48.05, 10.0, 48.39], "lon": [11.05, 11.0, 11.59], "mode": list("abc")}
    )
    before = frame.copy(deep=True)
    cells = assign_cells(frame, GRID)
    assert cells["location_id"].tolist() == ["r0c0", "r3c5"] and cells["mode"].tolist() == ["a", "c"]
    assert list(cells.columns) == ["user_id", "location_id", "lat", "lon", "mode"]
    snapped = assign_cells(frame, GRID, snap=True)
    np.testing.assert_allclose(snapped["lat"], [48.05, 48.35])
    pd.testing.assert_frame_equal(frame, before)
    with pytest.raises(DataError, match="None of the 1 rows"):
        assign_cells(frame.iloc[[1]], GRID)
    with pytest.raises(DataError, match="lacks the column"):
        assign_cells(frame[["lat"]], GRID)


@pytest.mark.parametrize(
    "box", [(1, 0, 0, 1), (0, 1, 1, 0), (-91, 0, 0, 1), (0, 170, 1, -170), (0, -181, 1, 0), (0, 170, 1, 531)]
)
def test_impossible_boxes_are_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(DataError, match="box"):
        SquareGrid(*box, rows=2, columns=2)


def test_grids_without_rows_and_unknown_cells_are_refused() -> None:
    with pytest.raises(DataError, match="row"):
        SquareGrid(0, 0, 1, 1, rows=0, columns=1)
    with pytest.raises(DataError, match=r"0\.\.23"):
        GRID.centre([24])


def test_h3_cells_or_an_install_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h3", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_mobility\[geo\]'"):
        h3_cells([48.0], [11.0])


def test_h3_cells_are_those_of_the_library() -> None:
    h3 = pytest.importorskip("h3")
    cells = h3_cells([48.0, 1.0, 48.0], [11.0, 2.0, 11.0], resolution=7)
    assert cells.tolist() == [h3.latlng_to_cell(y, x, 7) for y, x in [(48, 11), (1, 2), (48, 11)]]
