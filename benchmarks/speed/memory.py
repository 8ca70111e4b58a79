"""Peak memory and time of SAMoE's verbs by the number of places and users, each measured in a process of its own.

    python -m benchmarks.speed.memory --output benchmarks/speed/memory.csv
    python -m benchmarks.speed.memory --cases predict:2000:10                 # to see that it runs
    python -m benchmarks.speed.memory --cases predict:1000000:10000 --output benchmarks/speed/memory.csv  # an hour more

Places lie in towns of 1,000, a user's 40 visits are at twelve places of one town. Memory is the peak of the whole
process, the package, the city and the visits included. Seconds are those that one processor works for the verb, without
the making of the city.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.tables import GrowingTable

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "checkpoints" / "samoe-small"
CASES = (
    *("city:5000:0", "city:200000:0"),
    *("predict:5000:1000", "predict:200000:1000"),
    *("evaluate:5000:40", "evaluate:200000:40"),
    *("adapt:5000:40", "adapt:200000:40"),
    "predict:1000000:1000",
)
TOWN, OWN_PLACES, VISITS = 1000, 12, 40
KM_PER_DEGREE = 111.2


def made_visits(users: int, pois: pd.DataFrame) -> pd.DataFrame:
    """(users * VISITS) visits, one every seven hours on average; the k-th of a user's places is the k-th likeliest."""
    rng = np.random.default_rng(1)
    towns = rng.integers(0, len(pois) // TOWN, users)
    own = towns[:, None] * TOWN + rng.integers(0, TOWN, (users, OWN_PLACES))
    likely = 1 / np.arange(1, OWN_PLACES + 1)
    chosen = rng.choice(OWN_PLACES, (users, VISITS), p=likely / likely.sum())
    hours = rng.exponential(7, (users, VISITS)).cumsum(axis=1).ravel()
    table = pois.iloc[np.take_along_axis(own, chosen, axis=1).ravel()].reset_index(drop=True)
    start = pd.Timestamp("2024-01-01", tz="UTC")
    return table.assign(
        user_id=np.repeat(np.arange(users), VISITS), time=start + pd.to_timedelta((hours * 3600).astype(int), unit="s")
    )


def made_places(places: int) -> pd.DataFrame:
    """Towns on a square, 3 km apart on average; places are spread 1 km around the middle of their town."""
    rng = np.random.default_rng(0)
    width = 3 * np.sqrt(places / TOWN)
    middles = rng.uniform(0, width, (-(-places // TOWN), 2))
    km = np.repeat(middles, TOWN, axis=0)[:places] + rng.normal(0, 1, (places, 2))
    lat = 48 + km[:, 1] / KM_PER_DEGREE
    lon = 11 + km[:, 0] / KM_PER_DEGREE / np.cos(np.radians(48))
    category = rng.choice(["Café", "Office", "Home (private)", "Bus Station", "Park"], places)
    return pd.DataFrame({"location_id": np.arange(places).astype(str), "lat": lat, "lon": lon, "category": category})


def seconds_of(verb: str, places: int, users: int) -> float:
    """Make the city and the visits, and time the verb."""
    from hf_mobility import City, NextLocationPipeline, adapt, evaluate_checkpoint

    start = time.process_time()
    pois = made_places(places)
    city = City.from_pois(pois, timezone="Europe/Berlin")
    if verb != "city":
        visits = made_visits(users, pois)
        city = city.with_popularity(visits)
        start = time.process_time()
    if verb == "predict":
        NextLocationPipeline.from_pretrained(CHECKPOINT, city=city).predict(visits)
    elif verb == "evaluate":
        evaluate_checkpoint(CHECKPOINT, visits, city=city)
    elif verb == "adapt":
        adapt(CHECKPOINT, visits, city=city)
    return time.process_time() - start


def measured(case: str) -> dict[str, object]:
    """One row, from a new process."""
    command = [sys.executable, "-m", "benchmarks.speed.memory", "--case", case]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answer = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{case} ended with status {status}.")
    verb, places, users = case.split(":")
    gib = usage.ru_maxrss / 2**20  # Linux counts KiB
    return {"verb": verb, "places": int(places), "users": int(users), "peak, GiB": gib, "seconds": json.loads(answer)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), metavar="VERB:PLACES:USERS")
    parser.add_argument("--case", metavar="VERB:PLACES:USERS", help="measure this one here; print its seconds")
    parser.add_argument("--output", help="a CSV file")
    options = parser.parse_args()
    if options.case:
        verb, places, users = options.case.split(":")
        print(json.dumps(seconds_of(verb, int(places), int(users))))
        return
    keys = ["verb", "places", "users"]
    table = GrowingTable([*keys, "peak, GiB", "seconds"], options.output, update=keys)
    for case in options.cases:
        table.add(pd.DataFrame([measured(case)]))


if __name__ == "__main__":
    main()
