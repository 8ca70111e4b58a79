"""Answers a second of a session, where each visit that arrives is answered, beside `predict`, which reads the last visits of a user each time.

    python -m benchmarks.speed.session checkpoints/samoe-small --output benchmarks/speed/session.csv

A simulated city; the same users have as many visits as `--context` before the measurement begins. Medians over `--repeats`. The bound counts the
products and the exponentials that an answer needs whatever the program does, at the rates that torch reaches for large
ones in the same process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.tables import GrowingTable
from hf_mobility import City, NextLocationPipeline, simulate_city

SHOWN = ["measurement", "dtype", "places", "context", "users", "ms", "answers_per_s", "ratio", "bound_per_s", "threads"]
EXPONENTIALS = 3 + 6 + 3 + 2  # nearness; distances; their logarithms; the scores and their mixture


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
    """After one call that is not counted."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def answers_per_second(model: Any, places: int) -> float:
    """What the arithmetic of one answer allows."""
    side = 1024
    matrix, values, dtype = torch.rand(side, side), torch.rand(4_000_000), model.dtype
    product = median_seconds(lambda: matrix.to(dtype) @ matrix.to(dtype), 5) / (2 * side**3)
    exponential = median_seconds(lambda: torch.exp(values), 5) / len(values)
    body = sum(part.numel() for part in model.parameters())
    operations = 2 * (body + places * (model.config.hidden_size + 9))
    return 1 / (operations * product + places * EXPONENTIALS * exponential)


def visits_at(turn: int, users: int, city: City, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One visit of each user, at a time after those of earlier turns."""
    time_of = 1_700_000_000 + 7_200 * turn + rng.integers(0, 7_000, users)
    places = city.location_ids[rng.integers(0, len(city), users)]
    return {"user_id": np.arange(users), "time": time_of, "location_id": places}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--places", type=int, default=5_000)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--users", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output")
    options = parser.parse_args()

    made = simulate_city(20, num_locations=options.places, num_days=7, seed=0)
    city = City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois)
    growing = GrowingTable(SHOWN, options.output)
    for dtype in (torch.float32, torch.bfloat16):
        growing.add(measured(city, dtype, options))


def measured(city: City, dtype: torch.dtype, options: argparse.Namespace) -> pd.DataFrame:
    loading: dict[str, Any] = {"city": city, "dtype": dtype, "context": options.context}
    pipe = NextLocationPipeline.from_pretrained(options.checkpoint, **loading)
    rng, turn = np.random.default_rng(0), options.context
    turns = [visits_at(turn, options.users, city, rng) for turn in range(options.context)]
    history = pd.DataFrame({name: np.concatenate([one[name] for one in turns]) for name in turns[0]})
    session = pipe.session(max_users=options.users)
    session.answer(history)

    def step(users: int = options.users) -> None:
        nonlocal turn
        turn += 1
        session.answer(visits_at(turn, users, city, rng))

    rows = city.index_of(history["location_id"].to_numpy())
    times = pd.to_datetime(history["time"], unit="s", utc=True)
    frame = history.assign(time=times, lat=city.lat[rows], lon=city.lon[rows])
    timed = [
        ("predict, all visits each time", options.users, median_seconds(lambda: pipe.predict(frame), 1)),
        ("session, one visit each", options.users, median_seconds(step, options.repeats)),
        ("session, one visit of one user", 1, median_seconds(lambda: step(1), 5 * options.repeats)),
    ]
    table = pd.DataFrame(
        {"measurement": name, "users": users, "ms": 1e3 * seconds, "answers_per_s": users / seconds}
        for name, users, seconds in timed
    )
    facts = {"dtype": str(dtype).split(".")[1], "places": len(city), "context": options.context}
    facts |= {"bound_per_s": answers_per_second(pipe.model, len(city)), "threads": torch.get_num_threads()}
    return table.assign(ratio=table["answers_per_s"] / table["answers_per_s"].iloc[0], **facts)


if __name__ == "__main__":
    main()
