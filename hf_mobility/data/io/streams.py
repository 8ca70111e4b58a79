"""Parquet tables larger than memory: read in chunks of whole users, or sorted by user into files of whole users.

    for chunk in user_chunks("visits/"):
        stays = detect_stays(validate_points(chunk))

Functions that treat each user alone give the same rows for all chunks as for the whole table. Memory is that of one
chunk and of 8 bytes a user.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ...tokenization.errors import SHOWN, DataError, listing
from ...tokenization.table_files import readable
from ...tokenization.whole_files import whole_folder

__all__ = [
    "UserChunks",
    "are_many",
    "arrow_table",
    "parquet_files",
    "partition_by_user",
    "row_blocks",
    "user_chunks",
]

ROWS = 1_000_000
BATCH = 65_536  # rows that are read at one time
_MOST_PARTS = 512  # files that are written at one time


@dataclass(frozen=True)
class UserChunks:
    """The chunks of `user_chunks`: iterate as often as you like; `len` is their number.

    `files`: in the order they are read. `stops` (chunks,): rows of all files up to the end of each chunk. `schema`: of
    the columns that are read.
    """

    files: tuple[Path, ...]
    stops: tuple[int, ...]
    schema: Any

    def __len__(self) -> int:
        return len(self.stops)

    def __iter__(self) -> Iterator[pd.DataFrame]:
        stops, pieces, rows = iter([*self.stops, math.inf]), [], 0
        stop = next(stops)
        for table in _tables(self.files, self.schema, BATCH):
            while rows + len(table) >= stop:
                pieces.append(table.slice(0, int(stop) - rows))
                chunk = pa.concat_tables(pieces).to_pandas()
                yield chunk.set_axis(pd.RangeIndex(int(stop) - len(chunk), int(stop)))
                table, pieces, rows, stop = table.slice(int(stop) - rows), [], int(stop), next(stops)
            pieces.append(table)
            rows += len(table)
        if stop != math.inf or rows > self.stops[-1]:
            raise DataError(
                f"The files hold other rows than before ({rows:,}, not {self.stops[-1]:,}): read them anew."
            )


def user_chunks(
    source: str | Path,
    *,
    user_id: str = "user_id",
    columns: Sequence[str] | None = None,
    rows: int = ROWS,
) -> UserChunks:
    """Frames of whole users of one or many Parquet files, which must hold the rows of every user one after the other.

    The column of users is read first, so that nothing is worked on where a user returns in a later chunk.

    Args:
        source: a Parquet file, a folder of them, or a pattern such as "visits/*.parquet"; files are read by name.
        user_id: name of the column of users.
        columns: names of the columns to read, by default all.
        rows: of a chunk; it ends with the user who reaches that number.

    Returns:
        Frames with the files' columns, their rows numbered through all files. They are not yet checked: give them to
        `validate_visits` or `validate_points`, whose sentences then name these numbers.

    Raises:
        DataError: files that cannot be read, have no rows or other columns than the first; users whose rows are in
            several chunks.
        FileNotFoundError: no such file.

    Example:
        >>> for chunk in user_chunks("visits/*.parquet"):  # doctest: +SKIP
        ...     answers = pipe.predict(chunk, timezone="Europe/Paris")
    """
    if rows < 1:
        raise DataError(f"rows must be at least 1, not {rows}.")
    files = parquet_files(source)
    schema = _schema(files)
    stops = _stops(files, _users_only(schema, user_id, files[0]), rows)
    if columns is not None:
        schema = _selected(schema, columns, files[0])
    return UserChunks(tuple(files), tuple(stops), schema)


def partition_by_user(
    source: str | Path, folder: str | Path, *, user_id: str = "user_id", parts: int | None = None
) -> list[Path]:
    """Write Parquet files of any order as files that each hold the whole histories of some users, sorted by user.

    All rows and columns are kept, and rows of one user stay in their order. Memory is that of one part and of a million
    rows; the disk holds the table twice for a while.

    Args:
        source: as in `user_chunks`.
        folder: to write `part-00000.parquet` and so on to, all or none; new or empty.
        user_id: name of the column of users.
        parts: number of files, by default one for each million rows, 512 at most.

    Returns:
        The paths of the parts that have rows.

    Raises:
        DataError: files that cannot be read, have no rows or other columns than the first; a folder that is not empty.
        FileNotFoundError: no such file.

    Example:
        >>> partition_by_user("days/*.parquet", "users", parts=100)  # doctest: +SKIP
    """
    files, target = parquet_files(source), Path(folder)
    if target.is_dir() and any(target.iterdir()):
        raise DataError(f"The folder {target} is not empty; name a new one.")
    schema = _schema(files)
    _users_only(schema, user_id, files[0])
    total = sum(_metadata(path).num_rows for path in files)
    if not total:
        raise DataError(f"{source} has no rows; at least one row is needed.")
    parts = min(math.ceil(total / ROWS), _MOST_PARTS) if parts is None else parts
    if parts < 1:
        raise DataError(f"parts must be at least 1, not {parts}.")
    with whole_folder(target) as scratch:
        mixed = [scratch / f"mixed-{number:05}.parquet" for number in range(parts)]
        with ExitStack() as stack:
            writers = [stack.enter_context(pq.ParquetWriter(path, schema)) for path in mixed]
            for table in _tables(files, schema, ROWS):
                users, codes = _coded(table[user_id])
                part = np.append(_hashes(users) % np.uint64(parts), 0).astype(np.int64)[codes]  # 0 where it is missing
                table = table.take(pa.array(np.argsort(part, kind="stable")))
                stops = np.cumsum(np.bincount(part, minlength=parts))
                for writer, start, stop in zip(writers, [0, *stops], stops):
                    if stop > start:
                        writer.write_table(table.slice(start, stop - start))
        names: list[str] = []
        for path in mixed:
            table = pq.read_table(path)
            path.unlink()
            if len(table):
                names.append(f"part-{len(names):05}.parquet")
                pq.write_table(table.sort_by(user_id), scratch / names[-1])
    return [target / name for name in names]


def row_blocks(source: str | Path, *, rows: int = ROWS) -> Iterator[pd.DataFrame]:
    """All rows of one or many Parquet files, which may be in any order, as frames of at most so many rows. Arguments,
    row numbers and errors as in `user_chunks`."""
    files, start = parquet_files(source), 0
    for table in _tables(files, _schema(files), rows):
        yield table.to_pandas().set_axis(pd.RangeIndex(start, start + len(table)))
        start += len(table)
    if not start:
        raise DataError("The files have no rows; at least one row is needed.")


def are_many(source: Any) -> bool:
    """Whether a source is a folder, or a pattern of files."""
    if not isinstance(source, (str, Path)):
        return False
    path = Path(source)
    return path.is_dir() or (any(sign in str(source) for sign in "*?[") and not path.exists())


def parquet_files(source: str | Path) -> list[Path]:
    """The Parquet files of a path, a folder or a pattern, by name; hidden files are left out.

    Raises:
        FileNotFoundError: there is none.
        DataError: files of another type.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(file for file in path.glob("*.parquet") if not file.name.startswith("."))
    else:
        found = [path] if path.exists() else sorted(map(Path, glob(str(source), recursive=True)))
    if not found:
        raise FileNotFoundError(
            f"There is no .parquet file in {path}." if path.is_dir() else f"There is no file {path}."
        )
    others = [file.name for file in found if file.suffix != ".parquet"]
    if others:
        raise DataError(f"Tables are read in chunks from .parquet files, not from {listing(others[:SHOWN])}.")
    return found


