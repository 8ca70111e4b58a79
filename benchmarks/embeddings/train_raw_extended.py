"""Train RAW's `extended` variant on records of several cities.

    HF_MOBILITY_DATA=... python -m benchmarks.embeddings.train_raw_extended --output runs/raw-extended
    python -m benchmarks.embeddings.train_raw_extended --cities simulated --size tiny --steps 20 --learning-rates 1e-3 --output runs/tiny

A stage begins with its own learning rate, which falls to zero, and has other draws and other simulated cities.
Errors beside simple rivals: benchmarks/embeddings/evaluate_extended.py, `--part validation` while settings are chosen.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from transformers import set_seed

from benchmarks.embeddings.record_sets import records_of
from benchmarks.options import config_values
from hf_mobility import RawConfig, RawTokenizer, simulate_city, training_arguments
from hf_mobility.data.record_contexts import RecordHistories
from hf_mobility.modeling.modeling_raw_extended import RawExtendedForTrajectoryPrediction
from hf_mobility.training.fit import fit
from hf_mobility.training.records import RecordRows

SHARES = {"geolife": 0.45, "cabs": 0.25, "simulated": 0.15, "checkins": 0.15}  # of the batches


def load(names: list[str], seed: int) -> tuple[list[RecordHistories], list[float]]:
    """Histories, and the share of each among the batches: that of its set, divided by the root of the records."""
    found: list[RecordHistories] = []
    shares: list[float] = []
    for name in names:
        own = records_of(name, seed=seed)
        size = [len(one.slots) ** 0.5 for one in own]
        found += own
        shares += [SHARES[name] * part / sum(size) for part in size]
        users, records = (sum(len(getattr(one, field)) for one in own) for field in ("users", "slots"))
        print(f"{name}: {len(own)} cities, {users:,} users, {records:,} records, share {SHARES[name]}")
    return found, shares


def train(
    model: Any, names: list[str], *, steps: int, batch_size: int, learning_rate: float, seed: int, folder: str
) -> Any:
    """The model, trained for a stage, and its history."""
    histories, shares = load(names, seed)
    rows = RecordRows(
        histories, rows=steps * batch_size, records=model.config.context_records, shares=shares, seed=seed
    )
    arguments = training_arguments(
        folder,
        preset="raw",
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        bf16=False,
        save_strategy="no",
    )
    return fit(model, arguments, rows)


def clock_of_its_own(config: RawConfig) -> RawTokenizer:
    """The tokenizer of a simulated city, so that the folder loads in one line and holds no real place."""
    city = simulate_city(20, num_days=7, num_locations=60, seed=0)
    options = {"timezone": city.timezone, "name": "Simville", "model_max_length": config.max_position_embeddings}
    return RawTokenizer.from_points(city.visits, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True)
    parser.add_argument("--cities", nargs="+", default=list(SHARES), choices=list(SHARES))
    parser.add_argument("--size", default="small")
    parser.add_argument("--start", help="folder of a model to go on with, in place of a new one")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="single config values")
    parser.add_argument("--steps", type=int, nargs="+", default=[650, 640, 640, 640], help="of each stage")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[3e-3, 2e-3, 2e-3, 1e-3], help="likewise")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0, help="of the first stage; the next ones count on")
    options = parser.parse_args()

    set_seed(options.seed)
    if options.start:
        model = RawExtendedForTrajectoryPrediction.from_pretrained(options.start)
    else:
        values = config_values(options.set, RawConfig)
        model = RawExtendedForTrajectoryPrediction(RawConfig.from_preset(options.size, variant="extended", **values))
    start = time.process_time()
    for number, (steps, rate) in enumerate(zip(options.steps, options.learning_rates, strict=True)):
        stage = {"steps": steps, "batch_size": options.batch_size, "learning_rate": rate}
        model, history = train(model, options.cities, **stage, seed=options.seed + number, folder=options.output)
        print(history.iloc[:: max(1, len(history) // 5)].to_string(index=False))
    seconds = time.process_time() - start
    print(f"{model.num_parameters():,} parameters, {sum(options.steps):,} steps in {seconds:.0f} s of a processor")
    model.save_pretrained(options.output)
    clock_of_its_own(model.config).save_pretrained(options.output)


if __name__ == "__main__":
    main()
