"""Maps as pictures. matplotlib is imported on first use (`pip install 'hf_mobility[plot]'`).

Axes are kilometres around a middle, with a scale bar and, near the sea, a coast that comes with the package: a picture
needs no network. `coast=False` leaves it out, as for a simulated city. `maps` draws the same as web maps, `models`
draws what models learn. No function opens a window or touches pyplot's figures: `ax.figure.savefig("map.pdf")` writes
one, as PNG, PDF or SVG.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..tokenization.grid import SquareGrid
from .axes import add_scale_bar, empty_corners, extent, frame_of, label_offsets, new_axes
from .colours import BLACK, BLUE, GREEN, PALETTE, RED, line_look
from .prepare import (
    arc,
    flow_examples,
    flow_width,
    largest_flows,
    literal,
    one_line_each,
    one_persons,
    region_cells,
    region_clusters,
    region_colours,
    true_place,
    visit_shares,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMED = 10  # users that a legend can name
_NUMBERED = 150  # cells whose numbers can be read


def plot_next_places(
    predictions: pd.DataFrame,
    visits: pd.DataFrame,
    city: Any,
    *,
    user: Any,
    truth: Any = None,
    coast: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Where one person probably goes next, on the map of the city.

    Args:
        predictions: what `NextLocationPipeline.predict` returned.
        visits: the canonical visits it was asked about.
        city: a `City` or tokenizer: all its places are drawn in grey.
        user: whose prediction to draw.
        truth: `location_id` of the place where they really went, marked with a star.
        coast: whether land and water are drawn behind a city near the sea.
        ax: axes to draw into; new ones by default.

    Raises:
        ImportError: without matplotlib, with the command that installs it.
        ValueError: if there is no prediction for `user`, or no visit; if the city lists no place `truth`.
    """
    own, guesses = one_persons(predictions, visits, user)
    ax = new_axes()[0] if ax is None else ax
    east_north = frame_of(ax, city.lat, city.lon, coast=coast)
    ax.scatter(*east_north(city.lat, city.lon), s=4, color="0.8", label="places of the city", linewidths=0)
    past = own.groupby(["lat", "lon"]).size().reset_index(name="visits")
    sizes = 12 * np.sqrt(past["visits"])
    ax.scatter(*east_north(past["lat"], past["lon"]), s=sizes, color=BLUE, alpha=0.6, label="visited")
    here = own.iloc[[-1]]
    ax.scatter(*east_north(here["lat"], here["lon"]), marker="x", color=BLACK, s=60, label="last visit", zorder=4)
    if truth is not None:
        lat, lon, label = true_place(city, guesses, truth)
        ax.scatter(*east_north([lat], [lon]), marker="*", color=GREEN, s=110, label=label, zorder=5)
    east, north = east_north(guesses["lat"], guesses["lon"])
    rings: dict[str, Any] = {"facecolors": "none", "edgecolors": RED, "linewidths": 1.8, "zorder": 3}
    ax.scatter(east, north, s=30 + 600 * guesses["probability"], label="predicted next", **rings)
    text: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "color": RED}
    text["arrowprops"] = {"arrowstyle": "-", "color": RED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
    for x, y, probability, offset in zip(east, north, guesses["probability"], label_offsets(ax, east, north)):
        ax.annotate(f"{probability:.0%}", (x, y), xytext=offset, fontsize=9, **text)
    ax.set_title(f"Next place of user {literal(user)}")
    legend, bar, *_ = empty_corners(ax)
    ax.legend(loc=legend, fontsize=8, framealpha=0.9)
    add_scale_bar(ax, bar)
    return ax


def plot_trajectories(
    frame: pd.DataFrame, *, by: str = "user_id", city: Any = None, coast: bool = True, ax: Axes | None = None
) -> Axes:
    """Visits, points or generated weeks as one line for each user, from a triangle (first row) to a square (last).

    Up to ten lines differ in colour and in dashes, and are named.

    Args:
        frame: with `time`, `lat`, `lon` and the column `by`.
        by: what a line belongs to: `user_id`, or `trajectory_id` of generated weeks.
        city: a `City` or tokenizer whose places are drawn in grey.
        coast: as in `plot_next_places`.

    Raises:
        DataError: a column is missing, or there are no rows.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba

    lines = one_line_each(frame, by)
    ax = new_axes()[0] if ax is None else ax
    around = frame if city is None else city
    east_north = frame_of(ax, around.lat, around.lon, coast=coast)
    if city is not None:
        ax.scatter(*east_north(city.lat, city.lon), s=4, color="0.8", label="places of the city", linewidths=0)
    named = len(lines) <= _NAMED
    many = colormaps["cividis"](np.linspace(0, 1, len(lines)))
    for index, (name, rows) in enumerate(lines):
        east, north = east_north(rows["lat"], rows["lon"])
        mark, dashes = line_look(index) if named else (many[index], ())
        colour = to_rgba(mark)
        path: dict[str, Any] = {"color": colour, "markersize": 3, "linewidth": 1.2, "alpha": 0.75}
        path["linestyle"] = (0, dashes) if dashes else "-"
        ax.plot(east, north, marker="o", label=f"{literal(name)} ({len(rows)} rows)" if named else "_", **path)
        for end, marker, size in ((-1, "s", 11), (0, "^", 6)):  # who ends where they began shows both
            look: dict[str, Any] = {"color": colour, "markersize": size, "markeredgecolor": "black", "label": "_"}
            ax.plot(east[end], north[end], marker, **look)
    what = by.removesuffix("_id")
    ax.set_title(f"{len(lines)} {what if len(lines) == 1 else _plural(what)}: from the triangle to the square")
    legend, bar, *_ = empty_corners(ax)
    if city is not None or named:
        ax.legend(loc=legend, fontsize=8, framealpha=0.9, title=what, handlelength=4)
    add_scale_bar(ax, bar)
    return ax


def plot_flows(
    flows: pd.DataFrame, lat: Any, lon: Any, *, top: int = 60, coast: bool = True, ax: Axes | None = None
) -> Axes:
    """Trips between cells as arrows that bow to the right of their way; width and colour grow with their number.

    Args:
        flows: what `od_matrix` returned: `origin`, `destination`, `count`; hours are added up.
        lat, lon: (C,) degrees of the cells, such as a tokenizer's.
        top: so many of the largest flows are drawn.
        coast: as in `plot_next_places`.

    Raises:
        DataError: a column is missing, a cell has no coordinates, or there is no flow.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    lat, lon = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
    table = largest_flows(flows, len(lat), top)[::-1]  # the largest is drawn last, on top
    ax = new_axes()[0] if ax is None else ax
    used = np.unique(table[["origin", "destination"]].to_numpy())
    east_north = frame_of(ax, lat[used], lon[used], coast=coast)
    places = np.stack(east_north(lat, lon), axis=1)
    ends = zip(table["origin"], table["destination"])
    curves = [arc(places[origin], places[destination]) for origin, destination in ends]
    counts = table["count"].to_numpy(dtype=np.float64)
    widths = flow_width(counts, counts.max())
    bundle = LineCollection(curves, linewidths=widths, cmap="viridis_r", alpha=0.85, capstyle="round")
    bundle.set_array(counts)
    bundle.set_clim(0, float(counts.max()))
    ax.add_collection(bundle)
    ax.scatter(places[used, 0], places[used, 1], s=14, color="black", zorder=3, label="cells")
    colours = bundle.to_rgba(counts)
    for curve, colour, width in zip(curves, colours, widths):
        head: dict[str, Any] = {"arrowstyle": "-|>", "color": colour, "mutation_scale": 7 + 2 * width, "linewidth": 0}
        ax.annotate("", xy=curve[-1], xytext=curve[-3], arrowprops=head)
    ax.figure.colorbar(bundle, ax=ax, label="trips", shrink=0.8)
    shown = flow_examples(counts)
    look = zip(bundle.to_rgba(shown), flow_width(shown, counts.max()))
    lines = [Line2D([], [], color=colour, linewidth=width) for colour, width in look]
    ax.set_title(f"The {len(table)} largest flows")
    ax.margins(0.06)
    legend, bar, *_ = empty_corners(ax)
    ax.legend(lines, [f"{count:,.0f}" for count in shown], title="trips", loc=legend, fontsize=8, framealpha=0.9)
    add_scale_bar(ax, bar)
    return ax


def plot_visit_heat(
    real: pd.DataFrame,
    generated: pd.DataFrame,
    grid: SquareGrid,
    *,
    names: tuple[str, str] = ("real", "generated"),
    coast: bool = True,
    axes: Any = None,
) -> np.ndarray:
    """Shares of the rows per cell, real and generated side by side on one logarithmic scale; empty cells are white.

    Args:
        real, generated: frames with `lat` and `lon`: visits or points, or weeks with one row per hour.
        coast: as in `plot_next_places`.
        axes: two axes to draw into.

    Returns:
        The two axes. Titles say how many rows lie in the grid, and how much of them the two maps have in common:
        1 - half the sum of differences.

    Raises:
        DataError: a column is missing, or no row of a frame lies in the grid.
    """
    shares = [visit_shares(frame, grid) for frame in (real, generated)]
    common = 1 - np.abs(shares[0] - shares[1]).sum() / 2
    axes = new_axes(2) if axes is None else axes
    from matplotlib.colors import LogNorm

    positive = np.concatenate([share[share > 0] for share in shares])
    norm = LogNorm(float(positive.min()), max(float(positive.max()), float(positive.min()) * 1.01))
    for ax, share, name, frame in zip(axes, shares, names, (real, generated)):
        values = np.ma.masked_equal(share.reshape(grid.rows, grid.columns), 0)
        image = ax.imshow(values, origin="lower", extent=extent(ax, grid, coast=coast), norm=norm, cmap="magma_r")
        rows = int((grid.cell(frame["lat"], frame["lon"]) >= 0).sum())
        ax.set_title(f"{literal(name)}: {rows:,} rows, {int((share > 0).sum())} cells")
        add_scale_bar(ax)
    axes[0].figure.colorbar(image, ax=list(axes), label="share of the rows in a cell", shrink=0.8)
    axes[0].figure.suptitle(f"{common:.0%} of the two maps overlap")
    return np.asarray(axes)


def plot_regions(
    embeddings: pd.DataFrame,
    grid: SquareGrid,
    *,
    clusters: int = 5,
    seed: int = 0,
    coast: bool = True,
    axes: Any = None,
) -> np.ndarray:
    """Embeddings of a grid's cells: the first three principal components as red, green and blue; and clusters.

    Up to 150 cells bear the number of their cluster.

    Args:
        embeddings: what `embed_regions(points, grid)` returned; cells that were left out stay white.
        clusters: of k-means, 1..10; seed: of its starts.
        coast: as in `plot_next_places`.
        axes: two axes to draw into.

    Raises:
        DataError: regions of another grid, too few of them, or values that are not finite.
    """
    cells = region_cells(embeddings, grid)
    colours, explained = region_colours(embeddings)
    labels = region_clusters(embeddings, clusters=clusters, seed=seed)
    axes = new_axes(2) if axes is None else axes
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    named = np.array([to_rgb(colour) for colour in PALETTE[:clusters]])
    for ax, values in zip(axes, (colours, named[labels])):
        picture = np.zeros((len(grid), 4))
        picture[cells] = np.concatenate([values, np.ones((len(cells), 1))], axis=1)
        ax.imshow(picture.reshape(grid.rows, grid.columns, 4), origin="lower", extent=extent(ax, grid, coast=coast))
        add_scale_bar(ax)
    if len(cells) <= _NUMBERED:
        _number_cells(axes[1], grid, cells, labels)
    shares = ", ".join(f"{colour} {share:.0%}" for colour, share in zip(("red", "green", "blue"), explained))
    axes[0].set_title(f"principal components ({shares})", fontsize=10)
    axes[1].set_title(f"{clusters} clusters of {len(cells)} regions", fontsize=10)
    sizes = np.bincount(labels, minlength=clusters)
    patches = [Patch(color=named[label], label=f"{label + 1} ({size})") for label, size in enumerate(sizes)]
    axes[1].legend(
        handles=patches, title="cluster (regions)", fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5)
    )
    return np.asarray(axes)


def _number_cells(ax: Axes, grid: SquareGrid, cells: np.ndarray, labels: np.ndarray) -> None:
    (west, east), (south, north) = ax.images[0].get_extent()[:2], ax.images[0].get_extent()[2:]
    row, column = np.divmod(cells, grid.columns)
    across = west + (column + 0.5) * (east - west) / grid.columns
    up = south + (row + 0.5) * (north - south) / grid.rows
    for x, y, label in zip(across, up, labels):
        text = ax.text(x, y, str(label + 1), ha="center", va="center", fontsize=8, color="white")
        text.set_path_effects([_outline()])


def _outline() -> Any:
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=2, foreground="black")


def _plural(word: str) -> str:
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