def arrow_table(part: Any) -> pa.Table:
    """The Arrow table of a part of a larger table: of a frame, a `datasets.Dataset` or an Arrow table.

    Columns without a value in this part are texts, as they are in other parts.
    """
    if isinstance(part, pd.DataFrame):
        part = pa.Table.from_pandas(part, preserve_index=False)
    table = part if isinstance(part, pa.Table) else part.with_format("arrow")[:]
    empty = [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in table.schema]
    return table.cast(pa.schema(empty, metadata=table.schema.metadata))


# --------------------------------------------------------------------------------------------------------------- files


def _metadata(path: Path) -> Any:
    with readable(path, "Parquet"):
        return pq.read_metadata(path)


def _schema(files: Sequence[Path]) -> pa.Schema:
    """The columns that all files have; one without any value in a file has the type of the others.

    Raises:
        DataError: a file that has other columns than the first.
    """
    types = _types(files[0])
    for path in files[1:]:
        own, other = _types(path), []
        for name in sorted(types.keys() | own.keys()):
            here, there = (str(kinds.get(name, "missing")) for kinds in (own, types))
            if here != there and ("missing" in (here, there) or "null" not in (here, there)):
                other.append(f"{name} ({here}, not {there})")
            elif there == "null":
                types[name] = own[name]
        if other:
            raise DataError(
                f"{path.name} has other columns than {files[0].name}: {listing(other[:SHOWN])}; give all files the "
                "same columns of the same types."
            )
    return pa.schema(list(types.items()))


