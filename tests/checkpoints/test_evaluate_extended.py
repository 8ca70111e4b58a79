"""RAW's `extended` variant in `evaluate_checkpoint`: in the box of the points, beside the same rivals."""

from __future__ import annotations

from pathlib import Path

from hf_mobility import evaluate_checkpoint, simulate_city
from hf_mobility.data.simulation.points import simulated_points

CHECKPOINT = Path(__file__).resolve().parents[2] / "checkpoints" / "raw-small"


def test_it_is_evaluated_in_a_city_that_it_has_never_seen() -> None:
    city = simulate_city(12, num_days=7, num_locations=60, seed=11)
    points = simulated_points(city, interval_seconds=900, seed=11)
    table = evaluate_checkpoint(CHECKPOINT, points, test_fraction=0.5)
    rows = table[(table["subset"] == "all") & (table["minutes"] == 150)].set_index("model")
    assert rows.loc["raw-small", "error_km"] < rows.loc["CityMedian", "error_km"]
    assert rows["users"].nunique() == 1
