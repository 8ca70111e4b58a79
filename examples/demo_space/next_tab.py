"""The tab "Where next?": a city, one of its users or the visitor's own clicks, and what the model expects."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
import predict
import scene
import towns
import upload
from predict import YOU
from towns import Town

CHOOSE = "You: click places on the map"
MAP = """<p class="map-title" role="status"></p><div class="map"></div>
<div class="map-foot"><span><i class="dot"></i> visited</span><span><i>✕</i> last visit</span>
<span><i class="ring"></i> predicted next, by rank</span><span><i class="star">★</i> went here</span>
<label><input type="checkbox" class="street"> street map (asks openstreetmap.org)</label></div>"""
ROLES = {
    "user_id": "User",
    "time": "Time",
    "lat": "Latitude",
    "lon": "Longitude",
    "location_id": "Place id (optional)",
    "name": "Place name (optional)",
    "category": "Category (optional)",
}
NONE = "(none)"
Answer = tuple[scene.Scene, "pd.DataFrame | None", "pd.DataFrame | None"]


def answer(checkpoint: str, town: Town, user: Any, hidden: float, clicks: predict.Clicks, hours: float) -> Answer:
    """The marks on the map, the table of next places, and the user's history."""
    if user == YOU and not clicks:
        return {"title": f"{town.city.name}: {len(town.city)} places. Click where you are."}, None, None
    if user == YOU:
        known, after = predict.clicked_visits(town.city, clicks, hours), town.visits.iloc[:0]
        title = "Where next? Click where you went."
    else:
        known, after = predict.split_history(town.visits, user, int(hidden))
        title = f"Next place of user {user} after {len(known)} visits"
    truth = None if after.empty else after.iloc[0]
    guesses = predict.next_places(checkpoint, town.city, known)
    marks = scene.of_prediction(town, known, guesses, truth, title=title)
    place = None if truth is None else str(truth["location_id"])
    return marks, predict.as_table(town, guesses, known, place), predict.history_table(town, known, after)


def open_town(checkpoint: str, town: Town, hidden: float, hours: float) -> tuple[Any, ...]:
    """Everything that changes when another city is opened; its first user is chosen."""
    users = town.users()
    user = users[0] if users else YOU
    marks, guesses, history = answer(checkpoint, town, user, hidden, (), hours)
    chosen = gr.Dropdown(choices=[(CHOOSE, YOU), *((str(name), name) for name in users)], value=user)
    return town, (), chosen, gr.HTML(value=marks, town=scene.of_town(town)), guesses, history


def click(checkpoint: str, town: Town, clicks: predict.Clicks, hours: float, event: gr.EventData) -> tuple[Any, ...]:
    """A click on the map is one more visit of `YOU`."""
    clicks = (*clicks[-99:], int(event.place))
    return clicks, YOU, *answer(checkpoint, town, YOU, 0, clicks, hours)


# --------------------------------------------------------------------------------------------------- the visitor's file


def read_file(path: str | None) -> tuple[Any, ...]:
    """The table, a sentence, and choices of columns; the city on the screen stays."""
    try:
        table = upload.read_table(path) if path else None
    except (ValueError, OSError) as error:
        return None, _sentence(str(error), wrong=True), *(gr.skip() for _ in ROLES), gr.skip()
    if table is None:
        return None, "", *(gr.skip() for _ in ROLES), gr.skip()
    guessed = upload.guess_columns(table)
    lists = [gr.Dropdown(choices=[NONE, *map(str, table.columns)], value=guessed[role] or NONE) for role in ROLES]
    return table, "", *lists, gr.Accordion(open=bool(upload.missing(guessed)))


def open_file(
    path: str | None, table: pd.DataFrame | None, checkpoint: str, hidden: float, hours: float, zone: str, *chosen: str
) -> tuple[Any, ...]:
    """The city of the table, or a sentence beside the file box; then everything else stays."""
    kept = tuple(gr.skip() for _ in range(7))
    if table is None or path is None:
        return gr.skip(), *kept
    columns = {role: None if column == NONE else column for role, column in zip(ROLES, chosen)}
    try:
        visits, names = upload.visits_of_table(table, columns, zone)
        town = towns.town_of(visits, names, timezone=zone, name=Path(path).stem)
        opened = open_town(checkpoint, town, hidden, hours)
    except ValueError as error:
        return _sentence(str(error), wrong=True), *kept
    said = f"{len(visits):,} visits of {visits['user_id'].nunique():,} users at {len(town.city):,} places."
    warning = upload.zone_warning(visits, zone)
    told = _sentence(said, wrong=False) + (_sentence(warning, wrong=True) if warning else "")
    return told, gr.Dropdown(value=None), *opened


