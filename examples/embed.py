"""Embed users and regions with RAW: vectors of a user's week, and of a cell by the users who were there.

    python examples/embed.py                             # simulated users
    python examples/embed.py points.parquet UTC          # your own points, in the city of the checkpoint

The table needs the columns user_id, time, lat, lon.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hf_mobility import MobilityEmbeddingPipeline, SquareGrid, simulate_city, validate_points
from hf_mobility.data.simulation.points import simulated_points

CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "raw-released-small"


def main(table: str | None = None, timezone: str | None = None, output: str = "runs/embeddings") -> None:
    if table is None:  # users of the city that the checkpoint was trained in
        points = simulated_points(simulate_city(60, num_days=7, num_locations=600, seed=0), seed=0)
    else:
        points = validate_points(table, timezone=timezone)
    pipe = MobilityEmbeddingPipeline.from_pretrained(CHECKPOINT)

    users = pipe.embed_users(points)  # user_id, e0, e1, ...
    grid = SquareGrid.around(points["lat"], points["lon"], cell_km=1.0)
    regions = pipe.embed_regions(points, grid, min_users=3)  # cells with fewer visitors are left out
    print(f"{len(users)} users and {len(regions)} of {len(grid)} cells, {pipe.model.config.hidden_size} numbers each")

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    users.to_parquet(folder / "users.parquet")
    regions.to_parquet(folder / "regions.parquet")
    print(f"written: {folder / 'users.parquet'}, {folder / 'regions.parquet'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
