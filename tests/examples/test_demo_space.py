"""The demo: its functions, its settings, and one visit in a headless browser, to a copy that stands alone as a Space
does. Skipped where gradio, matplotlib, playwright or Chromium is missing.
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
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hf_mobility import DataError

ROOT = Path(__file__).resolve().parents[2]
SPACE = ROOT / "examples" / "demo_space"
ROUND = "Simville, round"

pytest.importorskip("matplotlib", reason="the demo draws maps with matplotlib")


@pytest.fixture(scope="module")
def steps() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SPACE))
        yield importlib.import_module("steps")


@pytest.fixture(scope="module")
def checkpoints(steps: ModuleType) -> dict[str, str]:
    found = {kind: steps.find_checkpoints(ROOT / "checkpoints", kind) for kind in (steps.NEXT_LOCATION, steps.WEEKS)}
    if not all(found.values()):
        pytest.skip("the shipped checkpoints are not here")
    return {kind: names[0] for kind, names in found.items()}


def test_checkpoints_are_found_by_what_they_hold(
    steps: ModuleType, checkpoints: dict[str, str], tmp_path: Path
) -> None:
    assert Path(checkpoints[steps.NEXT_LOCATION]).name == "samoe-small"
    assert Path(checkpoints[steps.WEEKS]).name == "mstar-small"
    adapter = tmp_path / "my-city"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert steps.find_checkpoints(tmp_path, steps.NEXT_LOCATION) == [str(adapter)]
    assert steps.find_checkpoints(tmp_path / "nothing", steps.WEEKS) == []


def test_a_click_means_the_place_that_is_drawn_there(steps: ModuleType) -> None:
    city = steps.simulated_city(ROUND)
    picture, pixels = steps.draw_city(city), steps.place_pixels(city)
    for row in (0, 17, 299):
        right, down = pixels[row].round().astype(int)
        assert (picture[down, right] < 200).all()  # a dot on white
    distance = np.square(pixels[:, None] - pixels[None]).sum(-1) + np.where(np.eye(len(city)), np.inf, 0)
    alone = np.flatnonzero(distance.min(1) > 9)
    assert len(alone) > 150
    assert [steps.clicked_place(city, *pixels[row]) for row in alone] == alone.tolist()


def test_the_map_stays_where_it_is_when_a_prediction_is_drawn(steps: ModuleType, checkpoints: dict[str, str]) -> None:
    city = steps.simulated_city(ROUND)
    visits = steps.visits_of(city, (17, 40), 4)
    after = steps.draw_city(city, visits, steps.next_places(checkpoints[steps.NEXT_LOCATION], city, visits))
    before = steps.draw_city(city)
    assert after.shape == before.shape == (640, 640, 3)
    right, down = steps.place_pixels(city)[40].round().astype(int)
    assert (after[down, right] < 60).all()  # the cross of the last visit
    frame = (before == 0).all(-1) & (after == 0).all(-1)
    assert frame[:, right].sum() >= 2 and frame[down].sum() >= 2  # both borders where they were


def test_predictions_are_those_of_the_pipeline(steps: ModuleType, checkpoints: dict[str, str]) -> None:
    from hf_mobility import NextLocationPipeline

    city = steps.simulated_city(ROUND)
    visits = steps.visits_of(city, (17, 40, 17), 4)
    assert visits["time"].diff().dropna().eq(pd.Timedelta("4h")).all()
    assert visits["time"].dt.tz_convert(city.timezone).iloc[0] == pd.Timestamp("2024-01-01 08:00", tz=city.timezone)
    checkpoint = checkpoints[steps.NEXT_LOCATION]
    guesses = steps.next_places(checkpoint, city, visits)
    expected = NextLocationPipeline.from_pretrained(checkpoint, city=city).predict(visits)
    pd.testing.assert_frame_equal(guesses, expected)
    table = steps.as_table(guesses, visits)
    assert table.columns.tolist() == ["rank", "place", "probability", "km"]
    assert table["probability"].str.fullmatch(r"\d+\.\d%").all()
    assert table.loc[table["place"] == city.location_ids[17], "km"].item() == 0


def test_a_week_moves_from_hour_to_hour(steps: ModuleType, checkpoints: dict[str, str]) -> None:
    weeks = steps.make_weeks(checkpoints[steps.WEEKS], 3, seed=1)
    cells, lat, lon = weeks
    assert cells.shape == (3, 168) and len(lat) == len(lon) > cells.max()
    first = int(np.flatnonzero((np.diff(cells) != 0).any(0))[0]) + 1
    pictures = [steps.draw_hour(weeks, hour) for hour in (0, first, 167)]
    assert all(picture.shape == (640, 640, 3) for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[1])


def test_a_file_of_visits_becomes_a_city_or_the_sentence_of_the_library(steps: ModuleType, tmp_path: Path) -> None:
    path = write_visits(tmp_path / "Ourtown.csv")
    city = steps.read_city(path, "Europe/Paris")
    assert (city.name, city.timezone, len(city)) == ("Ourtown", "Europe/Paris", 6)

    bad = tmp_path / "bad.csv"
    pd.read_csv(path).drop(columns="time").to_csv(bad, index=False)
    with pytest.raises(DataError, match=r"lacks the column\(s\) time"):
        steps.read_city(bad, "Europe/Paris")
    with pytest.raises(DataError, match="Nowhere"):
        steps.read_city(path, "Nowhere/Land")


def test_a_large_upload_is_refused_before_anything_is_computed(
    steps: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_visits(tmp_path / "Ourtown.csv")
    monkeypatch.setattr(steps, "MAX_PLACES", 5)
    with pytest.raises(DataError, match="The file has 6 places, the page shows at most 5; upload a part of it"):
        steps.read_city(path, "Europe/Paris")
    monkeypatch.setattr(steps, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="larger than 0 MB"):
        steps.read_city(path, "Europe/Paris")


def test_the_space_asks_for_what_the_package_asks_for() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = set(setup["options"]["install_requires"].split("\n")[1:])
    demo = setup["options.extras_require"]["demo"].split("\n")
    wanted |= {line for line in demo if line.startswith("matplotlib")}
    lines = (SPACE / "requirements.txt").read_text().splitlines()
    assert {line for line in lines if not line.startswith("#")} == wanted
    card = (SPACE / "README.md").read_text()
    front = dict(line.split(": ", 1) for line in card.split("---")[1].strip().splitlines())
    assert (front["sdk"], front["app_file"]) == ("gradio", "app.py")
    assert f"gradio=={front['sdk_version']}" in (ROOT / "constraints.txt").read_text().splitlines()


@pytest.mark.slow
def test_a_visitor_clicks_gets_predictions_uploads_a_city_and_generates_a_week(
    steps: ModuleType, checkpoints: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("gradio", reason="the page needs gradio")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here: the page is not tried in a browser")
    asked: list[str] = []
    with served_space(tmp_path) as address, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(90_000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        picture = page.locator("#city_map img")
        picture.wait_for()
        table = page.locator("#next_places")
        assert "simville" not in table.inner_text()

        city = steps.simulated_city(ROUND)
        far = int(np.argmax(city.lat))  # nothing else is near it
        click_pixel(picture, steps.place_pixels(city)[far])
        shown = "name => document.querySelector('#next_places').innerText.includes(name)"
        page.wait_for_function(shown, arg=city.location_ids[far])
        other = int(np.argmin(city.lat))
        click_pixel(picture, steps.place_pixels(city)[other])
        page.wait_for_function(shown, arg=city.location_ids[other])
        assert re.search(r"\d+\.\d%", table.inner_text())

        bad = tmp_path / "bad.csv"
        bad.write_text("user_id,<b>when</b>\n1,2\n")
        page.locator("input[type=file]").first.set_input_files(bad)
        page.get_by_text(
            "it has user_id, <b>when</b>"
        ).first.wait_for()  # the library's sentence, and no HTML of the file
        assert "Traceback" not in page.content()

        page.get_by_role("tab", name="A week").click()
        page.get_by_label("number input for People").fill("10")
        page.locator("#generate").click()
        week = page.locator("#week_map img")
        week.wait_for()
        first = week.get_attribute("src")
        page.get_by_label("Play").check()
        page.wait_for_function("first => document.querySelector('#week_map img').src != first", arg=first)
        browser.close()
    outside = [url for url in asked if not url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))]
    assert outside == []


# -------------------------------------------------------------------------------------------------------------- helpers


def write_visits(path: Path) -> Path:
    rng = np.random.default_rng(0)
    place = np.arange(30) % 6
    frame = pd.DataFrame({"user_id": np.arange(30) // 10, "location_id": [f"p{i}" for i in place]})
    frame["time"] = [f"2024-03-04T{hour:02d}:00:00" for hour in rng.integers(0, 24, 30)]
    frame.assign(lat=48.8 + place / 100, lon=2.3 + place / 100).to_csv(path, index=False)
    return path


def click_pixel(picture: Any, pixel: np.ndarray) -> None:
    """Click a pixel of the original picture, which is shown in another size. After each click a new one is loaded."""
    picture.page.wait_for_function("() => document.querySelector('#city_map img')?.naturalWidth > 0")
    box, size = picture.bounding_box(), picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    scale = min(box["width"] / size[0], box["height"] / size[1])
    left, top = (box["width"] - scale * size[0]) / 2, (box["height"] - scale * size[1]) / 2
    picture.click(position={"x": left + scale * float(pixel[0]), "y": top + scale * float(pixel[1])})


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
