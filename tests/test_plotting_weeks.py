"""Weeks are drawn as they are: an hour has the colour of its kind of place."""

from __future__ import annotations

import numpy as np
import pytest
from weeks_by_hand import home_of, random_weeks, second_of

from hf_mobility.plotting.weeks import PLACES, place_kinds, plot_weeks


def test_hours_are_told_by_the_rank_of_their_place() -> None:
    weeks = random_weeks(8, seed=1, unknown=0.1)
    for week, kinds in zip(weeks, place_kinds(weeks)):
        home, second = home_of(week), second_of(week)
        assert ((kinds == 0) == (week < 0)).all()
        assert ((kinds == 1) == (week == home)).all() and ((kinds == 2) == (week == second)).all()
        assert len(np.unique(week[kinds == 3])) == 1 and len(np.unique(week[kinds == 4])) == 2


def test_as_many_real_as_generated_weeks_are_drawn() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    real, made = random_weeks(30, seed=1), random_weeks(25, seed=2)
    axes = plot_weeks(real, made, number=20, names=("users", "model"))
    for ax, weeks, name in zip(axes, (real, made), ("users", "model")):
        drawn = np.asarray(ax.images[0].get_array())
        assert drawn.shape == (20, 168) and ax.get_title() == f"20 {name} weeks"
        known = {tuple(kinds) for kinds in place_kinds(weeks).tolist()}
        assert all(tuple(row) in known for row in drawn.tolist())
        hours = (drawn == 1).sum(axis=1)
        assert (np.diff(hours) <= 0).all()
        assert [tick.get_text() for tick in ax.get_xticklabels()][:2] == ["Mon", "Tue"]
    assert [text.get_text() for text in axes[0].figure.legends[0].get_texts()] == list(PLACES)


def test_too_few_weeks_are_refused() -> None:
    with pytest.raises(ValueError, match="20 weeks of each set are to be drawn; generated has 3"):
        plot_weeks(random_weeks(20), random_weeks(3))
