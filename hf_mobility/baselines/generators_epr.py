"""Exploration and preferential return with a diary of home and work: mobility by mechanism.

In the line of EPR (Song et al. 2010, Nature Physics 6:818) and DITRAS (Pappalardo and Simini 2018, Data Mining and
Knowledge Discovery 32:787): a diary says in each hour of the week whether somebody is at home, at work, still at the
same other place or goes to another one; the body of the model says which place that is. Everything is fitted from
training weeks. Unlike DITRAS' days, the diary is first order over the hours of a week and differs between commuters
and others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize

from ..data.week_arrays import check_weeks
from ..tokenization.errors import DataError
from ..tokenization.grid import haversine_km
from ..tokenization.weeks import first_hour_of_cell
from .generators import Conditions, _usable

HOME, WORK, OTHER, SAME = range(4)  # SAME: still at the same other place
SONG_RHO, SONG_GAMMA = 0.6, 0.21  # of mobile phone users (Song et al. 2010), where the training weeks show no choice
DIARY_PRIOR = 1.0  # observations with which an hour of the week leans on that slot of all days, and a slot on all slots
EXPLORATION_TRIES = 20
_LEAST_KM = 1e-3


class ExplorationReturn:
    """EPR with a home-work diary.

    Where the diary sends somebody to another place, it is a new one with probability rho * S ** -gamma, S being the
    number of distinct places so far (home and work included), chosen from the current cell in proportion to
    popularity * distance ** -beta; otherwise an earlier other place in proportion to its visits in the week so far.

    Args:
        slots_per_day: columns per day.
        first_weekday: of column 0, 0 = Monday; only for reading home and work from the weeks.

    Attributes after `fit`: rho, gamma, beta (floats), diary (float64 (L - 1, 2, 3, 4): probabilities of home, work,
    another place, the same place, by hour, commuter or not, and where one is).
    """

    name = "ExplorationReturn"

    def __init__(self, *, slots_per_day: int = 24, first_weekday: int = 0) -> None:
        self.slots_per_day, self.first_weekday = slots_per_day, first_weekday
        self.conditions: Conditions | None = None

    def fit(self, cells: Any, *, lat: Any, lon: Any, home: Any = None, work: Any = None) -> ExplorationReturn:
        """Fit the diary, exploration and gravity to training weeks and return self.

        Args:
            cells: integer (N, L); what touches an unknown hour is not counted.
            lat, lon: (C,) degrees, centres of the cells. The gravity table takes C * (visited cells) * 8 bytes.
            home, work: integer (N,); read from the weeks where None.
        """
        lat, lon = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
        if lat.ndim != 1 or lat.shape != lon.shape:
            raise DataError(f"lat has shape {lat.shape} and lon {lon.shape}; give two aligned arrays (C,).")
        cells = check_weeks(cells, num_cells=len(lat))
        cells, conditions = _usable(
            cells, home, work, len(lat), slots_per_day=self.slots_per_day, first_weekday=self.first_weekday
        )
        self.num_cells, self.length, self.conditions = len(lat), cells.shape[1], conditions
        commuter = (conditions.home_ids != conditions.work_ids).astype(np.int64)
        label = np.where(cells == conditions.work_ids[:, None], WORK, OTHER)
        label = np.where(cells == conditions.home_ids[:, None], HOME, label)
        label = np.where(cells < 0, -1, label)
        self._fit_diary(cells, label, commuter)

        first_visit = first_hour_of_cell(cells) == np.arange(self.length)
        new_other = first_visit & (label == OTHER)
        others_before = np.cumsum(new_other, axis=1) - new_other  # distinct other places before each hour
        moved = (cells[:, 1:] != cells[:, :-1]) & (label[:, :-1] >= 0) & (label[:, 1:] == OTHER)
        choice = moved & (others_before[:, 1:] - (label[:, :-1] == OTHER) >= 1)  # there is somewhere to return to
        known_places = others_before[:, 1:] + 1 + commuter[:, None]
        self.rho, self.gamma = fit_exploration(known_places[choice], first_visit[:, 1:][choice])
        explored = moved & first_visit[:, 1:]
        self._fit_gravity(cells[:, :-1][explored], cells[:, 1:][explored], cells[:, 1:][moved], lat, lon)
        return self

    def generate(self, n: int | Conditions, *, seed: int) -> np.ndarray:
        """int32 (n, L) weeks; all weeks take a step at a time.

        Home and work of each week are those of its conditions, also cells that no training week visits.
        """
        if self.conditions is None:
            raise ValueError(f"{self.name} is not fitted; call fit(cells, lat=..., lon=...) first.")
        rng = np.random.default_rng(seed)
        wanted = self.conditions.draw(n, rng)
        wanted.check(self.num_cells)
        people = _People(wanted, self.length)
        outcome = _draw_columns(self._start[people.commuter], rng)
        where = self._move(people, outcome, wanted.home_ids.copy(), rng)
        out = np.zeros((len(wanted), self.length), dtype=np.int32)
        out[:, 0] = where
        for t in range(self.length - 1):
            state = np.minimum(outcome, OTHER)
            outcome = _draw_columns(self._diary_cdf[t, people.commuter, state], rng)
            where = self._move(people, outcome, where, rng)
            out[:, t + 1] = where
        return out

    def _fit_diary(self, cells: np.ndarray, label: np.ndarray, commuter: np.ndarray) -> None:
        owner, hour = np.nonzero((label[:, :-1] >= 0) & (label[:, 1:] >= 0))
        state, outcome = label[owner, hour], label[owner, hour + 1]
        stays = (outcome == OTHER) & (cells[owner, hour] == cells[owner, hour + 1])
        outcome = np.where(stays, SAME, outcome)
        shape = (self.length - 1, 2, 3, 4)
        flat = np.ravel_multi_index((hour, commuter[owner], state, outcome), shape)
        counts = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape).astype(np.float64)
        slot = np.arange(self.length - 1) % self.slots_per_day
        by_slot = np.zeros((self.slots_per_day, *shape[1:]))
        np.add.at(by_slot, slot, counts)
        total = counts.sum(axis=0)
        stay = np.broadcast_to(np.eye(4)[[HOME, WORK, SAME]], total.shape)  # what was never seen to change does not
        always = np.where(total.sum(axis=-1, keepdims=True) > 0, total, stay)
        always = always / always.sum(axis=-1, keepdims=True)
        usual = (by_slot + DIARY_PRIOR * always) / (by_slot.sum(axis=-1, keepdims=True) + DIARY_PRIOR)
        self.diary = (counts + DIARY_PRIOR * usual[slot]) / (counts.sum(axis=-1, keepdims=True) + DIARY_PRIOR)
        self._diary_cdf = np.cumsum(self.diary, axis=-1)

        known = label[:, 0] >= 0
        first = np.zeros((2, 4))
        first[:, HOME] = DIARY_PRIOR  # also where no first hour is known
        np.add.at(first, (commuter[known], label[known, 0]), 1)
        self._start = np.cumsum(first / first.sum(axis=1, keepdims=True), axis=1)

    def _fit_gravity(
        self, origin: np.ndarray, target: np.ndarray, arrivals: np.ndarray, lat: np.ndarray, lon: np.ndarray
    ) -> None:
        """beta by maximum likelihood of the explored places, popularity = arrivals; then the table of all origins."""
        popularity = np.bincount(arrivals, minlength=self.num_cells)
        self._targets = np.flatnonzero(popularity)
        weight = popularity[self._targets].astype(np.float64)

        def log_distance(rows: np.ndarray) -> np.ndarray:
            km = haversine_km(lat[rows, None], lon[rows, None], lat[self._targets], lon[self._targets])
            # Nobody explores the cell he is in.
            return np.where(rows[:, None] == self._targets, np.inf, np.log(np.maximum(km, _LEAST_KM)))

        rows, count = np.unique(origin, return_counts=True)
        self.beta = 0.0
        if len(rows):
            logs = log_distance(rows)
            travelled = np.log(np.maximum(haversine_km(lat[origin], lon[origin], lat[target], lon[target]), _LEAST_KM))

            def loss(beta: float) -> float:
                return float(beta * travelled.sum() + count @ np.log(_gravity(logs, weight, beta).sum(axis=1)))

            self.beta = float(optimize.minimize_scalar(loss, bounds=(0.0, 6.0), method="bounded").x)
        table = _gravity(log_distance(np.arange(self.num_cells)), weight, self.beta)
        total = table.sum(axis=1, keepdims=True)
        shares = np.where(total > 0, table / np.where(total > 0, total, 1), 1 / max(len(weight), 1))
        # Row i runs from i to i + 1, so one search in the flat array serves people in all cells.
        self._gravity_cdf = (np.cumsum(shares, axis=1).clip(max=1.0) + np.arange(self.num_cells)[:, None]).ravel()

    def _move(self, people: _People, outcome: np.ndarray, where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Cells (N,) after `outcome`, given the cells before."""
        where = np.where(outcome == HOME, people.home, np.where(outcome == WORK, people.work, where))
        going = np.flatnonzero(outcome == OTHER)
        back = people.returns(going, where[going])
        total = back.sum(axis=1)
        chance = self.rho * (people.known(going)) ** -self.gamma
        explore = (total == 0) | (rng.random(len(going)) < chance)
        some, old = going[explore], going[~explore]
        where[some] = self._explore(people, some, where[some], rng)
        pick = rng.integers(total[~explore])
        where[old] = people.cells[old, (np.cumsum(back[~explore], axis=1) <= pick[:, None]).sum(axis=1)]
        people.visit(going, where[going])
        return where

    def _explore(self, people: _People, rows: np.ndarray, origin: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A place new to each person; after twenty draws of known ones the last draw is taken."""
        out, todo = origin.copy(), np.arange(len(rows))
        for _ in range(EXPLORATION_TRIES if len(self._targets) else 0):
            at = np.searchsorted(self._gravity_cdf, origin[todo] + rng.random(len(todo)), side="right")
            out[todo] = self._targets[np.minimum(at - origin[todo] * len(self._targets), len(self._targets) - 1)]
            todo = todo[people.knows(rows[todo], out[todo]) | (out[todo] == origin[todo])]
            if not len(todo):
                break
        return out


class _People:
    """Each user's visited places of the week and how often they were visited."""

    def __init__(self, conditions: Conditions, length: int) -> None:
        self.home, self.work = conditions.home_ids, conditions.work_ids
        self.commuter = (self.home != self.work).astype(np.int64)
        self.cells = np.full((len(self.home), length), -1, dtype=np.int64)
        self.visits = np.zeros((len(self.home), length), dtype=np.int32)
        self.places = np.zeros(len(self.home), dtype=np.int64)
        self.last = 1  # columns in use

    def known(self, rows: np.ndarray) -> np.ndarray:
        """Number of distinct places so far, home and work included; float64 (m,)."""
        return (self.places[rows] + 1 + self.commuter[rows]).astype(np.float64)

    def returns(self, rows: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Visits of the other places that are not the current one, (m, columns in use)."""
        return np.where(self.cells[rows, : self.last] == where[:, None], 0, self.visits[rows, : self.last])

    def knows(self, rows: np.ndarray, cell: np.ndarray) -> np.ndarray:
        own = (self.cells[rows, : self.last] == cell[:, None]).any(axis=1)
        return own | (cell == self.home[rows]) | (cell == self.work[rows])

    def visit(self, rows: np.ndarray, cell: np.ndarray) -> None:
        match = self.cells[rows, : self.last] == cell[:, None]
        column = np.where(match.any(axis=1), match.argmax(axis=1), self.places[rows])
        self.places[rows] += column == self.places[rows]
        self.cells[rows, column] = cell
        self.visits[rows, column] += 1
        self.last = max(self.last, int(self.places.max(initial=1)))


def fit_exploration(known_places: np.ndarray, is_new: np.ndarray) -> tuple[float, float]:
    """rho and gamma of P(new) = rho * S ** -gamma by maximum likelihood, 0 < rho <= 1 and 0 <= gamma <= 5.

    Args:
        known_places: integer (m,), S before each choice, at least 1.
        is_new: bool (m,), what was chosen.

    Without a choice to learn from, the values of Song et al. 2010.
    """
    if not len(known_places):
        return SONG_RHO, SONG_GAMMA
    places, group = np.unique(known_places, return_inverse=True)
    n, new = np.bincount(group), np.bincount(group, np.asarray(is_new, dtype=np.float64))

    def loss(parameters: np.ndarray) -> float:
        p = np.clip(parameters[0] * places ** -parameters[1], 1e-9, 1 - 1e-9)
        return float(-(new * np.log(p) + (n - new) * np.log1p(-p)).sum() / n.sum())

    found = optimize.minimize(loss, np.array([SONG_RHO, SONG_GAMMA]), bounds=[(1e-3, 1.0), (0.0, 5.0)])
    return float(found.x[0]), float(found.x[1])


def _gravity(log_distance: np.ndarray, weight: np.ndarray, beta: float) -> np.ndarray:
    """weight * distance ** -beta, 0 at the cell itself (whose log distance is infinite, also for beta = 0)."""
    return np.where(
        np.isinf(log_distance), 0.0, weight * np.exp(-beta * np.where(np.isinf(log_distance), 0, log_distance))
    )


def _draw_columns(cumulative: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column for each row of cumulative probabilities (m, k)."""
    return np.minimum((cumulative <= rng.random(len(cumulative))[:, None]).sum(axis=1), cumulative.shape[1] - 1)
