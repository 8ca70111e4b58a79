"""Transport modes and users of GeoLife, read from RAW's embeddings of single days.

    HF_MOBILITY_DATA=... python -m benchmarks.embeddings.profile_geolife --save runs/raw-geolife-days --report benchmarks/embeddings/results

Modes: the share of walking, cycling, bus, car and rail among a day's labelled points; users are split. Users: given a
few days of the first half of a user's time, find that user among those of the second half. The baselines are hand-made
features, the lengths of a day's steps (for modes), and the histogram of visited places (for users). The encoder never
sees a mode, nor a user who is evaluated (those with labels, and those linked to them); it is trained here on the
others. A checkpoint of benchmarks/embeddings/train_raw.py is taken together with the users that it has not seen:

    python -m benchmarks.embeddings.train_raw --points geolife --days 1 --held-out 0.4 --output runs/raw-geolife
    python -m benchmarks.embeddings.profile_geolife --checkpoint runs/raw-geolife --held-out 0.4

Windows of a checkpoint are days, or whole weeks (a day then stands at its place in the week).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import set_seed

from benchmarks.embeddings.series import SeriesSet, embed_windows, load_series, raw_config, train_raw
from benchmarks.open_data import data_folder
from benchmarks.options import config_values
from benchmarks.tables import save_table
from hf_mobility import RawConfig, RawForTrajectoryPrediction, RawModel, RawTokenizer, SquareGrid
from hf_mobility.baselines import mobility_features
from hf_mobility.benchmark.trajectories import linked_users
from hf_mobility.data import haversine_km
from hf_mobility.evaluation import probe_users
from hf_mobility.evaluation.probe_models import standardizer

MODES = {"walk": ["walk"], "bike": ["bike"], "bus": ["bus"], "car": ["car", "taxi"], "rail": ["subway", "train"]}
LEAST_LABELLED = 30  # points of a day; five minutes
QUANTILES = np.linspace(0.1, 0.9, 9)
PERIOD_DAYS = (1, 5)


def read_modes() -> pd.DataFrame:
    """Labelled points per person, local day and mode of `MODES`: counts, indexed by (user, day)."""
    table = pd.read_parquet(data_folder() / "gps_geolife_beijing.parquet", columns=["user_id", "time", "mode"])
    table["mode"] = table["mode"].map({name: mode for mode, names in MODES.items() for name in names})
    table = table.dropna()
    day = table["time"].dt.tz_convert("Asia/Shanghai").dt.tz_localize(None).dt.normalize().rename("day")
    return pd.crosstab([table["user_id"], day], table["mode"]).reindex(columns=list(MODES), fill_value=0)


def step_lengths(lat: np.ndarray, lon: np.ndarray, known: np.ndarray) -> np.ndarray:
    """What the speed of (N, T) positions tells: deciles of log(1 + metres) between neighbouring known slots, 0 where
    there are none, and the share of known slots; (N, 10).
    """
    metres = 1000 * haversine_km(lat[:, :-1], lon[:, :-1], lat[:, 1:], lon[:, 1:])
    pair = known[:, 1:] & known[:, :-1]
    features = np.zeros((len(lat), len(QUANTILES) + 1))
    for row in np.flatnonzero(pair.any(axis=1)):
        features[row, :-1] = np.quantile(np.log1p(metres[row, pair[row]]), QUANTILES)
    features[:, -1] = known.mean(axis=1)
    return features


def visited(lat: np.ndarray, lon: np.ndarray, known: np.ndarray, *, cell_km: float = 0.5) -> np.ndarray:
    """Known slots of each of N days in every cell that anybody visits, (N, cells) float32."""
    grid = SquareGrid.around(lat[known], lon[known], cell_km=cell_km)
    day, _ = np.nonzero(known)
    cells, column = np.unique(grid.cell(lat[known], lon[known]), return_inverse=True)
    counts = np.zeros((len(lat), len(cells)), np.float32)
    np.add.at(counts, (day, column), 1)
    return counts


def ranks_of_own(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Rank (N,) of row i of the gallery (N, D) among all rows, by cosine with query i; ties count against it."""

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    likeness = unit(queries) @ unit(gallery).T
    return (likeness >= likeness.diagonal()[:, None]).sum(axis=1)


