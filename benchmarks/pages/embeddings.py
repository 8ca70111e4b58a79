"""Tables of the embedding and trajectory results, one function a table."""

from __future__ import annotations

import pandas as pd

from .common import markdown, names_like, read

HORIZONS = (15, 30, 60, 90, 150)


def probes(name: str, *, label: str | None = None, metrics: tuple[str, ...]) -> str:
    """What readers found in features, baselines first, RAW bold; ± is the standard deviation over seeds."""
    table = read(name)
    rows = []
    for _, row in table.iterrows():
        cells = [f"{row[metric]:.3f}" + spread(row, metric) for metric in metrics]
        features = f"**{row['features']}**" if "RAW" in row["features"] else row["features"]
        rows.append([*([row[label]] if label else []), features, row["reader"], f"{row['n']:,}", *cells])
    titles = {"pcc": "Pearson r", "r2": "R²", "auc": "AUC"}
    header = [*([label] if label else []), "features", "reader", "n", *(titles.get(name, name) for name in metrics)]
    return markdown(rows, header)


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


def roll_outs(*names: str) -> str:
    """Mean error in km of all and of moving people at some horizons; one row per file and model."""
    found = [name for name in names if names_like(f"raw_rollout_{name}")]
    if not found:
        raise FileNotFoundError("there is no raw_rollout_*.csv")
    rows = []
    for name in found:
        table = read(f"raw_rollout_{name}")
        if "slots" not in table:
            table["slots"] = "recorded"
        for (slots, model), group in table.groupby(["slots", "model"], sort=False):
            cells = []
            for subset in ("all", "moving"):
                error = group[group["subset"] == subset].set_index("minutes")["error_km"].reindex(HORIZONS)
                cells += ["–" if pd.isna(km) else f"{km:.2f}" for km in error]
            users = group[group["minutes"] == group["minutes"].max()].set_index("subset")["users"]
            people = f"{users['all']} / {users['moving']}"
            points = name.replace("_", " ")
            points = points if slots == "recorded" or table["slots"].nunique() == 1 else f"{points}, filled slots too"
            rows.append([points, people, f"**{model}**" if "RAW" in str(model) else str(model), *cells])
    header = [f"{subset}, {minutes} min" for subset in ("all", "moving") for minutes in HORIZONS]
    return markdown(rows, ["points", "roll-outs, all / moving", "error, km", *header])


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
