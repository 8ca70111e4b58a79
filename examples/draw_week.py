"""Draw a moving picture of generated weeks: where users of the simulated city are, hour by hour.

    python examples/draw_week.py                         # into docs/img/week.gif, as the README shows it
    python examples/draw_week.py week.gif 60             # another file, 60 weeks

Colour and form say whether a user is at home, at work or elsewhere. Dots are spread inside their cell of 1 km.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from hf_mobility import TrajectoryGenerationPipeline
from hf_mobility.tokenization.weeks import home_and_work

CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "mstar-cells-small"
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
CELLS = "#f2f2f2"
KINDS = {
    "home": ("#0072b2", "o"),
    "work": ("#e69f00", "s"),
    "elsewhere": ("#cc3377", "^"),
}


def main(output: str = "docs/img/week.gif", weeks: str = "120", hours: str = "168") -> None:
    pipe = TrajectoryGenerationPipeline.from_pretrained(CHECKPOINT)
    cells = pipe.generate(int(weeks), seed=0, to="weeks")  # (N, 168) from Monday, 0 h
    home, work = home_and_work(cells)
    spread = np.random.default_rng(0).uniform(-0.4, 0.4, (2, len(cells)))  # km, inside a cell
    lat, lon = pipe.tokenizer.lat, pipe.tokenizer.lon
    east = (lon - lon.mean()) * 111.2 * np.cos(np.radians(lat.mean()))  # km from the middle
    north = (lat - lat.mean()) * 111.2

    matplotlib.use("agg")
    figure, ax = plt.subplots(figsize=(3.6, 3.9), dpi=100, layout="constrained")
    ax.scatter(east, north, marker="s", s=70, color=CELLS, linewidths=0)  # the cells of the city
    dots = {
        name: ax.plot([], [], form, color=colour, markersize=4, markeredgewidth=0, label=name)[0]
        for name, (colour, form) in KINDS.items()
    }
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    ax.set(aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.plot([east.min(), east.min() + 5], [north.min() - 1.2] * 2, color="black", linewidth=2)
    ax.text(east.min() + 2.5, north.min() - 0.9, "5 km", ha="center", va="bottom", fontsize=8)
    title = ax.set_title("")

    def picture(hour: int) -> Image.Image:
        here = cells[:, hour]
        at = {"home": here == home, "work": (here == work) & (here != home)}
        at["elsewhere"] = ~(at["home"] | at["work"])
        for name, rows in at.items():
            dots[name].set_data(east[here[rows]] + spread[0, rows], north[here[rows]] + spread[1, rows])
        title.set_text(f"{DAYS[hour // 24]}, {hour % 24:02} h")
        figure.canvas.draw()
        return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")

    # The first picture, also where nothing moves, is a Monday morning.
    colours = palette()
    pictures = [
        picture((8 + step) % cells.shape[1]).quantize(palette=colours, dither=Image.Dither.NONE)
        for step in range(int(hours))
    ]
    pictures[0].save(output, save_all=True, append_images=pictures[1:], duration=200, loop=0)
    plt.close(figure)
    print(f"{output}: {len(cells)} generated weeks of {pipe.tokenizer.name or 'a simulated city'}")


def palette() -> Image.Image:
    """Few colours for all pictures keep the file small: those that are drawn, and their mixtures with white."""
    drawn = ["black", *(colour for colour, _ in KINDS.values())]
    mixed = [1 - part * (1 - np.array(to_rgb(name))) for name in drawn for part in (1.0, 0.75, 0.5, 0.25)]
    image = Image.new("P", (1, 1))
    image.putpalette(np.rint(255 * np.concatenate([np.ones(3), to_rgb(CELLS), *mixed])).astype(int).tolist())
    return image


if __name__ == "__main__":
    main(*sys.argv[1:])
