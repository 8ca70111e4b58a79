"""Generate weeks of a synthetic population with M-STAR, fill the gaps of known weeks, and count who goes where.

python examples/generate_weeks.py                       # 200 weeks into runs/weeks
python examples/generate_weeks.py 1000 my-weeks
"""

from __future__ import annotations

import sys
from pathlib import Path

from hf_mobility import TrajectoryGenerationPipeline, simulate_city
from hf_mobility.data.io.exports import od_matrix

CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "mstar-cells-small"


def main(count: str = "200", output: str = "runs/weeks") -> None:
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    pipe = TrajectoryGenerationPipeline.from_pretrained(CHECKPOINT)

    weeks = pipe.generate(int(count), seed=0)  # one row per hour: trajectory_id, slot, cell, lat, lon
    weeks.to_parquet(folder / "weeks.parquet")
    print(weeks.head(5).to_string(index=False))

    # Trips between cells; cells with fewer than ten of them are left out.
    trips = od_matrix(weeks, by_hour=False, threshold=10)
    trips.to_csv(folder / "trips.csv", index=False)
    print(f"{len(trips)} pairs of cells have ten trips or more")

    # Weeks of users of whom some hours are unknown: the model fills them.
    made = simulate_city(20, num_days=7, num_locations=800, seed=7, observe=0.5)
    filled = pipe.complete(pipe.tokenizer.weeks(made.visits, min_known=0.1), seed=0)
    print(f"{filled['trajectory_id'].nunique()} partly known weeks completed")
    print(f"written: {folder / 'weeks.parquet'}, {folder / 'trips.csv'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
