"""How soon a command of `hf-mobility` shows something: seconds to the first byte at a terminal.

    python -m benchmarks.speed.first_output --output benchmarks/speed/first_output.csv

Every command is started in a process and at a terminal of its own, on 50 simulated users, and stopped once it has shown
something. Processor seconds are of all its threads; wall seconds depend on what else runs, which `load` tells (processes
that wait for a core, on average of a minute). `push` needs the Hub and `convert` a file of the authors: both are left out.
"""

from __future__ import annotations

import argparse
import os
import pty
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from benchmarks.tables import save_table
from hf_mobility import simulate_city
from hf_mobility.data.simulation.points import simulated_points

ROOT = Path(__file__).resolve().parents[2]
CITY = ("--city", "visits.parquet", "--timezone", "Europe/Berlin")
COMMANDS = {
    "prepare": ("--simulate", "50", "-o", "made.parquet"),
    "train": ("visits.parquet", "--timezone", "Europe/Berlin", "--size", "tiny", "--steps", "50", "-o", "samoe"),
    "adapt": ("{samoe}", "visits.parquet", "--timezone", "Europe/Berlin", "--strength", "weak", "-o", "local"),
    "predict": ("{samoe}", "visits.parquet", *CITY, "-o", "next.csv"),
    "forecast": ("{samoe}", "visits.parquet", *CITY, "-o", "ahead.csv"),
    "generate": ("{mstar}", "-n", "50", "-o", "weeks.parquet"),
    "embed": ("{raw}", "points.parquet", "--start", "2024-01-01", "--end", "2024-01-08", "-o", "users.parquet"),
    "evaluate": ("{samoe}", "visits.parquet", *CITY),
    "benchmark": ("--protocol", "simulated-city"),
    "audit": ("visits.parquet",),
    "info": ("{samoe}",),
    "export": ("{samoe}", "-o", "next.onnx"),
}


def first_output(command: list[str], folder: str) -> dict[str, float]:
    """Processor and wall seconds until a command shows something at a terminal of its own, and the load by then.

    Raises:
        SystemExit: it ended without showing anything.
    """
    ours, its = pty.openpty()
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdin=its, stdout=its, stderr=its, close_fds=True)
    os.close(its)
    try:
        shown = os.read(ours, 1)
    except OSError:  # the terminal is closed: the command has ended
        shown = b""
    wall = time.perf_counter() - start
    cpu = processor_seconds(process.pid)
    process.kill()
    process.wait()
    os.close(ours)
    if not shown:
        raise SystemExit(f"{command} shows nothing.")
    return {"cpu_s": cpu, "wall_s": wall, "load": os.getloadavg()[0]}


def processor_seconds(pid: int) -> float:
    """Of a running process, from Linux's table of processes."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of each command, of which the median is taken")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    names = {name: str(ROOT / "checkpoints" / f"{name}-small") for name in ("samoe", "mstar", "raw")}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made = simulate_city(50, num_days=28, num_locations=600, observe=0.3, seed=0)
        made.visits.to_parquet(Path(folder, "visits.parquet"))
        simulated_points(made, seed=0).to_parquet(Path(folder, "points.parquet"))
        for name, given in COMMANDS.items():
            words = [sys.executable, "-m", "hf_mobility.cli.app", name, *(word.format(**names) for word in given)]
            runs = pd.DataFrame([first_output(words, folder) for _ in range(options.runs)])
            rows.append({"command": name, "runs": options.runs, **runs.median()})
            print(rows[-1], file=sys.stderr)
    table = pd.DataFrame(rows)
    print(table.round(2).to_string(index=False))
    if options.output is not None:
        save_table(table.round(2), options.output)


if __name__ == "__main__":
    main()
