"""M-STAR's grids nest, and weeks made of records equal those of a walk through time in small steps."""

from __future__ import annotations

import copy
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mstar_town import BOX, TOKENIZER, ZONE, make_records, make_tokenizer

from hf_mobility.data import SquareGrid, simulate_city
from hf_mobility.tokenization.tokenization_mstar import MstarTokenizer

# Independent computations


def local_clock(second: int, zone: str) -> tuple[datetime, bool]:
    """Naive local time, and whether the clock shows it for the second time."""
    moment = datetime.fromtimestamp(second, ZoneInfo(zone))
    return moment.replace(tzinfo=None, fold=0), bool(moment.fold)


def weeks_by_loop(
    frame: pd.DataFrame, tokenizer: MstarTokenizer, *, kind: str, max_stay: int = 86_400, step: int = 60
) -> dict[tuple[int, str], list[int]]:
    """{(user, Monday): cells}: walk through time in steps and count. Arrivals must lie on whole steps."""
    votes: dict[Any, Counter] = {}
    order: dict[Any, list[int]] = {}
    for user, rows in frame.groupby("user_id"):
        rows = rows.sort_values("time", kind="stable")
        seconds = [int(t.timestamp()) for t in rows["time"]]
        cells = tokenizer.cells_at(rows["lat"], rows["lon"]).tolist()
        ends = [s + 1 for s in seconds]
        if kind == "visits":
            known = rows["duration"].tolist() if "duration" in rows else [np.nan] * len(rows)
            stays = [max_stay if np.isnan(d) else int(d) for d in known]
            ends = [min(s + d, nxt) for s, d, nxt in zip(seconds, stays, [*seconds[1:], 2**60])]
        for second, end, cell in zip(seconds, ends, cells):
            for moment in range(second, end, step):
                clock, repeated = local_clock(moment, tokenizer.timezone)
                if not repeated:
                    monday = (clock - timedelta(days=clock.weekday())).date()
                    key = user, str(monday), clock.weekday() * 24 + clock.hour
                    votes.setdefault(key, Counter())[cell] += 1
                    order.setdefault(key, []).append(cell)
    weeks: dict[tuple[int, str], list[int]] = {}
    for (user, monday, hour), counter in votes.items():
        best = max(counter.values())
        cell = next(c for c in order[user, monday, hour] if counter[c] == best)
        weeks.setdefault((user, monday), [-1] * 168)[hour] = cell
    return {key: cells for key, cells in weeks.items() if max(cells) >= 0}


def as_dict(weeks: Any) -> dict[tuple[int, str], list[int]]:
    return {(u, str(s)): c for c, u, s in zip(weeks.cells.tolist(), weeks.user_id.tolist(), weeks.start)}


# Grids


