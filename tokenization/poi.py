"""What a model knows of a place beside where it lies: POI columns and popularity levels.

The POI columns follow one fixed scheme (`POI_COLUMNS`, 60 of them), computed from names and coordinates alone. So a
column means the same in every city, and missing categories cost nothing but information.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from .grid import ROUNDED_KM_PER_DEGREE, unwrapped

POI_GROUPS = (
    "Arts & Entertainment",
    "College & University",
    "Event",
    "Food",
    "Nightlife Spot",
    "Outdoors & Recreation",
    "Professional & Other Places",
    "Residence",
    "Shop & Service",
    "Travel & Transport",
)
NUM_HASH_BINS = 32
DENSITY_KM = (0.3, 1.0, 5.0)
NEIGHBOUR_KM = 0.5
POI_COLUMNS = (
    *(f"is {group}" for group in (*POI_GROUPS, "unknown group")),
    *(f"category hash {index}" for index in range(NUM_HASH_BINS)),
    *(f"log density {km} km" for km in DENSITY_KM),
    *(f"density rank {km} km" for km in DENSITY_KM),
    *(f"share of {group} within {NEIGHBOUR_KM} km" for group in (*POI_GROUPS, "unknown group")),
)
NEVER_SEEN = 9
LEVEL_SHARES = (0.01, 0.05, 0.10, 0.20, 0.40, 0.60, 0.80)


def popularity_levels(counts: np.ndarray) -> np.ndarray:
    """Visit counts (N,) -> levels (N,) int64 by rank among all N locations (SAMoE's paper, Table 6): top 1 % = 1,
    1-5 % = 2, 5-10 %, 10-20 %, 20-40 %, 40-60 %, 60-80 % and the rest = 8; 9 where the count is zero. Ties keep the
    order of the list.
    """
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    levels = np.searchsorted(np.asarray(LEVEL_SHARES), rank / len(counts), side="right") + 1
    return np.where(counts > 0, levels, NEVER_SEEN)


def poi_features(lat: np.ndarray, lon: np.ndarray, category: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The 60 columns of `POI_COLUMNS`, float32 (N, 60): what kind of place this is and what lies around it.

    Args:
        lat, lon: (N,) float64 degrees. category, group: (N,) str, or None where nothing is known.

    Raises:
        ImportError: without scipy.
    """
    _, rankdata = from_scipy()
    known = {name: index for index, name in enumerate(POI_GROUPS)}
    groups = np.array(
        [known.get(value, len(POI_GROUPS)) if isinstance(value, str) else len(POI_GROUPS) for value in group]
    )
    one_hot = np.eye(len(POI_GROUPS) + 1, dtype=np.float32)[groups]
    hashed = np.zeros((len(lat), NUM_HASH_BINS), np.float32)
    bins = np.array([category_bin(value) for value in category])
    hashed[bins >= 0, bins[bins >= 0]] = 1.0

    points = np.stack([unwrapped(lon) * np.cos(np.radians(lat.mean())), lat], axis=1) * ROUNDED_KM_PER_DEGREE
    density = np.stack([places_within(points, points, km) for km in DENSITY_KM], axis=1)
    ranks = (rankdata(density, axis=0) - 1) / max(len(lat) - 1, 1)
    around = neighbours_per_group(points, groups)
    around /= around.sum(1, keepdims=True)
    return np.concatenate([one_hot, hashed, np.log1p(density) / 4, ranks, around], axis=1).astype(np.float32)


def category_bin(category: str | None) -> int:
    """Bin of a category's name, -1 for none. Case and outer blanks do not matter."""
    return zlib.crc32(category.strip().lower().encode()) % NUM_HASH_BINS if isinstance(category, str) else -1


def neighbours_per_group(points: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Places of each POI group within `NEIGHBOUR_KM` of each place, itself included, float32 (N, 11).

    Counted by one tree per group, so that pairs are never listed: 50,000 places of a dense city make 290 million.
    """
    counts = np.zeros((len(points), len(POI_GROUPS) + 1), np.float32)
    for group in np.unique(groups):
        counts[:, group] = places_within(points[groups == group], points, NEIGHBOUR_KM)
    return counts


def places_within(places: np.ndarray, points: np.ndarray, km: float) -> np.ndarray:
    """How many of the places (P, 2) lie within `km` of each point (N, 2), int64 (N,).

    Equal points are asked once: a tree cannot split equal places, so that each question looks at all of them.
    """
    tree_of, _ = from_scipy()
    distinct, row = np.unique(points, axis=0, return_inverse=True)
    return tree_of(places).query_ball_point(distinct, km, return_length=True)[row.reshape(-1)]


def from_scipy() -> tuple[Any, Any]:
    """A search tree and average ranks; loaded when they are needed, because saved cities hold their columns."""
    try:
        from scipy.spatial import cKDTree
        from scipy.stats import rankdata
    except ImportError as error:
        raise ImportError("the POI columns of a new city and nearest places need scipy: pip install scipy") from error
    return cKDTree, rankdata
