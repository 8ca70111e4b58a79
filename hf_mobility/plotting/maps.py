"""Web maps of visits, flows and predictions. folium is imported on first use (`pip install 'hf_mobility[plot]'`).

The background is the coast that comes with the package, and `save_map` writes Leaflet into the file. So a map opens
without network, and no server learns what was looked at. `tiles=None` leaves the coast out, as for a simulated city.
`tiles="OpenStreetMap"` asks that server for a street map. folium's own `map.save(path)` loads Leaflet and more from the
network, as its popups and icon markers need.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..tokenization.grid import SquareGrid
from ..tokenization.whole_files import whole_file
from .colours import BLACK, BLUE, GREEN, PALETTE, RED, line_look
from .prepare import (
    arc,
    flow_examples,
    largest_flows,
    one_line_each,
    one_persons,
    region_cells,
    region_clusters,
    region_colours,
    true_place,
    visit_shares,
)
from .web_parts import COAST, Sign, captioned, dot, glyphs, layer, new_map, squares, time_slider, tooltip

if TYPE_CHECKING:
    from folium import Map

_NAMED = 10  # lines that a legend can name
_HEAT = ("#fcfdbf", "#feb078", "#f1605d", "#b5367a", "#721f81", "#2c115f")  # light to dark


def map_trajectories(frame: pd.DataFrame, *, by: str = "user_id", tiles: str | None = COAST) -> Map:
    """Visits, points or generated weeks as one line for each user, with a ring where it begins, and a slider over the
    time; arguments and errors as in `plot_trajectories`.

    Args:
        tiles: "coast" = land and water, without network; the name of a background that folium knows; None = neither.

    Example:
        >>> save_map(map_trajectories(visits), "week.html")  # doctest: +SKIP
    """
    lines = one_line_each(frame, by)
    folium, made = new_map(frame["lat"], frame["lon"], tiles)
    what, drawn, key = by.removesuffix("_id"), [], []
    for index, (name, rows) in enumerate(lines):
        colour, dashes = line_look(index)
        clock = f"{rows['time'].iloc[0]:%d %b %Y %H:%M} to {rows['time'].iloc[-1]:%d %b %Y %H:%M}"
        text = f"{what} {name}: {len(rows)} rows, {clock}"
        path = list(zip(rows["lat"].tolist(), rows["lon"].tolist()))
        look = {"color": colour, "weight": 2.5, "opacity": 0.7, "tooltip": tooltip(folium, text)}
        drawn.append(folium.PolyLine(path, dash_array=" ".join(map(str, dashes)) or None, **look))
        drawn[-1].add_to(made)
        dot(folium, path[0], 6, colour, text, fill=False).add_to(made)
        key.append(Sign(colour, f"{what} {name}", "line", dashes=dashes))
    time_slider(folium, made, drawn, [rows["time"] for _, rows in lines])
    title = f"{len(lines)} lines; rings are where they begin"
    return captioned(folium, made, title, key if len(lines) <= _NAMED else ())


def map_flows(flows: pd.DataFrame, lat: Any, lon: Any, *, top: int = 60, tiles: str | None = COAST) -> Map:
    """Trips between cells as curves that bow to the right of their way, thicker the more there are; arguments and
    errors as in `plot_flows`, `tiles` as in `map_trajectories`.
    """
    lat, lon = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
    table = largest_flows(flows, len(lat), top)[::-1]
    used = np.unique(table[["origin", "destination"]].to_numpy())
    folium, made = new_map(lat[used], lon[used], tiles)
    squeeze = np.array([np.cos(np.radians(lat[used].mean())), 1.0])  # a bow is round in km, not in degrees
    places = np.stack([lon, lat], axis=1) * squeeze
    most = int(table["count"].max())
    for origin, destination, count in table[["origin", "destination", "count"]].to_numpy().tolist():
        curve = arc(places[origin], places[destination]) / squeeze
        text = tooltip(folium, f"{origin} to {destination}: {count:,} trips")
        look = {"color": BLUE, "weight": 1 + 7 * count / most, "opacity": 0.6, "tooltip": text}
        folium.PolyLine(curve[:, ::-1].tolist(), **look).add_to(made)
    for cell in used.tolist():
        dot(folium, (lat[cell], lon[cell]), 3, BLACK, f"cell {cell}").add_to(made)
    shown = flow_examples(table["count"].to_numpy()).tolist()
    key = [Sign(BLUE, f"{count:,.0f} trips", "line", width=1 + 7 * count / most) for count in shown]
    return captioned(folium, made, f"The {len(table)} largest flows; they bow to the right of their way", key)


def map_next_places(
    predictions: pd.DataFrame,
    visits: pd.DataFrame,
    city: Any,
    *,
    user: Any,
    truth: Any = None,
    tiles: str | None = COAST,
) -> Map:
    """Where one user probably goes next: red rings with their rank that grow with probability, blue dots where they
    were, black where they are, a green star where they really went. Only places that concern the user are drawn.

    Arguments and errors as in `plot_next_places`, `tiles` as in `map_trajectories`.
    """
    own, guesses = one_persons(predictions, visits, user)
    where = [own[["lat", "lon"]], guesses[["lat", "lon"]]]
    went = None if truth is None else true_place(city, guesses, truth)
    if went is not None:
        where.append(pd.DataFrame({"lat": [went[0]], "lon": [went[1]]}))
    everything = pd.concat(where)
    folium, made = new_map(everything["lat"], everything["lon"], tiles)
    past = own.groupby(["lat", "lon"]).size().reset_index(name="visits")
    for y, x, count in zip(past["lat"].tolist(), past["lon"].tolist(), past["visits"].tolist()):
        text = f"visited {count} times" if count > 1 else "visited once"
        dot(folium, (y, x), 2 + 2 * np.sqrt(count), BLUE, text).add_to(made)
    dot(folium, tuple(own[["lat", "lon"]].iloc[-1]), 4, BLACK, "last visit").add_to(made)
    if went is not None:
        dot(folium, went[:2], 6, GREEN, went[2]).add_to(made)
    for row in guesses.to_dict("records"):
        text = f"{row['rank']}. {row['location_id']}: {row['probability']:.1%}"
        size = 5 + 25 * float(np.sqrt(row["probability"]))
        dot(folium, (row["lat"], row["lon"]), size, RED, text, fill=False).add_to(made)
    key = [Sign(RED, "predicted next, by rank", "ring"), Sign(BLUE, "visited", "dot"), Sign(BLACK, "last visit", "dot")]
    if went is not None:
        key.append(Sign(GREEN, f"★ {went[2]}", "dot"))
    ranks = [((row["lat"], row["lon"]), str(row["rank"]), RED, 12) for row in guesses.to_dict("records")]
    stars = [] if went is None else [(went[:2], "★", GREEN, 24)]
    glyphs(folium, made, [*ranks, *stars])
    return captioned(folium, made, f"Next place of user {user}", key)


def map_visit_heat(
    real: pd.DataFrame,
    generated: pd.DataFrame,
    grid: SquareGrid,
    *,
    names: tuple[str, str] = ("real", "generated"),
    tiles: str | None = COAST,
) -> Map:
    """Shares of the rows per cell, real and generated as two layers to switch between, on one logarithmic scale;
    arguments and errors as in `plot_visit_heat`, `tiles` as in `map_trajectories`.
    """
    shares = [visit_shares(frame, grid) for frame in (real, generated)]
    positive = np.concatenate([share[share > 0] for share in shares])
    low, high = float(np.log(positive.min())), float(np.log(positive.max()))
    folium, made = new_map([grid.south, grid.north], [grid.west, grid.east], tiles)
    for share, name in zip(shares, names):
        cells = np.flatnonzero(share)
        level = (np.log(share[cells]) - low) / max(high - low, 1e-9) * len(_HEAT)
        colours = [_HEAT[min(int(value), len(_HEAT) - 1)] for value in level]
        texts = [f"{name}: {value:.2%} of the rows" for value in share[cells]]
        layer(folium, made, name, squares(folium, grid, cells, colours, texts), shown=name == names[0])
    folium.LayerControl(collapsed=False).add_to(made)
    edges = np.exp(np.linspace(low, high, len(_HEAT) + 1))
    key = [Sign(colour, f"{100 * edges[i]:.2g} to {100 * edges[i + 1]:.2g} %") for i, colour in enumerate(_HEAT)]
    return captioned(folium, made, "Share of the rows in a cell", key)


def map_regions(
    embeddings: pd.DataFrame, grid: SquareGrid, *, clusters: int = 5, seed: int = 0, tiles: str | None = COAST
) -> Map:
    """Embeddings of a grid's cells as two layers, principal components as colours and clusters; arguments and errors as
    in `plot_regions`, `tiles` as in `map_trajectories`.
    """
    cells = region_cells(embeddings, grid)
    rgb = np.round(region_colours(embeddings)[0] * 255).astype(int).tolist()
    labels = region_clusters(embeddings, clusters=clusters, seed=seed)
    folium, made = new_map([grid.south, grid.north], [grid.west, grid.east], tiles)
    ids = embeddings["region_id"].tolist()
    texts = [f"{name}: cluster {label + 1}" for name, label in zip(ids, labels.tolist())]
    mixed = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in rgb]
    named = [PALETTE[label] for label in labels.tolist()]
    for name, colours in (("principal components", mixed), ("clusters", named)):
        layer(folium, made, name, squares(folium, grid, cells, colours, texts), shown=colours is mixed)
    folium.LayerControl(collapsed=False).add_to(made)
    key = [Sign(PALETTE[label], f"cluster {label + 1}") for label in range(clusters)]
    return captioned(folium, made, f"{len(cells)} regions", key)


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
