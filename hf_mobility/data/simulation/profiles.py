"""What simulated people do and where: POI kinds, the daily diary's stages, roles, and the habits that differ by city.

Constants only, chosen to look plausible, not fitted to any data set. Hours are local clock hours, rates are chances per
day, dwell times are hours.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .laws import LAWS

__all__ = [
    "ACTIVITIES",
    "CITY_SITES",
    "POI_KINDS",
    "ROLES",
    "SHAPES",
    "STAGES",
    "CityHabits",
    "PoiKind",
    "Role",
    "Stage",
    "draw_habits",
]

ACTIVITIES = (
    "home",
    "work",
    "lunch",
    "coffee",
    "groceries",
    "shopping",
    "dinner",
    "nightlife",
    "gym",
    "outdoors",
    "culture",
    "errand",
    "friends",
    "trip",
)

# Median hours at a place of each activity; home and work have none, they last until the next thing on the plan.
DWELL_HOURS = {
    "lunch": 0.75,
    "coffee": 0.5,
    "groceries": 0.55,
    "shopping": 1.1,
    "dinner": 1.5,
    "nightlife": 2.2,
    "gym": 1.2,
    "outdoors": 1.3,
    "culture": 2.1,
    "errand": 0.7,
    "friends": 2.2,
    "trip": 0.4,
}

# How much less (or more) often than usual a new place is tried: people rarely change their gym, often their restaurant.
NOVELTY = {"gym": 0.05, "groceries": 0.4, "errand": 0.7, "coffee": 0.7, "friends": 0.4, "dinner": 1.3, "culture": 1.3}


@dataclass(frozen=True)
class PoiKind:
    """A fine category: its top-level group, its share of a city's places, its jobs, and how it serves each activity."""

    category: str
    group: str
    share: float
    jobs: float = 0.5
    uses: dict[str, float] = field(default_factory=dict)


_FOOD, _SHOP, _OUT = "Food", "Shop & Service", "Outdoors & Recreation"
_WORK, _ARTS, _NIGHT = "Professional & Other Places", "Arts & Entertainment", "Nightlife Spot"
_TRAVEL, _COLLEGE, _HOME = "Travel & Transport", "College & University", "Residence"

POI_KINDS = (
    PoiKind("Home (private)", _HOME, 0.15, 0.0, {"friends": 1.0}),
    PoiKind("Residential Building (Apartment / Condo)", _HOME, 0.08, 0.05, {"friends": 1.5}),
    PoiKind("Office", _WORK, 0.08, 12.0, {"errand": 0.2}),
    PoiKind("Medical Center", _WORK, 0.02, 5.0, {"errand": 2.0}),
    PoiKind("Government Building", _WORK, 0.015, 5.0, {"errand": 1.0}),
    PoiKind("Factory", _WORK, 0.01, 10.0),
    PoiKind("School", _WORK, 0.015, 3.0),
    PoiKind("University", _COLLEGE, 0.012, 3.0, {"culture": 0.2}),
    PoiKind("College Academic Building", _COLLEGE, 0.013, 2.0),
    PoiKind("Library", _COLLEGE, 0.005, 1.0, {"culture": 0.3, "errand": 0.5}),
    PoiKind("Coffee Shop", _FOOD, 0.05, 0.5, {"coffee": 4.0, "lunch": 0.5}),
    PoiKind("Bakery", _FOOD, 0.02, 0.5, {"coffee": 1.5, "groceries": 0.3}),
    PoiKind("Fast Food Restaurant", _FOOD, 0.03, 0.6, {"lunch": 2.0, "dinner": 0.7}),
    PoiKind("Sandwich Place", _FOOD, 0.02, 0.4, {"lunch": 2.5}),
    PoiKind("Pizza Place", _FOOD, 0.02, 0.5, {"lunch": 0.8, "dinner": 1.5}),
    PoiKind("Italian Restaurant", _FOOD, 0.02, 0.6, {"lunch": 0.5, "dinner": 2.0}),
    PoiKind("Asian Restaurant", _FOOD, 0.03, 0.6, {"lunch": 1.0, "dinner": 2.0}),
    PoiKind("Supermarket", _SHOP, 0.04, 1.5, {"groceries": 5.0}),
    PoiKind("Drugstore / Pharmacy", _SHOP, 0.02, 0.6, {"groceries": 0.7, "errand": 0.8}),
    PoiKind("Clothing Store", _SHOP, 0.035, 0.7, {"shopping": 2.0}),
    PoiKind("Mall", _SHOP, 0.008, 6.0, {"shopping": 5.0, "lunch": 0.3}),
    PoiKind("Electronics Store", _SHOP, 0.012, 0.7, {"shopping": 1.0}),
    PoiKind("Salon / Barbershop", _SHOP, 0.02, 0.4, {"errand": 1.0}),
    PoiKind("Bank", _SHOP, 0.015, 1.5, {"errand": 1.5}),
    PoiKind("Bar", _NIGHT, 0.04, 0.4, {"nightlife": 3.0, "dinner": 0.2}),
    PoiKind("Nightclub", _NIGHT, 0.008, 0.6, {"nightlife": 3.0}),
    PoiKind("Pub", _NIGHT, 0.017, 0.4, {"nightlife": 2.0, "dinner": 0.5}),
    PoiKind("Park", _OUT, 0.05, 0.1, {"outdoors": 4.0}),
    PoiKind("Gym / Fitness Center", _OUT, 0.03, 0.6, {"gym": 1.0}),
    PoiKind("Playground", _OUT, 0.02, 0.0, {"outdoors": 1.0}),
    PoiKind("Scenic Lookout", _OUT, 0.008, 0.0, {"outdoors": 0.7}),
    PoiKind("Movie Theater", _ARTS, 0.012, 0.8, {"culture": 2.5}),
    PoiKind("Museum", _ARTS, 0.01, 1.0, {"culture": 1.0}),
    PoiKind("Music Venue", _ARTS, 0.01, 0.5, {"culture": 1.0, "nightlife": 0.4}),
    PoiKind("Stadium", _ARTS, 0.003, 1.0, {"culture": 2.0}),
    PoiKind("Train Station", _TRAVEL, 0.015, 1.0, {"trip": 3.0}),
    PoiKind("Bus Station", _TRAVEL, 0.02, 0.2, {"trip": 0.8}),
    PoiKind("Hotel", _TRAVEL, 0.015, 2.0, {"dinner": 0.2}),
    PoiKind("Airport", _TRAVEL, 0.001, 15.0, {"trip": 0.5}),
    PoiKind("Convention Center", "Event", 0.003, 2.0, {"culture": 0.3}),
    PoiKind("Street Fair", "Event", 0.004, 0.1, {"outdoors": 0.5, "culture": 0.3}),
)


