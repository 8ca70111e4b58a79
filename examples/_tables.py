"""Result tables as CSV with the command that made them in the first line; read back with `comment="#"`."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd


def save_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write `table` below a comment that repeats the running command."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python", *sys.argv])
    path.write_text(f"# {command}\n{table.round(5).to_csv(index=False, lineterminator=chr(10))}", encoding="utf-8")
