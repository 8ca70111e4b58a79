"""Tables of the next-location results, one function a table."""

from __future__ import annotations

import pandas as pd

from .common import markdown, names_like, percent, read

CITY_NAMES = {"calgary": "Calgary", "chicago": "Chicago", "washington_dc": "Washington", "gowalla_austin": "Austin"}
TITLES = {"acc@1/mrr": "Acc@1/MRR", "acc@10/mrr": "Acc@10/MRR"}
NEURAL = {"GRU (100 %)": "GRU with location ids, 100 %", "Transformer (100 %)": "transformer with location ids, 100 %"}


def over_draws(table: pd.DataFrame) -> pd.DataFrame:
    """One row per city, subset and model without its draw."""
    table = table.assign(model=table["model"].str.replace(r",? draw \d+", "", regex=True))
    grouped = table.groupby(["city", "subset", "model"], sort=False)
    means = grouped[["n", "users", "acc@1", "acc@5", "acc@10", "mrr", "mrr_low", "mrr_high", "nll", "ece"]].mean()
    return means.assign(draws=grouped.size(), spread=grouped["mrr"].std().fillna(0.0)).reset_index()


def transfer_rows(subset: str) -> pd.DataFrame:
    table = over_draws(read("transfer"))
    neural = read("baselines")
    neural = neural[neural["model"].isin(NEURAL)].replace({"model": NEURAL})
    parts = [table, over_draws(neural)]
    if names_like("full_data"):
        scratch = over_draws(read("full_data"))
        parts.append(scratch.assign(model="SAMoE from scratch, 100 %"))
    everything = pd.concat(parts, ignore_index=True)
    return everything[everything["subset"] == subset]


def wide(subset: str, columns: tuple[str, ...]) -> str:
    """One row per model, one column per city, with the interval of the last metric; baselines first, ours last and
    bold."""
    table = transfer_rows(subset)
    models = list(dict.fromkeys(table["model"]))
    ours = [model for model in models if model.startswith("SAMoE") and "scratch" not in model]
    rows = []
    for model in [model for model in models if model not in ours] + ours:
        cells, values = [], []
        for city in CITY_NAMES:
            found = table[(table["city"] == city) & (table["model"] == model)]
            cells.append(_scores(found.iloc[0], columns) if len(found) else "–")
            values.append([found[c].iloc[0] for c in columns] if len(found) else None)
        whole = None not in values
        mean = "/".join(f"{sum(v[i] for v in values) / len(values):.3f}" for i in range(len(columns))) if whole else "–"
        rows.append([f"**{model}**" if model in ours else model, *cells, mean])
    return markdown(rows, [TITLES["/".join(columns)], *CITY_NAMES.values(), "mean"])


def _scores(row: pd.Series, columns: tuple[str, ...]) -> str:
    bounds = [row.get(f"{columns[-1]}_{end}", float("nan")) for end in ("low", "high")]
    text = "/".join(f"{row[column]:.3f}" for column in columns)
    return text if pd.isna(bounds).any() else f"{text} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def detail() -> str:
    table = transfer_rows("all")
    rows = []
    for city, title in CITY_NAMES.items():
        for _, row in table[table["city"] == city].iterrows():
            interval = f"{row['mrr']:.3f} [{row['mrr_low']:.3f}, {row['mrr_high']:.3f}]"
            spread = f"±{row['spread']:.4f} over {row['draws']}" if row["draws"] > 1 else ""
            scores = [f"{row[c]:.3f}" for c in ("acc@1", "acc@5", "acc@10")]
            rows.append([title, row["model"], *scores, interval, spread, f"{row['nll']:.3f}", f"{row['ece']:.3f}"])
    return markdown(rows, ["city", "model", "Acc@1", "Acc@5", "Acc@10", "MRR [95 %]", "draws", "log-loss", "ECE"])


def pairs() -> str:
    table = read("transfer_pairs")
    table["ours"] = table["ours"].str.replace(r",? draw \d+", "", regex=True)
    table["rival"] = table["rival"].str.replace(r" draw \d+", "", regex=True)
    keys = ["city", "ours", "rival", "metric"]
    means = table.groupby(keys, sort=False)[["mean", "low", "high"]].mean().reset_index()
    rows = []
    for (ours, rival, metric), group in means.groupby(["ours", "rival", "metric"], sort=False):
        cells = []
        for city in CITY_NAMES:
            here = group[group["city"] == city]
            if here.empty:
                cells.append("–")
                continue
            found = here.iloc[0]
            text = f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
            cells.append(f"**{text}**" if found["low"] > 0 or found["high"] < 0 else text)
        rows.append([ours, rival, metric, *cells])
    return markdown(rows, ["ours", "minus", "metric", *CITY_NAMES.values()])


