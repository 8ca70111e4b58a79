"""The demo's page: the next place after clicked places, and a generated week. `steps.py` does the work.

    python examples/demo_space/app.py
    python examples/demo_space/app.py --next-location user/my-city --weeks user/my-weeks     # Hub ids or folders

The page loads no analytics, no share link, and no fonts or scripts from other servers. Visitors choose among the given
checkpoints; they cannot name others.
"""

from __future__ import annotations

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # gradio reads it while it is imported

import argparse
import html
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import gradio as gr
except ImportError as error:
    raise SystemExit("the page needs gradio: pip install 'hf_mobility[demo]'") from error
import pandas as pd
import steps

from hf_mobility import City

HERE = Path(__file__).resolve().parent
FONTS: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}  # none of them fetched
Weeks = Any  # what steps.make_weeks returns


@contextmanager
def sentences() -> Iterator[None]:
    """Faults of a file or a checkpoint become a message on the page; everything else is a bug and stays one."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from error


def choose_city(name: str) -> tuple[City, steps.Clicks, Any, None]:
    city = steps.simulated_city(name)
    return city, (), steps.draw_city(city), None


def upload_city(path: str | None, timezone: str) -> tuple[City, steps.Clicks, Any, None]:
    if path is None:
        raise gr.Error("Choose a CSV file first.", print_exception=False)
    with sentences():
        city = steps.read_city(path, timezone.strip())
    return city, (), steps.draw_city(city), None


def click(
    checkpoint: str, city: City, clicks: steps.Clicks, hours: float, event: gr.SelectData
) -> tuple[steps.Clicks, Any, pd.DataFrame]:
    clicks = (*clicks, steps.clicked_place(city, *event.index))
    with sentences():
        visits = steps.visits_of(city, clicks, hours)
        guesses = steps.next_places(checkpoint, city, visits)
    return clicks, steps.draw_city(city, visits, guesses), steps.as_table(guesses, visits)


def forget(city: City) -> tuple[steps.Clicks, Any, None]:
    return (), steps.draw_city(city), None


def generate(checkpoint: str, n: int, seed: int) -> tuple[Weeks, int, Any]:
    with sentences():
        weeks = steps.make_weeks(checkpoint, int(n), int(seed))
    return weeks, 0, steps.draw_hour(weeks, 0)


def show_hour(weeks: Weeks, hour: int) -> Any:
    return None if weeks is None else steps.draw_hour(weeks, int(hour))


# ----------------------------------------------------------------------------------------------------------- the layout


def build(next_location: list[str], weeks: list[str]) -> gr.Blocks:
    """The page for these checkpoints: folders or Hub ids."""
    # What visitors upload is deleted from the disk after an hour at the latest.
    with gr.Blocks(title="hf_mobility", analytics_enabled=False, delete_cache=(600, 3000)) as page:
        gr.Markdown("# hf_mobility\nModels of human mobility. Cities and people here are made up, or your own file.")
        if next_location:
            with gr.Tab("Where next?"):
                _next_place_tab(page, next_location)
        if weeks:
            with gr.Tab("A week"):
                _week_tab(weeks)
    return page


def _next_place_tab(page: gr.Blocks, checkpoints: list[str]) -> None:
    city, clicks = gr.State(None), gr.State(())
    with gr.Row():
        with gr.Column(scale=1):
            checkpoint = _checkpoints(checkpoints)
            name = gr.Dropdown(list(steps.SHAPES), label="A simulated city", elem_id="city")
            file = gr.File(file_types=[".csv"], label="or your own: user_id, time, location_id, lat, lon, category")
            zone = gr.Textbox("Europe/Berlin", label="Time zone of your city", max_lines=1)
            hours = gr.Slider(1, 24, value=4, step=1, label="Hours from one click to the next")
            reset = gr.Button("Forget my clicks")
        with gr.Column(scale=2):
            picture = gr.Image(interactive=False, format="png", buttons=[], show_label=False, elem_id="city_map")
            table = gr.Dataframe(interactive=False, label="The next place", elem_id="next_places")
    opened = [city, clicks, picture, table]
    page.load(choose_city, name, opened)
    name.change(choose_city, name, opened)
    file.upload(upload_city, [file, zone], opened)
    picture.select(click, [checkpoint, city, clicks, hours], [clicks, picture, table])
    reset.click(forget, city, [clicks, picture, table])


def _week_tab(checkpoints: list[str]) -> None:
    made, timer = gr.State(None), gr.Timer(0.7, active=False)
    with gr.Row():
        with gr.Column(scale=1):
            checkpoint = _checkpoints(checkpoints)
            number = gr.Slider(10, 300, value=50, step=10, label="People")
            seed = gr.Number(0, precision=0, minimum=0, maximum=2**31 - 1, label="Seed")
            start = gr.Button("Generate a week", variant="primary", elem_id="generate")
            play = gr.Checkbox(label="Play", elem_id="play")
        with gr.Column(scale=2):
            picture = gr.Image(interactive=False, format="png", buttons=[], show_label=False, elem_id="week_map")
            hour = gr.Slider(0, 167, value=0, step=1, label="Hour of the week", elem_id="hour")
    start.click(generate, [checkpoint, number, seed], [made, hour, picture])
    hour.change(show_hour, [made, hour], picture, show_progress="hidden")
    play.change(lambda on: gr.Timer(active=on), play, timer)
    timer.tick(lambda now: (int(now) + 1) % 168, hour, hour, show_progress="hidden")


def _checkpoints(names: list[str]) -> gr.Dropdown:
    labels = [(Path(name).name if Path(name).is_dir() else name, name) for name in names]
    return gr.Dropdown(labels, value=names[0], label="Checkpoint")


def main() -> None:
    beside = HERE / "checkpoints"  # in a Space; in the repository they are at its top
    default = os.environ.get(
        "HF_MOBILITY_CHECKPOINTS", str(beside if beside.is_dir() else HERE.parent.parent / "checkpoints")
    )
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, default=Path(default), help="folder of checkpoint folders")
    for name in ("next-location", "weeks"):
        given = os.environ.get(f"HF_MOBILITY_{name.replace('-', '_').upper()}", "").split()
        parser.add_argument(f"--{name}", nargs="*", default=given, help="further checkpoints: Hub ids or folders")
    options = parser.parse_args()
    found = {kind: steps.find_checkpoints(options.checkpoints, kind) for kind in (steps.NEXT_LOCATION, steps.WEEKS)}
    next_location, weeks = options.next_location + found[steps.NEXT_LOCATION], options.weeks + found[steps.WEEKS]
    if not next_location and not weeks:
        parser.error(f"{options.checkpoints} holds no checkpoint: give --checkpoints, --next-location or --weeks.")
    # On loopback, unless GRADIO_SERVER_NAME says otherwise, as in a Space. Nothing is kept in visitors' browsers.
    page, theme = build(next_location, weeks), gr.themes.Default(**FONTS)
    page.launch(theme=theme, share=False, ssr_mode=False, run_history=False, footer_links=[], max_file_size="20mb")


if __name__ == "__main__":
    main()
