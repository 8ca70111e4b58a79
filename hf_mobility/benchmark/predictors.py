"""What a model must offer to be ranked, and how the command line finds it.

A class of some twenty lines is enough. One object is made per run; before each case its `fit` is called, if it has one.
`seen` is optional too: SHA-256 sums of the files that the model was trained on, or a `TrainingRecord`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ..baselines.generators import Conditions
from ..data.tasks import NextLocationTask
from ..data.trajectory_tasks import TrajectoryTask
from ..flows.task import FlowArea, FlowTask
from ..tokenization.errors import DataError
from ..tokenization.grid import SquareGrid

ENTRY_POINT = re.compile(r"(?P<module>.+):(?P<name>[A-Za-z_]\w*)")


class NextLocationPredictor(Protocol):
    """Next locations. `fit(train)` is optional and takes a `NextLocationTraining`."""

    name: str

    def probabilities(self, task: NextLocationTask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows (m,), p (m, N)): a distribution over the N places for every target row, from earlier rows of the
        same user."""
        ...


class WeekGenerator(Protocol):
    """Weeks of cells. `fit(train)` is optional and takes a `WeekTraining`."""

    name: str

    def generate(self, conditions: Conditions, *, seed: int) -> np.ndarray:
        """(n, L) cells, one week for each condition (home and work)."""
        ...


class WeekCompleter(Protocol):
    """Whole weeks from partly known ones. `fit(train)` is optional and takes a `WeekTraining`."""

    name: str

    def complete(self, cells: np.ndarray, *, seed: int) -> np.ndarray:
        """(n, L) cells without unknown hours (-1); the known ones stay as they are."""
        ...


class FlowPredictor(Protocol):
    """Commuting flows. `fit(train)` is optional and takes an `AreaTraining`."""

    name: str

    def predict(self, area: FlowArea, outflows: np.ndarray | None) -> np.ndarray:
        """(n, n) commuters from row to column; `outflows` (n,) of the regions where the case gives them."""
        ...


class RegionEmbedder(Protocol):
    """Features of regions, which a linear reader turns into labels."""

    name: str

    def embed(self, task: RegionTask) -> np.ndarray:
        """(R, any) numbers, a row for each of `task.cells`."""
        ...


class TrajectoryForecaster(Protocol):
    """Future positions. `fit(train)` is optional and takes a `TrajectoryTraining`."""

    name: str

    def predict(self, task: TrajectoryTask) -> np.ndarray:
        """(N, H, 2) box units from `task.known`; `task.future` is not to be looked at."""
        ...


@dataclass(frozen=True, eq=False)
class NextLocationTraining:
    """What a model may learn before one case of next locations.

    Fields:
        visits: canonical frame, the visits of the test city that may be known.
        city: the test city with all its places; its popularity counts `visits`.
        make_sources: gives the tasks of other cities, every visit of which may be learned from; read when asked for.
        seed: of this draw.
    """

    visits: pd.DataFrame
    city: Any
    make_sources: Callable[[], Sequence[NextLocationTask]]
    seed: int = 0

    @property
    def sources(self) -> Sequence[NextLocationTask]:
        """Tasks of other cities; the same objects in every case."""
        return self.make_sources()


@dataclass(frozen=True, eq=False)
class WeekTraining:
    """cells: (M, L) training weeks, -1 = unknown. lat, lon: (C,) degrees of the cells. slots_per_day. seed: of the
    draw."""

    cells: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    slots_per_day: int
    seed: int = 0


@dataclass(frozen=True, eq=False)
class TrajectoryTraining:
    """Of other users than those of the test.

    Fields:
        points: (M, T, 2) box units, whole windows. tokenizer: the `RawTokenizer` that made them.
        tasks: the same kind of predictions as in the test, with their ends. seed: of the draw.
    """

    points: np.ndarray
    tokenizer: Any
    tasks: Sequence[TrajectoryTask]
    seed: int = 0


@dataclass(frozen=True, eq=False)
class AreaTraining:
    """task: areas with flows. outflows_given: whether those of the test are told. seed: of the draw."""

    task: FlowTask
    outflows_given: bool
    seed: int = 0


@dataclass(frozen=True, eq=False)
class RegionTask:
    """What is known of regions.

    Fields:
        points: canonical frame `user_id`, `time`, `lat`, `lon`, without what the labels are made of.
        grid: whose cells are the regions. cells: (R,) their numbers.
        timezone: IANA name. min_users: in each of the cells at least.
    """

    points: pd.DataFrame
    grid: SquareGrid
    cells: np.ndarray
    timezone: str
    min_users: int


@dataclass(frozen=True)
class Candidate:
    """A model to rank.

    Fields:
        name: in tables. kind: "baseline", "checkpoint" or "entry point". hash: of its files or its source.
        made: the predictor; None for a checkpoint, which is loaded from `folder` (or Hub id).
        source: what results say of where it comes from; no path of this machine.
    """

    name: str
    kind: str
    hash: str
    made: Any = None
    folder: str = ""
    source: str = ""


def resolve(model: str | Path | Any) -> Candidate:
    """A folder or Hub id, an entry point `file.py:Class` or `module:Class`, or an object that predicts.

    An entry point runs the user's code, so it is taken from the command line or the caller only, never from a file.

    Raises:
        DataError: a file or name that is not there.
        OSError: no such folder or repository.
    """
    if not isinstance(model, (str, Path)):
        made: Any = model() if inspect.isclass(model) else model
        return Candidate(str(made.name), "entry point", source_hash(made), made)
    text = str(model)
    found = ENTRY_POINT.fullmatch(text)
    if found is not None and not Path(text).exists():
        kind = _attribute(found["module"], found["name"])
        made = kind() if inspect.isclass(kind) else kind
        name = str(getattr(made, "name", found["name"]))
        shown = f"{Path(found['module']).name}:{found['name']}"
        return Candidate(name, "entry point", source_hash(made), made, source=shown)
    name = Path(text).resolve().name if Path(text).is_dir() else text.rpartition("/")[2]
    shown = name if Path(text).is_dir() else text
    return Candidate(name, "checkpoint", _checkpoint_hash(text), folder=text, source=shown)


def _attribute(module: str, name: str) -> Any:
    loaded = _loaded(module)
    if not hasattr(loaded, name):
        raise DataError(f"{module} has no {name!r}; give the class or object that predicts, as in model.py:MyModel.")
    return getattr(loaded, name)


def _loaded(module: str) -> ModuleType:
    if not module.endswith(".py"):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise DataError(
                f"There is no module {module!r}; for a file write its path, as in model.py:MyModel."
            ) from error
    path = Path(module)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {module}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def source_hash(made: Any) -> str:
    """Of the file that defines a predictor's class, or its `made_of`, and of its names; what that file imports is not
    covered."""
    kind = getattr(made, "made_of", type(made))
    try:
        source = Path(inspect.getfile(kind)).read_bytes()
    except (OSError, TypeError):
        source = b""
    return hashlib.sha256(f"{kind.__qualname__} {made.name}\n".encode() + source).hexdigest()


def _checkpoint_hash(model: str) -> str:
    """Of a folder's files but its card and results; of a Hub id, its commit."""
    folder = Path(model)
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".md", ".yaml"))
        parts = [
            f"{path.relative_to(folder).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    from transformers import AutoConfig

    from ..hub.requests import loading

    with loading(model):
        config = AutoConfig.from_pretrained(model)
    return hashlib.sha256(f"{model} {getattr(config, '_commit_hash', None)}".encode()).hexdigest()
