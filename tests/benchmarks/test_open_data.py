"""The table of open check-in cities, and the loader where the files are at hand."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from benchmarks import open_data

needs_files = pytest.mark.skipif(
    not (open_data.data_folder() / "checkins_calgary.parquet").exists(),
    reason="the open check-in files are not in HF_MOBILITY_DATA",
)


def test_sources_and_targets_share_no_city() -> None:
    sources = open_data.source_cities()
    assert len(sources) == 12 and not set(sources) & set(open_data.TARGETS)
    assert all(ZoneInfo(city.timezone) for city in open_data.CITIES.values())


def test_persons_of_a_target_leave_the_sources_of_their_id_space_only() -> None:
    def visits(users: dict[int, int]) -> pd.DataFrame:
        return pd.DataFrame({"user_id": [u for u, n in users.items() for _ in range(n)]})

    sources = {"atlanta": visits({1: 12, 2: 12, 3: 4, 4: 12}), "gowalla_dallas": visits({1: 12})}
    targets = {"chicago": visits({1: 10, 2: 9, 3: 30}), "calgary": visits({4: 50})}
    kept = open_data.drop_shared_users(sources, targets)
    # 2 has too few visits in the target, 3 too few in the source; 4 is another person in Calgary's id space.
    assert sorted(kept["atlanta"]["user_id"].unique()) == [2, 3, 4]
    assert kept["gowalla_dallas"]["user_id"].unique().tolist() == [1]
    assert len(sources["atlanta"]) == 40


def test_unknown_cities_and_missing_files_are_named(tmp_path, monkeypatch) -> None:
    with pytest.raises(KeyError, match="atlantis"):
        open_data.open_checkins("atlantis")
    monkeypatch.setenv("HF_MOBILITY_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="HF_MOBILITY_DATA"):
        open_data.open_checkins("calgary")


@pytest.mark.data
@needs_files
def test_calgary_is_read_whole() -> None:
    visits = open_data.open_checkins("calgary")
    assert len(visits) == 9317 and visits["location_id"].nunique() == 604
    assert {"category", "category_group"} <= set(visits.columns)


@pytest.mark.data
@needs_files
def test_the_126_persons_of_austin_are_dropped_from_the_sources() -> None:
    names = [name for name in open_data.source_cities() if name.startswith("gowalla")]
    austin = open_data.open_checkins("gowalla_austin")
    sources = {name: open_data.open_checkins(name) for name in names}
    kept = open_data.drop_shared_users(sources, {"gowalla_austin": austin})
    dropped = {u for name in names for u in set(sources[name]["user_id"]) - set(kept[name]["user_id"])}
    assert len(dropped) == 126
