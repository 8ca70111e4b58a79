"""Colours that colour-blind readers tell apart (M. Okabe and K. Ito, Color Universal Design, 2008), and dashes as a
second cue for lines. The order is that in which they are given out.
"""

from __future__ import annotations

PALETTE = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442"),
    *("#7f7f7f", "#8c564b"),  # for the ninth and tenth cluster: their numbers tell them apart
)
BLUE, RED, GREEN, BLACK, ORANGE = PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[6], PALETTE[4]
LAND, WATER = "#f7f5ee", "#d9e8f3"

# Lengths of strokes and gaps; () is an unbroken line.
DASHES: tuple[tuple[int, ...], ...] = ((), (6, 3), (2, 2), (8, 3, 2, 3))


def line_look(index: int) -> tuple[str, tuple[int, ...]]:
    """Colour and dashes of a line: no two of the first 28 are alike."""
    return PALETTE[index % 7], DASHES[index % len(DASHES)]
