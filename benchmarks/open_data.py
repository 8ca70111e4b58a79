"""The open check-in files as canonical frames, and which cities may be sources for which targets.

The files carry no open licence, so they are read from the folder in HF_MOBILITY_DATA (default ../shared/data) and never
copied. A user id is unique only within the service it comes from: the US metros of one Foursquare collection share one
id space, the Gowalla cities another, and the same user in a source and in a target city would leak habits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from hf_mobility import City, validate_visits


class CheckinCity(NamedTuple):
    """Where a city's check-ins are: file name, IANA time zone, and the space in which its user ids are unique."""

    file: str
    timezone: str
    id_space: str


CITIES: dict[str, CheckinCity] = {
    "new_york": CheckinCity("checkins_new_york.parquet", "America/New_York", "tsmc2014"),
    "singapore": CheckinCity("checkins_singapore.parquet", "Asia/Singapore", "singapore"),
    "calgary": CheckinCity("checkins_calgary.parquet", "America/Edmonton", "mcmg"),
    "chicago": CheckinCity("checkins_chicago.parquet", "America/Chicago", "foursquare_3"),
    "washington_dc": CheckinCity("checkins_washington_dc.parquet", "America/New_York", "foursquare_3"),
    "milwaukee": CheckinCity("checkins_milwaukee.parquet", "America/Chicago", "foursquare_3"),
    "monterrey": CheckinCity("checkins_monterrey.parquet", "America/Monterrey", "foursquare_3"),
    "san_francisco": CheckinCity("checkins_san_francisco.parquet", "America/Los_Angeles", "foursquare_3"),
    "los_angeles": CheckinCity("checkins_los_angeles.parquet", "America/Los_Angeles", "foursquare_3"),
    "atlanta": CheckinCity("checkins_atlanta.parquet", "America/New_York", "foursquare_3"),
    "philadelphia": CheckinCity("checkins_philadelphia.parquet", "America/New_York", "foursquare_3"),
    "boston": CheckinCity("checkins_boston.parquet", "America/New_York", "foursquare_3"),
    "gowalla_austin": CheckinCity("checkins_gowalla_austin.parquet", "America/Chicago", "gowalla_3"),
    "gowalla_san_francisco_bay": CheckinCity(
        "checkins_gowalla_san_francisco_bay.parquet", "America/Los_Angeles", "gowalla_3"
    ),
    "gowalla_dallas": CheckinCity("checkins_gowalla_dallas.parquet", "America/Chicago", "gowalla_3"),
    "gowalla_kansas_city": CheckinCity("checkins_gowalla_kansas_city.parquet", "America/Chicago", "gowalla_3"),
}
TARGETS = ("calgary", "chicago", "washington_dc", "gowalla_austin")


def data_folder() -> Path:
    """The folder of the open files; it need not exist."""
    return Path(os.environ.get("HF_MOBILITY_DATA", "../shared/data"))


def source_cities() -> tuple[str, ...]:
    """Names of the cities that models are trained on: all but the targets."""
    return tuple(name for name in CITIES if name not in TARGETS)


def open_checkins(name: str) -> pd.DataFrame:
    """Canonical visits frame of one city of `CITIES`.

    Raises:
        KeyError: no such city.
        FileNotFoundError: the folder does not hold the file; the message names the environment variable.
    """
    if name not in CITIES:
        raise KeyError(f"No city {name!r}; there are {sorted(CITIES)}.")
    path = data_folder() / CITIES[name].file
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; set HF_MOBILITY_DATA to the folder of the check-in files.")
    return validate_visits(pd.read_parquet(path), location_id="venue_id", category_group="category_l1")


def drop_shared_users(
    sources: Mapping[str, pd.DataFrame], targets: Mapping[str, pd.DataFrame], *, min_visits: int = 10
) -> dict[str, pd.DataFrame]:
    """The sources without persons who also stand, with `min_visits` visits, in a target of the same id space.

    Only persons with `min_visits` in the source as well are dropped; those with fewer take no part in a benchmark that
    filters on `min_visits` anyway. Keys are names of `CITIES`; frames are canonical and not changed.
    """
    out = {}
    for name, visits in sources.items():
        counts = visits["user_id"].value_counts()
        shared = [
            _frequent_users(target, min_visits)
            for other, target in targets.items()
            if CITIES[other].id_space == CITIES[name].id_space
        ]
        users = np.concatenate([np.empty(0, dtype=np.int64), *shared])
        dropped = visits["user_id"].isin(np.intersect1d(users, counts.index[counts >= min_visits].to_numpy()))
        out[name] = visits[~dropped].reset_index(drop=True)
    return out


def _frequent_users(visits: pd.DataFrame, min_visits: int) -> np.ndarray:
    counts = visits["user_id"].value_counts()
    return counts.index[counts >= min_visits].to_numpy()


def source_pairs(leave_out: Sequence[str] = (), *, min_visits: int = 10) -> list[tuple[pd.DataFrame, City]]:
    """(visits, city) of every source city but those in `leave_out`: all venues of the file, people with at least
    `min_visits` visits, nobody who also occurs in a target city or in one that is left out."""
    hidden = {name: open_checkins(name) for name in (*TARGETS, *leave_out)}
    sources = {name: open_checkins(name) for name in source_cities() if name not in leave_out}
    pairs = []
    for name, visits in drop_shared_users(sources, hidden).items():
        frequent = visits[visits.groupby("user_id")["user_id"].transform("size") >= min_visits].reset_index(drop=True)
        city = City.from_visits(sources[name], timezone=CITIES[name].timezone, name=name, popularity_from=frequent)
        pairs.append((frequent, city))
    return pairs
