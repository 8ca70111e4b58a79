"""Processor seconds to find stays in GeoLife's points, beside a package with a compiled core.

    HF_MOBILITY_DATA=... python -m benchmarks.speed.stays --output benchmarks/speed/stays.csv

The other is the grouping of infostop 0.1.9 (Aslak and Alessandretti 2020, arXiv 2003.14370), its module `cpputils` of
C++, called once per user with the same thresholds. It is timed where it can be imported; it is not installed with the
package. Its definition is another one: a point joins a stay if it is near the median of the stay so far, here near the
first point. It checks nothing and returns no frame; of ours the check of the points, the search and the rest are told
apart. Taken in turns on one thread; medians are reported.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.open_data import data_folder
from benchmarks.tables import save_table
from hf_mobility import validate_points
from hf_mobility.data import stays

METRES, MINUTES, GAP = 100.0, 10.0, 60.0
ALL, CHECK, SEARCH = "detect_stays", "of it, the check of the points", "of it, the search"
OTHER = "infostop 0.1.9, compiled grouping"


def grouping(points: pd.DataFrame) -> Callable[[], int]:
    """The other package's stays of all users; the arrays it reads are made before."""
    group = import_module("cpputils").get_stationary_events
    seconds = points["time"].astype("int64").to_numpy() / 1e6
    table = np.stack([points["lat"], points["lon"], seconds], axis=1)
    starts = np.flatnonzero(np.diff(pd.factorize(points["user_id"])[0], prepend=-1))
    users = np.split(table, starts[1:])
    return lambda: sum(len(group(rows, METRES, 2, 60 * MINUTES, 60 * GAP, "haversine")[0]) for rows in users)


def measure(points: pd.DataFrame, repeats: int) -> pd.DataFrame:
    points = validate_points(points)
    taken: dict[str, list[float]] = {}
    found: dict[str, int] = {}

    def timed(name: str, run: Callable[[], Any]) -> Any:
        start = time.process_time()
        answer = run()
        taken.setdefault(name, []).append(time.process_time() - start)
        return answer

    search = stays._find_runs
    others = {OTHER: grouping(points)} if find_spec("cpputils") else {}
    for _ in range(repeats):
        stays._find_runs = lambda *given: timed(SEARCH, lambda: search(*given))
        found[ALL] = len(timed(ALL, lambda: stays.detect_stays(points, distance_metres=METRES, min_minutes=MINUTES)))
        stays._find_runs = search
        timed(CHECK, lambda: validate_points(points))
        found |= {name: timed(name, run) for name, run in others.items()}
    base = statistics.median(taken[OTHER]) if others else None
    rows = []
    for name in (ALL, CHECK, SEARCH, *others):
        seconds = statistics.median(taken[name])
        ratio = None if base is None else seconds / base
        rows.append({"measurement": name, "s": seconds, "times the other": ratio, "stays": found.get(name)})
    return pd.DataFrame(rows).assign(points=len(points), repeats=repeats).astype({"stays": "Int64"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, help="only the first points")
    parser.add_argument("--output")
    options = parser.parse_args()
    columns = ["user_id", "time", "lat", "lon"]
    points = pd.read_parquet(data_folder() / "gps_geolife_beijing.parquet", columns=columns)[: options.rows]
    table = measure(points, options.repeats)
    print(table.to_string(index=False))
    if options.output:
        save_table(table, options.output)


if __name__ == "__main__":
    main()
