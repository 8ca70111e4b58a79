"""M-STAR's tokenizer: one city as nested grids. It turns records into weeks of cells, their coarser views and their
conditions (home, second place, movement attribute), draws new conditions, and turns weeks of cells back into columns.

Unusual: one sample is a whole week (168 hours unless set otherwise), so nothing is padded; an hour of which nothing is
known holds 0 and is masked. The text path ("cell cell ? cell", finest cells, ? = unknown) stays alive for generic
tools. It holds no weights: the learned codec is a model (`MstarCodecModel`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import BatchEncoding, PreTrainedTokenizer

from .city_mstar import FIELDS
from .conditions_mstar import ConditionedCity, ConditionTables
from .grid import Box, SquareGrid
from .records import read_degrees

FORMAT_VERSION = 1
KIND = "mstar"
FACTORS = (8, 4, 2, 1)
LEARNED = ("attribute_method", "num_attributes", "medoids", "conditions")


class MstarTokenizer(ConditionedCity, PreTrainedTokenizer):
    """Weeks of one city -> model inputs, and back.

    Args:
        city_file, table_file: `city.json` and `city.safetensors`, as `save_pretrained` writes them.
        city: a dict or any object with `lat`, `lon` (C,) float64 degrees, `cell_map` (C, R) coarse to fine and
            `timezone`; optionally `name`, `num_hours` (168), `interval_minutes` (60), `box` (south, west, north, east)
            with `rows` and `columns`, which points need, and what `fit_conditions` makes: `attribute_method`,
            `num_attributes`, `medoids`, `conditions`. See `from_grid`, `from_visits` and `from_square_grid`.
        home_hours, commute_hours, commute_days: local hours and weekdays (Monday = 0), end excluded, that tell the home
            and the second place (spec 3). Windows that are no whole weeks use every day.
        pad_token: how the text path writes an unknown hour.

    Raises:
        ValueError: without a city, for fields that contradict one another, or a city file of another kind or version.
    """

    _auto_class = "AutoTokenizer"  # saved with its code
    vocab_files_names = {"city_file": "city.json", "table_file": "city.safetensors"}
    model_input_names = ["input_ids", "attention_mask", "home_ids", "commute_ids", "attribute_ids"]
    special_tokens_pattern = "none"

    def __init__(
        self,
        city_file: str | None = None,
        table_file: str | None = None,
        *,
        city: Any = None,
        home_hours: Sequence[int] = (0, 8),
        commute_hours: Sequence[int] = (10, 18),
        commute_days: Sequence[int] = (0, 5),
        pad_token: str = "?",
        **kwargs: Any,
    ) -> None:
        if city is None:
            if city_file is None or table_file is None:
                folder = kwargs.get("name_or_path")  # of `from_pretrained`
                missing = f"{str(folder)!r} has no city.json and city.safetensors; " if folder else ""
                raise ValueError(
                    f"{missing}a MstarTokenizer is a city: use MstarTokenizer.from_grid(...), from_visits(...) or "
                    "from_pretrained(folder)."
                )
            city = _read_city(city_file, table_file)
        self._take_city(city if isinstance(city, dict) else _fields_of(city))
        spans = {"home_hours": home_hours, "commute_hours": commute_hours, "commute_days": commute_days}
        self.home_hours, self.commute_hours, self.commute_days = (_span(name, span) for name, span in spans.items())
        self._pad_content = str(pad_token)
        self._index = {str(cell): cell for cell in range(self.num_cells)} | {self._pad_content: self.num_cells}
        kwargs.pop("special_tokens_pattern", None)
        super().__init__(
            **{name: list(span) for name, span in spans.items()},
            pad_token=pad_token,
            special_tokens_pattern="none",
            **kwargs,
        )

    # Cities

    @classmethod
    def from_grid(
        cls,
        box: Sequence[float] | None = None,
        *,
        timezone: str,
        lat: Any = None,
        lon: Any = None,
        rows: int = 30,
        columns: int = 30,
        factors: Sequence[int] = FACTORS,
        num_hours: int = 168,
        interval_minutes: int = 60,
        name: str = "",
        **kwargs: Any,
    ) -> MstarTokenizer:
        """A box of `rows` x `columns` finest cells and its coarser views.

        Args:
            box: (south, west, north, east) in degrees; or instead points `lat`, `lon` that the box is to hold.
            factors: finest cells along the side of a coarse one, coarse to fine, each a multiple of the next, the last
                1. Edge cells are smaller where they do not fit: 30 rows give 4, 8, 15, 30 (spec 1.1).
            kwargs: see the class.
        """
        if (box is None) == (lat is None or lon is None):
            raise ValueError("give either box=(south, west, north, east) or both lat and lon.")
        grid = SquareGrid(*(Box.around(lat, lon) if box is None else Box.checked(box)), rows, columns)
        cell_map = grid.hierarchy(factors)
        centres = grid.centre(np.arange(len(grid)))
        city = {
            "name": name,
            "timezone": timezone,
            "num_hours": num_hours,
            "interval_minutes": interval_minutes,
            "box": grid.bounds,
            "rows": rows,
            "columns": columns,
            "lat": centres[0],
            "lon": centres[1],
            "cell_map": cell_map,
        }
        return cls(city=city, **kwargs)

    @classmethod
    def from_visits(
        cls,
        frame: Any,
        *,
        timezone: str,
        cell_km: float = 1.0,
        coverage: float = 1.0,
        lat: str = "lat",
        lon: str = "lon",
        **kwargs: Any,
    ) -> MstarTokenizer:
        """Cells of `cell_km` over the box of a frame's coordinates, widened to whole cells.

        Args:
            frame: visits or points with columns `lat` and `lon`.
            coverage: the central share of the coordinates (on each axis) that the box must hold; below 1 it leaves far
                points out.
            kwargs: see `from_grid` and the class.
        """
        grid = SquareGrid.around(*read_degrees(frame, lat, lon), cell_km=cell_km, coverage=coverage)
        return cls.from_square_grid(grid, timezone=timezone, **kwargs)

    from_points = from_visits  # a frame of GPS points has the same two columns

    @classmethod
    def from_square_grid(cls, grid: Any, *, timezone: str, **kwargs: Any) -> MstarTokenizer:
        """The cells of any object with `south`, `west`, `north`, `east`, `rows`, `columns`, such as
        `hf_mobility.data.SquareGrid`, numbered as there (row by row from the south-west)."""
        bounds = (grid.south, grid.west, grid.north, grid.east)
        return cls.from_grid(bounds, timezone=timezone, rows=grid.rows, columns=grid.columns, **kwargs)

    # Weeks -> inputs

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> BatchEncoding:
        """Weeks (or text) -> `BatchEncoding`.

        Args:
            text: (N, L) integers of finest cells, -1 = unknown (array, tensor, nested lists, or one week (L,)); what
                `weeks` returned; a frame of records; or a string or list of strings of cells.
            home_ids, commute_ids: (N,) finest cells to use instead of those that the weeks tell; both or neither.
            attribute_ids: (N,) classes to use instead of those that the weeks tell.
            conditions: False leaves the three out (the codec does not need them).
            return_tensors: None or `np` for arrays, `pt` for tensors.
            kind, max_stay_hours, fill_hours, min_known, column names: for a frame, see `weeks`.

        Returns:
            `input_ids` (N, R, L) int64, coarse to fine, 0 in unknown hours; `attention_mask` (N, L) int64, 1 = known;
            `home_ids`, `commute_ids`, `attribute_ids` (N,) int64.

        Raises:
            ValueError: weeks of another length, cells outside the grid, conditions that do not fit.
        """
        if text is None or isinstance(text, str) or (isinstance(text, (list, tuple)) and _is_text(text)):
            return super().__call__(text, *args, **kwargs)
        if args:
            raise ValueError("only keyword arguments may follow the weeks.")
        return self._call_on_weeks(text, **kwargs)

    def _call_on_weeks(
        self,
        data: Any,
        *,
        home_ids: Any = None,
        commute_ids: Any = None,
        attribute_ids: Any = None,
        conditions: bool = True,
        return_tensors: str | None = None,
        **options: Any,
    ) -> BatchEncoding:
        if return_tensors not in (None, "np", "pt"):
            raise ValueError(f"return_tensors must be None, 'np' or 'pt', got {return_tensors!r}.")
        cells = self.as_cells(data, **options)
        known = cells >= 0
        batch = {
            "input_ids": self.cell_map[np.where(known, cells, 0)].transpose(0, 2, 1) * known[:, None].astype(np.int64),
            "attention_mask": known.astype(np.int64),
        }
        if conditions:
            batch |= self._conditions(cells, home_ids, commute_ids, attribute_ids)
        elif any(ids is not None for ids in (home_ids, commute_ids, attribute_ids)):
            raise ValueError("conditions=False contradicts home_ids, commute_ids or attribute_ids.")
        if return_tensors == "pt":
            return BatchEncoding({name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in batch.items()})
        return BatchEncoding(batch)

    # The text path

    @property
    def vocab_size(self) -> int:
        return self.num_cells + 1

    def get_vocab(self) -> dict[str, int]:
        return dict(self._index)

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return text.split()

    def _convert_token_to_id(self, token: str) -> int:
        if token not in self._index:
            raise ValueError(f"{token!r} is no cell of this grid; cells are 0..{self.num_cells - 1}.")
        return self._index[token]

    def _convert_id_to_token(self, index: int) -> str:
        return str(index) if 0 <= index < self.num_cells else self._pad_content

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return " ".join(tokens)

    # Files

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        paths = [
            os.path.join(save_directory, f"{filename_prefix}-{name}" if filename_prefix else name)
            for name in self.vocab_files_names.values()
        ]
        header = {
            "format_version": FORMAT_VERSION,
            "kind": KIND,
            "name": self.name,
            "timezone": self.timezone,
            "num_hours": self.num_hours,
            "interval_minutes": self.interval_minutes,
            "box": self.box,
            "rows": self.rows,
            "columns": self.columns,
            "attribute_method": self.attribute_method,
            "num_attributes": self.num_attributes,
        }
        arrays = {"lat": self.lat, "lon": self.lon, "cell_map": self.cell_map, "medoids": self.medoids}
        if self.conditions is not None:
            header |= {"same_share": self.conditions.same_share, "smoothing": self.conditions.smoothing}
            arrays |= self.conditions.to_arrays()
        with open(paths[0], "w", encoding="utf-8") as file:
            json.dump(header, file, ensure_ascii=False, indent=0)
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, paths[1])
        return tuple(paths)


def _fields_of(city: Any) -> dict[str, Any]:
    return {name: getattr(city, name) for name in (*FIELDS, *LEARNED) if hasattr(city, name)}


def _span(name: str, span: Sequence[int]) -> tuple[int, int]:
    first, last = (int(value) for value in span)
    if not 0 <= first < last <= (7 if name.endswith("days") else 24):
        raise ValueError(f"{name} must be (first, end excluded) with first < end, got {tuple(span)}.")
    return first, last


def _is_text(items: Sequence[Any]) -> bool:
    return len(items) > 0 and (isinstance(items[0], str) or (_nested(items[0]) and isinstance(items[0][0], str)))


def _nested(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and len(item) > 0


def _read_city(city_file: str, table_file: str) -> dict[str, Any]:
    with open(city_file, encoding="utf-8") as file:
        header = json.load(file)
    if header.get("kind") != KIND or header.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{city_file} is of kind {header.get('kind')!r} and format version {header.get('format_version')}; this "
            f"tokenizer reads {KIND!r} of version {FORMAT_VERSION}."
        )
    city = {**header, **load_file(table_file)}
    if "same_share" in header:
        shares = {name: header[name] for name in ("same_share", "smoothing")}
        city["conditions"] = ConditionTables.from_arrays(city, **shares)
    return city


__all__ = ["MstarTokenizer"]
