"""M-STAR's tokenizer: one city as nested grids. It turns records into weeks of cells, their coarser views and their
conditions (home, work, movement attribute), draws new conditions, and turns weeks of cells back into columns.

One sample is a whole week (168 hours unless set otherwise), so nothing is padded; an hour of which nothing is known
holds 0 and is masked. Text ("cell cell ? cell", finest cells, ? = unknown) works too, for generic tools. The tokenizer
holds no weights: the learned codec is a model (`MstarCodecModel`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding

from .city import City
from .city_files import of_file
from .city_tokenizer import CityTokenizer, as_city
from .conditions_mstar import ConditionedCity, ConditionTables
from .errors import DataError, listing, renamed_argument
from .grid import Box, SquareGrid
from .records import read_degrees
from .weeks import HOME_HOURS, WORK_DAYS, WORK_HOURS

FACTORS = (8, 4, 2, 1)


class MstarTokenizer(ConditionedCity, CityTokenizer):
    """Weeks of one city -> model inputs, and back.

    Args:
        city_file, table_file: `city.json` and `city.safetensors`, as `save_pretrained` writes them.
        city: a `City` with a grid, instead of files, see `from_city`; without a grid its places are the cells.
        factors: finest cells along the side of a coarse one, coarse to fine, each a multiple of the next, the last 1
            (8, 4, 2, 1). Edge cells are smaller where they do not fit: 30 rows give 4, 8, 15, 30.
        cell_map: (C, R) coarse to fine instead of `factors`; needed without a grid.
        num_hours, interval_minutes: slots of a window (168) and their length (60). Files hold these four themselves.
        home_hours, work_hours, work_days: local hours and weekdays (Monday = 0), end excluded, that tell the home
            and the work place. Windows that are no whole weeks use every day.
        pad_token: how the text path writes an unknown hour.

    Raises:
        ValueError: without a city. A `DataError` for fields that contradict one another, files of another kind or
            format, or files that do not match their hash.

    Example:
        >>> tokenizer = MstarTokenizer.from_visits(visits, timezone="Europe/Berlin", cell_km=1.0)
        >>> inputs = tokenizer(tokenizer.weeks(visits), return_tensors="pt")
    """

    kinds = ("mstar",)
    options = (
        *("factors", "cell_map", "num_hours", "interval_minutes"),
        *("home_hours", "work_hours", "work_days", "pad_token"),
    )
    model_input_names = ["input_ids", "attention_mask", "home_ids", "work_ids", "attribute_ids"]
    special_tokens_pattern = "none"

    def __init__(
        self,
        city_file: str | None = None,
        table_file: str | None = None,
        *,
        city: City | None = None,
        factors: Sequence[int] | None = None,
        cell_map: Any = None,
        num_hours: int | None = None,
        interval_minutes: int | None = None,
        home_hours: Sequence[int] = HOME_HOURS,
        work_hours: Sequence[int] = WORK_HOURS,
        work_days: Sequence[int] = WORK_DAYS,
        pad_token: str = "?",
        **kwargs: Any,
    ) -> None:
        shape = {"factors": factors, "cell_map": cell_map, "num_hours": num_hours, "interval_minutes": interval_minutes}
        if city is None:
            with of_file(city_file):
                fields = _fields_of(*self._read_files(city_file, table_file, kwargs.get("name_or_path")))
            given = [name for name, value in shape.items() if value is not None]
            if given:
                raise ValueError(
                    f"the files hold {listing(given)} already: make another tokenizer of their city "
                    "(MstarTokenizer.from_city(City.load(folder), ...))."
                )
        else:
            city = as_city(city)
            if cell_map is None and city.grid is None:
                raise DataError(f"the city {city.name!r} has no grid: use MstarTokenizer.from_city(city, cell_km=1.0).")
            cell_map = city.grid.hierarchy(FACTORS if factors is None else factors) if cell_map is None else cell_map
            fields = {"city": city, "cell_map": cell_map, "num_hours": 168 if num_hours is None else num_hours}
            fields["interval_minutes"] = 60 if interval_minutes is None else interval_minutes
        with of_file(city_file):
            self._take_city(fields)
        # What files of earlier releases call them.
        work_hours, work_days = kwargs.pop("commute_hours", work_hours), kwargs.pop("commute_days", work_days)
        spans = {"home_hours": home_hours, "work_hours": work_hours, "work_days": work_days}
        self.home_hours, self.work_hours, self.work_days = (_span(name, span) for name, span in spans.items())
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
    def from_city(cls, city: City, config: Any = None, *, cell_km: float = 1.0, **options: Any) -> MstarTokenizer:
        """The tokenizer of a city's grid; a city without one gets cells of `cell_km` over its places.

        Args:
            config: a `MstarConfig` or `MstarCodecConfig`, whose hours and resolutions are taken.
            options: see the class.

        Raises:
            DataError: cells of another number than the model's.
            TypeError: for something else than a city, or an unknown option.
        """
        city = as_city(city)
        cls._checked_options(options)
        if city.grid is None and options.get("cell_map") is None:
            city = city.with_grid(cell_km=cell_km)
        if config is None:
            return cls(city=city, **options)
        codec = getattr(config, "codec_config", config)
        powers = [2**power for power in reversed(range(len(codec.cells_per_resolution)))]
        tokenizer = cls(city=city, **{"factors": powers, "num_hours": codec.level_lengths[-1], **options})
        if tokenizer.cells_per_resolution != list(codec.cells_per_resolution):
            raise DataError(
                f"the city's cells per resolution are {tokenizer.cells_per_resolution}, the model's are "
                f"{list(codec.cells_per_resolution)}: give the city the grid that the model was trained on."
            )
        return tokenizer

    @classmethod
    def from_grid(
        cls,
        bounds: Sequence[float] | None = None,
        *,
        timezone: str,
        lat: Any = None,
        lon: Any = None,
        rows: int = 30,
        columns: int = 30,
        name: str = "",
        **options: Any,
    ) -> MstarTokenizer:
        """A box of `rows` x `columns` finest cells and its coarser views.

        Args:
            bounds: (south, west, north, east) in degrees; or instead points `lat`, `lon` that the box is to hold.
            options: see the class.
        """
        if (bounds is None) == (lat is None or lon is None):
            raise DataError("give either bounds=(south, west, north, east) or both lat and lon.")
        bounds = Box.around(lat, lon) if bounds is None else Box.checked(bounds)
        grid = SquareGrid(*bounds, rows, columns)
        return cls.from_square_grid(grid, timezone=timezone, name=name, **options)

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
        **options: Any,
    ) -> MstarTokenizer:
        """Cells of `cell_km` over the box of a frame's coordinates, widened to whole cells.

        Args:
            frame: visits or points with columns `lat` and `lon`.
            coverage: the central share of the coordinates (on each axis) that the box must hold; below 1 it leaves far
                points out.
            options: `name`, and see the class.
        """
        grid = SquareGrid.around(*read_degrees(frame, lat, lon), cell_km=cell_km, coverage=coverage)
        return cls.from_square_grid(grid, timezone=timezone, **options)

    from_points = from_visits  # a frame of GPS points has the same two columns

    @classmethod
    def from_square_grid(cls, grid: SquareGrid, *, timezone: str, name: str = "", **options: Any) -> MstarTokenizer:
        """The cells of a `SquareGrid`, numbered as there (row by row from the south-west)."""
        return cls.from_city(City(name, timezone, grid=grid), **options)

    # Weeks -> inputs

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> BatchEncoding:
        """Weeks (or text) -> `BatchEncoding`.

        Args:
            text: (N, L) integers of finest cells, -1 = unknown (array, tensor, nested lists, or one week (L,)); what
                `weeks` returned; a frame of records; or a string or list of strings of cells.
            home_ids, work_ids: (N,) finest cells to use instead of those that the weeks tell; both or neither.
            attribute_ids: (N,) classes to use instead of those that the weeks tell.
            conditions: False leaves the three out (the codec does not need them).
            return_tensors: None or `np` for arrays, `pt` for tensors.
            kind, max_stay_hours, fill_hours, min_known, column names: for a frame, see `weeks`.

        Returns:
            `input_ids` (N, R, L) int64, coarse to fine, 0 in unknown hours; `attention_mask` (N, L) int64, 1 = known;
            `home_ids`, `work_ids`, `attribute_ids` (N,) int64.

        Raises:
            ValueError: weeks of another length, cells outside the grid, conditions that do not fit.
        """
        if text is None or isinstance(text, str) or (isinstance(text, (list, tuple)) and _is_text(text)):
            return super().__call__(text, *args, **kwargs)
        if args:
            raise ValueError("only keyword arguments may follow the weeks.")
        return self._call_on_weeks(text, **kwargs)

    @renamed_argument("commute_ids", "work_ids")
    def _call_on_weeks(
        self,
        data: Any,
        *,
        home_ids: Any = None,
        work_ids: Any = None,
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
            batch |= self._conditions(cells, home_ids, work_ids, attribute_ids)
        elif any(ids is not None for ids in (home_ids, work_ids, attribute_ids)):
            raise ValueError("conditions=False contradicts home_ids, work_ids or attribute_ids.")
        if return_tensors == "pt":
            return BatchEncoding({name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in batch.items()})
        return BatchEncoding(batch)

    # The text path

    @property
    def vocab_size(self) -> int:
        return self.num_cells + 1

    def _convert_token_to_id(self, token: str) -> int:
        if token not in self._index:
            raise ValueError(f"{token!r} is no cell of this grid; cells are 0..{self.num_cells - 1}.")
        return self._index[token]

    def _convert_id_to_token(self, index: int) -> str:
        return str(index) if 0 <= index < self.num_cells else self._pad_content

    # Files

    def _own_contents(self, min_users: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        header: dict[str, Any] = {
            "num_hours": self.num_hours,
            "interval_minutes": self.interval_minutes,
            "attribute_method": self.attribute_method,
            "num_attributes": self.num_attributes,
        }
        arrays: dict[str, np.ndarray] = {"cell_map": self.cell_map, "medoids": self.medoids}
        if self.conditions is not None:
            shared = self.conditions.shared_by(min_users, self.cell_map)
            header |= {"same_share": shared.same_share, "smoothing": shared.smoothing}
            arrays |= shared.to_arrays()
        return header, arrays


def _fields_of(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Contents of the two files -> what `_take_city` takes."""
    fields = {**header, **arrays, "city": City.from_contents(header, arrays)}
    if "cell_map" not in arrays:
        raise DataError("there is no cell_map.")
    return fields | {"conditions": ConditionTables.from_contents(header, arrays)}


def _span(name: str, span: Sequence[int]) -> tuple[int, int]:
    first, last = (int(value) for value in span)
    if not 0 <= first < last <= (7 if name.endswith("days") else 24):
        raise ValueError(f"{name} must be (first, end excluded) with first < end, got {tuple(span)}.")
    return first, last


def _is_text(items: Sequence[Any]) -> bool:
    return len(items) > 0 and (isinstance(items[0], str) or (_nested(items[0]) and isinstance(items[0][0], str)))


def _nested(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and len(item) > 0


__all__ = ["MstarTokenizer"]
