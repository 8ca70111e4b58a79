"""Draw the pictures of the package from the shipped checkpoints and simulated users: PNG files and web maps.

    python examples/draw_pictures.py                             # into runs/pictures
    python examples/draw_pictures.py my-pictures OpenStreetMap   # a street map that the browser loads

Without the name of a background, web maps open without network.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from hf_mobility import (
    City,
    MobilityEmbeddingPipeline,
    NextLocationPipeline,
    SquareGrid,
    TrajectoryGenerationPipeline,
    simulate_city,
)
from hf_mobility.data.io.exports import od_matrix
from hf_mobility.data.simulation.points import simulated_points
from hf_mobility.plotting import maps, models, pictures
from hf_mobility.plotting.weeks import plot_weeks

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"


def main(output: str = "runs/pictures", tiles: str = "", users: str = "150") -> None:
    folder, background = Path(output), tiles or None
    folder.mkdir(parents=True, exist_ok=True)

    def save(name: str, axes: object, web_map: object = None) -> None:
        np.ravel(axes)[0].figure.savefig(folder / f"{name}.png", dpi=100)
        if web_map is not None:
            maps.save_map(web_map, folder / f"{name}.html")
        print(folder / name)

    # SAMoE: where a user goes next, asked a day before their records end; which expert serves where and when.
    made = simulate_city(int(users), num_days=28, num_locations=500, seed=7)
    visits, city = made.visits, City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois)
    samoe = NextLocationPipeline.from_pretrained(CHECKPOINTS / "samoe-small", city=city)
    week = visits[visits["user_id"].isin(visits["user_id"].unique()[:3]) & (visits["time"] < "2024-01-08T00Z")]
    save("trajectories", pictures.plot_trajectories(week, city=city), maps.map_trajectories(week, tiles=background))
    user = visits["user_id"].value_counts().index[0]
    own = visits[visits["user_id"] == user]
    known = own[own["time"] < own["time"].max() - pd.Timedelta(days=1)]
    given = {"user": user, "truth": own["location_id"].iloc[len(known)]}
    places = samoe.predict(known, top_k=5)
    web = maps.map_next_places(places, known, city, tiles=background, **given)
    save("next_places", pictures.plot_next_places(places, known, city, **given), web)
    save("experts", models.plot_experts(models.expert_weights(samoe, visits)))

    # M-STAR: trips of generated weeks, where they are beside simulated users of the same city, single weeks.
    mstar = TrajectoryGenerationPipeline.from_pretrained(CHECKPOINTS / "mstar-cells-small")
    cells, weeks = mstar.tokenizer, mstar.generate(int(users), seed=0)
    trips = od_matrix(weeks, by_hour=False, threshold=1)
    save(
        "flows",
        pictures.plot_flows(trips, cells.lat, cells.lon),
        maps.map_flows(trips, cells.lat, cells.lon, tiles=background),
    )
    real = simulate_city(int(users), num_days=14, num_locations=800, seed=7).visits
    grid = SquareGrid.around(cells.lat, cells.lon, cell_km=1.0)
    save("visit_heat", pictures.plot_visit_heat(real, weeks, grid, names=("simulated users", "M-STAR")))
    lived, made = cells.weeks(real).cells, mstar.generate(int(users), seed=0, to="weeks")
    drawn = min(20, len(lived), len(made))
    save("weeks", plot_weeks(lived, made, number=drawn, names=("simulated", "M-STAR")))

    # RAW: regions by their visitors, and the hours that the encoder looks at.
    raw = MobilityEmbeddingPipeline.from_pretrained(CHECKPOINTS / "raw-released-small", attn_implementation="eager")
    points = simulated_points(simulate_city(int(users), num_days=7, num_locations=600, seed=0), seed=0)
    grid = SquareGrid.around(points["lat"], points["lon"], cell_km=1.0)
    regions = raw.embed_regions(points, grid, pooling="mean")
    save("regions", pictures.plot_regions(regions, grid), maps.map_regions(regions, grid, tiles=background))
    save("attention", models.plot_attention(models.attention_by_hour(raw, points)))


if __name__ == "__main__":
    main(*sys.argv[1:])
