"""Makes hf_mobility/plotting/coast.npz from the land of Natural Earth.

    python tools/make_coast.py land-10m.json

`land-10m.json` is the TopoJSON file of that name in the package world-atlas 2.0.2 (Natural Earth 4.1.0, public domain).
Rings are simplified by Douglas and Peucker, which needs shapely, and rounded to `UNIT`. Left out are Antarctica, what
lies north of 72 degrees, islands below `LEAST_KM2`, and the one ring of a lake.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from check_types import ROOT

UNIT = 0.003  # degrees, about 300 m
TOLERANCE = 0.01  # degrees of latitude, about 1.1 km
LEAST_KM2 = 2.0
SOUTH, NORTH = -60.0, 72.0
TARGET = ROOT / "hf_mobility" / "plotting" / "coast.npz"


def outer_rings(topology: dict[str, Any]) -> list[np.ndarray]:
    """Rings (n, 2) of latitude and longitude of all polygons, without their holes."""
    scale, origin = (topology["transform"][name] for name in ("scale", "translate"))
    arcs = [np.cumsum(np.array(arc), axis=0) * scale + origin for arc in topology["arcs"]]
    polygons = [ring for shape in topology["objects"]["land"]["geometries"] for ring in shape["arcs"]]
    chains = [polygon[0] for polygon in polygons]
    return [np.concatenate([arcs[i] if i >= 0 else arcs[~i][::-1] for i in chain])[:, ::-1] for chain in chains]


def simplified(ring: np.ndarray) -> np.ndarray:
    """int64 (n, 2) in units; empty where nothing of the ring is left."""
    squeeze = np.array([1.0, np.cos(np.radians(ring[:, 0].mean()))])
    if ring[:, 0].max() < SOUTH or ring[:, 0].min() > NORTH:
        return np.empty((0, 2), np.int64)
    shape = shapely.Polygon(ring * squeeze)
    if shape.area * 111.2**2 < LEAST_KM2:
        return np.empty((0, 2), np.int64)
    line = shapely.simplify(shapely.LineString(ring * squeeze), TOLERANCE)
    units = np.round(shapely.get_coordinates(line) / squeeze / UNIT).astype(np.int64)
    units = units[np.r_[True, (np.diff(units, axis=0) != 0).any(axis=1)]]
    return units[:-1] if len(units) > 3 else np.empty((0, 2), np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    topology = json.loads(parser.parse_args().file.read_text(encoding="utf-8"))
    rings = [made for ring in outer_rings(topology) if len(made := simplified(ring))]
    steps = np.concatenate([np.diff(ring, axis=0, prepend=ring[:1]) for ring in rings])
    first = np.stack([ring[0] for ring in rings])
    lengths = np.array([len(ring) for ring in rings])
    fits = np.int16 if np.abs(steps).max() < 2**15 else np.int32
    np.savez_compressed(
        TARGET, steps=steps.astype(fits), first=first.astype(np.int32), lengths=lengths.astype(np.int32), unit=UNIT
    )
    print(f"{TARGET.name}: {len(rings):,} rings, {len(steps):,} points, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
