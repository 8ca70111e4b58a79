"""RAW's tokenizer: one city's box and clock. It turns points into regular series of box units, and back.

There are no tokens. `__call__` takes records (pandas frame, Arrow table, dataset, dict of columns, list of
dicts) and returns `coordinates` (N, T, 2), float32, [longitude, latitude] scaled so that the box is -1..1; text is
refused with a sentence. A row is one person's window of whole days; every window starts at a local midnight that is the
same for everybody, because a slot's position is all the time that the model sees. How slots without a record are filled
stands in `series_raw.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding

from .city import City, bounds_of_box
from .city_files import of_file
from .city_tokenizer import CityTokenizer, as_city
from .clock import DAY_SECONDS, local_midnight, to_local, to_utc
from .errors import NoRecordsError, renamed_method
from .grid import PAPER_BOUNDS, Box
from .records import read_degrees, read_points
from .series_raw import (
    PER_SLOT,
    RawSeries,
    SlotAxis,
    batch_series,
    fill_rule,
    fill_slots,
    last_seconds,
    pad_rows,
    target_length,
    to_numpy,
)

_MINUTES = 24 * 60
_TEXT = (
    "RAW has no text: call the tokenizer with points (columns user_id, time, lat, lon); `decode` turns coordinates "
    "back into degrees."
)


class RawTokenizer(CityTokenizer):
    """Points of one city -> model inputs, and back.

    Args:
        city_file, table_file: `city.json` and `city.safetensors`, as `save_pretrained` writes them.
        city: a `City`, instead of files; of it RAW reads the box and the time zone, on whose clock slots are counted.
            See `from_city`, `from_bounds` and `from_points`.
        interval_minutes: length of a slot (15); divides a day.
        fill: rule for slots without a record: `paper` or `forward` (see `series_raw.py`), or `auto`: `paper` for stays
            (records with a duration), `forward` for points.
        time_features: also return `start_weekday`, which models with `time_features=True` need.
        model_max_length: slots of a window (960); whole days.

    Raises:
        ValueError: without a city, or for values that make no sense; one sentence each. A `DataError` for files of
            another kind or format, or files that do not match their hash.

    Example:
        >>> tokenizer = RawTokenizer.from_points(points, timezone="Europe/Berlin")
        >>> inputs = tokenizer(points, padding=True, return_tensors="pt")
    """

    kinds = ("raw", "city")
    options = ("interval_minutes", "fill", "time_features")
    model_input_names = list(PER_SLOT)

    def __init__(
        self,
        city_file: str | None = None,
        table_file: str | None = None,
        *,
        city: City | None = None,
        interval_minutes: int = 15,
        fill: str = "auto",
        time_features: bool = False,
        model_max_length: int = 960,
        **kwargs: Any,
    ) -> None:
        box, timezone = kwargs.pop("box", None), kwargs.pop("timezone", None)  # files of format 1 hold only these
        if city is None and box is not None and city_file is None:
            city = City.from_bounds(bounds_of_box(box), timezone=timezone)
        if city is None:
            with of_file(city_file):
                city = City.from_contents(*self._read_files(city_file, table_file, kwargs.get("name_or_path")))
        self.city = as_city(city)
        self._box = Box(*self.city.bounds)
        fill_rule(fill, stays=False)
        self.interval_minutes, self.fill, self.time_features = interval_minutes, fill, time_features
        _checked_window(model_max_length, interval_minutes)
        super().__init__(
            interval_minutes=interval_minutes,
            fill=fill,
            time_features=time_features,
            model_max_length=model_max_length,
            **{"special_tokens_pattern": "none", "truncation_side": "left", **kwargs},
        )
        self.model_input_names = [*PER_SLOT, "start_weekday"] if time_features else list(PER_SLOT)

    @classmethod
    def from_city(cls, city: City, config: Any = None, **options: Any) -> RawTokenizer:
        """The tokenizer of a city's box; with `config` (a `RawConfig`), its slots are the model's.

        Args:
            options: see the class; also `padding_side`, `truncation_side` and `model_max_length`.

        Raises:
            TypeError: for something else than a city, or an unknown option.
        """
        city = as_city(city)
        cls._checked_options(options)
        if config is not None:
            options = {
                "interval_minutes": _MINUTES // config.slots_per_day,
                "model_max_length": config.max_position_embeddings,
                "time_features": config.time_features,
                **options,
            }
        return cls(city=city, **options)

    @classmethod
    def from_bounds(
        cls,
        bounds: Sequence[float] = PAPER_BOUNDS,
        *,
        timezone: str,
        name: str = "",
        config: Any = None,
        **options: Any,
    ) -> RawTokenizer:
        """The tokenizer of a box (south, west, north, east) in degrees, by default the paper's (Beijing)."""
        return cls.from_city(City.from_bounds(bounds, timezone=timezone, name=name), config, **options)

    @classmethod
    def from_points(
        cls,
        points: Any,
        *,
        timezone: str,
        margin: float = 0.05,
        lat: str = "lat",
        lon: str = "lon",
        **kwargs: Any,
    ) -> RawTokenizer:
        """The tokenizer of the box that the points span, `margin` of its width wider on each side; give it the training
        people's points, without strays. Only the columns `lat` and `lon` are read.
        """
        box = Box.around(*read_degrees(points, lat, lon), margin=margin)
        return cls.from_bounds(box, timezone=timezone, **kwargs)

    # Degrees, box units, metres

    @property
    def slots_per_day(self) -> int:
        return _MINUTES // self.interval_minutes

    def normalize(self, lat: Any, lon: Any) -> np.ndarray:
        """Degrees (...), (...) -> box units (..., 2) float64, [longitude, latitude]; nothing is clipped."""
        return self._box.normalize(lat, lon)

    def denormalize(self, coordinates: Any) -> tuple[np.ndarray, np.ndarray]:
        """Box units (..., 2) -> latitude, longitude (...), float64 degrees."""
        return self._box.denormalize(to_numpy(coordinates))

    normalise, denormalise = renamed_method("normalise", "normalize"), renamed_method("denormalise", "denormalize")

    def metres_per_unit(self, *, paper: bool = False) -> np.ndarray:
        """(2,) float64: metres of one box unit of longitude and latitude, true at the box's middle; with `paper` the
        authors' 100,000 for both (11 to 13 % too much in their box), for comparison with their numbers only.
        """
        return self._box.metres_per_unit(paper=paper)

    # Points -> series

    def encode_points(
        self,
        points: Any,
        *,
        start: Any = None,
        end: Any = None,
        outside: str = "keep",
        fill: str | None = None,
        truncation: bool | str = False,
        max_length: int | None = None,
        user_id: str = "user_id",
        time: str = "time",
        lat: str = "lat",
        lon: str = "lon",
        duration: str = "duration",
    ) -> RawSeries:
        """Points -> one row per person and window in which the person has a record. Row order leaves no trace.

        Args:
            points: anything with columns `time` (time-zone aware, or integer epoch seconds UTC), `lat`, `lon`, and
                maybe `user_id` (absent = one person) and `duration` (seconds; records are then stays).
            start, end: first day, and first day no longer wanted (dates, or '2023-03-01'), of everybody's windows; by
                default the days on which the first and the last record of all begin.
            outside: what to do with points outside the box: `keep` (they exceed 1), `drop` or `error`. It is always an
                error when most points are outside.
            fill: another rule than the tokenizer's for slots without a record.
            truncation: only one window for all: the last `max_length` slots, or with `truncation_side="right"` the
                first.
            max_length: slots of a window; whole days; by default `model_max_length`.
            user_id, time, lat, lon, duration: other column names.

        Raises:
            ValueError: for faulty records or options; one sentence each.
        """
        window = _checked_window(self.model_max_length if max_length is None else max_length, self.interval_minutes)
        read = read_points(points, user_id=user_id, time=time, lat=lat, lon=lon, duration=duration)
        units = self.normalize(read.lat, read.lon)
        strange = self._box.check_inside(units, read.lat, read.lon, (lat, lon), outside=outside)
        kept = ~strange if outside == "drop" and strange.any() else slice(None)
        user, utc, units = read.codes[kept], read.utc[kept], units[kept]

        rule = fill_rule(self.fill if fill is None else fill, stays=read.duration is not None)
        first = last = to_local(utc, self.timezone)
        if read.duration is not None:
            last = to_local(last_seconds(utc, read.duration[kept]), self.timezone)
        seconds = 60 * self.interval_minutes
        begin, stop = self._days(first, last, start, end)
        num_slots = (stop - begin) // seconds
        if truncation and truncation != "do_not_truncate" and num_slots > window:
            begin = stop - window * seconds if self.truncation_side == "left" else begin
            num_slots = window
        filled = fill_slots(
            SlotAxis(num_slots=num_slots, window=window),
            user=user,
            order=utc,
            first=(first - begin) // seconds,
            last=(last - begin) // seconds,
            ties=(units[:, 0], units[:, 1]),
            rule=rule,
        )
        return RawSeries(
            coordinates=units.astype(np.float32)[filled.source],
            observed=filled.observed,
            offsets=filled.offsets,
            users=read.users,
            user_index=filled.user,
            window_start=begin + filled.window * window * seconds,
            num_outside=int(strange.sum()),
        )

    def _days(self, first: np.ndarray, last: np.ndarray, start: Any, end: Any) -> tuple[int, int]:
        """Local civil seconds of the first midnight, and of the one behind the last day."""
        begin = int(first.min()) // DAY_SECONDS * DAY_SECONDS
        stop = (int(first.max()) // DAY_SECONDS + 1) * DAY_SECONDS
        begin = begin if start is None else local_midnight(start, "start", self.timezone)
        stop = stop if end is None else local_midnight(end, "end", self.timezone)
        if stop <= begin or last.max() < begin or first.min() >= stop:
            raise NoRecordsError("no point lies between `start` (inclusive) and `end` (exclusive).")
        return begin, stop

    # Series -> batches

    def __call__(  # type: ignore[override]
        self,
        points: Any = None,
        *,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Points -> `BatchEncoding`, so that `model(**tokenizer(points, padding=True, return_tensors="pt"))` works.

        Rows have different lengths only where the last window is shorter than the others; `padding` makes them equal.

        Args:
            points, truncation, max_length, others: see `encode_points`, which also tells whose row it is.
            padding, return_tensors: as everywhere in transformers; without tensors, lists of one numpy array per row.

        Returns:
            `coordinates` (N, T, 2) float32; `attention_mask` (N, T) int64, 0 = padding; `observed_mask` (N, T) int64,
            1 = something was recorded in the slot, 0 = filled; `position_ids` (N, T) int64, slot since the window's
            first local midnight; with `time_features`, `start_weekday` (N,) int64, 0 = Monday.
        """
        is_list = isinstance(points, (list, tuple)) and len(points) > 0
        if points is None or isinstance(points, str) or (is_list and not isinstance(points[0], Mapping)):
            raise ValueError(_TEXT)
        series = self.encode_points(points, truncation=truncation, max_length=max_length, **kwargs)
        return self.to_batch(series, padding=padding, max_length=max_length, return_tensors=return_tensors)

    def to_batch(
        self,
        series: RawSeries,
        *,
        padding: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """What `encode_points` returned -> `BatchEncoding`, one row each, as calling the tokenizer does.

        Raises:
            ValueError: if rows of different lengths are to become one tensor without padding.
        """
        lengths = np.diff(series.offsets)
        length = target_length(lengths, padding, max_length or self.model_max_length)
        if length is None and return_tensors is not None and lengths.min() < lengths.max():
            raise ValueError(
                f"rows have {lengths.min()} to {lengths.max()} slots, the last window being shorter: pass padding=True "
                "to make one tensor of them."
            )
        fields = batch_series(series, length=length, left=self.padding_side == "left")
        if self.time_features:
            fields["start_weekday"] = series.start_weekday
        if return_tensors == "pt":  # without the copy that BatchEncoding makes
            return BatchEncoding({name: torch.from_numpy(rows) for name, rows in fields.items()})
        if return_tensors is None:
            fields = {name: list(rows) for name, rows in fields.items()}
        return BatchEncoding(fields, tensor_type=return_tensors)

    def pad(  # type: ignore[override]
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Rows (a list of dicts, or a dict of lists) of different lengths -> one batch, for collators.

        `coordinates`, masks and positions are padded with 0, `labels` (T, 2) with -100; anything else is stacked.
        """
        batch = pad_rows(
            encoded_inputs,
            padding=padding,
            max_length=max_length or self.model_max_length,
            multiple=pad_to_multiple_of,
            left=(padding_side or self.padding_side) == "left",
        )
        return BatchEncoding(batch, tensor_type=return_tensors)

    # Series -> records

    def local_slots(self, utc: Any) -> np.ndarray:
        """Slots of the local clock, counted from 1970 on, that epoch seconds UTC lie in; int64 of the same shape. The
        hour that a clock change repeats has the same slots twice, the one that it skips has none."""
        utc = np.asarray(utc, np.int64)
        return to_local(utc.reshape(-1), self.timezone).reshape(utc.shape) // (60 * self.interval_minutes)

    def decode(  # type: ignore[override]
        self,
        coordinates: Any,
        *,
        attention_mask: Any = None,
        position_ids: Any = None,
        window_start: Any = None,
        user_ids: Any = None,
        **kwargs: Any,
    ) -> dict[str, np.ndarray]:
        """Box units (T, 2) or (N, T, 2) -> columns, one record per unpadded slot, row by row; `pandas.DataFrame` and
        this tokenizer take them as they are.

        Args:
            attention_mask: (N, T), 0 = padding. position_ids: (N, T) slots; by default 0..T - 1.
            window_start, user_ids: (N,), as in `RawSeries`; the first is needed for times.

        Returns:
            `user_id` (where given), `time` int64 epoch seconds UTC of the slot's beginning (where `window_start` is
            given), `lat`, `lon` float64 degrees. With times, slots of an hour that the clock skipped are left out.
        """
        units = to_numpy(coordinates)
        if units.ndim not in (2, 3) or units.shape[-1] != 2:
            raise ValueError(f"coordinates must be (T, 2) or (N, T, 2), got {units.shape}.")
        units = units.reshape(-1, *units.shape[-2:])
        rows, length = units.shape[:2]
        kept = np.ones((rows, length), bool)
        if attention_mask is not None:
            kept = to_numpy(attention_mask).reshape(rows, length) != 0
        columns: dict[str, np.ndarray] = {}
        if user_ids is not None:
            columns["user_id"] = np.repeat(np.asarray(user_ids).reshape(rows, 1), length, axis=1)
        if window_start is not None:
            slots = np.arange(length) if position_ids is None else to_numpy(position_ids).reshape(rows, length)
            local = np.asarray(window_start).reshape(rows, 1) + slots.astype(np.int64) * 60 * self.interval_minutes
            utc, exists = to_utc(local.reshape(-1), self.timezone)
            columns["time"] = utc.reshape(rows, length)
            kept = kept & exists.reshape(rows, length)
        columns["lat"], columns["lon"] = self.denormalize(units)
        return {name: values[kept] for name, values in columns.items()}

    batch_decode = decode  # type: ignore[assignment]

    # There is no text, and no vocabulary

    @property
    def vocab_size(self) -> int:
        return 0

    def get_vocab(self) -> dict[str, int]:
        return {}

    def __bool__(self) -> bool:
        return True  # although its length, the vocabulary's, is 0

    def _no_text(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError(_TEXT)

    encode = tokenize = convert_tokens_to_ids = convert_ids_to_tokens = _no_text


def _checked_window(slots: int, interval_minutes: int) -> int:
    if interval_minutes < 1 or _MINUTES % interval_minutes:
        raise ValueError(f"interval_minutes must divide a day, got {interval_minutes}.")
    per_day = _MINUTES // interval_minutes
    if slots < per_day or slots % per_day:
        raise ValueError(
            f"a window of {slots} slots is no whole number of days of {per_day} slots ({interval_minutes} minutes "
            "each); windows must start at midnight."
        )
    return slots


__all__ = ["PAPER_BOUNDS", "RawSeries", "RawTokenizer"]