def test_thirty_rows_become_fifteen_eight_and_four() -> None:
    tokenizer = MstarTokenizer.from_grid(BOX, timezone=ZONE)
    assert tokenizer.cells_per_resolution == [16, 64, 225, 900]
    assert tokenizer.cell_map.shape == (900, 4) and tokenizer.cell_map.dtype == np.int32


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([(1,), (2, 1), (6, 3, 1), (16, 8, 4, 2, 1)]))
def test_every_resolution_nests_in_the_next(rows: int, columns: int, factors: tuple[int, ...]) -> None:
    tokenizer = make_tokenizer(rows=rows, columns=columns, factors=factors)
    for cell, views in enumerate(tokenizer.cell_map.tolist()):
        row, column = divmod(cell, columns)
        assert views == [(row // f) * -(-columns // f) + column // f for f in factors]
    for coarse, fine in zip(tokenizer.cell_map.T[:-1], tokenizer.cell_map.T[1:]):
        assert len(np.unique(np.stack([coarse, fine]), axis=1)[0]) == fine.max() + 1
        assert set(coarse) == set(range(coarse.max() + 1))


def test_cells_are_those_of_the_data_rooms_grid() -> None:
    grid = SquareGrid(*BOX[:2], *BOX[2:], 6, 5)
    tokenizer = MstarTokenizer.from_square_grid(grid, timezone=ZONE, factors=(4, 2, 1))
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(47.85, 48.15, 3000), rng.uniform(10.85, 11.25, 3000)
    assert np.array_equal(tokenizer.cells_at(lat, lon), grid.cell(lat, lon))
    assert np.array_equal(tokenizer.cells_at([47.9, 48.1], [10.9, 11.2]), [0, 29])
    np.testing.assert_allclose(np.stack([tokenizer.lat, tokenizer.lon]), np.stack(grid.centre(np.arange(30))))


def test_a_grid_around_data_has_the_asked_size_and_holds_all_points() -> None:
    frame = make_records()
    tokenizer = MstarTokenizer.from_points(frame, timezone=ZONE, cell_km=2.0)
    grid = SquareGrid.around(frame["lat"], frame["lon"], cell_km=2.0)
    assert (tokenizer.rows, tokenizer.columns) == (grid.rows, grid.columns)
    assert (tokenizer.cells_at(frame["lat"], frame["lon"]) >= 0).all()
    far = pd.concat([frame, frame.iloc[:1].assign(lat=10.0)])
    with pytest.raises(ValueError, match="more than 200000: give a smaller box, a coverage below 1"):
        MstarTokenizer.from_visits(far, timezone=ZONE, cell_km=0.5)
    assert MstarTokenizer.from_visits(far, timezone=ZONE, coverage=0.9).num_cells < 1000


# Records -> weeks


@pytest.mark.parametrize("seed", range(3))
def test_points_become_the_weeks_of_a_plain_loop(seed: int) -> None:
    frame = make_records(seed=seed, count=400)
    found = TOKENIZER.weeks(frame, min_known=0)
    assert found.report["kind"] == "points"
    assert as_dict(found) == weeks_by_loop(frame, TOKENIZER, kind="points")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"])
@pytest.mark.parametrize("with_duration", [False, True])
def test_visits_become_the_weeks_of_a_walk_through_time(zone: str, with_duration: bool) -> None:
    frame = make_records(people=2, count=12, days=9).assign(category="x")
    frame["time"] = frame["time"].dt.floor("5min")
    if with_duration:
        rng = np.random.default_rng(1)
        frame["duration"] = np.where(rng.random(len(frame)) < 0.3, np.nan, rng.integers(1, 200, len(frame)) * 300.0)
    tokenizer = make_tokenizer(timezone=zone)
    found = tokenizer.weeks(frame, max_stay_hours=10, min_known=0)
    assert found.report["kind"] == "visits"
    wanted = weeks_by_loop(
        frame.drop_duplicates(["user_id", "time"]), tokenizer, kind="visits", max_stay=36_000, step=300
    )
    assert as_dict(found) == wanted


@pytest.mark.parametrize(("zone", "spring", "autumn"), [(ZONE, "2024-03-31", "2024-10-27")])
def test_the_missing_hour_is_unknown_and_the_doubled_hour_is_its_first(zone: str, spring: str, autumn: str) -> None:
    """Berlin: on 31 March 2024 no 02:00; on 27 October 02:30 summer time, then 02:30 winter time."""
    stay = pd.DataFrame(
        {"user_id": 1, "time": [pd.Timestamp(spring, tz=zone)], "lat": 48.0, "lon": 11.0, "category": "a"}
    )
    week = TOKENIZER.weeks(stay, max_stay_hours=20, min_known=0)
    sunday = week.cells[0, 144:]
    assert sunday[2] == -1 and (np.delete(sunday[:21], 2) >= 0).all() and (sunday[21:] == -1).all()
    times = pd.to_datetime([f"{autumn} 00:30", f"{autumn} 01:30"]).tz_localize("UTC")
    points = pd.DataFrame({"user_id": 1, "time": times, "lat": [48.0, 47.95], "lon": 11.0})
    found = TOKENIZER.weeks(points, min_known=0)
    assert found.cells[0, 146] == TOKENIZER.cells_at(48.0, 11.0) and (found.cells[0] >= 0).sum() == 1
    assert found.report["rows_in_repeated_hours"] == 1


def test_weeks_begin_on_local_mondays() -> None:
    times = pd.to_datetime(["2024-03-03 22:59:59", "2024-03-03 23:00:00"]).tz_localize("UTC")  # Berlin is at UTC+1
    found = TOKENIZER.weeks({"time": times, "lat": [48.0, 48.0], "lon": [11.0, 11.0]}, min_known=0)
    assert found.start.astype(str).tolist() == ["2024-02-26", "2024-03-04"]
    assert found.cells[0, 167] >= 0 and found.cells[1, 0] >= 0


def test_windows_of_days_and_half_hours() -> None:
    """GeoLife's days of 48 half hours, as in the trial."""
    tokenizer = make_tokenizer(num_hours=48, interval_minutes=30)
    times = pd.to_datetime(["2024-03-05 07:10", "2024-03-05 07:40", "2024-03-06 23:50"]).tz_localize(ZONE)
    found = tokenizer.weeks({"time": times, "lat": [47.95, 48.0, 48.0], "lon": [11.0] * 3}, min_known=0)
    assert found.start.astype(str).tolist() == ["2024-03-05", "2024-03-06"]
    assert np.argwhere(found.cells >= 0).tolist() == [[0, 14], [0, 15], [1, 47]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-1, 29), min_size=168, max_size=168), st.integers(0, 12))
