"""The box of a city's records, and records or tables of weeks as weeks on a tokenizer's grid, with a report of both.

One stray record must not decide how large a city is: a box that its outermost hundredth of the records stretches to
more than `MAX_STRETCH` times the area is refused, with the numbers and the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .frames import DataError
from .weeks import WeekTable

__all__ = ["central_box", "corners", "describe_grid", "describe_weeks", "refuse_strays", "weeks_on"]

CORE = 0.99  # of the records, on each axis
MAX_STRETCH = 10.0
KM_PER_DEGREE = 111.195
Bounds = tuple[float, float, float, float]


def refuse_strays(lat: Any, lon: Any, *, cell_km: float = 1.0) -> None:
    """Check that the outermost records do not decide how large the box of all is.

    Args:
        lat, lon: (n,) degrees.
        cell_km: side of a cell of the grid, for the message; smaller boxes count as one cell.

    Raises:
        DataError: if the box has more than ten times as many cells as that of the other records.
    """
    whole, core = central_box(lat, lon, coverage=1.0), central_box(lat, lon, coverage=CORE, inner=True)
    cells, core_cells = _cells(whole, cell_km), _cells(core, cell_km)
    if cells <= MAX_STRETCH * core_cells:
        return
    edges = ",".join(f"{edge:.4f}" for edge in core)
    raise DataError(
        f"The outermost {1 - CORE:.0%} of the {len(lat):,} records stretch the box from {core_cells:,.0f} to "
        f"{cells:,.0f} cells of {cell_km:g} km: leave far records out with coverage={CORE:g}, or give the city's "
        f"bounds=(south, west, north, east); those of the other records are {edges}."
    )


def central_box(lat: Any, lon: Any, *, coverage: float, inner: bool = False) -> Bounds:
    """(south, west, north, east) around the central share of the coordinates, on each axis; with `inner`, less one
    record at each end at least.

    Raises:
        DataError: a coverage that is no share.
    """
    if not 0 < coverage <= 1:
        raise DataError(f"coverage must lie in 0..1, 0 excluded; it is {coverage}.")
    tail, methods = (1 - coverage) / 2, ("higher", "lower") if inner else ("linear", "linear")
    ends = []
    for values in (np.asarray(lat, np.float64), np.asarray(lon, np.float64)):
        low, high = (float(np.quantile(values, q, method=how)) for q, how in zip((tail, 1 - tail), methods))  # type: ignore[call-overload]
        ends.append((low, max(low, high)))
    (south, north), (west, east) = ends
    margin = 1e-6  # a tenth of a metre, so that a single point has a box
    return south - margin, west - margin, north + margin, east + margin


def corners(bounds: Sequence[float]) -> pd.DataFrame:
    """The south-west and the north-east corner of (south, west, north, east) as `lat` and `lon`."""
    south, west, north, east = (float(edge) for edge in bounds)
    return pd.DataFrame({"lat": [south, north], "lon": [west, east]})


def _cells(box: Bounds, cell_km: float) -> float:
    south, west, north, east = box
    high = (north - south) * KM_PER_DEGREE / cell_km
    wide = (east - west) * KM_PER_DEGREE * np.cos(np.radians((south + north) / 2)) / cell_km
    return float(np.ceil(max(high, 1)) * np.ceil(max(wide, 1)))


# --------------------------------------------------------------------------------------------------------------- weeks


def weeks_on(
    tokenizer: Any, data: Any, *, min_known: float | None = None, fill_hours: float | None = None
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """Weeks of cells on the grid of a `MstarTokenizer`.

    Args:
        data: a canonical frame of visits or points, or a `WeekTable` whose cells are those of the tokenizer.
        min_known: least share of known hours of a week that is kept; 0.5 by default.
        fill_hours: longest gap between two hours in the same cell that is filled; 0 by default, and for tables.

    Returns:
        (N, L) int32 cells, -1 = unknown; (N,) user ids or None; the report of `MstarTokenizer.weeks`.

    Raises:
        DataError: a table of another grid or length, or no week that is known well enough.
    """
    least = 0.5 if min_known is None else min_known
    if not isinstance(data, WeekTable):
        weeks = tokenizer.weeks(data, min_known=least, fill_hours=fill_hours or 0.0)
        return weeks.cells, np.asarray(weeks.user_id), weeks.report
    if fill_hours:
        raise DataError("fill_hours is for records: a table of weeks says itself which hours are known.")
    _check_grid(tokenizer, data)
    cells = tokenizer.as_cells(data.cells)
    kept = data.known >= least
    if not kept.any():
        raise DataError(f"None of {len(cells)} weeks has {least:.0%} of its hours known: lower min_known.")
    users = None if data.user_id is None else data.user_id[kept]
    report = {"rows": len(cells), "users": len(np.unique(users)) if users is not None else None}
    report |= {"rows_outside": 0, "hours_filled": 0, "weeks_found": len(cells), "weeks_dropped": int((~kept).sum())}
    return cells[kept], users, report


def _check_grid(tokenizer: Any, table: WeekTable) -> None:
    grid = table.grid
    if grid is None or tokenizer.box is None:
        return  # the numbers of the cells are all there is to compare
    edges = (grid.south, grid.west, grid.north, grid.east)
    shape, own = (grid.rows, grid.cols), (tokenizer.rows, tokenizer.columns)
    if shape != own or not np.allclose(edges, tokenizer.box, atol=1e-6):
        raise DataError(
            f"The table's cells are those of {shape[0]} x {shape[1]} over {edges}, the model's of {own[0]} x {own[1]} "
            f"over {tuple(tokenizer.box)}: train on the table, or give records, which find their cells themselves."
        )


def describe_grid(tokenizer: Any) -> str:
    """One sentence on rows, columns, cells and bounds of a `MstarTokenizer`."""
    if tokenizer.box is None:
        return f"grid: a list of {tokenizer.num_cells:,} cells"
    south, west, north, east = tokenizer.box
    rows, columns = tokenizer.rows, tokenizer.columns
    high = (north - south) / rows * KM_PER_DEGREE
    wide = (east - west) / columns * KM_PER_DEGREE * np.cos(np.radians((south + north) / 2))
    edges = ",".join(f"{edge:.4f}" for edge in tokenizer.box)
    return f"grid: {rows} x {columns} = {rows * columns:,} cells of {high:.2f} x {wide:.2f} km, bounds {edges}"


def describe_weeks(report: dict[str, Any], *, min_known: float | None = None) -> str:
    """One sentence on the weeks that were kept, and on what was left out or filled."""
    found, dropped = report["weeks_found"], report["weeks_dropped"]
    users = "" if report.get("users") is None else f" of {report['users'] - report.get('users_dropped', 0):,} users"
    least = 0.5 if min_known is None else min_known
    return (
        f"weeks: {found - dropped:,} of {found:,} kept{users} (at least {least:.0%} of the hours known); "
        f"{report['rows_outside']:,} of {report['rows']:,} rows outside the grid; {report['hours_filled']:,} hours "
        "filled"
    )
