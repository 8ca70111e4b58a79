"""Commuters, read from a week of positions: RAW's embeddings, hand-made features and an untrained encoder.

    python -m benchmarks.embeddings.profile_users                               # trains an encoder on other users of the same city
    python -m benchmarks.embeddings.train_raw --held-out 0.5 --output runs/raw
    python -m benchmarks.embeddings.profile_users --checkpoint runs/raw         # or takes one; its window must be 7 days

Labels come from the week AFTER the one that is read, so that they cannot be copied from the input: home is the
commonest cell of the nights, work that of weekdays from 10 to 17 h; a commuter is at work on three weekdays or more,
over 1 km from home. The rule itself, applied to the week that is read, is a row of the table: nothing is learned for
it. Rows `day parts` read the states of night, morning, afternoon and evening apart. Profiled are users that the
encoder has not seen: --users, --held-out and --seed are those of its training. With --few 0.05 0.1, linear readers
learn from such shares of the labels too. Users are simulated, and so are the figures.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from transformers import set_seed

from benchmarks.embeddings.series import commuters, held_out_people, raw_config, train_raw
from benchmarks.tables import save_table
from hf_mobility import RawModel, RawTokenizer, simulate_city
from hf_mobility.baselines import mobility_features, work_features
from hf_mobility.data.simulation.points import simulated_points
from hf_mobility.evaluation import probe_users
from hf_mobility.pipelines.embedding import MobilityEmbeddingPipeline

RULE, WORK = "rule on the week read", "rule, days at work, commute"
TEST_SHARE = 0.3
READ, LABELLED = ("2024-01-01", "2024-01-08"), ("2024-01-08", "2024-01-15")


def positions(tokenizer: RawTokenizer, points: pd.DataFrame, days: tuple[str, str]) -> tuple[np.ndarray, ...]:
    """Users (N,), latitude and longitude (N, T) of the week."""
    series = tokenizer.encode_points(points, start=days[0], end=days[1])
    lat, lon = tokenizer.denormalize(tokenizer.to_batch(series, return_tensors="pt")["coordinates"])
    return series.user_ids, lat, lon


def rivals(
    users: np.ndarray, lat: np.ndarray, lon: np.ndarray, *, slots_per_day: int, common: pd.Index
) -> dict[str, Any]:
    """Name -> hand-made features of the users `common`; none of them knows the week of the labels."""
    by_hand, work = (
        of(lat, lon, slots_per_day=slots_per_day).set_index(users).loc[common]
        for of in (mobility_features, work_features)
    )
    return {"nothing": np.zeros((len(common), 1)), RULE: work[["commutes"]], WORK: work, "hand-made": by_hand}


def encoders_of(options: argparse.Namespace, tokenizer: RawTokenizer, others: pd.DataFrame) -> dict[str, Any]:
    """Name -> pipeline: the untrained encoder, and the one that is taken or trained on the other users."""
    if options.checkpoint:
        pipe = MobilityEmbeddingPipeline.from_pretrained(options.checkpoint)
    else:
        series = tokenizer.encode_points(others, start=READ[0], end=READ[1])
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
    return {"untrained encoder": MobilityEmbeddingPipeline(RawModel(pipe.model.config), pipe.tokenizer), "RAW": pipe}


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
    parser.add_argument("--few", type=float, nargs="*", default=[], help="shares of the labels, for more linear rows")
    parser.add_argument("--no-encoder", action="store_true", help="rivals only; rows of encoders in the report stay")
    parser.add_argument("--report", help="CSV for the table")
    options = parser.parse_args()

    city = simulate_city(options.users, num_days=14, num_locations=600, seed=options.seed)
    points = simulated_points(city, seed=options.seed)
    profiled = points["user_id"].isin(held_out_people(points, share=options.held_out, seed=options.seed))
    tokenizer = RawTokenizer.from_points(points[~profiled], timezone=city.timezone, model_max_length=672)
    encoders = {} if options.no_encoder else encoders_of(options, tokenizer, points[~profiled])

    points = points[profiled]
    later, lat, lon = positions(tokenizer, points, LABELLED)
    labels = pd.Series(commuters(lat, lon, slots_per_day=tokenizer.slots_per_day), index=later)
    users, lat, lon = positions(tokenizer, points, READ)
    common = labels.index.intersection(users)
    features = rivals(users, lat, lon, slots_per_day=tokenizer.slots_per_day, common=common)
    for name, one in encoders.items():
        for pooling, told in (("mean", ""), ("day_parts", ", day parts")):
            vectors = one.embed_users(points, user_pooling=pooling, start=READ[0], end=READ[1]).set_index("user_id")
            features[name + told] = vectors.loc[common]
    for name in ("hand-made", RULE, WORK) if encoders else ():
        for raw in ("RAW", "RAW, day parts"):
            features[f"{name} + {raw}"] = pd.concat([features[name], features[raw]], axis=1)
    share = labels[common].mean()
    print(f"{len(common)} people, {share:.0%} of them commuters in the week after; {options.seeds} seeds")
    most = round((1 - TEST_SHARE) * len(common))
    tables = []
    for number in [most, *(round(share * most) for share in options.few)]:
        asked = {
            "readers": ("linear", "mlp") if number == most else ("linear",),
            "test_share": 1 - number / len(common),
        }
        tables.append(probe_users(features, labels[common], seeds=range(options.seeds), **asked).assign(labels=number))
    table = pd.concat(tables)
    print(table.round(3).to_string(index=False))
    if options.report:
        save_table(table, options.report, update=("features", "labels"))


if __name__ == "__main__":
    main()
