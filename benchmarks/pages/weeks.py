"""Tables of generated weeks user by user: likeness, habits, completion, use, and what they give away."""

from __future__ import annotations

import pandas as pd

from hf_mobility.evaluation.report import order_rows
from hf_mobility.evaluation.week_report import GENERATOR_BASELINES

from .common import markdown, percent, read

LIKENESS = {
    "mean6": ("mean of six", 1000, 1),
    "two_sample_auc": ("two-sample AUC", 1, 2),
    "motif_tv": ("motif TV", 1, 3),
    "locations_per_day": ("places per day", 1000, 1),
    "stay_rate": ("stay rate", 1000, 1),
    "population_tv": ("population TV", 1, 3),
    "cpc": ("OD, CPC", 1, 3),
    "od_correlation": ("OD, r", 1, 3),
    "hourly_cpc": ("OD by hour, CPC", 1, 3),
}
HABITS = {
    "workers": ("workers", 100, 0),
    "arrival_sd": ("arrival sd, h", 1, 2),
    "work_places": ("work places", 1, 2),
    "together_again": ("together again", 1, 3),
    "still_weekend_days": ("weekend days without a move, %", 100, 0),
    "saturday_away": ("away Saturday 22 h, %", 100, 0),
    "one_hour_stays": ("stays of one hour, %", 100, 0),
}
CONCRETE = {"train sample": "other real users", "real itself": "the real weeks"}


def named(model: str) -> str:
    return f"**{model}**" if model.startswith("M-STAR") else CONCRETE.get(model, model)


def spread(row: pd.Series, column: str, scale: float, digits: int) -> str:
    """The mean, and ± the spread over draws where there are several."""
    if pd.isna(row[column]):
        return ""
    sd = row.get(f"{column}_sd")
    beside = "" if sd is None or pd.isna(sd) else f" ± {scale * sd:.{digits}f}"
    return f"{scale * row[column]:.{digits}f}{beside}"


def columns_of(columns: dict[str, tuple[str, float, int]], *, real: bool) -> str:
    table = order_rows(read("weeks_simulated"), baselines=GENERATOR_BASELINES)
    if not real:
        table = table[table["model"] != "real itself"]
    rows = [
        [named(row["model"]), *(spread(row, name, scale, digits) for name, (_, scale, digits) in columns.items())]
        for _, row in table.iterrows()
    ]
    draws = int(table["draws"].max())
    return markdown(rows, [f"{draws} draws", *(title for title, _, _ in columns.values())])


def likeness() -> str:
    """Distances to the real weeks and agreement of flows."""
    return columns_of(LIKENESS, real=False)


def habits() -> str:
    """Numbers of each set, to be read beside those of the real weeks."""
    return columns_of(HABITS, real=True)


def completion() -> str:
    """Accuracy on the hidden hours, gap by gap."""
    table = read("weeks_completion")
    return markdown(accuracies(table), [f"{int(table['weeks'].iloc[0])} weeks; accuracy", *table["gap"].unique()])


def accuracies(table: pd.DataFrame) -> list[list[str]]:
    """A row per model, a cell with an interval per gap."""
    rows = []
    for model, group in table.groupby("model", sort=False):
        cells = [
            f"{a:.3f} [{low:.3f}, {high:.3f}]"
            for a, low, high in group[["accuracy", "accuracy_low", "accuracy_high"]].to_numpy()
        ]
        rows.append([named(str(model)), *cells])
    return rows


def homes() -> str:
    wide = read("weeks_homes").pivot(index="model", columns="homes", values="nights_at_home")
    kinds = ["of training users", "of nobody in training"]
    rows = [[named(str(model)), *(percent(row[kind]) for kind in kinds)] for model, row in wide[kinds].iterrows()]
    return markdown(rows, ["nights (0-5 h) in the home asked for", *(f"homes {kind}" for kind in kinds)])


def epidemic() -> str:
    table = read("weeks_epidemic")
    columns = {
        "error": ("error of the curve", 2),
        "peak": ("peak / real peak", 2),
        "peak_days": ("peak, days later", 1),
    }
    rows = [
        [named(row["model"]), *(spread(row, name, 1, digits) for name, (_, digits) in columns.items())]
        for _, row in table.iterrows()
    ]
    first = table.iloc[0]
    title = f"{first['agents']} agents, {first['runs']} epidemics, {first['draws']} draws"
    return markdown(rows, [title, *(name for name, _ in columns.values())])


def next_places() -> str:
    table = read("weeks_next")
    rows = []
    for name, group in table.groupby("trained on", sort=False):
        cells = []
        for metric in ("acc@1", "mrr"):
            values = group[metric].dropna()
            sd = f" ± {values.std():.3f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.3f}{sd}" if len(values) else "")
        rows.append(
            [str(name).replace("M-STAR mstar-cells-small", "**M-STAR**"), f"{group['weeks'].iloc[0]:,}", *cells]
        )
    return markdown(rows, [f"trained on; {table['seed'].nunique()} seeds", "weeks", "Acc@1", "MRR"])


def pairs() -> str:
    table = read("weeks_pairs")
    groups = [name for name in table if name not in ("model", "weeks")]
    rows = [
        [named(row["model"]), f"{row['weeks']:,}", *(percent(row[name]) for name in groups)]
        for _, row in table.iterrows()
    ]
    return markdown(rows, ["home and second place are those of", "weeks", *groups])


def members() -> str:
    rows = [
        [named(row["model"]), f"{row['auc']:.3f} [{row['auc_low']:.3f}, {row['auc_high']:.3f}]"]
        for _, row in read("weeks_members").iterrows()
    ]
    return markdown(rows, ["who was in training?", "AUC of the distance attack"])


def slots_unseen() -> str:
    """Weeks of slots in cities that no training has seen, city by city."""
    table = read("weeks_slots")
    columns = {
        **{name: LIKENESS[name] for name in ("mean6", "two_sample_auc", "motif_tv", "stay_rate", "cpc")},
        **{name: HABITS[name] for name in ("arrival_sd", "work_places", "together_again", "still_weekend_days")},
        "one_hour_stays": HABITS["one_hour_stays"],
        "one_user_pairs": ("pairs of one user, %", 100, 0),
    }
    rows = []
    for city, group in table.groupby("city", sort=False):
        for _, row in order_rows(group, baselines=GENERATOR_BASELINES).iterrows():
            cells = (spread(row, name, scale, digits) for name, (_, scale, digits) in columns.items())
            rows.append([city, named(row["model"]), *cells])
    draws = int(table["draws"].max())
    return markdown(rows, [f"city; {draws} draws", "weeks", *(title for title, _, _ in columns.values())])


def slots_completion() -> str:
    """Accuracy on the hidden hours in cities that no training has seen."""
    table = read("completion_slots")
    rows = [[str(city), *row] for city, group in table.groupby("city", sort=False) for row in accuracies(group)]
    return markdown(rows, [f"{int(table['weeks'].iloc[0])} weeks a city", "accuracy", *table["gap"].unique()])
