"""Lines of separated text, each accounted for: it is a row, belongs to the row before it, or is left out and counted.

A parser alone loses lines in silence. A quote that is left open takes the lines that follow into one cell, and a
carriage return inside a line makes two rows of it.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from .errors import SHOWN, DataError, listing

BLOCK = 500_000  # rows held as text at one time
MAX_JOINED = 1_000  # lines of one row
OPEN_QUOTE, WRONG_FIELDS, INNER_BREAK = "open quote", "wrong number of fields", "carriage return inside a line"
ZERO = "zero byte"  # at which parsers may cut a cell
LARGE_CELL = f"quoted cell of more than {csv.field_size_limit():,} characters"


@dataclass
class LineCount:
    """What became of the lines of a file; blank ones do not count.

    rows_read: rows, with those left out. rejected: reason -> rows left out. joined_lines: lines that belong to the row
    before them, because a quoted cell holds line breaks. So a file has `rows_read + joined_lines` filled lines.
    first_faults: line number and reason of the first rows left out.
    """

    rows_read: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    joined_lines: int = 0
    first_faults: list[tuple[int, str]] = field(default_factory=list)

    def reject_line(self, number: int, reason: str) -> None:
        self.rejected[reason] += 1
        if len(self.first_faults) < SHOWN:
            self.first_faults.append((number, reason))


@contextmanager
def open_text(path: Path, *, encoding: str = "utf-8", errors: str = "strict") -> Iterator[IO[str]]:
    """A text file, gzipped or not, whose lines end as its first one does.

    Raises:
        FileNotFoundError: no such file.
        DataError: bytes that are no text of this encoding, or a damaged gzip file.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            start = file.read(1 << 16)
        old_mac = b"\r" in start and start.partition(b"\r")[2][:1] != b"\n" and b"\n" not in start.partition(b"\r")[0]
        newline = "\r" if old_mac else "\n"
        with opener(path, "rt", encoding=encoding, errors=errors, newline=newline) as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is no readable gzip file: {error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error.reason}); save it as UTF-8.") from error


def header_of(path: Path, *, sep: str) -> list[str]:
    """Names of the columns, the first filled line of a CSV file.

    Raises:
        DataError: no such line; otherwise as `open_text`.
    """
    with open_text(path, encoding="utf-8-sig") as lines:
        header = next((line for line in lines if line.strip()), None)
    if header is None:
        raise DataError(f"{path} is empty; its first line must name the columns.")
    try:
        names = next(csv.reader([header.rstrip("\r\n")], delimiter=sep, strict=True))
    except csv.Error as error:
        raise DataError(f"The first line of {path} does not name columns: {error}.") from error
    if twice := sorted(name for name, times in Counter(names).items() if times > 1):
        raise DataError(f"{path} names {len(twice)} columns more than once ({listing(twice[:SHOWN])}); rename them.")
    return names


def row_blocks(
    path: Path,
    *,
    columns: int,
    count: LineCount,
    sep: str = ",",
    quotes: bool = True,
    header: bool = True,
    encoding: str = "utf-8-sig",
    errors: str = "strict",
) -> Iterator[str]:
    """The usable rows of a file as blocks of text, each row with `columns` cells and a newline at its end.

    Args:
        count: takes up what became of every line.
        quotes: whether a cell in quotes may hold separators and line breaks.
        header: whether the first filled line names the columns.

    Raises:
        FileNotFoundError, DataError: as `open_text`.
    """
    with open_text(path, encoding=encoding, errors=errors) as lines:
        rows = _rows(lines, columns=columns, count=count, sep=sep, quotes=quotes, header=header)
        while block := "".join(islice(rows, BLOCK)):
            yield block


def count_rows(path: Path, *, columns: int, count: LineCount, sep: str) -> None:
    """What became of every line below the header, without keeping any of them."""
    with open_text(path, encoding="utf-8-sig") as lines:
        for _ in _rows(lines, columns=columns, count=count, sep=sep, quotes=True, header=True):
            pass


def _rows(
    lines: Iterable[str], *, columns: int, count: LineCount, sep: str, quotes: bool, header: bool
) -> Iterator[str]:
    source, ahead, number = iter(lines), deque[str](), 0
    while (line := ahead.popleft() if ahead else next(source, None)) is not None:
        number += 1
        if not line.strip():
            continue
        if header:
            header = False
            continue
        count.rows_read += 1
        line = line.rstrip("\r\n")
        if "\0" in line:
            count.reject_line(number, ZERO)
        elif quotes and '"' in line and not _is_one_row(line, sep=sep, columns=columns):
            more, fault = _quoted_row(line, ahead, source, sep=sep, columns=columns)
            if fault:
                count.reject_line(number, fault)
                continue
            yield "\n".join([line, *(ahead.popleft().rstrip("\r\n") for _ in range(more))]) + "\n"
            number, count.joined_lines = number + more, count.joined_lines + more
        elif "\r" in line:
            count.reject_line(number, INNER_BREAK)
        elif line.count(sep) != columns - 1:
            count.reject_line(number, WRONG_FIELDS)
        else:
            yield line + "\n"


def _is_one_row(line: str, *, sep: str, columns: int) -> bool:
    """Whether a line with quotes is surely a row: they are closed, and every separator is outside of them."""
    parts = line.split('"')
    if len(parts) % 2 == 0 or "\r" in line or line.count(sep) != columns - 1:
        return False
    return not any(sep in inside for inside in parts[1::2])


def _quoted_row(first: str, ahead: deque[str], source: Iterator[str], *, sep: str, columns: int) -> tuple[int, str]:
    """How many lines after `first` belong to its row, and what is wrong with it; lines looked at stay in `ahead`.

    Where k + 1 lines have as many separators as k + 1 rows, or a line inside a cell has as many as a row, the quote was
    left open.
    """
    of_a_row = columns - 1

    def growing() -> Iterator[str]:
        yield first + "\n"
        separators = first.count(sep)
        for more in range(1, MAX_JOINED):
            while len(ahead) < more:
                if (line := next(source, None)) is None:
                    return
                ahead.append(line)
            own = ahead[more - 1].count(sep)
            separators += own
            if separators >= (more + 1) * of_a_row:
                return
            yield ahead[more - 1]
            if own >= of_a_row:  # and the cell goes on
                return

    reader = csv.reader(growing(), delimiter=sep, strict=True)
    try:
        cells = next(reader)
    except csv.Error as error:
        return 0, LARGE_CELL if "field limit" in str(error) else OPEN_QUOTE
    return reader.line_num - 1, "" if len(cells) == columns else WRONG_FIELDS
