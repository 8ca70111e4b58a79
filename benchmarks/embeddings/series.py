"""The series that the RAW benchmarks train and evaluate on: simulated users, or the GPS files in HF_MOBILITY_DATA.

Windows are whole weeks from a Monday on, so that a slot is the same time of the week in all of them, or single days;
with another number of days, simulated users have one window (the paper's: 10 days). The cabs' occupied flag and
GeoLife's transport modes are never read here. GeoLife lists some people under several numbers: users who share a
recorded point are held out together.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import set_seed

from benchmarks.open_data import data_folder
from hf_mobility import (
    ArrayRows,
    RawConfig,
    RawForTrajectoryPrediction,
    RawTokenizer,
    SquareGrid,
    simulate_city,
    training_arguments,
)
from hf_mobility.baselines.features import NIGHT_HOURS, WORK_HOURS, work_features
from hf_mobility.benchmark.trajectories import linked_users
from hf_mobility.data.simulation.points import simulated_points
from hf_mobility.tokenization import weeks
from hf_mobility.tokenization.tokenization_raw import PAPER_BOUNDS
from hf_mobility.training.fit import fit

NAMES = ("simulated", "geolife", "cabs")
CAB_GRID = SquareGrid(37.58, -122.53, 37.82, -122.36, 30, 30)
LEAST_OBSERVED = 0.05  # of a window's slots; of GeoLife's weeks many are nearly empty


@dataclass(frozen=True)
class SeriesSet:
    """Columns of N whole windows as the tokenizer makes them, `users` (N,) whose they are, `days` (N,) their first day,
    and which are held out or kept for validation (N, bool, all windows of a person alike); `series` and `tokenizer`
    that they come from.
    """

    name: str
    points: pd.DataFrame
    tokenizer: RawTokenizer
    series: Any
    columns: dict[str, np.ndarray]
    users: np.ndarray
    days: np.ndarray
    held_out: np.ndarray
    validation: np.ndarray

    def windows(self, which: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of the windows that a mask (N,) names."""
        return {name: values[which] for name, values in self.columns.items()}

    @property
    def train(self) -> dict[str, np.ndarray]:
        """Columns of the windows to train on."""
        return self.windows(~self.held_out & ~self.validation)

    @property
    def complete(self) -> bool:
        """Whether something is known in every slot."""
        return self.name == "simulated"


def load_points(name: str, *, users: int = 1_000, days: int = 7, seed: int = 0) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Canonical columns of points, and the city: `timezone`, first day, `bounds` where known beforehand."""
    if name == "simulated":
        city = simulate_city(users, num_days=2 * days if days % 7 == 0 else days, num_locations=600, seed=seed)
        points = simulated_points(city, seed=seed)
        stop = pd.Timestamp("2024-01-01") + pd.Timedelta(days=2 * days if days % 7 == 0 else days)
        return points, {"timezone": city.timezone, "start": "2024-01-01", "end": str(stop.date()), "bounds": None}
    if name == "geolife":
        bounds = PAPER_BOUNDS
        file, timezone = "gps_geolife_beijing.parquet", "Asia/Shanghai"
    elif name == "cabs":
        bounds = CAB_GRID.bounds
        file, timezone = "gps_sf_cabs.parquet", "America/Los_Angeles"
    else:
        raise ValueError(f"unknown points {name!r}; choose one of {NAMES}.")
    path = data_folder() / file
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; set HF_MOBILITY_DATA to the folder of the GPS files.")
    points = pd.read_parquet(path, columns=["user_id", "time", "lat", "lon"])
    first = points["time"].min().tz_convert(timezone).tz_localize(None).normalize()
    monday = first - pd.Timedelta(days=first.day_of_week)
    return points, {"timezone": timezone, "start": str(monday.date()), "end": None, "bounds": bounds}


def held_out_people(points: pd.DataFrame, *, share: float, seed: int) -> np.ndarray:
    """A random share of the people, at least two."""
    people = np.random.default_rng(seed).permutation(points["user_id"].unique())
    return people[: max(2, round(share * len(people)))]


def with_linked(people: np.ndarray, group: pd.Series | None) -> np.ndarray:
    """These people and all in their groups of `linked_users`; `None` = nobody is linked."""
    return people if group is None else group.index[group.isin(group[people])].to_numpy()


def split_people(
    name: str, points: pd.DataFrame, *, held_out: float | np.ndarray, validation: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Who is held out, and who is kept for validation: a random share of the people, or those that are named, and a
    share of the others; with them go whoever is linked to them.
    """
    test = held_out if isinstance(held_out, np.ndarray) else held_out_people(points, share=float(held_out), seed=seed)
    group = linked_users(points) if name == "geolife" else None
    test = with_linked(test, group)
    others = points[~points["user_id"].isin(test)]
    return test, with_linked(held_out_people(others, share=validation, seed=seed + 1), group) if validation else test[
        :0
    ]


