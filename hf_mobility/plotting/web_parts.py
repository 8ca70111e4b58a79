"""The parts of the web maps: an empty map with the coast, dots, cells, signs, title and legend, the time slider.

folium is imported on first use (`pip install 'hf_mobility[plot]'`). All texts of data are escaped here.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ..tokenization.grid import SquareGrid
from .coast import CREDIT, land_near
from .colours import LAND, WATER

if TYPE_CHECKING:
    from folium import Map

COAST = "coast"  # the background that comes with the package


class Sign(NamedTuple):
    """A line of a legend."""

    colour: str
    text: str
    shape: str = "square"  # or dot, ring, line
    width: float = 3.0  # of a line, in pixels
    dashes: tuple[int, ...] = ()


def new_map(lat: Any, lon: Any, tiles: str | None) -> tuple[Any, Map]:
    """folium and an empty map that shows all the given places."""
    try:
        import folium
    except ImportError as error:
        raise ImportError("web maps need folium: pip install 'hf_mobility[plot]'") from error
    south, north, west, east = (float(f(v)) for v in (lat, lon) for f in (np.min, np.max))
    middle, online = [(south + north) / 2, (west + east) / 2], None if tiles == COAST else tiles
    made = folium.Map(location=middle, tiles=online, zoom_start=12, control_scale=True)
    made.fit_bounds([[south, west], [north, east]], padding=(20, 20), max_zoom=16)
    rings = land_near(south, west, north, east) if tiles == COAST else []
    for ring in rings:
        look: dict[str, Any] = {"stroke": False, "fill": True, "fill_color": LAND, "fill_opacity": 1}
        look["interactive"] = False
        folium.Polygon(np.round(ring, 5).tolist(), **look).add_to(made)
    root: Any = made.get_root()
    root.header.add_child(
        folium.Element(f"<style>div.leaflet-container{{background:{WATER if rings else '#f6f6f6'}}}</style>")
    )
    if rings:
        _run_when_loaded(folium, made, f"{made.get_name()}.attributionControl.addAttribution({json.dumps(CREDIT)});")
    return folium, made


def tooltip(folium: Any, text: str) -> Any:
    return folium.Tooltip(_safe(text))


def dot(folium: Any, where: Any, radius: float, colour: str, text: str, *, fill: bool = True) -> Any:
    """A circle of `radius` pixels; `fill=False` makes it a ring that still feels the mouse."""
    place = [float(where[0]), float(where[1])]
    look = {"color": colour, "weight": 1 if fill else 3, "fill": True, "fill_opacity": 0.7 if fill else 0.05}
    return folium.CircleMarker(place, radius=float(radius), tooltip=tooltip(folium, text), **look)


def glyphs(folium: Any, made: Map, signs: Iterable[tuple[Any, str, str, int]]) -> None:
    """(place, text, colour, size in pixels) as signs on the map that do not feel the mouse. folium's own markers load a
    picture first."""
    calls = []
    for where, text, colour, size in signs:
        style = f"color:{colour};font:bold {size}px/{size}px sans-serif;text-align:center;text-shadow:0 0 3px #fff"
        icon = {"html": f'<div style="{style}">{_safe(text)}</div>', "iconSize": [size, size], "className": "glyph"}
        place = json.dumps([float(where[0]), float(where[1])])
        calls.append(f"L.marker({place}, {{icon: L.divIcon({json.dumps(icon)}), interactive: false}})")
    added = "".join(f"{call}.addTo({made.get_name()});" for call in calls)
    _run_when_loaded(folium, made, added)


def squares(folium: Any, grid: SquareGrid, cells: np.ndarray, colours: list[str], texts: list[str]) -> Iterator[Any]:
    row, col = np.divmod(cells, grid.columns)
    lat, lon = np.linspace(grid.south, grid.north, grid.rows + 1), np.linspace(grid.west, grid.east, grid.columns + 1)
    corners = np.stack([lat[row], lon[col], lat[row + 1], lon[col + 1]], axis=1).tolist()
    for (south, west, north, east), colour, text in zip(corners, colours, texts):
        look = {"color": colour, "weight": 0.5, "fill": True, "fill_opacity": 0.75}
        yield folium.Rectangle([[south, west], [north, east]], tooltip=tooltip(folium, text), **look)


def layer(folium: Any, made: Map, name: str, shapes: Iterable[Any], *, shown: bool) -> None:
    """One of several layers of which one is seen at a time."""
    group = folium.FeatureGroup(name=_safe(name), overlay=False, show=shown)
    for shape in shapes:
        shape.add_to(group)
    group.add_to(made)


def captioned(folium: Any, made: Map, title: str, key: Iterable[Sign]) -> Map:
    """Title and legend in the lower left corner."""
    box = "position:fixed;left:10px;bottom:50px;z-index:1000;background:#ffffffdd;padding:6px 10px;border-radius:4px"
    lines = "".join(f"<div>{_drawn(sign)} {_safe(sign.text)}</div>" for sign in key)
    text = f'<div class="caption" style="{box};font:13px sans-serif;max-width:60vw"><b>{_safe(title)}</b>{lines}</div>'
    root: Any = made.get_root()
    root.html.add_child(folium.Element(text))
    return made


def time_slider(folium: Any, made: Map, lines: list[Any], times: list[pd.Series]) -> None:
    """A slider over the rows' times for these polylines; times are shown as the frame gives them."""
    told = [_wall_seconds(series) for series in times]
    if max(clock[-1] for clock in told) <= min(clock[0] for clock in told):
        return
    given = ",".join(f"{{line:{line.get_name()},times:{json.dumps(clock)}}}" for line, clock in zip(lines, told))
    box = "position:fixed;left:60px;right:10px;top:10px;z-index:1000;background:#ffffffdd;padding:6px 10px"
    text = (
        f'<div id="time-slider" style="{box};border-radius:4px;font:13px sans-serif;display:flex;gap:8px">'
        '<button aria-label="play or pause" style="min-width:36px">▶</button>'
        '<input type="range" min="0" max="1000" value="1000" aria-label="time" style="flex:1">'
        '<output style="min-width:11em"></output></div>'
    )
    script = files(__package__).joinpath("time_slider.js").read_text(encoding="utf-8")
    root: Any = made.get_root()
    root.html.add_child(folium.Element(text))
    root.script.add_child(folium.Element(f"{{% raw %}}{script}{{% endraw %}}"))
    _run_when_loaded(folium, made, f'timeSlider(document.getElementById("time-slider"), [{given}]);')


