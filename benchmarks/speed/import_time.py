"""What `import hf_mobility` adds to imports of transformers: CPU time of new processes, with and without ours before.

    python -m benchmarks.speed.import_time --output benchmarks/speed/import_time.csv
    python -m benchmarks.speed.import_time --runs 1                         # to see that it runs

Each import is measured in pairs of processes in turns, so that others on the machine count for both; one pair before
the first warms the disk cache. `with_s` and `without_s` are medians of the seconds that a process worked, user and
system; `ratio` is the median over pairs, `low` and `high` its 95 % interval from resampled pairs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.tables import save_table

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = {
    "AutoModelForCausalLM": "from transformers import AutoModelForCausalLM",
    "AutoTokenizer": "from transformers import AutoTokenizer",
    "pipeline": "from transformers import pipeline",
}
OURS = "import hf_mobility; "


def cpu_seconds(code: str) -> float:
    """CPU time of a new process that runs `code`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{code!r} ended with status {status}.")
    return usage.ru_utime + usage.ru_stime


def measure(imports: str, runs: int) -> dict[str, float]:
    """Medians over `runs` pairs, of which every second begins with the process without ours."""
    cpu_seconds(OURS + imports)
    pairs = []
    for run in range(runs):
        codes = [OURS + imports, imports]
        seconds = [cpu_seconds(code) for code in (codes if run % 2 else codes[::-1])]
        pairs.append(seconds if run % 2 else seconds[::-1])
        print(f"{imports}: {pairs[-1][0]:.2f} s with, {pairs[-1][1]:.2f} s without", file=sys.stderr)
    ours, without = np.array(pairs).T
    drawn = np.random.default_rng(0).integers(0, runs, (2000, runs))
    low, high = np.quantile(np.median((ours / without)[drawn], axis=1), [0.025, 0.975])
    return {
        "with_s": float(np.median(ours)),
        "without_s": float(np.median(without)),
        "ratio": float(np.median(ours / without)),
        "low": float(low),
        "high": float(high),
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="pairs of processes per import")
    parser.add_argument("--imports", nargs="+", choices=IMPORTS, default=list(IMPORTS), help="which to measure")
    parser.add_argument("--output", help="a CSV file")
    options = parser.parse_args()
    table = pd.DataFrame([{"import": name, **measure(IMPORTS[name], options.runs)} for name in options.imports])
    print(table.round(3).to_string(index=False))
    if options.output:
        save_table(table, options.output)


if __name__ == "__main__":
    main()
