"""Result tables as CSV with the commands that made them in the first line; read back with `comment="#"`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd


def running_command() -> str:
    """The command that started this process: `python -m benchmarks.generation.train_mstar --steps 10`."""
    spec = sys.modules["__main__"].__spec__
    script = ["-m", spec.name] if spec is not None and spec.name.startswith("benchmarks.") else sys.argv[:1]
    return shlex.join(["python", *script, *sys.argv[1:]])


def save_table(table: pd.DataFrame, path: str | Path, *, update: Sequence[str] = ()) -> None:
    """Write `table` below a comment that repeats the running command.

    With `update`, names of columns, rows of an existing file stay whose values there are not those of a row of `table`,
    and so do its commands; the others are replaced in their place.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    commands = [running_command()]
    if update and path.is_file():
        before = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").split("; ")
        commands = [*(command for command in before if command != commands[0]), *commands]
        kept = pd.read_csv(path, comment="#")
        rows = pd.concat([kept, table], ignore_index=True)
        place = rows.groupby([rows[column].astype(str) for column in update], sort=False).ngroup()
        is_new = rows.index >= len(kept)
        place = place[is_new | ~place.isin(place[is_new])]
        table = rows.loc[place.sort_values(kind="stable").index]
    text = table.round(5).to_csv(index=False, lineterminator="\n")
    path.write_text(f"# {'; '.join(commands)}\n{text}", encoding="utf-8")


class GrowingTable:
    """A table that is printed row by row (`shown` columns) and, with `output`, saved after each: what is done should
    not be lost where the next row takes minutes."""

    def __init__(self, shown: list[str], output: str | Path | None, *, update: Sequence[str] = ()) -> None:
        self.parts: list[pd.DataFrame] = []
        self.shown, self.output, self.update = shown, output, update

    def add(self, rows: pd.DataFrame) -> None:
        self.parts.append(rows)
        print(rows[self.shown].round(4).to_string(index=False, header=len(self.parts) == 1), flush=True)
        if self.output:
            save_table(pd.concat(self.parts), self.output, update=self.update)
