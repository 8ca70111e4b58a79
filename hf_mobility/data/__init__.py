"""The data contract: canonical frames, readers of public formats, grids, stays and simulated cities."""

from __future__ import annotations

from ..tokenization.errors import DataError
from ..tokenization.grid import SquareGrid, from_km, haversine_km, to_km
from .frames import validate_points, validate_visits
from .grid import assign_cells, h3_cells
from .io.readers import read_foursquare_tist2015, read_foursquare_tsmc2014, read_gowalla, read_table, read_yjmob100k
from .io.readers_gps import read_cabspotting, read_geolife
from .simulation.cities import SimulatedCity, simulate_cities, simulate_city
from .stays import detect_stays, drop_jumps, stays_to_visits

__all__ = [
    "DataError",
    "SimulatedCity",
    "SquareGrid",
    "assign_cells",
    "detect_stays",
    "drop_jumps",
    "from_km",
    "h3_cells",
    "haversine_km",
    "read_cabspotting",
    "read_foursquare_tist2015",
    "read_foursquare_tsmc2014",
    "read_geolife",
    "read_gowalla",
    "read_table",
    "read_yjmob100k",
    "simulate_cities",
    "simulate_city",
    "stays_to_visits",
    "to_km",
    "validate_points",
    "validate_visits",
]
