"""How each system is trained: data in, (model, tokenizer, history, notes) out. `train.py` chooses and checks.

The settings stand in `presets.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from transformers import TrainingArguments

from ..data.cutting import describe_grid, describe_weeks, refuse_strays, weeks_on
from ..data.record_contexts import RecordHistories
from ..data.week_arrays import shift_weeks
from ..data.weeks import WeekTable, refuse_weeks
from ..hub.loading import load_model
from ..modeling.configuration_mstar import MstarCodecConfig
from ..modeling.configuration_raw import RawConfig
from ..modeling.configuration_samoe import SamoeConfig
from ..modeling.modeling_mstar import MstarForTrajectoryGeneration
from ..modeling.modeling_mstar_codec import MstarCodecModel
from ..modeling.modeling_raw import RawForTrajectoryPrediction
from ..modeling.modeling_raw_extended import RawExtendedForTrajectoryPrediction
from ..modeling.modeling_samoe import SamoeForNextLocation
from ..tokenization.city import City
from ..tokenization.errors import DataError
from ..tokenization.grid import Box, SquareGrid
from ..tokenization.tokenization_mstar import MstarTokenizer
from ..tokenization.tokenization_raw import RawTokenizer
from ..tokenization.tokenization_samoe import SamoeTokenizer
from .corpus import CityCorpus
from .fit import fit
from .presets import MODEL_SETTINGS, RAW_WINDOW_DAYS, SAMOE_BATCHES
from .records import RecordRows
from .rows import ArrayRows

CONDITIONS = ("home_ids", "work_ids", "attribute_ids")


@dataclass(frozen=True)
class Recipe:
    """What `train` was asked for, after its checks; see there. `tokenizer` is that of the model to go on with or of the
    codec, None for a new city; `tell` is called with sentences on the data."""

    size: str
    settings: TrainingArguments
    start: str | None
    codec: Any
    tokenizer: Any
    city: Any
    timezone: str | None
    name: str
    cell_km: float | None
    coverage: float | None
    bounds: Sequence[float] | None
    min_known: float | None
    fill_hours: float | None
    shifted_copies: int
    min_users: int | None
    seed: int
    tell: Callable[[str], None]


class Made(NamedTuple):
    """What a recipe returns."""

    model: Any
    tokenizer: Any
    history: pd.DataFrame
    notes: tuple[str, ...]


def train_samoe(cities: list[tuple[pd.DataFrame, City]], recipe: Recipe) -> Made:
    """One model for several cities; the tokenizer is that of the first."""
    model = _started(SamoeForNextLocation, recipe) or SamoeForNextLocation(SamoeConfig.from_preset(recipe.size))
    tokenizers = [SamoeTokenizer.from_city(city, model.config) for _, city in cities]
    corpus = CityCorpus.from_visits([(visits, tokenizer) for (visits, _), tokenizer in zip(cities, tokenizers)])
    notes = tuple(f"city {city.name or '(no name)'}: {len(city):,} places" for _, city in cities)
    _tell(notes, recipe)
    model, history = fit(model, recipe.settings, corpus, **SAMOE_BATCHES)
    return Made(model, tokenizers[0], history, notes)


def train_codec(data: Any, recipe: Recipe) -> Made:
    """M-STAR's codec, with the tokenizer of the grid and its conditions."""
    tokenizer = recipe.tokenizer or new_grid(data, recipe)
    cells, users, notes = _weeks(tokenizer, data, recipe)
    model = _started(MstarCodecModel, recipe)
    if model is None:
        config = _codec_config(tokenizer, recipe.size)
        tokenizer.fit_conditions(cells, users=users, sample=1_500, seed=recipe.seed)
        model = MstarCodecModel(config)
    _check_conditions(tokenizer, recipe)
    cells = shift_weeks(cells, *_shape(tokenizer), copies=recipe.shifted_copies, seed=recipe.seed)
    encoded = tokenizer(cells, conditions=False, return_tensors="pt")
    rows = ArrayRows({name: encoded[name] for name in ("input_ids", "attention_mask")})
    model, history = fit(model, recipe.settings, rows)
    return Made(model, tokenizer, history, notes)


def train_mstar(data: Any, recipe: Recipe) -> Made:
    """M-STAR's generator: a new one on a codec, or one that goes on."""
    tokenizer = recipe.tokenizer
    cells, _, notes = _weeks(tokenizer, data, recipe)
    _check_conditions(tokenizer, recipe)
    model: Any = _started(MstarForTrajectoryGeneration, recipe) or _new_generator(tokenizer, recipe)
    model.fit_transition(torch.from_numpy(cells))
    model.to(recipe.settings.device)  # where the codec is quick
    shifted = shift_weeks(cells, *_shape(tokenizer), copies=recipe.shifted_copies, seed=recipe.seed)
    encoded = tokenizer(shifted, return_tensors="pt")
    given = {name: encoded[name] for name in ("attention_mask", *CONDITIONS)}
    codes = model.codec.encode(encoded["input_ids"], encoded["attention_mask"], batch_size=256).cpu()
    model, history = fit(model, recipe.settings, ArrayRows({"code_ids": codes, **given}))
    return Made(model, tokenizer, history, notes)