def adaptations(name: str = "transfer") -> str:
    table = read(f"{name}_adaptations")
    rows = []
    for (city, fraction), group in table.groupby(["city", "fraction"], sort=False):
        used = ", ".join(group["used"])
        visits = f"{group['visits'].min()}–{group['visits'].max()}" if len(group) > 1 else str(group["visits"].iloc[0])
        rows.append(
            [
                CITY_NAMES.get(city, city),
                percent(fraction),
                visits,
                used,
                f"{group['seconds'].max():.0f} s",
            ]
        )
    return markdown(rows, ["city", "people", "visits", "strength chosen, per draw", "longest"])


def curve() -> str:
    table = over_draws(read("curve"))
    table = table[(table["subset"] == "all") & table["model"].str.contains("LoRA|zero-shot, 0|mix")]
    cities = list(dict.fromkeys(table["city"]))
    rows = []
    for model in dict.fromkeys(table["model"]):
        one = table[table["model"] == model].set_index("city")
        rows.append([model, *(f"{one.loc[city, 'acc@1']:.3f}/{one.loc[city, 'mrr']:.3f}" for city in cities)])
    return markdown(rows, ["Acc@1/MRR", *(CITY_NAMES.get(city, city) for city in cities)])


def other_kind(name: str, title: str) -> str:
    table = over_draws(read(name))
    rows = []
    for _, row in table.iterrows():
        scores = [f"{row[c]:.3f}" for c in ("acc@1", "acc@5", "acc@10", "mrr", "nll", "ece")]
        rows.append([row["model"], *scores, f"±{row['spread']:.4f} over {row['draws']}" if row["draws"] > 1 else ""])
    return markdown(rows, [title, "Acc@1", "Acc@5", "Acc@10", "MRR", "log-loss", "ECE", "draws (sd of MRR)"])


def new_places_reach() -> str:
    table = read("new_places_reach")
    shares = list(table.columns[3:])
    rows = []
    for _, row in table.iterrows():
        head = [CITY_NAMES.get(row["city"], row["city"]), percent(row["share of people"]), str(row["new places"])]
        rows.append([*head, *(f"{row[column]:.3f}" for column in shares)])
    return markdown(rows, ["city", "counts of", "new places", *shares])


def new_places_priors() -> str:
    table = read("new_places_priors")
    rows = []
    for (city, model), group in table.groupby(["city", "model"], sort=False):
        one = group.set_index("subset")
        everywhere, new = one.loc["all"], one.loc["new places"]
        scores = [f"{everywhere['acc@1']:.3f}/{everywhere['mrr']:.3f}", f"{new['acc@10']:.3f}/{new['mrr']:.3f}"]
        gain = [everywhere[f"mrr gain{end}"] for end in ("", " low", " high")]
        shown = "" if pd.isna(gain[0]) else f"{gain[0]:+.4f} [{gain[1]:+.4f}, {gain[2]:+.4f}]"
        rows.append([CITY_NAMES.get(city, city), model, *scores, shown])
    return markdown(rows, ["city", "model", "all, Acc@1/MRR", "new places, Acc@10/MRR", "MRR gained by priors [95 %]"])


def seeds() -> str:
    """The zero-shot row of the shipped checkpoint, and of the first step of its training with two seeds."""
    rows = []
    for name in ("transfer", *names_like("transfer_seed?")):
        table = read(name)
        table = table[(table["subset"] == "all") & table["model"].eq("SAMoE zero-shot, 0 %")].set_index("city")
        scores = table.loc[list(CITY_NAMES), ["acc@1", "mrr"]]
        cells = [f"{accuracy:.3f}/{mrr:.3f}" for accuracy, mrr in (*scores.to_numpy(), scores.mean().to_numpy())]
        seed = name.partition("_seed")[2]
        rows.append([f"check-ins only, seed {seed}" if seed else "**samoe-small**", *cells])
    return markdown(rows, ["weights", *CITY_NAMES.values(), "mean"])