@dataclass(frozen=True)
class Role:
    """A way of life: share of the people, working days, length of the working day, and how much they go out."""

    name: str
    share: float
    works: bool = True
    hours: float = 8.5
    outings: float = 1.0


ROLES = (
    Role("worker", 0.64),
    Role("student", 0.12, hours=5.5, outings=1.25),
    Role("shift worker", 0.08, hours=8.0, outings=0.9),
    Role("retired", 0.10, works=False, outings=0.8),
    Role("at home", 0.06, works=False, outings=0.9),
)


@dataclass(frozen=True)
class Stage:
    """A time of day at which people may go somewhere.

    `hour` is a clock hour, or the name of a habit, or "work_end". Rates and mixes are given for working days and for
    days off; a mix gives relative weights of activities.
    """

    name: str
    hour: float | str
    spread: float
    work_rate: float
    free_rate: float
    work_mix: dict[str, float]
    free_mix: dict[str, float]
    late: bool = False  # more frequent on the eve of a day off


_DAYTIME = {"shopping": 3.0, "outdoors": 3.0, "coffee": 2.0, "culture": 1.2, "friends": 2.0, "errand": 0.8, "trip": 0.6}
_MORNING = {"groceries": 3.0, "outdoors": 2.0, "coffee": 2.0, "errand": 1.5, "shopping": 1.2, "trip": 0.6}
_AFTER_WORK = {"groceries": 4.5, "shopping": 1.5, "errand": 1.2, "outdoors": 1.2, "coffee": 0.4, "trip": 0.8}
_EVENING = {"dinner": 5.0, "culture": 1.2, "friends": 1.8, "nightlife": 0.8, "outdoors": 0.6}

STAGES = (
    Stage("early", 7.4, 0.3, 0.5, 0.04, {"coffee": 3.0, "trip": 1.5}, {"coffee": 1.0, "outdoors": 1.0}),
    Stage("morning", 10.4, 0.9, 0.5, 0.55, _MORNING, _MORNING),
    Stage("lunch", "lunch_hour", 0.35, 1.0, 0.25, {"lunch": 1.0}, {"lunch": 1.0}),
    Stage("afternoon", 15.2, 0.8, 0.12, 0.6, {"coffee": 1.0}, _DAYTIME),
    Stage("after work", "work_end", 0.4, 0.5, 0.2, _AFTER_WORK, _DAYTIME),
    Stage("evening", "dinner_hour", 0.5, 0.25, 0.35, _EVENING, _EVENING, late=True),
    Stage("night", 22.0, 0.5, 0.05, 0.12, {"nightlife": 1.0}, {"nightlife": 1.0}, late=True),
)

