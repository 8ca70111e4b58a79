"""Maps of predictions. A lazy extra: matplotlib is imported on first use (`pip install hf_mobility[plot]`).

Unusual: plain axes in kilometres around the city's middle, no background tiles, so that a map needs no network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .data.grid import to_km

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_next_places(
    predictions: pd.DataFrame, visits: pd.DataFrame, city: Any, *, user: Any, ax: Axes | None = None
) -> Axes:
    """Where one person probably goes next, on the map of the city.

    Args:
        predictions: what `NextLocationPipeline.predict` returned.
        visits: the canonical visits it was asked about.
        city: a `City` or tokenizer: all its places are drawn in grey.
        user: whose prediction to draw.
        ax: axes to draw into; new ones by default.

    Raises:
        ImportError: without matplotlib, with the command that installs it.
        ValueError: if there is no prediction for `user`, or no visit.
    """
    own, guesses = visits[visits["user_id"] == user], predictions[predictions["user_id"] == user]
    for table, kind in ((guesses, "prediction"), (own, "visit")):
        if table.empty:
            raise ValueError(f"there is no {kind} of user {user!r}; the two tables must know the same users.")
    ax = _new_axes() if ax is None else ax
    origin = (float(np.mean(city.lat)), float(np.mean(city.lon)))

    def east_north(lat: Any, lon: Any) -> tuple[np.ndarray, np.ndarray]:
        return to_km(lat, lon, origin=origin)

    ax.scatter(*east_north(city.lat, city.lon), s=4, color="0.8", label="places of the city", linewidths=0)
    past = own.groupby(["lat", "lon"]).size().reset_index(name="visits")
    sizes = 12 * np.sqrt(past["visits"])
    ax.scatter(*east_north(past["lat"], past["lon"]), s=sizes, color="tab:blue", alpha=0.6, label="visited")
    here = own.iloc[[-1]]
    ax.scatter(*east_north(here["lat"], here["lon"]), marker="x", color="black", s=60, label="last visit", zorder=4)
    east, north = east_north(guesses["lat"], guesses["lon"])
    rings: dict[str, Any] = {"facecolors": "none", "edgecolors": "tab:red", "linewidths": 1.8, "zorder": 3}
    ax.scatter(east, north, s=30 + 600 * guesses["probability"], label="predicted next", **rings)
    text: dict[str, Any] = {"textcoords": "offset points", "xytext": (8, 6), "color": "tab:red", "fontsize": 9}
    for x, y, probability in zip(east, north, guesses["probability"]):
        ax.annotate(f"{probability:.0%}", (x, y), **text)
    ax.set(xlabel="east, km", ylabel="north, km", title=f"Next place of user {user}", aspect="equal")
    ax.legend(loc="best", fontsize=8, framealpha=0.9)
    return ax


def _new_axes() -> Axes:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("maps need matplotlib: pip install hf_mobility[plot]") from error
    return Figure(figsize=(7, 6), layout="constrained").subplots()
