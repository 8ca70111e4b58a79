"""Pick-ups and drop-offs of San Francisco cabs per cell, read from the vectors of the cabs that were there.

    HF_MOBILITY_DATA=... python -m benchmarks.embeddings.train_raw --points cabs --output runs/raw-cabs
    HF_MOBILITY_DATA=... python -m benchmarks.embeddings.analyse_regions --checkpoint runs/raw-cabs

Without a checkpoint an encoder is trained on all cabs (no label is used for that). The encoder sees positions only,
never the occupied flag that the labels come from. Cells are predicted while their whole block of 5 km is held out.
Counts of points are the rivals: per cell, per hour of the day, per hour of the week. With --no-encoder only they are
evaluated, and rows of encoders in the report stay; with --untrained also slots of an untrained encoder.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from transformers import set_seed

from benchmarks.embeddings.series import CAB_GRID, SeriesSet, load_series, raw_config, train_raw
from benchmarks.open_data import data_folder
from benchmarks.tables import save_table
from hf_mobility import RawModel
from hf_mobility.baselines.regions import region_counts
from hf_mobility.data.regions import visitors
from hf_mobility.evaluation import probe_regions
from hf_mobility.evaluation.probes import READERS
from hf_mobility.pipelines.embedding import MobilityEmbeddingPipeline

LABELS = ("pickups", "dropoffs")


def vectors(
    pipe: MobilityEmbeddingPipeline, points: pd.DataFrame, *, min_users: int, seed: int
) -> dict[str, pd.DataFrame]:
    """Name -> regions as `embed_regions` returns them, with the untrained encoder's and of random users."""
    people, plain = (one.embed_users(points) for one in (pipe, untrained_like(pipe, seed)))
    drawn = plain.copy()
    drawn[drawn.columns[1:]] = np.random.default_rng(seed).normal(size=(len(drawn), drawn.shape[1] - 1))
    there = visitors(points, CAB_GRID)

    def pooled(embeddings: pd.DataFrame, pooling: str) -> pd.DataFrame:
        return pipe.embed_regions(None, there, pooling=pooling, min_users=min_users, user_embeddings=embeddings)

    return {
        "random users, sum": pooled(drawn, "sum"),
        "untrained encoder, sum": pooled(plain, "sum"),
        "RAW, sum": pooled(people, "sum"),
        "RAW, mean": pooled(people, "mean"),
        "RAW, mean and log number": pooled(people, "log"),
        "RAW, slots": pipe.embed_regions(points, CAB_GRID, pooling="slots", min_users=min_users),
    }


def untrained_like(pipe: MobilityEmbeddingPipeline, seed: int) -> MobilityEmbeddingPipeline:
    set_seed(seed)
    return MobilityEmbeddingPipeline(RawModel(pipe.model.config), pipe.tokenizer)


def encoder_of(options: argparse.Namespace, data: SeriesSet) -> MobilityEmbeddingPipeline:
    if options.checkpoint:
        return MobilityEmbeddingPipeline.from_pretrained(options.checkpoint)
    config = raw_config(data.tokenizer, options.size)
    if options.untrained:
        return MobilityEmbeddingPipeline(RawModel(config), data.tokenizer)
    model = train_raw(data.columns, config, steps=options.steps, batch_size=options.batch_size, seed=options.seed)
    return MobilityEmbeddingPipeline(model, data.tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="folder of benchmarks/embeddings/train_raw.py --points cabs")
    parser.add_argument("--size", default="small", help="of the encoder that is trained here")
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--min-users", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--readers", nargs="+", choices=list(READERS), default=list(READERS))
    parser.add_argument("--seed", type=int, default=0)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--no-encoder", action="store_true", help="counts only")
    kinds.add_argument("--untrained", action="store_true", help="counts, and slots of an encoder without training")
    parser.add_argument("--report", help="CSV for the table")
    options = parser.parse_args()

    path = data_folder() / "derived_regionlabels_sf_cabs.parquet"
    if not path.exists():
        parser.error(f"{path} does not exist; set HF_MOBILITY_DATA to the folder of the cab files.")
    truth = pd.read_parquet(path).set_index("cell").sort_index()
    data = load_series("cabs", seed=options.seed)
    there = visitors(data.points, CAB_GRID)
    number = np.bincount(there.region, minlength=len(CAB_GRID))
    cells = np.flatnonzero(number >= options.min_users)
    counts = region_counts(data.points, CAB_GRID, data.tokenizer.timezone, number)
    features: dict[str, np.ndarray] = {name: values[cells] for name, values in counts.items()}
    if not options.no_encoder:
        pipe = encoder_of(options, data)
        plain = untrained_like(pipe, options.seed)
        made = {
            "untrained encoder, slots": plain.embed_regions(
                data.points, CAB_GRID, pooling="slots", min_users=options.min_users
            )
        }
        if not options.untrained:
            made |= vectors(pipe, data.points, min_users=options.min_users, seed=options.seed)
        print(f"{len(cells)} cells; left out: {made['untrained encoder, slots'].attrs['left_out']}")
        for name, table in made.items():
            own = table.set_index("region_id").drop(columns="users").reindex(CAB_GRID.cell_id(cells))
            features[name] = own.fillna(0.0).to_numpy()  # fewer users by slots than by points
    lat, lon = CAB_GRID.centre(cells)
    tables = []
    for label in LABELS:
        values = np.log1p(truth.loc[cells, label].to_numpy())
        table = probe_regions(features, values, lat, lon, readers=options.readers, seeds=range(options.seeds))
        tables.append(table.assign(label=f"log1p({label})"))
        print(f"\nlog(1 + {label}), blocks of 5 km held out")
        print(table.round(3).to_string(index=False))
    if options.report:
        save_table(pd.concat(tables), options.report, update=("label", "features"))


if __name__ == "__main__":
    main()
