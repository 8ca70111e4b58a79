"""The series that the RAW examples train and judge on: simulated people, or the GPS files in HF_MOBILITY_DATA.

Windows are whole weeks from a Monday on, so that a slot is the same time of the week in all of them; with another
number of days, simulated people have one window (the paper's: 10 days). The cabs' occupied flag is never read.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _open_data import data_folder
from transformers import PrinterCallback, Trainer, set_seed

from hf_mobility import (
    ArrayRows,
    RawConfig,
    RawForTrajectoryPrediction,
    RawTokenizer,
    SquareGrid,
    simulate_city,
    training_arguments,
)
from hf_mobility.data.simulated_points import simulated_points
from hf_mobility.tokenization.tokenization_raw import PAPER_BOX

NAMES = ("simulated", "geolife", "cabs")
CAB_GRID = SquareGrid(37.58, -122.53, 37.82, -122.36, 30, 30)
LEAST_OBSERVED = 0.05  # of a window's slots; of GeoLife's weeks many are nearly empty


@dataclass(frozen=True)
class SeriesSet:
    """Columns of N whole windows as the tokenizer makes them, `users` (N,) whose they are, and which are held out (N,
    bool, all windows of a person alike); `series` and `tokenizer` that they come from.
    """

    name: str
    points: pd.DataFrame
    tokenizer: RawTokenizer
    series: Any
    columns: dict[str, np.ndarray]
    users: np.ndarray
    held_out: np.ndarray

    @property
    def complete(self) -> bool:
        """Whether something is known in every slot."""
        return self.name == "simulated"


def load_points(name: str, *, users: int = 1_000, days: int = 7, seed: int = 0) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Canonical columns of points, and the city: `timezone`, first day, and `box` where it is known beforehand."""
    if name == "simulated":
        city = simulate_city(users, num_days=2 * days if days % 7 == 0 else days, num_locations=600, seed=seed)
        points = simulated_points(city, seed=seed)
        stop = pd.Timestamp("2024-01-01") + pd.Timedelta(days=2 * days if days % 7 == 0 else days)
        return points, {"timezone": city.timezone, "start": "2024-01-01", "end": str(stop.date()), "box": None}
    if name == "geolife":
        box = PAPER_BOX
        file, timezone = "gps_geolife_beijing.parquet", "Asia/Shanghai"
    elif name == "cabs":
        box = (CAB_GRID.west, CAB_GRID.east, CAB_GRID.south, CAB_GRID.north)
        file, timezone = "gps_sf_cabs.parquet", "America/Los_Angeles"
    else:
        raise ValueError(f"unknown points {name!r}; choose one of {NAMES}.")
    path = data_folder() / file
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; set HF_MOBILITY_DATA to the folder of the GPS files.")
    points = pd.read_parquet(path, columns=["user_id", "time", "lat", "lon"])
    first = points["time"].min().tz_convert(timezone).tz_localize(None).normalize()
    monday = first - pd.Timedelta(days=first.day_of_week)
    return points, {"timezone": timezone, "start": str(monday.date()), "end": None, "box": box}


def load_series(
    name: str, *, users: int = 1_000, days: int = 7, seed: int = 0, held_out: float = 0.05, **options: Any
) -> SeriesSet:
    """A random `held_out` of the people, at least two, are kept from training; `options` go to the tokenizer."""
    points, city = load_points(name, users=users, days=days, seed=seed)
    options = {"timezone": city["timezone"], "model_max_length": 96 * days, **options}
    people = np.random.default_rng(seed).permutation(points["user_id"].unique())
    test = people[: max(2, round(held_out * len(people)))]
    if city["box"] is None:
        tokenizer = RawTokenizer.from_points(points[~points["user_id"].isin(test)], **options)
    else:
        tokenizer = RawTokenizer.from_box(city["box"], **options)
    outside = "drop" if name == "geolife" else "keep"  # people fly; cabs go to the airport and come back
    series = tokenizer.encode_points(points, start=city["start"], end=city["end"], outside=outside)
    batch = {
        field: values.numpy() for field, values in tokenizer.to_batch(series, padding=True, return_tensors="pt").items()
    }
    kept = batch["attention_mask"].all(axis=1) & (batch["observed_mask"].mean(axis=1) >= LEAST_OBSERVED)
    columns = {field: values[kept] for field, values in batch.items()}
    owner = series.user_ids[kept]
    return SeriesSet(name, points, tokenizer, series, columns, owner, np.isin(owner, test))


def train_raw(
    columns: dict[str, np.ndarray],
    config: RawConfig,
    *,
    steps: int,
    batch_size: int = 16,
    learning_rate: float = 5e-4,
    seed: int = 0,
    folder: str | Path | None = None,
) -> RawForTrajectoryPrediction:
    """Trained on the next point of the given windows."""
    set_seed(seed)
    model = RawForTrajectoryPrediction(config)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = training_arguments(
            str(folder or scratch),
            preset="raw",
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            save_strategy="no",
            seed=seed,
        )
        rows = ArrayRows({**columns, "labels": columns["coordinates"]})
        trainer = Trainer(model, arguments, train_dataset=rows, data_collator=ArrayRows.collate)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False).eval()


def raw_config(tokenizer: RawTokenizer, size: str, **values: Any) -> RawConfig:
    """A preset with the slots of this tokenizer."""
    shape = {"max_position_embeddings": tokenizer.model_max_length, "slots_per_day": tokenizer.slots_per_day}
    return RawConfig.from_preset(size, **{**shape, "time_features": tokenizer.time_features, **values})
