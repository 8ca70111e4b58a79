"""SAMoE's tokenizer: one city. It turns visits into ids and tensors, and holds everything local that the weights do
not.

The vocabulary is the list of the city's locations (0 = padding, 1 = end of trajectory, k + 2 = location k),
and calling it returns, beside the ids, `location_features`, the table by which the model knows the places. Records are
read by their columns, so a pandas frame, an Arrow table, a dict of lists and a list of dicts all work. Text
("id id id") works too, for generic tools.
"""

from __future__ import annotations

from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding

from .city import City
from .city_files import of_file
from .city_tokenizer import CityTokenizer, city_with_places
from .clock import HALF_HOUR_SECONDS, half_hour, to_local, to_utc, weekday
from .errors import SHOWN, DataError, NoRecordsError
from .places_samoe import Places
from .records import (
    check_lengths,
    checked_degrees,
    column,
    has_column,
    is_records,
    read_numbers,
    read_times,
    read_users,
)

NUM_SPECIAL = 2
STAY_ENCODINGS, MAX_STAY_BINS = ("half_hours", "log"), 100_000
CONTEXT = 512  # visits that are looked back on where the model sets no bound of its own
PER_VISIT = ("input_ids", "time_ids", "weekday_ids", "stay_ids", "timestamps")


