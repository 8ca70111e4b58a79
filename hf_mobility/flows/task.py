"""Areas of regions and the commuters between them: two frames in, one `FlowTask` out, and back.

A regions frame has one row per region: `area`, `region_id`, `lat`, `lon` (degrees, a point inside the region) and any
number of numeric columns, such as census figures and counts of points of interest. A frame of flows (an OD table) has
one row per pair: `area`, `origin`, `destination`, `flow`. Pairs that are absent have no flow. Where there is one area
only, both frames may lack the column `area`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.errors import DataError, listing, refuse
from ..tokenization.tables import coordinate_columns, counts_column, id_column, number_column, open_table, plain

__all__ = ["FlowArea", "FlowTask", "flows_frame"]

ONE_AREA = "area"  # name of the area where the frames have no column of that name
_KEYS = ("area", "region_id", "lat", "lon")


@dataclass(frozen=True, eq=False)
class FlowArea:
    """One area: n regions, F columns.

    Fields:
        name: of the area.
        columns: names of the F columns.
        region_ids: (n,) ids, in the order of the frame.
        lat, lon: float64 (n,), degrees.
        features: float64 (n, F). A column that the frame lacks is NaN.
        flows: float32 (n, n), commuters from row to column, or None where they are not known.
    """

    name: str
    columns: tuple[str, ...]
    region_ids: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    features: np.ndarray
    flows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.region_ids)

    def with_columns(self, columns: Sequence[str]) -> FlowArea:
        """The same area with these columns; those that it lacks are NaN."""
        if tuple(columns) == self.columns:
            return self
        at = {name: number for number, name in enumerate(self.columns)}
        unknown = np.full(len(self), np.nan)
        features = [self.features[:, at[name]] if name in at else unknown for name in columns]
        return replace(self, columns=tuple(columns), features=np.stack(features, axis=1))

    @cached_property
    def observed(self) -> np.ndarray:
        """The flows (n, n).

        Raises:
            DataError: they are not known.
        """
        if self.flows is None:
            raise DataError(f"The flows of area {self.name!r} are not known; make the task with a frame of flows.")
        return self.flows

    @cached_property
    def outflows(self) -> np.ndarray:
        """float64 (n,): observed commuters who live in each region."""
        return self.observed.sum(axis=1, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class FlowTask:
    """Areas with the same columns, in the order of their first region in the frame.

    Example:
        >>> regions = pd.DataFrame({"region_id": ["a", "b"], "lat": [48.1, 48.2], "lon": [11.5, 11.6]})
        >>> regions["total_population"] = [4000, 2500]
        >>> flows = pd.DataFrame({"origin": ["a", "b"], "destination": ["b", "b"], "flow": [120, 800]})
        >>> FlowTask.from_frames(regions, flows).areas[0].flows.tolist()
        [[0.0, 120.0], [0.0, 800.0]]
    """

    areas: tuple[FlowArea, ...]

    @classmethod
    def from_frames(cls, regions: Any, flows: Any = None, *, columns: Sequence[str] | None = None) -> FlowTask:
        """Check the frames and group them by area.

        Args:
            regions: DataFrame or path with `region_id`, `lat`, `lon`, numeric columns and, for several areas, `area`.
            flows: DataFrame or path with `origin`, `destination`, `flow` and, for several areas, `area`; or None.
            columns: of `regions` to take; by default all but those named above. Those that the frame lacks are NaN.

        Raises:
            DataError: a column is missing, a region or a pair stands there twice, a value is missing or negative, or a
                flow names a region that is not there.
        """
        table = _open(regions, ("region_id", "lat", "lon"), "regions")
        names = [str(name) for name in table.columns if name not in _KEYS] if columns is None else list(columns)
        if not names:
            raise DataError("The regions have no column besides area, region_id, lat and lon; add population at least.")
        area = _areas(table)
        region = id_column(plain(table["region_id"]), "region_id", as_text=False)
        lat, lon = coordinate_columns(table, "lat", "lon")
        twice = pd.DataFrame({"area": area, "region": region}).duplicated().to_numpy()
        refuse(twice, "region_id", "of a region that was named before", "keep one row per area and region", region)
        features = np.column_stack([_feature(table, name) for name in names])
        ids = np.asarray(region)
        groups = pd.DataFrame({"area": area}).groupby("area", sort=False).indices
        areas = tuple(
            FlowArea(str(name), tuple(names), ids[rows], lat[rows], lon[rows], features[rows])
            for name, rows in groups.items()
        )
        task = cls(areas)
        return task if flows is None else task.with_flows(flows)

    def with_flows(self, flows: Any) -> FlowTask:
        """The same areas with the flows of an OD frame; pairs that it does not name are 0.

        Raises:
            DataError: as in `from_frames`.
        """
        table = _open(flows, ("origin", "destination", "flow"), "flows")
        area = _areas(table)
        known = pd.Index([a.name for a in self.areas])
        code = known.get_indexer(pd.Index(area))
        refuse(code < 0, "area", "not an area of the regions", "drop these flows or add the regions", area)
        flow = counts_column(table, "flow", "commuters")
        names = ("origin", "destination")
        ends = {name: np.asarray(id_column(plain(table[name]), name, as_text=False)) for name in names}
        filled = []
        order = np.argsort(code, kind="stable")
        bounds = np.searchsorted(code[order], np.arange(len(known) + 1))
        for number, part in enumerate(self.areas):
            rows = order[bounds[number] : bounds[number + 1]]
            at = [_rows_of(part, ends[name][rows], name) for name in ends]
            pair = at[0] * len(part) + at[1]
            if len(np.unique(pair)) < len(pair):
                raise DataError(f"The flows of area {part.name!r} name a pair of regions twice; add up its rows.")
            matrix = np.zeros((len(part), len(part)), np.float32)
            matrix[at[0], at[1]] = flow[rows]
            filled.append(replace(part, flows=matrix))
        return replace(self, areas=tuple(filled))

    def outflows_of(self, table: Any) -> list[np.ndarray]:
        """Outflows (n,) of the regions of each area, from a frame with `region_id`, `outflow` and, for several areas,
        `area`.

        Raises:
            DataError: a region is missing or stands there twice, or an outflow is missing or negative.
        """
        table = _open(table, ("region_id", "outflow"), "outflows")
        values = number_column(plain(table["outflow"]), "outflow", "commuters")
        keys = [
            _areas(table),
            np.asarray(id_column(plain(table["region_id"]), "region_id", as_text=False), dtype=object),
        ]
        index = pd.MultiIndex.from_arrays(keys)
        refuse(
            index.duplicated(),
            "region_id",
            "of a region that was named before",
            "keep one row each",
            table["region_id"],
        )
        outflows = []
        for area in self.areas:
            wanted = pd.MultiIndex.from_arrays([[area.name] * len(area), area.region_ids.astype(object)])
            at = index.get_indexer(wanted)
            refuse(at < 0, "region_id", f"of area {area.name!r} without an outflow", "give all", area.region_ids)
            outflows.append(values[at])
        return outflows

    def select(self, names: Collection[str]) -> FlowTask:
        """The areas of these names, in the order of the task.

        Raises:
            KeyError: a name is not there.
        """
        wanted = set(names)
        if missing := wanted - {area.name for area in self.areas}:
            raise KeyError(f"The task has no area {listing(sorted(missing)[:5])}.")
        return replace(self, areas=tuple(area for area in self.areas if area.name in wanted))


def flows_frame(area: FlowArea, rows: np.ndarray, flows: np.ndarray, *, least: float = 0.0) -> pd.DataFrame:
    """The OD frame of some origins `rows` (m,) of an area: flows (m, n) above `least`."""
    origin, destination = np.nonzero(flows > least)
    columns = {"origin": area.region_ids[rows[origin]], "destination": area.region_ids[destination]}
    return pd.DataFrame({"area": area.name, **columns, "flow": flows[origin, destination]})


def _open(frame: Any, needed: tuple[str, ...], what: str) -> pd.DataFrame:
    found, read = open_table(frame, {})
    if missing := [name for name in needed if name not in found]:
        raise DataError(f"The {what} have no column {listing(missing)}; they have {listing(found[:20])}.")
    table = read(found)
    if len(table) == 0:
        raise DataError(f"The {what} have no rows; at least one row is needed.")
    return table.reset_index(drop=True)


def _areas(table: pd.DataFrame) -> np.ndarray:
    if "area" not in table.columns:
        return np.full(len(table), ONE_AREA, dtype=object)
    return np.asarray(id_column(plain(table["area"]), "area", as_text=True), dtype=object)


def _feature(table: pd.DataFrame, name: str) -> np.ndarray:
    if name not in table.columns:
        return np.full(len(table), np.nan)
    values = number_column(plain(table[name]), name, "a figure of the region")
    refuse(~np.isfinite(values), name, "missing or infinite", "fill them or drop the column", table[name])
    return values


def _rows_of(area: FlowArea, ids: np.ndarray, column: str) -> np.ndarray:
    at = pd.Index(area.region_ids).get_indexer(ids)
    fault = f"not a region of area {area.name!r}"
    refuse(at < 0, column, fault, "drop these flows or add the regions", ids)
    return at
