"""Hand-made features against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hf_mobility.baselines.features import mobility_features, work_features
from hf_mobility.data import DataError

KM = 180 / (np.pi * 6371.0088)  # degrees of latitude
AWAY = [f"away_h{h:02d}" for h in range(24)]


def days(away_hours: list[int], number: int = 2, far_km: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    """(1, T) positions in hours on the equator: at 0, and far in the north in some hours."""
    hour = np.arange(24 * number) % 24
    return np.where(np.isin(hour, away_hours), far_km * KM, 0.0)[None], np.zeros((1, 24 * number))


def test_a_commuter_by_hand() -> None:
    lat, lon = days(list(range(9, 15)))  # six hours of each day: a quarter
    row = mobility_features(lat, lon, slots_per_day=24).iloc[0]
    assert row["radius_of_gyration_km"] == pytest.approx(10 * np.sqrt(0.25 * 0.75), rel=1e-6)
    assert row["distinct_cells"] == 2 and row["night_cell_share"] == 1
    assert row["moves_per_day"] == pytest.approx(4 / 47 * 24)
    assert row[AWAY].tolist() == [float(9 <= h < 15) for h in range(24)]


def test_shares_over_days_and_nights_elsewhere() -> None:
    lat, lon = days([], number=4)
    lat[0, 24:30] = 10 * KM  # the second night is spent elsewhere, and 10 to 12 o'clock of the third day
    lat[0, 58:60] = 10 * KM
    row = mobility_features(lat, lon, slots_per_day=24).iloc[0]
    assert row["night_cell_share"] == pytest.approx(18 / 24)
    assert row[AWAY].tolist() == [0.25] * 6 + [0] * 4 + [0.25] * 2 + [0] * 12


def test_slots_of_a_quarter_of_an_hour_are_the_same_hours() -> None:
    lat, lon = days([9, 10])
    fine = mobility_features(np.repeat(lat, 4, axis=1), np.repeat(lon, 4, axis=1), slots_per_day=96)
    coarse = mobility_features(lat, lon, slots_per_day=24)
    names = ["radius_of_gyration_km", "distinct_cells", "night_cell_share", *AWAY]
    np.testing.assert_allclose(fine[names], coarse[names])


def test_unknown_slots_do_not_count_and_rows_are_apart() -> None:
    lat, lon = days([9, 10, 11])
    strange = np.where(np.arange(48) == 5, 1e9, lat)
    known = np.arange(48)[None] != 5
    both = mobility_features(
        np.concatenate([lat, strange, lat + KM]), np.tile(lon, (3, 1)), slots_per_day=24, mask=np.tile(known, (3, 1))
    )
    np.testing.assert_allclose(both.iloc[0], both.iloc[1])
    np.testing.assert_allclose(both.iloc[0], both.iloc[2], atol=1e-6)


def test_someone_unknown_at_night_has_the_commonest_place_for_a_home() -> None:
    lat, lon = days([9, 10, 11])
    mask = np.arange(48)[None] % 24 >= 7
    row = mobility_features(lat, lon, slots_per_day=24, mask=mask).iloc[0]
    assert row["night_cell_share"] == pytest.approx(14 / 17)
    assert row["away_h03"] == pytest.approx(3 / 17) and row["away_h09"] == 1 and row["away_h20"] == 0


def test_faulty_arrays_are_refused() -> None:
    lat, lon = days([])
    with pytest.raises(DataError, match=r"must be \(people, slots\)"):
        mobility_features(lat[0], lon[0])
    with pytest.raises(DataError, match=r"1 of 2 people have no known slot \(first rows \[1\]\)"):
        mobility_features(np.tile(lat, (2, 1)), np.tile(lon, (2, 1)), mask=np.array([[1] * 48, [0] * 48]))


def test_where_people_work_by_hand() -> None:
    hour, day = np.arange(168) % 24, np.arange(168) // 24
    office = (hour >= 9) & (hour < 17)
    away = [office & (day < 5), office & (day < 2), office & (day >= 5), np.zeros(168, bool)]
    lat = np.stack([np.where(there, 10 * KM, 0.0) for there in away])
    found = work_features(lat, np.zeros_like(lat), slots_per_day=24)
    assert found["commutes"].tolist() == [1, 0, 0, 0]
    assert found["days_at_work"].tolist() == [5, 3, 5, 5]  # who is mostly at home works there
    assert found["log_commute_km"].to_numpy() == pytest.approx([np.log1p(10), 0, 0, 0], abs=0.1)
    hidden = np.broadcast_to(day < 3, lat.shape)
    unknown = work_features(np.where(hidden, lat, 99.0), np.zeros_like(lat), slots_per_day=24, mask=hidden)
    assert unknown["days_at_work"].tolist()[0] == 3 and unknown["commutes"].tolist() == [1, 0, 0, 0]
    near = work_features(np.where(away[0], 0.9 * KM, 0.0)[None], np.zeros((1, 168)), slots_per_day=24)
    assert near["commutes"].tolist() == [0] and near["log_commute_km"][0] > 0
    with pytest.raises(DataError, match="167 slots are no whole weeks of 168"):
        work_features(lat[:, :167], np.zeros((4, 167)), slots_per_day=24)