def strengths() -> str:
    table = read("strengths")
    rows = [[r["model"], *(f"{r[c]:.3f}" for c in ("acc@1", "acc@5", "mrr", "nll"))] for _, r in table.iterrows()]
    return markdown(rows, ["206 other cabs: recipe, visits looked back on", "Acc@1", "Acc@5", "MRR", "log-loss"])


def dense() -> str:
    table = read("dense")
    rows = []
    for model, group in table.groupby("model", sort=False):
        known, new = group[group["subset"] == "all"].iloc[0], group[group["subset"] == "new places"].iloc[0]
        score = f"{known['mrr']:.3f} [{known['mrr_low']:.3f}, {known['mrr_high']:.3f}]"
        scores = [f"{known[c]:.3f}" for c in ("acc@1", "acc@5", "acc@10")]
        seconds = f"{known['seconds']:,.0f}" if known["seconds"] else ""
        rows.append([model, *scores, score, f"{known['nll']:.3f}", f"{new['acc@10']:.3f}", seconds])
    return markdown(rows, ["model", "Acc@1", "Acc@5", "Acc@10", "MRR [95 %]", "log-loss", "Acc@10 new", "training, s"])


def ablation() -> str:
    table = read("ablation")
    rows = []
    for _, row in table.iterrows():
        scores = [f"{row[c]:.3f}" for c in ("acc@1", "acc@10", "mrr", "nll", "mrr known places", "acc@10 new places")]
        gap = "" if pd.isna(row["mrr minus full"]) else f"{row['mrr minus full']:+.4f}"
        clear = "" if gap == "" else f"{row['cities clearly below full']:.0f} / {row['cities clearly above full']:.0f}"
        parameters = "" if pd.isna(row["parameters"]) else f"{row['parameters'] / 1e6:.2f} M"
        rows.append([f"{row['variant']}, seed {row['seed']:.0f}", *scores, gap, clear, parameters])
    header = [
        "variant",
        "Acc@1",
        "Acc@10",
        "MRR",
        "log-loss",
        "MRR known",
        "Acc@10 new",
        "MRR minus full",
        "cities below / above",
        "size",
    ]
    return markdown(rows, header)


def gaps() -> str:
    """Absolute error of the time to the next visit: per visit, and as the mean of the users' means."""
    table = read("gaps")
    cities = list(dict.fromkeys(table["city"]))
    rows = []
    for model in dict.fromkeys(table["model"]):
        one = table[table["model"] == model].set_index("city")
        cells = [f"{one.loc[city, 'mae_hours']:.1f} / {one.loc[city, 'mae_hours_by_user']:.1f}" for city in cities]
        rows.append([f"**{model}**" if model == "SAMoE, median" else model, *cells])
    return markdown(rows, ["hours, per visit / per user", *(CITY_NAMES.get(city, city) for city in cities)])


def sets() -> str:
    table = read("sets")
    rows = []
    for (city, wanted), group in table.groupby(["city", "wanted"], sort=False):
        one = group.set_index("model")
        head = [f"{CITY_NAMES.get(city, city)} ({one['number_of_places'].iloc[0]:,} places)", percent(wanted)]
        cells = []
        for model in ("count mix", "SAMoE"):
            row = one.loc[model]
            cells.append(f"{100 * row['coverage']:.1f} ± {100 * row['coverage_spread']:.1f} %")
            cells.append(f"{row['places']:,.1f} ({row['places_median']:,.0f})")
        rows.append([*head, *cells])
    header = ["city", "wanted", "count mix: held", "places, mean (median)", "SAMoE: held", "places, mean (median)"]
    return markdown(rows, header)


def temperatures() -> str:
    """Log-loss and calibration before and after `adapt`, which also fits a temperature."""
    rows = [
        [
            CITY_NAMES.get(row["city"], row["city"]),
            row["used"],
            row["strength"] if row["used"] != "not adapted" else "",
            f"{row['temperature']:.2f}",
            *(f"{row[name]:.3f}" for name in ("nll", "ece", "mrr")),
        ]
        for _, row in read("temperature").iterrows()
    ]
    return markdown(rows, ["city", "model", "strength", "temperature", "log-loss", "ECE", "MRR"])
