"""Table files: the columns of CSV and Parquet files, whole or in blocks, and each fault in one sentence.

Needs pandas, and pyarrow for Parquet.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import DataError
from .text_lines import BLOCK, LineCount, count_rows, header_of, row_blocks

try:
    import pandas as pd
except ImportError as error:
    raise ImportError("tables are read by pandas: pip install pandas") from error

MISSING_TEXT = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "<NA>"]


def is_csv(path: Path) -> bool:
    return path.suffix == ".csv" or path.name.endswith(".csv.gz")


def file_columns(path: Path, *, sep: str = ",") -> list[str]:
    """Names of the columns of a CSV or Parquet file.

    Raises:
        FileNotFoundError: no such file.
        DataError: a file of another type, or one that cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if is_csv(path):
        return header_of(path, sep=sep)
    if path.suffix == ".parquet":
        return parquet_columns(path)
    raise DataError(f"Cannot read {path.name}: the known file types are .parquet, .csv and .csv.gz.")


def read_file(
    path: Path, wanted: Sequence[str] | None = None, *, ids: Sequence[str] = (), sep: str = ","
) -> pd.DataFrame:
    """Columns of a CSV or Parquet file, by default all.

    Args:
        wanted: names of the columns.
        ids: columns of a CSV file that stay text, so that "007" stays "007" and a venue called "NA" is not missing.

    Raises:
        FileNotFoundError: no such file.
        DataError: a file that cannot be read, or lines of a CSV file that are no rows.
    """
    found = file_columns(path, sep=sep)
    if not is_csv(path):
        with readable(path, "Parquet"):
            return pd.read_parquet(path, columns=None if wanted is None else list(wanted))
    count = LineCount()
    count_rows(path, columns=len(found), count=count, sep=sep)
    if count.rejected:
        first = ", ".join(f"{number}: {reason}" for number, reason in count.first_faults)
        raise DataError(
            f"{path.name}: {count.rejected.total():,} of {count.rows_read:,} lines are no rows of {len(found)} cells "
            f"(first lines {first}); repair them, or use read_table, which leaves them out and counts them."
        )
    table = _parsed(path, found, wanted, ids=ids, sep=sep, header=0, low_memory=False)
    if len(table) != count.rows_read:
        raise DataError(f"{path.name} holds {count.rows_read:,} rows, of which {len(table):,} were read.")
    return table


def file_blocks(path: Path, *, count: LineCount, ids: Sequence[str] = ()) -> Iterator[pd.DataFrame]:
    """All columns of a CSV or Parquet file in blocks of rows; `count` takes up the rows and those left out."""
    found = file_columns(path)
    if not is_csv(path):
        with readable(path, "Parquet"):
            for batch in _parquet().ParquetFile(path).iter_batches(BLOCK):
                count.rows_read += len(batch)
                yield batch.to_pandas()
        return
    for text in row_blocks(path, columns=len(found), count=count):
        yield _parsed(io.StringIO(text), found, None, ids=ids, sep=",", header=None, low_memory=False)


def text_blocks(
    path: Path,
    names: Sequence[str],
    *,
    count: LineCount,
    sep: str = "\t",
    encoding: str = "utf-8",
    header: bool = False,
) -> Iterator[pd.DataFrame]:
    """Blocks of a file without quotes, every column as text, NaN where empty; bytes that are no text become
    replacement characters."""
    options: dict[str, Any] = {"keep_default_na": False, "na_values": [""], "quoting": csv.QUOTE_NONE, "dtype": str}
    for text in row_blocks(
        path,
        columns=len(names),
        count=count,
        sep=sep,
        quotes=False,
        header=header,
        encoding=encoding,
        errors="replace",
    ):
        yield pd.read_csv(io.StringIO(text), sep=sep, names=list(names), lineterminator="\n", **options)


def parquet_columns(path: Path) -> list[str]:
    """Names of the columns of a Parquet file (also of GeoParquet)."""
    with readable(path, "Parquet"):
        return list(_parquet().read_schema(path).names)


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow: pip install pyarrow") from error
    return pyarrow.parquet


@contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Raises a `DataError` in one sentence for a file that is damaged or of another kind."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError, DataError):
        raise
    except (OSError, ValueError, OverflowError, NotImplementedError) as error:  # Arrow's are of these
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{path} is no readable {kind} file: {reason}.") from error


def _parsed(
    source: Any, found: list[str], wanted: Sequence[str] | None, *, ids: Sequence[str], sep: str, **options: Any
) -> pd.DataFrame:
    """By position, so that pandas neither renames a column nor takes one for an index."""
    positions = [place for place, name in enumerate(found) if wanted is None or name in wanted]
    table: Any = pd.read_csv(  # whose type depends on the options
        source,
        sep=sep,
        names=range(len(found)),
        usecols=positions,
        dtype={place: str for place in positions if found[place] in ids},
        na_values={place: [""] if found[place] in ids else MISSING_TEXT for place in positions},
        keep_default_na=False,
        **options,
    )
    return table.set_axis([found[place] for place in positions], axis=1)
