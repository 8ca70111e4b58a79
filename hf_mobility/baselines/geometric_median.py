"""The point with the least mean distance to given points: what to predict where distance is what counts.

Source: E. Weiszfeld, "Sur le point pour lequel la somme des distances de n points donnés est minimum" (1937). Distances
are bounded from below, so that a start on one of the points is no fault. The search nears a median that is one of the
points slowly, so the nearest point is tried at the end.
"""

from __future__ import annotations

import numpy as np

_ITERATIONS = 300
_METRE = 1.0  # shorter distances count as this one
_STEP = 0.01  # metres; shorter steps end the search


def geometric_median(points: np.ndarray, metres_per_unit: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Geometric medians of sets of points, to some metres.

    Args:
        points: (..., n, 2) box units.
        metres_per_unit: (2,), metres of a unit along each axis.
        weights: (..., n) how often each point counts, by default once; zero leaves it out. Each set needs one above
            zero.

    Returns:
        (..., 2) float64 box units.

    Example:
        >>> geometric_median(np.array([[0.0, 0.0], [0.0, 0.0], [9.0, 0.0]]), np.ones(2)).round(1)
        array([0., 0.])
    """
    metres = np.asarray(points, np.float64) * metres_per_unit
    counts = np.ones(metres.shape[:-1]) if weights is None else np.asarray(weights, np.float64)
    found = _mean(metres, counts)
    for _ in range(_ITERATIONS):
        distance = np.linalg.norm(metres - found[..., None, :], axis=-1)
        before, found = found, _mean(metres, counts / np.maximum(distance, _METRE))
        if np.abs(found - before).max(initial=0) < _STEP:
            break
    return _or_nearest(found, metres, counts) / metres_per_unit


def _or_nearest(found: np.ndarray, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of each set what was found, or the point nearest to it where that has the lesser total."""
    distance = np.linalg.norm(points - found[..., None, :], axis=-1)
    near = np.where(weights > 0, distance, np.inf).argmin(axis=-1)[..., None, None]
    point = np.take_along_axis(points, near, axis=-2)
    other = np.linalg.norm(points - point, axis=-1)
    is_less = (other * weights).sum(axis=-1) < (distance * weights).sum(axis=-1)
    return np.where(is_less[..., None], point[..., 0, :], found)


def _mean(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (points * weights[..., None]).sum(axis=-2) / weights.sum(axis=-1)[..., None]


__all__ = ["geometric_median"]
