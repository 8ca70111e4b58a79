"""Frames keep what they say on the way to other packages' tables and back; faults are named."""

from __future__ import annotations

import builtins
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.data import DataError, validate_points, validate_visits
from hf_mobility.data.io.interop import (
    from_geo,
    from_locations,
    from_movingpandas,
    from_positionfixes,
    from_skmob,
    from_staypoints,
    to_geo,
    to_locations,
    to_movingpandas,
    to_positionfixes,
    to_skmob,
    to_staypoints,
)

geopandas = pytest.importorskip("geopandas", reason="geopandas is not installed")
ZONES = st.sampled_from([None, "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu"])
LAST_SUNDAY_OF_MARCH = 1_711_846_800  # 2024-03-31 01:00 UTC, when Berlin's clocks go forward


@st.composite
def visit_frames(draw: st.DrawFn, gaps: bool = True) -> pd.DataFrame:
    """Canonical visits around a change of the clocks, some of unknown duration."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    count = draw(st.integers(1, 12))
    seconds = (
        rng.permutation(200_000)[:count] + LAST_SUNDAY_OF_MARCH - 100_000 + rng.integers(0, 1_000_000, count) / 1e6
    )
    duration = np.round(rng.uniform(0, 90_000, count), 6)
    duration[rng.random(count) < (0.3 if gaps else 0)] = np.nan
    frame = pd.DataFrame(
        {
            "user_id": rng.integers(0, 3, count),
            "time": pd.to_datetime((seconds * 1e6).astype(np.int64), unit="us", utc=True),
            "location_id": np.array(["a", "b", "c"])[rng.integers(0, 3, count)],
            "lat": rng.uniform(-89, 89, count),
            "lon": rng.uniform(-180, 180, count),
            "category": np.array(["Bar", None, "Park"], dtype=object)[rng.integers(0, 3, count)],
            "duration": duration,
        }
    )
    return validate_visits(frame)


def points_of(visits: pd.DataFrame) -> pd.DataFrame:
    return validate_points(visits)


def same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    assert sorted(left) == sorted(right)
    pd.testing.assert_frame_equal(left[list(right)], right, rtol=0, atol=2e-6, check_exact=False)


# scikit-mobility


@settings(max_examples=15, deadline=None)
@given(visits=visit_frames(), zone=ZONES)
def test_visits_come_back_from_scikit_mobility(visits: pd.DataFrame, zone: str | None) -> None:
    table = to_skmob(visits, timezone=zone)
    assert list(table)[:5] == ["uid", "datetime", "lat", "lng", "leaving_datetime"]
    assert str(table["datetime"].dt.tz) == (zone or "UTC")
    assert (table["datetime"].to_numpy() == visits["time"].to_numpy()).all()
    same(from_skmob(table), visits)


@settings(max_examples=15, deadline=None)
@given(visits=visit_frames(), zone=ZONES, seed=st.integers(0, 99))
def test_trajectory_ids_come_back(visits: pd.DataFrame, zone: str | None, seed: int) -> None:
    points = points_of(visits).assign(trip=np.random.default_rng(seed).integers(0, 4, len(visits)))
    expected = validate_points(points, keep=("trip",)).rename(columns={"trip": "trajectory_id"})
    table = to_skmob(points, trajectory_id="trip", timezone=zone)
    assert list(table) == ["uid", "datetime", "lat", "lng", "tid"]
    same(from_skmob(table), expected)
    moving = to_movingpandas(points, trajectory_id="trip", timezone=zone)
    same(from_movingpandas(moving), expected)


def test_naive_times_of_scikit_mobility_are_read_in_the_zone_that_is_given() -> None:
    local = pd.to_datetime(["2024-03-31 01:30", "2024-03-31 05:00"])
    leaving = pd.to_datetime(["2024-03-31 03:30", None])
    table = pd.DataFrame({"uid": ["x", "x"], "datetime": local, "lat": 48.0, "lng": 11.0, "leaving_datetime": leaving})
    visits = from_skmob(table, timezone="Europe/Berlin")
    assert visits["time"].tolist() == [pd.Timestamp("2024-03-31 00:30Z"), pd.Timestamp("2024-03-31 03:00Z")]
    assert visits["duration"].iloc[0] == 3_600  # two hours on the clock, of which one does not exist
    assert np.isnan(visits["duration"].iloc[1])
    with pytest.raises(DataError, match="without a time zone"):
        from_skmob(table)


# trackintel


@settings(max_examples=15, deadline=None)
@given(visits=visit_frames(gaps=False), zone=ZONES)
def test_stays_and_fixes_come_back_from_trackintel(visits: pd.DataFrame, zone: str | None) -> None:
    stays = to_staypoints(visits, timezone=zone)
    assert list(stays) == ["user_id", "started_at", "finished_at", "location_id", "purpose", "geom"]
    assert (stays.active_geometry_name, stays.index.name, stays.crs.to_epsg()) == ("geom", "id", 4326)
    assert str(stays["finished_at"].dt.tz) == str(stays["started_at"].dt.tz) == (zone or "UTC")
    same(from_staypoints(stays), visits)
    fixes = to_positionfixes(visits, timezone=zone)
    assert list(fixes) == ["user_id", "tracked_at", "geom"]
    same(from_positionfixes(fixes), points_of(visits))


def test_locations_are_points_under_their_id() -> None:
    places = pd.DataFrame({"location_id": ["b", "a", "b"], "lat": [1.0, 2.0, 1.0], "lon": [3.0, 4.0, 3.0]})
    table = to_locations(places)
    assert table.index.tolist() == ["b", "a"] and list(table) == ["user_id", "center"]
    assert table["center"].x.tolist() == [3.0, 4.0] and table["user_id"].isna().all()
    expected = places.iloc[:2].reset_index(drop=True)
    pd.testing.assert_frame_equal(from_locations(table), expected, check_dtype=False)
    owned = places.assign(user_id=[7, 8, 7])
    assert to_locations(owned)["user_id"].tolist() == [7, 8]
    assert from_locations(to_locations(owned))["user_id"].tolist() == [7, 8]
    shared = places.assign(user_id=[7, 8, 9])
    assert to_locations(shared)["user_id"].isna().all()


def test_a_citys_places_are_locations(toy: Any) -> None:
    _, city = toy.city(4)
    places = from_locations(to_locations(city))
    assert places["location_id"].tolist() == city.location_ids.tolist()
    np.testing.assert_array_equal(places[["lat", "lon"]], np.stack([city.lat, city.lon], axis=1))


# movingpandas


@settings(max_examples=15, deadline=None)
@given(visits=visit_frames(), zone=ZONES)
def test_points_come_back_from_movingpandas(visits: pd.DataFrame, zone: str | None) -> None:
    table = to_movingpandas(visits, timezone=zone)
    assert isinstance(table.index, pd.DatetimeIndex) and table.index.name == "t"
    assert list(table) == ["traj_id", "user_id", "geometry"] and table.crs.to_epsg() == 4326
    back = from_movingpandas(table)
    assert back.pop("trajectory_id").tolist() == back["user_id"].tolist()
    same(back, points_of(visits))


def test_a_collection_gives_its_points_and_its_naive_clock_is_read_in_the_zone() -> None:
    class Collection:  # what movingpandas does with times: the zone is dropped, the clock is kept
        def to_point_gdf(self) -> Any:
            points = pd.DataFrame({"user_id": 1, "time": ["2024-07-01T10:00Z"], "lat": 48.0, "lon": 11.0})
            return to_movingpandas(points, timezone="Europe/Berlin").tz_localize(None)

    back = from_movingpandas(Collection(), timezone="Europe/Berlin")
    assert back["time"].tolist() == [pd.Timestamp("2024-07-01T10:00Z")]
    with pytest.raises(DataError, match="times there"):
        from_movingpandas(Collection().to_point_gdf().reset_index())
    with pytest.raises(DataError, match="lacks the column nobody"):
        from_movingpandas(Collection(), traj_id="nobody")


# GeoDataFrames and GeoParquet


@settings(max_examples=8, deadline=None)
@given(visits=visit_frames(), zone=ZONES)
def test_visits_come_back_from_geoparquet(
    visits: pd.DataFrame, zone: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("geo") / "visits.parquet"
    table = to_geo(visits, timezone=zone)
    assert table.crs.to_epsg() == 4326 and list(table) == [*visits, "geometry"]
    table.to_parquet(path)
    assert geopandas.read_parquet(path).geometry.x.tolist() == visits["lon"].tolist()
    same(from_geo(path), visits)
    same(validate_visits(path), visits)  # the coordinates are also plain columns


def test_other_projections_are_read_as_degrees() -> None:
    visits = pd.DataFrame({"user_id": [1, 1], "time": ["2024-01-01T00Z", "2024-01-02T00Z"], "lat": 48.1, "lon": 11.5})
    metres = to_geo(visits).to_crs(32632).drop(columns=["lat", "lon"])
    back = from_geo(metres)
    np.testing.assert_allclose(back[["lat", "lon"]], [[48.1, 11.5]] * 2, atol=1e-9)


def test_inputs_are_left_as_they_were() -> None:
    visits = pd.DataFrame({"user_id": [2, 1], "time": ["2024-01-01T00Z", "2024-01-02T00Z"], "lat": 48.1, "lon": 11.5})
    before = visits.copy(deep=True)
    made = [to_geo(visits), to_skmob(visits), to_movingpandas(visits), to_positionfixes(visits)]
    kept = [table.copy(deep=True) for table in made]
    for table, read in zip(made, (from_geo, from_skmob, from_movingpandas, from_positionfixes)):
        read(table)
    pd.testing.assert_frame_equal(visits, before)
    for table, copy in zip(made, kept):
        assert table.equals(copy)


# Tables of the Hugging Face ecosystem


def test_a_parquet_file_loaded_with_datasets_is_accepted_wherever_a_frame_is(tmp_path: Path, toy: Any) -> None:
    datasets = pytest.importorskip("datasets")
    visits, _ = toy.city(4)
    path = tmp_path / "visits.parquet"
    visits.to_parquet(path)
    loaded = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    arrow = loaded.data.table
    for given_as in (loaded, arrow, path, str(path)):
        pd.testing.assert_frame_equal(validate_visits(given_as), visits, check_dtype=False)
        assert to_geo(given_as).geometry.y.tolist() == visits["lat"].tolist()
        assert to_skmob(given_as)["uid"].tolist() == visits["user_id"].tolist()
        assert len(to_movingpandas(given_as)) == len(to_positionfixes(given_as)) == len(visits)


# Faults


def geo(shapes: Any, **options: Any) -> Any:
    columns = {"user_id": 1, "time": pd.Timestamp("2024-01-01", tz="UTC"), "geometry": shapes}
    return geopandas.GeoDataFrame(columns, **{"crs": 4326, **options})


def test_faults_are_one_clear_sentence(tmp_path: Path) -> None:
    shapely = pytest.importorskip("shapely")
    point, line = shapely.Point(11, 48), shapely.LineString([(11, 48), (12, 48)])
    stay = {"user_id": [1], "time": ["2024-01-01T00Z"], "lat": [48.0], "lon": [11.0]}
    early = to_skmob(pd.DataFrame({**stay, "duration": [60.0]}))
    early["leaving_datetime"] -= pd.Timedelta(minutes=2)
    mixed = early.assign(datetime=early["datetime"].dt.tz_localize(None))
    faults: list[tuple[Any, str]] = [
        (lambda: from_geo(pd.DataFrame(stay)), "Cannot read points from DataFrame"),
        (lambda: from_geo(geo([point], crs=None)), "has no CRS; say which with set_crs"),
        (lambda: from_geo(geo([point, line, None])), "2 of 3 geometries are no points (first rows 1, 2)"),
        (lambda: from_positionfixes(geo([point])), "tracked_at"),
        (lambda: from_staypoints(geo([point])), "started_at"),
        (lambda: to_staypoints(pd.DataFrame(stay)), "Column 'duration': 1 of 1 visits have no duration"),
        (lambda: to_staypoints(pd.DataFrame({**stay, "duration": [np.nan]})), "of user 1 at 2024-01-01T00:00:00+00:00"),
        (lambda: from_skmob(early), "Column 'leaving_datetime': 1 of 1 values lie before 'datetime' (first rows 0)"),
        (lambda: from_skmob(mixed), "only one knows its time zone"),
        (lambda: from_skmob(early.assign(leaving_datetime="x")), "Column 'leaving_datetime' holds no times"),
        (lambda: from_skmob("visits.csv"), "Cannot read a scikit-mobility table from str"),
        (lambda: to_geo(pd.DataFrame(stay), timezone="Mars/Olympus"), "Unknown time zone 'Mars/Olympus'"),
        (lambda: to_locations(pd.DataFrame(stay)), "The places lack the column(s) location_id"),
        (lambda: to_locations(pd.DataFrame({**stay, "location_id": "a", "lat": np.nan})), "1 places have no coord"),
    ]
    for call, text in faults:
        with pytest.raises(DataError, match=re.escape(text)):
            call()
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.parquet"):
        from_geo(tmp_path / "none.parquet")


def test_without_geopandas_the_command_that_installs_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.split(".")[0] == "geopandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    stay = pd.DataFrame({"user_id": [1], "time": ["2024-01-01T00Z"], "lat": [48.0], "lon": [11.0]})
    with pytest.raises(ImportError, match=r"pip install 'hf_mobility\[geo\]'"):
        to_geo(stay)
    assert len(to_skmob(stay)) == 1
