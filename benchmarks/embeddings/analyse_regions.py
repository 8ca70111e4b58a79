"""Pick-ups and drop-offs of San Francisco cabs per cell, read from the vectors of the cabs that were there.

    HF_MOBILITY_DATA=... python -m benchmarks.embeddings.train_raw --points cabs --output runs/raw-cabs
    HF_MOBILITY_DATA=... python -m benchmarks.embeddings.analyse_regions --checkpoint runs/raw-cabs

Without a checkpoint an encoder is trained on all cabs (no label is used for that). The encoder sees positions only,
never the occupied flag that the labels come from. Cells are predicted while their whole block of 5 km is held out. The
number of visitors alone is the baseline to beat: a sum over visitors grows with it.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from transformers import set_seed

from benchmarks.embeddings.series import CAB_GRID, load_series, raw_config, train_raw
from benchmarks.open_data import data_folder
from benchmarks.tables import save_table
from hf_mobility import RawModel
from hf_mobility.data.regions import visitors
from hf_mobility.evaluation import probe_regions
from hf_mobility.pipelines.embedding import MobilityEmbeddingPipeline

LABELS = ("pickups", "dropoffs")


def hours_of_visits(points: pd.DataFrame, timezone: str) -> np.ndarray:
    """log(1 + points) of each cell and local hour, (900, 24)."""
    cell = CAB_GRID.cell(points["lat"], points["lon"])
    hour = points["time"].dt.tz_convert(timezone).dt.hour.to_numpy()
    inside = cell >= 0
    counts = np.bincount(cell[inside] * 24 + hour[inside], minlength=24 * len(CAB_GRID))
    return np.log1p(counts.reshape(-1, 24))


def region_features(
    pipe: MobilityEmbeddingPipeline, points: pd.DataFrame, *, min_users: int, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, object]]:
    """Cells (R,) with visitors enough, name -> (R, any) features, and what was left out."""
    set_seed(seed)
    untrained = MobilityEmbeddingPipeline(RawModel(pipe.model.config), pipe.tokenizer)
    people = pipe.embed_users(points)
    plain = untrained.embed_users(points)
    drawn = plain.copy()
    drawn[drawn.columns[1:]] = np.random.default_rng(seed).normal(size=(len(drawn), drawn.shape[1] - 1))

    there = visitors(points, CAB_GRID)

    def pooled(embeddings: pd.DataFrame, pooling: str) -> pd.DataFrame:
        return pipe.embed_regions(None, there, pooling=pooling, min_users=min_users, user_embeddings=embeddings)

    total = pooled(people, "sum")
    cells = CAB_GRID.parse_id(total["region_id"])
    vectors = {
        "random people, sum": pooled(drawn, "sum"),
        "untrained encoder, sum": pooled(plain, "sum"),
        "RAW, sum": total,
        "RAW, mean": pooled(people, "mean"),
        "RAW, mean and log number": pooled(people, "log"),
    }
    features = {
        "number of visitors": np.log1p(total[["users"]].to_numpy()),
        "visits by hour": hours_of_visits(points, pipe.tokenizer.timezone)[cells],
        **{name: table.drop(columns=["region_id", "users"]).to_numpy() for name, table in vectors.items()},
    }
    return cells, features, total.attrs["left_out"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="folder of benchmarks/embeddings/train_raw.py --points cabs")
    parser.add_argument("--size", default="small", help="of the encoder that is trained here")
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--min-users", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", help="CSV for the table")
    options = parser.parse_args()

    path = data_folder() / "derived_regionlabels_sf_cabs.parquet"
    if not path.exists():
        parser.error(f"{path} does not exist; set HF_MOBILITY_DATA to the folder of the cab files.")
    truth = pd.read_parquet(path).set_index("cell").sort_index()
    data = load_series("cabs", seed=options.seed)
    if options.checkpoint:
        pipe = MobilityEmbeddingPipeline.from_pretrained(options.checkpoint)
    else:
        config = raw_config(data.tokenizer, options.size)
        model = train_raw(data.columns, config, steps=options.steps, batch_size=options.batch_size, seed=options.seed)
        pipe = MobilityEmbeddingPipeline(model, data.tokenizer)
    cells, features, left_out = region_features(pipe, data.points, min_users=options.min_users, seed=options.seed)
    print(f"{len(cells)} cells; left out: {left_out}")
    lat, lon = CAB_GRID.centre(cells)
    tables = []
    for label in LABELS:
        values = np.log1p(truth.loc[cells, label].to_numpy())
        table = probe_regions(features, values, lat, lon, seeds=range(options.seeds))
        tables.append(table.assign(label=f"log1p({label})"))
        print(f"\nlog(1 + {label}), blocks of 5 km held out")
        print(table.round(3).to_string(index=False))
    if options.report:
        save_table(pd.concat(tables), options.report)


if __name__ == "__main__":
    main()