def reidentify(
    features: dict[str, np.ndarray], users: np.ndarray, days: np.ndarray, *, seeds: int, least_days: int
) -> pd.DataFrame:
    """Each person's days in the order of time are cut into two halves, and `PERIOD_DAYS` of each half are drawn. The
    features (N, D) have a row per day: `days` (N,) of `users` (N,).
    """
    order = np.lexsort((days, users))
    own = [rows for rows in np.split(order, np.flatnonzero(np.diff(users[order])) + 1) if len(rows) >= least_days]
    rows = []
    for number in PERIOD_DAYS:
        found: dict[str, list[np.ndarray]] = {name: [] for name in features}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            early = np.stack([rng.choice(one[: len(one) // 2], number, replace=False) for one in own])
            late = np.stack([rng.choice(one[len(one) // 2 :], number, replace=False) for one in own])
            for name, values in features.items():
                found[name].append(ranks_of_own(values[early].mean(axis=1), values[late].mean(axis=1)))
        shared = {"days": number, "people": len(own)}
        chance = {"features": "chance", "top1": 1 / len(own), "top5": min(1, 5 / len(own))}
        rows.append({**chance, **shared, "top1_sd": np.nan, "top5_sd": np.nan})
        for name, ranks in found.items():
            hits = {f"top{k}": (np.stack(ranks) <= k).mean(axis=1) for k in (1, 5)}
            means = {metric: values.mean() for metric, values in hits.items()}
            spread = {f"{metric}_sd": values.std(ddof=1) if seeds > 1 else np.nan for metric, values in hits.items()}
            rows.append({"features": name, **means, **shared, **spread})
    return pd.DataFrame(rows)[["features", "days", "people", "top1", "top1_sd", "top5", "top5_sd"]]


def encoder_of(data: SeriesSet, values: dict[str, object], options: argparse.Namespace) -> RawModel:
    """From the checkpoint, or trained on the people who are not judged."""
    if options.checkpoint:
        tokenizer = RawTokenizer.from_pretrained(options.checkpoint)
        if tokenizer.bounds != data.tokenizer.bounds or tokenizer.slots_per_day != data.tokenizer.slots_per_day:
            raise SystemExit(f"{options.checkpoint} knows another box or other slots than the files of GeoLife.")
        return RawForTrajectoryPrediction.from_pretrained(options.checkpoint).model.eval()
    config = raw_config(data.tokenizer, options.size, **values)
    made = train_raw(data.train, config, steps=options.steps, batch_size=options.batch_size, seed=options.seed)
    if options.save:
        made.save_pretrained(options.save)
        data.tokenizer.save_pretrained(options.save)
    return made.model


def columns_for(config: RawConfig, data: SeriesSet) -> dict[str, np.ndarray]:
    """The days as the encoder reads them: in windows of weeks, each at the slots of its weekday."""
    columns, slots = dict(data.columns), data.tokenizer.slots_per_day
    if config.max_position_embeddings % (7 * slots) == 0:
        weekday = (data.days.astype(int) + 3) % 7  # 1970-01-01 was a Thursday
        columns["position_ids"] = columns["position_ids"] + slots * weekday[:, None]
        if config.time_features:
            columns["start_weekday"] = np.zeros_like(columns["start_weekday"])
    return columns


def judge_modes(features: dict[str, np.ndarray], data: SeriesSet, group: np.ndarray, *, seeds: int) -> pd.DataFrame:
    """`features` are of the held-out days; people of one `group` are on one side of the split."""
    keys = zip(data.users[data.held_out], pd.to_datetime(data.days[data.held_out].astype("datetime64[s]")))
    counts = read_modes().reindex(pd.MultiIndex.from_tuples(list(keys)), fill_value=0)
    labelled = (counts.sum(axis=1) >= LEAST_LABELLED).to_numpy()
    shares = counts[labelled].div(counts[labelled].sum(axis=1), axis=0)
    some = {name: values[labelled] for name, values in features.items()}
    people = len(np.unique(data.users[data.held_out][labelled]))
    tables = [
        probe_users(some, shares[mode].to_numpy(), users=group[labelled], seeds=range(seeds)).assign(mode=mode)
        for mode in MODES
        if shares[mode].nunique() > 1
    ]
    return pd.concat(tables).assign(people=people)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", help="folder of benchmarks/embeddings/train_raw.py --points geolife; needs --held-out"
    )
    parser.add_argument("--held-out", type=float, help="share (and --seed) that the checkpoint was trained with")
    parser.add_argument("--size", default="small", help="of the encoder that is trained here")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="single config values")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--save", help="folder for the encoder that is trained here")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", help="folder for raw_geolife_modes.csv and raw_geolife_reidentification.csv")
    options = parser.parse_args()
    if (options.checkpoint is None) != (options.held_out is None) or (options.checkpoint and options.save):
        parser.error("--checkpoint and --held-out go together, without --save.")
    values = config_values(options.set, RawConfig)

    labelled = read_modes().index.get_level_values(0).unique().to_numpy()
    judged = labelled if options.held_out is None else options.held_out
    known_times = RawTokenizer.from_pretrained(options.checkpoint).time_features if options.checkpoint else False
    time_features = known_times or bool(values.get("time_features", False))
    data = load_series("geolife", days=1, seed=options.seed, held_out=judged, time_features=time_features)
    made = encoder_of(data, values, options)
    set_seed(options.seed)
    untrained = RawModel(made.config).eval()
    columns = columns_for(made.config, data)
    known = data.columns["observed_mask"].astype(bool)
    lat, lon = data.tokenizer.denormalize(data.columns["coordinates"])
    vectors = {
        "hand-made": mobility_features(lat, lon, slots_per_day=data.tokenizer.slots_per_day, mask=known).to_numpy(),
        "untrained encoder": embed_windows(untrained, columns),
        "RAW": embed_windows(made, columns),
    }
    own = data.held_out
    users, group = data.users[own], linked_users(data.points)
    people = len(np.unique(users))
    print(f"{own.sum()} of {len(own)} days are judged, of {people} people whom the encoder has not seen")

    places = visited(lat[own], lon[own], known[own])
    modes = {
        "nothing": np.zeros((own.sum(), 1)),
        "hand-made": vectors["hand-made"][own],
        "hand-made + step lengths": np.hstack([vectors["hand-made"][own], step_lengths(lat, lon, known)[own]]),
        "untrained encoder": vectors["untrained encoder"][own],
        "RAW": vectors["RAW"][own],
        "hand-made + step lengths + RAW": np.hstack(
            [vectors["hand-made"][own], step_lengths(lat, lon, known)[own], vectors["RAW"][own]]
        ),
    }
    mode_table = judge_modes(modes, data, group[users].to_numpy(), seeds=options.seeds)
    print("\nShares of a day's modes, people held out")
    print(mode_table.round(3).to_string(index=False))

    # One number per person: whoever is linked is one, and the one with most days stays
    days_of = pd.Series(users).value_counts()
    alone = days_of.groupby(group[days_of.index].to_numpy()).idxmax().to_numpy()
    single = np.isin(users, alone)
    standard = {"places visited": np.sqrt(places[single])}
    for name, vector in vectors.items():
        mean, scale = standardizer(vector[~own])
        standard[name] = (vector[own][single] - mean) / scale
    table = reidentify(
        standard, users[single], data.days[own][single], seeds=options.seeds, least_days=2 * max(PERIOD_DAYS)
    )
    print("\nWho is it? Days of the first half of somebody's time against days of the second half")
    print(table.round(3).to_string(index=False))
    if options.report:
        save_table(mode_table, Path(options.report) / "raw_geolife_modes.csv")
        save_table(table, Path(options.report) / "raw_geolife_reidentification.csv")


if __name__ == "__main__":
    main()
