"""Gravity and radiation: the classical models of flows, without training or with four numbers to fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from .pairs import PairGeometry, blocks, distances, intervening
from .prediction import FlowModel
from .regions import geometry_of, masses_of
from .task import FlowArea, FlowTask

ORIGINS = 50  # of each training area, evenly spaced, so that large areas do not fill the memory
Deterrence = Literal["power", "exponential"]


class OutflowRegression:
    """Outflow = a population ** b, by least squares of the logarithms; with one population an area's outflows differ
    by population alone."""

    def fit(self, task: FlowTask) -> OutflowRegression:
        population = np.concatenate([masses_of(area)[:, 0] for area in task.areas])
        outflow = np.concatenate([area.outflows for area in task.areas])
        some = (population > 0) & (outflow > 0)
        self.slope, self.level = np.polyfit(np.log(population[some]), np.log(outflow[some]), 1)
        return self

    def predict(self, area: FlowArea) -> np.ndarray:
        """float64 (n,)."""
        population = masses_of(area)[:, 0]
        return np.where(population > 0, np.exp(self.level) * np.maximum(population, 1) ** self.slope, 0.0)


class GravityModel(FlowModel):
    """Flow = c origin's population ** a * destination's masses ** b * deterrence(distance) (Zipf 1946; Wilson 1971).

    Args:
        deterrence: "power" of the distance or "exponential".
        constrained: shares of an outflow (production-constrained), fitted by multinomial likelihood. Otherwise all
            numbers are fitted by least squares of log(1 + flow).

    The masses of a destination are its population and its points of interest. The distance within a region is half the
    spacing of regions around it.

    Example:
        >>> model = GravityModel("exponential", constrained=True).fit(train)  # doctest: +SKIP
        >>> model.predict(area, outflows).sum(axis=1)  # the outflows  # doctest: +SKIP
    """

    def __init__(self, deterrence: Deterrence = "power", *, constrained: bool = False) -> None:
        if deterrence not in ("power", "exponential"):
            raise ValueError(f"deterrence is 'power' or 'exponential', not {deterrence!r}.")
        self.deterrence, self.constrained = deterrence, constrained
        self.name = f"gravity, {deterrence}{', production-constrained' if constrained else ''}"

    def fit(self, task: FlowTask) -> GravityModel:
        features, flows, starts, counts = [], [], [], []
        for area in task.areas:
            rows = np.unique(np.linspace(0, len(area) - 1, ORIGINS).astype(int))
            features.append(self._features(geometry_of(area), rows).reshape(-1, 5))
            flows.append(area.observed[rows].ravel())
            starts.append(np.full(len(rows), len(area)))
            counts.append(np.full(len(rows) * len(area), 1 / (len(rows) * len(area))))
        x, y, lengths = np.concatenate(features), np.concatenate(flows), np.concatenate(starts)
        if self.constrained:
            self.weights = _multinomial(x[:, 2:], y, np.concatenate([[0], np.cumsum(lengths)[:-1]]))
            self.outflow = OutflowRegression().fit(task)
        else:
            design = np.column_stack([np.ones(len(x)), x])
            weight = np.sqrt(np.concatenate(counts))  # every area counts the same
            self.weights = np.linalg.lstsq(design * weight[:, None], np.log1p(y) * weight, rcond=None)[0]
        return self

    def rows(self, area: FlowArea, outflows: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        expected = self.outflow.predict(area) if self.constrained and outflows is None else outflows
        geometry = geometry_of(area)
        for rows in blocks(area):
            x = self._features(geometry, rows)
            if not self.constrained:
                yield rows, np.expm1(np.maximum(self.weights[0] + x @ self.weights[1:], 0))
                continue
            score = x[..., 2:] @ self.weights
            share = np.exp(score - score.max(axis=1, keepdims=True))
            assert expected is not None
            yield rows, expected[rows, None] * share / share.sum(axis=1, keepdims=True)

    def _features(self, geometry: PairGeometry, rows: np.ndarray) -> np.ndarray:
        """(m, n, 5): logarithms of population at the origin and in the area, and of both masses at the destination;
        the distance or its logarithm."""
        km = distances(geometry.area, rows)
        same = rows[:, None] == np.arange(len(geometry.area))
        km = np.where(same, geometry.spacing[rows, None] / 2, km) + 1e-3
        logs = np.log1p(geometry.masses)
        origin = np.broadcast_to(logs[rows, None, 0], km.shape)
        total = np.full(km.shape, np.log1p(geometry.masses[:, 0].sum()))
        destination = [np.broadcast_to(logs[:, m], km.shape) for m in range(logs.shape[1])]
        return np.stack([origin, total, *destination, np.log(km) if self.deterrence == "power" else km], axis=-1)


class RadiationModel(FlowModel):
    """Flow = outflow * m n / ((m + s) (m + n + s)), each row scaled to the outflow.

    The population is m at the origin, n at the destination and s nearer than the destination (Simini et al. 2012,
    Nature 484:96, equation 2).

    Flows within a region follow the same formula with s = 0. Only the outflows are fitted (`OutflowRegression`).
    """

    name = "radiation"

    def fit(self, task: FlowTask) -> RadiationModel:
        self.outflow = OutflowRegression().fit(task)
        return self

    def rows(self, area: FlowArea, outflows: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        expected = self.outflow.predict(area) if outflows is None else outflows
        mass = masses_of(area)[:, 0] + 1.0
        for rows in blocks(area):
            km = distances(area, rows)
            km[rows[:, None] == np.arange(len(area))] = -1.0
            between = intervening(mass, np.argsort(km, axis=1, kind="stable"))
            own = mass[rows, None]
            share = own * mass / ((own + between) * (own + mass + between))
            yield rows, expected[rows, None] * share / share.sum(axis=1, keepdims=True)


def _multinomial(x: np.ndarray, flows: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Weights (3,) of the scores x (pairs, 3) that make the shares within each origin most likely.

    Args:
        starts: first pair of each origin. Every origin with a flow counts the same.
    """
    from scipy.optimize import minimize

    spread = x.std(axis=0)
    z = (x / spread).astype(np.float64)
    total = np.add.reduceat(flows, starts)
    row = np.repeat(np.arange(len(starts)), np.diff([*starts, len(flows)]))
    share = flows / np.maximum(total, 1)[row]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        score = z @ weights
        score -= np.maximum.reduceat(score, starts)[row]
        weight = np.exp(score)
        sums = np.add.reduceat(weight, starts)
        some = total > 0
        value = float((np.log(sums) * some).sum() - share @ score)
        gradient = z.T @ (weight / sums[row] * some[row] - share)
        return value / len(starts), gradient / len(starts)

    fitted: Any = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B")
    return fitted.x / spread
