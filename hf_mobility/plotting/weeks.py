"""Weeks as rows of hours, real and generated side by side. matplotlib is imported on first use, as in `pictures`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.week_arrays import check_weeks
from ..evaluation.week_places import days_of_week, night_home, ranked_places
from .axes import new_axes
from .colours import BLUE, ORANGE, RED
from .prepare import literal

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
PLACES = {
    "unknown": "white",
    "home": "0.85",
    "second place": BLUE,
    "third place": ORANGE,
    "elsewhere": RED,
}


def plot_weeks(
    real: Any,
    generated: Any,
    *,
    number: int = 20,
    names: tuple[str, str] = ("real", "generated"),
    slots_per_day: int = 24,
    seed: int = 0,
    axes: Any = None,
) -> np.ndarray:
    """Some weeks of two sets, one row each, coloured by where the hour is spent: do single weeks look alike?

    Args:
        real, generated: integer (N, L) and (M, L) whole weeks of cells, -1 = unknown.
        number: weeks of each set, drawn by `seed`, those with most hours at home on top.
        names: titles.
        slots_per_day: a multiple of 24.
        axes: two axes to draw into.

    Returns:
        The two axes.

    Raises:
        DataError: faulty weeks. ImportError: without matplotlib, with the command that installs it.
        ValueError: fewer weeks than `number`.

    Example:
        >>> plot_weeks(real, made)[0].figure.savefig("weeks.png")  # doctest: +SKIP
    """
    sets = [check_weeks(cells, name=name) for cells, name in ((real, "real"), (generated, "generated"))]
    short = [f"{name} has {len(cells)}" for cells, name in zip(sets, ("real", "generated")) if len(cells) < number]
    if number < 1 or short:
        raise ValueError(f"{number} weeks of each set are to be drawn; {', '.join(short) or 'give 1 or more'}.")
    axes = new_axes(2) if axes is None else axes
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    rng = np.random.default_rng(seed)
    for ax, cells, name in zip(axes, sets, names):
        kinds = place_kinds(cells[rng.choice(len(cells), number, replace=False)], slots_per_day=slots_per_day)
        kinds = kinds[np.argsort(-(kinds == 1).sum(axis=1), kind="stable")]
        colours = ListedColormap(list(PLACES.values()))
        ax.imshow(kinds, aspect="auto", interpolation="nearest", cmap=colours, vmin=0, vmax=len(PLACES) - 1)
        ax.set_xticks((np.arange(7) + 0.5) * slots_per_day - 0.5, DAYS)
        ax.set_yticks([])
        for midnight in np.arange(1, 7) * slots_per_day - 0.5:
            ax.axvline(midnight, color="black", linewidth=0.6)
        for row in np.arange(1, number) - 0.5:
            ax.axhline(row, color="white", linewidth=1.5)
        ax.set_title(f"{number} {literal(name)} weeks")
    patches = [Patch(facecolor=colour, edgecolor="0.5", label=place) for place, colour in PLACES.items()]
    axes[0].figure.legend(handles=patches, loc="outside lower center", ncols=len(PLACES), fontsize=9)
    return np.asarray(axes)


def place_kinds(cells: np.ndarray, *, slots_per_day: int = 24) -> np.ndarray:
    """int64 (N, L): 0 unknown, 1 home (of the nights), 2 and 3 the commonest other cells of the week, 4 elsewhere."""
    days_of_week(cells, slots_per_day)
    home = night_home(cells, slots_per_day=slots_per_day)
    others = ranked_places(np.where(cells == home[:, None], -1, cells), 2)
    kinds = np.full(cells.shape, 4)
    for kind, place in ((3, others[:, 1]), (2, others[:, 0]), (1, home)):
        kinds[cells == place[:, None]] = kind
    kinds[cells < 0] = 0
    return kinds
