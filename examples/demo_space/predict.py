"""What the checkpoints say: the next places of a user, and generated weeks. Every model is loaded once."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from towns import Town

from hf_mobility import City, NextLocationPipeline, TrajectoryGenerationPipeline, validate_visits
from hf_mobility.data import haversine_km
from hf_mobility.pipelines.slot_generation import SlotGenerationPipeline

NEXT_LOCATION, WEEKS = "mobility_samoe", "mobility_mstar"
SAMOE = "SamoeTokenizer"
YOU = "you"  # the user who clicks
FIRST_HOUR = pd.Timestamp("2024-01-01 08:00")  # a Monday, local time
WENT = "went here"
Clicks = tuple[int, ...]


def find_checkpoints(folder: Path, model_type: str) -> list[str]:
    """Folders below `folder` that hold this type of model; adapters of SAMoE count as next-location models."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (path / "adapter_config.json").is_file():
            city = path / "tokenizer_config.json"
            of = json.loads(city.read_text(encoding="utf-8")).get("tokenizer_class") if city.is_file() else SAMOE
            kind = NEXT_LOCATION if of == SAMOE else None
        elif (path / "config.json").is_file():
            kind = json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type")
        else:
            continue
        if kind == model_type:
            found.append(str(path))
    return found


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


def clicked_visits(city: City, clicks: Clicks, hours: float) -> pd.DataFrame:
    """Canonical visits of the clicked places, the first on a Monday at eight, the others `hours` apart."""
    rows = np.array(clicks, dtype=np.int64)
    frame = pd.DataFrame({"user_id": YOU, "location_id": city.location_ids[rows]})
    frame["time"] = FIRST_HOUR + pd.to_timedelta(np.arange(len(rows)) * hours, unit="h")
    return validate_visits(frame.assign(lat=city.lat[rows], lon=city.lon[rows]), timezone=city.timezone)


def split_history(visits: pd.DataFrame, user: object, hidden: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The visits of a user that the model may read, at least one, and the last `hidden` that it may not."""
    own = visits[visits["user_id"] == user]
    known = max(len(own) - hidden, 1)
    return own.iloc[:known], own.iloc[known:]


def next_places(checkpoint: str, city: City, visits: pd.DataFrame, *, top_k: int = 5) -> pd.DataFrame:
    """What `NextLocationPipeline.predict` says about the one user of the visits."""
    return _predictor_in(checkpoint, city).predict(visits, top_k=min(top_k, len(city)))


def as_table(town: Town, guesses: pd.DataFrame, known: pd.DataFrame, truth: str | None) -> pd.DataFrame:
    """The guesses as they are read: rank, probability, place, what it is, km from the last visit, whether it was it."""
    here = known.iloc[-1]
    km = haversine_km(here["lat"], here["lon"], guesses["lat"].to_numpy(), guesses["lon"].to_numpy())
    shown = {"rank": guesses["rank"], "probability": [f"{p:.1%}" for p in guesses["probability"]]}
    shown["place"] = guesses["location_id"]
    shown["what"] = [town.called(place) for place in guesses["location_id"]]
    shown["km"] = km.round(2)
    shown["truth"] = [f"★ {WENT}" if place == truth else "" for place in guesses["location_id"]]
    return pd.DataFrame(shown)


def history_table(town: Town, known: pd.DataFrame, hidden: pd.DataFrame, *, last: int = 10) -> pd.DataFrame:
    """What the user did: the last visits that the model read, and below them those that were hidden from it."""
    rows = pd.concat([known.tail(last), hidden])
    clock = rows["time"].dt.tz_convert(town.city.timezone).dt.strftime("%a %d %b %Y, %H:%M")
    kind = ["read"] * (len(rows) - len(hidden)) + ["★ next"] * len(hidden)
    what = [town.called(place) for place in rows["location_id"]]
    return pd.DataFrame({"": kind, "time": clock, "place": rows["location_id"], "what": what})


# ---------------------------------------------------------------------------------------------------------------- weeks


@lru_cache(maxsize=4)
def make_weeks(checkpoint: str, number: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Generated weeks of `number` users: cells or places (number, hours), and latitude and longitude of all of them."""
    pipe = _generator(checkpoint)
    if isinstance(pipe, SlotGenerationPipeline):
        return pipe.generate(number, seed=seed, to="places"), pipe.city.lat, pipe.city.lon
    return pipe.generate(number, seed=seed, to="weeks"), pipe.tokenizer.lat, pipe.tokenizer.lon
