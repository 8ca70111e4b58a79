"""Every protocol with its baselines and the shipped checkpoints: `HF_MOBILITY_DATA=... python -m benchmarks.protocols.rank`.

What is saved for the same protocol, data and model is not made again. A protocol whose data are absent is skipped, and
its committed results stay. `python -m benchmarks.fill_results` then writes the tables.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hf_mobility.benchmark import benchmark, protocol_names

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
GRU = "benchmarks/protocols/gru.py:GRU"
MODELS = {
    "cabs-adapt-5pct": ["checkpoints/samoe-small"],
    "checkins-crosscity": ["checkpoints/samoe-small"],
    "cabs-horizons": ["checkpoints/raw-released-small", "checkpoints/raw-small", GRU],
    "commuting-od": ["checkpoints/flows-small"],
    "geolife-horizons": ["checkpoints/raw-released-small", "checkpoints/raw-small", GRU],
    "regions-cabs": ["checkpoints/raw-released-small"],
    "simulated-city": ["checkpoints/samoe-small", "examples/rank_classifier.py:Classifier"],
    "simulated-horizons": ["checkpoints/raw-released-small", "checkpoints/raw-small", GRU],
    "weeks-completion": ["checkpoints/mstar-cells-small"],
    "weeks-simulated": ["checkpoints/mstar-cells-small"],
}  # no checkpoint of real days is shipped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocols", nargs="*", default=protocol_names())
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    for name in options.protocols:
        for model in [None, *MODELS.get(name, [])]:
            command = f"hf-mobility benchmark --protocol {name}" + (f" --model {model}" if model else "")
            where = str(ROOT / model) if model else None
            try:
                benchmark(name, where, output=options.output, command=command, progress=lambda text: print(" ", text))
            except FileNotFoundError as absent:
                print(f"{name}: skipped, {absent}")
                break
            print(command, flush=True)


if __name__ == "__main__":
    main()
