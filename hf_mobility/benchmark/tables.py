"""A table of results: one row per model, baselines first; the same for the terminal and for the docs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from .protocol import Protocol
from .results import Result, to_frame

PAGE_METRICS = {
    "acc@1": "Acc@1",
    "acc@5": "Acc@5",
    "acc@10": "Acc@10",
    "mrr": "MRR",
    "nll": "log-loss",
    "ece": "ECE",
    "mean6": "mean of six, nats",
    "moves_per_day": "moves a day",
    "motifs": "motifs",
    "stay_rate": "stay rate",
    "locations_per_day": "places a day",
    "cpc": "CPC",
    "copied_moving": "copies",
    "error_km": "mean km",
    "median_km": "median km",
    "accuracy": "accuracy",
    "pcc": "r",
    "r2": "R²",
    "rmse": "RMSE",
}
DIGITS = {"mean6": 4, "motifs": 4, "stay_rate": 4, "locations_per_day": 4, "error_km": 2, "median_km": 2, "rmse": 1}


def table(frame: pd.DataFrame, *, main: str) -> pd.DataFrame:
    """What `results.to_frame` gives -> one row per model.

    Args:
        frame: of one protocol.
        main: the metric that comes first, with its interval, per case; others are means over cases.

    Returns:
        Text columns: model; for each case (and horizon) the main metric; where there are several, their mean; the mean
        of the users' means; the other metrics; what was counted (`n`, `users`); `seen test`.
    """
    rows = frame[frame["subset"].eq("all") | frame["subset"].str.startswith("all, ")]
    rows = rows.assign(place=[_place(*pair) for pair in zip(rows["case"], rows["subset"])])
    first = rows[rows["metric"] == main]
    models = list(dict.fromkeys(first["model"]))
    places = list(dict.fromkeys(first["place"]))
    several = len(places) > 1 and not first["subset"].str.startswith("all, ").any()
    table = []
    for model in models:
        own = first[first["model"] == model].set_index("place")
        cells = {"model": model}
        cells |= {
            f"{_title(main)}, {place}": _cell(own.loc[place], main) if place in own.index else "–" for place in places
        }
        if several:
            cells[f"{_title(main)}, mean"] = _number(own["value"].mean(), main)
        if own["by_user"].notna().any():
            cells[f"{_title(main)} by user"] = _number(own["by_user"].mean(), main)
        others = rows[(rows["model"] == model) & (rows["metric"] != main)]
        for metric in dict.fromkeys(others["metric"]):
            cells[_title(metric)] = _number(others[others["metric"] == metric]["value"].mean(), metric)
        cells |= {"n": _counts(own["n"], several=several), "users": _counts(own["users"], several=several)}
        cells["seen test"] = str(own["seen_test"].iloc[0])
        table.append(cells)
    return pd.DataFrame(table).fillna("–")


def for_terminal(results: Sequence[Result], protocol: Protocol) -> str:
    """The table as aligned text."""
    return table(to_frame(results), main=protocol.metrics[0]).to_string(index=False)


def difference_lines(results: Sequence[Result], protocol: Protocol) -> list[str]:
    """For each model that is no baseline, its main metric minus that of the reference."""
    main = _title(protocol.metrics[0])
    rows = [row for row in difference_rows(results) if row[3].partition(", ")[0] == main]
    return [f"{model} minus {reference}, {metric}: {case} {found}" for model, reference, case, metric, found in rows]


def difference_rows(results: Sequence[Result]) -> list[list[str]]:
    """Model, reference, case, metric, and the difference with its interval, paired by user; of models that are no
    baselines."""
    return [
        [one.model, one.reference, row["case"], _title(row["metric"]), _signed(row)]
        for one in results
        if one.kind != "baseline"
        for row in one.differences
    ]


def _place(case: str, subset: str) -> str:
    return subset.removeprefix("all, ") if subset != "all" else case


def _title(metric: str) -> str:
    """Of a metric, or of one and where it was taken: "error_km, 60 minutes"."""
    name, comma, where = metric.partition(", ")
    return f"{PAGE_METRICS.get(name, name)}{comma}{where}"


def _cell(row: pd.Series, metric: str) -> str:
    text = _number(row["value"], metric)
    if pd.notna(row["low"]):
        text += f" [{_number(row['low'], metric)}, {_number(row['high'], metric)}]"
    return text


def _number(value: float, metric: str) -> str:
    return "–" if pd.isna(value) else f"{value:.{DIGITS.get(metric, 3)}f}"


def _counts(values: pd.Series, *, several: bool) -> str:
    """Of all cases together; from the least to the most where they are horizons of one case."""
    if values.isna().any():
        return "–"
    low, high = int(values.min()), int(values.max())
    return f"{int(values.sum()):,}" if several else f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _signed(row: dict[str, Any]) -> str:
    return f"{row['mean']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
