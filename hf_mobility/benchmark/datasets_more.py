"""Readers of two public sets of check-ins: Massive-STEPS and the Swarm check-ins of Lin et al. (2017)."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from ..data.frames import validate_visits
from ..data.io.readers import Rejections, read_table
from ..tokenization.errors import DataError

__all__ = ["read_massive_steps", "read_swarm"]


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