def _selected(schema: pa.Schema, names: Sequence[str], file: Path) -> pa.Schema:
    missing = [name for name in names if name not in schema.names]
    if missing:
        raise DataError(
            f"{file.name} lacks the column(s) {listing(missing)}; it has {listing(schema.names)}: column names are "
            "arguments, so pass the one that you have, as in user_id='my_column'."
        )
    return pa.schema([schema.field(name) for name in names])


def _users_only(schema: pa.Schema, user_id: str, file: Path) -> pa.Schema:
    users = _selected(schema, [user_id], file)
    kind = users.types[0]
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_string(kind)):
        raise DataError(f"Column {user_id!r} holds {kind} values; ids must be integers or strings.")
    return users


def _types(path: Path) -> dict[str, Any]:
    """Names and types of a file's columns; a type counts as that of its values, however they are stored."""
    with readable(path, "Parquet"):
        schema = pq.read_schema(path)
    types = {}
    for name, kind in zip(schema.names, schema.types):
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        types[name] = pa.string() if pa.types.is_large_string(kind) else kind
    return types


def _tables(files: Iterable[Path], schema: Any, rows: int) -> Iterator[Any]:
    """Arrow tables of at most so many rows, none empty and all of one schema."""
    for path in files:
        with readable(path, "Parquet"), pq.ParquetFile(path) as file:
            for batch in filter(len, file.iter_batches(rows, columns=schema.names)):
                yield pa.Table.from_batches([batch]).select(schema.names).cast(schema)


# --------------------------------------------------------------------------------------------------------------- users


class _Seen:
    """The users of earlier chunks, by sorted 64-bit hashes."""

    def __init__(self) -> None:
        self.hashes, self.returned = np.empty(0, np.uint64), np.empty(0, np.uint64)
        self.first: list[Any] = []

    def add(self, users: np.ndarray) -> None:
        """Those of one chunk; a user may be named several times."""
        hashes, row = np.unique(_hashes(users), return_index=True)
        place = np.searchsorted(self.hashes, hashes)
        known = np.searchsorted(self.hashes, hashes, side="right") > place
        self.hashes = np.insert(self.hashes, place[~known], hashes[~known])
        new = known & ~np.isin(hashes, self.returned)
        self.first += users[np.sort(row[new])][: SHOWN - len(self.first)].tolist()
        self.returned = np.union1d(self.returned, hashes[new])


def _stops(files: Sequence[Path], schema: pa.Schema, rows: int) -> list[int]:
    """Rows up to the end of each chunk, from the column of users alone.

    Raises:
        DataError: no rows, missing users, or users in several chunks.
    """
    seen, stops, total = _Seen(), [0], 0
    held: list[np.ndarray] = []  # users of the chunk so far
    last = None
    for path in files:
        for table in _tables([path], schema, BATCH):
            if table.column(0).null_count:
                name = schema.names[0]
                raise DataError(
                    f"{path.name}: values of column {name!r} are missing; drop these rows or give them an id."
                )
            at, users = _runs(table)
            goes_on, last = total > 0 and users[0] == last, users[-1]
            at, users = (at[1:], users[1:]) if goes_on else (at, users)
            at += total
            while (cut := int(np.searchsorted(at, stops[-1] + rows))) < len(at):
                seen.add(np.concatenate([*held, users[:cut]]))
                stops.append(int(at[cut]))
                held, at, users = [], at[cut:], users[cut:]
            held.append(users)
            total += len(table)
    if not total:
        raise DataError("The files have no rows; at least one row is needed.")
    seen.add(np.concatenate(held))
    if len(seen.returned):
        raise DataError(
            f"{len(seen.returned):,} of {len(seen.hashes):,} users have rows in several chunks (first: {seen.first}): "
            "files must hold all rows of a user one after the other; `hf-mobility prepare` and partition_by_user write "
            "them so."
        )
    return [*stops[1:], total]


def _runs(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a table at which another user begins, and these users."""
    users, codes = _coded(table.column(0))
    at = np.flatnonzero(np.diff(codes, prepend=-1))
    return at, users[codes[at]]


def _coded(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct users (U,), and the row in them of each row, -1 = missing."""
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.dictionary.to_numpy(zero_copy_only=False), encoded.indices.fill_null(-1).to_numpy()


def _hashes(users: np.ndarray) -> np.ndarray:
    """(n,) uint64. Two of ten million users have the same with a probability of 3 in a million."""
    return pd.util.hash_array(users)
