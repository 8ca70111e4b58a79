"""Tables of the speed measurements, one function a table."""

from __future__ import annotations

import pandas as pd

from .common import markdown, percent, read


def speed() -> str:
    table = read("samoe_speed")
    rows = [
        [r["pair"], f"{r['first, ms']:.0f}", f"{r['second, ms']:.0f}", f"{r['ratio']:.2f}"] for _, r in table.iterrows()
    ]
    return markdown(rows, ["pair (first / second)", "first, ms", "second, ms", "ratio"])


def memory() -> str:
    """Peak memory and processor seconds of SAMoE's verbs, as cities and numbers of users grow."""
    rows = [
        [row["verb"], f"{row['places']:,}", f"{row['users']:,}", f"{row['peak, GiB']:.1f}", f"{row['seconds']:,.0f}"]
        for _, row in read("memory").iterrows()
    ]
    return markdown(rows, ["verb", "places", "users", "peak, GiB", "seconds"])


def mstar_speed(name: str) -> str:
    """The rows of the matrix product have a rate only."""
    formats = {"times first": ".2f", "GFLOP per week": ",.1f", "GFLOP/s": ",.0f"}
    rows = []
    for _, row in read(name).iterrows():
        shown = {"ms per week": ",.1f" if row["ms per week"] >= 10 else ".2f", **formats}
        cells = ["" if pd.isna(row[column]) else format(row[column], form) for column, form in shown.items()]
        rows.append([row["measurement"], f"{row['batch']}", row["precision"], *cells, percent(row["share of product"])])
    header = ["batch", "precision", "ms a week", "times the first", "GFLOP a week", "GFLOP/s", "of the product's rate"]
    return markdown(rows, ["measurement", *header])


def raw_speed(name: str) -> str:
    table = read(name)
    table["size"] = table["size"].fillna("")
    rows = []
    for _, row in table.iterrows():
        rate = f"{row['per second']:,.0f}" if row["per second"] >= 1000 else f"{row['per second']:.1f}"
        time = f"{row['ms']:,.{0 if row['ms'] >= 100 else 1}f}"
        cells = [row["variant"], time, f"{rate} {row['unit']}", f"{row['ratio']:.2f}"]
        rows.append([row["measurement"], row["size"], *cells])
    return markdown(rows, ["measurement", "size", "variant", "ms", "a second", "times the first"])


def kernels() -> str:
    """A training step with each kernel of the package and without it."""
    rows = [
        [
            row["model"],
            row["kernel"],
            f"{row['with, ms']:.1f}",
            f"{row['without, ms']:.1f}",
            f"{row['times as long']:.2f}",
        ]
        for _, row in read("kernels").iterrows()
    ]
    return markdown(rows, ["model", "kernel", "with, ms", "without, ms", "times as long without"])


def published() -> str:
    """The published form of each system and ours on the same work."""
    rows = []
    for _, row in read("published").iterrows():
        rows.append([row["work"], row["form"], f"{row['s']:.2f}", f"{row['times as fast']:.1f}"])
    return markdown(rows, ["work", "form", "CPU s", "times as fast"])


def stays() -> str:
    """Finding stays beside a package with a compiled core."""
    rows = []
    for _, row in read("stays").iterrows():
        found = "" if pd.isna(row["stays"]) else f"{row['stays']:,.0f}"
        rows.append([row["measurement"], f"{row['s']:.2f}", f"{row['times the other']:.1f}", found])
    return markdown(rows, ["measurement", "CPU s", "times the other", "stays"])


def imports() -> str:
    """What the package adds to imports of transformers, medians of processor seconds."""
    rows = [
        [
            f"`{row['import']}`",
            f"{row['with_s']:.2f}",
            f"{row['without_s']:.2f}",
            f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
            f"{row['runs']}",
        ]
        for _, row in read("import_time").iterrows()
    ]
    return markdown(rows, ["imported", "after hf_mobility, s", "alone, s", "ratio [95 %]", "pairs"])


def first_output() -> str:
    """How soon each command shows something at a terminal, medians."""
    rows = [
        [f"`{row['command']}`", f"{row['cpu_s']:.2f}", f"{row['wall_s']:.1f}", f"{row['load']:.0f}", f"{row['runs']}"]
        for _, row in read("first_output").iterrows()
    ]
    return markdown(rows, ["command", "first output, CPU s", "wall s", "processes that wanted a core", "runs"])


def streams() -> str:
    """Visits tokenized in chunks of whole users, for tables of several sizes."""
    rows = [
        [
            f"{row['visits']:,.0f}",
            f"{row['users']:,.0f}",
            f"{row['chunks']:.0f}",
            f"{row['cpu_s']:,.0f}",
            f"{row['visits_per_cpu_s']:,.0f}",
            f"{row['peak_gib']:.2f}",
        ]
        for _, row in read("streams").iterrows()
    ]
    return markdown(rows, ["visits", "users", "chunks", "CPU s", "visits a CPU second", "peak memory, GiB"])