SHAPES = ("round", "coastal", "valley", "polycentric")

# Time zone and centre of made-up cities, so that offsets, hemispheres and daylight saving all occur.
CITY_SITES = (
    ("Europe/Berlin", 48.0, 11.0),
    ("America/New_York", 40.2, -75.1),
    ("Asia/Tokyo", 35.9, 139.2),
    ("America/Sao_Paulo", -23.2, -46.9),
    ("Asia/Singapore", 1.9, 103.4),
    ("Africa/Nairobi", -1.1, 36.5),
    ("Australia/Sydney", -33.6, 150.6),
    ("Asia/Kolkata", 18.7, 73.5),
    ("Europe/London", 51.9, -0.6),
    ("America/Mexico_City", 19.8, -99.4),
)


@dataclass(frozen=True)
class CityHabits:
    """What differs between cities. Hours are local; `weekend` holds weekdays (Monday = 0)."""

    work_start: float = 8.5
    lunch_hour: float = 12.4
    dinner_hour: float = 19.2
    weekend: tuple[int, int] = (5, 6)
    sunday_shopping: float = 0.3  # factor on shops on the weekend's second day
    lunch_out: float = 0.5  # chance that a working person leaves for lunch
    outings: float = 1.0  # factor on all leisure rates
    evening_boost: float = 1.8  # factor on evenings before a day off
    exploration: float = 0.6  # rho of exploration and preferential return
    return_gain: float = 0.21  # gamma of the same
    distance_decay: float = 1.6  # exponent of the gravity law for venues
    commute_km: float = 5.0  # scale of the exponential law for work places
    popularity_exponent: float = 0.8  # Zipf exponent of venue attractiveness
    speed_kmh: float = 22.0
    category_weights: tuple[float, ...] = ()  # factor on the share of each of POI_KINDS; empty = all 1
    venue_law: str = "gravity"  # one of LAWS
    commute_law: str = "exponential"  # likewise
    shift_work: float | None = None  # share of shift workers among all who work; None = that of ROLES


def draw_habits(rng: np.random.Generator, *, varied: bool = False) -> CityHabits:
    """Habits of one random city; `varied` also draws the laws of distance, shift work, and wider clock habits."""
    habits = _draw_usual(rng)
    if not varied:
        return habits
    return replace(
        habits,
        work_start=round(float(rng.uniform(6.5, 10.0)), 2),
        lunch_hour=round(float(rng.uniform(11.5, 14.5)), 2),
        dinner_hour=round(float(rng.uniform(17.5, 21.5)), 2),
        outings=round(float(rng.uniform(0.5, 1.5)), 2),
        venue_law=str(rng.choice(LAWS)),
        commute_law=str(rng.choice(LAWS)),
        shift_work=round(float(rng.uniform(0.0, 0.3)), 2),
    )


def _draw_usual(rng: np.random.Generator) -> CityHabits:
    weekend = ((5, 6), (5, 6), (5, 6), (4, 5))[int(rng.integers(4))]
    return CityHabits(
        work_start=round(float(rng.uniform(7.5, 9.3)), 2),
        lunch_hour=round(float(rng.uniform(11.8, 13.8)), 2),
        dinner_hour=round(float(rng.uniform(18.2, 20.6)), 2),
        weekend=weekend,
        sunday_shopping=round(float(rng.uniform(0.05, 1.2)), 2),
        lunch_out=round(float(rng.uniform(0.25, 0.75)), 2),
        outings=round(float(rng.uniform(0.75, 1.2)), 2),
        evening_boost=round(float(rng.uniform(1.2, 2.4)), 2),
        exploration=round(float(rng.uniform(0.4, 0.8)), 2),
        return_gain=round(float(rng.uniform(0.15, 0.3)), 2),
        distance_decay=round(float(rng.uniform(1.1, 2.2)), 2),
        commute_km=round(float(rng.uniform(3.0, 8.0)), 2),
        popularity_exponent=round(float(rng.uniform(0.6, 1.0)), 2),
        speed_kmh=round(float(rng.uniform(15.0, 32.0)), 1),
        category_weights=tuple(np.round(rng.lognormal(0.0, 0.35, len(POI_KINDS)), 3).tolist()),
    )
