"""The recipe of M-STAR's weeks of slots: codec, generator and place head, one after the other, on several cities."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from ..modeling.configuration_mstar import MstarCodecConfig
from ..modeling.modeling_mstar import MstarForTrajectoryGeneration
from ..modeling.modeling_mstar_codec import MstarCodecModel
from ..tokenization.city import City
from ..tokenization.diaries import NUM_SLOTS, SLOT_MAP, to_slots
from ..tokenization.errors import DataError
from ..tokenization.poi import POI_COLUMNS
from ..tokenization.tokenization_mstar_slots import MstarSlotTokenizer
from ..tokenization.traits import TRAIT_SIZES, TraitModel
from ..tokenization.weeks import home_and_work
from .fit import fit
from .place_choices import CityChoices, choices_of, fit_places
from .presets import MODEL_SETTINGS, training_arguments
from .recipes import Made, Recipe
from .rows import ArrayRows

CODEC_STEPS, PLACE_STEPS = 600, 400
MIN_KNOWN = 0.5
DAYTIME = slice(9, 17)
SLOT_SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "small": {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2},
}


class SlotWeeks(NamedTuple):
    """Weeks of one city: tokenizer, (N, 168) places and slots, (N,) home, work and user, (N, 10) measured traits."""

    tokenizer: MstarSlotTokenizer
    places: np.ndarray
    slots: np.ndarray
    home: np.ndarray
    work: np.ndarray
    users: np.ndarray
    traits: np.ndarray


def train_slots(cities: list[tuple[pd.DataFrame, City]], recipe: Recipe) -> Made:
    """One model for several cities; the tokenizer is that of the first, with the traits of the users of all."""
    known = MIN_KNOWN if recipe.min_known is None else recipe.min_known
    read = [
        read_weeks_of(visits, city, min_known=known, fill_hours=recipe.fill_hours or 0.0) for visits, city in cities
    ]
    users = np.concatenate(
        [number * 10**9 + np.unique(part.users, return_inverse=True)[1] for number, part in enumerate(read)]
    )
    measured = np.concatenate([part.traits for part in read])
    traits = TraitModel.fit(measured, users=users, min_users=recipe.min_users or 5, seed=recipe.seed)
    notes = [
        f"city {part.tokenizer.name or '(no name)'}: {len(part.tokenizer.city):,} places, {len(part.places):,} weeks "
        f"of {len(np.unique(part.users)):,} users"
        for part in read
    ]
    for note in notes:
        recipe.tell(note)
    slots = np.concatenate([part.slots for part in read])
    encoded = encoded_slots(read[0].tokenizer, slots)
    codec = _codec(encoded, recipe)
    model: Any = _generator(codec, recipe)
    model.fit_places(SLOT_MAP)
    model.fit_transition(torch.from_numpy(slots.astype(np.int64)))
    rows = rows_of(model, read[0].tokenizer, encoded, measured)
    model, history = fit_generator(model, recipe.settings, rows)
    choices = [
        CityChoices(
            part.tokenizer.location_features, choices_of(part.places, part.slots, part.home, part.work, part.users)
        )
        for part in read
    ]
    loss = fit_places(model.places, choices, steps=_at_most(PLACE_STEPS, recipe), seed=recipe.seed)
    notes.append(f"place head: {loss:.2f} nats a choice in training")
    recipe.tell(notes[-1])
    tokenizer = read[0].tokenizer
    tokenizer.traits = traits
    return Made(model, tokenizer, history, tuple(notes))


def read_weeks_of(
    visits: pd.DataFrame, city: City, *, min_known: float = MIN_KNOWN, fill_hours: float = 0.0
) -> SlotWeeks:
    """The weeks of a table of visits that are known well enough, cut where the city's working days begin."""
    tokenizer = MstarSlotTokenizer.from_city(city)
    options = {"min_known": min_known, "fill_hours": fill_hours}
    weeks = tokenizer.weeks(visits, **options)
    days = days_off_of(weeks.cells)
    if days != tokenizer.days_off:
        tokenizer = MstarSlotTokenizer.from_city(city, days_off=days)
        weeks = tokenizer.weeks(visits, **options)
    home, work = tokenizer.home_and_work(weeks.cells)
    slots = to_slots(weeks.cells, home, work)
    traits = tokenizer.traits_of(slots, home, work)
    return SlotWeeks(tokenizer, weeks.cells, slots, home, work, np.asarray(weeks.user_id), traits)


