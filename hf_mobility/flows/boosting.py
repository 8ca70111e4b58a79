"""Gradient-boosted trees over pairs of regions (LightGBM). Needs the extra `flows`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from .metrics import common_part
from .pairs import blocks
from .prediction import FlowModel
from .regions import derived_features, geometry_of, log_columns
from .task import FlowArea, FlowTask

PAIRS = 300  # of each training area, drawn at random
ORIGINS_DRAWN = 4  # times as many pairs are looked at, so that those of an area are of several origins
SCALES = np.arange(0.9, 2.05, 0.05)
SCALE_AREAS = 150  # from which the scale is chosen
BLOCK = 1 << 16  # pairs predicted together
FIXED: dict[str, Any] = {"verbosity": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True}
FIXED |= {"feature_fraction": 0.4, "min_data_in_leaf": 50, "max_bin": 63}


class BoostedTrees(FlowModel):
    """LightGBM from all that is known of origin, destination and pair.

    It reads the columns of both regions, what lies around them (`regions.DERIVED`) and the features of the pair
    (`pairs.PAIR_FEATURES`): distance, ranks and intervening opportunities. The network reads the same. All areas weigh
    the same. One factor on all flows is chosen for the best common part in training areas: means of logarithms are too
    small.

    Args:
        objective: "log" (squared error of log(1 + flow)) or "poisson" (likelihood of the flow).
        outflows_given: a model for areas whose outflows are known: those of both regions are more features.
        rounds, leaves, learning_rate: of LightGBM.
        seed: of LightGBM and of the pairs that it sees.

    Raises:
        ImportError: at `fit`, without the extra `flows`.

    Example:
        >>> model = BoostedTrees().fit(train)  # doctest: +SKIP
        >>> model.predict_flows(regions)  # doctest: +SKIP
    """

    def __init__(
        self,
        objective: Literal["log", "poisson"] = "log",
        *,
        outflows_given: bool = False,
        rounds: int = 150,
        leaves: int = 63,
        learning_rate: float = 0.1,
        seed: int = 0,
    ) -> None:
        if objective not in ("log", "poisson"):
            raise ValueError(f"objective is 'log' or 'poisson', not {objective!r}.")
        self.objective, self.outflows_given, self.seed, self.rounds = objective, outflows_given, seed, rounds
        self.options = {"num_leaves": leaves, "learning_rate": learning_rate, "seed": seed}
        self.scale = 1.0
        self.name = f"LightGBM, {objective}{', outflows as features' if outflows_given else ''}"

    def fit(self, task: FlowTask) -> BoostedTrees:
        lightgbm = _lightgbm()
        rng = np.random.default_rng(self.seed)
        inputs, targets, weights = [], [], []
        for area in task.areas:
            rows = np.sort(rng.permutation(len(area))[: max(1, ORIGINS_DRAWN * PAIRS // len(area))])
            x = _Features(area, area.outflows if self.outflows_given else None).block(rows)
            kept = np.sort(rng.permutation(len(x))[:PAIRS])
            flows = area.observed[rows].ravel()[kept]
            inputs.append(x[kept])
            targets.append(np.log1p(flows) if self.objective == "log" else flows)
            usual = 1.0 if self.objective == "log" else max(float(area.observed.mean()), 1e-3)
            weights.append(np.full(len(kept), 1 / (len(kept) * usual)))
        weight = np.concatenate(weights)
        data = lightgbm.Dataset(np.concatenate(inputs), np.concatenate(targets), weight=weight / weight.mean())
        objective = {"objective": "regression" if self.objective == "log" else "poisson"}
        self.booster: Any = lightgbm.train(FIXED | objective | self.options, data, num_boost_round=self.rounds)
        self.scale = 1.0
        if not self.outflows_given:
            self.scale = self._best_scale(task)
        return self

    def rows(self, area: FlowArea, outflows: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if self.outflows_given and outflows is None:
            raise ValueError(f"{self.name} was fitted for given outflows; give them.")
        features = _Features(area, outflows if self.outflows_given else None)
        for rows in blocks(area, BLOCK):
            y = self.booster.predict(features.block(rows), num_threads=1)
            flows = np.expm1(np.maximum(y, 0)) if self.objective == "log" else y
            yield rows, self.scale * flows.reshape(len(rows), len(area))

    def _best_scale(self, task: FlowTask) -> float:
        areas = sorted(task.areas, key=len)[:: max(1, len(task.areas) // SCALE_AREAS)]
        flows = [(area.observed, self.predict(area)) for area in areas if len(area) <= PAIRS // 2]
        means = [np.mean([common_part(observed, scale * found) for observed, found in flows]) for scale in SCALES]
        return float(SCALES[int(np.argmax(means))]) if flows else 1.0


class _Features:
    """Rows of one area's pairs: float32 (m * n, 2 * (F + derived) + pair features)."""

    def __init__(self, area: FlowArea, outflows: np.ndarray | None) -> None:
        self.geometry = geometry_of(area)
        parts = [log_columns(area.features), derived_features(self.geometry)]
        if outflows is not None:
            parts.append(np.log1p(np.stack([outflows, np.full(len(area), outflows.sum())], axis=1)))
        self.regions = np.concatenate(parts, axis=1).astype(np.float32)

    def block(self, rows: np.ndarray) -> np.ndarray:
        n = len(self.regions)
        pairs = self.geometry.features(rows).reshape(len(rows) * n, -1)
        origins, destinations = np.repeat(self.regions[rows], n, axis=0), np.tile(self.regions, (len(rows), 1))
        return np.concatenate([origins, destinations, pairs], axis=1)


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise ImportError("BoostedTrees needs LightGBM: pip install 'hf_mobility[flows]'.") from error
    return lightgbm
