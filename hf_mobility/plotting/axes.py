"""Axes of the pictures: kilometres around a middle, the coast behind, a scale bar, labels that keep apart.

matplotlib is imported on first use (`pip install 'hf_mobility[plot]'`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..tokenization.grid import SquareGrid, to_km
from .coast import CREDIT, land_near
from .colours import LAND, WATER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Corner = Literal["lower right", "lower left", "upper right", "upper left"]
EastNorth = Callable[[Any, Any], tuple[np.ndarray, np.ndarray]]
_DIRECTIONS = [(1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1.4), (0, -1.4)]


def new_axes(columns: int = 1) -> Any:
    """Axes (columns,) side by side in a figure of their own, 6 inches wide each.

    Raises:
        ImportError: without matplotlib, with the command that installs it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("maps need matplotlib: pip install 'hf_mobility[plot]'") from error
    figure = Figure(figsize=(6 * columns + 1, 6), layout="constrained")
    return figure.subplots(1, columns, squeeze=False)[0]


def frame_of(ax: Axes, lat: Any, lon: Any, *, coast: bool) -> EastNorth:
    """Label the axes in km around the mean of the given places, draw the coast near them, and return the projection."""
    origin = (float(np.mean(lat)), float(np.mean(lon)))
    ax.set(xlabel="east, km", ylabel="north, km", aspect="equal")

    def east_north(lat: Any, lon: Any) -> tuple[np.ndarray, np.ndarray]:
        return to_km(lat, lon, origin=origin)

    if coast:
        _draw_coast(ax, east_north, np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64))
    return east_north


def extent(ax: Axes, grid: SquareGrid, *, coast: bool) -> tuple[float, float, float, float]:
    """West, east, south, north of the grid in km around its middle; labels the axes."""
    east_north = frame_of(ax, [grid.south, grid.north], [grid.west, grid.east], coast=coast)
    (west, east), (south, north) = east_north([grid.south, grid.north], [grid.west, grid.east])
    return float(west), float(east), float(south), float(north)


def empty_corners(ax: Axes) -> list[Corner]:
    """The corners of the axes, those with the fewest points first: one for the legend, one for the scale bar."""
    parts = [np.asarray(line.get_xydata()) for line in ax.lines]
    for drawn in ax.collections:
        curves: list[Any] = getattr(drawn, "get_segments", list)()
        parts += [np.asarray(curve) for curve in curves] or [np.asarray(drawn.get_offsets())]
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    points = np.concatenate([np.empty((0, 2)), *parts])
    x, y = (points - (left, bottom)).T / np.array([[right - left], [top - bottom]])
    inside: dict[Corner, np.ndarray] = {
        "lower right": (y < 0.35) & (x > 0.6),
        "lower left": (y < 0.35) & (x < 0.4),
        "upper right": (y > 0.65) & (x > 0.6),
        "upper left": (y > 0.65) & (x < 0.4),
    }
    return sorted(inside, key=lambda corner: int(inside[corner].sum()))


def add_scale_bar(ax: Axes, corner: Corner = "lower right") -> None:
    """A bar of 1, 2 or 5 times a power of ten km, at most a quarter of the axes wide. Call it when all is drawn."""
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    left, right = ax.get_xlim()
    km = round_km((right - left) / 4)
    label = f"{km:g} km" if km >= 1 else f"{1000 * km:g} m"
    bar = AnchoredSizeBar(
        ax.transData, km, label, corner, pad=0.3, borderpad=0.6, sep=3, size_vertical=(right - left) / 300
    )
    bar.patch.set(alpha=0.8, linewidth=0)
    ax.add_artist(bar)


def round_km(most: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... and their tenths that is at most `most`."""
    power = 10.0 ** np.floor(np.log10(max(most, 1e-3)))
    return float(power * max(factor for factor in (1, 2, 5) if factor * power <= max(most, 1e-3)))


def label_offsets(ax: Axes, x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """For each point the offset in typographic points at which its label meets the fewest labels before it."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    per_point = max(right - left, top - bottom) / 380  # of axes of some 5.3 inches
    tried = [(radius * across, radius / 1.6 * up) for radius in (20, 34, 50) for across, up in _DIRECTIONS]
    offsets: list[tuple[float, float]] = []
    taken = np.stack([x, y], axis=1)  # labels keep off the rings as well
    for own in np.stack([x, y], axis=1):
        spots = own + np.array(tried) * per_point
        apart = np.abs(spots[:, None] - taken) / per_point
        meets = ((apart[..., 0] < 24) & (apart[..., 1] < 13)).sum(axis=1)
        best = int(meets.argmin())
        offsets.append(tried[best])
        taken = np.concatenate([taken, spots[[best]]])
    return offsets


def _draw_coast(ax: Axes, east_north: EastNorth, lat: np.ndarray, lon: np.ndarray) -> None:
    """Land on water, where a coast is near; the limits of the axes do not heed it."""
    rings = land_near(float(lat.min()), float(lon.min()), float(lat.max()), float(lon.max()))
    if not rings:
        return
    from matplotlib.patches import Polygon

    ax.set_facecolor(WATER)
    for ring in rings:
        corners = np.stack(east_north(*ring.T), axis=1)
        ax.add_artist(Polygon(corners, closed=True, facecolor=LAND, edgecolor="0.6", linewidth=0.5, zorder=0))
    ax.text(1.005, 0, CREDIT, transform=ax.transAxes, fontsize=6, color="0.4", rotation=90, va="bottom")
