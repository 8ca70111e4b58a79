"""The tab "A week": generated users move through a week, hour by hour."""

from __future__ import annotations

from typing import Any

import gradio as gr
import predict
import scene

USERS, SEED = 50, 0
MAP = """<p class="map-title" aria-live="off"></p><div class="map"></div>
<div class="week-bar"><button type="button">▶ Play</button>
<input type="range" min="0" max="167" step="1" value="8" aria-label="Hour of the week"></div>
<div class="map-foot"><span><i class="dot"></i> users, by number</span><span><i class="line"></i> moved within the
hour</span><label><input type="checkbox" class="street"> street map (asks openstreetmap.org)</label></div>"""


def generate(checkpoint: str, number: float, seed: float) -> scene.Scene:
    try:
        return scene.of_weeks(predict.make_weeks(checkpoint, int(number), int(seed)))
    except (ValueError, OSError) as error:
        raise gr.Error(str(error), print_exception=False) from error


def build(checkpoints: list[tuple[str, str]]) -> None:
    """The tab, with a week on it from the start."""
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            made: Any = gr.HTML(
                generate(checkpoints[0][1], USERS, SEED), html_template=MAP,
                js_on_load="weeksMap(element, props, watch);", apply_default_css=False,
                elem_id="week_map", elem_classes="page-map",
            )  # fmt: skip
        with gr.Column(scale=1, min_width=300):
            checkpoint = gr.Dropdown(checkpoints, label="Checkpoint")
            number = gr.Slider(10, 300, value=USERS, step=10, label="Users")
            seed = gr.Number(SEED, precision=0, minimum=0, maximum=2**31 - 1, label="Seed", elem_id="seed")
            start = gr.Button("Generate a week", variant="primary", elem_id="generate")
    start.click(generate, [checkpoint, number, seed], made)
