"""In which order the codes of a week are drawn: level by level, and within a level in passes.

Unusual: the paper draws all positions of a level at once, independently of one another, so that two halves of a longer
window do not know which of them has the trip. Here a level may take several passes: every so many positions first, then
those midway between them, and so on. A position sees the codes on its two sides, each position is still computed once,
and training is one pass as before, because the order is fixed and who sees whom is a matter of the attention mask.

Shapes: T codes of a week; "place" = index in the order of drawing, "position" = index in the week's codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Pass:
    """Pass number `step` (0, 1, ..) of a level: the places `start` to `end` of the order."""

    level: int
    step: int
    start: int
    end: int


@dataclass(frozen=True)
class DrawingOrder:
    """Passes, and for each place its position and those of the nearest codes before and after it that earlier passes
    of the level drew; T = none.
    """

    passes: list[Pass]
    positions: list[int]
    before: list[int]
    after: list[int]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Codes of each pass."""
        return tuple(part.end - part.start for part in self.passes)

    def of_level(self, level: int) -> list[Pass]:
        """The passes of one level, first to last."""
        return [part for part in self.passes if part.level == level]

    def lengths_between(self, start: int, end: int) -> dict[int, int]:
        """Level -> its codes among the places from `start` to `end`, without levels that have none."""
        found: dict[int, int] = {}
        for part in self.passes:
            inside = min(part.end, end) - max(part.start, start)
            if inside > 0:
                found[part.level] = found.get(part.level, 0) + inside
        return found

    @property
    def max_steps(self) -> int:
        """Passes of the level that takes most."""
        return 1 + max(part.step for part in self.passes)


def max_passes(length: int) -> int:
    """Passes that a level of this length has room for: the first of so many draws a single position."""
    return (length - 1).bit_length() + 1


def drawing_order(level_lengths: list[int], steps: list[int]) -> DrawingOrder:
    """The order of a week whose level k takes `steps[k]` passes: with p passes every 2^(p-1)-th position, then the
    odd multiples of 2^(p-2), .., of 1.
    """
    total = sum(level_lengths)
    passes: list[Pass] = []
    positions: list[int] = []
    before: list[int] = []
    after: list[int] = []
    for level, (offset, length, count) in enumerate(zip(accumulate(level_lengths, initial=0), level_lengths, steps)):
        for step in range(count):
            stride = 2 ** (count - 1 - step)
            drawn = range(stride, length, 2 * stride) if step else range(0, length, stride)
            passes.append(Pass(level, step, len(positions), len(positions) + len(drawn)))
            positions += [offset + index for index in drawn]
            before += [offset + index - stride if step else total for index in drawn]
            after += [offset + index + stride if step and index + stride < length else total for index in drawn]
    return DrawingOrder(passes, positions, before, after)


__all__ = ["DrawingOrder", "Pass", "drawing_order", "max_passes"]