def encoded_slots(tokenizer: MstarSlotTokenizer, slots: np.ndarray) -> dict[str, torch.Tensor]:
    """What a codec reads of diaries (N, 168)."""
    return {name: torch.from_numpy(values) for name, values in tokenizer.encode_slots(slots).items()}


def rows_of(
    model: MstarForTrajectoryGeneration, tokenizer: MstarSlotTokenizer, encoded: dict[str, torch.Tensor], traits: Any
) -> dict[str, torch.Tensor]:
    """Codes, mask of known hours and conditions of weeks, (N, ..) each; `traits` (N, 10) as they were measured."""
    mask = encoded["attention_mask"]
    codes = model.codec.encode(encoded["input_ids"].to(model.device), mask.to(model.device), batch_size=256)
    conditions = {name: torch.from_numpy(ids) for name, ids in tokenizer.conditions_of(traits).items()}
    return {**conditions, "code_ids": codes.cpu(), "attention_mask": mask}


def fit_generator(model: Any, settings: Any, rows: dict[str, torch.Tensor]) -> tuple[Any, pd.DataFrame]:
    """What `fit` makes of the rows; the place head, which they say nothing of, stays as it is."""
    model.places.requires_grad_(False)
    model, history = fit(model, settings, ArrayRows(rows))
    model.places.requires_grad_(True)
    return model, history


def days_off_of(places: np.ndarray) -> tuple[int, int]:
    """The two weekdays, one after the other, with the fewest daytime hours at the users' second places.

    Args:
        places: (N, 168) from Monday on, -1 = unknown.
    """
    home, work = home_and_work(places, work_days=(0, 7))
    at_work = (places == work[:, None]) & (work != home)[:, None]
    share = at_work.reshape(len(places), 7, 24)[:, :, DAYTIME].mean(axis=(0, 2))
    pairs = share + np.roll(share, -1)
    first = 5 if np.isclose(pairs[5], pairs.min()) else int(pairs.argmin())
    return first, (first + 1) % 7


def _codec(encoded: dict[str, torch.Tensor], recipe: Recipe) -> MstarCodecModel:
    """A codec of slots. It is small and soon exact."""
    shape = {"num_cells": NUM_SLOTS, "cells_per_resolution": (SLOT_MAP.max(axis=0) + 1).tolist()}
    levels = MODEL_SETTINGS["mstar-slots-codec"]["level_lengths"]
    finest = [len(shape["cells_per_resolution"]) - 1] * len(levels)  # type: ignore[arg-type]
    codec = MstarCodecModel(MstarCodecConfig(**MODEL_SETTINGS["mstar-slots-codec"], **shape, level_resolutions=finest))
    settings = training_arguments(
        str(recipe.settings.output_dir),
        preset="mstar_codec",
        max_steps=_at_most(CODEC_STEPS, recipe),
        seed=recipe.seed,
        use_cpu=recipe.settings.use_cpu,
        save_strategy="no",
        dataloader_pin_memory=recipe.settings.dataloader_pin_memory,
    )
    codec, _ = fit(codec, settings, ArrayRows(encoded))
    return codec


def _at_most(steps: int, recipe: Recipe) -> int:
    """Steps of a part, which are never more than those of the generator where their number was given."""
    given = int(recipe.settings.max_steps)
    return min(steps, given) if given > 0 else steps


def _generator(codec: MstarCodecModel, recipe: Recipe) -> MstarForTrajectoryGeneration:
    if recipe.size not in SLOT_SIZES:
        raise DataError(f"size of weeks of slots must be one of {', '.join(SLOT_SIZES)}, not {recipe.size!r}.")
    shape = SLOT_SIZES[recipe.size]
    values = {"attribute_sizes": TRAIT_SIZES, "num_poi_features": len(POI_COLUMNS), **MODEL_SETTINGS["mstar-slots"]}
    return MstarForTrajectoryGeneration.from_codec(codec, "small", **{**values, **shape})
