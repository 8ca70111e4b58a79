"""Web maps hold the data that they were given, and a browser draws it from the file alone, without network."""

from __future__ import annotations

import builtins
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hf_mobility import DataError, SquareGrid
from hf_mobility.data.io.exports import od_matrix
from hf_mobility.plotting.colours import BLACK, BLUE, GREEN, PALETTE, RED
from hf_mobility.plotting.maps import (
    map_flows,
    map_next_places,
    map_regions,
    map_trajectories,
    map_visit_heat,
    save_map,
)

folium = pytest.importorskip("folium", reason="folium is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
GRID = SquareGrid(48.0, 11.0, 48.2, 11.3, 2, 3)


def shapes(made: Any, kind: type) -> list[Any]:
    """All shapes of a kind in the map and its layers, in the order in which they are drawn."""
    found = []
    for child in made._children.values():
        found += [child] if isinstance(child, kind) else shapes(child, kind)
    return found


def text_of(shape: Any) -> str:
    return next(child.text for child in shape._children.values() if isinstance(child, folium.Tooltip))


@pytest.fixture
def world(toy: SimpleNamespace) -> SimpleNamespace:
    """A city, visits of three people, and a prediction for the first."""
    visits, city = toy.city(3)
    rows = [5, 20, 33]
    user = visits["user_id"].iloc[0]
    guess = {"location_id": city.location_ids[rows], "lat": city.lat[rows], "lon": city.lon[rows]}
    predictions = pd.DataFrame({"user_id": user, "rank": [1, 2, 3], **guess, "probability": [0.64, 0.25, 0.01]})
    return SimpleNamespace(visits=visits, city=city, user=user, predictions=predictions)


@pytest.fixture
def regions() -> pd.DataFrame:
    table = pd.DataFrame({"e0": [0, 0.1, 9, 9.1], "e1": [0, 0, 1, 1.1]})
    return table.assign(region_id=GRID.cell_id(np.array([0, 1, 4, 5])))


def heat() -> tuple[pd.DataFrame, pd.DataFrame]:
    real, generated = (
        pd.DataFrame(dict(zip(("lat", "lon"), GRID.centre(np.array(c))))) for c in ([0, 0, 0, 5], [0, 2])
    )
    return real, generated


# What is in the maps


def test_every_person_is_a_line_through_their_rows(world: SimpleNamespace) -> None:
    made = map_trajectories(world.visits.sample(frac=1, random_state=0))
    lines, rings = shapes(made, folium.PolyLine), shapes(made, folium.CircleMarker)
    assert len(lines) == len(rings) == 3
    for line, ring, (user, rows) in zip(lines, rings, world.visits.groupby("user_id")):
        np.testing.assert_allclose(line.locations, rows[["lat", "lon"]])
        np.testing.assert_allclose(ring.location, rows[["lat", "lon"]].iloc[0])
        assert text_of(line).startswith(f"user {user}: {len(rows)} rows, ")
    assert len({line.options["color"] for line in lines}) == 3


def test_flows_are_curves_between_their_cells() -> None:
    lat, lon = np.array([48.0, 48.0, 48.1]), np.array([11.0, 11.1, 11.1])
    cells = np.repeat([[0, 1], [1, 0], [1, 2]], [10, 20, 40], axis=0)
    made = map_flows(od_matrix(cells, threshold=1), lat, lon, top=2)
    lines = shapes(made, folium.PolyLine)
    assert [text_of(line) for line in lines] == ["1 to 0: 20 trips", "1 to 2: 40 trips"]
    assert [line.options["weight"] for line in lines] == [4.5, 8]
    for line, (a, b) in zip(lines, ((1, 0), (1, 2))):
        np.testing.assert_allclose([line.locations[0], line.locations[-1]], [[lat[a], lon[a]], [lat[b], lon[b]]])
    north_of = lines[0].locations[6][0] - 48.0  # the way leads west, and right of west is north
    assert north_of == pytest.approx(0.15 * 0.1 * np.cos(np.radians(lat.mean())))
    assert len(shapes(made, folium.CircleMarker)) == 3


def test_guesses_are_rings_that_grow_with_probability_and_the_truth_is_green(world: SimpleNamespace) -> None:
    truth = world.city.location_ids[20]
    made = map_next_places(world.predictions, world.visits, world.city, user=world.user, truth=truth)
    dots = shapes(made, folium.CircleMarker)
    own = world.visits[world.visits["user_id"] == world.user]
    colours = [dot.options["color"] for dot in dots]
    assert colours.count(BLUE) == len(own[["lat", "lon"]].drop_duplicates())
    rings = [dot for dot in dots if dot.options["color"] == RED]
    np.testing.assert_allclose([ring.location for ring in rings], world.predictions[["lat", "lon"]])
    assert [ring.options["radius"] for ring in rings] == pytest.approx([25, 17.5, 7.5])
    assert text_of(rings[0]) == f"1. {world.city.location_ids[5]}: 64.0&#37;"
    green = next(dot for dot in dots if dot.options["color"] == GREEN)
    np.testing.assert_allclose(green.location, [world.city.lat[20], world.city.lon[20]])
    assert text_of(green) == "went here (rank 2)"
    last = next(dot for dot in dots if dot.options["color"] == BLACK)
    np.testing.assert_allclose(last.location, own[["lat", "lon"]].iloc[-1])
    with pytest.raises(ValueError, match="there is no prediction of user 'nobody'"):
        map_next_places(world.predictions, world.visits, world.city, user="nobody")


def test_heat_maps_are_two_layers_of_cells_on_one_scale() -> None:
    made = map_visit_heat(*heat(), GRID)
    groups = [child for child in made._children.values() if isinstance(child, folium.FeatureGroup)]
    assert [(group.layer_name, group.show, group.overlay) for group in groups] == [
        ("real", True, False),
        ("generated", False, False),
    ]
    real, generated = (shapes(group, folium.Rectangle) for group in groups)
    np.testing.assert_allclose([r.locations for r in real], [[[48, 11], [48.1, 11.1]], [[48.1, 11.2], [48.2, 11.3]]])
    assert [text_of(cell) for cell in (*real, *generated)] == [
        "real: 75.00&#37; of the rows",
        "real: 25.00&#37; of the rows",
        "generated: 50.00&#37; of the rows",
        "generated: 50.00&#37; of the rows",
    ]
    colours = [cell.options["color"] for cell in (*real, *generated)]
    assert colours[0] == "#2c115f" and colours[1] == "#fcfdbf" and colours[2] == colours[3]


def test_regions_are_two_layers_of_which_one_shows_clusters(regions: pd.DataFrame) -> None:
    made = map_regions(regions, GRID, clusters=2)
    mixed, named = (shapes(g, folium.Rectangle) for g in made._children.values() if isinstance(g, folium.FeatureGroup))
    assert [cell.options["color"] for cell in named] == [PALETTE[0]] * 2 + [PALETTE[1]] * 2
    assert all(re.fullmatch("#[0-9a-f]{6}", cell.options["color"]) for cell in mixed)
    assert text_of(named[2]) == "r1c1: cluster 2"
    with pytest.raises(DataError, match="clusters must lie in"):
        map_regions(regions, GRID, clusters=5)


def test_the_coast_lies_behind_a_city_by_the_sea_and_nothing_behind_others() -> None:
    times = pd.date_range("2024-01-01", periods=2, freq="h", tz="UTC")
    bay = pd.DataFrame({"user_id": 1, "time": times, "lat": [37.7, 37.85], "lon": [-122.5, -122.2]})
    inland = bay.assign(lat=[48.0, 48.1], lon=[11.0, 11.1])
    assert shapes(map_trajectories(bay), folium.Polygon)
    for made in (map_trajectories(bay, tiles=None), map_trajectories(inland)):
        assert not shapes(made, folium.Polygon)


def test_lines_differ_in_colour_and_dashes_and_the_legend_shows_both(world: SimpleNamespace) -> None:
    made = map_trajectories(world.visits)
    looks = [(line.options["color"], line.options.get("dashArray")) for line in shapes(made, folium.PolyLine)]
    assert len(set(looks)) == len({dashes for _, dashes in looks}) == 3
    legend = made.get_root().render()
    assert all(f'stroke="{colour}"' in legend for colour, _ in looks)
    assert legend.count("stroke-dasharray") == 2  # the first line is unbroken


def test_widths_of_flows_are_explained() -> None:
    flows = pd.DataFrame({"origin": [0, 1], "destination": [1, 0], "count": [80, 8]})
    page = map_flows(flows, [48.0, 48.1], [11.0, 11.1]).get_root().render()
    widths = dict(re.findall(r'stroke-width="([\d.]+)"/></svg> ([\d,]+) trips', page))
    assert widths == {"8": "80", "4.5": "40", "1.7": "8"}  # 1 + 7 * trips / 80


def test_a_background_is_loaded_only_if_asked_for(world: SimpleNamespace, tmp_path: Path) -> None:
    save_map(map_trajectories(world.visits), tmp_path / "plain.html")
    save_map(map_trajectories(world.visits, tiles="OpenStreetMap"), tmp_path / "street.html")
    assert "tile.openstreetmap.org" in (tmp_path / "street.html").read_text(encoding="utf-8")
    plain = (tmp_path / "plain.html").read_text(encoding="utf-8")
    assert "tile.openstreetmap.org" not in plain
    assert not re.search(r'<(script|link|img)[^>]*(src|href)="(https?:)?//', plain)


def test_missing_extras_say_what_to_install(
    world: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = map_trajectories(world.visits)
    original = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.split(".")[0] in ("folium", "xstatic"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"need folium: pip install 'hf_mobility\[plot\]'"):
        map_trajectories(world.visits)
    with pytest.raises(ImportError, match=r"a copy of Leaflet: pip install 'hf_mobility\[plot\]'"):
        save_map(made, tmp_path / "map.html")
    assert not (tmp_path / "map.html").exists()


# What a browser draws


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    pytest.importorskip("xstatic.pkg.leaflet", reason="xstatic-leaflet is not installed")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[[Any], Any]]:
    """Write a map, open the file in a browser that is offline, and give the page; no script may fail and nothing but
    the file may be asked for."""
    context = browser.new_context(viewport={"width": 700, "height": 500}, offline=True)
    faults: list[str] = []
    asked: list[str] = []

    def open_map(made: Any) -> Any:
        path = tmp_path / "map.html"
        save_map(made, path)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function("document.querySelectorAll('path.leaflet-interactive').length > 0")
        return page

    yield open_map
    context.close()
    assert faults == []
    assert [url for url in asked if not url.endswith("/map.html")] == []


def drawn(page: Any) -> list[tuple[str, float, float]]:
    """(colour, width, height) in pixels of every shape that is seen."""
    script = "paths => paths.map(p => [p.getAttribute('stroke'), p.getBBox().width, p.getBBox().height])"
    return [tuple(row) for row in page.eval_on_selector_all("path.leaflet-interactive", script)]


def tooltip(page: Any, selector: str) -> str:
    """What is said where the mouse rests; a browser under load may miss its first moves."""
    for _ in range(50):
        page.mouse.move(0, 0)
        page.hover(selector, force=True)
        if page.locator(".leaflet-tooltip").count():
            return str(page.inner_text(".leaflet-tooltip"))
        page.wait_for_timeout(100)
    raise AssertionError(f"no tooltip appears at {selector}")


def test_lines_fill_the_window(world: SimpleNamespace, opened: Callable[[Any], Any]) -> None:
    seen = drawn(opened(map_trajectories(world.visits)))
    assert len(seen) == 6
    lines = [shape for shape in seen if max(shape[1:]) > 20]
    assert len({colour for colour, *_ in lines}) == 3
    assert max(max(shape[1:]) for shape in lines) > 200


def test_a_slider_shows_lines_as_far_as_they_have_come(opened: Callable[[Any], Any]) -> None:
    times = pd.to_datetime(["2024-01-01 08:00", "2024-01-01 10:00", "2024-01-01 12:00"]).tz_localize("Europe/Berlin")
    frame = pd.DataFrame({"user_id": "a", "time": times, "lat": [48.0, 48.1, 48.1], "lon": [11.0, 11.0, 11.2]})
    page = opened(map_trajectories(frame))
    clock, slider = page.locator("#time-slider output"), page.locator("#time-slider input")
    ends = "Object.values(window).find((one) => one instanceof L.Polyline).getLatLngs().map((p) => [p.lat, p.lng])"
    assert clock.inner_text() == "Mon, 01 Jan 2024 12:00"  # all of it at first, by the clock of the frame
    np.testing.assert_allclose(page.evaluate(ends), frame[["lat", "lon"]])
    assert page.locator("path.now").count() == 0
    slider.fill("250")
    assert clock.inner_text() == "Mon, 01 Jan 2024 09:00"
    np.testing.assert_allclose(page.evaluate(ends), [[48.0, 11.0], [48.05, 11.0]])
    assert page.locator("path.now").count() == 1
    page.locator("#time-slider button").click()
    page.wait_for_function("Number(document.querySelector('#time-slider input').value) > 250")


def test_the_coast_is_drawn_and_feels_no_mouse(opened: Callable[[Any], Any], tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    times = pd.date_range("2024-01-01", periods=2, freq="h", tz="UTC")
    frame = pd.DataFrame({"user_id": 1, "time": times, "lat": [37.7, 37.85], "lon": [-122.6, -122.2]})
    opened(map_trajectories(frame)).screenshot(path=tmp_path / "map.png")
    pixels = np.asarray(image.open(tmp_path / "map.png").convert("RGB")).astype(int)
    share = [float((np.abs(pixels - colour).sum(axis=2) < 6).mean()) for colour in ([247, 245, 238], [217, 232, 243])]
    assert min(share) > 0.15  # land and water
    assert "Natural Earth" in opened(map_trajectories(frame)).inner_text("body")


def test_guesses_are_as_large_as_they_are_probable(world: SimpleNamespace, opened: Callable[[Any], Any]) -> None:
    page = opened(map_next_places(world.predictions, world.visits, world.city, user=world.user))
    rings = [shape for shape in drawn(page) if shape[0] == RED]
    assert [width for _, width, _ in rings] == pytest.approx([50, 35, 15], abs=1.5)
    assert f"Next place of user {world.user}" in page.inner_text(".caption")
    assert page.locator(".glyph").all_inner_texts() == ["1", "2", "3"]
    assert "64.0%" in tooltip(page, f"path.leaflet-interactive[stroke='{RED}'] >> nth=0")


def test_layers_are_switched_between(regions: pd.DataFrame, opened: Callable[[Any], Any]) -> None:
    page = opened(map_visit_heat(*heat(), GRID))
    assert {colour for colour, *_ in drawn(page)} == {"#2c115f", "#fcfdbf"}
    page.click("text=generated")
    page.wait_for_function("document.querySelectorAll('path.leaflet-interactive[stroke=\"#fcfdbf\"]').length == 0")
    assert len(drawn(page)) == 2
    page = opened(map_regions(regions, GRID, clusters=2))
    page.click("text=clusters")
    page.wait_for_function("document.querySelectorAll('path.leaflet-interactive[stroke=\"#d55e00\"]').length == 2")
    assert len(drawn(page)) == 4
    for _, width, height in drawn(page):
        assert height / width == pytest.approx(GRID.cell_km[0] / GRID.cell_km[1], rel=0.1)


def test_flows_are_drawn_and_names_are_text_not_code(opened: Callable[[Any], Any]) -> None:
    flows = pd.DataFrame({"origin": [0], "destination": [1], "count": [7]})
    page = opened(map_flows(flows, [48.0, 48.1], [11.0, 11.1]))
    assert len(drawn(page)) == 3
    evil = "</script><b>${alert(1)}`{{7*7}}{% raw %}\\"
    times = pd.date_range("2024-01-01", periods=3, freq="h", tz="UTC")
    frame = pd.DataFrame({"user_id": evil, "time": times, "lat": [48.0, 48.1, 48.2], "lon": 11.0})
    page = opened(map_trajectories(frame))
    assert f"user {evil}: 3 rows" in tooltip(page, "path.leaflet-interactive >> nth=1")


def test_what_is_drawn_is_seen(world: SimpleNamespace, opened: Callable[[Any], Any], tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    opened(map_visit_heat(*heat(), GRID)).screenshot(path=tmp_path / "map.png")
    pixels = np.asarray(image.open(tmp_path / "map.png").convert("RGB")).astype(int)
    dark = np.abs(pixels - [0x5E, 0x4A, 0x84]).sum(axis=2) < 40  # three quarters of #2c115f over #f6f6f6
    assert dark.sum() > 2_000