def test_filling_bridges_only_short_gaps_between_equal_cells(week: list[int], limit: int) -> None:
    rows = [(slot, cell) for slot, cell in enumerate(week) if cell >= 0] or [(0, 0)]
    times = pd.Timestamp("2024-03-04", tz=ZONE) + pd.to_timedelta([slot for slot, _ in rows], unit="h")
    frame = {"time": times, "cell": [cell for _, cell in rows]}
    found = TOKENIZER.weeks(frame, kind="points", fill_hours=limit, min_known=0)
    wanted = [-1] * 168
    for slot, cell in rows:
        wanted[slot] = cell
    filled = 0
    for (a, cell), (b, other) in pairwise(rows):
        if cell == other and b - a - 1 <= limit:
            wanted[a:b] = [cell] * (b - a)
            filled += b - a - 1
    assert found.cells.tolist() == [wanted] and found.report["hours_filled"] == filled


def test_filling_does_not_cover_hours_outside_the_grid() -> None:
    times = pd.to_datetime(["2024-03-05 07:10", "2024-03-05 09:10", "2024-03-05 11:10"]).tz_localize(ZONE)
    frame = {"time": times, "lat": [48.0, 50.0, 48.0], "lon": [11.0] * 3}
    found = TOKENIZER.weeks(frame, fill_hours=14, min_known=0)
    assert np.flatnonzero(found.cells[0] >= 0).tolist() == [24 + 7, 24 + 11]
    assert found.report["rows_outside"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_rows_give_the_same_weeks(seed: int) -> None:
    frame = make_records(count=300).drop_duplicates(["user_id", "time"])
    found = TOKENIZER.weeks(frame.sample(frac=1, random_state=seed), min_known=0)
    wanted = TOKENIZER.weeks(frame, min_known=0)
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted)) and found.report == wanted.report


def all_forms(frame: pd.DataFrame) -> dict[str, Any]:
    epoch = frame.assign(time=frame["time"].map(pd.Timestamp.timestamp).astype("int64"))
    return {
        "frame": frame,
        "another zone": frame.assign(time=frame["time"].dt.tz_convert("Asia/Tokyo")),
        "epoch seconds": epoch,
        "dict of lists": frame.to_dict("list"),
        "list of dicts": frame.to_dict("records"),
        "arrow": pa.Table.from_pandas(frame),
        "dataset": datasets.Dataset.from_pandas(epoch),
    }


@pytest.mark.parametrize("form", all_forms(make_records()))
def test_every_form_of_input_gives_the_same_weeks_and_is_not_changed(form: str) -> None:
    frame = make_records()
    data = all_forms(frame)[form]
    before = copy.deepcopy(data)
    found = TOKENIZER.weeks(data, min_known=0)
    assert all(np.array_equal(a, b) for a, b in zip(found, TOKENIZER.weeks(frame, min_known=0)))
    if hasattr(data, "equals"):
        assert data.equals(before)
    elif form != "dataset":
        assert data == before


def test_weeks_that_are_hardly_known_are_dropped_and_counted() -> None:
    frame = make_records(count=40)
    every, some = TOKENIZER.weeks(frame, min_known=0), TOKENIZER.weeks(frame, min_known=0.05)
    kept = (every.cells >= 0).mean(axis=1) >= 0.05
    assert 0 < kept.sum() < len(kept)
    assert np.array_equal(some.cells, every.cells[kept])
    assert some.report["weeks_found"] == every.report["weeks_found"]
    assert some.report["weeks_dropped"] == some.report["weeks_found"] - len(some.cells) > 0
    assert some.report["users_dropped"] == 3 - len(set(some.user_id.tolist()))


def test_a_simulated_city_gives_home_and_office_of_its_people() -> None:
    town = simulate_city(60, num_days=14, seed=3)
    tokenizer = MstarTokenizer.from_visits(town.visits, timezone=town.timezone)
    weeks = tokenizer.weeks(town.visits)
    home, _ = tokenizer.home_and_work(weeks)
    places = town.pois.set_index("location_id")
    at_home = places.loc[town.people["home_id"]]
    true = tokenizer.cells_at(at_home["lat"], at_home["lon"])
    assert (weeks.cells >= 0).mean() > 0.99 and (home == true[weeks.user_id]).mean() > 0.95
