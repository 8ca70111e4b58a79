"""Synthetic cities whose people, homes and jobs are known: test and training data without any real person in it.

A city is a set of places (POIs and housing) in one of four shapes; its people have a home, mostly a job, a weekly
diary, favourite places, and explore new ones by a gravity law (exploration and preferential return). What differs
between cities is drawn per city (`CityHabits`). Everything follows from the seed.

The figures are plausible, not fitted: mark results on such data as synthetic.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ...tokenization.clock import to_utc, zone_of
from ...tokenization.errors import DataError
from ...tokenization.grid import from_km
from .diary import People, Town, simulate
from .laws import distance_weights
from .profiles import ACTIVITIES, CITY_SITES, POI_KINDS, ROLES, SHAPES, CityHabits, draw_habits

__all__ = ["CityHabits", "SimulatedCity", "simulate_cities", "simulate_city"]

_ZONE_KM = 1.0  # trips choose their goal from the middle of a zone of this size, so that cost grows slowly with places
_MAX_ZONES = 24  # per side


@dataclass(frozen=True)
class SimulatedCity:
    """One synthetic city.

    visits: canonical visits frame with `category`, `category_group` and `duration` (seconds).
    people: `user_id` int64, `role`, `home_id`, `work_id` (None without one), `is_commuter` (has a work place
        away from home), `commute_km` (straight line, 0 for the others).
    pois: `location_id`, `lat`, `lon`, `category`, `category_group`, `popularity` (relative attractiveness,
        sums to 1).
    """

    name: str
    timezone: str
    visits: pd.DataFrame
    people: pd.DataFrame
    pois: pd.DataFrame
    habits: CityHabits
    shape: str


def simulate_city(
    num_users: int = 200,
    *,
    num_days: int = 56,
    num_locations: int = 400,
    seed: int = 0,
    name: str = "Simville",
    timezone: str = "Europe/Berlin",
    center: tuple[float, float] = (48.0, 11.0),
    shape: str = "round",
    radius_km: float = 6.0,
    start: str = "2024-01-01",
    observe: float = 1.0,
    habits: CityHabits | None = None,
) -> SimulatedCity:
    """Simulate the visits of `num_users` people over `num_days` local days.

    Args:
        num_users, num_days: at least 1.
        num_locations: places in the city, housing included; at least 50.
        seed: same arguments and seed give the same city, byte for byte.
        timezone, start: IANA name, and the first local day (ISO date).
        center, radius_km: latitude and longitude of the middle; most places lie within the radius.
        shape: "round", "coastal" (half a disc), "valley" (a long band) or "polycentric" (several centres).
        observe: share of the visits that is kept at random, as in check-in data; 1.0 keeps all. The underlying visits
            do not depend on it.
        habits: the city's habits; drawn from the seed if None.

    Raises:
        DataError: an argument is out of range.
    """
    _check(num_users, num_days, num_locations, timezone, shape, radius_km, observe)
    first_day = _first_day(start)
    streams = np.random.default_rng(seed).spawn(5)
    habits = habits or draw_habits(streams[0])
    town, kinds = _build_town(streams[1], num_locations, shape=shape, radius_km=radius_km, habits=habits)
    people = _draw_people(streams[2], num_users, town, kinds, habits)
    user, place, hours, end = simulate(
        streams[3], town, people, habits, num_days=num_days, first_weekday=first_day.weekday()
    )

    pois = _pois_frame(town, kinds, name=name, center=center)
    visits = _visits_frame(user, place, hours, end, pois, first_day=first_day, timezone=timezone)
    if observe < 1.0:
        visits = visits[streams[4].random(len(visits)) < observe].reset_index(drop=True)
    return SimulatedCity(name, timezone, visits, _people_frame(people, town, pois), pois, habits, shape)


def simulate_cities(
    num_cities: int,
    *,
    num_users: int = 200,
    num_days: int = 56,
    num_locations: int = 400,
    seed: int = 0,
    start: str = "2024-01-01",
    observe: float = 1.0,
    varied: bool = False,
) -> list[SimulatedCity]:
    """Simulate different cities: shape, size, time zone, mix of places and habits vary.

    `num_users` and `num_locations` are typical values; cities have between about half and twice as many. City k
    does not depend on how many follow it. With `varied` the laws of distance, shift work and clock habits differ, too.
    """
    if num_cities < 1:
        raise DataError(f"num_cities must be at least 1, not {num_cities}.")
    cities = []
    for k in range(num_cities):
        rng = np.random.default_rng([seed, k])
        size = float(np.clip(rng.lognormal(0.0, 0.3), 0.5, 2.0))
        zone, lat, lon = CITY_SITES[k % len(CITY_SITES)]
        locations = max(50, round(num_locations * size))
        city = simulate_city(
            max(1, round(num_users * size)),
            num_days=num_days,
            num_locations=locations,
            seed=int(rng.integers(2**31)),
            name=f"Simville {k + 1}",
            timezone=zone,
            center=(lat, lon),
            shape=SHAPES[k % len(SHAPES)],
            radius_km=float(round(6.0 * np.sqrt(size) * rng.uniform(0.7, 1.5), 2)),
            start=start,
            observe=observe,
            habits=draw_habits(rng, varied=True) if varied else None,
        )
        cities.append(city)
    return cities


def _check(
    num_users: int, num_days: int, num_locations: int, timezone: str, shape: str, radius_km: float, observe: float
) -> None:
    for what, value, least in (
        ("num_users", num_users, 1),
        ("num_days", num_days, 1),
        ("num_locations", num_locations, 50),
    ):
        if value < least:
            raise DataError(f"{what} must be at least {least}, not {value}.")
    if shape not in SHAPES:
        raise DataError(f"shape must be one of {', '.join(SHAPES)}, not {shape!r}.")
    if not 0.5 <= radius_km <= 60:
        raise DataError(f"radius_km must lie in 0.5..60, not {radius_km}.")
    if not 0 < observe <= 1:
        raise DataError(f"observe must lie in 0..1 and not be 0, not {observe}.")
    zone_of(timezone)


def _first_day(start: str) -> pd.Timestamp:
    try:
        day = pd.Timestamp(start)
    except ValueError as error:
        raise DataError(f"start must be an ISO date such as '2024-01-01', not {start!r}.") from error
    if day.tzinfo is not None or day != day.normalize():
        raise DataError(f"start must be a date without time and zone, not {start!r}.")
    return day


# ------------------------------------------------------------------------------------------------------------- the town


def _build_town(
    rng: np.random.Generator, count: int, *, shape: str, radius_km: float, habits: CityHabits
) -> tuple[Town, np.ndarray]:
    """Places with kind (index into POI_KINDS), position and attractiveness, and the tables by which trips find them."""
    kinds = _draw_kinds(rng, count, habits)
    is_home = np.array([kind.group == "Residence" for kind in POI_KINDS])[kinds]
    # Housing spreads wider than shops and offices.
    xy = _draw_positions(rng, shape, np.where(is_home, 0.5, 0.3) * radius_km, radius_km)
    rank = rng.permutation(count) + 1.0
    appeal = rank**-habits.popularity_exponent * rng.lognormal(0.0, 0.3, count)
    appeal[is_home] = rng.lognormal(0.0, 0.6, is_home.sum()) * np.median(appeal[~is_home])
    appeal /= appeal.sum()
    zone, zone_xy = _zones(xy)

    uses = np.zeros((len(ACTIVITIES), count))
    for a, activity in enumerate(ACTIVITIES):
        uses[a] = np.array([kind.uses.get(activity, 0.0) for kind in POI_KINDS])[kinds] * appeal
    uses[ACTIVITIES.index("home")] = is_home * appeal
    uses[ACTIVITIES.index("work")] = np.array([kind.jobs for kind in POI_KINDS])[kinds] * appeal**0.5
    # Tiny cities may lack a kind of place: then any place that is no housing must do.
    uses[uses.sum(axis=1) == 0] = ~is_home * appeal

    km = np.hypot(*(zone_xy[:, None] - xy[None]).transpose(2, 0, 1))  # (zones, places)
    near = [
        distance_weights(
            habits.commute_law if activity == "work" else habits.venue_law,
            km,
            uses[a],
            decay=habits.distance_decay,
            scale_km=habits.commute_km,
        )
        for a, activity in enumerate(ACTIVITIES)
    ]
    return Town.from_weights(xy, appeal, zone, uses, near), kinds


def _draw_kinds(rng: np.random.Generator, count: int, habits: CityHabits) -> np.ndarray:
    """Kind of each place: largest remainders of the city's shares, so that small cities have the common kinds."""
    shares = np.array([kind.share for kind in POI_KINDS])
    if habits.category_weights:
        if len(habits.category_weights) != len(POI_KINDS):
            raise DataError(f"category_weights needs {len(POI_KINDS)} values, not {len(habits.category_weights)}.")
        shares = shares * np.array(habits.category_weights)
    wanted = shares / shares.sum() * count
    number = np.floor(wanted).astype(np.int64)
    # A city has at least one place for everything that many people do every week.
    for essential in ("Home (private)", "Office", "University", "Supermarket", "Coffee Shop", "Park", "Bar"):
        k = next(i for i, kind in enumerate(POI_KINDS) if kind.category == essential)
        number[k] = max(number[k], 1)
    order = np.argsort(number - wanted, kind="stable")
    short = count - int(number.sum())
    number[order[: max(short, 0)]] += 1
    while number.sum() > count:
        number[number.argmax()] -= 1
    return rng.permutation(np.repeat(np.arange(len(POI_KINDS)), number))


