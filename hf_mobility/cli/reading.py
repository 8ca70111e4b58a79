"""How the files that go into a command are read: four options, and what each of them is for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from . import files


@dataclass(frozen=True)
class Reading:
    """The options of reading. A command has one parameter `reading` for them, see `with_reading`.

    `sep` and `time_format` count for CSV files. A name of `column` counts for the files that have such a column.
    """

    timezone: Annotated[str | None, typer.Option(help="IANA name, for naive times and for a new city.")] = None
    column: Annotated[list[str], typer.Option(metavar="ROLE=NAME", help="Name of a column, as in user_id=uid.")] = (
        field(default_factory=list)
    )
    sep: Annotated[str | None, typer.Option(help="Separator of CSV files; a comma by default.")] = None
    time_format: Annotated[
        str | None, typer.Option(help="Format of the times in CSV files, as in '%d.%m.%Y %H:%M'.")
    ] = None

    def check(self, *paths: Path | None) -> None:
        """Before the work: every file is there, and every option counts for one of them.

        Raises:
            FileNotFoundError: a file that is not there.
            ValueError: a separator or format without a CSV file, or a name that no file has as a column.
        """
        files.check_inputs(*paths)
        given = [path for path in paths if path is not None]
        shown = ", ".join(path.name for path in given)
        if (self.sep or self.time_format) and not any(files.is_csv(path) for path in given):
            raise ValueError(f"A separator and a format of times are for .csv files, not for {shown}.")
        for role, name in named_columns(self.column).items():
            if not any(name in self._names(path) for path in given):
                raise ValueError(f"--column {role}={name}: there is no column {name!r} in {shown}.")

    def records(self, path: Path) -> Any:
        """What the library's verbs take: the path where they can read it by themselves (also a folder or a pattern of
        Parquet files), else a canonical frame with its name in `attrs["name"]`, or a `WeekTable`."""
        from ..data.io.records import as_records, name_of, open_table
        from ..data.weeks import is_week_table

        files.doing(f"reading {path}")
        if is_week_table(self._names(path)):
            return self.weeks(path)
        csv = {"sep": self.sep, "time_format": self.time_format} if files.is_csv(path) else {}
        columns = self.columns(path)
        columns.pop("start", None)  # which only weeks have
        table = open_table(path, columns=columns, **csv)
        if table.data is path and not table.columns:
            return path
        frame: Any = as_records(table.data, timezone=self.timezone, **table.columns)
        frame.attrs["name"] = name_of(path)
        return frame

    def visits(self, path: Path) -> Any:
        """As `records`, but always the canonical frame of visits or points."""
        from ..data.io.records import as_records
        from ..data.weeks import WeekTable
        from ..tokenization.errors import DataError

        data = self.records(path)
        if isinstance(data, WeekTable):
            raise DataError(f"{path.name} holds weeks of cells; give visits or points.")
        return as_records(path, timezone=self.timezone) if data is path else data

    def chunks(self, source: Path) -> Iterator[Any]:
        """Canonical frames of whole users of a Parquet file, a folder or a pattern of them; see `user_chunks`."""
        from ..data.frames import validate_visits
        from ..data.io.records import open_table
        from ..data.io.streams import parquet_files, user_chunks

        first = parquet_files(source)[0]
        columns = open_table(first, columns=self.columns(first)).columns
        columns.pop("start", None)  # which only weeks have
        for chunk in user_chunks(source, user_id=columns.get("user_id", "user_id")):
            yield validate_visits(chunk, timezone=self.timezone, **columns)

    def holds_weeks(self, path: Path) -> bool:
        """Whether a file holds weeks of cells: one a row, or one hour a row as `generate` writes them."""
        from ..data.weeks import is_hourly_table, is_week_table

        names = self._names(path)
        return is_week_table(names) or is_hourly_table(names)

    def weeks(self, path: Path) -> Any:
        """The `WeekTable` of a file that holds weeks of cells."""
        import pandas as pd

        from ..data.io.exports import week_matrix
        from ..data.weeks import WeekTable, is_hourly_table, read_weeks

        if is_hourly_table(self._names(path)):
            cells = week_matrix(self._table(path))[1].astype("int32")
            return WeekTable(cells, user_id=None, start=None, extra=pd.DataFrame(index=range(len(cells))))
        columns: dict[str, Any] = {
            role: name for role, name in self.columns(path).items() if role in ("user_id", "start")
        }
        return read_weeks(self._table(path) if files.is_csv(path) else path, **columns)

    def city(self, path: Path | None) -> Any:
        """The city of a folder, the places of a file of visits, or of a file of places (without a time); None for
        none."""
        from ..data.io.records import name_of
        from ..tokenization.city import City
        from ..tokenization.errors import DataError

        if path is None:
            return None
        if path.is_dir():
            return City.load(path)
        if self.timezone is None:
            raise DataError("The time zone of a new city is missing: give --timezone, such as Europe/Berlin.")
        columns = self.columns(path)
        if columns.get("time", "time") in self._names(path):
            return City.from_visits(self.visits(path), timezone=self.timezone, name=name_of(path))
        places = self._table(path).rename(columns={name: role for role, name in columns.items()})
        return City.from_pois(places, timezone=self.timezone, name=name_of(path))

    def columns(self, path: Path) -> dict[str, str]:
        """Role -> name, of the columns that are in a file."""
        names = self._names(path)
        return {role: name for role, name in named_columns(self.column).items() if name in names}

    def _names(self, path: Path) -> set[str]:
        """Of all columns of a file, or of the first of many; none of the folder of a checkpoint or a city."""
        from ..data.io.records import column_names

        return column_names(path, sep=self.sep or ",")

    def _table(self, path: Path) -> Any:
        """A file, or many, as it is; ids in a CSV file stay text."""
        import pandas as pd

        from ..data.io.records import open_table
        from ..data.io.streams import are_many, row_blocks

        if are_many(path):
            return pd.concat(row_blocks(path), ignore_index=True)
        if files.is_csv(path):
            return open_table(path, columns=self.columns(path), sep=self.sep or ",").data
        if path.suffix in (".parquet", files.GEO):
            return pd.read_parquet(path)
        raise ValueError(f"Cannot read {path.name}: the known file types are {files.SUFFIXES}.")


def named_columns(pairs: list[str]) -> dict[str, str]:
    """`["user_id=uid"]` -> `{"user_id": "uid"}`."""
    named = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(named) < len(pairs):
        raise typer.BadParameter("write each as ROLE=NAME, once per role, for example --column user_id=uid")
    if named:
        from ..data.io.readers import ROLES

        roles = (*ROLES, "start")  # of weeks
        if unknown := sorted(set(named) - set(roles)):
            raise typer.BadParameter(f"there is no role {', '.join(unknown)}; the roles are {', '.join(roles)}")
    return named


def with_reading(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `reading` is given by the options of `Reading`; where the command has an option of the
    same name, its own counts."""
    own = dict(inspect.signature(command, eval_str=True).parameters)
    if own.pop("reading", None) is None:
        return command
    hints = get_type_hints(Reading, include_extras=True)
    added = {name: default for name, default in vars(Reading()).items() if name not in own}

    @wraps(command)
    def with_options(**given: Any) -> None:
        reading = Reading(**{name: given.pop(name) for name in added})
        command(**given, reading=reading)

    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])
        for name, default in added.items()
    ]
    with_options.__signature__ = inspect.Signature([*own.values(), *options])  # type: ignore[attr-defined]
    return with_options
