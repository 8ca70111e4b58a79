"""Tables of the generation results (codecs, generators, ablations), one function a table."""

from __future__ import annotations

import pandas as pd

from .common import markdown, percent, read

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


def movement(name: str) -> str:
    """Measures of movement that the mean of six leaves out, in units of 0.001 nats (stay rate: 0.001)."""
    columns = {"motifs": "motifs of a day", "locations_per_day": "places per day", "stay_rate": "stay rate by hour"}
    table = read(name)
    table = table[table["model"] != "real itself"]
    rows = [
        [
            f"**{row['model']}**" if row["model"].startswith("M-STAR") else row["model"],
            *(f"{1000 * row[column]:.1f}" for column in columns),
            f"{1000 * row['mean6']:.1f}",
        ]
        for _, row in table.iterrows()
    ]
    return markdown(rows, ["0.001 nats", *columns.values(), "mean of six"])


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


def settings(name: str) -> str:
    """Ways of drawing, the best first; ± is the spread over draws, where there are several."""
    rows = []
    for _, row in read(name).sort_values("mean6").iterrows():
        mean, moves = reached(row, "mean6")
        rows.append(
            [f"`{row['settings']}`", mean + (f" ± {1000 * row['mean6_sd']:.1f}" if "mean6_sd" in row else ""), moves]
        )
    return markdown(rows, ["settings of drawing", "mean of six, 0.001 nats", "moves a day"])
