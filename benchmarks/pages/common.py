"""Reading the committed CSV files and writing tables of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).resolve().parents[1]


def names_like(pattern: str) -> list[str]:
    """Names (without `.csv`) of the results that match a pattern such as `transfer_seed?`, sorted."""
    return sorted(path.stem for path in RESULTS.rglob(f"{pattern}.csv"))


def read(name: str) -> pd.DataFrame:
    """The table `name`.csv below `benchmarks/`; its first line holds the commands that made it.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = next(iter(RESULTS.rglob(f"{name}.csv")), RESULTS / f"{name}.csv")
    return pd.read_csv(path, comment="#")


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def markdown(rows: list[list[str]], header: list[str]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
