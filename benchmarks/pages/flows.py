"""Tables of the results on commuting flows."""

from __future__ import annotations

import pandas as pd

from .common import markdown, read

SIZES = ("all", "under 10", "10-29", "30-99", "100-400", "30-400")


def _given(row: pd.Series) -> bool:
    return str(row["outflows given"]) == "True"


def common_parts(*, outflows_given: bool) -> str:
    """Common part of commuters of each model by number of regions; correlation over all pairs."""
    table = read("flows")
    table = table[table.apply(_given, axis=1) == outflows_given]
    areas = table.drop_duplicates("size").set_index("size")["areas"]
    rows = []
    for name, part in table.groupby("model", sort=False):
        by_size = part.set_index("size")
        cells = [f"{by_size.loc[size, 'cpc']:.3f}" for size in SIZES]
        shown = f"**{name}**" if str(name).startswith("network") else str(name)
        rows.append([shown, *cells, f"{by_size.loc['all', 'r']:.2f}", f"{by_size.loc['all', 'rmse']:.0f}"])
    header = [f"{size}, {areas[size]} areas" for size in SIZES]
    return markdown(rows, ["CPC by number of regions", *header, "r", "RMSE"])


def by_size(case: str) -> str:
    """CPC with 95 % intervals over areas, by number of regions: the models of the protocol."""
    table = read("commuting-od")
    table = table[(table["case"] == case) & (table["metric"] == "cpc")]
    rows = []
    for (model, kind), part in table.groupby(["model", "kind"], sort=False):
        sizes = part.set_index("subset")
        cells = [
            f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            for row in (sizes.loc[size if size == "all" else f"{size} regions"] for size in SIZES)
        ]
        rows.append([str(model) if kind == "baseline" else f"**{model}**", *cells])
    return markdown(rows, [f"CPC, {case}", *(size if size == "all" else f"{size} regions" for size in SIZES)])


def differences() -> str:
    """The network less LightGBM on the same areas, with 95 % intervals."""
    rows = []
    for (rival, given), part in read("flows_pairs").groupby(["rival", "outflows given"], sort=False):
        by_size = part.set_index("size")
        cells = [
            f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
            for row in (by_size.loc[size] for size in SIZES)
        ]
        rows.append([str(rival), "given" if str(given) == "True" else "predicted", *cells])
    return markdown(rows, ["network less", "outflows", *SIZES])


def robustness() -> str:
    """The network when columns are missing."""
    table = read("flows_columns")
    rows = [
        [str(row["columns"]), "given" if _given(row) else "predicted", *(f"{row[size]:.3f}" for size in SIZES)]
        for _, row in table.iterrows()
    ]
    return markdown(rows, ["columns", "outflows", *SIZES])