def load_series(
    name: str,
    *,
    users: int = 1_000,
    days: int = 7,
    seed: int = 0,
    held_out: float | np.ndarray = 0.05,
    validation: float = 0.0,
    **options: Any,
) -> SeriesSet:
    """The windows of a set, and which people are kept from training, see `split_people`. `options` go to the tokenizer."""
    points, city = load_points(name, users=users, days=days, seed=seed)
    options = {"timezone": city["timezone"], "model_max_length": 96 * days, **options}
    test, chosen = split_people(name, points, held_out=held_out, validation=validation, seed=seed)
    if city["bounds"] is None:
        tokenizer = RawTokenizer.from_points(points[~points["user_id"].isin(test)], **options)
    else:
        tokenizer = RawTokenizer.from_bounds(city["bounds"], **options)
    outside = "drop" if name == "geolife" else "keep"  # people fly; cabs go to the airport and come back
    series = tokenizer.encode_points(points, start=city["start"], end=city["end"], outside=outside)
    batch = {
        field: values.numpy() for field, values in tokenizer.to_batch(series, padding=True, return_tensors="pt").items()
    }
    kept = batch["attention_mask"].all(axis=1) & (batch["observed_mask"].mean(axis=1) >= LEAST_OBSERVED)
    columns = {field: values[kept] for field, values in batch.items()}
    owner, day = series.user_ids[kept], series.window_start[kept].astype("datetime64[s]").astype("datetime64[D]")
    parts = np.isin(owner, test), np.isin(owner, chosen)
    return SeriesSet(name, points, tokenizer, series, columns, owner, day, *parts)


@torch.inference_mode()
def embed_windows(encoder: Any, columns: dict[str, np.ndarray], *, batch_size: int = 64) -> np.ndarray:
    """Windows -> (N, D) float32, one vector each; people are not averaged."""
    rows = {name: torch.from_numpy(values).split(batch_size) for name, values in columns.items()}
    batches = (dict(zip(rows, batch)) for batch in zip(*rows.values()))
    return torch.cat([encoder(**batch, use_cache=False).user_embedding for batch in batches]).numpy()


def home_and_work(
    lat: np.ndarray, lon: np.ndarray, *, slots_per_day: int, cell_km: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """From positions (N, T) in weeks that begin on a Monday: middle of the commonest cell of the nights (0-6 h) and of
    the working hours (weekdays 10-17 h), each (N, 2) degrees [latitude, longitude].
    """
    grid = SquareGrid.around(lat, lon, cell_km=cell_km)
    hours = {"home_hours": NIGHT_HOURS, "work_hours": WORK_HOURS}
    home, work = weeks.home_and_work(grid.cell(lat, lon), slots_per_day=slots_per_day, **hours)
    return np.stack(grid.centre(home), axis=1), np.stack(grid.centre(work), axis=1)


def commuters(lat: np.ndarray, lon: np.ndarray, *, slots_per_day: int, cell_km: float = 0.5) -> np.ndarray:
    """bool (N,): who is at work on three weekdays or more, over 1 km from home."""
    return work_features(lat, lon, slots_per_day=slots_per_day, cell_km=cell_km)["commutes"].to_numpy() > 0


def _best_of(steps: int, states: int = 8) -> dict[str, Any]:
    """Training arguments that keep the best state on the validation windows."""
    every = max(1, steps // states)
    saved = {"save_strategy": "steps", "save_steps": every, "save_total_limit": 1}
    return {"eval_strategy": "steps", "eval_steps": every, **saved, "load_best_model_at_end": True}


def train_raw(
    columns: dict[str, np.ndarray],
    config: RawConfig,
    *,
    steps: int,
    batch_size: int = 16,
    learning_rate: float = 5e-4,
    seed: int = 0,
    folder: str | Path | None = None,
    validation: dict[str, np.ndarray] | None = None,
) -> RawForTrajectoryPrediction:
    """Trained on the next point of the given windows; with `validation` windows, the best of eight states on them."""
    set_seed(seed)
    model = RawForTrajectoryPrediction(config)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = training_arguments(
            str(folder or scratch),
            preset="raw",
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            **(_best_of(steps) if validation else {"save_strategy": "no"}),
        )
        rows = ArrayRows({**columns, "labels": columns["coordinates"]})
        judged = ArrayRows({**validation, "labels": validation["coordinates"]}) if validation else None
        return fit(model, arguments, rows, eval_dataset=judged)[0]


def raw_config(tokenizer: RawTokenizer, size: str, **values: Any) -> RawConfig:
    """A preset with the slots of this tokenizer."""
    shape = {"max_position_embeddings": tokenizer.model_max_length, "slots_per_day": tokenizer.slots_per_day}
    return RawConfig.from_preset(size, **{**shape, "time_features": tokenizer.time_features, **values})
