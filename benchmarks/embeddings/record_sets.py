"""Records of users of several cities for RAW's `extended` variant, training and validation users apart.

Nobody who is held out by benchmarks/embeddings/evaluate_positions.py or by the protocol geolife-horizons is among them,
nor whoever is linked to such a user; of the check-in cities the four targets of docs/results/next_location.md are left
out.
"""

from __future__ import annotations

import numpy as np

from benchmarks.embeddings.series import load_points, split_people
from benchmarks.open_data import source_pairs
from hf_mobility import simulate_city
from hf_mobility.benchmark.trajectories import linked_users
from hf_mobility.data.record_contexts import RecordHistories
from hf_mobility.data.simulation.points import simulated_points
from hf_mobility.data.splits import draw_share

SPLITS = {"geolife": {"held_out": 0.3, "validation": 0.15}, "cabs": {"held_out": 0.2, "validation": 0.15}}
PROTOCOL_SPLIT = {"share": 0.3, "seed": 0}  # of geolife-horizons
SIMULATED_USERS = 150


def gps_records(name: str) -> RecordHistories:
    """Training users of GeoLife or the cabs."""
    points, city = load_points(name)
    hidden = np.concatenate(split_people(name, points, **SPLITS[name]))
    if name == "geolife":
        group = linked_users(points)
        chosen = draw_share(len(group), PROTOCOL_SPLIT["share"], PROTOCOL_SPLIT["seed"])
        hidden = np.union1d(hidden, group.index[group.isin(group[chosen])])
    return RecordHistories.of_points(points[~points["user_id"].isin(hidden)], timezone=city["timezone"])


def simulated_records(seed: int) -> RecordHistories:
    """Three weeks of a simulated city, of which each user keeps some of the records."""
    city = simulate_city(SIMULATED_USERS, num_days=21, num_locations=400, seed=seed)
    points = simulated_points(city, interval_seconds=900, seed=seed)
    rng = np.random.default_rng(seed)
    users, user = np.unique(points["user_id"].to_numpy(), return_inverse=True)
    kept = rng.random(len(points)) < rng.uniform(0.1, 1.0, len(users))[user]
    return RecordHistories.of_points(points[kept], timezone=city.timezone)


def checkin_records() -> list[RecordHistories]:
    """Check-ins of the source cities, each a record; most have no end."""
    return [
        RecordHistories.of_points(visits[["user_id", "time", "lat", "lon"]], timezone=city.timezone)
        for visits, city in source_pairs()
    ]


def records_of(name: str, *, seed: int, cities: int = 6) -> list[RecordHistories]:
    """Training records of `geolife`, `cabs`, the `checkins` cities, or so many `simulated` ones."""
    if name == "simulated":
        return [simulated_records(seed + number) for number in range(cities)]
    return checkin_records() if name == "checkins" else [gps_records(name)]
