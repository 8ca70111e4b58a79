"""Fill the tables of the README, the results page and the checkpoint card: `python tools/fill_results.py`.

Unusual: nobody types a figure. A table stands between `<!-- begin NAME -->` and `<!-- end -->`; a name whose CSV is
absent is left as it is. Rows of several draws are averaged, and their spread is given as ±.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
CITY_NAMES = {"calgary": "Calgary", "chicago": "Chicago", "washington_dc": "Washington", "gowalla_austin": "Austin"}
TITLES = {"acc@1/mrr": "Acc@1/MRR", "acc@10/mrr": "Acc@10/MRR"}
NEURAL = {"GRU (100 %)": "GRU with location ids, 100 %", "Transformer (100 %)": "transformer with location ids, 100 %"}


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(RESULTS / f"{name}.csv", comment="#")


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


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
    if (RESULTS / "full_data.csv").is_file():
        scratch = over_draws(read("full_data"))
        parts.append(scratch.assign(model="SAMoE from scratch, 100 %"))
    everything = pd.concat(parts, ignore_index=True)
    return everything[everything["subset"] == subset]


def markdown(rows: list[list[str]], header: list[str]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def wide(subset: str, columns: tuple[str, ...]) -> str:
    """One row per model, one column per city; baselines first, ours last and bold."""
    table = transfer_rows(subset)
    models = list(dict.fromkeys(table["model"]))
    ours = [model for model in models if model.startswith("SAMoE") and "scratch" not in model]
    rows = []
    for model in [model for model in models if model not in ours] + ours:
        cells, values = [], []
        for city in CITY_NAMES:
            found = table[(table["city"] == city) & (table["model"] == model)]
            cells.append("/".join(f"{found[c].iloc[0]:.3f}" for c in columns) if len(found) else "–")
            values.append([found[c].iloc[0] for c in columns] if len(found) else None)
        whole = None not in values
        mean = "/".join(f"{sum(v[i] for v in values) / len(values):.3f}" for i in range(len(columns))) if whole else "–"
        rows.append([f"**{model}**" if model in ours else model, *cells, mean])
    return markdown(rows, [TITLES["/".join(columns)], *CITY_NAMES.values(), "mean"])


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
    """The zero-shot row of the shipped checkpoint (seed 0) and of those that were trained with other seeds."""
    rows = []
    for path in [RESULTS / "transfer.csv", *sorted(RESULTS.glob("transfer_seed?.csv"))]:
        table = read(path.stem)
        table = table[(table["subset"] == "all") & table["model"].eq("SAMoE zero-shot, 0 %")].set_index("city")
        scores = table.loc[list(CITY_NAMES), ["acc@1", "mrr"]]
        cells = [f"{accuracy:.3f}/{mrr:.3f}" for accuracy, mrr in (*scores.to_numpy(), scores.mean().to_numpy())]
        rows.append([path.stem.partition("_seed")[2] or "0", *cells])
    return markdown(rows, ["seed", *CITY_NAMES.values(), "mean"])


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


def speed() -> str:
    table = pd.read_csv(ROOT / "benchmarks" / "samoe_speed.csv", comment="#")
    rows = [
        [r["pair"], f"{r['first, ms']:.0f}", f"{r['second, ms']:.0f}", f"{r['ratio']:.2f}"] for _, r in table.iterrows()
    ]
    return markdown(rows, ["pair (first / second)", "first, ms", "second, ms", "ratio"])


GENERATION = {
    "displacement": "displacement",
    "radius": "radius",
    "duration": "duration",
    "periodicity": "places",
    "g_rank": "G-rank",
    "i_rank": "I-rank",
    "mean6": "mean of six",
    "cpc": "CPC",
    "moves_per_day": "moves a day",
    "copied_moving": "copies",
}


def generation(name: str) -> str:
    """Divergences in units of 0.001 nats, so that they can be read; ± is the spread of the mean over draws."""
    rows = []
    for _, row in read(name).iterrows():
        cells = [f"{1000 * row[column]:.1f}" for column in list(GENERATION)[:6]]
        spread = "" if pd.isna(row["mean6_sd"]) else f" ± {1000 * row['mean6_sd']:.1f}"
        cells += [f"{1000 * row['mean6']:.1f}{spread}", f"{row['cpc']:.2f}", f"{row['moves_per_day']:.2f}"]
        copies = "" if pd.isna(row["copied_moving"]) else percent(row["copied_moving"], 1)
        name = f"**{row['model']}**" if row["model"].startswith("M-STAR") else row["model"]
        rows.append([name, *cells, copies, str(row["draws"])])
    return markdown(rows, ["JSD, 0.001 nats", *GENERATION.values(), "draws"])


def codec(*names: str) -> str:
    """Round trips of one or several files."""
    kinds = {
        "mstar_codec_eight": ", eight levels",
        "mstar_codec_encoder": ", eight levels, two encoder layers",
        "mstar_codec_days_nested": ", nested cells",
        "mstar_codec_days_short": ", four levels, 2,048 codes",
        "mstar_codec_cabs_short": ", four levels, 2,048 codes",
    }
    rows = [
        [
            f"{row['data'].replace('_', ' ')}{kinds.get(name, '')}, {row['part']}",
            f"{row['weeks']:,.0f}",
            f"{row['accuracy']:.4f}",
            f"{row['accuracy near moves']:.4f}",
            f"{row['whole week exact']:.3f}",
            f"{row['moves per day']:.2f} / {row['moves per day, round trip']:.2f}",
            f"{row['codes in use, mean level']:.0f} / {row['codes in use, finest level']:.0f}",
        ]
        for name in names
        for _, row in read(name).iterrows()
    ]
    header = ["weeks", "number", "accuracy", "near moves", "whole week exact", "moves a day, real / round trip"]
    return markdown(rows, [*header, "codes in use, mean level / finest"])


def over_seeds(values: pd.Series, digits: int) -> str:
    """Mean ± standard deviation, where there are several."""
    return f"{values.mean():.{digits}f}" + (f" ± {values.std():.{digits}f}" if len(values) > 1 else "")


def codec_ablation() -> str:
    columns = {"accuracy": 3, "accuracy near moves": 3, "whole week exact": 3, "moves per day, round trip": 2}
    columns |= {"codes in use, mean level": 0, "codes in use, finest level": 0}
    table = read("mstar_codec_ablation")
    rows = [
        [str(name), *(over_seeds(group[column], digits) for column, digits in columns.items())]
        for name, group in table.groupby("variant", sort=False)
    ]
    real = f"moves a day, round trip (real {table['moves per day'].mean():.2f})"
    header = ["accuracy", "near moves", "whole day exact", real, "codes in use, mean level", "finest"]
    return markdown(rows, [f"codec, {table['seed'].nunique()} seeds", *header])


def generator_ablation(file: str) -> str:
    """Divergences in 0.001 nats, means over seeds."""
    table = read(file)
    seeds = table[table["drawing"] != "-"]["seed"].nunique()
    rows = []
    for (name, drawing), group in table.groupby(["variant", "drawing"], sort=False):
        cells = [f"{1000 * group[column].mean():.1f}" for column in list(GENERATION)[:6]]
        cells += [over_seeds(1000 * group["mean6"], 1), over_seeds(group["moves_per_day"], 2)]
        rows.append([str(name), "" if drawing == "-" else str(drawing), *cells])
    header = [*list(GENERATION.values())[:6], "mean of six", "moves a day"]
    return markdown(rows, [f"trained, {seeds} seeds", "drawn", *header])


def reached(row: pd.Series, *divergences: str) -> list[str]:
    """Cells of a generator's row: divergences in 0.001 nats, and the moves a day. Titles: see `titles`."""
    return [*(f"{1000 * row[name]:.1f}" for name in divergences), f"{row['moves_per_day']:.2f}"]


