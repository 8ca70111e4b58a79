"""Fit the weights that `MixWeights.shipped` reads, on the twelve source cities; about two minutes.

    HF_MOBILITY_DATA=... python -m benchmarks.next_location.fit_mix_weights

The weights are shares of ten components by length of history: nothing in them names a place or a user. No user who
also stands in a target city takes part, and no target city does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.open_data import source_pairs
from hf_mobility import make_task
from hf_mobility.baselines.mix import ContextMix
from hf_mobility.baselines.mix_weights import FOLDER, SHIPPED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the three files")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    tasks = [make_task(visits, city) for visits, city in source_pairs()]
    for fraction, file in SHIPPED.items():
        ContextMix.fit(tasks, user_fraction=fraction).save(options.output / file)


if __name__ == "__main__":
    main()
