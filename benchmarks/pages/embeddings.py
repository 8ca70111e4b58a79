"""Tables of the embedding and trajectory results, one function a table."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from .common import markdown, names_like, read
from .positions import HORIZONS

SETS = ("simulated", "geolife", "cabs")
WEEK_ENDS = (15, 30, 60, 90, 150)


def probes(name: str, *, label: str | None = None, metrics: tuple[str, ...]) -> str:
    """What readers found in features, baselines first, RAW bold; ± is the standard deviation over seeds."""
    table = read(name)
    if "labels" in table:
        table = table[table["labels"] == table["labels"].max()]
    learned = table["features"].str.contains("RAW|encoder|random")
    label_order = table[label].factorize()[0] if label else np.zeros(len(table))
    table = table.iloc[np.lexsort((learned, label_order))]
    rows = []
    for _, row in table.iterrows():
        cells = [f"{row[metric]:.3f}" + spread(row, metric) for metric in metrics]
        features = f"**{row['features']}**" if "RAW" in row["features"] else row["features"]
        rows.append([*([row[label]] if label else []), features, row["reader"], f"{row['n']:,}", *cells])
    titles = {"pcc": "Pearson r", "r2": "R²", "auc": "AUC"}
    header = [*([label] if label else []), "features", "reader", "n", *(titles.get(name, name) for name in metrics)]
    return markdown(rows, header)


def few_labels(name: str, metric: str) -> str:
    """A metric of the linear readers by how many users have a label."""
    table = read(name).query("reader == 'linear'")
    numbers = sorted(table["labels"].unique())
    kinds = dict.fromkeys(table.loc[table["labels"] == numbers[-1], "features"])
    rows = []
    for kind in sorted(kinds, key=lambda kind: bool(re.search("RAW|encoder", kind))):
        own = table[table["features"] == kind].set_index("labels")
        cells = [
            f"{own.loc[number, metric]:.3f}" + spread(own.loc[number], metric) if number in own.index else "–"
            for number in numbers
        ]
        rows.append([bold(kind), *cells])
    return markdown(rows, [f"{metric}, labels of", *(f"{number:,} users" for number in numbers)])


def spread(row: pd.Series, metric: str, digits: int = 3) -> str:
    return "" if pd.isna(row[f"{metric}_sd"]) else f" ± {row[f'{metric}_sd']:.{digits}f}"


def knows() -> str:
    """R² of both readers, one row per label and one column per kind of features."""
    table = read("raw_knows")
    kinds = list(dict.fromkeys(table["features"]))
    rows = []
    for label, group in table.groupby("label", sort=False):
        cells = []
        for kind in kinds:
            own = group[group["features"] == kind].set_index("reader")
            both = [own.loc[reader] for reader in ("linear", "mlp")]
            cells.append(" / ".join(f"{row['r2']:.2f}{spread(row, 'r2', 2)}" for row in both))
        rows.append([str(label), *cells])
    return markdown(rows, ["R², linear / MLP", *(f"**{kind}**" if "RAW" in kind else kind for kind in kinds)])


def neighbours() -> str:
    table = read("raw_neighbours")
    rows = []
    for name, group in table.groupby("neighbours", sort=False):
        cells = [f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" for _, row in group.iterrows()]
        rows.append([f"**{name}**" if "RAW" in str(name) else str(name), *cells])
    return markdown(rows, ["neighbours", *dict.fromkeys(table["measure"])])


def week_end_rows(points: str, slots: str) -> list[tuple[str, pd.DataFrame]]:
    """(model, its rows by subset and minutes), baselines first; empty where there is no such table."""
    if not names_like(f"raw_rollout_{points}"):
        return []
    table = read(f"raw_rollout_{points}")
    groups = table[table["slots"] == slots].groupby("model", sort=False)
    found = [(str(model), group.set_index(["subset", "minutes"])) for model, group in groups]
    return sorted(found, key=lambda pair: ("RAW" in pair[0]) + (pair[0] in ("GRU", "RAW")))


def value(rows: pd.DataFrame, subset: str, minutes: int) -> str:
    """A number of km."""
    known = (subset, minutes) in rows.index and pd.notna(rows.loc[(subset, minutes), "error_km"])
    return f"{rows.loc[(subset, minutes), 'error_km']:.2f}" if known else "–"


def bold(model: str) -> str:
    return f"**{model}**" if "RAW" in model else model


def extended(*names: str) -> str:
    """RAW's variant `extended` and its rivals at recorded end points: mean, median, and our error less theirs."""
    table = read("raw_extended")
    rows = []
    for points in names or ("geolife", "cabs", "simulated"):
        own = table[(table["points"] == points) & (table["subset"] == "all")]
        for model, group in own.groupby("model", sort=False):
            found = group.set_index("minutes")
            cells = [
                f"{found.loc[minutes, column]:.2f}" for column in ("error_km", "median_km") for minutes in HORIZONS
            ]
            rows.append([points, bold(str(model)), *cells])
    header = [f"{what}, {time}" for what in ("mean", "median") for time in HORIZONS.values()]
    return markdown(rows, ["points", "km", *header])


