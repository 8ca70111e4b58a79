"""M-STAR's tokenizer of slots: a city's weeks as diaries that name the user's own places, in one vocabulary for all
cities, with traits of the user as conditions.

A week has 168 hours and begins on the first working day, so that the days off are its last two. Places are those of the
city's table. The weights know slots only, and `modeling.places_mstar` chooses places for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding

from .city import City
from .city_files import of_file
from .city_mstar import GridCity
from .city_tokenizer import CityTokenizer, city_with_places
from .diaries import HOME, NUM_SLOTS, SLOT_MAP, WORK, to_slots
from .errors import DataError
from .grid import haversine_km
from .places_samoe import Places
from .records import column, has_column, parse_cells, read_degrees
from .tokenization_samoe import SamoeTokenizer
from .traits import COMMUTE, TraitModel, measure_traits, trait_classes
from .weeks import HOME_HOURS, OUTSIDE, WORK_HOURS, Weeks, WeekShape

NUM_HOURS = 168
SLOT_NAMES = ("home", "work", "place1", "place2", "place3", "place4", "place5", "once", "again")


class MstarSlotTokenizer(GridCity, CityTokenizer):
    """Weeks of one city -> diaries and traits, and back.

    Args:
        city_file, table_file: `city.json` and `city.safetensors`, as `save_pretrained` writes them.
        city: a `City` with places, instead of files; see `from_city`.
        traits: distribution of the traits, `fit_traits` makes one.
        days_off: the two weekdays, one after the other, on which most people do not work (Monday = 0).
        home_hours, work_hours: local hours, end excluded, that tell home and work.
        pad_token: how the text path writes an unknown hour.

    Raises:
        ValueError: without a city. A `DataError` for a city without places, days off that do not follow one another,
            files of another kind, or files that do not match their hash.

    Example:
        >>> tokenizer = MstarSlotTokenizer.from_city(City.from_visits(visits, timezone="Europe/Berlin"))
        >>> inputs = tokenizer(visits, return_tensors="pt")
    """

    kinds = ("mstar-slots",)
    options = ("days_off", "home_hours", "work_hours", "pad_token")
    model_input_names = ["input_ids", "attention_mask", "home_ids", "work_ids", "attribute_ids"]
    special_tokens_pattern = "none"

    def __init__(
        self,
        city_file: str | None = None,
        table_file: str | None = None,
        *,
        city: City | None = None,
        traits: TraitModel | None = None,
        days_off: Sequence[int] = (5, 6),
        home_hours: Sequence[int] = HOME_HOURS,
        work_hours: Sequence[int] = WORK_HOURS,
        pad_token: str = "?",
        **kwargs: Any,
    ) -> None:
        if city is None:
            with of_file(city_file):
                header, arrays = self._read_files(city_file, table_file, kwargs.get("name_or_path"))
                city, traits = City.from_contents(header, arrays), TraitModel.from_arrays(arrays)
        city = city_with_places(city, "M-STAR's weeks of slots")
        own = np.arange(len(city))[:, None]
        with of_file(city_file):
            self._take_city({"city": city, "cell_map": own, "num_hours": NUM_HOURS, "interval_minutes": 60})
        self.traits = traits
        self.days_off = checked_days_off(days_off)
        self.home_hours, self.work_hours = _hours(home_hours), _hours(work_hours)
        self.work_days = (0, 5)  # of a week that begins on the first working day
        self._index = {name: slot for slot, name in enumerate((*SLOT_NAMES, str(pad_token)))}
        kwargs.pop("special_tokens_pattern", None)
        super().__init__(
            days_off=list(self.days_off),
            home_hours=list(self.home_hours),
            work_hours=list(self.work_hours),
            pad_token=pad_token,
            special_tokens_pattern="none",
            **kwargs,
        )

    @classmethod
    def from_city(cls, city: City, config: Any = None, *, traits: TraitModel | None = None, **options: Any) -> Any:
        """The tokenizer of a city's places.

        Args:
            config: a `MstarConfig`; its codec must read slots.
            traits: those of another tokenizer, where nothing is known of this city's users.
            options: see the class.

        Raises:
            DataError: a city without places, or a model of other weeks.
            TypeError: for something else than a city, or an unknown option.
        """
        cls._checked_options(options)
        if config is not None:
            check_slots(config)
        return cls(city=city_with_places(city, "M-STAR's weeks of slots"), traits=traits, **options)

    # Places

    @property
    def _grid(self) -> None:
        return None  # places, also where the city has a grid

    @property
    def _shape(self) -> WeekShape:
        return WeekShape(NUM_HOURS, 3600, self.timezone, self.first_weekday)

    @property
    def first_weekday(self) -> int:
        """The weekday on which weeks begin: the day after the days off."""
        return (self.days_off[1] + 1) % 7

    @cached_property
    def places(self) -> Places:
        """The city's places as points of a plane."""
        return Places(self.city.lat, self.city.lon, self.name)

    @cached_property
    def location_features(self) -> torch.Tensor:
        """(P + 2, F) float32: the columns by which models know the places, as `SamoeTokenizer` makes them."""
        return SamoeTokenizer(city=self.city).location_features

    def _locate(self, frame: Any, names: dict[str, str]) -> np.ndarray:
        """Row of the place of each record, -2 = a place that the city does not list."""
        if has_column(frame, names["cell"]):
            return parse_cells(column(frame, names["cell"]), names["cell"], columns=None, num_cells=len(self.city))
        if has_column(frame, names["location_id"]):
            rows = self.city.index_of(column(frame, names["location_id"]))
            return np.where(rows < 0, OUTSIDE, rows)
        if has_column(frame, names["lat"]) and has_column(frame, names["lon"]):
            return self.places.nearest(*read_degrees(frame, names["lat"], names["lon"]))
        raise DataError("the records have no place: give a column 'location_id', or 'lat' and 'lon'.")

    # Weeks -> inputs

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> BatchEncoding:
        """Weeks (or text) -> `BatchEncoding`.

        Args:
            text: (N, 168) rows of places, -1 = unknown; what `weeks` returned; a frame of records; or text of slots.
            return_tensors: None or `np` for arrays, `pt` for tensors.
            home, work: (N,) rows of places instead of those that the weeks tell; both or neither.
            kind, max_stay_hours, fill_hours, min_known, column names: for a frame, see `weeks`.

        Returns:
            `input_ids` (N, 3, 168) int64 coarse to fine, 0 in unknown hours; `attention_mask` (N, 168), 1 = known;
            `home_ids` and `work_ids` (N,) slots, equal for users without a second place; `attribute_ids` (N, 10)
            classes of the traits.

        Raises:
            ValueError: weeks of another length, or places that the city does not list.
        """
        if text is None or isinstance(text, str) or (isinstance(text, (list, tuple)) and isinstance(text[0], str)):
            return super().__call__(text, *args, **kwargs)
        if args:
            raise ValueError("only keyword arguments may follow the weeks.")
        return self._call_on_weeks(text, **kwargs)

    def _call_on_weeks(
        self, data: Any, *, home: Any = None, work: Any = None, return_tensors: str | None = None, **options: Any
    ) -> BatchEncoding:
        if return_tensors not in (None, "np", "pt"):
            raise ValueError(f"return_tensors must be None, 'np' or 'pt', got {return_tensors!r}.")
        places = self.as_cells(data, **options)
        if (home is None) != (work is None):
            raise ValueError("home and work are given together or not at all: one of them is missing.")
        if home is None:
            home, work = self.home_and_work(places)
        slots = to_slots(places, home, work)
        batch = {**self.encode_slots(slots), **self.conditions_of(self.traits_of(slots, home, work))}
        if return_tensors == "pt":
            return BatchEncoding({name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in batch.items()})
        return BatchEncoding(batch)

    def encode_slots(self, slots: np.ndarray) -> dict[str, np.ndarray]:
        """(N, 168) slots, -1 = unknown -> `input_ids` and `attention_mask`."""
        known = slots >= 0
        ids = SLOT_MAP[np.where(known, slots, HOME)].transpose(0, 2, 1) * known[:, None]
        return {"input_ids": ids.astype(np.int64), "attention_mask": known.astype(np.int64)}

    def traits_of(self, slots: np.ndarray, home: np.ndarray, work: np.ndarray) -> np.ndarray:
        """(N, 10) float64 measured traits of diaries with these homes and works (rows of places)."""
        lat, lon = self.city.lat, self.city.lon
        return measure_traits(slots, haversine_km(lat[home], lon[home], lat[work], lon[work]))

    def conditions_of(self, traits: np.ndarray) -> dict[str, np.ndarray]:
        """Conditions of the model for users with these traits, measured (N, 10) or as classes (integers)."""
        classes = traits if traits.dtype.kind in "iu" else trait_classes(traits)
        works = classes[:, COMMUTE] > 0
        return {
            "home_ids": np.zeros(len(classes), np.int64),
            "work_ids": np.where(works, WORK, HOME).astype(np.int64),
            "attribute_ids": classes.astype(np.int64),
        }

    def fit_traits(self, data: Any, *, users: Any = None, groups: int = 24, min_users: int = 5, seed: int = 0) -> None:
        """Learn the distribution of the traits from training weeks, and keep it.

        Args:
            data: weeks as `__call__` takes them.
            users: (N,) whose weeks these are; what `weeks` returned says it itself.
            groups, min_users, seed: see `TraitModel.fit`.
        """
        data = self.weeks(data) if self._is_records(data) else data
        users = data.user_id if users is None and isinstance(data, Weeks) else users
        places = self.as_cells(data)
        home, work = self.home_and_work(places)
        measured = self.traits_of(to_slots(places, home, work), home, work)
        self.traits = TraitModel.fit(measured, users=users, groups=groups, min_users=min_users, seed=seed)

    # The text path

    @property
    def vocab_size(self) -> int:
        return NUM_SLOTS + 1

    def _convert_token_to_id(self, token: str) -> int:
        if token not in self._index:
            raise ValueError(f"{token!r} is no slot; slots are {', '.join(SLOT_NAMES)}.")
        return self._index[token]

    def _convert_id_to_token(self, index: int) -> str:
        return (*self._index, list(self._index)[-1])[index]

    # Files

    def _own_contents(self, min_users: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {}, {} if self.traits is None else self.traits.to_arrays()


def check_slots(config: Any) -> None:
    """Raises a `DataError` for a model of other weeks than those of slots."""
    codec = getattr(config, "codec_config", config)
    shape = list(codec.cells_per_resolution), codec.level_lengths[-1]
    wanted = (SLOT_MAP.max(axis=0) + 1).tolist(), NUM_HOURS
    if shape != wanted:
        raise DataError(f"the model reads {shape[0]} cells of {shape[1]} hours; slots are {wanted[0]} of {wanted[1]}.")


def checked_days_off(days: Sequence[int]) -> tuple[int, int]:
    """Raises a `DataError` unless these are two weekdays, the second the day after the first."""
    found = tuple(int(day) for day in days)
    if len(found) != 2 or not 0 <= found[0] <= 6 or found[1] != (found[0] + 1) % 7:
        raise DataError(f"days_off must be two weekdays that follow one another (Monday = 0), got {tuple(days)}.")
    return found


def _hours(span: Sequence[int]) -> tuple[int, int]:
    first, last = (int(value) for value in span)
    if not 0 <= first < last <= 24:
        raise DataError(f"hours must be (first, end excluded) of a day, got {tuple(span)}.")
    return first, last


__all__ = ["MstarSlotTokenizer"]
