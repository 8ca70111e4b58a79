"""The box of a city's records, and records or tables of weeks as weeks on a tokenizer's grid, with a report of both.

One stray record must not decide how large a city is: a box that its outermost hundredth of the records stretches to
more than `MAX_STRETCH` times the area is refused, with the numbers and the remedy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tokenization.errors import DataError
from ..tokenization.grid import Box, SquareGrid, unwrapped, wrapped
from .weeks import WeekTable

__all__ = ["describe_grid", "describe_weeks", "refuse_strays", "weeks_on"]

CORE = 0.99  # of the records, on each axis
MAX_STRETCH = 10.0


def refuse_strays(lat: Any, lon: Any, *, cell_km: float = 1.0) -> None:
    """Check that the outermost records do not decide how large the box of all is.

    Args:
        lat, lon: (n,) degrees.
        cell_km: side of a cell of the grid, for the message; smaller boxes count as one cell.

    Raises:
        DataError: if the box has more than ten times as many cells as that of the other records.
    """
    core = _core(np.asarray(lat, np.float64), np.asarray(lon, np.float64))
    cells = len(SquareGrid.around(lat, lon, cell_km=cell_km))
    core_cells = len(SquareGrid.from_cell_km(core, cell_km=cell_km))
    if cells <= MAX_STRETCH * core_cells:
        return
    edges = ",".join(f"{edge:.4f}" for edge in core)
    raise DataError(
        f"The outermost {1 - CORE:.0%} of the {len(lat):,} records stretch the box from {core_cells:,} to {cells:,} "
        f"cells of {cell_km:g} km: leave far records out with coverage={CORE:g}, or give the city's bounds=(south, "
        f"west, north, east); those of the other records are {edges}."
    )


def _core(lat: np.ndarray, lon: np.ndarray) -> Box:
    """Around the central records, on each axis less one record at each end at least."""
    rank = max(round((1 - CORE) / 2 * len(lat)), 1)
    kept = slice(rank, -rank) if len(lat) > 2 * rank else slice(None)
    return Box.around(np.sort(lat)[kept], wrapped(np.sort(unwrapped(lon))[kept]))


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
    theirs, own = table.grid, tokenizer.city.grid
    if theirs is None or own is None:
        return  # the numbers of the cells are all there is to compare
    if (theirs.rows, theirs.columns) != (own.rows, own.columns) or not np.allclose(
        theirs.bounds, own.bounds, atol=1e-6
    ):
        raise DataError(
            f"The table's cells are {_words(theirs)}, the model's {_words(own)}: train on the table, or give records, "
            "which find their cells themselves."
        )


def describe_grid(tokenizer: Any) -> str:
    """One sentence on rows, columns, cells and bounds of a `MstarTokenizer`."""
    grid = tokenizer.city.grid
    return f"grid: {tokenizer.num_cells:,} cells" if grid is None else f"grid: {_words(grid)}"


def _words(grid: SquareGrid) -> str:
    high, wide = grid.cell_km
    edges = ",".join(f"{edge:.4f}" for edge in grid.bounds)
    return f"{grid.rows} x {grid.columns} = {len(grid):,} cells of {high:.2f} x {wide:.2f} km, bounds {edges}"


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
