"""Peak memory and processor seconds of the commands on folders of Parquet files, by rows, each in a process of its own.

    python -m benchmarks.speed.folders --output benchmarks/speed/folders.csv
    python -m benchmarks.speed.folders --cases audit:100000 --users 20            # to see that it runs

The visits of a simulated city of 400 places are repeated under new ids; a user has 225 of them. Memory is the peak of the
whole process, the package and the model included. Seconds are those of all its threads, starting it included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from benchmarks.speed.streams import simulate
from benchmarks.tables import GrowingTable

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = ROOT / "checkpoints"
SAMOE = str(CHECKPOINTS / "samoe-small")
HOURS = 168
ZONE = ("--timezone", "Europe/Berlin")
COMMANDS: dict[str, tuple[str, ...]] = {  # visits/ and city/ stand for what was simulated, out/ for the output
    "predict": ("predict", SAMOE, "visits/", "--city", "city/", "--top-k", "1", "-o", "out/"),
    "embed": (
        *("embed", str(CHECKPOINTS / "raw-released-small"), "visits/"),
        *("--start", "2024-01-01", "--end", "2024-01-08", "-o", "out/"),
    ),
    "prepare": ("prepare", "visits/", "-o", "out/"),
    "generate": ("generate", str(CHECKPOINTS / "mstar-small"), "-o", "out.parquet"),
    "train": ("train", "visits/", *ZONE, "--size", "tiny", "--steps", "20", "--save-every", "0", "-o", "out/"),
    "adapt": ("adapt", SAMOE, "visits/", *ZONE, "--strength", "weak", "-o", "out/"),
    "evaluate": ("evaluate", SAMOE, "visits/", "--city", "city/"),
    "audit": ("audit", "visits/"),
}
CASES = (
    *("prepare:1000000", "prepare:4000000", "predict:100000", "predict:400000", "embed:100000", "embed:400000"),
    *("generate:1680000", "generate:16800000", "train:250000", "train:1000000", "adapt:50000", "adapt:200000"),
    *("evaluate:50000", "evaluate:200000", "audit:250000", "audit:1000000"),
)


def measured(verb: str, rows: int, users: int) -> dict[str, object]:
    """One row of the table; `users` are simulated and repeated."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hf_mobility.cli.app", *COMMANDS[verb]]
        if verb == "generate":
            command += ["-n", str(rows // HOURS)]
            people = rows // HOURS
        else:
            simulated = [sys.executable, "-m", "benchmarks.speed.folders", "--simulate", folder]
            run([*simulated, "--cases", f"{verb}:{rows}", "--users", str(users)], ROOT)
            table = pd.concat(pd.read_parquet(path, columns=["user_id"]) for path in Path(folder, "visits").iterdir())
            rows, people = len(table), table["user_id"].nunique()
        usage = run(command, folder)
    gib = usage.ru_maxrss / 2**20  # Linux counts KiB
    return {"verb": verb, "rows": rows, "users": people, "peak_gib": gib, "cpu_s": usage.ru_utime + usage.ru_stime}


def run(command: list[str], folder: str | Path) -> Any:
    """What a process on one thread used."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}.")
    return usage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), metavar="VERB:ROWS")
    parser.add_argument("--users", type=int, default=200, help="simulated ones, whose visits are repeated")
    parser.add_argument("--simulate", metavar="FOLDER", help="only simulate the visits of one case there")
    parser.add_argument("--output", help="a CSV file")
    options = parser.parse_args()
    cases = [(verb, int(rows)) for verb, rows in (case.split(":") for case in options.cases)]
    if options.simulate:
        simulate(cases[0][1], options.users, Path(options.simulate))
        return
    keys = ["verb", "rows"]
    table = GrowingTable([*keys, "users", "peak_gib", "cpu_s"], options.output, update=keys)
    for verb, rows in cases:
        table.add(pd.DataFrame([measured(verb, rows, options.users)]))


if __name__ == "__main__":
    main()
