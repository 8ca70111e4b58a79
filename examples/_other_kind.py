"""Taxi weeks as visits: another kind of data than check-ins, from the open files in HF_MOBILITY_DATA."""

from __future__ import annotations

import numpy as np
import pandas as pd
from _open_data import data_folder

from hf_mobility import City, SquareGrid, validate_visits

CAB_GRID = SquareGrid(37.58, -122.53, 37.82, -122.36, 30, 30)
CAB_TIMEZONE = "Etc/GMT+7"  # the files are in local summer time, seven hours behind UTC


def cab_visits(num_cabs: int = 160, seed: int = 0) -> tuple[pd.DataFrame, City]:
    """Hourly cells of a random `num_cabs` San Francisco cabs; unknown hours are dropped, hours in a row in the same
    cell are one visit."""
    weeks = pd.read_parquet(data_folder() / "derived_weekly_grid_sf_cabs.parquet")
    cabs = np.random.default_rng(seed).permutation(weeks["user_id"].unique())[:num_cabs]
    weeks = weeks[weeks["user_id"].isin(cabs)]
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
