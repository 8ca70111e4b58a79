"""Web maps of visits, flows and predictions. folium is imported on first use (`pip install 'hf_mobility[plot]'`).

There is no background by default, and `save_map` writes Leaflet into the file: a map opens without network, and no
server learns what was looked at. `tiles="OpenStreetMap"` asks that server for a background. folium's own
`map.save(path)` loads Leaflet and more from the network, as its popups and icon markers need.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..tokenization.grid import SquareGrid
from ..tokenization.whole_files import whole_file
from .prepare import (
    arc,
    largest_flows,
    one_line_each,
    one_persons,
    region_cells,
    region_clusters,
    region_colours,
    true_place,
    visit_shares,
)

if TYPE_CHECKING:
    from folium import Map

_PALETTE = (
    "#1f77b4",
    "#ff7f0e",
    "#2ca02c",
    "#d62728",
    "#9467bd",
    "#8c564b",
    "#e377c2",
    "#7f7f7f",
    "#bcbd22",
    "#17becf",
)
_HEAT = ("#fcfdbf", "#feb078", "#f1605d", "#b5367a", "#721f81", "#2c115f")  # light to dark


def map_trajectories(frame: pd.DataFrame, *, by: str = "user_id", tiles: str | None = None) -> Map:
    """Visits, points or generated weeks as one line for each person, with a ring where it begins; arguments and errors
    as in `plot_trajectories`.

    Args:
        tiles: name of a background that folium knows; None = no background, no network.
    """
    lines = one_line_each(frame, by)
    folium, made = _new_map(frame["lat"], frame["lon"], tiles)
    for index, (name, rows) in enumerate(lines):
        colour = _PALETTE[index % len(_PALETTE)]
        clock = f"{rows['time'].iloc[0]:%d %b %Y %H:%M} to {rows['time'].iloc[-1]:%d %b %Y %H:%M}"
        text = f"{by.removesuffix('_id')} {name}: {len(rows)} rows, {clock}"
        path = list(zip(rows["lat"].tolist(), rows["lon"].tolist()))
        folium.PolyLine(path, color=colour, weight=2.5, opacity=0.7, tooltip=_tooltip(folium, text)).add_to(made)
        _dot(folium, path[0], 6, colour, text, fill=False).add_to(made)
    return _captioned(folium, made, f"{len(lines)} lines; rings are where they begin", ())


def map_flows(flows: pd.DataFrame, lat: Any, lon: Any, *, top: int = 60, tiles: str | None = None) -> Map:
    """Trips between cells as curves that bow to the right of their way, thicker the more there are; arguments and
    errors as in `plot_flows`, `tiles` as in `map_trajectories`.
    """
    lat, lon = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
    table = largest_flows(flows, len(lat), top)[::-1]
    used = np.unique(table[["origin", "destination"]].to_numpy())
    folium, made = _new_map(lat[used], lon[used], tiles)
    squeeze = np.array([np.cos(np.radians(lat[used].mean())), 1.0])  # a bow is round in km, not in degrees
    places = np.stack([lon, lat], axis=1) * squeeze
    most = int(table["count"].max())
    for origin, destination, count in table[["origin", "destination", "count"]].to_numpy().tolist():
        curve = arc(places[origin], places[destination]) / squeeze
        text = _tooltip(folium, f"{origin} to {destination}: {count:,} trips")
        look = {"color": "#31688e", "weight": 1 + 7 * count / most, "opacity": 0.6, "tooltip": text}
        folium.PolyLine(curve[:, ::-1].tolist(), **look).add_to(made)
    for cell in used.tolist():
        _dot(folium, (lat[cell], lon[cell]), 3, "#000000", f"cell {cell}").add_to(made)
    return _captioned(folium, made, f"The {len(table)} largest flows, up to {most:,} trips; they bow to the right", ())


def map_next_places(
    predictions: pd.DataFrame,
    visits: pd.DataFrame,
    city: Any,
    *,
    user: Any,
    truth: Any = None,
    tiles: str | None = None,
) -> Map:
    """Where one person probably goes next: red rings that grow with probability, blue dots where they were, black where
    they are, green where they really went; arguments and errors as in `plot_next_places`, `tiles` as in
    `map_trajectories`. Only places that concern the person are drawn.
    """
    own, guesses = one_persons(predictions, visits, user)
    where = [own[["lat", "lon"]], guesses[["lat", "lon"]]]
    went = None if truth is None else true_place(city, guesses, truth)
    if went is not None:
        where.append(pd.DataFrame({"lat": [went[0]], "lon": [went[1]]}))
    everything = pd.concat(where)
    folium, made = _new_map(everything["lat"], everything["lon"], tiles)
    past = own.groupby(["lat", "lon"]).size().reset_index(name="visits")
    for y, x, count in zip(past["lat"].tolist(), past["lon"].tolist(), past["visits"].tolist()):
        text = f"visited {count} times" if count > 1 else "visited once"
        _dot(folium, (y, x), 2 + 2 * np.sqrt(count), "#1f77b4", text).add_to(made)
    _dot(folium, tuple(own[["lat", "lon"]].iloc[-1]), 4, "#000000", "last visit").add_to(made)
    if went is not None:
        _dot(folium, went[:2], 6, "#2ca02c", went[2]).add_to(made)
    for row in guesses.to_dict("records"):
        text = f"{row['rank']}. {row['location_id']}: {row['probability']:.1%}"
        size = 5 + 25 * float(np.sqrt(row["probability"]))
        _dot(folium, (row["lat"], row["lon"]), size, "#d62728", text, fill=False).add_to(made)
    key = [("#d62728", "predicted next"), ("#1f77b4", "visited"), ("#000000", "last visit")]
    if went is not None:
        key.append(("#2ca02c", went[2]))
    return _captioned(folium, made, f"Next place of user {user}", key)


def map_visit_heat(
    real: pd.DataFrame,
    generated: pd.DataFrame,
    grid: SquareGrid,
    *,
    names: tuple[str, str] = ("real", "generated"),
    tiles: str | None = None,
) -> Map:
    """Shares of the rows per cell, real and generated as two layers to switch between, on one logarithmic scale;
    arguments and errors as in `plot_visit_heat`, `tiles` as in `map_trajectories`.
    """
    shares = [visit_shares(frame, grid) for frame in (real, generated)]
    positive = np.concatenate([share[share > 0] for share in shares])
    low, high = float(np.log(positive.min())), float(np.log(positive.max()))
    folium, made = _new_map([grid.south, grid.north], [grid.west, grid.east], tiles)
    for share, name in zip(shares, names):
        cells = np.flatnonzero(share)
        level = (np.log(share[cells]) - low) / max(high - low, 1e-9) * len(_HEAT)
        colours = [_HEAT[min(int(value), len(_HEAT) - 1)] for value in level]
        texts = [f"{name}: {value:.2%} of the rows" for value in share[cells]]
        _layer(folium, made, name, _squares(folium, grid, cells, colours, texts), shown=name == names[0])
    folium.LayerControl(collapsed=False).add_to(made)
    edges = np.exp(np.linspace(low, high, len(_HEAT) + 1))
    key = [(colour, f"{100 * edges[i]:.2g} to {100 * edges[i + 1]:.2g} %") for i, colour in enumerate(_HEAT)]
    return _captioned(folium, made, "Share of the rows in a cell", key)


def map_regions(
    embeddings: pd.DataFrame, grid: SquareGrid, *, clusters: int = 5, seed: int = 0, tiles: str | None = None
) -> Map:
    """Embeddings of a grid's cells as two layers, principal components as colours and clusters; arguments and errors as
    in `plot_regions`, `tiles` as in `map_trajectories`.
    """
    cells = region_cells(embeddings, grid)
    rgb = np.round(region_colours(embeddings)[0] * 255).astype(int).tolist()
    labels = region_clusters(embeddings, clusters=clusters, seed=seed)
    folium, made = _new_map([grid.south, grid.north], [grid.west, grid.east], tiles)
    ids = embeddings["region_id"].tolist()
    texts = [f"{name}: cluster {label + 1}" for name, label in zip(ids, labels.tolist())]
    mixed = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in rgb]
    named = [_PALETTE[label] for label in labels.tolist()]
    for name, colours in (("principal components", mixed), ("clusters", named)):
        _layer(folium, made, name, _squares(folium, grid, cells, colours, texts), shown=colours is mixed)
    folium.LayerControl(collapsed=False).add_to(made)
    key = [(_PALETTE[label], f"cluster {label + 1}") for label in range(clusters)]
    return _captioned(folium, made, f"{len(cells)} regions", key)


def save_map(made: Map, path: str | Path) -> None:
    """Write one HTML file that needs no network: Leaflet is inside, everything else that folium would load is left out.

    What this module draws needs nothing else; popups and icon markers that you add do (`made.save(path)`).

    Raises:
        ImportError: without xstatic-leaflet (a copy of Leaflet), with the command that installs it.
    """
    try:
        from xstatic.pkg.leaflet import BASE_DIR  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("maps need xstatic-leaflet, a copy of Leaflet: pip install 'hf_mobility[plot]'") from error
    script = (Path(BASE_DIR) / "leaflet.js").read_text(encoding="utf-8")
    style = (Path(BASE_DIR) / "leaflet.css").read_text(encoding="utf-8")
    script = re.sub(r"//# sourceMappingURL=\S*", "", script)
    page = made.get_root().render()
    page = re.sub(r'<script src="https?://[^"]*"></script>|<link [^>]*href="https?://[^"]*"[^>]*/?>', "", page)
    inside = f"<style>{style}</style>\n<script>{script}</script>\n</head>"
    with whole_file(path) as file:
        file.write_text(page.replace("</head>", inside, 1), encoding="utf-8")


# -------------------------------------------------------------------------------------------------------------- helpers


def _new_map(lat: Any, lon: Any, tiles: str | None) -> tuple[Any, Map]:
    """folium and an empty map that shows all the given places."""
    try:
        import folium
    except ImportError as error:
        raise ImportError("web maps need folium: pip install 'hf_mobility[plot]'") from error
    south, north, west, east = np.min(lat), np.max(lat), np.min(lon), np.max(lon)
    made = folium.Map(location=[(south + north) / 2, (west + east) / 2], tiles=tiles, zoom_start=12, control_scale=True)
    made.fit_bounds([[float(south), float(west)], [float(north), float(east)]], padding=(20, 20), max_zoom=16)
    return folium, made


def _safe(text: str) -> str:
    """Text for HTML that folium puts through Jinja and into a JavaScript template string."""
    return html.escape(text).translate({ord(sign): f"&#{ord(sign)};" for sign in "`${}\\%"})


def _tooltip(folium: Any, text: str) -> Any:
    return folium.Tooltip(_safe(text))


def _dot(folium: Any, where: Any, radius: float, colour: str, text: str, *, fill: bool = True) -> Any:
    """A circle of `radius` pixels; `fill=False` makes it a ring that still feels the mouse."""
    place = [float(where[0]), float(where[1])]
    look = {"color": colour, "weight": 1 if fill else 3, "fill": True, "fill_opacity": 0.7 if fill else 0.05}
    return folium.CircleMarker(place, radius=float(radius), tooltip=_tooltip(folium, text), **look)


def _squares(folium: Any, grid: SquareGrid, cells: np.ndarray, colours: list[str], texts: list[str]) -> Iterator[Any]:
    row, col = np.divmod(cells, grid.columns)
    lat, lon = np.linspace(grid.south, grid.north, grid.rows + 1), np.linspace(grid.west, grid.east, grid.columns + 1)
    corners = np.stack([lat[row], lon[col], lat[row + 1], lon[col + 1]], axis=1).tolist()
    for (south, west, north, east), colour, text in zip(corners, colours, texts):
        look = {"color": colour, "weight": 0.5, "fill": True, "fill_opacity": 0.75}
        yield folium.Rectangle([[south, west], [north, east]], tooltip=_tooltip(folium, text), **look)


def _layer(folium: Any, made: Map, name: str, shapes: Iterable[Any], *, shown: bool) -> None:
    """One of several layers of which one is seen at a time."""
    group = folium.FeatureGroup(name=_safe(name), overlay=False, show=shown)
    for shape in shapes:
        shape.add_to(group)
    group.add_to(made)


def _captioned(folium: Any, made: Map, title: str, key: Iterable[tuple[str, str]]) -> Map:
    """Title and legend in the lower left corner."""
    box = "position:fixed;left:10px;bottom:50px;z-index:1000;background:#ffffffdd;padding:6px 10px;border-radius:4px"
    square = "display:inline-block;width:12px;height:12px;margin-right:6px"
    lines = [f'<div><span style="{square};background:{colour}"></span>{_safe(text)}</div>' for colour, text in key]
    text = f'<div class="caption" style="{box};font:13px sans-serif"><b>{_safe(title)}</b>{"".join(lines)}</div>'
    root: Any = made.get_root()
    root.html.add_child(folium.Element(text))
    root.header.add_child(folium.Element("<style>div.leaflet-container{background:#f6f6f6}</style>"))
    return made
