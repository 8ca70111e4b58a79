"""Weeks as arrays: copies that are moved over the grid keep every step between two hours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_mobility.data import DataError
from hf_mobility.data.week_arrays import shift_weeks


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 3), st.integers(0, 99))
def test_a_shifted_copy_keeps_the_steps_between_cells_and_the_unknown_hours(
    rows: int, columns: int, copies: int, seed: int
) -> None:
    cells = np.random.default_rng(seed).integers(-1, rows * columns, (7, 12))
    before = cells.copy()
    made = shift_weeks(cells, rows, columns, copies=copies, seed=seed)
    assert made.shape == (7 * (1 + copies), 12)
    np.testing.assert_array_equal(cells, before)
    np.testing.assert_array_equal(made[:7], cells)
    for copy in made.reshape(1 + copies, 7, 12):
        np.testing.assert_array_equal(copy == -1, cells == -1)
        for week, moved in zip(cells, copy):
            known = week >= 0
            steps = {
                ((new // columns - old // columns) % rows, (new % columns - old % columns) % columns)
                for new, old in zip(moved[known], week[known])
            }
            assert len(steps) <= 1, "one step for the whole week"


def test_copies_are_moved_by_every_step_alike() -> None:
    for weeks, copies in ((1, 6_000), (6_000, 1)):  # from copy to copy, and from week to week of one
        made = shift_weeks(np.zeros((weeks, 2), dtype=int), 3, 4, copies=copies, seed=0)[weeks:, 0]
        np.testing.assert_allclose(np.bincount(made, minlength=12) / 6_000, 1 / 12, atol=0.02)


def test_cells_outside_the_grid_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 cell ids are not in -1 \(unknown\) to 11"):
        shift_weeks(np.array([[0, 12]]), 3, 4, copies=1, seed=0)
