"""A city's box: degrees <-> RAW's box units, and what a unit is in metres.

Unusual: nothing is clipped; a point outside the box exceeds 1. The authors take one unit for 100 km; it is 88.7 km
(longitude) and 89.9 km (latitude) in their box, so the true local scale is the default and theirs a flag.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

PAPER_BOX = (115.416827, 117.508217, 39.442078, 41.058964)  # Beijing: lon_min, lon_max, lat_min, lat_max
PAPER_METRES_PER_UNIT = 100_000.0
METRES_PER_DEGREE = 111_195.0
_MIN_WIDTH = 0.01  # degrees: a box around points that are all alike


@dataclass(frozen=True)
class Box:
    """lon_min, lon_max, lat_min, lat_max in degrees."""

    west: float
    east: float
    south: float
    north: float

    @classmethod
    def checked(cls, sides: Sequence[float]) -> Box:
        """Raises a `ValueError` unless `sides` are (lon_min, lon_max, lat_min, lat_max) in degrees."""
        numbers = tuple(float(side) for side in sides)
        if len(numbers) != 4 or not all(math.isfinite(side) for side in numbers):
            raise ValueError(f"box must be four finite degrees (lon_min, lon_max, lat_min, lat_max), got {numbers}.")
        box = cls(*numbers)
        if not (-180 <= box.west < box.east <= 180 and -90 <= box.south < box.north <= 90):
            raise ValueError(
                "box must be (lon_min, lon_max, lat_min, lat_max) with lon_min < lon_max within -180..180 and "
                f"lat_min < lat_max within -90..90, got {numbers}."
            )
        return box

    @classmethod
    def around(cls, lat: np.ndarray, lon: np.ndarray, *, margin: float) -> Box:
        """The box that points span, `margin` of its width wider on each side."""
        sides: list[float] = []
        for values, limit in ((lon, 180.0), (lat, 90.0)):
            low, high = float(values.min()), float(values.max())
            extra = max(margin * (high - low), (_MIN_WIDTH - (high - low)) / 2)
            sides += [max(low - extra, -limit), min(high + extra, limit)]
        return cls.checked(sides)

    @property
    def sides(self) -> tuple[float, float, float, float]:
        return self.west, self.east, self.south, self.north

    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.array([self.west, self.south]), np.array([self.east, self.north])
        return (low + high) / 2, (high - low) / 2

    def normalise(self, lat: Any, lon: Any) -> np.ndarray:
        """Degrees (...), (...) -> box units (..., 2) float64, [longitude, latitude]."""
        centre, half = self._scale()
        return (np.stack([np.asarray(lon, np.float64), np.asarray(lat, np.float64)], axis=-1) - centre) / half

    def denormalise(self, units: Any) -> tuple[np.ndarray, np.ndarray]:
        """Box units (..., 2) -> latitude, longitude (...), float64 degrees."""
        centre, half = self._scale()
        degrees = to_numpy(units).astype(np.float64) * half + centre
        return degrees[..., 1], degrees[..., 0]

    def metres_per_unit(self, *, paper: bool = False) -> np.ndarray:
        """(2,) float64, longitude and latitude, true at the box's middle; or the authors' figure."""
        if paper:
            return np.full(2, PAPER_METRES_PER_UNIT)
        centre, half = self._scale()
        return half * METRES_PER_DEGREE * np.array([math.cos(math.radians(centre[1])), 1.0])

    def check_inside(
        self, units: np.ndarray, lat: np.ndarray, lon: np.ndarray, names: tuple[str, str], *, outside: str
    ) -> np.ndarray:
        """(n,) bool: which points lie outside.

        Raises:
            ValueError: if most points do, or any with `outside="error"`; the sentence says so where latitude and
                longitude look swapped.
        """
        if outside not in ("keep", "drop", "error"):
            raise ValueError(f"outside must be 'keep', 'drop' or 'error', got {outside!r}.")
        strange = (np.abs(units) > 1).any(1)
        count = int(strange.sum())
        if count and (outside == "error" or 2 * count > len(units)):
            swapped = (np.abs(self.normalise(lon, lat)) <= 1).all(1)
            if 2 * int(swapped.sum()) > len(units):
                advice = f"columns {names[0]!r} and {names[1]!r} look swapped"
            else:
                advice = "use a tokenizer of these points' city, or drop them (outside='drop')"
            shown = ", ".join(f"{i}: {lat[i]:g}, {lon[i]:g}" for i in np.flatnonzero(strange)[:5].tolist())
            raise ValueError(
                f"{count} of {len(units)} points lie outside the box {self.sides} (first rows {shown}); {advice}."
            )
        return strange


def to_numpy(values: Any) -> np.ndarray:
    """Any array or tensor as numpy; half precision, which numpy lacks or cannot add up, as float32."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype in (torch.bfloat16, torch.float16) else values).numpy()
