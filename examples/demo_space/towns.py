"""The cities of the page: simulated ones, and that of an uploaded table. Each comes with visits of its users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from zoneinfo import available_timezones

import pandas as pd

from hf_mobility import City, simulate_city

SHAPES = {f"Simville, {shape}": shape for shape in ("round", "coastal", "valley", "polycentric")}
HIDDEN = 10  # the last visits of each user, of which the popularity of places knows nothing
MAX_USERS = 500  # of whom a visitor chooses one
ZONES = sorted(
    zone for zone in available_timezones() if "/" in zone and not zone.startswith(("Etc/", "posix", "right"))
)


@dataclass(frozen=True, eq=False)
class Town:
    """A city and its users.

    city: its places; their popularity counts the visits before each user's last `HIDDEN`.
    visits: canonical visits, all of them.
    names: `location_id` -> name and category, where they are known.
    real: whether the places lie on the Earth as it is, so that a coast belongs on the map.
    """

    city: City
    visits: pd.DataFrame
    names: Mapping[str, str]
    real: bool

    def users(self) -> list[Any]:
        """Users with two visits or more, those with most visits first."""
        counts = self.visits["user_id"].value_counts()
        return counts[counts >= 2].index[:MAX_USERS].tolist()

    def called(self, place: str) -> str:
        return self.names.get(place, "")


def town_of(visits: pd.DataFrame, names: Mapping[str, str], *, timezone: str, name: str, real: bool = True) -> Town:
    """A town of canonical visits."""
    after = visits.groupby("user_id").cumcount(ascending=False)
    known = visits[after >= HIDDEN]
    popularity = known if len(known) else None
    city = City.from_visits(visits, timezone=timezone, name=name, popularity_from=popularity)
    return Town(city, visits, names, real)


@lru_cache(maxsize=len(SHAPES))
def simulated_town(name: str, *, users: int = 60) -> Town:
    """One of `SHAPES`: 300 places, two weeks. The user with the longest history comes first."""
    made = simulate_city(users, num_days=14, num_locations=300, shape=SHAPES[name], seed=3, name=name)
    names = dict(zip(made.pois["location_id"], made.pois["category"]))
    return town_of(made.visits, names, timezone=made.timezone, name=name, real=False)
