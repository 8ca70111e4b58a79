"""What the demo does without the page: read a city, predict after clicked places, generate weeks, draw maps.

The map is drawn with fixed limits, so every place keeps its pixel and a click means the nearest place on the picture.
It needs no tile server and no network.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from hf_mobility import City, NextLocationPipeline, TrajectoryGenerationPipeline, simulate_city, validate_visits
from hf_mobility.data import DataError, haversine_km, to_km
from hf_mobility.plotting.pictures import plot_next_places
from hf_mobility.plotting.prepare import literal

Clicks = tuple[int, ...]
YOU = "you"  # the person who clicks
FIRST_HOUR = pd.Timestamp("2024-01-01 08:00")  # a Monday, local time
SHAPES = {f"Simville, {shape}": shape for shape in ("round", "coastal", "valley", "polycentric")}
NEXT_LOCATION, WEEKS = "mobility_samoe", "mobility_mstar"
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MAX_BYTES, MAX_PLACES = 20_000_000, 20_000  # of an upload
_INCHES, _DPI, _BORDER = 6.4, 100, 0.09

# ---------------------------------------------------------------------------------------------- checkpoints and cities


def find_checkpoints(folder: Path, model_type: str) -> list[str]:
    """Folders below `folder` that hold this type of model; adapters (of `adapt`) count as next-location models."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (path / "adapter_config.json").is_file():
            kind = NEXT_LOCATION
        elif (path / "config.json").is_file():
            kind = json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type")
        else:
            continue
        if kind == model_type:
            found.append(str(path))
    return found


@lru_cache(maxsize=4)
def simulated_city(name: str, *, users: int = 60) -> City:
    """One of `SHAPES`: 300 places, two weeks of people who make them popular or not."""
    made = simulate_city(users, num_days=14, num_locations=300, shape=SHAPES[name], seed=3, name=name)
    return City.from_visits(made.visits, timezone=made.timezone, name=name, pois=made.pois)


def read_city(path: str | Path, timezone: str) -> City:
    """The city of a CSV file of visits: `user_id`, `time`, `location_id`, `lat`, `lon`, optionally `category`.

    Raises:
        DataError: one sentence about what is wrong with the file.
    """
    if Path(path).stat().st_size > MAX_BYTES:
        raise DataError(f"The file is larger than {MAX_BYTES // 10**6} MB; upload a part of it.")
    visits = validate_visits(path, timezone=timezone)
    places = visits["location_id"].nunique() if "location_id" in visits else 0
    if places > MAX_PLACES:
        raise DataError(f"The file has {places:,} places, the page shows at most {MAX_PLACES:,}; upload a part of it.")
    return City.from_visits(visits, timezone=timezone, name=Path(path).stem)


@lru_cache(maxsize=2)
def _predictor(checkpoint: str) -> NextLocationPipeline:
    return NextLocationPipeline.from_pretrained(checkpoint)


@lru_cache(maxsize=8)
def _predictor_in(checkpoint: str, city: City) -> NextLocationPipeline:
    """The city's places are encoded once, not at every click."""
    return _predictor(checkpoint).for_city(city)


@lru_cache(maxsize=2)
def _generator(checkpoint: str) -> TrajectoryGenerationPipeline:
    return TrajectoryGenerationPipeline.from_pretrained(checkpoint)


# ------------------------------------------------------------------------------------------------------- the next place


def visits_of(city: City, clicks: Clicks, hours: float) -> pd.DataFrame:
    """Canonical visits of the clicked places, the first on a Monday at eight, the others `hours` apart."""
    rows = np.array(clicks, dtype=np.int64)
    frame = pd.DataFrame({"user_id": YOU, "location_id": city.location_ids[rows]})
    frame["time"] = FIRST_HOUR + pd.to_timedelta(np.arange(len(rows)) * hours, unit="h")
    return validate_visits(frame.assign(lat=city.lat[rows], lon=city.lon[rows]), timezone=city.timezone)


def next_places(checkpoint: str, city: City, visits: pd.DataFrame, *, top_k: int = 5) -> pd.DataFrame:
    """What `NextLocationPipeline.predict` says about the person who clicks."""
    return _predictor_in(checkpoint, city).predict(visits, top_k=min(top_k, len(city)))


