"""Visits that do not fit into memory, tokenized in chunks of whole users: visits a second, and the peak of memory.

    python -m benchmarks.speed.streams --output benchmarks/speed/streams.csv
    python -m benchmarks.speed.streams --visits 10000 --users 20       # few visits, to see that it runs

The visits of a simulated city are repeated with new users and written as Parquet files. Then they are read in chunks,
validated, tokenized by SAMoE's tokenizer, cut into windows and written as Parquet files of rows for a Trainer. Each step
is a process of its own. CPU seconds are those of all threads; peak memory is all that the process held, with torch.
"""

from __future__ import annotations

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import pandas as pd

from benchmarks.tables import save_table
from hf_mobility import City, SamoeTokenizer, simulate_city
from hf_mobility.data import validate_visits
from hf_mobility.data.io.streams import user_chunks
from hf_mobility.data.sequences import visits_to_dataset

COLUMNS = ["user_id", "time", "location_id", "lat", "lon"]
FILE = 1_000_000  # visits
SIZES = [1_000_000, 10_000_000, 100_000_000]


def simulate(visits: int, users: int, folder: Path) -> None:
    """At least so many visits, of the same few users under new ids, in files below `folder`, and the city."""
    made = simulate_city(users, num_days=56, seed=0)
    City.from_visits(made.visits, timezone=made.timezone, name=made.name).save(folder / "city")
    tile = made.visits[COLUMNS]
    (folder / "visits").mkdir()
    tiles = -(-visits // len(tile))
    each = max(FILE // len(tile), 1)
    for first in range(0, tiles, each):
        numbers = range(first, min(first + each, tiles))
        copies = [tile.assign(user_id=tile["user_id"] + number * users) for number in numbers]
        pd.concat(copies, ignore_index=True).to_parquet(folder / "visits" / f"{first:06}.parquet", index=False)


def tokenize(folder: Path) -> dict[str, Any]:
    """Read, validate, tokenize and write all visits; what it took."""
    datasets.disable_progress_bars()
    tokenizer = SamoeTokenizer.from_city(City.load(folder / "city"))
    (folder / "rows").mkdir()
    wall, cpu = time.perf_counter(), time.process_time()
    visits = users = targets = 0
    chunks = user_chunks(folder / "visits")
    for number, chunk in enumerate(chunks):
        frame = validate_visits(chunk)
        rows = visits_to_dataset(frame, tokenizer)
        rows.to_parquet(folder / "rows" / f"{number:06}.parquet")
        visits, users = visits + len(frame), users + frame["user_id"].nunique()
        targets += int((rows.data.column("labels").combine_chunks().flatten().to_numpy() >= 0).sum())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert targets == visits - users  # every visit but a user's first
    return {
        "visits": visits,
        "users": users,
        "chunks": len(chunks),
        "cpu_s": round(cpu, 1),
        "wall_s": round(wall, 1),
        "visits_per_cpu_s": round(visits / cpu),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def measure(visits: int, users: int) -> dict[str, Any]:
    one_by_one: dict[str, Any] = {"max_workers": 1, "max_tasks_per_child": 1, "mp_context": get_context("spawn")}
    with TemporaryDirectory() as folder, ProcessPoolExecutor(**one_by_one) as processes:
        processes.submit(simulate, visits, users, Path(folder)).result()
        row = processes.submit(tokenize, Path(folder)).result()
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=int, nargs="+", default=SIZES)
    parser.add_argument("--users", type=int, default=1000, help="simulated ones, whose visits are repeated")
    parser.add_argument("--output", help="a CSV file")
    options = parser.parse_args()
    table = pd.DataFrame([measure(visits, options.users) for visits in options.visits])
    if options.output:
        save_table(table, options.output)


if __name__ == "__main__":
    main()
