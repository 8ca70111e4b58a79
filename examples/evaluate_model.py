"""Evaluate a checkpoint beside baselines, on records that it was not trained on.

    python examples/evaluate_model.py                                                  # samoe-small, a simulated city
    python examples/evaluate_model.py checkpoints/samoe-small visits.parquet Europe/Paris

Works for SAMoE (visits), M-STAR (visits or weeks) and RAW (points).
"""

from __future__ import annotations

import sys
from pathlib import Path

from hf_mobility import City, evaluate_checkpoint, simulate_city

CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "samoe-small"


def main(checkpoint: str = str(CHECKPOINT), table: str | None = None, timezone: str | None = None) -> None:
    if table is None:
        made = simulate_city(100, num_days=56, observe=0.3, seed=3)
        visits, timezone = made.visits, made.timezone
        city = City.from_visits(visits, timezone=timezone, name=made.name, pois=made.pois)
    else:
        visits, city = table, None  # in the city of the checkpoint
    found = evaluate_checkpoint(checkpoint, visits, city=city, timezone=timezone, test_fraction=0.2, seed=0)
    print(found[found.attrs["main"]].round(3).to_string(index=False))
    for note in found.attrs["notes"]:
        print(note)


if __name__ == "__main__":
    main(*sys.argv[1:])
