"""Sets of places that hold the next one with a given probability: split conformal prediction.

The probability that a place must reach is such that, of the visits of other users, the wanted share had a true place
that reached it (Sadinle, Lei and Wasserman 2019, doi:10.1080/01621459.2017.1395341). The sets are right for whatever
model, as long as those users are like the ones that are predicted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..tokenization.errors import DataError


def true_place_probabilities(parts: Iterable[tuple[np.ndarray, np.ndarray]], location: np.ndarray) -> np.ndarray:
    """(targets,) the probability that each true place was given; 0 for a place that the city does not list.

    Args:
        parts: (rows (m,), probabilities (m, places)), as `NextLocationPipeline.probabilities` yields them.
        location: (n,) place of every visit, -1 = not listed.
    """
    found = []
    for targets, probabilities in parts:
        places = location[targets]
        given = np.take_along_axis(probabilities, places.clip(0)[:, None], axis=1)[:, 0]
        found.append(np.where(places >= 0, given, 0.0))
    return np.concatenate(found)


def least_probability(found: np.ndarray, coverage: float) -> float:
    """What a place must reach to be in a set.

    Args:
        found: (n,) probabilities of the true places of other users.
        coverage: wanted share of true places in the sets.

    Raises:
        DataError: a coverage outside 0..1, or too few visits for it.
    """
    if not 0 < coverage < 1:
        raise DataError(f"coverage must lie between 0 and 1; it is {coverage}.")
    number = math.ceil((len(found) + 1) * coverage)  # with the visit that is predicted
    if number > len(found):
        least = math.ceil(coverage / (1 - coverage))
        raise DataError(f"coverage={coverage} needs at least {least} visits of other users; there are {len(found)}.")
    return float(np.sort(found)[::-1][number - 1])
