"""Predict positions minutes and hours ahead with RAW, and compare them with standing still.

    python examples/forecast_positions.py                             # simulated users
    python examples/forecast_positions.py points.parquet UTC          # your own points, in the city of the checkpoint

The table needs the columns user_id, time, lat, lon.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from hf_mobility import TrajectoryPredictionPipeline, simulate_city, validate_points
from hf_mobility.data import haversine_km
from hf_mobility.data.simulation.points import simulated_points

CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "raw-released-small"
HOURS = [0.25, 1.0, 2.5]


def main(table: str | None = None, timezone: str | None = None) -> None:
    if table is None:  # other users of the city that the checkpoint was trained in
        points = simulated_points(simulate_city(60, num_days=7, num_locations=600, seed=0), seed=0)
    else:
        points = validate_points(table, timezone=timezone)
    pipe = TrajectoryPredictionPipeline.from_pretrained(CHECKPOINT)

    # What is known ends three hours before the last record of all; what came then is the truth.
    end = points["time"].max() - pd.Timedelta(hours=3)
    known, later = points[points["time"] <= end], points[points["time"] > end]
    predicted = pipe.predict(known, horizon=HOURS)
    print(predicted.head(6).to_string(index=False))

    last = known.sort_values("time").groupby("user_id").last()
    pairs = pd.merge_asof(
        predicted.sort_values("time"),
        later.sort_values("time"),
        on="time",
        by="user_id",
        tolerance=pd.Timedelta("15min"),
        direction="nearest",
        suffixes=("", "_true"),
    ).dropna(subset=["lat_true"])
    still = last.loc[pairs["user_id"]]
    pairs["RAW, km"] = haversine_km(pairs["lat"], pairs["lon"], pairs["lat_true"], pairs["lon_true"])
    pairs["standing still, km"] = haversine_km(
        still["lat"].to_numpy(), still["lon"].to_numpy(), pairs["lat_true"], pairs["lon_true"]
    )
    errors = pairs.groupby("horizon")[["standing still, km", "RAW, km"]]
    print(pd.concat({"mean": errors.mean(), "median": errors.median()}, axis=1).round(2).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
