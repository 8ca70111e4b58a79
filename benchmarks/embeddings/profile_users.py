"""Commuters, read from a week of positions: RAW's embeddings, hand-made features and an untrained encoder.

    python -m benchmarks.embeddings.profile_users                               # trains an encoder on other users of the same city
    python -m benchmarks.embeddings.train_raw --held-out 0.5 --output runs/raw
    python -m benchmarks.embeddings.profile_users --checkpoint runs/raw         # or takes one; its window must be 7 days

Labels come from the week AFTER the one that is read, so that they cannot be copied from the input: home is the
commonest cell of the nights, work that of weekdays from 10 to 17 h; a commuter is at work on three weekdays or more,
over 1 km from home. Profiled are users that the encoder has not seen: --users, --held-out and --seed are those of its
training. Users are simulated, and so are the figures. The labelling rule itself, applied to the week that is read, is
no row of the table.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from transformers import set_seed

from benchmarks.embeddings.series import commuters, held_out_people, raw_config, train_raw
from benchmarks.tables import save_table
from hf_mobility import RawModel, RawTokenizer, simulate_city
from hf_mobility.baselines import mobility_features
from hf_mobility.data.simulation.points import simulated_points
from hf_mobility.evaluation import probe_users
from hf_mobility.pipelines.embedding import MobilityEmbeddingPipeline

READ, LABELLED = ("2024-01-01", "2024-01-08"), ("2024-01-08", "2024-01-15")


def positions(tokenizer: RawTokenizer, points: pd.DataFrame, days: tuple[str, str]) -> tuple[np.ndarray, ...]:
    """Users (N,), latitude and longitude (N, T) of the week."""
    series = tokenizer.encode_points(points, start=days[0], end=days[1])
    lat, lon = tokenizer.denormalize(tokenizer.to_batch(series, return_tensors="pt")["coordinates"])
    return series.user_ids, lat, lon


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="folder of benchmarks/embeddings/train_raw.py")
    parser.add_argument("--users", type=int, default=1_000, help="people of the simulated city")
    parser.add_argument("--size", default="small", help="of the encoder that is trained here")
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--held-out", type=float, default=0.5, help="share of people who are profiled")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", help="CSV for the table")
    options = parser.parse_args()

    city = simulate_city(options.users, num_days=14, num_locations=600, seed=options.seed)
    points = simulated_points(city, seed=options.seed)
    profiled = points["user_id"].isin(held_out_people(points, share=options.held_out, seed=options.seed))
    if options.checkpoint:
        pipe = MobilityEmbeddingPipeline.from_pretrained(options.checkpoint)
    else:
        tokenizer = RawTokenizer.from_points(points[~profiled], timezone=city.timezone, model_max_length=672)
        series = tokenizer.encode_points(points[~profiled], start=READ[0], end=READ[1])
        columns = {name: values.numpy() for name, values in tokenizer.to_batch(series, return_tensors="pt").items()}
        model = train_raw(
            columns,
            raw_config(tokenizer, options.size),
            steps=options.steps,
            batch_size=options.batch_size,
            seed=options.seed,
        )
        pipe = MobilityEmbeddingPipeline(model, tokenizer)
    set_seed(options.seed)
    untrained = MobilityEmbeddingPipeline(RawModel(pipe.model.config), pipe.tokenizer)

    points = points[profiled]
    later, lat, lon = positions(pipe.tokenizer, points, LABELLED)
    labels = pd.Series(commuters(lat, lon, slots_per_day=pipe.tokenizer.slots_per_day), index=later)
    users, lat, lon = positions(pipe.tokenizer, points, READ)
    made = {
        name: one.embed_users(points, start=READ[0], end=READ[1]).set_index("user_id")
        for name, one in (("untrained encoder", untrained), ("RAW", pipe))
    }
    by_hand = mobility_features(lat, lon, slots_per_day=pipe.tokenizer.slots_per_day).set_index(users)
    common = labels.index.intersection(users)
    features = {
        "nothing": np.zeros((len(common), 1)),
        "hand-made": by_hand.loc[common],
        **{name: table.loc[common] for name, table in made.items()},
        "hand-made + RAW": pd.concat([by_hand.loc[common], made["RAW"].loc[common]], axis=1),
    }
    share = labels[common].mean()
    print(f"{len(common)} people, {share:.0%} of them commuters in the week after; {options.seeds} seeds")
    table = probe_users(features, labels[common], seeds=range(options.seeds))
    print(table.round(3).to_string(index=False))
    if options.report:
        save_table(table, options.report)


if __name__ == "__main__":
    main()
