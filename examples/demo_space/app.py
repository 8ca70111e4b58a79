"""The demo's page: the next places of a user, and a generated week.

    python examples/demo_space/app.py
    python examples/demo_space/app.py --next-location user/my-city --weeks user/my-weeks     # Hub ids or folders

The page loads no analytics, no share link, and no fonts or scripts from other servers; the street map behind the places
is loaded only where a visitor ticks it. Visitors choose among the given checkpoints; they cannot name others.
"""

from __future__ import annotations

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # gradio reads it while it is imported

import argparse
from pathlib import Path
from typing import Any

try:
    import gradio as gr
except ImportError as error:
    raise SystemExit("the page needs gradio: pip install 'hf_mobility[demo]'") from error
import next_tab
import predict
import scene
import week_tab

HERE = Path(__file__).resolve().parent
FONTS: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}  # none of them fetched
INTRODUCTION = """# hf_mobility
Models of human mobility. Cities and users here are simulated, or your own file."""
ABSENT = """Not on this page: **RAW**, which reads GPS points and predicts positions hours ahead. This page reads visits
(`docs/how-to/predict_trajectories.md`)."""


def build(next_location: list[str], weeks: list[str]) -> gr.Blocks:
    """The page for these checkpoints: folders or Hub ids."""
    # What visitors upload is deleted from the disk after an hour at the latest.
    with gr.Blocks(title="hf_mobility", analytics_enabled=False, delete_cache=(600, 3000)) as page:
        gr.Markdown(INTRODUCTION)
        if next_location:
            with gr.Tab("Where next?"):
                next_tab.build(_labelled(next_location))
        if weeks:
            with gr.Tab("A week"):
                week_tab.build(_labelled(weeks))
        gr.Markdown(ABSENT)
    return page


def launch(page: gr.Blocks, **options: Any) -> Any:
    """On loopback, unless GRADIO_SERVER_NAME says otherwise, as in a Space. Nothing is kept in visitors' browsers."""
    look: dict[str, Any] = {"theme": gr.themes.Default(**FONTS), "head": scene.head(), "footer_links": []}
    return page.launch(share=False, ssr_mode=False, run_history=False, max_file_size="20mb", **look, **options)


def _labelled(checkpoints: list[str]) -> list[tuple[str, str]]:
    return [(Path(name).name if Path(name).is_dir() else name, name) for name in checkpoints]


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
    next_location, weeks = (
        given + predict.find_checkpoints(options.checkpoints, kind)
        for given, kind in ((options.next_location, predict.NEXT_LOCATION), (options.weeks, predict.WEEKS))
    )
    if not next_location and not weeks:
        parser.error(f"{options.checkpoints} holds no checkpoint: give --checkpoints, --next-location or --weeks.")
    launch(build(next_location, weeks))


if __name__ == "__main__":
    main()
