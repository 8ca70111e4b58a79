"""Protocols of generated weeks: a split by user, conditions drawn from training weeks, fidelity to held-out weeks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..baselines.generators import Conditions, HourlyMarkov, ResampledWeeks
from ..baselines.generators_epr import ExplorationReturn
from ..checkpoints.mstar import weeks_by_home
from ..data.splits import split_by_sequence, split_weeks_by_user
from ..data.week_arrays import check_weeks
from ..data.weeks import WeekTable
from ..evaluation.fidelity import copying, fidelity, hide_hours
from ..pipelines.trajectory_generation import TrajectoryGenerationPipeline
from ..tokenization.errors import DataError
from ..tokenization.tokenization_mstar import MstarTokenizer
from .bench import Bench, Case, FittedBaseline
from .predictors import WeekTraining
from .scores import Score, rounded
from .seen import Seen

SAME_PLACE = 1e-6  # degrees: saved cities are rounded


@dataclass(frozen=True, eq=False)
class WeekTask:
    """conditions: what is asked for. real: (n, L) held-out weeks. training: what was learned from."""

    conditions: Conditions
    real: np.ndarray
    training: WeekTraining


class FittedGenerator(FittedBaseline):
    """A generator of this package."""

    def generate(self, conditions: Conditions, *, seed: int) -> np.ndarray:
        return np.asarray(self.made.generate(conditions, seed=seed))


class TrainSample:
    """Real training weeks, drawn without replacement: the noise level, which nothing can beat in earnest."""

    name = "train sample"

    def fit(self, train: WeekTraining) -> None:
        self.cells = train.cells

    def generate(self, conditions: Conditions, *, seed: int) -> np.ndarray:
        rows = np.random.default_rng(seed).permutation(len(self.cells))[: len(conditions)]
        return self.cells[rows]


class MstarCheckpoint:
    """An M-STAR folder, for the home and work cells that are asked; movement classes are drawn by its own city."""

    def __init__(self, folder: str, *, name: str) -> None:
        self.folder, self.name = folder, name
        self.pipe = TrajectoryGenerationPipeline.from_pretrained(folder)
        if not isinstance(self.pipe, TrajectoryGenerationPipeline):
            raise DataError(f"{name} generates weeks of slots, which belong to no grid; the protocols compare cells.")

    def fit(self, train: WeekTraining) -> None:
        """Nothing is learned; the grid must be that of the model."""
        own = self.pipe.tokenizer
        same = len(own.lat) == len(train.lat) and own.num_hours == train.cells.shape[1]
        if not same or max(np.abs(own.lat - train.lat).max(), np.abs(own.lon - train.lon).max()) > SAME_PLACE:
            raise DataError(f"{self.name} belongs to another grid than the protocol's weeks; train one on them.")

    def generate(self, conditions: Conditions, *, seed: int) -> np.ndarray:
        home, work = conditions.home_ids, conditions.work_ids
        made = self.pipe.generate(len(conditions), seed=seed, to="weeks", home_ids=home, work_ids=work)
        return np.asarray(made)


def fitted_markov(train: WeekTraining, *, by_home: bool = True) -> HourlyMarkov:
    chain = HourlyMarkov(by_home=by_home, slots_per_day=train.slots_per_day)
    return chain.fit(train.cells, num_cells=len(train.lat))


def fitted_epr(train: WeekTraining) -> ExplorationReturn:
    return ExplorationReturn(slots_per_day=train.slots_per_day).fit(train.cells, lat=train.lat, lon=train.lon)


class WeekBench(Bench):
    """`split`: `fractions` of the users for training, validation and test, and its `seed`. `known`: `number` of weeks
    compared, `cell_km` or `bounds` with `rows` and `columns` of the grid, `slots_per_day`."""

    @cached_property
    def cases(self) -> list[Case]:
        weeks, (train, _, _) = self._weeks
        rows = self._test_rows
        known = Conditions.of_weeks(weeks.cells[train], slots_per_day=self._slots)
        cases = []
        for draw in range(self.protocol.draws):
            training = self._training(draw)
            asked = known.draw(len(rows), np.random.default_rng(draw))
            cases.append(Case(self.test_set.name, draw, training, WeekTask(asked, weeks.cells[rows], training)))
        return cases

    def baselines(self) -> dict[str, Callable[[], Any]]:
        makers: dict[str, tuple[type, Callable[[WeekTraining], Any]]] = {
            "ResampledWeeks": (ResampledWeeks, lambda train: ResampledWeeks().fit(train.cells)),
            "HourlyMarkov": (HourlyMarkov, partial(fitted_markov, by_home=False)),
            "HourlyMarkov, by home": (HourlyMarkov, fitted_markov),
            "ExplorationReturn": (ExplorationReturn, fitted_epr),
        }
        fitted = {name: partial(FittedGenerator, name, *way) for name, way in makers.items()}
        return {TrainSample.name: TrainSample, **fitted}

    def checkpoint(self, folder: str, *, name: str) -> MstarCheckpoint:
        return MstarCheckpoint(folder, name=name)

    def outcome(self, predictor: Any, case: Case) -> dict[str, float]:
        made = np.asarray(predictor.generate(case.task.conditions, seed=case.draw))
        if made.shape != case.task.real.shape:
            raise DataError(f"{predictor.name} gives weeks of shape {made.shape}; expected {case.task.real.shape}.")
        training = case.task.training
        made = check_weeks(made, name="generated", num_cells=len(training.lat))
        shown = made if (made < 0).any() else hide_hours(made, case.task.real)
        measured = fidelity(
            case.task.real,
            shown,
            lat=training.lat,
            lon=training.lon,
            slots_per_day=training.slots_per_day,
            bootstrap=self.protocol.bootstrap,
        )
        return measured | copying(made, training.cells, seed=0)

    def scores(self, case: Case, outcome: dict[str, float]) -> list[Score]:
        return [
            Score(
                case.name,
                "all",
                metric,
                rounded(outcome[metric]),
                low=rounded(outcome.get(f"{metric}_low")),
                high=rounded(outcome.get(f"{metric}_high")),
                n=int(outcome["n"]),
            )
            for metric in self.protocol.metrics
        ]

    def differences(self, case: Case, ours: Any, theirs: Any) -> dict[str, Any]:
        return {}  # divergences of whole sets have no pairs

    def parts(self) -> tuple[Any, Any]:
        weeks, (train, _, test) = self._weeks
        return weeks.take(test), weeks.take(train)

    def seen_by_tokenizer(self, tokenizer: Any) -> Seen | None:
        """Homes that the city counted are those of the training part, or of training and test together, or others."""
        saved = getattr(getattr(tokenizer, "conditions", None), "home_counts", None)
        weeks, (train, validation, test) = self._weeks
        if saved is None or saved.shape[1] != len(self._centres[0]):
            return None
        listed = saved > 0  # a saved city lists homes of several users only

        def same(rows: np.ndarray) -> bool:
            return bool(np.array_equal(weeks_by_home(tokenizer, weeks.cells[rows])[listed], saved[listed]))

        if same(train):
            return Seen("no", "yes", "Its city counts exactly the homes of the training users.")
        if same(np.concatenate([train, validation, test])):
            return Seen("yes", "yes", "Its city counts the homes of all users, those of the test included.")
        return None

    def split_content(self, case: Case) -> Sequence[np.ndarray]:
        return case.task.real, case.task.conditions.home_ids, case.task.conditions.work_ids

    # The parts

    @cached_property
    def _weeks(self) -> tuple[WeekTable, tuple[np.ndarray, ...]]:
        """The weeks, and the rows of training, validation and test."""
        found = self.read(self.test_set)
        weeks = found if isinstance(found, WeekTable) else self._of_visits(found)
        if "rows" in self.protocol.known:
            weeks = self._on_grid(weeks)
        if weeks.user_id is None:
            return weeks, split_by_sequence(weeks.cells, **self.protocol.split)
        return weeks, split_weeks_by_user(weeks.user_id, **self.protocol.split)

    @property
    def _slots(self) -> int:
        """Of a day."""
        return int(self.protocol.known.get("slots_per_day", 24))

    @property
    def _test_rows(self) -> np.ndarray:
        """Of the weeks that are compared."""
        _, (train, _, test) = self._weeks
        number = min(int(self.protocol.known["number"]), len(train), len(test))
        return np.sort(np.random.default_rng(0).permutation(test)[:number])

    def _training(self, draw: int) -> WeekTraining:
        weeks, (train, _, _) = self._weeks
        return WeekTraining(weeks.cells[train], *self._centres, self._slots, seed=draw)

    @property
    def _centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude of the cells, degrees."""
        weeks, _ = self._weeks
        if weeks.lat is None or weeks.lon is None:
            raise DataError(f"{self.test_set.name}: the weeks need the coordinates of their cells.")
        return weeks.lat, weeks.lon

    def _of_visits(self, made: Any) -> WeekTable:
        """Weeks of a simulated city on square cells."""
        tokenizer = MstarTokenizer.from_visits(
            made.visits, timezone=made.timezone, cell_km=float(self.protocol.known["cell_km"])
        )
        weeks = tokenizer.weeks(made.visits)
        return _table(weeks.cells, weeks.user_id, tokenizer)

    def _on_grid(self, weeks: WeekTable) -> WeekTable:
        """Weeks on a coarser grid over part of their area; those that leave it are dropped."""
        known, slots = self.protocol.known, self._slots
        tokenizer = MstarTokenizer.from_grid(
            tuple(known["bounds"]),
            rows=known["rows"],
            columns=known["columns"],
            timezone=known["timezone"],
            num_hours=weeks.cells.shape[1],
            interval_minutes=24 * 60 // slots,
        )
        cells = tokenizer.cells_at(weeks.lat, weeks.lon)[weeks.cells]
        inside = (cells >= 0).all(axis=1)
        users = None if weeks.user_id is None else weeks.user_id[inside]
        return _table(cells[inside].astype(np.int32), users, tokenizer)


def _table(cells: np.ndarray, users: Any, tokenizer: Any) -> WeekTable:
    import pandas as pd

    extra = pd.DataFrame(index=range(len(cells)))
    lat, lon = np.asarray(tokenizer.lat, np.float64), np.asarray(tokenizer.lon, np.float64)
    return WeekTable(cells, users, None, extra, lat=lat, lon=lon, timezone=tokenizer.timezone)
