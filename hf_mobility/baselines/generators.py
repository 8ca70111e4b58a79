"""Generator baselines that count: a Markov chain by hour of the day, and resampled training weeks.

All generators are used alike: `Generator(options).fit(cells, ...).generate(n, seed=0)`. Weeks are rows of cell ids, one
per hour, -1 = unknown. Generated weeks have no unknown hours, except those of ResampledWeeks, which keeps them. Instead
of a number, `generate` takes the conditions of each week; with a number, the conditions of real training weeks are
drawn with replacement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.week_arrays import check_weeks, day_type
from ..tokenization.errors import DataError
from ..tokenization.weeks import home_and_work


@dataclass(frozen=True, eq=False)
class Conditions:
    """What is asked of each week; aligned integer arrays (N,).

    Fields:
        home_ids: cell of the home.
        work_ids: cell of the commonest place in working hours; equal to the home for people who do not commute.
        attribute_ids: class of the movement, or None where the generator knows none.
    """

    home_ids: np.ndarray
    work_ids: np.ndarray
    attribute_ids: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("home_ids", "work_ids", "attribute_ids"):
            value = getattr(self, name)
            if value is None and name == "attribute_ids":
                continue
            value = np.asarray(value)
            if value.ndim != 1 or not np.issubdtype(value.dtype, np.integer) or len(value) != len(self.home_ids):
                raise DataError(
                    f"{name} is {value.dtype} of shape {value.shape}; give aligned integer arrays, one entry per week."
                )
            object.__setattr__(self, name, value.astype(np.int64, copy=False))

    def __len__(self) -> int:
        return len(self.home_ids)

    def check(self, num_cells: int, *, name: str = "conditions") -> None:
        """Raise DataError unless every home and work cell is in 0..num_cells - 1."""
        wrong = (self.home_ids < 0) | (self.home_ids >= num_cells)
        wrong |= (self.work_ids < 0) | (self.work_ids >= num_cells)
        if wrong.any():
            raise DataError(
                f"{name}: {int(wrong.sum())} weeks have a home or work cell outside 0..{num_cells - 1} (first rows: "
                f"{np.flatnonzero(wrong)[:5].tolist()}); leave out weeks without a known hour."
            )

    def take(self, rows: np.ndarray) -> Conditions:
        """The conditions of some weeks."""
        attribute = None if self.attribute_ids is None else self.attribute_ids[rows]
        return Conditions(self.home_ids[rows], self.work_ids[rows], attribute)

    def draw(self, n: int | Conditions, rng: np.random.Generator) -> Conditions:
        """`n` itself if it is conditions, else n of these with replacement."""
        if isinstance(n, Conditions):
            return n
        return self.take(rng.integers(len(self), size=_number(n)))

    @classmethod
    def of_weeks(
        cls,
        cells: np.ndarray,
        *,
        home: Any = None,
        work: Any = None,
        attribute: Any = None,
        slots_per_day: int = 24,
        first_weekday: int = 0,
    ) -> Conditions:
        """Conditions of given weeks; home and work are read from the weeks (`home_and_work`) where not given."""
        if home is None or work is None:
            found = home_and_work(cells, slots_per_day=slots_per_day, first_weekday=first_weekday)
            home, work = (found[0] if home is None else home), (found[1] if work is None else work)
        out = cls(home, work, attribute)
        if len(out) != len(cells):
            raise DataError(f"There are {len(cells)} weeks but conditions for {len(out)}; give one entry per week.")
        return out


class HourlyMarkov:
    """First-order Markov chain whose transitions depend on the slot of the day, weekday or weekend, and the home cell.

    The next cell is drawn from the training steps of the most specific group that has any: same home, day type, slot
    and cell; the same without the home; without the day type; from the cell at any time. A cell without any such step
    is stayed in. A first-order chain does not know where it was before: it cannot hold returns within a week.

    Args:
        by_home: tables per home cell, which makes people return, and copies weeks of homes with few people.
        backoff: strength of the less specific group. A group of n training steps is used with probability
            n / (n + backoff), so 0 always takes the most specific group. On 4,000 real days with 0, mean6 was at the
            noise level but 28 % of the moving days were copies; with 1 it was 1.3 times that and 11 %.
        slots_per_day: columns per day.
        first_weekday: of column 0, 0 = Monday.
    """

    name = "HourlyMarkov"

    def __init__(
        self, *, by_home: bool = True, backoff: float = 0.0, slots_per_day: int = 24, first_weekday: int = 0
    ) -> None:
        if backoff < 0:
            raise ValueError(f"backoff must not be negative, not {backoff}.")
        self.by_home, self.backoff = by_home, backoff
        self.slots_per_day, self.first_weekday = slots_per_day, first_weekday
        self.conditions: Conditions | None = None

    def fit(self, cells: Any, *, home: Any = None, num_cells: int | None = None) -> HourlyMarkov:
        """Count the transitions of training weeks and return self.

        Args:
            cells: integer (N, L); steps that touch an unknown hour are not counted.
            home: integer (N,) home cells; read from the weeks if None.
            num_cells: number of cells of the grid, default the largest id + 1.
        """
        cells = check_weeks(cells, num_cells=num_cells)
        self.num_cells = int(cells.max(initial=0)) + 1 if num_cells is None else num_cells
        cells, conditions = _usable(
            cells, home, None, self.num_cells, slots_per_day=self.slots_per_day, first_weekday=self.first_weekday
        )
        self.length, self.conditions = cells.shape[1], conditions
        starting = cells[:, 0] >= 0
        # Where nobody's first hour is known, a week begins wherever people are at any hour.
        owner, at = np.nonzero(cells >= 0) if not starting.any() else (np.flatnonzero(starting), 0)
        self._start = self._levels(np.zeros(len(owner), dtype=np.int64), conditions.home_ids[owner], cells[owner, at])[
            :2
        ]

        owner, hour = np.nonzero((cells[:, :-1] >= 0) & (cells[:, 1:] >= 0))
        before, after, homes = cells[owner, hour], cells[owner, hour + 1], conditions.home_ids[owner]
        self._any = _Draws.count(before.astype(np.int64), after)
        slot, kind = self._clock()
        self._tables = {}
        for s in range(min(self.slots_per_day, self.length - 1)):
            rows = slot[hour] == s
            by_slot = _Draws.count(before[rows].astype(np.int64), after[rows])
            for k in np.unique(kind):
                some = rows & (kind[hour] == k)
                self._tables[s, int(k)] = (
                    *self._levels(before[some].astype(np.int64), homes[some], after[some]),
                    by_slot,
                )
        return self

    def generate(self, n: int | Conditions, *, seed: int) -> np.ndarray:
        """int32 (n, L) weeks; all weeks take a step at a time. The work cell of conditions is not used."""
        if self.conditions is None:
            raise ValueError(f"{self.name} is not fitted; call fit(cells) first.")
        rng = np.random.default_rng(seed)
        wanted = self.conditions.draw(n, rng)
        wanted.check(self.num_cells)
        home = wanted.home_ids
        slot, kind = self._clock()
        out = np.zeros((len(wanted), self.length), dtype=np.int32)
        out[:, 0] = self._step(self._start, np.zeros(len(wanted), dtype=np.int64), home, rng)
        for t in range(self.length - 1):
            tables = (*self._tables.get((int(slot[t]), int(kind[t])), ()), self._any)
            out[:, t + 1] = self._step(tables, out[:, t].astype(np.int64), home, rng)
        return out

    def _clock(self) -> tuple[np.ndarray, np.ndarray]:
        """Slot of the day and day type of every step."""
        kind = day_type(self.length - 1, slots_per_day=self.slots_per_day, first_weekday=self.first_weekday)
        return np.arange(self.length - 1) % self.slots_per_day, kind

    def _levels(self, state: np.ndarray, home: np.ndarray, after: np.ndarray) -> tuple[_Draws, ...]:
        """Tables by (home, state), if wanted, and by state."""
        everyone = _Draws.count(state, after)
        if not self.by_home:
            return (everyone,)
        return _Draws.count(home * self.num_cells + state, after, homes=True), everyone

    def _key(self, table: _Draws, state: Any, home: Any) -> Any:
        return home * self.num_cells + state if table.homes else state

    def _step(
        self, tables: tuple[_Draws, ...], state: np.ndarray, home: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """The next cell of all weeks, from the first table that has the state and is not passed over."""
        out = state.copy()
        todo = np.arange(len(state))
        for i, table in enumerate(tables):
            row, total = table.find(self._key(table, state[todo], home[todo]))
            use = total > 0
            if self.backoff and i + 1 < len(tables):
                use &= rng.random(len(todo)) * (total + self.backoff) < total
            out[todo[use]] = table.draw(row[use], total[use], rng)
            todo = todo[~use]
            if not len(todo):
                break
        return out


class ResampledWeeks:
    """Real training weeks drawn again: the most faithful and least private generator there can be.

    Drawn without replacement as long as there are enough; unknown hours stay unknown; conditions only give the number.
    """

    name = "ResampledWeeks"

    def __init__(self) -> None:
        self.cells: np.ndarray | None = None

    def fit(self, cells: Any) -> ResampledWeeks:
        """Keep the training weeks, integer (N, L), and return self."""
        self.cells = check_weeks(cells).copy()
        return self

    def generate(self, n: int | Conditions, *, seed: int) -> np.ndarray:
        """int32 (n, L) weeks."""
        if self.cells is None:
            raise ValueError(f"{self.name} is not fitted; call fit(cells) first.")
        number = len(n) if isinstance(n, Conditions) else _number(n)
        rng = np.random.default_rng(seed)
        return self.cells[rng.choice(len(self.cells), number, replace=number > len(self.cells))]


@dataclass(frozen=True, eq=False)
class _Draws:
    """Counts of the next cell by state, sparse: states ascending, their outcomes one after the other.

    Fields:
        states: int64 (S,).
        first: int64 (S + 1,), observations before each state.
        cumulative: int64 (E,), observations up to and with each outcome.
        cells: int32 (E,), the outcomes.
        homes: whether a state is home * C + cell.
    """

    states: np.ndarray
    first: np.ndarray
    cumulative: np.ndarray
    cells: np.ndarray
    homes: bool = False

    @classmethod
    def count(cls, state: np.ndarray, after: np.ndarray, *, homes: bool = False) -> _Draws:
        width = int(after.max(initial=0)) + 1
        keys, counts = np.unique(state * width + after, return_counts=True)
        states, at = np.unique(keys // width, return_index=True)
        cumulative = np.cumsum(counts)
        first = np.append(np.append(0, cumulative)[at], cumulative[-1:] if len(keys) else 0)
        return cls(states, first, cumulative, (keys % width).astype(np.int32), homes)

    def find(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position of each state and its number of observations, 0 where it was never seen."""
        if not len(self.states):
            return np.zeros(len(state), dtype=np.int64), np.zeros(len(state), dtype=np.int64)
        row = np.minimum(np.searchsorted(self.states, state), len(self.states) - 1)
        return row, np.where(self.states[row] == state, self.first[row + 1] - self.first[row], 0)

    def draw(self, row: np.ndarray, total: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One outcome for each position, in proportion to its count."""
        pick = self.first[row] + rng.integers(total)
        return self.cells[np.searchsorted(self.cumulative, pick, side="right")]


def _number(n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0:
        raise ValueError(f"generate needs a number of weeks or Conditions, not {n!r}.")
    return int(n)


def _usable(
    cells: np.ndarray, home: Any, work: Any, num_cells: int, *, attribute: Any = None, **clock: int
) -> tuple[np.ndarray, Conditions]:
    """The weeks that have a known hour, and their conditions.

    Raises:
        DataError: no week has one, or conditions do not fit.
    """
    conditions = Conditions.of_weeks(cells, home=home, work=work, attribute=attribute, **clock)
    rows = np.flatnonzero((cells >= 0).any(axis=1))
    if not len(rows):
        raise DataError(f"None of the {len(cells)} weeks has a known hour; there is nothing to fit.")
    conditions = conditions.take(rows)
    conditions.check(num_cells, name="home and work")
    return cells[rows], conditions
