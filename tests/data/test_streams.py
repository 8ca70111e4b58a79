"""Parquet tables in chunks of whole users: the chunks are the table, and what cannot be read so is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from hf_mobility.data import DataError, detect_stays, simulate_city, validate_points, validate_visits
from hf_mobility.data.io import streams
from hf_mobility.data.io.streams import arrow_table, partition_by_user, user_chunks


def histories(seed: int, *, text: bool = False) -> pd.DataFrame:
    """The rows of forty users, in no order of users but one user after the other."""
    rng = np.random.default_rng(seed)
    user = np.repeat(rng.permutation(40), rng.integers(1, 9, 40))
    ids = np.array([f"user {number}" for number in user], dtype=object) if text else user
    return pd.DataFrame({"user_id": ids, "row": np.arange(len(user))})


def write(frame: pd.DataFrame, folder: Path, cuts: list[int]) -> Path:
    """The frame in files that are cut at these rows, also inside a user or where nothing is left for a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(frame)])):
        frame[start:stop].to_parquet(folder / f"{number:02}.parquet", index=False)
    return folder


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that end inside users."""
    monkeypatch.setattr(streams, "BATCH", 3)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 40, 1000])
def test_chunks_are_the_table_cut_behind_the_user_who_reaches_the_number_of_rows(
    rows: int, text: bool, tmp_path: Path, small_batches: None
) -> None:
    frame = histories(rows, text=text)
    chunks = user_chunks(write(frame, tmp_path, [5, 5, 23, 70]), rows=rows)
    expected = [0]
    for _, user in frame.groupby("user_id", sort=False):
        expected[-1] += len(user)
        expected += [0] if expected[-1] >= rows else []
    pieces = list(chunks)
    assert [len(piece) for piece in pieces] == [size for size in expected if size]
    pd.testing.assert_frame_equal(pd.concat(pieces), frame)
    assert len(pieces) == len(chunks) == len(list(chunks))
    assert sum(piece["user_id"].nunique() for piece in pieces) == 40


def test_a_file_a_folder_and_a_pattern_are_read_by_name_without_hidden_files(tmp_path: Path) -> None:
    frame = histories(0)
    folder = write(frame, tmp_path / "visits", [30])
    (folder / ".99.parquet").write_text("left by a crash", encoding="utf-8")
    (folder / "_SUCCESS").touch()
    for source in (folder, str(folder), folder / "*.parquet", f"{tmp_path}/*/0?.parquet"):
        pd.testing.assert_frame_equal(next(iter(user_chunks(source))), frame)
    (only,) = user_chunks(folder / "00.parquet")
    pd.testing.assert_frame_equal(only, frame[:30])


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    folder = write(histories(0).assign(x=1.0), tmp_path, [])
    (chunk,) = user_chunks(folder, columns=["x", "user_id"])
    assert chunk.columns.tolist() == ["x", "user_id"]
    with pytest.raises(DataError, match=r"00.parquet lacks the column\(s\) y; it has user_id, row, x"):
        user_chunks(folder, columns=["y"])
    with pytest.raises(DataError, match=r"lacks the column\(s\) uid; .* as in user_id='my_column'"):
        user_chunks(folder, user_id="uid")


def test_types_are_those_of_the_values_however_they_are_stored(tmp_path: Path) -> None:
    """Files of other writers, or without a value in one of the columns."""
    frame = pd.DataFrame({"user_id": ["a", "b"], "category": ["home", "work"]})
    pq.write_table(pa.table({"user_id": ["a"], "category": pa.nulls(1)}), tmp_path / "0.parquet")
    frame.astype({"category": "category"})[:1].to_parquet(tmp_path / "1.parquet", index=False)
    large = pa.schema([("category", pa.large_string()), ("user_id", pa.large_string())])
    pq.write_table(pa.Table.from_pandas(frame[1:], schema=large), tmp_path / "2.parquet")
    (chunk,) = user_chunks(tmp_path)
    assert chunk["user_id"].tolist() == ["a", "a", "b"]
    assert chunk["category"].isna().tolist() == [True, False, False]
    assert chunk["category"].tolist()[1:] == ["home", "work"]


def test_a_user_who_returns_is_found_before_the_first_chunk(tmp_path: Path, small_batches: None) -> None:
    users = [*"aabbccddeeffgg", *"bacdefgb", *"hh"]
    folder = write(pd.DataFrame({"user_id": users}), tmp_path, [4])
    told = r"7 of 8 users have rows in several chunks \(first: \['b', 'a', 'c', 'd', 'e'\]\).*hf-mobility prepare"
    with pytest.raises(DataError, match=told):
        user_chunks(folder, rows=2)
    (whole,) = user_chunks(folder, rows=100)
    assert whole["user_id"].tolist() == users


def test_no_more_is_read_than_a_chunk_and_a_batch(
    tmp_path: Path, small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = user_chunks(write(histories(0), tmp_path, [30, 60]), rows=10)
    longest, read, given, tables = 8, 0, 0, streams._tables

    def counted(*arguments: Any) -> Any:
        nonlocal read
        for table in tables(*arguments):
            read += len(table)
            yield table

    monkeypatch.setattr(streams, "_tables", counted)
    for chunk in chunks:
        assert read - given <= 10 + longest + streams.BATCH
        given += len(chunk)
    assert read == given


def test_seen_users_cost_eight_bytes_each() -> None:
    seen = streams._Seen()
    for first in range(0, 1000, 100):
        seen.add(np.repeat([f"a rather long name of a user, number {i}" for i in range(first, first + 100)], 3))
    assert seen.hashes.nbytes == 8 * 1000 and seen.returned.nbytes == 0


def faults(folder: Path) -> dict[str, Any]:
    """Sentence -> a folder that is refused with it."""
    whole = histories(0)
    made = {}

    def put(sentence: str, **files: pd.DataFrame | bytes) -> None:
        where = folder / str(len(made))
        where.mkdir()
        for name, content in files.items():
            if isinstance(content, bytes):
                (where / f"{name}.parquet").write_bytes(content)
            else:
                content.to_parquet(where / f"{name}.parquet", index=False)
        made[sentence] = where

    put("b.parquet has other columns than a.parquet: row .missing, not int64.;", a=whole, b=whole[["user_id"]])
    put("b.parquet has other columns than a.parquet: x .double, not missing.;", a=whole, b=whole.assign(x=1.0))
    put("b.parquet has other columns .* row .double, not int64.", a=whole, b=whole.astype({"row": float}))
    put("b.parquet is no readable Parquet file", a=whole, b=b"PAR1")
    put("There is no .parquet file in")
    put("have no rows; at least one row is needed|has no rows; at least", a=whole[:0], b=whole[:0])
    put("holds list<.*> values; ids must be integers or strings", a=pd.DataFrame({"user_id": [[1], [2]]}))
    return made


def test_faults_of_files_are_refused_in_one_sentence_that_names_the_file(tmp_path: Path) -> None:
    for sentence, source in faults(tmp_path).items():
        with pytest.raises((DataError, FileNotFoundError), match=sentence):
            user_chunks(source)
        with pytest.raises((DataError, FileNotFoundError), match=sentence):
            partition_by_user(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match="There is no file"):
        user_chunks(tmp_path / "*.parquet")
    (tmp_path / "visits.csv").touch()
    with pytest.raises(DataError, match=r"from .parquet files, not from visits.csv"):
        user_chunks(tmp_path / "*.csv")
    with pytest.raises(DataError, match="rows must be at least 1, not 0"):
        user_chunks(tmp_path, rows=0)
    pd.DataFrame({"user_id": ["a", None]}).to_parquet(tmp_path / "gap.parquet")
    with pytest.raises(DataError, match=r"gap.parquet: values of column 'user_id' are missing"):
        user_chunks(tmp_path / "gap.parquet")


def test_pages_that_are_damaged_are_told_of_when_they_are_read(tmp_path: Path) -> None:
    """The column of users is whole; that of the rows is not."""
    frame = pd.DataFrame({"user_id": np.arange(5000) // 10, "row": np.random.default_rng(0).normal(size=5000)})
    path = tmp_path / "visits.parquet"
    frame.to_parquet(path, index=False, compression="gzip")
    chunks = user_chunks(path)
    start = pq.read_metadata(path).row_group(0).column(1).data_page_offset
    damaged = bytearray(path.read_bytes())
    damaged[start : start + 2000] = bytes(2000)
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"visits.parquet is no readable Parquet file"):
        list(chunks)


def test_files_that_change_between_two_readings_are_refused(tmp_path: Path) -> None:
    frame = histories(0)
    chunks = user_chunks(write(frame, tmp_path, []), rows=10)
    for other in (frame[:50], pd.concat([frame, frame])):
        write(other, tmp_path, [])
        with pytest.raises(DataError, match="hold other rows than before"):
            list(chunks)


@pytest.mark.parametrize("text", [False, True])
def test_partition_keeps_every_row_and_brings_the_rows_of_a_user_together(text: bool, tmp_path: Path) -> None:
    frame = histories(1, text=text).sample(frac=1, random_state=0, ignore_index=True)
    paths = partition_by_user(write(frame, tmp_path / "days", [31, 31, 90]), tmp_path / "users", parts=4)
    parts = [pd.read_parquet(path) for path in paths]
    assert sorted(path.name for path in (tmp_path / "users").iterdir()) == [path.name for path in paths]
    assert sum(part["user_id"].nunique() for part in parts) == 40
    made = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(
        made.sort_values("user_id", kind="stable", ignore_index=True),
        frame.sort_values("user_id", kind="stable", ignore_index=True),
    )
    assert sum(map(len, user_chunks(tmp_path / "users", rows=5))) == len(frame)


def test_partition_puts_missing_users_into_one_part_and_integers_stay_integers(tmp_path: Path) -> None:
    """A gap in one of two batches, where pandas would make floats of the integers."""
    users = pa.array([*range(20), None, *range(20), None], pa.int64())
    pq.write_table(pa.table({"user_id": users}), tmp_path / "a.parquet", row_group_size=21)
    pq.write_table(pa.table({"user_id": pa.array(range(20), pa.int64())}), tmp_path / "b.parquet")
    tables = [pq.read_table(path) for path in partition_by_user(tmp_path, tmp_path / "out", parts=3)]
    assert sum(table["user_id"].null_count > 0 for table in tables) == 1
    counts = pd.concat([table.to_pandas()["user_id"].value_counts() for table in tables])
    assert counts.index.is_unique and (counts == 3).all() and len(counts) == 20


def test_partition_writes_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(histories(0), tmp_path / "days", [])
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "x").touch()
    with pytest.raises(DataError, match="taken is not empty; name a new one"):
        partition_by_user(source, taken)
    with pytest.raises(DataError, match="parts must be at least 1, not 0"):
        partition_by_user(source, tmp_path / "out", parts=0)

    def stopped(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", stopped)
    with pytest.raises(KeyboardInterrupt):
        partition_by_user(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_faults_of_records_are_numbered_through_all_files(tmp_path: Path) -> None:
    points = pd.DataFrame({"user_id": np.arange(90) // 10, "time": np.arange(90), "lat": 48.0, "lon": 11.0})
    points.loc[74, "lat"] = 95.0
    *_, chunk = user_chunks(write(points, tmp_path, [33]), rows=60)
    with pytest.raises(DataError, match=r"first rows 74: 95.0"):
        validate_points(chunk)


def test_validation_and_stays_of_chunks_are_those_of_the_table(tmp_path: Path) -> None:
    made = simulate_city(12, num_days=10, seed=0)
    visits = made.visits
    folder = write(visits.sample(frac=1, random_state=0), tmp_path / "days", [100, 500])
    partition_by_user(folder, tmp_path / "users", parts=3)
    chunks = user_chunks(tmp_path / "users", rows=100)
    assert len(chunks) > 3

    def of_all(answers: list[pd.DataFrame]) -> pd.DataFrame:
        together = pd.concat(answers, ignore_index=True)
        return together.sort_values("user_id", kind="stable", ignore_index=True)

    pd.testing.assert_frame_equal(of_all([validate_visits(chunk) for chunk in chunks]), validate_visits(visits))
    stays = of_all([detect_stays(validate_points(chunk)) for chunk in chunks])
    pd.testing.assert_frame_equal(stays, detect_stays(validate_points(visits)))


def test_parts_of_every_kind_become_arrow_tables_of_one_schema() -> None:
    frame = pd.DataFrame({"user_id": [3, 1, 2], "category": ["home", None, "work"]}, index=[7, 8, 9])
    rows = Dataset.from_pandas(frame, preserve_index=False).select([2, 0])
    wanted = {"user_id": [2, 3], "category": ["work", "home"]}
    for part in (frame.iloc[[2, 0]], rows, rows.with_format("arrow")[:]):
        assert arrow_table(part).to_pydict() == wanted
    nothing = arrow_table(frame.iloc[[1]].astype({"category": object}))
    assert nothing.schema.types == [pa.int64(), pa.string()] and nothing.to_pydict()["category"] == [None]
