"""What the commands are tried on: a small town, and one tiny model of each system as the commands train it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from command_line import ZONE, call

from hf_mobility import City, SamoeTokenizer, make_task


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory, toy: SimpleNamespace) -> SimpleNamespace:
    """Visits and points as files, and a tiny SAMoE saved with the city of these visits."""
    folder = tmp_path_factory.mktemp("town")
    visits = folder / "simville.parquet"
    call("prepare", "--simulate", 30, "--days", 14, "--observe", 0.5, "--seed", 1, "-o", visits)
    frame = pd.read_parquet(visits)
    city = City.from_visits(frame, timezone=ZONE, name="simville")
    model = toy.model()
    model.save_pretrained(folder / "samoe")
    known = city.with_popularity(make_task(frame, city).train_visits())
    SamoeTokenizer.from_city(known, model.config).save_pretrained(folder / "samoe")
    points = folder / "points.parquet"
    frame[["user_id", "time", "lat", "lon"]].to_parquet(points)
    return SimpleNamespace(folder=folder, visits=visits, points=points, frame=frame, city=city, samoe=folder / "samoe")


@pytest.fixture(scope="session")
def local(town: SimpleNamespace) -> Path:
    """An adapter folder."""
    strength = ("--strength", "weak", "--timezone", ZONE)
    result = call("adapt", town.samoe, town.visits, *strength, "--test-fraction", 0.2, "-o", town.folder / "local")
    assert "weak" in result.output
    return town.folder / "local"


@pytest.fixture(scope="session")
def generator(town: SimpleNamespace) -> Path:
    """Codec and generator as the commands train them, two steps each."""
    short = ("--steps", 2, "--batch-size", 4, "--size", "tiny", "--timezone", ZONE, "--test-fraction", 0.4)
    simulated = ("--min-users", 1)  # few people, but none of them real
    whole = town.folder / "whole.parquet"  # of people seen all the time
    call("prepare", "--simulate", 30, "--days", 14, "--seed", 1, "-o", whole)
    call("train", whole, "--system", "mstar-codec", *short, *simulated, "-o", town.folder / "codec")
    short = (*short, *simulated, "--codec", town.folder / "codec")
    call("train", whole, "--system", "mstar", *short, "-o", town.folder / "weeks")
    return town.folder / "weeks"


@pytest.fixture(scope="session")
def encoder(town: SimpleNamespace) -> Path:
    """RAW, trained on points."""
    short = ("--steps", 2, "--batch-size", 4, "--size", "tiny", "--timezone", ZONE, "--test-fraction", 0.2)
    call("train", town.points, "--system", "raw", *short, "-o", town.folder / "raw")
    return town.folder / "raw"
