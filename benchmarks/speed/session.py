"""Answers of a session for each processor second, where each visit that arrives is answered, beside `predict`, which
reads the last visits of a user each time.

    python -m benchmarks.speed.session checkpoints/samoe-small --output benchmarks/speed/session.csv

A simulated city. The same users have as many visits as `--context` before the measurement begins, each at a random
place, which is the worst case. Medians of processor seconds over `--repeats`. A session reads a user's visits anew
after half as many as `--context`: the row "all included" is the mean over such a turn. The bound counts the products
and the exponentials of an answer, at the rates that torch reaches for large ones in the same process.
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
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.tables import GrowingTable
from hf_mobility import City, NextLocationPipeline, simulate_city

SHOWN = ["measurement", "dtype", "places", "context", "users", "ms", "answers_per_s", "ratio", "bound_per_s", "threads"]
EXPONENTIALS = 6 + 3 + 3 + 1  # distances; logarithms of nearness; the scores and their mixture; the answer's shares


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
    """After one call that is not counted."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def products_of(run: Callable[[], Any]) -> int:
    """Multiplications and additions of a call."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def seconds_of(products: float, exponentials: float, dtype: torch.dtype) -> float:
    """What the arithmetic takes where nothing else does."""
    side = 1024
    matrix, values = torch.rand(side, side), torch.rand(4_000_000)
    other = matrix.to(dtype)
    product = median_seconds(lambda: other @ other, 5) / (2 * side**3)
    exponential = median_seconds(lambda: torch.exp(values), 5) / len(values)
    return products * product + exponentials * exponential


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

    def turn_of_all() -> None:
        for _ in range(lasts):
            step()

    rows = city.index_of(history["location_id"].to_numpy())
    times = pd.to_datetime(history["time"], unit="s", utc=True)
    frame = history.assign(time=times, lat=city.lat[rows], lon=city.lon[rows])
    users, lasts, places = options.users, max(options.context // 2, 1) + 1, len(city)
    timed = [
        ("predict, all visits each time", users, median_seconds(lambda: pipe.predict(frame), 1)),
        ("session, one visit each", users, median_seconds(step, min(options.repeats, lasts - 2))),
        ("session, all included", users, median_seconds(turn_of_all, 1) / lasts),
        ("session, one visit of one user", 1, median_seconds(lambda: step(1), 5 * options.repeats)),
    ]
    table = pd.DataFrame(
        {"measurement": name, "users": number, "ms": 1e3 * seconds, "answers_per_s": number / seconds}
        for name, number, seconds in timed
    )
    exponentials = EXPONENTIALS * places
    visited = min(places, users * options.context)  # places whose distances `predict` computes, once for all users
    reading = products_of(lambda: pipe.predict(frame)) / users, exponentials + 3 * visited * places / users
    stepping = products_of(step) / users, exponentials
    bounds = [1 / seconds_of(*work, dtype) for work in (reading, stepping)]
    table["bound_per_s"] = np.where(table["measurement"].str.startswith("predict"), *bounds)
    facts = {"dtype": str(dtype).split(".")[1], "places": places, "context": options.context}
    facts |= {"threads": torch.get_num_threads()}
    return table.assign(ratio=table["answers_per_s"] / table["answers_per_s"].iloc[0], **facts)


if __name__ == "__main__":
    main()