def _sentence(text: str, *, wrong: bool) -> str:
    kind, sign = ("wrong", "⚠") if wrong else ("right", "✓")
    return f'<p class="{kind}" role="status">{sign} {html.escape(text)}</p>'


# ----------------------------------------------------------------------------------------------------------- the layout


def build(checkpoints: list[tuple[str, str]]) -> None:
    """The tab, with a prediction on it from the start."""
    start = towns.simulated_town(next(iter(towns.SHAPES)))
    marks, first, history = answer(checkpoints[0][1], start, start.users()[0], 1, (), 4)
    town, clicks, table = gr.State(start), gr.State(()), gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            draw = 'placesMap(element, props, watch, trigger); // sends "click"'
            town_map = gr.HTML(
                marks, html_template=MAP, js_on_load=draw, town=scene.of_town(start),
                elem_id="city_map", elem_classes="page-map", apply_default_css=False,
            )  # fmt: skip
            guesses = gr.Dataframe(first, interactive=False, label="Next places", elem_id="next_places")
        with gr.Column(scale=1, min_width=300):
            users = [(CHOOSE, YOU), *((str(user), user) for user in start.users())]
            name = gr.Dropdown(list(towns.SHAPES), label="A simulated city", elem_id="city")
            user = gr.Dropdown(users, value=start.users()[0], label="User", elem_id="user")
            hidden = gr.Slider(
                0, towns.HIDDEN, value=1, step=1, label="Hide the user's last visits", elem_id="hidden",
                info="The model does not read them. The first of them is what it is asked for.",
            )  # fmt: skip
            checkpoint = gr.Dropdown(checkpoints, label="Checkpoint")
            with gr.Accordion("When you click", open=False):
                hours = gr.Slider(1, 24, value=4, step=1, label="Hours from one click to the next")
                reset = gr.Button("Forget my clicks")
            file, zone, message, columns, more = _file_box()
    past = gr.Dataframe(history, interactive=False, label="History of the user", elem_id="history")
    opened = [town, clicks, user, town_map, guesses, past]
    shown = [town_map, guesses, past]
    asked = [checkpoint, town, user, hidden, clicks, hours]
    name.input(
        lambda name, *rest: open_town(rest[0], towns.simulated_town(name), *rest[1:]),
        [name, checkpoint, hidden, hours],
        opened,
    )
    for changed in (user, hidden, checkpoint):
        changed.input(answer, asked, shown, trigger_mode="always_last")
    hours.input(answer, asked, shown, trigger_mode="always_last")
    town_map.click(click, [checkpoint, town, clicks, hours], [clicks, user, *shown])
    reset.click(lambda *asked: ((), YOU, *answer(*asked[:2], YOU, 0, (), 1)), asked, [clicks, user, *shown])
    read: dict[str, Any] = {
        "fn": open_file,
        "inputs": [file, table, checkpoint, hidden, hours, zone, *columns],
        "outputs": [message, name, *opened],
    }
    file.clear(lambda: "", None, message)
    file.upload(read_file, file, [table, message, *columns, more]).then(**read)
    for changed in (zone, *columns):
        changed.input(**read)


def _file_box() -> tuple[Any, ...]:
    with gr.Group():
        file = gr.File(file_types=[".csv", ".tsv", ".txt"], label="Your own visits (CSV)", elem_id="file", height=140)
        message = gr.HTML("", elem_id="upload_message", padding=True)
        zone = gr.Dropdown(towns.ZONES, value="Europe/Berlin", label="Time zone of your city", elem_id="zone")
        with gr.Accordion("Columns of your file", open=False, elem_id="columns") as more:
            columns = [
                gr.Dropdown([NONE], value=NONE, label=label, elem_id=f"column_{role}") for role, label in ROLES.items()
            ]
    return file, zone, message, columns, more