def sessions() -> str:
    """Answers a second with and without what is kept of each user."""
    rows = []
    for _, row in read("session").iterrows():
        rates = [f"{row['answers_per_s']:,.0f}", f"{row['ratio']:.1f}", f"{row['bound_per_s']:,.0f}"]
        rows.append([row["measurement"], row["dtype"], f"{row['users']:,}", f"{row['ms']:,.1f}", *rates])
    return markdown(rows, ["measurement", "weights", "users a call", "ms", "answers a second", "ratio", "bound"])


def page() -> str:
    """What a visitor of the demo page waits for."""
    rows = []
    for _, row in read("page").iterrows():
        names = [
            f"{when}_{name}" for when in ("first", "later") for name in ("server_cpu_s", "browser_cpu_s", "wait_s")
        ]
        seconds = [f"{row[name]:.2f}" for name in names]
        rows.append([row["action"], *(seconds[:3] + 3 * [""] if row["repeats"] == 1 else seconds)])
    measured = ("server CPU, s", "browser CPU, s", "wait, s")
    return markdown(rows, ["action", *(f"{when}: {name}" for when in ("first", "later") for name in measured)])


def precisions() -> str:
    """Answers of weights in other precisions, beside those in float32."""
    rows = [
        [
            row["weights"],
            percent(row["acc@1"], 1),
            f"{row['mrr']:.3f}",
            f"{row['largest_difference']:.4f}",
            f"{row['cpu_s']:.1f}",
        ]
        for _, row in read("precision").iterrows()
    ]
    return markdown(rows, ["weights", "acc@1", "MRR", "largest difference", "processor s"])


def billion() -> str:
    """Processor hours of large jobs, from the measured rates of small ones."""
    streams, memory, weeks = read("streams").iloc[-1], read("memory"), read("mstar_speed").iloc[0]
    rows = [["tokenise 1,000,000,000 visits", 1e9 / streams["visits_per_cpu_s"], f"{streams['visits']:,.0f} visits"]]
    for _, row in memory[memory["verb"] == "predict"].drop_duplicates("places", keep="last").iterrows():
        job = f"predict 1,000,000 users in a city of {row['places']:,} places"
        rows.append([job, 1e6 * row["seconds"] / row["users"], f"{row['users']:,} users"])
    week = weeks["ms per week"] / 1e3 * weeks["threads"]
    rows.append(["generate 1,000,000 weeks, the paper's shape", 1e6 * week, f"{weeks['batch']} weeks"])
    made = read("folders").query("verb == 'generate'").iloc[-1]
    rows.append(
        ["generate 1,000,000 weeks, `mstar-small`", 1e6 * made["cpu_s"] / made["users"], f"{made['users']:,} weeks"]
    )
    cells = [[job, f"{seconds / 3600:,.1f}", measured] for job, seconds, measured in rows]
    return markdown(cells, ["job", "processor hours", "measured on"])


def folders() -> str:
    """Peak memory and processor seconds of the commands on folders, and what a million rows more take."""
    rows = []
    for verb, table in read("folders").groupby("verb", sort=False):
        few, many = table.sort_values("rows").iloc[[0, -1]].to_dict("records")
        more = (many["rows"] - few["rows"]) / 1e6
        peaks = [f"{one['rows']:,}: {one['peak_gib']:.2f}" for one in (few, many)]
        if not more:
            rows.append([f"`{verb}`", peaks[0], "", "", ""])
            continue
        memory, seconds = ((many[name] - few[name]) / more for name in ("peak_gib", "cpu_s"))
        rows.append([f"`{verb}`", *peaks, f"{memory:.2f}", f"{seconds:,.0f}"])
    return markdown(
        rows, ["command", "rows: peak, GiB", "rows: peak, GiB", "GiB a million rows", "CPU s a million rows"]
    )


def workers() -> str:
    """Several processes beside one, medians over pairs."""
    rows = []
    for job, table in read("workers").groupby("job", sort=False):
        cpu, wall = (table[name] / table[f"{name}_one"] for name in ("cpu_s", "wall_s"))
        cells = [f"{table['workers'].iloc[0]}", f"{len(table)}", f"{cpu.median():.2f}", f"{1 / wall.median():.2f}"]
        rows.append([f"`{job}`", *cells])
    return markdown(rows, ["command", "processes", "pairs", "processor seconds, ratio", "times as fast"])


def plan() -> str:
    """What a large model would take."""
    rows = [
        [row["quantity"], f"{row['value']:,.{0 if row['value'] >= 1000 else 2}f} {row['unit']}".strip(), row["from"]]
        for _, row in read("plan").fillna("").iterrows()
    ]
    return markdown(rows, ["quantity", "value", "from"])
