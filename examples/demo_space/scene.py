"""What the two maps of the page are given: plain lists and texts, which `map.js` draws with Leaflet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from predict import WENT
from towns import Town

from hf_mobility.plotting.coast import land_near

try:
    from xstatic.pkg.leaflet import BASE_DIR
except ImportError as error:
    raise SystemExit("the page needs a copy of Leaflet: pip install xstatic-leaflet") from error

HERE = Path(__file__).resolve().parent
Scene = dict[str, Any]


def head() -> str:
    """Leaflet and the script of the page's maps, for the head of the page: nothing is loaded from elsewhere."""
    leaflet = [(Path(BASE_DIR) / name).read_text(encoding="utf-8") for name in ("leaflet.css", "leaflet.js")]
    style = leaflet[0] + (HERE / "map.css").read_text(encoding="utf-8")
    script = leaflet[1].replace("//# sourceMappingURL=leaflet.js.map", "") + (HERE / "map.js").read_text("utf-8")
    return f"<style>{style}</style><script>{script}</script>"


def of_town(town: Town) -> Scene:
    """The places of a city, and the land around them where the city is real."""
    city = town.city
    texts = [_text(place, town.called(place)) for place in city.location_ids.tolist()]
    places = [list(row) for row in zip(_round(city.lat), _round(city.lon), texts)]
    box = (float(city.lat.min()), float(city.lon.min()), float(city.lat.max()), float(city.lon.max()))
    land = [_pairs(ring) for ring in land_near(*box)] if town.real else []
    return {"key": str(hash(city)), "places": places, "land": land, "box": [[box[0], box[1]], [box[2], box[3]]]}


def of_prediction(
    town: Town, known: pd.DataFrame, guesses: pd.DataFrame, truth: pd.Series | None, *, title: str
) -> Scene:
    """Where a user was, is, probably goes next, and really went."""
    counts = known.groupby(["location_id", "lat", "lon"]).size().reset_index(name="visits")
    visited = [
        [lat, lon, visits, f"{_text(place, town.called(place))}: {visits} {'visits' if visits > 1 else 'visit'}"]
        for place, lat, lon, visits in counts.itertuples(index=False)
    ]
    here = known.iloc[-1]
    scene: Scene = {"title": title, "visited": visited, "way": _pairs(known[["lat", "lon"]].tail(5).to_numpy())}
    scene["here"] = [here["lat"], here["lon"], f"last visit: {_text(here['location_id'], '')}"]
    scene["guesses"] = [
        [lat, lon, p, rank, f"{rank}. {_text(place, town.called(place))}: {p:.1%}"]
        for rank, place, lat, lon, p in guesses[["rank", "location_id", "lat", "lon", "probability"]].itertuples(
            index=False
        )
    ]
    if truth is not None:
        place = truth["location_id"]
        scene["truth"] = [truth["lat"], truth["lon"], f"{WENT}: {_text(place, town.called(place))}"]
    return scene


def of_weeks(weeks: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Scene:
    """Generated weeks, of which the map shows one hour after the other."""
    cells, lat, lon = weeks
    used, rows = np.unique(cells, return_inverse=True)
    return {
        "cells": rows.reshape(cells.shape).tolist(),
        "lat": _round(lat[used]),
        "lon": _round(lon[used]),
        "box": [[float(lat[used].min()), float(lon[used].min())], [float(lat[used].max()), float(lon[used].max())]],
    }


def _text(place: str, called: str) -> str:
    return f"{place} ({called})" if called else str(place)


def _round(values: np.ndarray) -> list[float]:
    return np.round(np.asarray(values, dtype=np.float64), 6).tolist()


def _pairs(points: np.ndarray) -> list[list[float]]:
    return np.round(np.asarray(points, dtype=np.float64), 6).tolist()