def titles(*divergences: str) -> list[str]:
    return [GENERATION[name] for name in (*divergences, "moves_per_day")]


def generators_by_codec() -> str:
    """Generators on several codecs, one seed."""
    columns = ("duration", "periodicity", "mean6")
    rows = []
    for _, row in read("mstar_ablation_codecs").iterrows():
        what = [row["codec"], f"{row['codec_accuracy']:.4f}", f"{row['steps']:,}", row["variant"]]
        rows.append([*what, *reached(row, *columns)])
    return markdown(rows, ["codec", "its accuracy", "steps", "generator", *titles(*columns)])


def levels() -> str:
    """Weeks whose levels are drawn from some level on."""
    rows = []
    for _, row in read("mstar_levels").iterrows():
        lengths = (row["length of residual"], row["length of features"])
        cells = ["" if pd.isna(lengths[0]) else " of ".join(f"{length:.1f}" for length in lengths)]
        stays = [percent(row[name]) for name in ("stays of one slot", "stays of two slots")]
        cells += [*reached(row, "duration", "periodicity", "mean6"), *stays]
        rows.append([str(row["drawn from level"]), *cells])
    columns = titles("duration", "periodicity", "mean6")
    return markdown(rows, ["drawn from level", "residual", *columns, "stays of one slot", "of two"])


