"""What the command `train` does for each of the three systems: which verbs of the library are called.

Unusual: nothing is chosen here. Sizes are presets, training settings are `training_arguments`; the scripts in examples/
have the options that a paper needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import Trainer, set_seed

from ..data.week_arrays import shift_weeks
from ..modeling.configuration_mstar import MstarCodecConfig
from ..modeling.configuration_raw import RawConfig
from ..modeling.configuration_samoe import SamoeConfig
from ..modeling.modeling_mstar import MstarForTrajectoryGeneration
from ..modeling.modeling_mstar_codec import MstarCodecModel
from ..modeling.modeling_raw import RawForTrajectoryPrediction
from ..modeling.modeling_samoe import SamoeForNextLocation
from ..tokenization.city import City
from ..tokenization.tokenization_mstar import MstarTokenizer
from ..tokenization.tokenization_raw import RawTokenizer
from ..tokenization.tokenization_samoe import SamoeTokenizer
from ..training.corpus import CityCorpus
from ..training.presets import training_arguments
from ..training.rows import ArrayRows
from ..training.trainer import MobilityTrainer

CONDITIONS = ("home_ids", "work_ids", "attribute_ids")
# Of M-STAR, as the shipped codec (docs/results.md)
CODEC: dict[str, Any] = {
    "num_encoder_layers": 0,
    "hierarchical_cells": True,
    "level_lengths": [1, 7, 28, 168],
    "codebook_size": 1024,
    "dropout": 0.0,
}
# Drawing without a search: the best path over all codes. The configuration's own settings are the paper's.
DRAWN: dict[str, Any] = {"temperature": 1.0, "top_k": None, "smoothing_window": 0, "decoding": "viterbi"}
WHOLE_BATCHES: Any = ArrayRows.collate  # the Trainer's type is that of collators of lists
Cities = list[tuple[str, pd.DataFrame, str]]  # name, canonical visits, time zone


# --------------------------------------------------------------------------------------------------------------- train


def train(
    system: str,
    cities: Cities,
    *,
    size: str | None = None,
    codec: str | None = None,
    start: str | None = None,
    copies: int = 0,
    seed: int,
    folder: Path,
    arguments: dict[str, Any],
) -> tuple[Any, Any]:
    """Train and return (model, tokenizer of the first city); `arguments` are of `training_arguments`.

    Args:
        size: preset of a new model, small by default.
        codec: folder of the codec of a new generator. start: folder of a generator to go on with.
        copies: of each week, moved over the grid (`shift_weeks`).

    Raises:
        ValueError: an unknown size, several cities for a system whose cells are those of one, a generator without one
            of `codec` and `start`, these and `copies` for another system, or a size where there is a `start`.
    """
    if system != "samoe" and len(cities) > 1:
        raise ValueError(f"{system} is trained on one city at a time, {len(cities)} files are given.")
    if [codec, start].count(None) != (1 if system == "mstar" else 2):
        raise ValueError(
            "--codec, the folder of a trained codec, or --start, that of a generator to go on with, is for --system "
            "mstar, which needs one of them."
        )
    if start and size:
        raise ValueError("--size is of a new model, --start goes on with a trained one.")
    if copies < 0 or (copies and system not in ("mstar", "mstar-codec")):
        raise ValueError(f"--shifted-copies {copies}: a number of copies of weeks, for mstar and mstar-codec.")
    size = size or "small"
    set_seed(seed)
    preset = {"samoe": "pretrain", "mstar-codec": "mstar_codec"}.get(system, system)
    settings = training_arguments(
        str(folder), preset=preset, seed=seed, save_strategy="no", disable_tqdm=False, **arguments
    )
    if system == "samoe":
        return _train_samoe(cities, size, settings)
    _, visits, timezone = cities[0]
    if system == "mstar-codec":
        return _train_codec(visits, timezone, size, settings, copies, seed)
    if system == "mstar":
        return _train_mstar(visits, codec, start, size, settings, copies, seed)
    return _train_raw(visits, timezone, size, settings)


def _train_samoe(cities: Cities, size: str, settings: Any) -> tuple[Any, Any]:
    config = SamoeConfig.from_preset(size)
    made = [City.from_visits(visits, timezone=timezone, name=name) for name, visits, timezone in cities]
    tokenizers = [SamoeTokenizer.from_city(city, config) for city in made]
    corpus = CityCorpus.from_visits([(visits, tok) for (_, visits, _), tok in zip(cities, tokenizers)])
    model = SamoeForNextLocation(config)
    trainer = MobilityTrainer(
        _eager(model), settings, train_dataset=corpus, tokens_per_batch=1024, augment=True, max_candidates=1500
    )
    return _trained(trainer), tokenizers[0]


def _train_codec(
    visits: pd.DataFrame, timezone: str, size: str, settings: Any, copies: int, seed: int
) -> tuple[Any, Any]:
    tokenizer = MstarTokenizer.from_visits(visits, timezone=timezone)
    cells = tokenizer.weeks(visits).cells
    tokenizer.fit_conditions(cells, sample=1_500, seed=seed)
    shape: dict[str, Any] = {
        "num_cells": tokenizer.num_cells,
        "cells_per_resolution": tokenizer.cells_per_resolution,
        "level_resolutions": [len(tokenizer.cells_per_resolution) - 1] * len(CODEC["level_lengths"]),
    }
    model = MstarCodecModel(MstarCodecConfig.from_preset(size, **CODEC, **shape))
    cells = shift_weeks(cells, tokenizer.rows, tokenizer.columns, copies=copies, seed=seed)
    encoded = tokenizer(cells, conditions=False, return_tensors="pt")
    rows = ArrayRows({name: encoded[name] for name in ("input_ids", "attention_mask")})
    trainer = Trainer(_eager(model), settings, train_dataset=rows, data_collator=WHOLE_BATCHES)
    return _trained(trainer), tokenizer


def _train_mstar(
    visits: pd.DataFrame, codec: str | None, start: str | None, size: str, settings: Any, copies: int, seed: int
) -> tuple[Any, Any]:
    tokenizer = MstarTokenizer.from_pretrained(str(codec or start))
    cells = tokenizer.weeks(visits).cells
    if start:
        model = MstarForTrajectoryGeneration.from_pretrained(start)
    else:
        model = _new_mstar(MstarCodecModel.from_pretrained(str(codec)), tokenizer, size)
    model.fit_transition(torch.from_numpy(cells))
    shifted = shift_weeks(cells, tokenizer.rows, tokenizer.columns, copies=copies, seed=seed)
    encoded = tokenizer(shifted, return_tensors="pt")
    given = {name: encoded[name] for name in ("attention_mask", *CONDITIONS)}
    codes = model.codec.encode(encoded["input_ids"], encoded["attention_mask"], batch_size=256)
    rows = ArrayRows({"code_ids": codes, **given})
    trainer = Trainer(_eager(model), settings, train_dataset=rows, data_collator=WHOLE_BATCHES)
    return _trained(trainer), tokenizer


def _new_mstar(codec: MstarCodecModel, tokenizer: MstarTokenizer, size: str) -> MstarForTrajectoryGeneration:
    has_places = not codec.config.num_encoder_layers  # a vector of their own, to copy
    values = {"num_attributes": tokenizer.num_attributes, "within_level_steps": 6, "pointer_head": has_places, **DRAWN}
    model = MstarForTrajectoryGeneration.from_codec(codec, size, **values)
    model.fit_places(tokenizer.cell_map)
    return model


def _train_raw(visits: pd.DataFrame, timezone: str, size: str, settings: Any) -> tuple[Any, Any]:
    tokenizer = RawTokenizer.from_points(visits, timezone=timezone, model_max_length=7 * 96)
    shape = {"max_position_embeddings": tokenizer.model_max_length, "slots_per_day": tokenizer.slots_per_day}
    model = RawForTrajectoryPrediction(RawConfig.from_preset(size, **shape))
    batch = tokenizer(visits, padding=True, return_tensors="pt")
    rows = ArrayRows({**batch, "labels": batch["coordinates"]})
    trainer = Trainer(model, settings, train_dataset=rows, data_collator=WHOLE_BATCHES)
    return _trained(trainer), tokenizer


def _eager(model: Any) -> Any:
    if not torch.accelerator.is_available():
        model.set_attn_implementation("eager")  # faster to train on CPUs, see benchmarks/
    return model


def _trained(trainer: Trainer) -> Any:
    trainer.train()
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