def as_table(guesses: pd.DataFrame, visits: pd.DataFrame) -> pd.DataFrame:
    """The guesses as people read them: rank, place, probability in percent, km from the last visit."""
    here = visits.iloc[-1]
    km = haversine_km(here["lat"], here["lon"], guesses["lat"].to_numpy(), guesses["lon"].to_numpy())
    shown = {"rank": guesses["rank"], "place": guesses["location_id"]}
    return pd.DataFrame({**shown, "probability": [f"{p:.1%}" for p in guesses["probability"]], "km": km.round(2)})


def draw_city(city: City, visits: pd.DataFrame | None = None, guesses: pd.DataFrame | None = None) -> np.ndarray:
    """The map of the city, uint8 (pixels, pixels, 3), with the person's visits and guesses once there are any."""
    figure, ax = _square_axes(*_places_km(city).T)
    if visits is None or guesses is None:
        ax.scatter(*_places_km(city).T, s=9, color="0.6", linewidths=0)
        ax.set(
            title=f"{literal(city.name)}: {len(city)} places. Click where you are.",
            xlabel="east, km",
            ylabel="north, km",
        )
    else:
        limits = ax.axis()
        plot_next_places(guesses, visits, city, user=YOU, ax=ax).set_title("Where next? Click where you went.")
        ax.axis(limits)
    return _pixels(figure)


def clicked_place(city: City, x: float, y: float) -> int:
    """Row of the place that is nearest to a pixel of `draw_city`'s picture, counted from its upper left corner."""
    return int(np.square(place_pixels(city) - (x, y)).sum(axis=1).argmin())


@lru_cache(maxsize=8)
def place_pixels(city: City) -> np.ndarray:
    """Where the places stand on `draw_city`'s picture: (N, 2) pixels right and down of its upper left corner."""
    figure, ax = _square_axes(*_places_km(city).T)
    across, up = ax.transData.transform(_places_km(city)).T
    return np.stack([across, figure.bbox.height - up], axis=1)


# ---------------------------------------------------------------------------------------------------------------- weeks


def make_weeks(checkpoint: str, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`n` generated weeks: cells (n, hours), and latitude and longitude of all cells of the city."""
    pipe = _generator(checkpoint)
    return pipe.generate(n, seed=seed, to="weeks"), pipe.tokenizer.lat, pipe.tokenizer.lon


def draw_hour(weeks: tuple[np.ndarray, np.ndarray, np.ndarray], hour: int) -> np.ndarray:
    """Where everybody is in one hour (discs, by number of people) and how they came there (lines), as `draw_city`."""
    cells, lat, lon = weeks
    east, north = to_km(lat, lon, origin=(float(lat.mean()), float(lon.mean())))
    figure, ax = _square_axes(east, north)
    now, before = cells[:, hour], cells[:, max(hour - 1, 0)]
    people = np.bincount(now, minlength=len(lat))
    used = np.flatnonzero(people)
    moved = np.flatnonzero(now != before)
    places = np.stack([east, north], axis=1)
    ax.scatter(east, north, s=2, color="0.85", linewidths=0)
    ax.add_collection(LineCollection(places[np.stack([before, now], axis=1)[moved]], colors="tab:orange", alpha=0.7))
    ax.scatter(*places[used].T, s=12 * people[used], color="tab:blue", alpha=0.7, linewidths=0)
    day = f"{DAYS[hour // 24 % 7]} {hour % 24:02d}:00"
    ax.set(title=f"{day}: {len(moved)} of {len(cells)} people have moved", xlabel="east, km", ylabel="north, km")
    return _pixels(figure)


# -------------------------------------------------------------------------------------------------------------- helpers


def _places_km(city: Any) -> np.ndarray:
    """(N, 2) km as the package's maps draw them: around the mean of all places."""
    return np.stack(to_km(city.lat, city.lon, origin=(float(city.lat.mean()), float(city.lon.mean()))), axis=1)


def _square_axes(east: np.ndarray, north: np.ndarray) -> tuple[Figure, Any]:
    """Axes as wide as high whose limits hold all places; nothing that is drawn later moves them."""
    figure = Figure(figsize=(_INCHES, _INCHES), dpi=_DPI)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((_BORDER, _BORDER, 1 - 1.5 * _BORDER, 1 - 1.5 * _BORDER))
    half = 0.53 * max(np.ptp(east), np.ptp(north), 0.1)
    middle = [(values.max() + values.min()) / 2 for values in (east, north)]
    ax.axis((middle[0] - half, middle[0] + half, middle[1] - half, middle[1] + half))
    ax.set_autoscale_on(False)
    return figure, ax


def _pixels(figure: Figure) -> np.ndarray:
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
