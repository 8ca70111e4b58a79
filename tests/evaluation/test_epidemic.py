"""Epidemics: without chance they are what loops over agents find, and chances are those of the disease."""

from __future__ import annotations

import numpy as np
import pytest
from weeks_by_hand import random_weeks

from hf_mobility.evaluation import Disease, curve_error, epidemic_curves

CERTAIN = Disease(transmission=1, exposed_hours=1, infectious_hours=1, start=2)


def certain_epidemic(weeks: np.ndarray, first: set[int], repeats: int) -> list[float]:
    """Whoever meets an infectious agent is exposed for one hour, then infectious for one, then removed."""
    susceptible, exposed, infectious = set(range(len(weeks))) - first, set(), set(first)
    curve = []
    for t in range(repeats * weeks.shape[1]):
        cells = weeks[:, t % weeks.shape[1]]
        curve.append(len(infectious) / len(weeks))
        there = {cells[agent] for agent in infectious if cells[agent] >= 0}
        caught = {agent for agent in susceptible if cells[agent] in there}
        infectious, exposed, susceptible = exposed, caught, susceptible - caught
    return curve


@pytest.mark.parametrize("unknown", [0.0, 0.2])
def test_without_chance_an_epidemic_is_what_a_loop_finds(unknown: float) -> None:
    weeks = random_weeks(30, seed=1, unknown=unknown, sticky=0.2)
    first = set(np.random.default_rng(7).permutation(30)[:2].tolist())
    found = epidemic_curves(weeks, disease=CERTAIN, repeats=2, runs=1, seed=7)
    assert found[0].tolist() == certain_epidemic(weeks, first, repeats=2)
    assert found.max() > 2 / 30


def test_nobody_catches_what_nobody_passes_on() -> None:
    weeks = np.arange(40)[:, None].repeat(168, axis=1)  # each agent alone
    curves = epidemic_curves(weeks, disease=Disease(transmission=1, infectious_hours=24, start=5), runs=3)
    assert (curves[:, 0] == 5 / 40).all() and (np.diff(curves, axis=1) <= 0).all() and (curves[:, -1] == 0).all()


@pytest.mark.parametrize("slots", [24, 48])
def test_illness_lasts_as_long_as_the_disease_says_whatever_the_slots(slots: int) -> None:
    weeks = np.zeros((3_000, 7 * slots), int)
    disease = Disease(transmission=0, infectious_hours=50, start=3_000)
    curve = epidemic_curves(weeks, disease=disease, repeats=1, runs=1, slots_per_day=slots)[0]
    assert curve[50 * slots // 24] == pytest.approx(np.exp(-1), abs=0.04)


def test_infections_are_as_likely_as_the_disease_says() -> None:
    """All agents in one cell; who is infected in the first hour is infectious from the third."""
    disease = Disease(transmission=0.0002, exposed_hours=1, infectious_hours=50, start=1_000)
    curve = epidemic_curves(np.zeros((3_000, 168), int), disease=disease, repeats=1, runs=1)[0]
    expected = 1_000 * (1 - 1 / 50) ** 2 + 2_000 * (1 - (1 - 0.0002) ** 1_000)
    assert curve[2] * 3_000 == pytest.approx(expected, rel=0.06)


def test_the_error_of_a_curve_is_relative_to_the_real_one() -> None:
    real = np.array([[0.1, 0.2, 0.4, 0.1], [0.1, 0.4, 0.2, 0.1]])
    assert curve_error(real, real) == {"error": 0, "peak": 1, "peak_days": 0}
    found = curve_error(real, np.array([[0.1, 0.1, 0.1, 0.6]]))
    assert found["error"] == pytest.approx((0.2 + 0.2 + 0.5) / 4 / 0.2)
    assert found["peak"] == pytest.approx(2) and found["peak_days"] == pytest.approx(2 / 24)


def test_faults_are_one_sentence() -> None:
    for options in ({"transmission": 2}, {"exposed_hours": 0}, {"start": 0}):
        with pytest.raises(ValueError, match=r"must be|is a chance"):
            Disease(**options)
    with pytest.raises(ValueError, match="There are 3 agents and 10 are to be infectious"):
        epidemic_curves(random_weeks(3))
