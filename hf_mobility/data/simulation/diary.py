"""Simulated users: plans for a day, trips to places, and remembered places.

All users advance together: Python loops run over days and over the (at most a dozen) entries of a day's plan, never
over users or visits. Clock hours count from the first midnight.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .profiles import ACTIVITIES, DWELL_HOURS, NOVELTY, ROLES, STAGES, CityHabits

__all__ = ["People", "Town", "simulate"]

_HOME, _WORK, _GYM = (ACTIVITIES.index(name) for name in ("home", "work", "gym"))
_SHOPS = [ACTIVITIES.index(name) for name in ("groceries", "shopping")]
_NOT_NEAR_HOME = [ACTIVITIES.index(name) for name in ("lunch",)]
_MEMORY = 32  # remembered visits per person and activity; beyond that a random one is forgotten
_MIN_STAY = 0.2  # hours
_GAP = 0.8  # people with more time than this before the next thing on the plan go home


@dataclass(frozen=True)
class Town:
    """Places, and for every activity and zone of departure the cumulative chances of each place.

    xy (N, 2) km; appeal (N,); zone (N,). `steps` holds one run of ascending numbers in (r, r + 1] per row
    r = activity * zones + zone, so that one binary search serves all activities and zones.
    """

    xy: np.ndarray
    appeal: np.ndarray
    zone: np.ndarray
    zones: int
    steps: np.ndarray
    goals: np.ndarray

    @classmethod
    def from_weights(
        cls, xy: np.ndarray, appeal: np.ndarray, zone: np.ndarray, uses: np.ndarray, near: list[np.ndarray]
    ) -> Town:
        """`uses` (activities, N): how places serve activities; `near`: one (zones, N) distance law per activity."""
        zones = len(near[0])
        steps, goals = [], []
        for a in range(len(uses)):
            places = np.flatnonzero(uses[a])
            weight = uses[a, places] * near[a][:, places]
            chance = np.cumsum(weight, axis=1)
            chance /= chance[:, -1:]
            chance[:, -1] = 1.0
            steps.append((chance + (a * zones + np.arange(zones))[:, None]).ravel())
            goals.append(np.tile(places.astype(np.int32), zones))
        return cls(xy, appeal, zone, zones, np.concatenate(steps), np.concatenate(goals))

    def choose(self, rng: np.random.Generator, activity: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """A random place (n,) for each activity, seen from the place `origin` (n,)."""
        row = activity * self.zones + self.zone[origin]
        return self.goals[np.searchsorted(self.steps, row + rng.random(len(row)), side="right")].astype(np.int64)

    def distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.hypot(*(self.xy[a] - self.xy[b]).T)


@dataclass(frozen=True)
class People:
    """Arrays over people: role, home and work (place, -1 = none), and personal habits."""

    role: np.ndarray
    home: np.ndarray
    work: np.ndarray
    outings: np.ndarray  # factor on leisure
    rho: np.ndarray
    chronotype_shift: np.ndarray  # hours by which leisure is later than the average
    work_start: np.ndarray
    work_hours: np.ndarray
    works_on: np.ndarray  # (n, 7) bool
    gym_on: np.ndarray  # (n, 7) bool
    gym_hour: np.ndarray
    is_shift: np.ndarray

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        role: np.ndarray,
        home: np.ndarray,
        work: np.ndarray,
        habits: CityHabits,
    ) -> People:
        count = len(role)
        names = np.array([r.name for r in ROLES])[role]
        is_shift = names == "shift worker"
        works_on = np.ones((count, 7), dtype=bool)
        works_on[:, list(habits.weekend)] = False
        rest = rng.random((count, 7)).argsort(axis=1)[:, :2]  # shift workers have two random days off
        own_week = np.ones((count, 7), dtype=bool)
        np.put_along_axis(own_week, rest, False, axis=1)
        works_on = np.where(is_shift[:, None], own_week, works_on) & (work >= 0)[:, None]
        gym_days = rng.random((count, 7)).argsort(axis=1) < rng.integers(1, 4, count)[:, None]
        start = habits.work_start + rng.normal(0.0, 0.6, count) + np.where(names == "student", 0.8, 0.0)
        early_gym = rng.random(count) < 0.3
        return cls(
            role=role,
            home=home,
            work=work,
            outings=np.array([r.outings for r in ROLES])[role] * np.clip(rng.lognormal(0.0, 0.3, count), 0.4, 2.0),
            rho=np.clip(rng.normal(habits.exploration, 0.1, count), 0.05, 0.95),
            chronotype_shift=rng.normal(0.0, 0.5, count),
            work_start=np.clip(start, 6.0, 11.0),
            work_hours=np.array([r.hours for r in ROLES])[role] + rng.normal(0.0, 0.4, count),
            works_on=works_on,
            gym_on=gym_days & (rng.random(count) < 0.3)[:, None],
            gym_hour=np.where(early_gym, 6.6, 18.3) + rng.normal(0.0, 0.3, count),
            is_shift=is_shift,
        )


@dataclass
class _State:
    """State of all users, with remembered places; `log` holds (user, place, hour, end of the stay before)."""

    place: np.ndarray
    activity: np.ndarray
    since: np.ndarray
    until: np.ndarray
    memory: np.ndarray  # (n, activities, _MEMORY) places
    filled: np.ndarray  # (n, activities) used slots of memory
    known: np.ndarray  # (n, activities) distinct places tried
    log: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)


@dataclass
class _Plan:
    """One day: (n, m) activities, hours (inf = nothing) and hours of leaving, each row in order of time."""

    activity: np.ndarray
    hour: np.ndarray
    leave: np.ndarray


def simulate(
    rng: np.random.Generator, town: Town, people: People, habits: CityHabits, *, num_days: int, first_weekday: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Visits as arrays sorted by user and time: user, place, arrival hour, departure hour."""
    state = _initialize(rng, town, people)
    for day in range(num_days):
        plan = _plan_day(rng, people, habits, day=day, weekday=(first_weekday + day) % 7)
        for k in range(plan.hour.shape[1]):
            go = np.flatnonzero(np.isfinite(plan.hour[:, k]))
            if len(go):
                _step(rng, town, people, habits, state, go, plan.activity[go, k], plan.hour[go, k], plan.leave[go, k])
        away = np.flatnonzero(state.activity != _HOME)
        _move(town, habits, state, away, people.home[away], _HOME, state.until[away], np.inf)
    return _visits(state, horizon=24.0 * num_days)


