"""Tables larger than memory: a folder or a pattern of Parquet files in, a folder of parts out, chunk by chunk.

Each part is written whole or not at all, so a command that is stopped leaves whole parts only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from . import files
from .reading import Reading


def is_folder(output: Path) -> bool:
    """Whether an output is a folder of parts: it has no suffix, or is a folder and not called as a file."""
    return output != files.STDOUT and (not output.suffix or (output.is_dir() and not files.is_table(output)))


def wanted(source: Path, output: Path) -> bool:
    """Whether a command works in parts.

    Raises:
        ValueError: many files, but no folder for the results.
    """
    from ..data.io.streams import are_many

    if are_many(source) and not is_folder(output):
        raise ValueError(f"{source} is read in parts: name a folder for the results, as in -o results/.")
    return is_folder(output)


def check_output(output: Path, source: Path | None = None) -> None:
    """Before the work: a file or a folder that can be written to, the folder empty, and a folder for many files.

    Raises:
        FileExistsError: a folder that is not empty.
        OSError, ValueError: see `wanted` and `files`.
    """
    if source is not None:
        wanted(source, output)
    if not is_folder(output):
        files.check_output(output)
        return
    files.check_folder(output)
    if output.exists() and any(output.iterdir()):
        raise FileExistsError(f"The folder {output} is not empty: empty it, or name another one.")


def holds_parts(folder: Path) -> bool:
    """Whether a folder holds Parquet files, which that of a checkpoint or a city does not."""
    return any(folder.glob("*.parquet"))


def one_of(source: Path) -> Path:
    """A file of the source, whose columns are those of all; a single file as it is, whether it is there or not."""
    from ..data.io.streams import are_many, parquet_files

    return parquet_files(source)[0] if are_many(source) else source


def answer(verb: Callable[[Any], Any], source: Path, output: Path, *, reading: Reading, told: str) -> None:
    """Call a verb of a pipeline with a file and write what it returns; in parts, with each chunk of whole users.

    Args:
        verb: records -> frame with the column `user_id`; a user's rows depend on nobody else.
        told: what was written, of `rows` and `users`.
    """
    if wanted(source, output):
        rows, users, parts = write(_answers(verb, reading.chunks(source)), output)
        files.done(told.format(rows=rows, users=users) + f" in {parts} parts", output)
    else:
        made = verb(reading.records(source))
        files.write_frame(made, output)
        files.done(told.format(rows=len(made), users=made["user_id"].nunique()), output)


def write(frames: Iterable[Any], output: Path) -> tuple[int, int, int]:
    """Write `part-00000.parquet` and so on, each whole or not at all, and tell of each on stderr.

    Returns:
        Rows, users (where the frames have any; each in one part only) and parts.
    """
    from ..tokenization.whole_files import whole_file

    output.mkdir(parents=True, exist_ok=True)
    rows = users = parts = 0
    for frame in frames:
        path = output / f"part-{parts:05}.parquet"
        with whole_file(path) as file:
            _write_part(frame, file)
        typer.echo(f"{path.name}: {len(frame):,} rows", err=True)
        rows, parts = rows + len(frame), parts + 1
        users += frame["user_id"].nunique() if "user_id" in frame else 0
    return rows, users, parts


def joined(frames: Iterable[Any], rows: int = 1_000_000) -> Iterator[Any]:
    """Frames of at least so many rows of those given, one after the other."""
    import pandas as pd

    held: list[Any] = []
    for frame in frames:
        held.append(frame)
        if sum(map(len, held)) >= rows:
            yield pd.concat(held, ignore_index=True)
            held = []
    if held:
        yield pd.concat(held, ignore_index=True)


def _write_part(frame: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    from ..data.io.streams import arrow_table

    pq.write_table(arrow_table(frame), path)


def _answers(verb: Callable[[Any], Any], chunks: Iterable[Any]) -> Iterator[Any]:
    """What the verb returns for each chunk; chunks of which nothing is left are told of and left out.

    Raises:
        NoRecordsError: nothing is left of any chunk.
    """
    from ..tokenization.errors import NoRecordsError

    nothing, some = None, False
    for number, chunk in enumerate(chunks, 1):
        try:
            made = verb(chunk)
        except NoRecordsError as error:
            nothing = error
            typer.echo(f"chunk {number} has no part: {error}", err=True)
            continue
        some = True
        yield made
    if nothing is not None and not some:
        raise nothing
