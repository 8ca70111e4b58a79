"""Tables of positions at recorded end points, from the results of the protocols of horizons."""

from __future__ import annotations

import pandas as pd

from hf_mobility.benchmark.protocol import Protocol
from hf_mobility.benchmark.results import load_results

from .common import RESULTS, markdown, names_like, read

PROTOCOLS = {"simulated": "simulated-horizons", "geolife": "geolife-horizons", "cabs": "cabs-horizons"}
HORIZONS = {15: "15 min", 60: "60 min", 150: "150 min", 360: "6 h", 1440: "24 h"}


def measured() -> dict[str, str]:
    """Those of `PROTOCOLS` that there are results of.

    Raises:
        FileNotFoundError: there are none.
    """
    found = {points: name for points, name in PROTOCOLS.items() if names_like(name)}
    if not found:
        raise FileNotFoundError(f"there is none of {', '.join(PROTOCOLS.values())}.csv")
    return found


def positions(subset: str) -> str:
    """Mean errors of "all" or "moving" users."""
    return _table(subset, "error_km", "mean error, km")


def medians() -> str:
    return _table("all", "median_km", "median error, km")


def by_user() -> str:
    """Means over users of their own means."""
    rows = []
    for points, model, found in _models():
        cells = [_cell(found, f"all, {minutes} minutes", "error_km", "by_user") for minutes in HORIZONS]
        rows.append([points, model, *cells])
    return markdown(rows, ["points", "mean of users' means, km", *HORIZONS.values()])


def differences(subset: str) -> str:
    """Mean errors less those of the reference, paired by user."""
    rows, where = [], "" if subset == "all" else f"{subset}, "
    for points, name in measured().items():
        known = Protocol.load(name)
        for one in load_results(RESULTS / "protocols/results", known):
            found = {row["metric"]: row for row in one.differences}
            if found:
                gaps = [found.get(f"error_km, {where}{minutes} minutes") for minutes in HORIZONS]
                cells = [
                    "–" if gap is None else f"{gap['mean']:+.2f} [{gap['low']:+.2f}, {gap['high']:+.2f}]"
                    for gap in gaps
                ]
                rows.append([points, _bold(one.model, one.kind), *cells])
    return markdown(rows, ["points", f"less Shrinkage, km, {subset}", *HORIZONS.values()])


def _table(subset: str, metric: str, title: str) -> str:
    rows = []
    for points, model, found in _models():
        cells = [_cell(found, f"{subset}, {minutes} minutes", metric, "") for minutes in HORIZONS]
        count = found.loc[(f"{subset}, 150 minutes", metric)]
        rows.append([points, f"{count['n']:,.0f} of {count['users']:.0f}", model, *cells])
    header = ["points", "at 150 min, of users", f"{title}, {subset}", *HORIZONS.values()]
    return markdown(rows, header)


def _models() -> list[tuple[str, str, pd.DataFrame]]:
    """(points, model, its rows by subset and metric), baselines first."""
    found = []
    for points, name in measured().items():
        for (model, kind), rows in read(name).groupby(["model", "kind"], sort=False):
            found.append((points, _bold(str(model), str(kind)), rows.set_index(["subset", "metric"])))
    return found


def _bold(model: str, kind: str) -> str:
    return model if kind == "baseline" else f"**{model}**"


def _cell(rows: pd.DataFrame, subset: str, metric: str, of: str) -> str:
    """A number of km with its interval; `of` "by_user" for the mean of users."""
    row = rows.loc[(subset, metric)]
    value, low, high = (row[name] for name in ((of, f"{of}_low", f"{of}_high") if of else ("value", "low", "high")))
    return "–" if pd.isna(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