def _initialize(rng: np.random.Generator, town: Town, people: People) -> _State:
    """All users at home, with three favourite places for each activity, one of them visited more often."""
    count, kinds = len(people.home), len(ACTIVITIES)
    memory = np.zeros((count, kinds, _MEMORY), dtype=np.int32)
    at_work = np.where(people.work >= 0, people.work, people.home)
    for a in range(kinds):
        near = at_work if a in _NOT_NEAR_HOME else people.home
        first, second, third = (town.choose(rng, np.full(count, a), near) for _ in range(3))
        memory[:, a, :6] = np.stack([first, first, first, second, second, third], axis=1)
    filled = np.full((count, kinds), 6, dtype=np.int64)
    known = np.full((count, kinds), 3.0)
    start = rng.uniform(0.0, 0.4, count)
    home = np.full(count, _HOME)
    state = _State(people.home.copy(), home, start, np.full(count, np.inf), memory, filled, known)
    state.log.append((np.arange(count), people.home.copy(), start.copy(), np.full(count, np.nan)))
    return state


# ------------------------------------------------------------------------------------------------------------- planning

_DWELL = np.array([DWELL_HOURS.get(name, 0.0) for name in ACTIVITIES])
_TRIES = np.array([NOVELTY.get(name, 1.0) for name in ACTIVITIES])
_MIXES = np.array([[[mix.get(a, 0.0) for a in ACTIVITIES] for mix in (s.free_mix, s.work_mix)] for s in STAGES])
_BREAKS = np.array([stage.name in ("lunch", "afternoon") for stage in STAGES])


