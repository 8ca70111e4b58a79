"""GPS-like points of a simulated city's users: regular fixes with noise, at visited places and on the way.

All users are recorded at the same instants. Between two places a user moves in a straight line and arrives on time:
the departure is as late as the speed allows, but not before the stay ends, so a short gap makes a fast trip. Where
visits are hidden (`observe` below 1) the user waits at the last known place.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...tokenization.errors import DataError
from ...tokenization.grid import from_km, haversine_km
from .cities import SimulatedCity

__all__ = ["simulated_points"]


def simulated_points(
    city: SimulatedCity,
    *,
    interval_seconds: int = 300,
    noise_m: float = 10.0,
    speed_kmh: float = 25.0,
    seed: int | np.random.Generator,
) -> pd.DataFrame:
    """Points of all users, from the first arrival to the end of the last stay.

    Args:
        city: its visits are not changed.
        interval_seconds: time between fixes; they lie on whole multiples of it, counted from 1970 UTC.
        noise_m: standard deviation of a fix, in metres, to the east and to the north.
        speed_kmh: straight-line speed of trips.
        seed: of the noise; a seed or a generator.

    Returns:
        Canonical points frame: `user_id`, `time` (datetime64[us, UTC]), `lat`, `lon` (float64 degrees), sorted
        by user and time.

    Raises:
        DataError: an argument is out of range, or nobody is seen at any of the instants.
    """
    if int(interval_seconds) != interval_seconds or interval_seconds < 1:
        raise DataError(f"interval_seconds must be a whole number of at least 1, not {interval_seconds}.")
    if not 0 <= noise_m < np.inf:
        raise DataError(f"noise_m must be metres from 0, not {noise_m}.")
    if not speed_kmh > 0:
        raise DataError(f"speed_kmh must be positive, not {speed_kmh}.")
    visits = city.visits
    users, user = np.unique(visits["user_id"].to_numpy(), return_inverse=True)
    arrival = visits["time"].astype("int64").to_numpy() / 1e6
    departure = arrival + visits["duration"].to_numpy()

    owner, second = _instants(user, arrival, departure, int(interval_seconds))
    if not len(owner):
        raise DataError(f"No fix lies within anybody's visits; make interval_seconds={interval_seconds} smaller.")
    lat, lon = visits["lat"].to_numpy(), visits["lon"].to_numpy()
    visit, share = _positions(user, arrival, departure, lat, lon, owner, second, speed_kmh)
    following = np.minimum(visit + 1, len(visits) - 1)
    fix_lat = lat[visit] + share * (lat[following] - lat[visit])
    fix_lon = lon[visit] + share * ((lon[following] - lon[visit] + 180) % 360 - 180)
    noise = np.random.default_rng(seed).normal(0.0, noise_m / 1000, (2, len(owner)))
    middle = float(lat.mean())
    north, east = from_km(noise[0], noise[1], origin=(middle, 0.0))
    fix_lat, fix_lon = fix_lat + (north - middle), (fix_lon + east + 180) % 360 - 180
    time = pd.Series((second * 1_000_000).view("datetime64[us]")).dt.tz_localize("UTC")
    return pd.DataFrame({"user_id": users[owner], "time": time, "lat": fix_lat, "lon": fix_lon})


def _instants(user: np.ndarray, arrival: np.ndarray, departure: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Owner (user code) and epoch second of every fix, sorted by both, int64 (n,) each."""
    heads = np.flatnonzero(np.diff(user, prepend=-1))
    first = np.ceil(arrival[heads] / step).astype(np.int64)
    last = np.floor(np.maximum.reduceat(departure, heads) / step).astype(np.int64)
    number = np.maximum(last - first + 1, 0)
    owner = np.repeat(np.arange(len(heads)), number)
    begin = np.repeat(first - np.cumsum(number) + number, number)
    return owner, (begin + np.arange(len(owner))) * step


def _positions(
    user: np.ndarray,
    arrival: np.ndarray,
    departure: np.ndarray,
    lat: np.ndarray,
    lon: np.ndarray,
    owner: np.ndarray,
    second: np.ndarray,
    speed_kmh: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The visit that began last before each fix, int64 (n,), and the share of the way to the next one, float64 (n,)."""
    origin = arrival.min()
    span = max(float(second.max()), arrival.max()) - origin + 1  # people one after the other on one ascending clock
    visit = np.searchsorted(user * span + arrival - origin, owner * span + second - origin, side="right") - 1

    last = np.append(np.diff(user) != 0, True)
    following = np.minimum(np.arange(len(user)) + 1, len(user) - 1)
    seconds = haversine_km(lat, lon, lat[following], lon[following]) / speed_kmh * 3600
    set_off = np.minimum(np.maximum(departure, arrival[following] - seconds), arrival[following])
    travel = np.where(last, 1.0, arrival[following] - set_off)
    way = second - set_off[visit]
    moving = ~last[visit] & (way > 0)
    return visit, np.where(moving, way / np.maximum(travel[visit], 1e-9), 0.0)
