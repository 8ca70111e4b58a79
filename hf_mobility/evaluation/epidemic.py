"""Does an epidemic spread in generated weeks as it does in real ones? Agents who meet where they are.

A compartment model of susceptible, exposed, infectious and removed agents (SEIR) on co-location contacts: every user is
an agent who lives through their own week again and again. What spreads depends on whom users meet again, which no mean
over users shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.week_arrays import check_weeks

SUSCEPTIBLE, EXPOSED, INFECTIOUS, REMOVED = range(4)


@dataclass(frozen=True)
class Disease:
    """What is spread.

    Fields:
        transmission: chance of infection per hour for a susceptible agent in one cell with one infectious agent.
        exposed_hours, infectious_hours: mean lengths of both states; every hour has the same chance to end them.
        start: infectious agents at the beginning.
    """

    transmission: float = 0.001
    exposed_hours: float = 48.0
    infectious_hours: float = 96.0
    start: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.transmission <= 1:
            raise ValueError(f"transmission is a chance of 0..1, not {self.transmission}.")
        if min(self.exposed_hours, self.infectious_hours) < 1 or self.start < 1:
            raise ValueError("exposed_hours, infectious_hours and start must be at least 1.")


def epidemic_curves(
    weeks: Any,
    *,
    disease: Disease | None = None,
    repeats: int = 8,
    runs: int = 10,
    slots_per_day: int = 24,
    seed: int = 0,
) -> np.ndarray:
    """Share of agents who are infectious in every slot, float64 (runs, repeats * L).

    Args:
        weeks: integer (N, L), one row per agent, -1 = unknown: nobody is met then.
        disease: by default `Disease()`.
        repeats: how often all agents live through their week.
        runs: epidemics, each from other first agents.
        slots_per_day: columns per day; rates per hour are those of `disease`.
        seed: of the first agents and of all chances.

    Raises:
        DataError: faulty weeks. ValueError: more first agents than agents.

    Example:
        >>> epidemic_curves(weeks).mean(axis=0).max()  # the peak of the mean epidemic  # doctest: +SKIP
    """
    weeks, disease = check_weeks(weeks), disease or Disease()
    if disease.start > len(weeks):
        raise ValueError(f"There are {len(weeks)} agents and {disease.start} are to be infectious at the start.")
    hours = 24 / slots_per_day
    escape = (1 - disease.transmission) ** hours  # of one susceptible and one infectious agent in a slot
    ends = {EXPOSED: hours / disease.exposed_hours, INFECTIOUS: hours / disease.infectious_hours}
    rng = np.random.default_rng(seed)
    state = np.zeros((runs, len(weeks)), dtype=np.int8)
    for run in state:
        run[rng.permutation(len(weeks))[: disease.start]] = INFECTIOUS
    nowhere = int(weeks.max()) + 1  # of unknown hours
    by_slot = np.ascontiguousarray(np.where(weeks < 0, nowhere, weeks).T)
    curves = np.empty((runs, repeats * len(by_slot)))
    for t in range(curves.shape[1]):
        curves[:, t] = (state == INFECTIOUS).mean(axis=1)
        for run in state:
            _step(run, by_slot[t % len(by_slot)], nowhere, escape, ends, rng)
    return curves


def curve_error(real: np.ndarray, made: np.ndarray) -> dict[str, float]:
    """How far the mean epidemic of one set is from that of another.

    Args:
        real, made: (R, T) and (Q, T) curves of `epidemic_curves`.

    Returns:
        error: mean absolute difference of the mean curves over the mean of the real one. peak: the made peak over the
        real one. peak_days: days from the real peak to the made one (of 24 slots).
    """
    a, b = real.mean(axis=0), made.mean(axis=0)
    return {
        "error": float(np.abs(a - b).mean() / a.mean()),
        "peak": float(b.max() / a.max()),
        "peak_days": float((int(b.argmax()) - int(a.argmax())) / 24),
    }


def _step(
    state: np.ndarray, cells: np.ndarray, nowhere: int, escape: float, ends: dict[int, float], rng: np.random.Generator
) -> None:
    """One slot of one epidemic, in place; who changes in it changes once."""
    susceptible, exposed, infectious = (np.flatnonzero(state == which) for which in (SUSCEPTIBLE, EXPOSED, INFECTIOUS))
    here = np.bincount(cells[infectious], minlength=nowhere + 1)
    here[nowhere] = 0
    caught = rng.random(len(susceptible)) >= escape ** here[cells[susceptible]]
    state[infectious[rng.random(len(infectious)) < ends[INFECTIOUS]]] = REMOVED
    state[exposed[rng.random(len(exposed)) < ends[EXPOSED]]] = INFECTIOUS
    state[susceptible[caught]] = EXPOSED