def extended_less() -> str:
    """Mean error of the variant less that of each rival, with an interval by user, all and moving."""
    table = read("raw_extended")
    table = table[table["model"] != "RAW extended"]
    rows = []
    for (points, subset, model), group in table.groupby(["points", "subset", "model"], sort=False):
        found = group.set_index("minutes")
        cells = []
        for minutes in HORIZONS:
            row = found.loc[minutes]
            cells.append(f"{row['ours_less']:.2f} [{row['ours_less_low']:.2f}, {row['ours_less_high']:.2f}]")
        rows.append([str(points), str(subset), str(model), *cells])
    return markdown(rows, ["points", "users", "RAW extended less", *HORIZONS.values()])


def week_ends(*names: str) -> str:
    """Mean errors of roll-outs that end on Sundays, all and moving."""
    rows = []
    for points, slots in ((name, "recorded" if name == "cabs" else "every one") for name in names or SETS):
        for model, found in week_end_rows(points, slots):
            cells = [value(found, subset, minutes) for subset in ("all", "moving") for minutes in WEEK_ENDS]
            windows = " / ".join(f"{found.loc[(subset, 150), 'windows']:.0f}" for subset in ("all", "moving"))
            rows.append([points, windows, bold(model), *cells])
    if not rows:
        raise FileNotFoundError("there is no raw_rollout_*.csv")
    header = [f"{subset}, {minutes} min" for subset in ("all", "moving") for minutes in WEEK_ENDS]
    return markdown(rows, ["points", "roll-outs, all / moving", "mean error, km", *header])


def reidentification() -> str:
    rows = []
    for _, row in read("raw_geolife_reidentification").iterrows():
        name = f"**{row['features']}**" if "RAW" in row["features"] else row["features"]
        cells = [f"{row[metric]:.3f}{spread(row, metric)}" for metric in ("top1", "top5")]
        rows.append([f"{row['days']}", f"{row['people']}", name, *cells])
    return markdown(rows, ["days of each half", "people", "who is it?", "top 1", "top 5"])


def geolife() -> str:
    """Pearson r of each mode's share, linear reader / MLP, and who is found again."""
    table = read("raw_geolife_modes")
    modes = list(dict.fromkeys(table["mode"]))
    rows = []
    for name, group in table[table["features"] != "nothing"].groupby("features", sort=False):
        found = {
            (row["mode"], row["reader"]): f"{row['pcc']:.2f}{spread(row, 'pcc', 2)}" for _, row in group.iterrows()
        }
        cells = [f"{found[mode, 'linear']} / {found[mode, 'mlp']}" for mode in modes]
        rows.append([f"**{name}**" if "RAW" in str(name) else str(name), *cells])
    shares = markdown(rows, [f"Pearson r, linear / MLP, {table['n'].max():,} days", *modes])
    return f"{shares}\n\n{reidentification()}"
