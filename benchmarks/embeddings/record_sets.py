"""Records of users of several cities for RAW's `extended` variant, training and validation users apart.

Nobody who is held out by benchmarks/embeddings/evaluate_positions.py or by the protocol geolife-horizons is among them,
nor whoever is linked to such a user; of the check-in cities the four targets of docs/results/next_location.md are left
out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.embeddings.series import SeriesSet, load_series
from benchmarks.open_data import CITIES, source_pairs
from hf_mobility import simulate_city
from hf_mobility.benchmark.trajectories import linked_users
from hf_mobility.data.record_contexts import RecordHistories
from hf_mobility.data.simulation.points import simulated_points
from hf_mobility.data.splits import draw_share

SPLITS = {"geolife": {"held_out": 0.3, "validation": 0.15}, "cabs": {"held_out": 0.2, "validation": 0.15}}
PROTOCOL_SPLIT = {"share": 0.3, "seed": 0}  # of geolife-horizons
SIMULATED_USERS = 150


@dataclass(frozen=True)
class RecordSet:
    """Training records of one city; `data` also holds its validation and test users, where there are any."""

    name: str
    train: RecordHistories
    data: SeriesSet | None = None


def gps_set(name: str) -> RecordSet:
    """GeoLife or the cabs."""
    data = load_series(name, **SPLITS[name])
    histories = RecordHistories.of_points(data.points, timezone=data.tokenizer.timezone)
    hidden = np.concatenate([data.test_users, data.validation_users])
    if name == "geolife":
        group = linked_users(data.points)
        chosen = draw_share(len(group), PROTOCOL_SPLIT["share"], PROTOCOL_SPLIT["seed"])
        hidden = np.union1d(hidden, group.index[group.isin(group[chosen])])
    return RecordSet(name, histories.of_users(~np.isin(histories.users, hidden)), data)


def simulated_set(seed: int) -> RecordSet:
    """Three weeks of a simulated city, of which each user keeps some of the records."""
    city = simulate_city(SIMULATED_USERS, num_days=21, num_locations=400, seed=seed)
    points = simulated_points(city, interval_seconds=900, seed=seed)
    rng = np.random.default_rng(seed)
    users, user = np.unique(points["user_id"].to_numpy(), return_inverse=True)
    kept = rng.random(len(points)) < rng.uniform(0.1, 1.0, len(users))[user]
    return RecordSet(f"simulated {seed}", RecordHistories.of_points(points[kept], timezone=city.timezone))


def checkin_sets() -> list[RecordSet]:
    """Check-ins of the source cities, each a record."""
    return [
        RecordSet(
            str(city.name),
            RecordHistories.of_points(
                visits.drop(columns="duration", errors="ignore"), timezone=CITIES[str(city.name)].timezone
            ),
        )
        for visits, city in source_pairs()
    ]