def train_raw(data: Any, recipe: Recipe) -> Made:
    """RAW on the next point of windows of whole weeks; a model of variant `extended` goes on with `_train_records`."""
    refuse_weeks(data, "trained")
    model = _started(RawForTrajectoryPrediction, recipe, form=_raw_class)
    if isinstance(model, RawExtendedForTrajectoryPrediction):
        own = recipe.tokenizer if recipe.city is None else RawTokenizer.from_city(recipe.city, model.config)
        return _train_records([(data, own.city)], model, own, recipe)
    tokenizer = _raw_tokenizer(data, recipe)
    if model is None:
        length, slots = tokenizer.model_max_length, tokenizer.slots_per_day
        shape: dict[str, Any] = {"max_position_embeddings": length, "slots_per_day": slots}
        model = RawForTrajectoryPrediction(RawConfig.from_preset(recipe.size, **shape))
    series = tokenizer.encode_points(data, outside="keep" if _whole_box(recipe) else "drop")
    batch = tokenizer.to_batch(series, padding=True, return_tensors="pt")
    notes = (_describe_windows(tokenizer, series, len(data)),)
    _tell(notes, recipe)
    model, history = fit(model, recipe.settings, ArrayRows({**batch, "labels": batch["coordinates"]}))
    return Made(model, tokenizer, history, notes)


# ---------------------------------------------------------------------------------------------- starting from a folder


def _started(model_class: Any, recipe: Recipe, *, form: Callable[[Any], Any] | None = None) -> Any:
    """The model of the folder to go on with; None for a new one."""
    if recipe.start is None:
        return None
    return load_model(model_class, recipe.start, reader="train(start=)", kwargs={}, form=form)


# --------------------------------------------------------------------------------------------------------------- M-STAR


def new_grid(data: Any, recipe: Recipe) -> MstarTokenizer:
    """The grid of a table of weeks or of a city, or cells over the box of the records."""
    if isinstance(data, WeekTable):
        return _grid_of_table(data, recipe)
    km = 1.0 if recipe.cell_km is None else recipe.cell_km
    if recipe.city is not None:
        if recipe.city.grid is not None and recipe.cell_km is not None:
            raise DataError("The city has a grid of cells already: leave cell_km out.")
        return MstarTokenizer.from_city(recipe.city, cell_km=km)
    options: dict[str, Any] = {"timezone": _zone(recipe), "name": recipe.name}
    if recipe.bounds is not None:
        return MstarTokenizer.from_square_grid(SquareGrid.from_cell_km(recipe.bounds, cell_km=km), **options)
    if recipe.coverage is None:
        refuse_strays(data["lat"], data["lon"], cell_km=km)
    share = 1.0 if recipe.coverage is None else recipe.coverage
    return MstarTokenizer.from_visits(data, cell_km=km, coverage=share, **options)


def _zone(recipe: Recipe) -> str:
    if recipe.timezone is None:
        raise DataError("The time zone is missing: pass timezone=, such as 'Europe/Berlin', or city=.")
    return recipe.timezone


def _grid_of_table(table: WeekTable, recipe: Recipe) -> MstarTokenizer:
    given = [name for name in ("cell_km", "coverage", "bounds", "city") if getattr(recipe, name) is not None]
    if given:
        raise DataError(f"A table of weeks has its grid already: leave {', '.join(given)} out.")
    zone = recipe.timezone or table.timezone
    if table.grid is None or zone is None:
        missing = "grid" if table.grid is None else "time zone (pass timezone=)"
        raise DataError(
            f"The table of weeks does not say its {missing}: a Parquet file can (metadata grid, box_lat, box_lon, tz), "
            "and so can a WeekTable(..., grid=SquareGrid(...), timezone=...)."
        )
    hours = table.cells.shape[1]
    return MstarTokenizer.from_square_grid(table.grid, timezone=zone, name=recipe.name, num_hours=hours)


def _shape(tokenizer: MstarTokenizer) -> tuple[int, int]:
    """Rows and columns of the grid."""
    grid = tokenizer.city.grid
    if grid is None:
        raise DataError("M-STAR is trained on a grid of cells; this tokenizer has a list of cells.")
    return grid.rows, grid.columns


def _weeks(tokenizer: MstarTokenizer, data: Any, recipe: Recipe) -> tuple[np.ndarray, Any, tuple[str, ...]]:
    """(N, L) cells, (N,) users or None, and what is said of grid and weeks, at once."""
    cells, users, report = weeks_on(tokenizer, data, min_known=recipe.min_known, fill_hours=recipe.fill_hours)
    notes = [describe_grid(tokenizer), describe_weeks(report, min_known=recipe.min_known)]
    if users is None:
        notes.append("the weeks do not say whose they are: each counts as another person's in the conditions")
    _tell(notes, recipe)
    return cells, users, tuple(notes)


