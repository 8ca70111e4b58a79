"""The demo: its functions, its settings, and visits in a headless browser, to a copy that stands alone as a Space does.
Skipped where gradio, xstatic-leaflet, playwright or Chromium is missing.
"""

from __future__ import annotations

import configparser
import importlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hf_mobility import City, DataError, NextLocationPipeline

ROOT = Path(__file__).resolve().parents[2]
SPACE = ROOT / "examples" / "demo_space"
ROUND = "Simville, round"

pytest.importorskip("xstatic.pkg.leaflet", reason="the demo draws maps with xstatic-leaflet")


@pytest.fixture(scope="module")
def demo() -> Iterator[SimpleNamespace]:
    """The modules of the demo that need no gradio."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SPACE))
        yield SimpleNamespace(
            **{name: importlib.import_module(name) for name in ("predict", "scene", "towns", "upload")}
        )


@pytest.fixture(scope="module")
def checkpoints(demo: SimpleNamespace) -> dict[str, str]:
    kinds = (demo.predict.NEXT_LOCATION, demo.predict.WEEKS)
    found = {kind: demo.predict.find_checkpoints(ROOT / "checkpoints", kind) for kind in kinds}
    if not all(found.values()):
        pytest.skip("the shipped checkpoints are not here")
    return {kind: names[0] for kind, names in found.items()}


def visits_frame() -> pd.DataFrame:
    """Three users of ten visits each at six places of Paris, with names and categories."""
    rng = np.random.default_rng(0)
    place = np.arange(30) % 6
    frame = pd.DataFrame({"user_id": np.arange(30) // 10, "location_id": [f"p{i}" for i in place]})
    frame["time"] = [f"2024-03-{4 + row % 10:02d}T{hour:02d}:00:00" for row, hour in enumerate(rng.integers(0, 24, 30))]
    frame = frame.assign(lat=48.8 + place / 100, lon=2.3 + place / 100)
    return frame.assign(name=[f"Café {i}" for i in place], category="Café")


# Checkpoints, predictions, weeks


def test_checkpoints_are_found_by_what_they_hold(
    demo: SimpleNamespace, checkpoints: dict[str, str], tmp_path: Path
) -> None:
    assert Path(checkpoints[demo.predict.NEXT_LOCATION]).name == "samoe-small"
    weeks = demo.predict.find_checkpoints(ROOT / "checkpoints", demo.predict.WEEKS)
    assert [Path(name).name for name in weeks] == ["mstar-cells-small", "mstar-small"]
    adapter = tmp_path / "my-city"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert demo.predict.find_checkpoints(tmp_path, demo.predict.NEXT_LOCATION) == [str(adapter)]
    (adapter / "tokenizer_config.json").write_text('{"tokenizer_class": "RawTokenizer"}')
    assert demo.predict.find_checkpoints(tmp_path, demo.predict.NEXT_LOCATION) == []
    assert demo.predict.find_checkpoints(tmp_path / "nothing", demo.predict.WEEKS) == []


def test_predictions_are_those_of_the_pipeline(demo: SimpleNamespace, checkpoints: dict[str, str]) -> None:
    town = demo.towns.simulated_town(ROUND)
    city = town.city
    visits = demo.predict.clicked_visits(city, (17, 40, 17), 4)
    assert visits["time"].diff().dropna().eq(pd.Timedelta("4h")).all()
    assert visits["time"].dt.tz_convert(city.timezone).iloc[0] == pd.Timestamp("2024-01-01 08:00", tz=city.timezone)
    checkpoint = checkpoints[demo.predict.NEXT_LOCATION]
    guesses = demo.predict.next_places(checkpoint, city, visits)
    expected = NextLocationPipeline.from_pretrained(checkpoint, city=city).predict(visits)
    pd.testing.assert_frame_equal(guesses, expected)
    table = demo.predict.as_table(town, guesses, visits, city.location_ids[40])
    assert table.columns.tolist() == ["rank", "probability", "place", "what", "km", "truth"]
    assert table["probability"].str.fullmatch(r"\d+\.\d%").all()
    assert table.loc[table["place"] == city.location_ids[17], "km"].item() == 0
    assert table["what"].tolist() == [town.names[place] for place in table["place"]]
    assert (table["truth"] == "★ went here").tolist() == (table["place"] == city.location_ids[40]).tolist()


def test_what_is_hidden_of_a_user_is_what_came_last(demo: SimpleNamespace) -> None:
    town = demo.towns.simulated_town(ROUND)
    user = town.users()[0]
    own = town.visits[town.visits["user_id"] == user].reset_index(drop=True)
    for hidden in (0, 1, 10, 10_000):
        known, after = demo.predict.split_history(town.visits, user, hidden)
        assert len(known) == max(len(own) - hidden, 1)
        pd.testing.assert_frame_equal(pd.concat([known, after], ignore_index=True), own)
    known, after = demo.predict.split_history(town.visits, user, 2)
    table = demo.predict.history_table(town, known, after)
    assert table[""].tolist() == ["read"] * 10 + ["★ next"] * 2
    assert table["place"].tolist() == own["location_id"].tolist()[-12:]
    assert table["what"].tolist() == [town.names[place] for place in own["location_id"].tolist()[-12:]]


def test_popularity_knows_nothing_of_what_can_be_hidden(demo: SimpleNamespace) -> None:
    town = demo.towns.simulated_town(ROUND)
    early = town.visits.groupby("user_id", group_keys=False).apply(lambda own: own.iloc[: -demo.towns.HIDDEN])
    expected = City.from_visits(town.visits, timezone=town.city.timezone, popularity_from=town.visits.loc[early.index])
    np.testing.assert_array_equal(town.city.popularity, expected.popularity)
    assert not np.array_equal(town.city.popularity, town.city.with_popularity(town.visits).popularity)


def test_scenes_name_what_they_show(demo: SimpleNamespace, checkpoints: dict[str, str]) -> None:
    town = demo.towns.simulated_town(ROUND)
    known, after = demo.predict.split_history(town.visits, town.users()[0], 1)
    guesses = demo.predict.next_places(checkpoints[demo.predict.NEXT_LOCATION], town.city, known)
    marks = demo.scene.of_prediction(town, known, guesses, after.iloc[0], title="T")
    assert sum(count for *_, count, _ in marks["visited"]) == len(known)
    assert [row[:2] for row in marks["guesses"]] == guesses[["lat", "lon"]].to_numpy().tolist()
    first = guesses["location_id"][0]
    assert marks["guesses"][0][4].startswith(f"1. {first} ({town.names[first]}): ")
    assert marks["truth"][:2] == after[["lat", "lon"]].iloc[0].tolist()
    shown = demo.scene.of_town(town)
    assert len(shown["places"]) == len(town.city) and shown["land"] == []  # a simulated city lies on no coast


def test_a_week_is_shown_by_the_cells_that_are_used(demo: SimpleNamespace, checkpoints: dict[str, str]) -> None:
    weeks = demo.predict.make_weeks(checkpoints[demo.predict.WEEKS], 3, 1)
    cells, lat, lon = weeks
    shown = demo.scene.of_weeks(weeks)
    rows = np.array(shown["cells"])
    assert cells.shape == rows.shape == (3, 168)
    np.testing.assert_allclose(np.array(shown["lat"])[rows], lat[cells], atol=1e-6)
    np.testing.assert_allclose(np.array(shown["lon"])[rows], lon[cells], atol=1e-6)


# Uploads


@pytest.mark.parametrize(
    ("names", "separator"),
    [
        (("user_id", "time", "location_id", "lat", "lon", "name", "category"), ","),
        (("uid", "timestamp", "venueId", "Latitude", "Longitude", "venue_name", "venueCategory"), "\t"),
        (("User", "UTC Time", "Place ID", "y", "x", "Title", "type"), "|"),
        (("agent", "start", "poi", "latitude", "lng", "label", "kind"), ";"),
    ],
)
def test_usual_columns_and_separators_are_recognized(
    demo: SimpleNamespace, tmp_path: Path, names: tuple[str, ...], separator: str
) -> None:
    frame = visits_frame()
    roles = ["user_id", "time", "location_id", "lat", "lon", "name", "category"]
    path, other = tmp_path / "plain.csv", tmp_path / "other.csv"
    frame.to_csv(path, index=False)
    frame[roles].set_axis(list(names), axis=1).to_csv(other, index=False, sep=separator, encoding="utf-8-sig")
    told = demo.upload.read_table(other)
    columns = demo.upload.guess_columns(told)
    assert columns == dict(zip(roles, names)) and demo.upload.missing(columns) == []
    visits, called = demo.upload.visits_of_table(told, columns, "Europe/Paris")
    plain = demo.upload.read_table(path)
    expected, _ = demo.upload.visits_of_table(plain, demo.upload.guess_columns(plain), "Europe/Paris")
    pd.testing.assert_frame_equal(visits, expected)
    assert called == {f"p{i}": f"Café {i}, Café" for i in range(6)}


def test_decimal_commas_and_seconds_are_numbers(demo: SimpleNamespace, tmp_path: Path) -> None:
    frame = visits_frame()
    path = tmp_path / "german.csv"
    frame["time"] = pd.to_datetime(frame["time"]).astype("datetime64[s]").astype("int64")
    frame.to_csv(path, index=False, sep=";", decimal=",")
    table = demo.upload.read_table(path)
    visits, _ = demo.upload.visits_of_table(table, demo.upload.guess_columns(table), "Europe/Paris")
    assert sorted(visits["lat"].unique().round(6)) == [48.80, 48.81, 48.82, 48.83, 48.84, 48.85]
    assert visits["time"].min() == pd.to_datetime(frame["time"], unit="s", utc=True).min()


def test_rounded_coordinates_name_places_where_no_column_does(demo: SimpleNamespace) -> None:
    table = pd.DataFrame({"uid": "a", "lat": ["48.10004", "48.09996", "48.2", "48.1"], "lon": "11"})
    table["time"] = [f"2024-01-01 0{hour}:00" for hour in range(4)]
    visits, names = demo.upload.visits_of_table(table, demo.upload.guess_columns(table), "Europe/Berlin")
    assert visits["location_id"].tolist() == ["48.100, 11.000", "48.200, 11.000", "48.100, 11.000"]
    assert names == {}


def test_faults_of_a_file_are_one_sentence(demo: SimpleNamespace, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "file.csv"

    def opened(text: str, zone: str = "Europe/Paris") -> None:
        path.write_text(text, encoding="utf-8")
        table = demo.upload.read_table(path)
        demo.upload.visits_of_table(table, demo.upload.guess_columns(table), zone)

    for text, sentence in {
        "user_id\n1\n": "holds one column only",
        "1,2024-01-01,48.1,11.2\n2,2024-01-01,48.1,11.2\n": "must hold the names of the columns",
        "user_id,when\n1,2\n": "No column is chosen for time, lat, lon: choose one of user_id, when",
        "user_id,time,lat,lon\n1,2\n1,2,3,4,5,6\n": "The file is no table",
        "user_id,time,lat,lon\n1,2024-01-01,north,2\n": "'lat'",
        "": "The file is empty",
    }.items():
        with pytest.raises(DataError, match=re.escape(sentence)):
            opened(text)
    good = visits_frame().to_csv(index=False)
    opened(good)
    with pytest.raises(DataError, match="Nowhere"):
        opened(good, "Nowhere/Land")
    monkeypatch.setattr(demo.upload, "MAX_PLACES", 5)
    with pytest.raises(DataError, match="has 6 places, the page shows at most 5; upload a part of it"):
        opened(good)
    monkeypatch.setattr(demo.upload, "MAX_ROWS", 29)
    with pytest.raises(DataError, match="has 30 rows, the page reads at most 29; upload a part of it"):
        opened(good)
    monkeypatch.setattr(demo.upload, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="larger than 0 MB"):
        opened(good)


def test_a_time_zone_of_another_continent_is_noticed(demo: SimpleNamespace) -> None:
    visits = demo.upload.visits_of_table(
        visits_frame().astype(str),
        dict.fromkeys(demo.upload.ALIASES) | {n: n for n in demo.upload.NEEDED},
        "Asia/Tokyo",
    )[0]
    assert demo.upload.zone_warning(visits, "Europe/Paris") == ""
    assert demo.upload.zone_warning(visits, "Asia/Tokyo").endswith("Asia/Tokyo is about 9 hours from their sun.")


# The Space


def test_the_space_asks_for_what_the_package_asks_for() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = set(setup["options"]["install_requires"].split("\n")[1:])
    wanted |= {
        line for line in setup["options.extras_require"]["demo"].split("\n")[1:] if not line.startswith("gradio")
    }
    lines = (SPACE / "requirements.txt").read_text().splitlines()
    assert {line for line in lines if not line.startswith("#")} == wanted
    card = (SPACE / "README.md").read_text()
    front = dict(line.split(": ", 1) for line in card.split("---")[1].strip().splitlines())
    assert (front["sdk"], front["app_file"]) == ("gradio", "app.py")
    assert f"gradio=={front['sdk_version']}" in (ROOT / "constraints.txt").read_text().splitlines()


# What a browser draws

TITLE = "document.querySelector('#city_map .map-title')?.textContent"
Visit = Callable[..., Any]


@pytest.fixture(scope="module")
def address(checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("gradio", reason="the page needs gradio")
    with served_space(tmp_path_factory.mktemp("demo")) as where:
        yield where


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here: the page is not tried in a browser")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(address: str, browser: Any) -> Iterator[Visit]:
    """Opens the page in a window of its own; no script may fail, and no other server may be asked."""
    asked: list[str] = []
    faults: list[str] = []
    contexts: list[Any] = []

    def opened(width: int = 1280, height: int = 900, **options: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(90_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#city_map path.guess")
        return page

    yield opened
    for context in contexts:
        context.close()
    outside = [url for url in asked if not url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))]
    assert (outside, faults) == ([], [])


@pytest.mark.slow
def test_a_prediction_is_on_the_screen_from_the_start(visit: Visit, demo: SimpleNamespace) -> None:
    page = visit()
    town = demo.towns.simulated_town(ROUND)
    user = town.users()[0]
    known, after = demo.predict.split_history(town.visits, user, 1)
    assert page.evaluate(TITLE) == f"Next place of user {user} after {len(known)} visits"
    assert page.locator("#city_map path.guess").count() == page.locator("#city_map .rank").count() == 5
    assert page.locator("#city_map path.visited").count() == known["location_id"].nunique()
    assert page.locator("#city_map .went").count() == page.locator("#city_map .here").count() == 1
    assert after["location_id"].iloc[0] in page.locator("#history").inner_text()
    assert page.locator("#city_map .leaflet-control-scale-line").inner_text().endswith("m")
    ranks = [page.locator("#city_map .rank").nth(k).bounding_box() for k in range(5)]
    assert not any(overlap(a, b) for k, a in enumerate(ranks) for b in ranks[k + 1 :])
    seen = page.locator("#city_map .map").bounding_box()
    assert seen["y"] + seen["height"] < 900  # without scrolling


@pytest.mark.slow
def test_a_visitor_clicks_zooms_and_chooses_a_user(visit: Visit, demo: SimpleNamespace) -> None:
    page = visit()
    city = demo.towns.simulated_town(ROUND).city
    for turn, row in enumerate((int(np.argmax(city.lat)), int(np.argmin(city.lat)))):  # nothing else is near them
        click_place(page, city, row)
        page.wait_for_function("n => document.querySelectorAll('#city_map path.visited').length === n", arg=turn + 1)
        page.wait_for_function(
            "name => document.querySelector('#history').innerText.includes(name)", arg=city.location_ids[row]
        )
        assert page.evaluate(TITLE) == "Where next? Click where you went."
    zoom = "document.querySelector('#city_map [id^=html]').leaflet.getZoom()"
    before = page.evaluate(zoom)
    page.locator("#city_map .leaflet-control-zoom-in").click()
    page.wait_for_function(f"before => {zoom} > before", arg=before)
    page.locator("#user input").first.click()
    page.get_by_role("option").nth(2).click()
    second = demo.towns.simulated_town(ROUND).users()[1]
    page.wait_for_function(f"user => {TITLE}.startsWith(`Next place of user ${{user}} after`)", arg=second)
    assert page.evaluate(zoom) > before  # a new prediction leaves the view as it is


@pytest.mark.slow
def test_a_bad_file_is_a_sentence_beside_the_box_and_a_good_one_is_opened(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    title, table = page.evaluate(TITLE), page.locator("#next_places").inner_text()
    bad = tmp_path / "bad.csv"
    bad.write_text("user_id,<b>when</b>,ort\n1,2,3\n")
    page.locator("#file input[type=file]").set_input_files(bad)
    message = page.locator("#upload_message .wrong")
    message.wait_for()
    assert "choose one of user_id, <b>when</b>, ort" in message.inner_text()  # a sentence, and no HTML of the file
    file, said = page.locator("#file").bounding_box(), message.bounding_box()
    assert 0 <= said["y"] - (file["y"] + file["height"]) < 40  # right below the box
    assert (page.evaluate(TITLE), page.locator("#next_places").inner_text()) == (title, table)

    good = tmp_path / "paris.csv"
    visits_frame().rename(columns={"time": "wann", "user_id": "uid"}).to_csv(good, index=False, sep=";")
    page.get_by_label("Clear").first.click()
    page.locator("#file input[type=file]").set_input_files(good)
    page.get_by_text("No column is chosen for time").wait_for()
    page.locator("#column_time input").first.click()
    page.get_by_role("option", name="wann").click()
    page.locator("#upload_message .right").wait_for()
    from playwright.sync_api import expect

    expect(page.locator("#upload_message")).to_have_text("✓ 30 visits of 3 users at 6 places.")
    page.wait_for_function(f"{TITLE} === 'Next place of user 0 after 9 visits'")
    assert "Café 3" in page.locator("#history").inner_text()
    page.locator("#user input").first.click()
    page.get_by_role("option", name="2", exact=True).click()
    page.wait_for_function(f"{TITLE} === 'Next place of user 2 after 9 visits'")
    assert "Traceback" not in page.content()


@pytest.mark.slow
def test_a_phone_shows_the_map_first_and_nothing_is_wider_than_it(visit: Visit, tmp_path: Path) -> None:
    page = visit(390, 844, is_mobile=True, has_touch=True)
    seen, table = page.locator("#city_map .map").bounding_box(), page.locator("#next_places").bounding_box()
    box = page.locator("#city").bounding_box()
    assert seen["y"] < table["y"] < box["y"]
    assert seen["y"] + seen["height"] < 844 and seen["width"] > 280
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.slow
def test_dark_maps_are_dark_and_marks_are_seen(visit: Visit, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    page = visit(color_scheme="dark")
    page.locator("#city_map .map").screenshot(path=tmp_path / "map.png")
    pixels = np.asarray(image.open(tmp_path / "map.png").convert("RGB")).astype(int)
    assert np.median(pixels.reshape(-1, 3), axis=0).max() < 60
    ring = np.abs(pixels - [0xD5, 0x5E, 0x00]).sum(axis=2) < 30
    assert ring.sum() > 300  # five rings of three pixels


@pytest.mark.slow
def test_a_week_plays_from_monday_eight_and_stands_still_for_who_asks(visit: Visit) -> None:
    hour = "Number(document.querySelector('#week_map input[type=range]').value)"
    page = visit(reduced_motion="reduce")
    page.get_by_role("tab", name="A week").click()
    page.wait_for_selector("#week_map path.users")
    assert page.evaluate(hour) == 8
    assert page.locator("#week_map .map-title").inner_text().startswith("Monday 08:00: ")
    page = visit()
    page.get_by_role("tab", name="A week").click()
    page.wait_for_function(f"{hour} > 9")
    assert page.locator("#week_map .map-title").inner_text().startswith("Monday ")
    page.get_by_role("button", name="Pause").click()
    page.get_by_label("number input for Users").fill("10")
    page.locator("#generate").click()
    page.wait_for_function("document.querySelector('#week_map .map-title').textContent.includes(' of 10 users')")


# -------------------------------------------------------------------------------------------------------------- helpers


def overlap(a: dict[str, float], b: dict[str, float]) -> bool:
    """Whether two labels of one or two letters meet: their boxes are wider than their letters."""
    return abs(a["x"] - b["x"]) < 10 and abs(a["y"] - b["y"]) < 12


def click_place(page: Any, city: City, row: int) -> None:
    """Click a place where the map shows it."""
    where = "place => document.querySelector('#city_map [id^=html]').leaflet.latLngToContainerPoint(place)"
    spot = page.evaluate(where, [float(city.lat[row]), float(city.lon[row])])
    page.locator("#city_map .map").click(position={"x": spot["x"], "y": spot["y"]}, force=True)


class served_space:
    """The address of the app, run from a folder that holds what a Space holds, without HOME, PYTHONPATH or checkout."""

    def __init__(self, folder: Path) -> None:
        self.space, self.log = folder / "space", folder / "log.txt"
        shutil.copytree(SPACE, self.space, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("hf_mobility", "modeling", "tokenization", "checkpoints"):
            shutil.copytree(ROOT / name, self.space / name, ignore=shutil.ignore_patterns("__pycache__"))

    def __enter__(self) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        outer = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "GRADIO", "PYTHON"))}
        own = {"HOME": str(self.space), "GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(self.space / "uploads")}
        own |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        with self.log.open("w") as log:
            command = [sys.executable, "app.py"]
            self.process = subprocess.Popen(command, cwd=self.space, env=outer | own, stdout=log, stderr=log)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(address, timeout=5).close()
            except OSError:
                time.sleep(0.2)
            else:
                return address
        self.__exit__()
        raise AssertionError(f"the app did not start:\n{self.log.read_text()[-3000:]}")

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(30)
