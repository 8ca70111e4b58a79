"""Inputs of the network: the features of an area, normalized, and several areas padded to one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from .network import AreaBatch
from .pairs import LEAST_KM, PairGeometry, distances
from .regions import derived_features, geometry_of, log_columns
from .task import FlowArea, FlowTask

LARGEST = 5.0  # normalized features are cut to this size, so that strange areas stay near what was seen
ORIGINS = 30  # of each area, for the means of pair features


@dataclass(frozen=True, eq=False)
class Normalization:
    """Means and standard deviations of region features (K,) and of pair features (P,); every area counts the same."""

    region_mean: np.ndarray
    region_scale: np.ndarray
    pair_mean: np.ndarray
    pair_scale: np.ndarray

    @classmethod
    def of(cls, task: FlowTask) -> Normalization:
        regions, pairs = [], []
        for area in task.areas:
            geometry = geometry_of(area)
            rows = np.unique(np.linspace(0, len(area) - 1, ORIGINS).astype(int))
            pair = geometry.features(rows).astype(np.float64)
            regions.append(_moments(region_values(geometry)))
            pairs.append(_moments(pair.reshape(-1, pair.shape[-1])))
        return cls(*_mean_and_scale(regions), *_mean_and_scale(pairs))

    def regions(self, geometry: PairGeometry) -> Tensor:
        """float (n, K), 0 where a column is unknown."""
        values = (region_values(geometry) - self.region_mean) / self.region_scale
        return _tensor(np.clip(np.nan_to_num(values), -LARGEST, LARGEST))

    def pairs(self, geometry: PairGeometry, rows: np.ndarray) -> Tensor:
        """float (m, n, P)."""
        values = (geometry.features(rows) - self.pair_mean) / self.pair_scale
        return _tensor(np.clip(values, -LARGEST, LARGEST))

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(value) for name, value in asdict(self).items()}


def region_values(geometry: PairGeometry) -> np.ndarray:
    """float64 (n, K): the columns as logarithms, then `DERIVED`."""
    return np.concatenate([log_columns(geometry.area.features), derived_features(geometry)], axis=1)


def log_distances(geometry: PairGeometry, rows: np.ndarray) -> Tensor:
    """float (m, n): logarithms of distances in sizes of the area."""
    return _tensor(np.log((distances(geometry.area, rows) + LEAST_KM) / geometry.size))


def log_population(geometry: PairGeometry) -> Tensor:
    """float (n,)."""
    return _tensor(np.log1p(geometry.masses[:, 0]))


@dataclass(frozen=True, eq=False)
class AreaInputs:
    """All that training reads of an area: regions (n, K), pairs (n, n, P), log_km (n, n), log_population (n,) and flows
    (n, n)."""

    regions: Tensor
    pairs: Tensor
    log_km: Tensor
    log_population: Tensor
    flows: Tensor

    def __len__(self) -> int:
        return len(self.regions)

    @classmethod
    def of(cls, area: FlowArea, normalization: Normalization) -> AreaInputs:
        geometry, rows = geometry_of(area), np.arange(len(area))
        return cls(
            normalization.regions(geometry),
            normalization.pairs(geometry, rows),
            log_distances(geometry, rows),
            log_population(geometry),
            _tensor(area.observed),
        )


def batch_of(areas: Sequence[AreaInputs], rows: Sequence[np.ndarray], known: np.ndarray) -> AreaBatch:
    """Areas padded to the largest of them.

    Args:
        rows: origins of each area.
        known: bool (B,), whose outflows are given.
    """
    count, most, regions = len(areas), max(map(len, rows)), max(map(len, areas))
    first = areas[0]
    batch = AreaBatch(
        regions=torch.zeros(count, regions, first.regions.shape[-1]),
        rows=torch.zeros(count, most, dtype=torch.long),
        is_row=torch.zeros(count, most, dtype=torch.bool),
        pairs=torch.zeros(count, most, regions, first.pairs.shape[-1]),
        log_km=torch.zeros(count, regions, regions),
        real=torch.zeros(count, regions, dtype=torch.bool),
        log_population=torch.zeros(count, regions),
        outflows=torch.zeros(count, regions),
        known=torch.from_numpy(known),
        flows=torch.zeros(count, most, regions),
    )
    for i, (area, some) in enumerate(zip(areas, rows)):
        n, m, chosen = len(area), len(some), torch.from_numpy(some)
        batch.regions[i, :n], batch.log_km[i, :n, :n], batch.real[i, :n] = area.regions, area.log_km, True
        batch.log_population[i, :n], batch.outflows[i, :n] = area.log_population, area.flows.sum(dim=1)
        batch.pairs[i, :m, :n], batch.flows[i, :m, :n] = area.pairs[chosen], area.flows[chosen]
        batch.rows[i, :m], batch.is_row[i, :m] = chosen, True
    return batch


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _moments(values: np.ndarray) -> np.ndarray:
    return np.stack([values.mean(axis=0), (values**2).mean(axis=0)])


def _mean_and_scale(moments: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    mean, square = np.mean(moments, axis=0)
    scale = np.sqrt(np.maximum(square - mean**2, 0))
    return mean.astype(np.float32), np.where(scale > 1e-3, scale, 1.0).astype(np.float32)
