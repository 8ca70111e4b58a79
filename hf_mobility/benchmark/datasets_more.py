"""More readers: two public sets of check-ins (Massive-STEPS, and Swarm of Lin et al. 2017), points with labels of
cells, and simulated points."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.frames import validate_points, validate_visits
from ..data.io.readers import Rejections, read_table
from ..data.simulation.cities import simulate_city
from ..data.simulation.points import simulated_points
from ..tokenization.errors import DataError

__all__ = ["LabelledCells", "read_labelled_cells", "read_massive_steps", "read_swarm", "simulated_city_points"]


def read_massive_steps(path: str | Path, *, timezone: str) -> pd.DataFrame:
    """A city of Massive-STEPS (`new_york_checkins.csv`, arXiv 2505.11239): visits with `category`.

    Args:
        path: CSV file with user_id, timestamp, venue_id, latitude, longitude and venue_category.
        timezone: IANA name of the city's zone; the file's times are local.

    Venues without coordinates are left out and counted.

    Raises:
        DataError: no row can be used.
    """
    return read_table(
        path,
        timezone=timezone,
        time="timestamp",
        location_id="venue_id",
        lat="latitude",
        lon="longitude",
        category="venue_category",
    )


def read_swarm(path: str | Path, *, timezone: str | None = None) -> pd.DataFrame:
    """Swarm check-ins of one city (`nyc.txt`): visits with `category`, an identifier of Foursquare.

    Args:
        path: one JSON object a line, with `user_id` and a list `check-ins` of venue_id, venue_category, date, time, lat
            and lng.
        timezone: in which the times are read. The set does not say it, so it has no default.

    Raises:
        DataError: no time zone, or no row can be used.
    """
    if timezone is None:
        raise DataError(
            "The Swarm check-ins do not say in which zone their times are: give timezone, such as 'UTC', and name it "
            "with the results."
        )
    path, count = Path(path), Rejections()
    rows = []
    with path.open(encoding="utf-8") as lines:
        for line in filter(str.strip, lines):
            try:
                user = json.loads(line)
                rows += [{"user_id": user["user_id"], **one} for one in user["check-ins"]]
            except (ValueError, KeyError, TypeError):
                count.rejected["unreadable line"] += 1
    if not rows:
        raise DataError(f"No line of {path.name} could be used.")
    table = pd.DataFrame(rows)
    missing = {"date", "time", "venue_id", "venue_category", "lat", "lng"} - set(table)
    if missing:
        raise DataError(f"{path.name} lacks the field(s) {', '.join(sorted(missing))}.")
    count.rows_read += len(table)
    table = table.assign(
        time=pd.to_datetime(table["date"] + " " + table["time"], format="%Y-%m-%d %H:%M:%S", errors="coerce")
    ).rename(columns={"venue_id": "location_id", "venue_category": "category", "lng": "lon"})
    table = count.keep_usable(table[["user_id", "time", "location_id", "lat", "lon", "category"]])
    visits = validate_visits(count.finish([table], path), timezone=timezone)
    visits.attrs["read_report"] = count.report()
    return visits


@dataclass(frozen=True, eq=False)
class LabelledCells:
    """points: canonical frame `user_id`, `time`, `lat`, `lon`. labels: a column per label, indexed by cell."""

    points: pd.DataFrame
    labels: pd.DataFrame


def read_labelled_cells(points: str | Path, labels: str | Path) -> LabelledCells:
    """Points, and what is to be told of the cells of a grid.

    Args:
        points: table of points; columns that labels may be made of, such as the cabs' `occupied`, are left out.
        labels: Parquet file with `cell` and numeric columns.
    """
    found = validate_points(points)[["user_id", "time", "lat", "lon"]]
    return LabelledCells(found, pd.read_parquet(labels).set_index("cell").sort_index())


def simulated_city_points(*, interval_seconds: int = 300, **options: Any) -> pd.DataFrame:
    """Points of a simulated city every few seconds; `options` of `simulate_city`, whose `seed` is also that of the
    points."""
    city = simulate_city(**options)
    return simulated_points(city, interval_seconds=interval_seconds, seed=options["seed"])
