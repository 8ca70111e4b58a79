"""Features of pairs and regions against loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flow_towns import task
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility import DataError
from hf_mobility.flows.pairs import PAIR_FEATURES, blocks, distances, intervening, misplaced
from hf_mobility.flows.regions import DERIVED, derived_features, geometry_of, masses_of
from hf_mobility.tokenization.grid import haversine_km


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10_000))
def test_what_intervenes_is_the_mass_of_nearer_regions(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mass, km = rng.integers(0, 9, n).astype(float), rng.permutation(n * n).reshape(n, n).astype(float) + 1
    np.fill_diagonal(km, 0)
    found = intervening(mass, np.argsort(km, axis=1))
    for i in range(n):
        for j in range(n):
            nearer = [k for k in range(n) if k not in (i, j) and km[i, k] < km[i, j]]
            assert found[i, j] == mass[nearer].sum()


def test_features_of_pairs_are_those_of_their_names_and_do_not_depend_on_the_block() -> None:
    (area,) = task((9,)).areas
    geometry = geometry_of(area)
    whole = geometry.features(np.arange(9))
    assert whole.shape == (9, 9, len(PAIR_FEATURES)) and np.isfinite(whole).all()
    np.testing.assert_array_equal(np.concatenate([geometry.features(rows) for rows in blocks(area, 20)]), whole)
    column = {name: whole[..., number] for number, name in enumerate(PAIR_FEATURES)}
    np.testing.assert_array_equal(column["same region"], np.eye(9))
    km = haversine_km(area.lat[:, None], area.lon[:, None], area.lat, area.lon)
    np.testing.assert_allclose(column["log distance"], np.log(km + 0.1), rtol=1e-5)
    ranks = np.argsort(np.argsort(km, axis=1), axis=1)
    np.testing.assert_allclose(column["log rank by distance"], np.log1p(ranks), rtol=1e-6)
    population = area.features[:, 0]
    nearer = np.array(
        [[population[(km[i] < km[i, j]) & (np.arange(9) != i)].sum() for j in range(9)] for i in range(9)]
    )
    np.testing.assert_allclose(column["log intervening population"], np.log1p(nearer), rtol=1e-5, atol=1e-6)


def test_features_of_regions_are_those_of_their_names() -> None:
    (area,) = task((9,)).areas
    found = dict(zip(DERIVED, derived_features(geometry_of(area)).T))
    share = area.features[:, 2] / area.features[:, 2].sum()
    km = haversine_km(area.lat[:, None], area.lon[:, None], area.lat, area.lon)
    np.testing.assert_allclose(found["log share of points of interest"], np.log(share + 1e-5), rtol=1e-5)
    within = np.log((km <= 5) @ share + 1e-5)
    np.testing.assert_allclose(found["log share in 5 km of points of interest"], within, rtol=1e-5, atol=1e-6)
    assert np.ptp(found["log regions of the area"]) == 0 and np.isclose(found["log regions of the area"][0], np.log(9))


def test_a_point_outside_its_area_is_as_far_from_all_as_is_usual_there() -> None:
    (area,) = task((12,)).areas
    lat = area.lat.copy()
    lat[3] = 31.5  # the coordinate of another country
    wrong = replace(area, lat=lat)
    assert np.flatnonzero(misplaced(wrong)).tolist() == [3] and not misplaced(area).any()
    km = distances(wrong, np.arange(12))
    rest = np.delete(np.arange(12), 3)
    np.testing.assert_allclose(km[np.ix_(rest, rest)], distances(area, np.arange(12))[np.ix_(rest, rest)])
    assert km[3, 3] == 0 and len(set(km[3, rest])) == 1 and 1 < km[3, 0] < 10


def test_masses_need_population_and_do_without_points_of_interest() -> None:
    (area,) = task((4,)).areas
    assert masses_of(area)[:, 1].tolist() == area.features[:, 2].tolist()
    np.testing.assert_array_equal(*masses_of(area.with_columns(["total_population"])).T)
    with pytest.raises(DataError, match="no column 'total_population'"):
        masses_of(area.with_columns(["poi_shop"]))
    with pytest.raises(DataError, match="missing or negative"):
        masses_of(replace(area, features=-area.features))


def test_an_area_of_one_region_has_features() -> None:
    (area,) = task((1,)).areas
    assert np.isfinite(geometry_of(area).features(np.arange(1))).all()
    assert np.isfinite(derived_features(geometry_of(area))).all()
