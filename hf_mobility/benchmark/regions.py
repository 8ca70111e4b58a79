"""Protocols of regions: labels of cells read by a linear model from features, while the cell's whole block is held
out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..baselines.regions import region_counts
from ..data.regions import visitors
from ..data.splits import deal_groups
from ..evaluation.probe_models import fit_linear, standardizer
from ..evaluation.probes import regression_metrics, spatial_blocks
from ..modeling.modeling_raw import RawModel
from ..pipelines.embedding import MobilityEmbeddingPipeline
from ..tokenization.errors import DataError
from ..tokenization.grid import SquareGrid
from ..tokenization.tokenization_raw import RawTokenizer
from .bench import Bench, Case
from .datasets_more import LabelledCells
from .predictors import RegionTask
from .scores import Score, rounded


@dataclass(frozen=True, eq=False)
class Read:
    """Of each label, what was read in each deal of the blocks: name -> (seeds, R)."""

    values: dict[str, np.ndarray]


class Counts:
    """Counts of points, one kind of `region_counts`."""

    made_of = staticmethod(region_counts)

    def __init__(self, name: str) -> None:
        self.name = name

    def embed(self, task: RegionTask) -> np.ndarray:
        there = visitors(task.points, task.grid)
        users = np.bincount(there.region, minlength=len(task.grid))
        return region_counts(task.points, task.grid, task.timezone, users)[self.name][task.cells]


class RawRegions:
    """States of a RAW encoder, pooled over the slots spent in each cell; in the box of the grid.

    Args:
        model: a `RawModel`. name: in tables.
    """

    def __init__(self, model: RawModel, *, name: str) -> None:
        self.model, self.name = model, name

    def embed(self, task: RegionTask) -> np.ndarray:
        grid = task.grid
        bounds = (grid.south, grid.west, grid.north, grid.east)
        tokenizer = RawTokenizer.from_bounds(bounds, timezone=task.timezone, config=self.model.config)
        pipe = MobilityEmbeddingPipeline(self.model, tokenizer)
        table = pipe.embed_regions(task.points, grid, pooling="slots", min_users=task.min_users)
        own = table.set_index("region_id").drop(columns="users").reindex(grid.cell_id(task.cells))
        return own.fillna(0.0).to_numpy(np.float64)  # fewer users by slots than by points


class RegionBench(Bench):
    """`known`: `bounds`, `rows` and `columns` of the grid, `timezone`, `min_users` of a cell, and `labels`. `split`:
    `block_km`, `folds` that the blocks are dealt into, and `seeds`, how many deals. Labels are read as log(1 + n)."""

    @cached_property
    def cases(self) -> list[Case]:
        return [Case(self.test_set.name, draw, self._task, self._task) for draw in range(self.protocol.draws)]

    def baselines(self) -> dict[str, Callable[[], Any]]:
        names = ("number of visitors", "total points", "visits by hour of the day", "visits by hour of the week")
        counts = {name: partial(Counts, name) for name in names}
        return {**counts, "untrained RAW, slots": partial(untrained, name="untrained RAW, slots")}

    def checkpoint(self, folder: str, *, name: str) -> RawRegions:
        return RawRegions(MobilityEmbeddingPipeline.from_pretrained(folder).model, name=name)

    def outcome(self, predictor: Any, case: Case) -> Read:
        features = np.asarray(predictor.embed(case.task), np.float64)
        if features.ndim != 2 or len(features) != len(case.task.cells) or not np.isfinite(features).all():
            raise DataError(
                f"{predictor.name} gives features of shape {features.shape}, or values that are not finite; expected "
                f"{len(case.task.cells)} finite rows."
            )
        return Read({name: self._read(features, label) for name, label in self._labels.items()})

    def scores(self, case: Case, outcome: Read) -> list[Score]:
        """Means over the deals; blocks are resampled for the intervals."""
        found = []
        for name, values in outcome.values.items():
            drawn = [self._metrics(name, values, rows) for rows in self._resampled]
            whole = self._metrics(name, values, np.arange(len(self._blocks)))
            for metric in self.protocol.metrics:
                ends = _ends([one[metric] for one in drawn])
                bounds: dict[str, Any] = {"low": rounded(ends[0]), "high": rounded(ends[1])}
                found.append(
                    Score(case.name, f"all, {name}", metric, rounded(whole[metric]), **bounds, n=len(self._blocks))
                )
        return found

    def differences(self, case: Case, ours: Read, theirs: Read) -> dict[str, Any]:
        metric, found = self.protocol.metrics[0], {}
        for name in ours.values:

            def gap(rows: np.ndarray, name: str = name) -> float:
                one, other = (self._metrics(name, read.values[name], rows)[metric] for read in (ours, theirs))
                return one - other

            ends = _ends([gap(rows) for rows in self._resampled])
            found[f"{metric}, {name}"] = (gap(np.arange(len(self._blocks))), *ends)
        return found

    def parts(self) -> tuple[Any, Any]:
        points = self._task.points
        return points, points[:0]

    def split_content(self, case: Case) -> Sequence[np.ndarray]:
        return [case.task.cells, self._blocks, *self._labels.values()]

    # The parts

    @cached_property
    def _data(self) -> LabelledCells:
        return self.read(self.test_set)

    @cached_property
    def _task(self) -> RegionTask:
        known = self.protocol.known
        south, west, north, east = known["bounds"]
        grid = SquareGrid(south, west, north, east, int(known["rows"]), int(known["columns"]))
        there = visitors(self._data.points, grid)
        cells = np.flatnonzero(np.bincount(there.region, minlength=len(grid)) >= int(known["min_users"]))
        return RegionTask(self._data.points, grid, cells, known["timezone"], int(known["min_users"]))

    @cached_property
    def _labels(self) -> dict[str, np.ndarray]:
        table = self._data.labels.reindex(self._task.cells).fillna(0)
        return {name: np.log1p(table[name].to_numpy(np.float64)) for name in self.protocol.known["labels"]}

    @cached_property
    def _blocks(self) -> np.ndarray:
        """(R,) the block of each cell."""
        lat, lon = self._task.grid.centre(self._task.cells)
        return spatial_blocks(lat, lon, block_km=float(self.protocol.split["block_km"]))

    @cached_property
    def _resampled(self) -> list[np.ndarray]:
        """Rows of resampled blocks."""
        rows = [np.flatnonzero(self._blocks == block) for block in range(self._blocks.max() + 1)]
        rng = np.random.default_rng(0)
        drawn = rng.integers(len(rows), size=(self.protocol.bootstrap, len(rows)))
        return [np.concatenate([rows[one] for one in some]) for some in drawn]

    def _read(self, features: np.ndarray, label: np.ndarray) -> np.ndarray:
        """(seeds, R): each cell's label as read by a model that saw no cell of its block."""
        split = self.protocol.split
        found = np.empty((int(split["seeds"]), len(label)))
        for seed in range(len(found)):
            fold = deal_groups(self._blocks, folds=int(split["folds"]), seed=seed)
            for number in range(int(split["folds"])):
                train, test = fold != number, fold == number
                mean, scale = standardizer(features[train])
                x = (features - mean) / scale
                read = fit_linear(x[train], label[train], groups=self._blocks[train], binary=False, seed=seed)
                found[seed, test] = read(x[test])
        return found

    def _metrics(self, name: str, values: np.ndarray, rows: np.ndarray) -> dict[str, float]:
        """Means over the deals."""
        found = [regression_metrics(self._labels[name][rows], one[rows]) for one in values]
        return {metric: float(np.mean([one[metric] for one in found])) for metric in self.protocol.metrics}


def untrained(*, name: str) -> RawRegions:
    """A small RAW of seed 0 that has learned nothing."""
    import torch

    from ..modeling.configuration_raw import RawConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RawRegions(RawModel(RawConfig.from_preset("small", max_position_embeddings=672)), name=name)


def _ends(values: list[float]) -> tuple[float, float]:
    low, high = np.nanpercentile(values, (2.5, 97.5)) if values else (np.nan, np.nan)
    return float(low), float(high)