def nats(row: pd.Series) -> str:
    """Of a whole week or day: those can be compared between codecs, the nats of a code cannot."""
    return f"{row['codes'] * row['validation_loss']:.0f}"


def encoders() -> str:
    """Short trainings on simulated weeks, by codec."""
    rows = []
    for _, row in read("mstar_encoders").iterrows():
        what = [row["codec"], f"{row['accuracy']:.4f}", f"{row['codes']}"]
        rows.append([*what, nats(row), *reached(row, "mean6")])
    return markdown(rows, ["codec", "its accuracy", "codes", "nats a week", *titles("mean6")])


def passes() -> str:
    """Short trainings on days, by codec and passes within a level."""
    columns = ("duration", "periodicity", "mean6")
    rows = []
    for _, row in read("mstar_passes").iterrows():
        what = [row["levels"], f"{row['codes']}", f"{row['accuracy']:.4f}"]
        training = [f"{row['passes']}", row["own_codes"], f"{row['dropout']}", f"{row['steps']:,}"]
        rows.append([*what, *training, nats(row), *reached(row, *columns)])
    header = ["levels", "codes", "accuracy", "passes", "own codes", "dropout", "steps", "nats a day"]
    return markdown(rows, [*header, *titles(*columns)])


def mstar_speed(name: str) -> str:
    """The rows of the matrix product have a rate only."""
    formats = {"times first": ".2f", "GFLOP per week": ",.1f", "GFLOP/s": ",.0f"}
    rows = []
    for _, row in pd.read_csv(ROOT / "benchmarks" / f"{name}.csv", comment="#").iterrows():
        shown = {"ms per week": ",.1f" if row["ms per week"] >= 10 else ".2f", **formats}
        cells = ["" if pd.isna(row[column]) else format(row[column], form) for column, form in shown.items()]
        rows.append([row["measurement"], f"{row['batch']}", row["precision"], *cells, percent(row["share of product"])])
    header = ["batch", "precision", "ms a week", "times the first", "GFLOP a week", "GFLOP/s", "of the product's rate"]
    return markdown(rows, ["measurement", *header])


def settings(name: str) -> str:
    """Ways of drawing, the best first; ± is the spread over draws, where there are several."""
    rows = []
    for _, row in read(name).sort_values("mean6").iterrows():
        mean, moves = reached(row, "mean6")
        rows.append(
            [f"`{row['settings']}`", mean + (f" ± {1000 * row['mean6_sd']:.1f}" if "mean6_sd" in row else ""), moves]
        )
    return markdown(rows, ["settings of drawing", "mean of six, 0.001 nats", "moves a day"])


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
    found = [name for name in names if (RESULTS / f"raw_rollout_{name}.csv").is_file()]
    if not found:
        raise FileNotFoundError(f"no raw_rollout_*.csv in {RESULTS}")
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


