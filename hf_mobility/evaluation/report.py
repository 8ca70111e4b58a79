"""Result tables as Markdown and CSV: baselines first, the command that made them in the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..tokenization.whole_files import whole_file

BASELINES = ("UserFrequency", "UserMarkov", "ContextMix", "GRU", "Transformer")


def order_rows(table: pd.DataFrame, *, baselines: Sequence[str] = BASELINES) -> pd.DataFrame:
    """The rows with the baselines first, in the order of `baselines`; other rows keep theirs.

    A model counts as the baseline whose name it begins with, so "ContextMix, 5 %" is one. A column `city` or `subset`
    keeps its blocks together, in order of first appearance.
    """
    if "model" not in table.columns:
        raise ValueError(f"The table has no column 'model'; it has {list(table.columns)}.")

    def place(model: str) -> int:
        return next((i for i, name in enumerate(baselines) if model.startswith(name)), len(baselines))

    blocks = [column for column in ("city", "subset") if column in table.columns]
    keys = pd.DataFrame({column: pd.factorize(table[column])[0] for column in blocks})
    keys["place"] = [place(str(model)) for model in table["model"]]
    order = keys.sort_values([*blocks, "place"], kind="stable").index
    return table.iloc[order.to_numpy()].reset_index(drop=True)


def to_markdown(
    table: pd.DataFrame, *, digits: int = 3, intervals: bool = True, baselines: Sequence[str] = BASELINES
) -> str:
    """A Markdown table of what `summarize` returns, baselines first.

    Columns `<metric>_low` and `<metric>_high` are folded into the metric as "0.250 [0.211, 0.291]", or left out.
    """
    table = order_rows(table, baselines=baselines)
    bounds = {c for c in table.columns if c.endswith(("_low", "_high"))}
    columns = [c for c in table.columns if c not in bounds]

    def cell(row: pd.Series, column: str) -> str:
        value = row[column]
        if isinstance(value, str | bool) or pd.api.types.is_bool(value):
            return str(value).replace("|", "\\|")
        if pd.isna(value):
            return "–"
        if pd.api.types.is_integer(value):
            return str(value)
        text = f"{value:.{digits}f}"
        if intervals and f"{column}_low" in bounds:
            text += f" [{row[f'{column}_low']:.{digits}f}, {row[f'{column}_high']:.{digits}f}]"
        return text

    # Row by row as objects: a common dtype would turn counts into floats.
    rows = [pd.Series(dict(zip(table.columns, r, strict=True)), dtype=object) for r in table.itertuples(index=False)]
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell(row, column) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def to_csv(
    table: pd.DataFrame, path: str | Path, *, command: str, digits: int = 5, baselines: Sequence[str] = BASELINES
) -> None:
    """Write the table, baselines first, below a comment line with the command that made it.

    Read it back with `pandas.read_csv(path, comment="#")`.

    Raises:
        ValueError: an empty command or one of several lines, which would break the file.
    """
    if not command.strip() or "\n" in command:
        raise ValueError("command must be one non-empty line.")
    table = order_rows(table, baselines=baselines)
    text = table.to_csv(index=False, float_format=f"%.{digits}f", lineterminator="\n")
    with whole_file(path) as file:
        file.write_text(f"# {command}\n{text}", encoding="utf-8")
