"""RAW's tokenizer: every slot equals what a literal loop over the rules gives, in every zone and form of input."""

from __future__ import annotations

import copy
import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hf_mobility.tokenization.tokenization_raw import PAPER_BOUNDS, RawSeries, RawTokenizer

DAY = 86_400
BOUNDS = (52.3, 13.0, 52.7, 13.8)
BERLIN = RawTokenizer.from_bounds(BOUNDS, timezone="Europe/Berlin", model_max_length=192)
FIELDS = ("coordinates", "attention_mask", "observed_mask", "position_ids")
START = 1_709_506_800  # Monday, 4 March 2024, 00:00 in Berlin


def make_points(lengths: tuple[int, ...] = (6, 3, 4), days: float = 1.9, seed: int = 0, stays: bool = False) -> Any:
    """Points of people 5, 6, 7, ... in Berlin, from 4 March 2024 on; rows sorted by person and time."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    columns = {
        "user_id": np.repeat(np.arange(5, 5 + len(lengths)), lengths),
        "time": pd.to_datetime(START + rng.integers(0, int(days * DAY), n), unit="s", utc=True).as_unit("us"),
        "lat": rng.uniform(52.4, 52.6, n),
        "lon": rng.uniform(13.2, 13.6, n),
    }
    if stays:
        columns["duration"] = rng.integers(0, 30_000, n).astype(float)
    return pd.DataFrame(columns).sort_values(["user_id", "time"], ignore_index=True)


def assert_equal_series(first: RawSeries, second: RawSeries) -> None:
    for name in ("coordinates", "observed", "offsets", "users", "user_index", "window_start"):
        assert getattr(first, name).tolist() == getattr(second, name).tolist(), name


# The rules, written as loops


def literal(records: list[tuple[int, int, float, float]], width: int, rule: str) -> tuple[list, list]:
    """One window of one person. Records (first slot, last slot, lat, lon), sorted, slots may leave the window."""
    records = [(max(a, 0), min(b, width - 1), lat, lon) for a, b, lat, lon in records if b >= 0 and a < width]
    observed = [int(any(a <= slot <= b for a, b, _, _ in records)) for slot in range(width)]
    filled: list[Any] = [None] * width
    if rule == "paper":
        done = -1
        for _, b, lat, lon in records:
            if b <= done:
                continue  # it ends in a slot that is filled already
            for slot in range(done + 1, b + 1):
                filled[slot] = (lat, lon)
            done = b
        for slot in range(done + 1, width):
            filled[slot] = filled[done]
    else:
        last = records[0][2:]
        for slot in range(width):
            here = [record for record in records if record[0] == slot]
            last = here[-1][2:] if here else last
            filled[slot] = last
    return filled, observed


def expected(frame: pd.DataFrame, zone: str, window: int, rule: str, minutes: int = 15) -> list[tuple]:
    """(user, window's midnight, points, observed) of every row, by pandas' and the standard library's clocks."""

    def clock(second: int) -> int:
        moment = dt.datetime.fromtimestamp(second, ZoneInfo(zone))
        return int(moment.replace(tzinfo=dt.timezone.utc).timestamp())

    people: dict[int, list[tuple]] = {}
    for row in frame.to_dict("records"):
        utc = int(row["time"].timestamp())
        end = utc + max(int(row.get("duration", 0)) - 1, 0)
        people.setdefault(row["user_id"], []).append(
            (clock(utc), max(clock(utc), clock(end)), utc, row["lat"], row["lon"])
        )
    everything = [record for records in people.values() for record in records]
    start = min(record[0] for record in everything) // DAY * DAY
    total = (max(record[0] for record in everything) // DAY * DAY + DAY - start) // (60 * minutes)
    rows = []
    for user in sorted(people):
        for first in range(0, total, window):
            width, origin = min(window, total - first), start + first * 60 * minutes
            slots = [
                ((a - origin) // (60 * minutes), (b - origin) // (60 * minutes), utc, lat, lon)
                for a, b, utc, lat, lon in people[user]
            ]
            slots = [slot for slot in slots if slot[1] >= 0 and slot[0] < width]
            if slots:
                # In one second by longitude, then latitude, the order of coordinates.
                slots.sort(key=lambda slot: (max(slot[0], 0), slot[2], slot[1], slot[4], slot[3]))
                rows.append((user, origin, *literal([(a, b, lat, lon) for a, b, _, lat, lon in slots], width, rule)))
    return rows


def assert_is_expected(series: RawSeries, rows: list[tuple], tokenizer: RawTokenizer = BERLIN) -> None:
    assert series.user_ids.tolist() == [row[0] for row in rows]
    assert series.window_start.tolist() == [row[1] for row in rows]
    for row, (_, _, points, observed) in enumerate(rows):
        piece = slice(series.offsets[row], series.offsets[row + 1])
        lat, lon = np.array(points).T
        np.testing.assert_allclose(series.coordinates[piece], tokenizer.normalize(lat, lon), atol=1e-6)
        assert series.observed[piece].astype(int).tolist() == observed


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(1, 25), min_size=1, max_size=4),
    st.floats(0.1, 7.0),
    st.booleans(),
    st.sampled_from(["paper", "forward"]),
)
@example(6650, [12, 25, 25, 25], 0.1, False, "paper")  # two records in one second
@example(963, [1, 7], 0.109375, False, "paper")  # the more northern one of which is farther west
def test_every_slot_is_what_the_rules_say(seed: int, lengths: list, days: float, stays: bool, rule: str) -> None:
    frame = make_points(tuple(lengths), days=days, seed=seed, stays=stays)
    series = BERLIN.encode_points(frame.sample(frac=1, random_state=seed), fill=rule)
    assert_is_expected(series, expected(frame, "Europe/Berlin", 192, rule))


def test_stays_follow_the_paper_and_points_the_last_known_position() -> None:
    points, stays = make_points(days=3), make_points(days=3, stays=True)
    assert_equal_series(BERLIN.encode_points(points), BERLIN.encode_points(points, fill="forward"))
    assert_equal_series(BERLIN.encode_points(stays), BERLIN.encode_points(stays, fill="paper"))
    unknown = stays.assign(duration=np.nan)
    assert_equal_series(BERLIN.encode_points(unknown), BERLIN.encode_points(points, fill="paper"))


def day_of(records: list[tuple[str, float, float]], **kwargs: Any) -> tuple[list, list]:
    """Positions and observed flags of one day; records (time of day, minutes of stay, lon)."""
    frame = pd.DataFrame(
        {
            "time": pd.to_datetime([f"2024-03-05 {clock}" for clock, _, _ in records]).tz_localize("Europe/Berlin"),
            "duration": [60.0 * minutes for _, minutes, _ in records],
            "lat": 52.5,
            "lon": [lon for _, _, lon in records],
        }
    )
    series = BERLIN.encode_points(frame, **kwargs)
    lon = BERLIN.denormalize(series.coordinates)[1].round(3)
    return lon.tolist(), series.observed.astype(int).tolist()


def test_a_gap_takes_what_follows_it_in_the_paper() -> None:
    """Home until 8:00, work 9:00 to 17:00: the slots from 8:00 to 9:00 are work's, and so is the evening."""
    records = [("06:00", 120, 13.1), ("09:00", 480, 13.2)]
    lon, observed = day_of(records)
    assert lon == [13.1] * 32 + [13.2] * 64
    assert observed == [0] * 24 + [1] * 8 + [0] * 4 + [1] * 32 + [0] * 28
    assert day_of(records, fill="forward")[0] == [13.1] * 36 + [13.2] * 60


def test_a_record_that_ends_in_a_filled_slot_is_skipped_in_the_paper() -> None:
    records = [("06:00", 125, 13.1), ("07:00", 30, 13.2), ("08:06", 8, 13.3), ("08:15", 15, 13.4)]
    assert day_of(records)[0] == [13.1] * 33 + [13.4] * 63
    assert day_of(records, fill="forward")[0] == [13.1] * 28 + [13.2] * 4 + [13.3] + [13.4] * 63


def test_a_stay_ends_with_its_last_second() -> None:
    """8:00 to 9:00 are four slots; a second more is a fifth."""
    assert sum(day_of([("08:00", 60, 13.1)])[1]) == 4
    assert sum(day_of([("08:00", 60 + 1 / 60, 13.1)])[1]) == 5
    assert sum(day_of([("08:00", 0, 13.1)])[1]) == 1


def test_records_of_equal_time_are_settled_by_their_values() -> None:
    frame = pd.DataFrame({"time": [START + 60] * 3, "lat": 52.5, "lon": [13.2, 13.4, 13.3]})
    for rows in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        for rule, lon in (("forward", 13.4), ("paper", 13.2)):
            series = BERLIN.encode_points(frame.iloc[rows], fill=rule)
            np.testing.assert_allclose(BERLIN.denormalize(series.coordinates)[1], lon, atol=1e-6)


def test_a_stay_over_the_edge_is_in_both_windows() -> None:
    frame = pd.DataFrame(
        {"time": [START + 600, START + 46 * 3600], "lat": 52.5, "lon": [13.1, 13.2], "duration": [60.0, 5 * 3600.0]}
    )
    series = BERLIN.encode_points(frame, end="2024-03-07")
    assert len(series) == 2 and np.diff(series.offsets).tolist() == [192, 96]
    assert series.observed[[0, 183, 184, 191, 192, 203, 204]].tolist() == [True, False, True, True, True, True, False]


def test_a_stay_that_outlasts_the_data_makes_no_day_of_its_own() -> None:
    frame = pd.DataFrame({"time": [START, START + 47 * 3600], "lat": 52.5, "lon": 13.1, "duration": 10 * 3600.0})
    series = BERLIN.encode_points(frame)
    assert len(series) == 1 and len(series.observed) == 192 and series.observed[-4:].all()


def test_one_point_fills_a_whole_day() -> None:
    batch = BERLIN({"time": [START + 3600], "lat": [52.5], "lon": [13.4]}, return_tensors="pt")
    assert batch["coordinates"].shape == (1, 96, 2) and batch["observed_mask"].sum() == 1
    assert (batch["coordinates"] == batch["coordinates"][0, 0]).all() and batch["observed_mask"][0, 4] == 1


# Windows


def test_windows_begin_at_the_same_midnight_for_everybody() -> None:
    frame = make_points((30, 2), days=7)
    frame.loc[frame["user_id"] == 6, "time"] += pd.Timedelta(days=5)
    series = BERLIN.encode_points(frame)
    midnights = pd.to_datetime(series.window_start, unit="s")
    assert (midnights.normalize() == midnights).all() and (
        np.diff(np.unique(series.window_start)) % (2 * DAY) == 0
    ).all()
    assert series.start_weekday.tolist() == midnights.day_of_week.tolist()
    assert {5, 6} == set(series.user_ids.tolist()) and len(series) == len(
        set(zip(series.user_ids, series.window_start))
    )


def test_windows_in_which_a_person_has_no_record_are_left_out() -> None:
    frame = pd.DataFrame({"user_id": [1, 1, 2], "time": [START, START + 5 * DAY, START], "lat": 52.5, "lon": 13.4})
    series = BERLIN.encode_points(frame)
    assert series.user_ids.tolist() == [1, 1, 2]
    assert ((series.window_start - series.window_start[0]) // DAY).tolist() == [0, 4, 0]


def test_a_window_depends_on_its_own_records_only() -> None:
    frame = make_points((40,), days=7.9, seed=3)
    whole = BERLIN.encode_points(frame)
    for row in range(len(whole)):
        day = dt.datetime.fromtimestamp(whole.window_start[row], dt.timezone.utc).date()
        alone = BERLIN.encode_points(frame, start=day, end=day + dt.timedelta(days=2))
        piece = slice(whole.offsets[row], whole.offsets[row + 1])
        assert np.array_equal(alone.coordinates, whole.coordinates[piece])


def test_start_and_end_choose_the_days() -> None:
    frame = make_points((40,), days=5.9)
    for day in ("2024-03-06", dt.date(2024, 3, 6), dt.datetime(2024, 3, 6, 12, tzinfo=ZoneInfo("Europe/Berlin"))):
        series = BERLIN.encode_points(frame, start=day, end="2024-03-08")
        assert len(series) == 1 and series.window_start[0] == pd.Timestamp("2024-03-06").timestamp()
    assert BERLIN.encode_points(frame, start="2024-03-01").window_start[0] == pd.Timestamp("2024-03-03").timestamp()
    long = BERLIN(frame, start="2024-03-04", end="2024-03-14", max_length=960, return_tensors="pt")
    assert long["coordinates"].shape == (1, 960, 2)


@pytest.mark.parametrize(("side", "day"), [("left", "2024-03-08"), ("right", "2024-03-04")])
def test_truncation_keeps_one_window(side: str, day: str) -> None:
    frame = make_points((60,), days=5.9)
    tokenizer = RawTokenizer.from_bounds(BOUNDS, timezone="Europe/Berlin", model_max_length=192, truncation_side=side)
    series = tokenizer.encode_points(frame, truncation=True)
    assert len(series) == 1 and series.window_start[0] == pd.Timestamp(day).timestamp()


def test_other_intervals() -> None:
    frame = make_points((20, 20), days=3, stays=True)
    half_hours = RawTokenizer.from_city(BERLIN.city, interval_minutes=30, model_max_length=96)
    series = half_hours.encode_points(frame)
    assert_is_expected(series, expected(frame, "Europe/Berlin", 96, "paper", minutes=30))
    with pytest.raises(ValueError, match="interval_minutes must divide a day, got 7"):
        RawTokenizer.from_city(BERLIN.city, interval_minutes=7)
    with pytest.raises(TypeError, match="interval_minutes"):
        BERLIN.encode_points(frame, interval_minutes=30)  # `decode` would read its times back with another interval
    with pytest.raises(ValueError, match="a window of 100 slots is no whole number of days of 96 slots"):
        BERLIN(frame, max_length=100)


# The clock

ZONES = ["Europe/Berlin", "Asia/Shanghai", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe", "UTC"]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("day", ["2024-03-29", "2024-10-25", "2024-04-05", "2024-11-01"])
@pytest.mark.parametrize("rule", ["paper", "forward"])
def test_slots_are_those_of_the_local_clock_also_when_it_changes(zone: str, day: str, rule: str) -> None:
    frame = make_points((200, 30), days=4, stays=rule == "paper")
    frame["time"] += pd.Timestamp(day, tz="UTC") - pd.Timestamp(START, unit="s", tz="UTC")
    tokenizer = RawTokenizer.from_bounds(BOUNDS, timezone=zone, model_max_length=192)
    series = tokenizer.encode_points(frame)
    assert_is_expected(series, expected(frame, zone, 192, rule), tokenizer)
    assert set(np.diff(series.offsets) % 96) == {0}


def test_days_of_23_and_25_hours_have_96_slots() -> None:
    """Berlin: 31 March 2024, 2:00 to 3:00 does not exist and is filled; 27 October, 2:00 to 3:00 comes twice."""
    for day, hours, seen in (("2024-03-31", 23, 92), ("2024-10-27", 25, 96)):
        times = pd.date_range(day, periods=hours * 4, freq="15min", tz="Europe/Berlin")
        lon = 13.1 + 0.005 * np.arange(len(times))
        series = BERLIN.encode_points({"time": times, "lat": [52.5] * len(times), "lon": lon})
        assert len(series.observed) == 96 and series.observed.sum() == seen
        found = BERLIN.denormalize(series.coordinates)[1]
        if hours == 23:
            assert not series.observed[8:12].any()
            np.testing.assert_allclose(found[7:13], lon[[7, 7, 7, 7, 7, 8]], atol=1e-6)
        else:
            np.testing.assert_allclose(found[7:13], lon[[7, 12, 13, 14, 15, 16]], atol=1e-6)


# Forms of input


def all_forms(frame: pd.DataFrame) -> dict[str, Any]:
    epoch = frame.assign(time=frame["time"].map(pd.Timestamp.timestamp).astype("int64"))
    shuffled = frame.sample(frac=1, random_state=1)
    mixed = [t.tz_convert("Asia/Tokyo" if i % 2 else "UTC").to_pydatetime() for i, t in enumerate(frame["time"])]
    return {
        "frame": frame,
        "shuffled": shuffled,
        "seconds": frame.assign(time=frame["time"].dt.as_unit("s")),
        "nanoseconds": frame.assign(time=frame["time"].dt.as_unit("ns")),
        "another zone": frame.assign(time=frame["time"].dt.tz_convert("Asia/Tokyo")),
        "mixed zones": frame.assign(time=pd.Series(mixed, dtype=object)),
        "other index": frame.set_index(np.arange(len(frame))[::-1] * 7),
        "epoch seconds": epoch,
        "float32-free arrays": {name: epoch[name].to_numpy() for name in epoch},
        "dict of lists": frame.to_dict("list"),
        "list of dicts": frame.to_dict("records"),
        "arrow": pa.Table.from_pandas(frame),
        "arrow, epoch seconds": pa.Table.from_pandas(epoch),
        "dataset": datasets.Dataset.from_pandas(frame),
        "dataset, epoch seconds": datasets.Dataset.from_pandas(epoch),
        "category ids": frame.astype({"user_id": "category"}),
    }


@pytest.mark.parametrize("stays", [False, True], ids=["points", "stays"])
@pytest.mark.parametrize("form", all_forms(make_points()))
def test_every_form_of_input_gives_the_same_series(form: str, stays: bool) -> None:
    frame = make_points((30, 20, 1), days=4, stays=stays)
    assert_equal_series(BERLIN.encode_points(all_forms(frame)[form]), BERLIN.encode_points(frame))


@pytest.mark.parametrize("dtype", [object, "string", "str"])
def test_people_may_have_text_names_and_columns_other_names(dtype: Any) -> None:
    frame = make_points()
    renamed = frame.assign(user_id=("u" + frame["user_id"].astype(str)).astype(dtype))
    renamed = renamed.rename(columns={"user_id": "uid", "time": "when", "lat": "y", "lon": "x"})
    series = BERLIN.encode_points(renamed, user_id="uid", time="when", lat="y", lon="x")
    assert series.user_ids.tolist() == ["u5", "u6", "u7"]
    assert np.array_equal(series.coordinates, BERLIN.encode_points(frame).coordinates)


def test_without_a_user_column_there_is_one_person() -> None:
    frame = make_points((5,))
    series = BERLIN.encode_points(frame.drop(columns="user_id"))
    assert np.array_equal(series.coordinates, BERLIN.encode_points(frame).coordinates) and len(series.users) == 1


@pytest.mark.parametrize("form", ["frame", "dict of lists", "list of dicts", "arrow", "float32-free arrays"])
def test_the_callers_data_are_not_changed(form: str) -> None:
    given_points = all_forms(make_points(stays=True))[form]
    before = copy.deepcopy(given_points)
    BERLIN(given_points, padding=True, return_tensors="pt", outside="drop")
    if isinstance(before, dict):
        assert all(np.array_equal(given_points[name], before[name]) for name in before)
    else:
        assert given_points.equals(before) if hasattr(given_points, "equals") else given_points == before


# Degrees, units, metres


@settings(max_examples=50, deadline=None)
@given(st.floats(-90, 90), st.floats(-180, 180))
def test_denormalised_units_are_the_degrees(lat: float, lon: float) -> None:
    found_lat, found_lon = BERLIN.denormalize(BERLIN.normalize(lat, lon))
    assert found_lat == pytest.approx(lat, abs=1e-9) and -180 <= found_lon <= 180
    assert abs((found_lon - lon + 180) % 360 - 180) < 1e-9  # -180 and 180 are one meridian


def test_the_old_spelling_is_understood_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="normalise is now normalize"):
        units = BERLIN.normalise([52.5], [13.4])
    with pytest.warns(FutureWarning, match="denormalise is now denormalize"):
        np.testing.assert_array_equal(BERLIN.denormalise(units), BERLIN.denormalize(units))


def test_the_papers_box_is_that_of_the_specification() -> None:
    tokenizer = RawTokenizer.from_bounds(timezone="Asia/Shanghai")
    assert tokenizer.bounds == PAPER_BOUNDS and tokenizer.model_max_length == 960
    units = tokenizer.normalize(np.array([39.9, 41.058964]), np.array([116.4, 115.416827]))
    np.testing.assert_allclose(units[0], [(116.4 - 116.462522) / 1.045695, (39.9 - 40.250521) / 0.808443], atol=1e-9)
    np.testing.assert_allclose(units[1], [-1, 1], atol=1e-9)
    np.testing.assert_allclose(tokenizer.metres_per_unit(), [88_800, 89_900], atol=100)
    assert tokenizer.metres_per_unit(paper=True).tolist() == [100_000, 100_000]


def test_metres_are_great_circles() -> None:
    east, north = BERLIN.metres_per_unit()
    lat, lon = 52.5, 13.4
    a, b = BERLIN.denormalize(np.array([[0.1, 0.0], [0.0, 0.1]]))
    for metres, other_lat, other_lon in ((east, a[0], b[0]), (north, a[1], b[1])):
        x = np.radians(other_lon - lon) * np.cos(np.radians((lat + other_lat) / 2))
        found = 6_371_009 * np.hypot(x, np.radians(other_lat - lat))
        assert found == pytest.approx(0.1 * metres, rel=1e-3)


def test_the_box_of_points_is_a_little_wider_than_they_are() -> None:
    frame = make_points((50,))
    tokenizer = RawTokenizer.from_points(frame, timezone="Europe/Berlin", margin=0.1)
    units = tokenizer.normalize(frame["lat"], frame["lon"])
    np.testing.assert_allclose(np.abs(units).max(0), 1 / 1.2, atol=0.01)
    assert RawTokenizer.from_points(frame[["lat", "lon"]], timezone="UTC", margin=0.1).bounds == tokenizer.bounds
    alike = RawTokenizer.from_points({"time": [0], "lat": [48.0], "lon": [11.0]}, timezone="UTC")
    assert alike.bounds == pytest.approx((47.995, 10.995, 48.005, 11.005))


def test_decoded_series_are_records_that_encode_to_the_same() -> None:
    frame = make_points((40, 10), days=3.9)
    series = BERLIN.encode_points(frame)
    batch = BERLIN.to_batch(series, padding="max_length", return_tensors="pt")
    columns = BERLIN.decode(
        batch["coordinates"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        window_start=series.window_start,
        user_ids=series.user_ids,
    )
    assert list(columns) == ["user_id", "time", "lat", "lon"] and len(columns["time"]) == int(
        batch["attention_mask"].sum()
    )
    again = BERLIN.encode_points(pd.DataFrame(columns))
    np.testing.assert_allclose(again.coordinates, series.coordinates, atol=1e-6)
    assert again.observed.all() and np.array_equal(again.window_start, series.window_start)


def test_decoding_leaves_out_the_hour_that_does_not_exist() -> None:
    series = BERLIN.encode_points({"time": [1_711_839_600 + 3600], "lat": [52.5], "lon": [13.4]})  # 31 March 2024
    columns = BERLIN.decode(series.coordinates, window_start=series.window_start)
    times = pd.to_datetime(columns["time"], unit="s", utc=True).tz_convert("Europe/Berlin")
    assert len(times) == 92 and (np.diff(columns["time"]) == 900).all()
    assert times[0] == pd.Timestamp("2024-03-31", tz="Europe/Berlin") and 2 not in times.hour


def test_coordinates_alone_decode_to_degrees() -> None:
    columns = BERLIN.decode(torch.tensor([[0.0, 0.0], [1.0, -1.0]], dtype=torch.bfloat16))
    np.testing.assert_allclose(columns["lat"], [52.5, 52.3], atol=1e-9)
    np.testing.assert_allclose(columns["lon"], [13.4, 13.8], atol=1e-9)
    with pytest.raises(ValueError, match="coordinates must be"):
        BERLIN.decode([1.0, 2.0])
