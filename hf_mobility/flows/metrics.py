"""How near predicted flows are to observed ones: per area, by size of the area, and paired differences of two models.

The common part of commuters (CPC) of an area is 2 sum(min(observed, predicted)) / (sum(observed) + sum(predicted)) over
all its pairs (Lenormand et al. 2012, PLoS ONE 7:e45985).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..tokenization.errors import DataError, listing
from .prediction import FlowModel
from .task import FlowTask

SIZE_CLASSES = {"all": (1, 400), "under 10": (1, 9), "10-29": (10, 29), "30-99": (30, 99), "100-400": (100, 400)}
SIZE_CLASSES |= {"30-400": (30, 400)}
_DRAWS_AT_ONCE = 200


def common_part(observed: np.ndarray, predicted: np.ndarray) -> float:
    """CPC of two arrays of flows of the same shape: 0 nothing in common, 1 equal. Two empty arrays are equal."""
    total = float(observed.sum(dtype=np.float64) + predicted.sum(dtype=np.float64))
    return 2 * float(np.minimum(observed, predicted).sum(dtype=np.float64)) / total if total else 1.0


def evaluate_flows(models: Sequence[FlowModel], task: FlowTask, *, outflows_given: bool = False) -> pd.DataFrame:
    """Errors of each model in each area.

    Args:
        models: fitted, with different names.
        task: areas with flows.
        outflows_given: whether the models are told how many commuters live in each region.

    Returns:
        One row per model and area: `model`, `area`, `regions`, `outflows given`, `cpc`, `r` (correlation over all
        pairs; NaN where one side is constant) and `rmse` (commuters).

    Raises:
        DataError: flows of an area are not known.

    Example:
        >>> table = evaluate_flows([GravityModel().fit(train), network], test)  # doctest: +SKIP
        >>> summarize_flows(table)  # doctest: +SKIP
    """
    rows = []
    for model in models:
        for area in task.areas:
            predicted = model.predict(area, area.outflows if outflows_given else None)
            errors = {"cpc": common_part(area.observed, predicted), "r": correlation(area.observed, predicted)}
            errors["rmse"] = float(np.sqrt(np.mean((area.observed - predicted.astype(np.float64)) ** 2)))
            head = {"model": model.name, "area": area.name, "regions": len(area), "outflows given": outflows_given}
            rows.append(head | errors)
    return pd.DataFrame(rows)


def correlation(observed: np.ndarray, predicted: np.ndarray) -> float:
    a, b = (np.ravel(x).astype(np.float64) - x.mean(dtype=np.float64) for x in (observed, predicted))
    length = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / length) if length > 0 else float("nan")


def summarize_flows(table: pd.DataFrame) -> pd.DataFrame:
    """Means over areas of a table of `evaluate_flows`, by size class.

    Returns:
        One row per model, size class (by number of regions) and `outflows given`: `areas`, `cpc`, `r`, `rmse`.
    """
    parts = []
    for name, (low, high) in SIZE_CLASSES.items():
        some = table[table["regions"].between(low, high)]
        groups = some.groupby(["model", "outflows given"], sort=False)
        part = groups.agg(areas=("area", "size"), cpc=("cpc", "mean"), r=("r", "mean"), rmse=("rmse", "mean"))
        parts.append(part.reset_index().assign(size=name))
    return pd.concat(parts, ignore_index=True)


def paired_flows(table: pd.DataFrame, model: str, rival: str, *, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """CPC of `model` less CPC of `rival` on the same areas, with a 95 % interval that resamples areas.

    Returns:
        One row per size class and `outflows given`, where both were evaluated so: `areas`, `difference`, `low`, `high`,
        `wins` (share of areas).

    Raises:
        DataError: one of the two is not in the table, or they stand for different areas.
    """
    if missing := {model, rival} - set(table["model"]):
        raise DataError(
            f"The table has no model {listing(sorted(missing))}; it has {listing(table['model'].unique())}."
        )
    modes = [set(table.loc[table["model"] == name, "outflows given"]) for name in (model, rival)]
    some = table[table["model"].isin([model, rival]) & table["outflows given"].isin(modes[0] & modes[1])]
    both = some.pivot_table(index=["area", "regions", "outflows given"], columns="model", values="cpc", sort=False)
    both = both.reset_index()
    if both[[model, rival]].isna().to_numpy().any():
        raise DataError(f"{model} and {rival} were not evaluated on the same areas.")
    rng = np.random.default_rng(seed)
    rows = []
    for given, part in both.groupby("outflows given", sort=False):
        for name, (low, high) in SIZE_CLASSES.items():
            some = part[part["regions"].between(low, high)]
            difference = (some[model] - some[rival]).to_numpy()
            if not len(difference):
                continue
            means = [
                difference[rng.integers(len(difference), size=(_DRAWS_AT_ONCE, len(difference)))].mean(axis=1)
                for _ in range(-(-draws // _DRAWS_AT_ONCE))
            ]
            ends = np.percentile(np.concatenate(means), (2.5, 97.5))
            row = {"size": name, "outflows given": given, "areas": len(some), "difference": difference.mean()}
            rows.append(row | {"low": ends[0], "high": ends[1], "wins": (difference > 0).mean()})
    return pd.DataFrame(rows).assign(model=model, rival=rival)
