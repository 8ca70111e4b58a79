"""What an embedding knows, who its nearest neighbours are, and which hours the encoder attends to.

    python -m benchmarks.embeddings.train_raw --held-out 0.5 --output runs/raw
    python -m benchmarks.embeddings.understand_embedding runs/raw --held-out 0.5 --report benchmarks/embeddings/results

Evaluated on users of the simulated city whom the encoder has not seen (the same --users, --held-out and --seed as in
training). Labels come from the very window that is embedded: this measures what can be read from a vector, not what it
foretells. Hand-made features contain some labels as they are (radius, cells, hours away): for those they show what is
possible, and are no baseline. Users are simulated, and so are the figures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import set_seed

from benchmarks.embeddings.series import commuters, embed_windows, home_and_work, load_series
from benchmarks.tables import save_table
from hf_mobility import RawForTrajectoryPrediction, RawModel, RawTokenizer
from hf_mobility.baselines import mobility_features
from hf_mobility.data import haversine_km, to_km
from hf_mobility.evaluation import probe_users
from hf_mobility.evaluation.probe_models import standardizer
from hf_mobility.pipelines.embedding import MobilityEmbeddingPipeline
from hf_mobility.plotting.models import attention_by_hour

HOURS = {"by day": range(10, 17), "in the evening": range(18, 24)}
ATTENTION_PEOPLE = 40


def facts(lat: np.ndarray, lon: np.ndarray, *, slots_per_day: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is asked about each of N people, from positions (N, T), and the hand-made features."""
    by_hand = mobility_features(lat, lon, slots_per_day=slots_per_day)
    home, work = home_and_work(lat, lon, slots_per_day=slots_per_day)
    east, north = to_km(home[:, 0], home[:, 1], origin=(float(lat.mean()), float(lon.mean())))
    asked = {
        "home, km to the east": east,
        "home, km to the north": north,
        "home to work, km": haversine_km(*home.T, *work.T),
        "radius of gyration, km": by_hand["radius_of_gyration_km"],
        "distinct cells": by_hand["distinct_cells"],
        **{
            f"share away {name}": by_hand[[f"away_h{h:02d}" for h in hours]].mean(axis=1)
            for name, hours in HOURS.items()
        },
    }
    return pd.DataFrame(asked), by_hand


def nearest(vectors: np.ndarray, *, number: int) -> np.ndarray:
    """Rows (N, number) of the nearest others of (N, D), by Euclidean distance of standardised columns."""
    mean, scale = standardizer(vectors)
    x = (vectors - mean) / scale
    square = np.square(x).sum(axis=1)
    distance = square[:, None] + square - 2 * x @ x.T
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1, kind="stable")[:, :number]


def likeness(pairs: dict[str, np.ndarray], home: np.ndarray, radius: np.ndarray, commuter: np.ndarray) -> pd.DataFrame:
    """How alike people and their neighbours (name -> (N, k) rows) are; 95 % intervals by bootstrap over people."""
    rows = []
    for name, others in pairs.items():
        own = np.arange(len(others))[:, None]
        measured = {
            "km between homes": haversine_km(*home[own].transpose(2, 0, 1), *home[others].transpose(2, 0, 1)),
            "same home cell": (home[own] == home[others]).all(axis=2),
            "difference of radius, km": np.abs(radius[own] - radius[others]),
            "both or neither commute": commuter[own] == commuter[others],
        }
        for measure, values in measured.items():
            of_person = values.mean(axis=1)
            draws = np.random.default_rng(0).integers(0, len(of_person), (1_000, len(of_person)))
            low, high = np.quantile(of_person[draws].mean(axis=1), (0.025, 0.975))
            head = {"neighbours": name, "measure": measure, "people": len(own), "each": others.shape[1]}
            rows.append({**head, "mean": of_person.mean(), "low": low, "high": high})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder of benchmarks/embeddings/train_raw.py for the simulated city")
    parser.add_argument("--users", type=int, default=1_000, help="as in training")
    parser.add_argument("--held-out", type=float, default=0.05, help="as in training")
    parser.add_argument("--seed", type=int, default=0, help="as in training")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--neighbours", type=int, default=5)
    parser.add_argument("--report", help="folder for raw_knows.csv, raw_neighbours.csv and raw_attention.csv")
    options = parser.parse_args()

    model = RawForTrajectoryPrediction.from_pretrained(options.checkpoint).model.eval()
    tokenizer = RawTokenizer.from_pretrained(options.checkpoint)
    days = tokenizer.model_max_length // tokenizer.slots_per_day
    data = load_series(
        "simulated",
        users=options.users,
        days=days,
        seed=options.seed,
        held_out=options.held_out,
        time_features=tokenizer.time_features,
    )
    if not np.allclose(data.tokenizer.bounds, tokenizer.bounds):
        parser.error("the checkpoint is of another city; give --users, --held-out and --seed as in its training.")
    first = data.held_out & (data.days == data.days.min())
    columns = data.windows(first)
    lat, lon = tokenizer.denormalize(columns["coordinates"])
    asked, by_hand = facts(lat, lon, slots_per_day=tokenizer.slots_per_day)
    set_seed(options.seed)
    features = {
        "hand-made": by_hand.to_numpy(),
        "untrained encoder": embed_windows(RawModel(model.config).eval(), columns),
        "RAW": embed_windows(model, columns),
    }
    print(f"{first.sum()} people whom the encoder has not seen")
    tables = [
        probe_users(features, values.to_numpy(), seeds=range(options.seeds)).assign(label=str(label))
        for label, values in asked.items()
    ]
    knows = pd.concat(tables)
    print("\nWhat can be read from the vectors of people held out from the reader as well")
    print(knows[["label", "features", "reader", "n", "mae", "pcc", "r2", "r2_sd"]].round(3).to_string(index=False))

    rng = np.random.default_rng(options.seed)
    offset = np.stack([rng.permutation(first.sum() - 1)[: options.neighbours] + 1 for _ in range(first.sum())])
    pairs = {"random people": (np.arange(first.sum())[:, None] + offset) % first.sum()}
    pairs |= {name: nearest(values, number=options.neighbours) for name, values in features.items()}
    home, _ = home_and_work(lat, lon, slots_per_day=tokenizer.slots_per_day)
    commuter = commuters(lat, lon, slots_per_day=tokenizer.slots_per_day)
    alike = likeness(pairs, home, by_hand["radius_of_gyration_km"].to_numpy(), commuter)
    print("\nNearest neighbours")
    print(alike.round(3).to_string(index=False))

    some = data.points[data.points["user_id"].isin(data.users[first][:ATTENTION_PEOPLE])]
    model.set_attn_implementation("eager")
    start, end = data.days.min(), data.days.min() + days
    attention = attention_by_hour(MobilityEmbeddingPipeline(model, tokenizer), some, start=str(start), end=str(end))
    print("\nHours most looked at, relative to what even attention would give them")
    shown = attention.assign(times=attention["attention"] / attention["even"])
    print(shown.sort_values("times").groupby("hour").tail(1).sort_values("hour").round(4).to_string(index=False))
    if options.report:
        for name, table in {"knows": knows, "neighbours": alike, "attention": attention}.items():
            save_table(table, Path(options.report) / f"raw_{name}.csv")


if __name__ == "__main__":
    main()