def _check_conditions(tokenizer: MstarTokenizer, recipe: Recipe) -> None:
    """Before the training, that its city can be saved with the `min_users` that was asked for."""
    if recipe.min_users is not None and tokenizer.conditions is not None:
        tokenizer.conditions.shared_by(recipe.min_users, tokenizer.cell_map)


def _codec_config(tokenizer: MstarTokenizer, size: str) -> MstarCodecConfig:
    settings = MODEL_SETTINGS["mstar-codec"]
    hours = settings["level_lengths"][-1]
    if tokenizer.num_hours != hours:
        raise DataError(f"The codec is one of weeks of {hours} hours; these rows have {tokenizer.num_hours}.")
    shape: dict[str, Any] = {
        "num_cells": tokenizer.num_cells,
        "cells_per_resolution": tokenizer.cells_per_resolution,
        "level_resolutions": [len(tokenizer.cells_per_resolution) - 1] * len(settings["level_lengths"]),
    }
    return MstarCodecConfig.from_preset(size, **settings, **shape)


def _new_generator(tokenizer: MstarTokenizer, recipe: Recipe) -> MstarForTrajectoryGeneration:
    codec = getattr(recipe.codec, "model", None) or load_model(
        MstarCodecModel, str(recipe.codec), reader="train(codec=)", kwargs={}
    )
    has_places = not codec.config.num_encoder_layers  # a vector of their own, to copy
    values = {"num_attributes": tokenizer.num_attributes, "pointer_head": has_places, **MODEL_SETTINGS["mstar"]}
    model = MstarForTrajectoryGeneration.from_codec(codec, recipe.size, **values)
    model.fit_places(tokenizer.cell_map)
    return model


# ------------------------------------------------------------------------------------------------------------------ RAW


def _raw_class(config: RawConfig) -> Any:
    return RawExtendedForTrajectoryPrediction if config.variant == "extended" else RawForTrajectoryPrediction


def train_records(cities: list[tuple[pd.DataFrame, City]], recipe: Recipe) -> Made:
    """A new model of RAW's `extended` variant on records of several cities; the tokenizer is that of the first."""
    model = RawExtendedForTrajectoryPrediction(RawConfig.from_preset(recipe.size, variant="extended"))
    return _train_records(cities, model, RawTokenizer.from_city(cities[0][1], model.config), recipe)


def _train_records(
    cities: list[tuple[pd.DataFrame, City]], model: Any, tokenizer: RawTokenizer, recipe: Recipe
) -> Made:
    """RAW's `extended` variant on the times ahead of every record; it has no box, only a clock."""
    minutes = tokenizer.interval_minutes
    histories = [
        RecordHistories.of_points(points, timezone=city.timezone, interval_minutes=minutes) for points, city in cities
    ]
    notes = tuple(f"records: {len(one.slots):,} slots of {len(one.users):,} users" for one in histories)
    _tell(notes, recipe)
    total = sum(len(one.slots) for one in histories)
    rows = RecordRows(histories, rows=total, records=model.config.context_records, seed=recipe.seed)
    model, history = fit(model, recipe.settings, rows)
    return Made(model, tokenizer, history, notes)


def _whole_box(recipe: Recipe, *, started: bool = True) -> bool:
    """Whether the box is that of all points, so that none lies outside; with `started=False`, or of the start."""
    new = recipe.bounds is None and recipe.coverage is None and recipe.city is None
    return new and not (started and recipe.start is not None)


def _raw_tokenizer(points: pd.DataFrame, recipe: Recipe) -> RawTokenizer:
    """The box of the points, of `bounds`, of a city, or of the model to go on with."""
    started = recipe.tokenizer
    if started is not None and _whole_box(recipe, started=False):
        return started
    shape: dict[str, Any] = {"model_max_length": RAW_WINDOW_DAYS * 96}
    if started is not None:
        names = ("model_max_length", "interval_minutes", "time_features", "fill")
        shape = {name: getattr(started, name) for name in names}
    if recipe.city is not None:
        return RawTokenizer.from_city(recipe.city, **shape)
    shape |= {"timezone": _zone(recipe), "name": recipe.name}
    if recipe.bounds is not None:
        return RawTokenizer.from_bounds(recipe.bounds, **shape)
    if recipe.coverage is None:
        refuse_strays(points["lat"], points["lon"])
        return RawTokenizer.from_points(points, **shape)
    box = Box.around(points["lat"], points["lon"], coverage=recipe.coverage, margin=0.05)  # as of all points
    return RawTokenizer.from_bounds(box, **shape)


def _describe_windows(tokenizer: RawTokenizer, series: Any, rows: int) -> str:
    edges = ",".join(f"{edge:.4f}" for edge in tokenizer.bounds)
    return (
        f"windows: {len(series):,} of {len(np.unique(series.user_index)):,} users, {series.observed.mean():.0%} of the "
        f"slots recorded; {series.num_outside:,} of {rows:,} rows outside the bounds {edges}"
    )


def _tell(notes: Sequence[str], recipe: Recipe) -> None:
    for note in notes:
        recipe.tell(note)
