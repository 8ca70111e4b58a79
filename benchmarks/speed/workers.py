"""Several processes on parts of one folder: processor seconds and wall seconds beside those of one process.

    python -m benchmarks.speed.workers --output benchmarks/speed/workers.csv
    python -m benchmarks.speed.workers --rows 50000 --users 20 --pairs 1       # to see that it runs

Each process is a command on its own part, with one thread. In turns, all parts are worked on at the same time, and one
after the other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from benchmarks.speed.folders import CHECKPOINTS, ROOT, SAMOE
from benchmarks.speed.streams import simulate
from benchmarks.tables import save_table
from hf_mobility.data.io.streams import partition_by_user

JOBS = ("prepare", "predict", "generate")
COMMAND = [sys.executable, "-m", "hf_mobility.cli.app"]


def timed(commands: list[list[str]], at_once: int) -> tuple[float, float]:
    """Wall and processor seconds of all commands, so many at a time."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    wall, cpu = time.perf_counter(), 0.0
    for first in range(0, len(commands), at_once):
        started = [
            subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
            for command in commands[first : first + at_once]
        ]
        for process in started:
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise RuntimeError(f"{' '.join(process.args)} ended with status {status}.")
            cpu += usage.ru_utime + usage.ru_stime
    return time.perf_counter() - wall, cpu


def commands(job: str, workers: int, rows: int, users: int, folder: Path) -> list[list[str]]:
    """One for each worker."""
    if job == "generate":
        model = str(CHECKPOINTS / "mstar-cells-small")
        return [
            [*COMMAND, "generate", model, "-n", str(rows // 168), "--seed", str(seed), "-o", "OUT"]
            for seed in range(workers)
        ]
    simulate(workers * rows, users, folder)
    parts = partition_by_user(folder / "visits", folder / "parts", parts=workers)
    if job == "prepare":
        return [[*COMMAND, "prepare", str(part), "-o", "OUT"] for part in parts]
    city = ["--city", str(folder / "city"), "--top-k", "1"]
    return [[*COMMAND, "predict", SAMOE, str(part), *city, "-o", "OUT"] for part in parts]


def measured(job: str, workers: int, rows: int, users: int, pairs: int) -> list[dict[str, object]]:
    """A row per pair."""
    table = []
    with TemporaryDirectory() as name:
        jobs = commands(job, workers, rows, users, Path(name))
        for pair in range(pairs):
            found = {}
            for at_once in (1, workers) if pair % 2 else (workers, 1):
                with TemporaryDirectory() as out:
                    named = [[word.replace("OUT", f"{out}/{i}.parquet") for word in job] for i, job in enumerate(jobs)]
                    found[at_once] = timed(named, at_once)
            (wall_one, cpu_one), (wall, cpu) = found[1], found[workers]
            row = {"job": job, "workers": workers, "pair": pair, "cpu_s_one": cpu_one, "cpu_s": cpu}
            table.append(row | {"wall_s_one": wall_one, "wall_s": wall})
            print(table[-1], flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=200_000, help="of each part")
    parser.add_argument("--users", type=int, default=200, help="simulated ones, whose visits are repeated")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--output", help="a CSV file")
    options = parser.parse_args()
    sizes = (options.workers, options.rows, options.users, options.pairs)
    table = pd.DataFrame([row for job in options.jobs for row in measured(job, *sizes)])
    if options.output:
        save_table(table, options.output, update=["job", "workers", "pair"])


if __name__ == "__main__":
    main()