class SamoeTokenizer(CityTokenizer):
    """Visits of one city -> model inputs, and back.

    Args:
        city_file, table_file: `city.json` and `city.safetensors`, as `save_pretrained` writes them.
        city: a `City` with places, instead of files; see `from_city`.
        stay_encoding, num_stay_bins: classes of the time between visits; must equal the model's config.
        use_eos: append the end-of-trajectory token to every trajectory.
        distances: whether `location_features` carries the two columns in km that distance terms need.
        coordinate_norm: `locations` standardises x, y over the city's locations; `grid` over the full rectangle they
            span, as the released arrays do.
        temperature: of the probabilities of places in this city, p ** (1 / temperature), as `adapt` fits it; above 1
            they are more even. Pipelines use it.

    Raises:
        ValueError: without a city, or a temperature that is not above 0. A `DataError` for a city without places, files
            of another kind or format, or files that do not match their hash.

    Example:
        >>> tokenizer = SamoeTokenizer.from_city(City.from_visits(visits, timezone="Europe/Berlin"))
        >>> inputs = tokenizer(visits, padding=True, return_tensors="pt")
    """

    kinds = ("samoe", "city")
    options = (
        *("stay_encoding", "num_stay_bins", "use_eos", "distances", "coordinate_norm", "temperature"),
        *("pad_token", "eos_token"),
    )
    model_input_names = ["input_ids", "attention_mask", "time_ids", "weekday_ids", "stay_ids", "timestamps"]
    special_tokens_pattern = "eos"

    def __init__(
        self,
        city_file: str | None = None,
        table_file: str | None = None,
        *,
        city: Any = None,
        stay_encoding: str = "log",
        num_stay_bins: int = 25,
        use_eos: bool = False,
        distances: bool = True,
        coordinate_norm: str = "locations",
        temperature: float = 1.0,
        pad_token: str = "<pad>",
        eos_token: str = "<eos>",
        **kwargs: Any,
    ) -> None:
        if city is None:
            with of_file(city_file):
                city = City.from_contents(*self._read_files(city_file, table_file, kwargs.get("name_or_path")))
        self.city = city_with_places(city, "SAMoE")
        if coordinate_norm not in ("locations", "grid"):
            raise ValueError(f"coordinate_norm must be 'locations' or 'grid', got {coordinate_norm!r}.")
        if stay_encoding not in STAY_ENCODINGS:
            raise ValueError(f"stay_encoding must be one of {STAY_ENCODINGS}, got {stay_encoding!r}.")
        if (
            isinstance(num_stay_bins, bool)
            or not isinstance(num_stay_bins, int)
            or not 1 <= num_stay_bins <= MAX_STAY_BINS
        ):
            raise ValueError(f"num_stay_bins must be 1 to {MAX_STAY_BINS:,}, got {num_stay_bins!r}.")
        if not (isinstance(temperature, (int, float)) and 0 < temperature < float("inf")):
            raise ValueError(f"temperature must be a number above 0, got {temperature!r}.")
        self.stay_encoding, self.num_stay_bins, self.temperature = stay_encoding, num_stay_bins, float(temperature)
        self.use_eos, self.distances, self.coordinate_norm = use_eos, distances, coordinate_norm
        self._index = {location: row + NUM_SPECIAL for row, location in enumerate(self.location_ids.tolist())}
        self._features: torch.Tensor | None = None
        self._pad_content, self._eos_content = str(pad_token), str(eos_token)
        for content, row in ((self._pad_content, 0), (self._eos_content, 1)):
            self._index[content] = row
        kwargs.pop("special_tokens_pattern", None)
        kwargs.setdefault("padding_side", "left")
        kwargs.setdefault("truncation_side", "left")
        super().__init__(
            stay_encoding=stay_encoding,
            num_stay_bins=num_stay_bins,
            use_eos=use_eos,
            distances=distances,
            coordinate_norm=coordinate_norm,
            temperature=temperature,
            pad_token=pad_token,
            eos_token=eos_token,
            special_tokens_pattern="eos" if use_eos else "none",
            **kwargs,
        )

    @classmethod
    def from_city(cls, city: City, config: Any = None, **options: Any) -> SamoeTokenizer:
        """The tokenizer of a city; with `config` (a `SamoeConfig`), its stay classes and columns are the model's.

        Args:
            options: see the class; also `padding_side`, `truncation_side` and `model_max_length`.

        Raises:
            DataError: a city without places, or with more or fewer POI columns than the config's.
            TypeError: for something else than a city, or an unknown option.
        """
        city = city_with_places(city, "SAMoE")
        cls._checked_options(options)
        if config is not None:
            if city.poi.shape[1] != config.num_poi_features:
                raise DataError(
                    f"the city has {city.poi.shape[1]} POI columns, the model needs {config.num_poi_features}; "
                    "build both with the same feature scheme."
                )
            options = {
                "stay_encoding": config.stay_encoding,
                "num_stay_bins": config.num_stay_bins,
                "use_eos": config.use_eos,
                "distances": config.uses_distances,
                "model_max_length": config.max_position_embeddings or CONTEXT,
                **options,
            }
        return cls(city=city, **options)

    # The city as tensors

    @property
    def location_ids(self) -> np.ndarray:
        """(N,) str."""
        return self.city.location_ids

    @property
    def lat(self) -> np.ndarray:
        """(N,) float64 degrees, as `lon`."""
        return self.city.lat

    @property
    def lon(self) -> np.ndarray:
        return self.city.lon

    @property
    def poi(self) -> np.ndarray:
        """(N, P) float32."""
        return self.city.poi

    @property
    def poi_names(self) -> tuple[str, ...]:
        return self.city.poi_names

    @property
    def popularity(self) -> np.ndarray:
        """(N,) int64 levels."""
        return self.city.popularity

    @property
    def location_features(self) -> torch.Tensor:
        """(N + 2, P + 3 [+ 2]) float32: POI | x, y standardised | popularity level | east, north in km. Rows 0 and 1
        are zero.
        """
        if self._features is None:
            self._features = torch.from_numpy(self._build_features())
        return self._features

    def _build_features(self) -> np.ndarray:
        km = self.places.km
        if self.coordinate_norm == "grid":
            low, high = km.min(0), km.max(0)
            centre, spread = (low + high) / 2, (high - low) / np.sqrt(12.0)
        else:
            centre, spread = km.mean(0), km.std(0)
        columns = [self.poi, (km - centre) / np.where(spread > 0, spread, 1.0), self.popularity[:, None]]
        if self.distances:
            columns.append(km)
        rows = np.concatenate([np.asarray(column, dtype=np.float32) for column in columns], axis=1)
        return np.concatenate([np.zeros((NUM_SPECIAL, rows.shape[1]), np.float32), rows])

    @cached_property
    def places(self) -> Places:
        """The listed locations as points of a plane."""
        return Places(self.lat, self.lon, self.name)

    # Visits -> ids

    def encode_visits(
        self,
        visits: Any,
        *,
        unknown: str = "error",
        user_id: str = "user_id",
        time: str = "time",
        location_id: str = "location_id",
        lat: str = "lat",
        lon: str = "lon",
    ) -> dict[str, np.ndarray]:
        """All visits as flat arrays, people one after the other in the order of `users`, each person's visits by time.

        Args:
            visits: anything with columns `user_id` (absent = one person), `time` and `location_id`; with
                `unknown="nearest"` also `lat`, `lon`. Times are time-zone aware, or integers (epoch seconds UTC).
            unknown: what to do with a location the city does not list: `error`, `nearest` (needs coordinates) or
                `drop`.
            user_id, time, location_id, lat, lon: other column names.

        Returns:
            `input_ids`, `time_ids` (half hour of the day, 0..47), `weekday_ids` (0 = Monday), `stay_ids` (class of the
            time since the previous visit, 0 = none), `timestamps` (local civil seconds), `utc` (epoch seconds): int64
            (n,); `offsets` (U + 1,), `users` (U,).

        Raises:
            ValueError: for missing columns, no visits, unknown locations (with `unknown="nearest"` those without
                coordinates), coordinates (where there are any) that are mostly elsewhere than the city lists their
                locations, or naive times; one sentence each.
        """
        check_lengths(visits, (time, location_id, user_id, lat, lon))
        location = column(visits, location_id, "location_id")
        utc = read_times(visits, time)
        users, codes = read_users(visits, user_id, len(utc))
        ids = self._location_rows(location, visits, unknown, (lat, lon))
        kept = ids >= 0
        if not kept.any():
            raise NoRecordsError(
                f"there are no visits left: none of the {len(ids)} is at a location of {self.places.called}."
            )
        present, codes = np.unique(codes[kept], return_inverse=True)
        users, ids, utc = users[present], ids[kept], utc[kept]
        order = np.lexsort((ids, utc, codes))
        ids, utc, codes = ids[order], utc[order], codes[order]
        offsets = np.searchsorted(codes, np.arange(len(users) + 1))
        encoded = self.visit_fields(ids, utc, first=offsets[:-1])
        return {**encoded, "utc": utc, "offsets": offsets, "users": users}

    def visit_fields(self, ids: np.ndarray, utc: np.ndarray, first: np.ndarray) -> dict[str, np.ndarray]:
        """What a model reads of visits (n,) in order; `first` (U,): where each person's begin."""
        local = to_local(utc, self.timezone)
        if self.stay_encoding == "half_hours":
            gaps = np.diff(local // HALF_HOUR_SECONDS, prepend=0).clip(0)
        else:
            minutes = np.diff(utc, prepend=0).clip(0) / 60
            gaps = np.floor(1.6 * np.log2(1 + minutes / 10)).astype(np.int64) + 1
        stay = np.minimum(gaps, self.num_stay_bins - 1)
        stay[first] = 0
        return {
            "input_ids": ids,
            "time_ids": half_hour(local),
            "weekday_ids": weekday(local),
            "stay_ids": stay,
            "timestamps": local,
        }

    def _location_rows(self, location: np.ndarray, visits: Any, unknown: str, names: tuple[str, str]) -> np.ndarray:
        if unknown not in ("error", "nearest", "drop"):
            raise ValueError(f"unknown must be 'error', 'nearest' or 'drop', got {unknown!r}.")
        rows = self.city.index_of(location)
        missing = rows < 0
        ids = rows + NUM_SPECIAL
        snapped = unknown == "nearest" and missing.any()
        if snapped or all(has_column(visits, name) for name in names):
            lat, lon = (read_numbers(visits, name, role) for name, role in zip(names, ("lat", "lon")))
            if not missing.all():
                self.places.check(rows[~missing], lat[~missing], lon[~missing])
        if snapped:
            lat, lon = checked_degrees(*(np.where(missing, degrees, 0.0) for degrees in (lat, lon)), names=names)
            ids[missing] = self.places.nearest(lat[missing], lon[missing], visits=len(ids)) + NUM_SPECIAL
            return ids
        if missing.any() and unknown == "error":
            absent = sorted(set(map(str, np.asarray(location)[missing].tolist())))
            raise ValueError(
                f"column 'location_id': {int(missing.sum())} visits are at {len(absent)} locations that "
                f"{self.places.called} does not list, first {[name[:40] for name in absent[:SHOWN]]}; "
                "add them to the City, or pass unknown='nearest' or 'drop'."
            )
        return np.where(missing, -1, ids)

    def nearest(self, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
        """Token id of the listed location nearest to each point, (n,), (n,) -> (n,) int64.

        Raises:
            ValueError: for coordinates that are missing or no degrees, or if most points are farther from all
                locations than the city is wide (and 10 km).
        """
        return self.places.nearest(*checked_degrees(lat, lon)) + NUM_SPECIAL

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> BatchEncoding:
        """Visits (or text) -> `BatchEncoding`.

        Args:
            text: a frame of visits, one row of the batch per person in sorted order; or a string or list of strings of
                location ids.
            padding, truncation, max_length, return_tensors: as everywhere in transformers. Truncation keeps the last
                visits, or with `truncation_side="right"` the first.
            unknown, user_id, time, location_id, lat, lon: see `encode_visits`.

        Returns:
            `input_ids`, `attention_mask`, `time_ids`, `weekday_ids`, `stay_ids`, `timestamps` (B, T); with
            `return_tensors`, also `location_features`, so that `model(**tokenizer(visits, return_tensors="pt"))` works
            in any city.
        """
        if text is None or isinstance(text, str) or (isinstance(text, (list, tuple)) and not is_records(text)):
            return super().__call__(text, *args, **kwargs)
        if args:
            raise ValueError("only keyword arguments may follow the visits.")
        return self._call_on_visits(text, **kwargs)

    def _call_on_visits(
        self,
        visits: Any,
        *,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        encoded = self.encode_visits(visits, **kwargs)
        limit = max_length or self.model_max_length
        sequences = []
        for start, stop in zip(encoded["offsets"][:-1], encoded["offsets"][1:]):
            fields = {name: encoded[name][start:stop] for name in PER_VISIT}
            if self.use_eos:
                fields = {name: np.append(value, 1 if name == "input_ids" else 0) for name, value in fields.items()}
                fields["timestamps"][-1] = fields["timestamps"][-2]
            if truncation and truncation != "do_not_truncate":
                kept = slice(-limit, None) if self.truncation_side == "left" else slice(limit)
                fields = {name: value[kept] for name, value in fields.items()}
            sequences.append(
                {**{n: v.tolist() for n, v in fields.items()}, "attention_mask": [1] * len(fields["input_ids"])}
            )
        batch = {name: [sequence[name] for sequence in sequences] for name in self.model_input_names}
        if padding is False and return_tensors is not None and len({len(ids) for ids in batch["input_ids"]}) > 1:
            raise ValueError("people have different numbers of visits: pass padding=True to make one tensor of them.")
        if padding:
            output = self.pad(batch, padding=padding, max_length=max_length, return_tensors=return_tensors)
        else:
            output = BatchEncoding(batch, tensor_type=return_tensors)
        if return_tensors is not None:
            features = self.location_features
            output["location_features"] = features if return_tensors == "pt" else features.numpy()
        return output

    def _pad(self, encoded_inputs: Any, max_length: int | None = None, *args: Any, **kwargs: Any) -> Any:
        before = len(encoded_inputs[self.model_input_names[0]])
        padded = super()._pad(encoded_inputs, max_length, *args, **kwargs)
        missing = len(padded[self.model_input_names[0]]) - before
        side = kwargs.get("padding_side") or self.padding_side
        for name in ("time_ids", "weekday_ids", "stay_ids", "timestamps"):
            if missing and name in padded:
                fill = [0] * missing
                padded[name] = fill + list(padded[name]) if side == "left" else list(padded[name]) + fill
        return padded

    # Ids -> records

    def decode_visits(self, input_ids: Any, timestamps: Any = None) -> dict[str, list]:
        """Token ids (T,) and local civil seconds (T,) -> columns `location_id`, `lat`, `lon` and, with times, `time`
        (aware datetimes in UTC).
        """
        ids = np.asarray(input_ids).reshape(-1)
        places = ids >= NUM_SPECIAL
        rows = ids[places] - NUM_SPECIAL
        columns: dict[str, list] = {
            "location_id": self.location_ids[rows].tolist(),
            "lat": self.lat[rows].tolist(),
            "lon": self.lon[rows].tolist(),
        }
        if timestamps is not None:
            utc, _ = to_utc(np.asarray(timestamps).reshape(-1)[places], self.timezone)
            columns["time"] = [datetime.fromtimestamp(second, timezone.utc) for second in utc.tolist()]
        return columns

    # The text path

    @property
    def vocab_size(self) -> int:
        return len(self.location_ids) + NUM_SPECIAL

    def _convert_token_to_id(self, token: str) -> int:
        if token not in self._index:
            raise ValueError(f"{token!r} is no location of {self.places.called}.")
        return self._index[token]

    def _convert_id_to_token(self, index: int) -> str:
        if index < NUM_SPECIAL:
            return self._pad_content if index == 0 else self._eos_content
        return str(self.location_ids[index - NUM_SPECIAL])


__all__ = ["SamoeTokenizer"]