def raw_speed(name: str) -> str:
    table = pd.read_csv(ROOT / "benchmarks" / f"{name}.csv", comment="#")
    table["size"] = table["size"].fillna("")
    rows = []
    for _, row in table.iterrows():
        rate = f"{row['per second']:,.0f}" if row["per second"] >= 1000 else f"{row['per second']:.1f}"
        time = f"{row['ms']:,.{0 if row['ms'] >= 100 else 1}f}"
        cells = [row["variant"], time, f"{rate} {row['unit']}", f"{row['ratio']:.2f}"]
        rows.append([row["measurement"], row["size"], *cells])
    return markdown(rows, ["measurement", "size", "variant", "ms", "a second", "times the first"])


HORIZONS = (15, 30, 60, 90, 150)
USER_METRICS, VALUE_METRICS = ("accuracy", "f1", "auc"), ("mae", "pcc", "r2")

BLOCKS: dict[str, Callable[[], str]] = {
    "raw knows": knows,
    "raw neighbours": neighbours,
    "raw profile": lambda: probes("raw_profile", metrics=USER_METRICS),
    "raw profile small": lambda: probes("raw_profile_small", metrics=USER_METRICS),
    "raw regions": lambda: probes("raw_regions", label="label", metrics=VALUE_METRICS),
    "raw roll-out": lambda: roll_outs("simulated", "geolife", "cabs"),
    "raw roll-out geolife": lambda: roll_outs("geolife_larger", "geolife_recorded_only"),
    "raw roll-out simulated": lambda: roll_outs("simulated"),
    "raw geolife": geolife,
    "raw speed": lambda: raw_speed("raw_speed"),
    "raw speed base": lambda: raw_speed("raw_speed_base"),
    "raw speed gpu": lambda: raw_speed("raw_speed_gpu"),
    "mstar codec": lambda: codec("mstar_codec"),
    "mstar codecs": lambda: codec(
        *("mstar_codec", "mstar_codec_eight", "mstar_codec_encoder", "mstar_codec_days", "mstar_codec_days_nested"),
        *("mstar_codec_days_short", "mstar_codec_cabs", "mstar_codec_cabs_short"),
    ),
    "mstar codec ablation": codec_ablation,
    "mstar simulated": lambda: generation("mstar_simulated"),
    "mstar days": lambda: generation("mstar_days"),
    "mstar cabs": lambda: generation("mstar_cabs"),
    "mstar settings": lambda: settings("mstar_settings"),
    "mstar settings days": lambda: settings("mstar_settings_days_shifted"),
    "mstar ablation": lambda: generator_ablation("mstar_ablation"),
    "mstar encoders": encoders,
    "mstar passes": passes,
    "mstar levels": levels,
    "mstar codecs and generators": generators_by_codec,
    "mstar speed": lambda: mstar_speed("mstar_speed"),
    "mstar speed gpu": lambda: mstar_speed("mstar_speed_gpu"),
    "transfer": lambda: wide("all", ("acc@1", "mrr")),
    "new places": lambda: wide("new places", ("acc@10", "mrr")),
    "known places": lambda: wide("known places", ("acc@1", "mrr")),
    "detail": detail,
    "pairs": pairs,
    "adaptations": adaptations,
    "curve": curve,
    "curve adaptations": lambda: adaptations("curve"),
    "other kind": lambda: other_kind("other_kind", "160 San Francisco cabs"),
    "other kind geolife": lambda: other_kind("other_kind_geolife", "GeoLife stays"),
    "new places reach": new_places_reach,
    "new places priors": new_places_priors,
    "seeds": seeds,
    "strengths": strengths,
    "dense": dense,
    "ablation": ablation,
    "speed": speed,
}
MARK = re.compile(r"<!-- begin (?P<name>[\w -]+?) -->\n.*?<!-- end -->", flags=re.DOTALL)


def fill(text: str) -> str:
    def block(found: re.Match[str]) -> str:
        try:
            table = BLOCKS[found["name"]]()
        except FileNotFoundError as missing:
            print(f"{found['name']}: {missing}")
            return found[0]
        return f"<!-- begin {found['name']} -->\n{table}\n<!-- end -->"

    return MARK.sub(block, text)


def main() -> None:
    cards = sorted((ROOT / "checkpoints").glob("*/README.md"))
    docs = [ROOT / "docs" / name for name in ("results.md", "embeddings.md")]
    for page in (ROOT / "README.md", *docs, *cards):
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
