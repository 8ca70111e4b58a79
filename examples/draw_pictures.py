"""Every picture that the package draws, from the shipped checkpoints and simulated people: PNG and HTML files.

    python examples/draw_pictures.py --output runs/pictures

The maps are files that open without network; `--tiles OpenStreetMap` puts a street map under them, which a browser then
loads. RAW's attention and the regions need a RAW checkpoint; without one they are left out, and a line says so.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

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
from hf_mobility.plotting import maps
from hf_mobility.plotting.models import attention_by_hour, expert_weights, plot_attention, plot_experts, plot_training
from hf_mobility.plotting.pictures import (
    plot_flows,
    plot_next_places,
    plot_regions,
    plot_trajectories,
    plot_visit_heat,
)

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"


class Album:
    """Writes pictures into one folder and says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def png(self, name: str, axes: Any) -> None:
        np.ravel(axes)[0].figure.savefig(self.folder / f"{name}.png", dpi=100)
        print(f"{name}.png")

    def html(self, name: str, made: Any) -> None:
        maps.save_map(made, self.folder / f"{name}.html")
        print(f"{name}.html")


def draw_visits(album: Album, pipe: NextLocationPipeline, visits: pd.DataFrame, tiles: str | None) -> None:
    """Trajectories, the next place of one person, and which expert serves where and when."""
    city = pipe.tokenizer
    three = visits[visits["user_id"].isin(np.unique(visits["user_id"])[:3])]
    week = three[three["time"] < three["time"].min() + pd.Timedelta(days=7)]
    album.png("trajectories", plot_trajectories(week, city=city))
    album.html("trajectories", maps.map_trajectories(week, tiles=tiles))

    # Asked a day before their data end, so that it is known where they went next.
    person = visits["user_id"].value_counts().index[0]
    own = visits[visits["user_id"] == person]
    known = own[own["time"] < own["time"].max() - pd.Timedelta(days=1)]
    truth = own["location_id"].iloc[len(known)]
    guesses = pipe.predict(known, top_k=5)
    album.png("next_places", plot_next_places(guesses, known, city, user=person, truth=truth))
    album.html("next_places", maps.map_next_places(guesses, known, city, user=person, truth=truth, tiles=tiles))

    album.png("experts", plot_experts(expert_weights(pipe, visits)))


def draw_weeks(album: Album, pipe: TrajectoryGenerationPipeline, count: int, tiles: str | None) -> None:
    """Flows of generated weeks, and their heat map beside simulated people of the same city."""
    city = pipe.tokenizer
    weeks = pipe.generate(count, seed=0)
    flows = od_matrix(weeks, by_hour=False, threshold=1)
    album.png("flows", plot_flows(flows, city.lat, city.lon))
    album.html("flows", maps.map_flows(flows, city.lat, city.lon, tiles=tiles))

    made = simulate_city(count, num_days=14, num_locations=800, seed=7)  # the town of mstar-small, other people
    people = pd.DataFrame(city.to_frame(city.weeks(made.visits).cells[:count]))
    names = ("simulated people", "M-STAR")
    grid = SquareGrid.around(city.lat, city.lon, cell_km=1.0)  # its cells, one by one
    album.png("visit_heat", plot_visit_heat(people, weeks, grid, names=names))
    album.html("visit_heat", maps.map_visit_heat(people, weeks, grid, names=names, tiles=tiles))


def draw_series(album: Album, pipe: MobilityEmbeddingPipeline, points: pd.DataFrame, tiles: str | None) -> None:
    """Regions as colours and clusters, and the hours that RAW looks at."""
    grid = SquareGrid.around(points["lat"], points["lon"], cell_km=1.0)
    regions = pipe.embed_regions(points, grid, pooling="mean")
    clusters = min(5, len(regions))
    album.png("regions", plot_regions(regions, grid, clusters=clusters))
    album.html("regions", maps.map_regions(regions, grid, clusters=clusters, tiles=tiles))
    album.png("attention", plot_attention(attention_by_hour(pipe, points)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/pictures"))
    parser.add_argument("--samoe", type=Path, default=CHECKPOINTS / "samoe-small")
    parser.add_argument("--mstar", type=Path, default=CHECKPOINTS / "mstar-small")
    parser.add_argument("--raw", type=Path, default=CHECKPOINTS / "raw-small")
    parser.add_argument("--training", type=Path, help="a trainer_state.json, or the folder that holds it")
    parser.add_argument("--users", type=int, default=150, help="simulated people, and generated weeks")
    parser.add_argument("--tiles", help="a background that the browser loads, such as OpenStreetMap")
    options = parser.parse_args()
    album = Album(options.output)

    made = simulate_city(options.users, num_days=28, num_locations=500, seed=7)
    city = City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois)
    draw_visits(album, NextLocationPipeline.from_pretrained(options.samoe, city=city), made.visits, options.tiles)
    draw_weeks(album, TrajectoryGenerationPipeline.from_pretrained(options.mstar), options.users, options.tiles)
    if (options.raw / "config.json").is_file():
        raw = MobilityEmbeddingPipeline.from_pretrained(options.raw, attn_implementation="eager")
        points = simulated_points(simulate_city(options.users, num_days=7, num_locations=600, seed=0), seed=0)
        draw_series(album, raw, points, options.tiles)
    else:
        print(f"there is no RAW checkpoint at {options.raw}, so its regions and its attention are not drawn")
    if options.training:
        album.png("training", plot_training(options.training))
    else:
        print("no --training was given, so no training curves are drawn")


if __name__ == "__main__":
    main()