def _run_when_loaded(folium: Any, made: Map, script: str) -> None:
    """folium writes the map's own script after what is added here."""
    root: Any = made.get_root()
    root.script.add_child(folium.Element(f'addEventListener("load", () => {{ {script} }});'))


def _wall_seconds(times: pd.Series) -> list[float]:
    """Seconds of the clock on the wall; numbers of any unit stay as they are."""
    if not pd.api.types.is_datetime64_any_dtype(times):
        return [float(value) for value in times]
    wall = times.dt.tz_localize(None) if times.dt.tz is not None else times
    return (wall - pd.Timestamp(0)).dt.total_seconds().tolist()


def _safe(text: str) -> str:
    """Text for HTML that folium puts through Jinja and into a JavaScript template string."""
    return html.escape(text).translate({ord(sign): f"&#{ord(sign)};" for sign in "`${}\\%"})


def _drawn(sign: Sign) -> str:
    """The sign as it stands on the map."""
    size = "display:inline-block;margin-right:4px;vertical-align:middle;"
    if sign.shape == "line":
        dashes = f' stroke-dasharray="{",".join(map(str, sign.dashes))}"' if sign.dashes else ""
        return (
            f'<svg width="34" height="12" style="{size}"><line x1="1" y1="6" x2="33" y2="6" '
            f'stroke="{sign.colour}" stroke-width="{sign.width:g}"{dashes}/></svg>'
        )
    look = {
        "square": f"width:12px;height:12px;background:{sign.colour}",
        "dot": f"width:10px;height:10px;border-radius:50%;background:{sign.colour}",
        "ring": f"width:8px;height:8px;border-radius:50%;border:3px solid {sign.colour}",
    }
    return f'<span style="{size}{look[sign.shape]}"></span>'
