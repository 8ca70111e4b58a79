"""Seconds that a visitor of the demo page waits for each action, in headless Chromium on the machine of the server.

    python -m benchmarks.speed.page --output benchmarks/speed/page.csv

The server runs `examples/demo_space/app.py` with the shipped checkpoints and one thread. An action is timed from the
mouse to the moment at which the page shows its result. The first time counts apart, since it loads or encodes what later
ones find ready; the others are given as medians. Processor seconds of the server and of the browser are counted for each
action, as waiting depends on what else the machine does. The uploaded file is simulated: `--users` users of 14 days.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from playwright.sync_api import Page, sync_playwright

from benchmarks.tables import GrowingTable
from hf_mobility import simulate_city

APP = Path(__file__).resolve().parents[2] / "examples" / "demo_space" / "app.py"
MEASURED = ("wait_s", "server_cpu_s", "browser_cpu_s")
SHOWN = ["action", *(f"{when}_{name}" for when in ("first", "later") for name in MEASURED), "repeats"]
TITLE = "document.querySelector('#city_map .map-title')?.textContent"
WEEK = "document.querySelector('#week_map .map svg')?.innerHTML"


@contextmanager
def served() -> Iterator[tuple[str, psutil.Process]]:
    """Address and process of the page, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(APP)], env=os.environ | own, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(address, timeout=60).close()
                break
            except OSError:
                time.sleep(0.05)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def cpu_seconds(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes if process.is_running()]
    return float(sum(time.user + time.system for time in times))


class Watch:
    """Times actions and keeps one row for each."""

    def __init__(self, server: psutil.Process, table: GrowingTable) -> None:
        self.server, self.table = server, table

    def _now(self) -> list[float]:
        browser = [child for child in psutil.Process().children(recursive=True) if child.pid != self.server.pid]
        return [time.perf_counter(), cpu_seconds([self.server]), cpu_seconds(browser)]

    def time(
        self, action: str, run: Callable[[int], Any], *, repeats: int, prepare: Callable[[], Any] = lambda: None
    ) -> None:
        """`run(turn)` returns when the result is seen; what `prepare` does before it is not counted."""
        turns = []
        for turn in range(repeats):
            prepare()
            before = self._now()
            run(turn)
            turns.append([after - start for after, start in zip(self._now(), before)])
        self.add(action, turns)

    def add(self, action: str, turns: list[list[float]]) -> None:
        row: dict[str, Any] = {"action": action, "repeats": len(turns)}
        row |= {f"first_{name}": value for name, value in zip(MEASURED, turns[0])}
        row |= {
            f"later_{name}": statistics.median(values) for name, values in zip(MEASURED, zip(*(turns[1:] or turns)))
        }
        self.table.add(pd.DataFrame([row]))


def change_of(page: Page, text: str, act: Callable[[], Any]) -> None:
    """Acts, and waits until the text of the page is another."""
    before = page.evaluate(text)
    act()
    page.wait_for_function(f"before => {text} && {text} !== before", arg=before)


def opened(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_function(f"{TITLE}?.startsWith('Next place') && document.querySelector('#city_map path.guess')")


def choose(page: Page, box: str, index: int) -> None:
    page.locator(f"{box} input").first.click()
    page.get_by_role("option").nth(index).click()


def click_map(page: Page, turn: int) -> None:
    """One more click, at another place of the map each time."""
    counts = "document.querySelectorAll('#city_map path.visited').length"
    box = page.locator("#city_map .map").bounding_box()
    assert box is not None
    at = {"x": box["width"] * (0.3 + 0.06 * turn), "y": box["height"] * (0.3 + 0.05 * turn)}
    change_of(page, counts, lambda: page.locator("#city_map .map").click(position=at, force=True))


def clear_file(page: Page) -> None:
    if page.get_by_label("Clear").count():
        page.get_by_label("Clear").first.click()
        page.wait_for_function("!document.querySelector('#upload_message p')")


def upload(page: Page, path: Path, turn: int) -> None:
    """The same file under another name each time."""
    copy = path.with_name(f"town{turn}.csv")
    shutil.copy(path, copy)
    page.locator("#file input[type=file]").set_input_files(copy)
    page.wait_for_function("document.querySelector('#upload_message .right')")
    page.wait_for_function(f"{TITLE}?.startsWith('Next place')")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--output")
    options = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("page: there is no Chromium on this machine")

    table = GrowingTable(SHOWN, options.output)
    start = time.perf_counter()
    with served() as (address, server), sync_playwright() as driver, tempfile.TemporaryDirectory() as folder:
        watch = Watch(server, table)
        watch.add("start the server", [[time.perf_counter() - start, cpu_seconds([server]), 0.0]])
        visits = Path(folder) / "visits.csv"
        simulate_city(options.users, num_days=14, num_locations=300, seed=5).visits.to_csv(visits, index=False)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        page.set_default_timeout(300_000)
        repeats = options.repeats
        watch.time("open the page, prediction on the map", lambda _: opened(page, address), repeats=repeats)
        watch.time(
            "choose a user",
            lambda turn: change_of(page, TITLE, lambda: choose(page, "#user", 2 + turn)),
            repeats=repeats,
        )
        watch.time("click a place", lambda turn: click_map(page, turn), repeats=repeats)
        watch.time(
            "choose a city",
            lambda turn: change_of(page, TITLE, lambda: choose(page, "#city", (turn + 1) % 4)),
            repeats=repeats,
        )
        watch.time(
            "upload visits", lambda turn: upload(page, visits, turn), repeats=repeats, prepare=lambda: clear_file(page)
        )
        page.get_by_role("tab", name="A week").click()
        page.wait_for_function("document.querySelector('#week_map path.users')")

        def generate(turn: int) -> None:
            page.locator("#seed input").fill(str(turn + 1))
            change_of(page, WEEK, lambda: page.locator("#generate").click())

        watch.time("generate a week of 50 users", generate, repeats=repeats)
        browser.close()


if __name__ == "__main__":
    main()
