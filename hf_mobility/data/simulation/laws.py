"""How likely a place is by its distance: the laws by which simulated users choose venues and work places."""

from __future__ import annotations

import numpy as np

from ...tokenization.errors import DataError

__all__ = ["LAWS", "distance_weights"]

LAWS = ("gravity", "exponential", "opportunities")
_NEAREST_KM = 0.5
_OPPORTUNITIES = 8.0  # e-folds over all of a city's opportunities


def distance_weights(law: str, km: np.ndarray, weight: np.ndarray, *, decay: float, scale_km: float) -> np.ndarray:
    """Factor on the weight of each place, seen from each zone.

    Args:
        law: `gravity`, (km + 0.5) ** -decay; `exponential`, exp(-km / scale_km); `opportunities`, exp(-8 s), where s is
            the share of all weight that lies nearer (intervening opportunities, Schneider 1959).
        km: (zones, places) distances.
        weight: (places,) how well the places serve.

    Raises:
        DataError: another law.
    """
    if law == "gravity":
        return np.asarray((km + _NEAREST_KM) ** -decay)
    if law == "exponential":
        return np.asarray(np.exp(-km / scale_km))
    if law != "opportunities":
        raise DataError(f"law must be one of {', '.join(LAWS)}, not {law!r}.")
    order = np.argsort(km, axis=1, kind="stable")
    nearer = np.cumsum(weight[order], axis=1) - weight[order]
    share = np.empty_like(km)
    np.put_along_axis(share, order, nearer / weight.sum(), axis=1)
    return np.asarray(np.exp(-_OPPORTUNITIES * share))