def _plan_day(rng: np.random.Generator, people: People, habits: CityHabits, *, day: int, weekday: int) -> _Plan:
    count = len(people.home)
    working = people.works_on[:, weekday] & (rng.random(count) > 0.03)
    noise = rng.normal(0.0, 0.15, count)
    start = people.work_start + noise
    start = np.where(people.is_shift, np.where((day // 7 + np.arange(count)) % 2 == 0, 6.0, 14.0) + noise, start)
    finish = start + people.work_hours + rng.normal(0.0, 0.3, count)

    hour, activity, leave = _stages(rng, people, habits, weekday, working, finish)
    at_work = working[:, None] & (hour > start[:, None] - 0.4) & (hour < finish[:, None])
    lunch_or_coffee = _BREAKS & (hour > start[:, None] + 1.0) & (leave < finish[:, None] - 0.5)
    hour[at_work & ~lunch_or_coffee] = np.inf
    back = np.where(at_work & np.isfinite(hour), leave, np.inf)[:, _BREAKS]

    gym = np.where(people.gym_on[:, weekday] & (rng.random(count) < 0.9), people.gym_hour, np.inf)
    gym = np.where(working & (gym > start - 1.5) & (gym < finish), np.maximum(finish + 0.3, gym), gym)
    work = np.where(working, start, np.inf)

    columns = np.full((count, 2 + back.shape[1]), _WORK)
    columns[:, 0] = _GYM
    activity = np.concatenate([activity, columns], axis=1)
    hour = np.concatenate([hour, gym[:, None], work[:, None], back], axis=1)
    gym_end = gym + _DWELL[_GYM] * rng.lognormal(0.0, 0.2, count)
    stays = np.repeat(finish[:, None], 1 + back.shape[1], axis=1)
    leave = np.concatenate([leave, gym_end[:, None], stays], axis=1)
    order = np.argsort(hour, axis=1, kind="stable")
    hour, activity, leave = (np.take_along_axis(x, order, axis=1) for x in (hour, activity, leave))
    used = int(np.isfinite(hour).sum(axis=1).max())
    return _Plan(activity[:, :used], hour[:, :used] + 24.0 * day, leave[:, :used] + 24.0 * day)


def _stages(
    rng: np.random.Generator,
    people: People,
    habits: CityHabits,
    weekday: int,
    working: np.ndarray,
    finish: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outings (n, stages) before working hours are taken into account: hour (inf = none), activity, hour of leaving."""
    count, busy = len(working), working[:, None]
    named = {"lunch_hour": habits.lunch_hour, "dinner_hour": habits.dinner_hour, "work_end": 17.5}
    usual = np.array([named[s.hour] if isinstance(s.hour, str) else s.hour for s in STAGES])
    hour = usual + rng.normal(0.0, 1.0, (count, len(STAGES))) * [s.spread for s in STAGES]
    hour += people.chronotype_shift[:, None] * np.where(busy & _BREAKS, 0.0, 1.0)
    after = [i for i, s in enumerate(STAGES) if s.hour == "work_end"]
    hour[:, after] = np.where(busy, finish[:, None] + np.abs(hour[:, after] - 17.5) * 0.5 + 0.1, hour[:, after])
    late = np.array([s.late for s in STAGES])
    hour = np.where(busy & late, np.maximum(hour, finish[:, None] + 0.5), hour)

    rate = np.where(busy, [s.work_rate for s in STAGES], [s.free_rate for s in STAGES])
    lunch = [i for i, s in enumerate(STAGES) if s.name == "lunch"]
    rate[:, lunch] = np.where(busy, habits.lunch_out, rate[:, lunch])
    factor = habits.outings * people.outings[:, None]
    eve_of_rest = (weekday + 1) % 7 in habits.weekend
    rate = rate * factor * np.where(late & eve_of_rest, habits.evening_boost, 1.0)
    wanted = rng.random(rate.shape) < np.minimum(rate, 0.95)
    hour = np.where(wanted & (hour < 24.2), hour, np.inf)

    mixes = _MIXES.copy()
    if weekday == habits.weekend[1]:
        mixes[:, :, _SHOPS] *= habits.sunday_shopping
    chance = np.cumsum(mixes, axis=2)
    chance /= chance[:, :, -1:]
    mix = chance[np.arange(len(STAGES))[None, :], working.astype(np.int64)[:, None]]
    activity = (rng.random((count, len(STAGES), 1)) >= mix).sum(axis=2)
    leave = hour + _DWELL[activity] * rng.lognormal(0.0, 0.3, hour.shape)
    return hour, activity, leave


# ------------------------------------------------------------------------------------------------------------- movement


def _step(
    rng: np.random.Generator,
    town: Town,
    people: People,
    habits: CityHabits,
    state: _State,
    who: np.ndarray,
    activity: np.ndarray,
    hour: np.ndarray,
    leave: np.ndarray,
) -> None:
    """Next entry of the plan for the users `who`; those with time to spare go home first."""
    spare = (state.activity[who] != _HOME) & (hour - state.until[who] > _GAP)
    idle = who[spare]
    _move(town, habits, state, idle, people.home[idle], _HOME, state.until[idle], np.inf)

    goal = np.where(activity == _WORK, people.work[who], -1)
    out = np.flatnonzero(activity != _WORK)
    goal[out] = _decide(rng, town, people, habits, state, who[out], activity[out])
    _move(town, habits, state, who, goal, activity, hour, leave)


def _decide(
    rng: np.random.Generator,
    town: Town,
    people: People,
    habits: CityHabits,
    state: _State,
    who: np.ndarray,
    activity: np.ndarray,
) -> np.ndarray:
    """Exploration and preferential return: a new place with chance rho * S ** -gamma, else one by visit counts."""
    chance = people.rho[who] * _TRIES[activity] * state.known[who, activity] ** -habits.return_gain
    explore = rng.random(len(who)) < chance
    slot = (rng.random(len(who)) * state.filled[who, activity]).astype(np.int64)
    goal = state.memory[who, activity, slot].astype(np.int64)
    new = np.flatnonzero(explore)
    goal[new] = town.choose(rng, activity[new], state.place[who[new]])

    used = np.arange(_MEMORY) < state.filled[who[new], activity[new], None]
    seen = ((state.memory[who[new], activity[new]] == goal[new, None]) & used).any(axis=1)
    state.known[who[new], activity[new]] += ~seen
    count = state.filled[who, activity]
    slot = np.where(count < _MEMORY, count, (rng.random(len(who)) * _MEMORY).astype(np.int64))
    state.memory[who, activity, slot] = goal
    state.filled[who, activity] = np.minimum(count + 1, _MEMORY)
    return goal


def _move(
    town: Town,
    habits: CityHabits,
    state: _State,
    who: np.ndarray,
    goal: np.ndarray,
    activity: np.ndarray | int,
    hour: np.ndarray,
    leave: np.ndarray | float,
) -> None:
    """Take `who` to `goal` by `hour`, or as soon as they can be there; those who are there already stay."""
    travel = 0.07 + town.distance(state.place[who], goal) / habits.speed_kmh
    stays = goal == state.place[who]
    depart = np.maximum(hour - travel, state.since[who] + _MIN_STAY)
    arrive = np.where(stays, state.since[who], depart + travel)
    moved = who[~stays]
    state.log.append((moved, goal[~stays], arrive[~stays], depart[~stays]))
    state.place[moved], state.since[moved] = goal[~stays], arrive[~stays]
    state.activity[who] = activity
    state.until[who] = np.maximum(leave, arrive + _MIN_STAY)


def _visits(state: _State, *, horizon: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    user, place, hour, left = (np.concatenate(columns) for columns in zip(*state.log, strict=True))
    order = np.lexsort((hour, user))
    user, place, hour, left = user[order], place[order], hour[order], left[order]
    # A row knows when the stay before it ended; the last stay of each person ends with the simulation.
    last = np.append(user[1:] != user[:-1], True)
    end = np.where(last, np.inf, np.append(left[1:], np.inf))
    kept = hour < horizon
    return user[kept], place[kept], hour[kept], np.minimum(end[kept], horizon)