def _draw_positions(rng: np.random.Generator, shape: str, scale: np.ndarray, radius_km: float) -> np.ndarray:
    """(n, 2) km east and north: exponential fall-off from the middle(s), bent into the city's shape."""
    count = len(scale)
    angle, reach = rng.uniform(0, 2 * np.pi, count), np.minimum(rng.gamma(2.0, scale / 2), 1.5 * radius_km)
    turn = rng.uniform(0, 2 * np.pi)
    if shape == "coastal":
        angle = angle / 2  # all on one side of the shore
        reach = reach * np.sqrt(2)
    xy = np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1)
    if shape == "valley":
        xy = xy * np.array([2.0, 0.35])
    if shape == "polycentric":
        number = int(rng.integers(3, 6))
        bearing = 2 * np.pi * (np.arange(number) + rng.uniform(0, 0.6, number)) / number
        far = radius_km * rng.uniform(0.5, 0.9, number)
        middles = np.stack([far * np.cos(bearing), far * np.sin(bearing)], axis=1)
        middles[0] = 0.0
        weights = np.array([1.5, *np.ones(number - 1)])
        xy = 0.45 * xy + middles[rng.choice(number, count, p=weights / weights.sum())]
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return xy @ rotation.T


def _zones(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Zone of each place, and the mean position of each zone's places."""
    low, span = xy.min(axis=0), np.ptp(xy, axis=0)
    number = np.clip(np.ceil(span / _ZONE_KM), 1, _MAX_ZONES).astype(np.int64)
    cell = np.minimum(((xy - low) / np.maximum(span, 1e-9) * number).astype(np.int64), number - 1)
    _, zone = np.unique(cell[:, 0] * number[1] + cell[:, 1], return_inverse=True)
    size = np.bincount(zone)
    middle = np.stack([np.bincount(zone, xy[:, 0]) / size, np.bincount(zone, xy[:, 1]) / size], axis=1)
    return zone, middle


# ----------------------------------------------------------------------------------------------------------- the people


def _draw_people(rng: np.random.Generator, count: int, town: Town, kinds: np.ndarray, habits: CityHabits) -> People:
    """Roles, homes, jobs and personal habits."""
    role = rng.choice(len(ROLES), count, p=_role_shares(habits.shift_work))
    housing = np.flatnonzero([POI_KINDS[kind].group == "Residence" for kind in kinds])
    weight = town.appeal[housing] / town.appeal[housing].sum()
    home = housing[rng.choice(len(housing), count, p=weight)]
    work = town.choose(rng, np.full(count, ACTIVITIES.index("work")), home)
    campus = np.flatnonzero([POI_KINDS[kind].group == "College & University" for kind in kinds])
    student = np.array([role.name == "student" for role in ROLES])[role]
    work[student] = rng.choice(campus, int(student.sum()))
    work[~np.array([role.works for role in ROLES])[role]] = -1
    work[work == home] = -1  # they work from home: simulated like users without a job
    return People.draw(rng, role, home, work, habits)


def _role_shares(shift_work: float | None) -> list[float]:
    shares = {role.name: role.share for role in ROLES}
    if shift_work is not None:
        both = shares["worker"] + shares["shift worker"]
        shares |= {"worker": (1 - shift_work) * both, "shift worker": shift_work * both}
    return list(shares.values())


# ----------------------------------------------------------------------------------------------------------- the frames


def _pois_frame(town: Town, kinds: np.ndarray, *, name: str, center: tuple[float, float]) -> pd.DataFrame:
    lat, lon = from_km(town.xy[:, 0], town.xy[:, 1], origin=center)
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "place"
    width = len(str(len(kinds) - 1))
    return pd.DataFrame(
        {
            "location_id": [f"{prefix}-{i:0{width}d}" for i in range(len(kinds))],
            "lat": np.round(lat, 6),
            "lon": np.round(lon, 6),
            "category": pd.Series([POI_KINDS[kind].category for kind in kinds], dtype=object),
            "category_group": pd.Series([POI_KINDS[kind].group for kind in kinds], dtype=object),
            "popularity": town.appeal,
        }
    )


def _people_frame(people: People, town: Town, pois: pd.DataFrame) -> pd.DataFrame:
    ids = pois["location_id"].to_numpy(dtype=object)
    employed = people.work >= 0
    km = np.where(employed, town.distance(people.home, np.maximum(people.work, 0)), 0.0)
    return pd.DataFrame(
        {
            "user_id": np.arange(len(people.home)),
            "role": pd.Series([ROLES[role].name for role in people.role], dtype=object),
            "home_id": ids[people.home],
            "work_id": pd.Series(np.where(employed, ids[people.work], None), dtype=object),
            "is_commuter": employed,
            "commute_km": np.round(km, 3),
        }
    )


def _visits_frame(
    user: np.ndarray,
    place: np.ndarray,
    hours: np.ndarray,
    end: np.ndarray,
    pois: pd.DataFrame,
    *,
    first_day: pd.Timestamp,
    timezone: str,
) -> pd.DataFrame:
    """Canonical frame of visits given in hours of local clock time since the first midnight; `end` likewise."""
    arrival, departure = (_to_utc(clock, first_day, timezone) for clock in (hours, end))
    order = np.lexsort((arrival, user))  # a clock change may bring two visits of the night out of order
    user, place, arrival, departure = user[order], place[order], arrival[order], departure[order]
    seconds = (departure - arrival) / np.timedelta64(1, "s")
    columns = {name: pois[name].to_numpy()[place] for name in ("location_id", "lat", "lon")}
    frame = pd.DataFrame({"user_id": user, "time": pd.Series(arrival).dt.tz_localize("UTC"), **columns})
    for name in ("category", "category_group"):
        frame[name] = pd.Series(pois[name].to_numpy()[place], dtype=object)
    return frame.assign(duration=np.maximum(seconds, 60.0))


def _to_utc(hours: np.ndarray, first_day: pd.Timestamp, timezone: str) -> np.ndarray:
    """Local clock hours as datetime64[us] UTC, to the second; at clock changes different hours stay different."""
    clock = first_day.to_datetime64().astype("datetime64[us]") + np.round(hours * 3600).astype("timedelta64[s]")
    seconds = clock.astype("datetime64[s]").astype(np.int64)
    return to_utc(seconds, timezone)[0].astype("datetime64[s]").astype("datetime64[us]")
