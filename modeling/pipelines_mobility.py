"""The tasks of this package for transformers' own `pipeline(task, model=...)`, in any environment: where the package is
installed they are registered, elsewhere `trust_remote_code=True` takes them from the folder.

An input is one table of records of all users, as the tokenizer takes it: a frame, a dict of columns or a list of dicts.
A list of tables is several inputs. An output is a list of dicts, with times in epoch seconds UTC. The package's own
pipelines (`hf_mobility.NextLocationPipeline` and others) take the same records, check them better and give frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from numbers import Integral
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import torch
from transformers import Pipeline

from .generation_raw import roll_windows
from .layers import finite

NUM_SPECIAL = 2  # rows of SAMoE's table before the places: padding and end
VISIT_FIELDS = ("input_ids", "time_ids", "weekday_ids", "stay_ids", "timestamps")
DAY_SECONDS = 86_400
BATCH_SIZE = 32
DEFAULT_START = "2024-01-01"
CONDITIONS = ("home_ids", "work_ids", "attribute_ids")
TOP_K = 5


class MobilityTaskPipeline(Pipeline):
    """What the tasks share.

    Options are given to `pipeline(...)`, or to a call, which goes before. The names of columns (`user_id="uid"`) and
    other options of the tokenizer are among them. `batch_size` (32) is of users, weeks or windows that the model reads
    at one time.
    """

    model: Any
    tokenizer: Any
    _load_tokenizer: Any = True
    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    forward_options: tuple[str, ...] = ()
    result_options: tuple[str, ...] = ()

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **options: Any) -> Any:
        if isinstance(inputs, (list, tuple)) and inputs:
            if all(isinstance(record, Mapping) and not _has_columns(record) for record in inputs):
                inputs = tuple(map(dict, inputs))  # one table: transformers takes a list for several inputs
            elif all(isinstance(week, (list, tuple)) for week in inputs):
                inputs = np.asarray(inputs)
        rows = batch_size or self._batch_size or BATCH_SIZE
        return super().__call__(inputs, batch_size=1, rows=rows, **options)  # one table at a time

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        options.pop("local_files_only", None)  # of `pipeline`
        forward, result = (
            {name: options.pop(name) for name in names if name in options}
            for names in (("rows", *self.forward_options), self.result_options)
        )
        return options, forward, result


class HubNextLocationPipeline(MobilityTaskPipeline):
    """Task `next-location` (SAMoE): visits -> where every user goes next.

    Options: `top_k` places per user (5, or all of a city with fewer); `context` (512) visits that the model looks back
    on; `unknown` and the names of columns, see `SamoeTokenizer.encode_visits`. For an adapter, give its city as well
    (`tokenizer=folder`): transformers takes the base model's.

    Returns:
        Per user and rank: `user_id`, `rank` (1 = most probable), `location_id`, `lat`, `lon`, `probability`.

    Example:
        >>> pipeline("next-location", model="checkpoints/samoe-small")(visits, top_k=3)
    """

    result_options = ("top_k",)

    def preprocess(self, input_: Any, context: int = 512, **options: Any) -> dict[str, Any]:
        if context < 1:
            raise ValueError(f"context must be at least 1, got {context}.")
        context = min(context, self.model.config.max_position_embeddings or context)
        visits = self.tokenizer.encode_visits(input_, **options)
        stops = visits["offsets"][1:]
        lengths = np.minimum(np.diff(visits["offsets"]), context)
        mask = np.arange(lengths.max()) >= lengths.max() - lengths[:, None]  # padded on the left
        rows = np.concatenate([np.arange(stop - length, stop) for stop, length in zip(stops, lengths)])
        batch = {"attention_mask": mask.astype(np.int64)}
        for name in VISIT_FIELDS:
            batch[name] = np.zeros(mask.shape, np.int64)
            batch[name][mask] = visits[name][rows]
        tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
        return {"visits": tensors, "city": self.tokenizer.location_features, "users": visits["users"]}

    def _forward(self, input_tensors: dict[str, Any], rows: int = BATCH_SIZE) -> dict[str, Any]:
        table = self.model.encode_locations(input_tensors["city"])
        parts = [
            self.model(**part, location_table=table, logits_to_keep=1).logits[:, -1, NUM_SPECIAL:].float()
            for part in _parts(input_tensors["visits"], rows)
        ]
        probabilities = finite((torch.cat(parts) / self.tokenizer.temperature).softmax(-1), self.model)
        return {"probabilities": probabilities, "users": input_tensors["users"]}

    def postprocess(self, model_outputs: dict[str, Any], top_k: int | None = None) -> list[dict[str, Any]]:
        probabilities = model_outputs["probabilities"]
        top_k = min(TOP_K, probabilities.shape[1]) if top_k is None else top_k
        if not 1 <= top_k <= probabilities.shape[1]:
            raise ValueError(f"top_k must be between 1 and the city's {probabilities.shape[1]} places, got {top_k}.")
        best, places = probabilities.topk(top_k, dim=-1)
        row = places.flatten().numpy()
        columns = {
            "user_id": np.repeat(model_outputs["users"], top_k),
            "rank": np.tile(np.arange(1, top_k + 1), len(places)),
            "location_id": self.tokenizer.location_ids[row],
            "lat": self.tokenizer.lat[row],
            "lon": self.tokenizer.lon[row],
            "probability": best.flatten().numpy(),
        }
        return _records(columns)


class HubTrajectoryGenerationPipeline(MobilityTaskPipeline):
    """Task `trajectory-generation` (M-STAR): a number of weeks to draw, or weeks to complete -> one row per hour.

    Input: an integer n; or cells (N, L) with -1 = unknown (an array or nested lists), or records that
    `MstarTokenizer.weeks` turns into such weeks. Known hours stay as they are. Unknown ones are drawn as with
    `copy_days=False` of `hf_mobility.TrajectoryGenerationPipeline.complete`, whose default is more accurate.

    Options: `seed` (0); `start`, the local date of the first hour (by default that of the records, else 2024-01-01);
    settings of `MstarForTrajectoryGeneration.generate` such as `temperature`; names of columns.

    Returns:
        `trajectory_id`, `time`, `cell`, `lat`, `lon`; of records also `user_id`.

    Example:
        >>> pipeline("trajectory-generation", model="checkpoints/mstar-cells-small")(10, seed=1)
    """

    forward_options = ("seed", "top_k", "temperature", "guidance", "smoothing_window", "decoding", "emission_scale")
    result_options = ("start",)

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        before, forward, result = super()._sanitize_parameters(**options)
        return before | {name: forward[name] for name in ("seed",) if name in forward}, forward, result

    def preprocess(self, input_: Any, seed: int = 0, **options: Any) -> dict[str, Any]:
        users, start = None, None
        if self.model.config.num_poi_features:
            raise ValueError(
                "weeks of slots are placed in a city by hf_mobility.TrajectoryGenerationPipeline: use that."
            )
        if isinstance(input_, Integral):
            inputs = self.tokenizer.sample_conditions(int(input_), seed=seed, **options)
        else:
            if not isinstance(input_, (np.ndarray, torch.Tensor)):  # records
                conditions = {name: options.pop(name) for name in CONDITIONS if name in options}
                input_, users, start = self.tokenizer.weeks(input_, **options)
                options = conditions
            inputs = dict(self.tokenizer(input_, **options))
            inputs |= {"prefix_ids": inputs.pop("input_ids"), "prefix_mask": inputs.pop("attention_mask")}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in inputs.items()}
        return {"weeks": tensors, "users": users, "start": start}

    def _forward(
        self, input_tensors: dict[str, Any], rows: int = BATCH_SIZE, seed: int = 0, **options: Any
    ) -> dict[str, Any]:
        source = torch.Generator().manual_seed(seed)  # one for all parts, on the CPU
        parts = []
        for part in _parts(input_tensors["weeks"], rows):
            known = {name: part.pop(name) for name in ("prefix_ids", "prefix_mask") if name in part}
            parts.append(self.model.generate(*part.values(), **known, generator=source, **options))
        return {**input_tensors, "cells": torch.cat(parts)}

    def postprocess(self, model_outputs: dict[str, Any], start: str | None = None) -> list[dict[str, Any]]:
        users, own = model_outputs["users"], model_outputs["start"]
        if start is None:
            start = DEFAULT_START if own is None or np.isnat(own).any() else own
        columns = self.tokenizer.to_frame(model_outputs["cells"].numpy(), start=start)
        zone = ZoneInfo(self.tokenizer.timezone)
        clock, back = np.unique(columns["time"], return_inverse=True)
        seconds = [int(moment.replace(tzinfo=zone).timestamp()) for moment in clock.astype(datetime).tolist()]
        told = {} if users is None else {"user_id": np.asarray(users)[columns["trajectory_id"]]}
        columns = {name: columns[name] for name in ("trajectory_id", "time", "cell", "lat", "lon")}
        return _records(columns | {"time": np.asarray(seconds)[back]} | told)


class HubTrajectoryPredictionPipeline(MobilityTaskPipeline):
    """Task `trajectory-prediction` (RAW): points -> where every user is in the hours after their last record.

    Options: `horizon` (2.0), hours ahead; `outside`, `fill` and the names of columns, see
    `RawTokenizer.encode_points`.

    Returns:
        Per user and slot up to the horizon: `user_id`, `time` of the slot, `horizon` in hours, `lat`, `lon`.

    Example:
        >>> pipeline("trajectory-prediction", model="checkpoints/raw-released-small")(points, horizon=6)
    """

    forward_options = ("horizon",)

    def preprocess(self, input_: Any, **options: Any) -> dict[str, Any]:
        """Every user's last window of whole days, from its first day with a record to the slot of the last one."""
        if self.model.config.variant != "released":
            raise ValueError(
                "this task rolls RAW's variant 'released' forward; for 'extended' use TrajectoryPredictionPipeline of "
                "hf_mobility."
            )
        slots = self.tokenizer.slots_per_day
        days = self.tokenizer.model_max_length // slots
        last = _last_days(self.tokenizer.encode_points(input_, **options), slots)
        found: dict[str, list[Any]] = {name: [] for name in ("users", "series", "start", "time")}
        for day in np.unique(last):
            span = [str(np.datetime64(int(edge), "D")) for edge in (day - days + 1, day + 1)]
            windows = self.tokenizer.encode_points(input_, start=span[0], end=span[1], **options)
            for row in np.flatnonzero(last[windows.user_index] == day):
                begin, stop = windows.offsets[row : row + 2]
                seen = np.flatnonzero(windows.observed[begin:stop])
                first = seen[0] // slots * slots
                found["users"].append(windows.users[windows.user_index[row]])
                found["series"].append(torch.from_numpy(windows.coordinates[begin + first : begin + seen[-1] + 1]))
                found["start"].append(windows.window_start[row] + first // slots * DAY_SECONDS)
                at = self.tokenizer.decode(
                    windows.coordinates[None, begin + seen[-1]][:, None],
                    window_start=windows.window_start[row : row + 1],
                    position_ids=seen[None, -1:],
                )
                found["time"].append(at["time"][0])
        order = np.argsort(np.asarray(found["users"]), kind="stable")
        return {name: [values[row] for row in order] for name, values in found.items()}

    def _forward(self, input_tensors: dict[str, Any], rows: int = BATCH_SIZE, horizon: float = 2.0) -> dict[str, Any]:
        steps = round(horizon * 60 / self.tokenizer.interval_minutes)
        if steps < 1:
            raise ValueError(f"horizon must be at least one slot of {self.tokenizer.interval_minutes} minutes.")
        times, at = self._slots_at(np.asarray(input_tensors["time"]), steps)
        parts = []
        for first in range(0, len(input_tensors["series"]), rows):
            part = slice(first, first + rows)
            weekday = torch.tensor([(int(start) // DAY_SECONDS + 3) % 7 for start in input_tensors["start"][part]])
            made = roll_windows(
                self.model.generate,
                input_tensors["series"][part],
                weekday if self.model.config.time_features else None,
                steps=int(at.max()),
                window=self.tokenizer.model_max_length,
                slots_per_day=self.tokenizer.slots_per_day,
                device=self.device,
            )
            parts.append(torch.take_along_dim(made, torch.from_numpy(at[part, :, None] - 1).to(made.device), dim=1))
        return {"points": torch.cat(parts), "users": input_tensors["users"], "times": times}

    def _slots_at(self, start: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """(U, steps) int64: epoch seconds of the horizons, and how many slots after the last one they lie on the local
        clock, which may change on the way."""
        times = start[:, None] + 60 * self.tokenizer.interval_minutes * np.arange(steps + 1)
        slots = self.tokenizer.local_slots(times)
        return times[:, 1:], np.maximum(slots[:, 1:] - slots[:, :1], 1)

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict[str, Any]]:
        points = finite(model_outputs["points"], self.model).numpy()
        number, steps, _ = points.shape
        ahead = np.arange(1, steps + 1) * self.tokenizer.interval_minutes
        places = self.tokenizer.decode(points)
        columns = {
            "user_id": np.repeat(np.asarray(model_outputs["users"]), steps),
            "time": model_outputs["times"].reshape(-1),
            "horizon": np.tile(ahead / 60, number),
            "lat": places["lat"],
            "lon": places["lon"],
        }
        return _records(columns)


class HubMobilityEmbeddingPipeline(MobilityTaskPipeline):
    """Task `mobility-embedding` (RAW): points -> one vector per user, the mean over their windows, by length.

    Options: `start`, `end`, `outside`, `fill` and the names of columns, see `RawTokenizer.encode_points`.

    Returns:
        Per user: `user_id`, `embedding` (a list of floats).

    Example:
        >>> pipeline("mobility-embedding", model="checkpoints/raw-released-small")(points)
    """

    def preprocess(self, input_: Any, **options: Any) -> dict[str, Any]:
        series = self.tokenizer.encode_points(input_, **options)
        batch = dict(self.tokenizer.to_batch(series, padding=True, return_tensors="pt"))
        slots = torch.from_numpy(np.diff(series.offsets)).double()
        return {"points": batch, "slots": slots, "user": series.user_index, "users": series.users}

    def _forward(self, input_tensors: dict[str, Any], rows: int = BATCH_SIZE) -> dict[str, Any]:
        encoder = getattr(self.model, "model", self.model)
        batches = _parts(input_tensors["points"], rows)
        parts = [encoder(**part, use_cache=False).user_embedding.float() for part in batches]
        return input_tensors | {"embeddings": finite(torch.cat(parts), self.model)}

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict[str, Any]]:
        user = torch.from_numpy(model_outputs["user"])
        slots = torch.zeros(len(model_outputs["users"]), dtype=torch.float64)
        slots.index_add_(0, user, model_outputs["slots"])
        weight = model_outputs["slots"] / slots[user]
        table = torch.zeros(len(slots), model_outputs["embeddings"].shape[1], dtype=torch.float64)
        table.index_add_(0, user, model_outputs["embeddings"].double() * weight[:, None])
        kept = np.unique(model_outputs["user"])
        rows = table.float()[torch.from_numpy(kept)].tolist()
        users = np.asarray(model_outputs["users"])[kept].tolist()
        return [{"user_id": user_id, "embedding": row} for user_id, row in zip(users, rows)]


# Class of a saved model -> its task, the pipeline of the task, and the Auto class that loads the model for it.
PIPELINES = {
    "SamoeForNextLocation": ("next-location", HubNextLocationPipeline, "AutoModelForCausalLM"),
    "MstarForTrajectoryGeneration": ("trajectory-generation", HubTrajectoryGenerationPipeline, "AutoModel"),
    "RawForTrajectoryPrediction": (
        "trajectory-prediction",
        HubTrajectoryPredictionPipeline,
        "AutoModelForTimeSeriesPrediction",
    ),
    "RawModel": ("mobility-embedding", HubMobilityEmbeddingPipeline, "AutoModel"),
}


def _has_columns(record: Mapping[str, Any]) -> bool:
    return any(isinstance(value, (list, tuple, np.ndarray)) for value in record.values())


def _parts(batch: dict[str, torch.Tensor], rows: int) -> Iterator[dict[str, torch.Tensor]]:
    """A batch, `rows` of it at one time."""
    for first in range(0, len(next(iter(batch.values()))), rows):
        yield {name: values[first : first + rows] for name, values in batch.items()}


def _last_days(series: Any, slots_per_day: int) -> np.ndarray:
    """(U,) int64: the local day of every user's last record, in days since 1970; -1 of a user without one."""
    row = np.repeat(np.arange(len(series)), np.diff(series.offsets))
    slot = np.arange(len(row)) - series.offsets[row]
    day = series.window_start[row] // DAY_SECONDS + slot // slots_per_day
    last = np.full(len(series.users), -1, np.int64)
    seen = np.asarray(series.observed, bool)
    np.maximum.at(last, series.user_index[row][seen], day[seen])
    return last


def _records(columns: dict[str, Any]) -> list[dict[str, Any]]:
    rows = zip(*(np.asarray(values).tolist() for values in columns.values()))
    return [dict(zip(columns, row)) for row in rows]
