"""Weeks for other tools: origin-destination tables and MATSim plans.

Small counts are suppressed by default, because a flow of three users in one hour can be three known people. Plans are
written user by user, so memory does not grow with their number.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import pandas as pd

from ...tokenization.errors import SHOWN, DataError
from ...tokenization.grid import to_km, unwrapped
from ...tokenization.texts import check_texts
from ...tokenization.weeks import home_and_work
from ...tokenization.whole_files import whole_file

__all__ = ["matsim_plans", "od_matrix", "week_matrix"]

Project = Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]
_DOCTYPE = '<!DOCTYPE population SYSTEM "http://www.matsim.org/files/dtd/population_v6.dtd">'
_CRS = '<attribute name="coordinateReferenceSystem" class="java.lang.String">'


def week_matrix(frame: Any) -> tuple[np.ndarray, np.ndarray]:
    """Long frame (`trajectory_id`, `slot`, `cell`) -> (N,) ids in ascending order and (N, L) int64 cells, -1 = no row.

    Raises:
        DataError: a missing column, no rows, empty ids, slots or cells that are negative or no integers, or a slot that
            occurs twice in a trajectory.
    """
    missing = [name for name in ("trajectory_id", "slot", "cell") if name not in frame]
    if missing:
        raise DataError(f"The frame lacks the column(s) {', '.join(missing)}; give a long frame of weeks.")
    if len(frame) == 0:
        raise DataError("The frame has no rows; at least one week is needed.")
    for name in ("slot", "cell"):
        if not pd.api.types.is_integer_dtype(frame[name]) or frame[name].isna().any() or frame[name].min() < 0:
            raise DataError(f"Column {name!r} must hold integers from 0; rows of unknown hours are to be left out.")
    nameless = np.flatnonzero(frame["trajectory_id"].isna())
    if len(nameless):
        raise DataError(
            f"Column 'trajectory_id' is empty in {len(nameless)} rows (first rows {nameless[:SHOWN].tolist()}); name "
            "every week."
        )
    ids, row = np.unique(frame["trajectory_id"].to_numpy(), return_inverse=True)
    slot = frame["slot"].to_numpy().astype(np.int64)
    cells = np.full((len(ids), int(slot.max()) + 1), -1, np.int64)
    cells[row.reshape(-1), slot] = frame["cell"].to_numpy()
    twice = len(frame) - int((cells >= 0).sum())
    if twice:
        raise DataError(
            f"Columns 'trajectory_id' and 'slot': {twice} of {len(frame)} rows repeat an hour; keep one each."
        )
    return ids, cells


def od_matrix(weeks: Any, *, by_hour: bool = True, threshold: int = 10, stays: bool = False) -> pd.DataFrame:
    """Trips between cells from one hour to the next.

    Args:
        weeks: (N, L) cells with -1 = unknown, or a long frame (`trajectory_id`, `slot`, `cell`).
        by_hour: count every slot of the week apart; False adds them up.
        threshold: rows that count fewer trips are left out; 1 keeps all.
        stays: count also hours spent in the same cell (origin = destination).

    Returns:
        `hour` (slot of the origin, only with `by_hour`), `origin`, `destination`, `count`: int64, sorted by the first
        columns. `attrs["suppressed"]` = {"threshold", "rows", "trips"}: what was left out.

    Raises:
        DataError: see `week_matrix`; an array that is not (N, L >= 2) of integers, or a threshold below 1.
    """
    cells = week_matrix(weeks)[1] if isinstance(weeks, pd.DataFrame) else np.asarray(weeks)
    if cells.ndim != 2 or cells.shape[1] < 2 or cells.dtype.kind not in "iu":
        raise DataError(f"weeks must be integers (N, L) with L >= 2, not {cells.dtype} of shape {cells.shape}.")
    if threshold < 1:
        raise DataError(f"threshold must be at least 1, not {threshold}.")
    cells = cells.astype(np.int64, copy=False)
    before, after = cells[:, :-1], cells[:, 1:]
    row, slot = np.nonzero((before >= 0) & (after >= 0) & ((before != after) | stays))
    span = int(cells.max(initial=0)) + 1
    key = (slot if by_hour else 0) * span + before[row, slot]
    codes, count = np.unique(key * span + after[row, slot], return_counts=True)
    kept = count >= threshold
    table = pd.DataFrame(
        {
            "hour": codes[kept] // span**2,
            "origin": codes[kept] // span % span,
            "destination": codes[kept] % span,
            "count": count[kept].astype(np.int64),
        }
    )
    left_out = {"threshold": threshold, "rows": int((~kept).sum()), "trips": int(count[~kept].sum())}
    table.attrs["suppressed"] = left_out
    return table if by_hour else table.drop(columns="hour")


def matsim_plans(
    frame: pd.DataFrame,
    path: str | Path,
    *,
    interval_minutes: int = 60,
    day: int | None = None,
    mode: str = "car",
    home_ids: Any = None,
    work_ids: Any = None,
    project: Project | None = None,
    crs: str | None = None,
    spread_minutes: float = 0.0,
    seed: int = 0,
) -> dict[str, int]:
    """Write weeks as a MATSim population (population_v6): activities with coordinates and end times, legs between them.

    One person per trajectory, one plan each. Hours in one cell make one activity of type `home`, `work` or `other`;
    it ends at a full slot, and the last one has no end. Times count from the first slot of the plan, beyond 24:00:00
    where it is longer than a day.

    Args:
        frame: long frame with `trajectory_id`, `slot`, `cell`, `lat`, `lon`, without unknown hours.
        path: `.xml` or `.xml.gz`.
        day: only this day (0 = the first); None = all of the trajectory.
        mode: of every leg.
        home_ids, work_ids: cells (N,) in ascending order of trajectory_id. By default those that
            `home_and_work` finds, the first day being a Monday; home wins where they are the same.
        project: (lat, lon) in degrees -> (x, y) in metres, as arrays; the projection of the network. By default metres
            east and north of the middle of all points.
        crs: name of that projection, such as "EPSG:25832", written into the file; only with `project`.
        spread_minutes: full hours would send everybody off at once: each end of an activity is moved by a uniform draw
            within so many minutes about the full slot, at most `interval_minutes`.
        seed: of these draws.

    Returns:
        {"persons", "activities", "legs"}.

    Raises:
        DataError: see `week_matrix`; missing coordinates, unknown hours, a day that is not there, a bad file name,
            `crs` without `project`, or a name with control characters.
    """
    if crs is not None and project is None:
        raise DataError(f"crs={crs!r} needs project=, which gives its coordinates; without it they are local metres.")
    ids, cells = week_matrix(frame)
    _refuse_gaps(cells)
    check_texts([*map(str, ids.tolist()), mode, crs or ""], "names of trajectories, mode and crs")  # XML has no others
    home, work = _anchors(cells, interval_minutes, home_ids, work_ids)
    slots_a_day = 1440 // interval_minutes
    if day is not None:
        if not 0 <= day < cells.shape[1] // slots_a_day:
            raise DataError(f"day must lie in 0..{cells.shape[1] // slots_a_day - 1}, not {day}.")
        cells = cells[:, day * slots_a_day : (day + 1) * slots_a_day]
    if not 0 <= spread_minutes <= interval_minutes:
        raise DataError(f"spread_minutes must lie in 0..{interval_minutes}, not {spread_minutes}.")
    x, y = _positions(frame, project)
    rng = np.random.default_rng(seed)
    totals = {"persons": len(ids), "activities": 0, "legs": 0}
    with whole_file(path) as whole, _open_text(whole) as file:
        file.write(f'<?xml version="1.0" encoding="utf-8"?>\n{_DOCTYPE}\n<population>\n')
        if crs is not None:
            file.write(f"<attributes>{_CRS}{escape(crs)}</attribute></attributes>\n")
        for name, week, own_home, own_work in zip(ids.tolist(), cells, home.tolist(), work.tolist()):
            first = np.flatnonzero(np.append(True, week[1:] != week[:-1]))
            ends = first[1:] * interval_minutes + rng.uniform(-0.5, 0.5, len(first) - 1) * spread_minutes
            places = week[first].tolist()
            kinds = ["home" if c == own_home else "work" if c == own_work else "other" for c in places]
            file.write(_person(str(name), places, kinds, ends.tolist(), x, y, mode))
            totals["activities"] += len(places)
            totals["legs"] += len(places) - 1
        file.write("</population>\n")
    return totals


# ------------------------------------------------------------------------------------------------------------- helpers


def _refuse_gaps(cells: np.ndarray) -> None:
    gaps = np.flatnonzero((cells < 0).any(axis=1))
    if len(gaps):
        raise DataError(
            f"{len(gaps)} of {len(cells)} trajectories have unknown hours (first {gaps[:SHOWN].tolist()}); a plan "
            "needs all: complete them first, as with TrajectoryGenerationPipeline.complete."
        )


def _anchors(cells: np.ndarray, interval: int, home: Any, work: Any) -> tuple[np.ndarray, np.ndarray]:
    """Home and work of each week, as given or as `home_and_work` finds them."""
    seen = home_and_work(cells, slots_per_day=1440 // interval)
    anchors = [ids if given is None else np.asarray(given) for ids, given in zip(seen, (home, work))]
    for name, ids in zip(("home_ids", "work_ids"), anchors):
        if ids.shape != (len(cells),):
            raise DataError(f"{name} must hold one cell for each of the {len(cells)} trajectories.")
    return anchors[0], anchors[1]


def _positions(frame: pd.DataFrame, project: Project | None) -> tuple[dict[int, float], dict[int, float]]:
    """x and y in metres of every cell of the frame."""
    missing = [name for name in ("lat", "lon") if name not in frame]
    if missing:
        raise DataError(f"The frame lacks the column(s) {', '.join(missing)}, the coordinates of the cells.")
    places = frame[["cell", "lat", "lon"]].drop_duplicates("cell")
    lat, lon = places["lat"].to_numpy(np.float64), unwrapped(places["lon"].to_numpy(np.float64))
    bad = np.flatnonzero(~np.isfinite(lat) | ~np.isfinite(lon))
    if len(bad):
        raise DataError(f"Columns 'lat' and 'lon': {len(bad)} cells have none, first {places['cell'].iloc[bad[0]]}.")
    if project is None:
        east, north = to_km(lat, lon, origin=(float((lat.min() + lat.max()) / 2), float((lon.min() + lon.max()) / 2)))
        x, y = east * 1000, north * 1000
    else:
        x, y = (np.asarray(values, np.float64) for values in project(lat, lon))
    cells = places["cell"].tolist()
    return dict(zip(cells, x.tolist())), dict(zip(cells, y.tolist()))


def _person(
    name: str,
    places: list[int],
    kinds: list[str],
    ends: list[float],
    x: dict[int, float],
    y: dict[int, float],
    mode: str,
) -> str:
    lines = [f'<person id={quoteattr(name)}><plan selected="yes">']
    for position, (place, kind) in enumerate(zip(places, kinds)):
        end = f' end_time="{_clock(ends[position])}"' if position < len(ends) else ""
        lines.append(f'<activity type="{kind}" x="{x[place]:.1f}" y="{y[place]:.1f}"{end}/>')
        if end:
            lines.append(f"<leg mode={quoteattr(mode)}/>")
    lines.append("</plan></person>\n")
    return "\n".join(lines)


def _clock(minutes: float) -> str:
    seconds = round(minutes * 60)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


@contextmanager
def _open_text(path: Path) -> Iterator[IO[str]]:
    if not path.name.endswith((".xml", ".xml.gz")):
        raise DataError(f"Plans are written to .xml or .xml.gz files, not to {path.name}.")
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8", compresslevel=6) as file:
            yield file
    else:
        with open(path, "w", encoding="utf-8") as file:
            yield file
