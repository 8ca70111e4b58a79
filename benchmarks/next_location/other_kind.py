"""Taxi weeks, GPS stays and a simulated city as visits: other kinds of data than check-ins. The first two are read from
the open files in HF_MOBILITY_DATA."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.open_data import data_folder
from hf_mobility import City, SquareGrid, simulate_city, validate_visits
from hf_mobility.data.simulation.cities import SimulatedCity
from hf_mobility.data.stays import detect_stays, stays_to_visits

CAB_GRID = SquareGrid(37.58, -122.53, 37.82, -122.36, 30, 30)
BEIJING_GRID = SquareGrid(39.75, 116.15, 40.12, 116.63, 40, 40)  # cells of about a kilometre
CAB_TIMEZONE = "Etc/GMT+7"  # the files are in local summer time, seven hours behind UTC


def cab_visits(num_cabs: int = 160, seed: int = 0, *, others: bool = False) -> tuple[pd.DataFrame, City]:
    """Hourly cells of a random `num_cabs` San Francisco cabs, or of all `others`; unknown hours are dropped, hours in a
    row in the same cell are one visit."""
    weeks = pd.read_parquet(data_folder() / "derived_weekly_grid_sf_cabs.parquet")
    cabs = np.random.default_rng(seed).permutation(weeks["user_id"].unique())[:num_cabs]
    weeks = weeks[weeks["user_id"].isin(cabs) != others]
    first_hours = np.repeat(weeks["week_start_local"].to_numpy("datetime64[h]"), 168)
    hours = pd.DataFrame(
        {
            "user_id": np.repeat(weeks["user_id"].to_numpy(), 168),
            "time": first_hours + np.tile(np.arange(168), len(weeks)),
            "cell": np.concatenate(weeks["cells"].to_list()),
        }
    )
    hours = hours[hours["cell"] >= 0].sort_values(["user_id", "time"], ignore_index=True)
    moved = (hours["cell"].diff() != 0) | (hours["user_id"].diff() != 0)
    visits = hours[moved]
    lat, lon = CAB_GRID.centre(visits["cell"].to_numpy())
    frame = visits.assign(location_id=CAB_GRID.cell_id(visits["cell"].to_numpy()), lat=lat, lon=lon)
    city = City.from_grid(CAB_GRID, timezone=CAB_TIMEZONE, name="sf_cabs")
    return validate_visits(frame, timezone=CAB_TIMEZONE), city


def source_cabs(num_cabs: int = 120, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, City]:
    """Visits of cabs that models may be trained on, those of the cabs that are left, and their city: none of them is in
    `cab_visits()`."""
    visits, city = cab_visits(others=True)
    chosen = visits["user_id"].isin(np.random.default_rng(seed).permutation(visits["user_id"].unique())[:num_cabs])
    sources, left = (visits[rows].reset_index(drop=True) for rows in (chosen, ~chosen))
    return sources, left, city


def geolife_stays(min_visits: int = 5) -> tuple[pd.DataFrame, City]:
    """Stays of 20 minutes within 200 m, on cells of one kilometre, of the GeoLife people with at least `min_visits`."""
    points = pd.read_parquet(data_folder() / "gps_geolife_beijing.parquet", columns=["user_id", "time", "lat", "lon"])
    visits = stays_to_visits(detect_stays(points, distance_metres=200, min_minutes=20), BEIJING_GRID)
    visits = visits[visits.groupby("user_id")["time"].transform("size") >= min_visits]
    city = City.from_grid(BEIJING_GRID, timezone="Asia/Shanghai", name="geolife")
    return validate_visits(visits, timezone="Asia/Shanghai"), city


def simulated_pairs(cities: list[SimulatedCity], part: str = "") -> list[tuple[pd.DataFrame, City]]:
    """(visits, city) of simulated cities, with all their places; `part` ends their names."""
    return [
        (one.visits, City.from_visits(one.visits, timezone=one.timezone, name=one.name + part, pois=one.pois))
        for one in cities
    ]


def demo_visits() -> tuple[pd.DataFrame, City]:
    """The simulated city of examples/demo.py."""
    made = simulate_city(150, num_days=56, num_locations=500, observe=0.3, seed=7, name="Simville")
    city = City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois, popularity_from=None)
    return made.visits, city


OTHER_KINDS = {"cabs": cab_visits, "geolife": geolife_stays, "demo": demo_visits}
