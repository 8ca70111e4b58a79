"""What every model of flows offers, and flows that are scaled to given outflows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.errors import DataError
from .task import FlowArea, FlowTask, flows_frame


class FlowModel(ABC):
    """A model of flows: fitted on areas whose flows are known, it predicts those of other areas.

    Attributes:
        name: of the model in tables.
        least_flow: smaller predicted flows are set to 0. A flow below one half is more likely none than one.
    """

    name = ""
    least_flow = 0.0

    @abstractmethod
    def fit(self, task: FlowTask) -> Any:
        """Fit to the areas of a task and return self."""

    @abstractmethod
    def rows(self, area: FlowArea, outflows: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows (m,), flows (m, n)) block by block of origins.

        Args:
            area: of n regions; its `flows` are not looked at.
            outflows: float64 (n,), commuters who live in each region, or None where they are not known.
        """

    def predict(self, area: FlowArea, outflows: np.ndarray | None = None) -> np.ndarray:
        """float32 (n, n): flows from row to column. With `outflows` (n,), each row adds up to them.

        Raises:
            DataError: outflows of another length, missing or negative ones.
        """
        return np.concatenate([flows for _, flows in self.predict_blocks(area, outflows)])

    def predict_blocks(
        self, area: FlowArea, outflows: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The rows of `predict`, block by block, for areas whose n * n flows do not fit into memory."""
        given = None if outflows is None else checked_outflows(area, outflows)
        for rows, flows in self.rows(area, given):
            kept = np.where(flows < self.least_flow, 0.0, flows)
            yield rows, (kept if given is None else scaled(kept, flows, given[rows])).astype(np.float32)

    def predict_flows(self, regions: Any, outflows: Any = None, *, least_flow: float = 0.0) -> pd.DataFrame:
        """The OD table of the areas of a frame.

        Args:
            regions: frame or path with `region_id`, `lat`, `lon`, `total_population`, further numeric columns and, for
                several areas, `area`.
            outflows: frame or path with `region_id`, `outflow` (commuters who live there) and, for several areas,
                `area`, for every region; or None.
            least_flow: pairs with fewer commuters are left out. An area of n regions has up to n * n rows.

        Returns:
            `area`, `origin`, `destination`, `flow` (float32 commuters).

        Raises:
            DataError: a column is missing or holds values that cannot be used.

        Example:
            >>> table = model.predict_flows(regions)  # doctest: +SKIP
            >>> table.groupby("destination")["flow"].sum()  # workers by region  # doctest: +SKIP
        """
        task = FlowTask.from_frames(regions)
        given = task.outflows_of(outflows) if outflows is not None else [None] * len(task.areas)
        parts = []
        for area, own in zip(task.areas, given):
            for rows, flows in self.predict_blocks(area, own):
                parts.append(flows_frame(area, rows, flows, least=least_flow))
        return pd.concat(parts, ignore_index=True)


def checked_outflows(area: FlowArea, outflows: np.ndarray) -> np.ndarray:
    values = np.asarray(outflows, dtype=np.float64)
    if values.shape != (len(area),):
        raise DataError(f"Area {area.name!r} has {len(area)} regions, its outflows the shape {values.shape}.")
    if bad := int((~(np.isfinite(values) & (values >= 0))).sum()):
        raise DataError(f"{bad} of {len(area)} outflows of area {area.name!r} are missing or negative; repair them.")
    return values


def scaled(kept: np.ndarray, flows: np.ndarray, outflows: np.ndarray) -> np.ndarray:
    """Rows that add up to the outflows. A row of which nothing was kept takes its unthresholded flows."""
    rows = np.where(kept.sum(axis=1, keepdims=True) > 0, kept, flows)
    total = rows.sum(axis=1, keepdims=True)
    even = np.full_like(rows, 1 / rows.shape[1])
    return outflows[:, None] * np.where(total > 0, rows / np.where(total > 0, total, 1.0), even)
