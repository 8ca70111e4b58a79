"""Train RAW's `extended` variant on records of several cities, and evaluate it on users that it has not seen.

    HF_MOBILITY_DATA=... python -m benchmarks.embeddings.train_raw_extended --output runs/raw-small
    python -m benchmarks.embeddings.train_raw_extended --cities simulated --steps 20 --size tiny --output runs/tiny

Printed are errors on validation users of GeoLife and the cabs, at recorded end points beside simple rivals.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from transformers import set_seed

from benchmarks.embeddings.evaluate_positions import SHOWN, STEPS
from benchmarks.embeddings.positions import END_POINTS, compare, record_tasks, rivals
from benchmarks.embeddings.record_sets import RecordSet, checkin_sets, gps_set, simulated_set
from benchmarks.options import add_training, config_values
from hf_mobility import RawConfig, RawTokenizer, simulate_city, training_arguments
from hf_mobility.evaluation.direct import DirectHorizons
from hf_mobility.modeling.modeling_raw_extended import RawExtendedForTrajectoryPrediction
from hf_mobility.training.fit import fit
from hf_mobility.training.records import RecordRows

SHARES = {"geolife": 0.45, "cabs": 0.25, "simulated": 0.15, "checkins": 0.15}
SIMULATED_CITIES = 6


def record_sets(names: list[str], seed: int) -> tuple[list[RecordSet], list[float]]:
    """The sets of these names, and the share of each among the batches."""
    sets, shares = [], []
    for name in names:
        if name == "simulated":
            found = [simulated_set(seed + number) for number in range(SIMULATED_CITIES)]
        else:
            found = checkin_sets() if name == "checkins" else [gps_set(name)]
        size = [len(one.train.slots) ** 0.5 for one in found]
        sets += found
        shares += [SHARES[name] * part / sum(size) for part in size]
    return sets, shares


def train(sets: list[RecordSet], shares: list[float], config: RawConfig, options: argparse.Namespace) -> Any:
    set_seed(options.seed)
    rows = RecordRows(
        [one.train for one in sets],
        rows=options.steps * options.batch_size,
        records=config.context_records,
        shares=shares,
        seed=options.seed,
    )
    arguments = training_arguments(
        options.output,
        preset="raw",
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        bf16=False,
        save_strategy="no",
    )
    model = RawExtendedForTrajectoryPrediction(config)
    return fit(model, arguments, rows, eager=False)


def clock_of_its_own(config: RawConfig) -> RawTokenizer:
    """The tokenizer of a simulated city, so that the folder loads in one line and holds no real place."""
    city = simulate_city(20, num_days=7, num_locations=60, seed=0)
    options = {"timezone": city.timezone, "name": "Simville", "model_max_length": config.max_position_embeddings}
    return RawTokenizer.from_points(city.visits, **options)


def judge(model: Any, one: RecordSet, *, most: int, start_hours: list[int]) -> None:
    """Print the errors on the validation users of a set."""
    assert one.data is not None
    asked = {"steps": STEPS, "start_hours": start_hours, "most": most}
    train = ~one.data.held_out & ~one.data.validation
    known, tasks = (record_tasks(one.data, part, **asked) for part in (train, one.data.validation))
    table = compare([*rivals(known), DirectHorizons(model)], tasks, slots=END_POINTS, rival="CopyLast")
    print(f"\n{one.name}, validation users")
    print(table[[*SHOWN[1:], "difference_km", "difference_low", "difference_high"]].round(2).to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True)
    parser.add_argument("--cities", nargs="+", default=list(SHARES), choices=list(SHARES))
    parser.add_argument("--size", default="small")
    add_training(parser, steps=1_000, batch_size=64, learning_rate=2e-3)
    parser.add_argument("--most", type=int, default=1_200, help="predictions of a set that are evaluated at most")
    parser.add_argument("--start-hours", type=int, nargs="+", default=list(range(0, 24, 2)))
    options = parser.parse_args()

    config = RawConfig.from_preset(options.size, variant="extended", **config_values(options.set, RawConfig))
    sets, shares = record_sets(options.cities, options.seed)
    for one, share in zip(sets, shares):
        print(f"{one.name}: {len(one.train.users):,} users, {len(one.train.slots):,} records, share {share:.3f}")
    start = time.process_time()
    model, history = train(sets, shares, config, options)
    print(
        f"{model.num_parameters():,} parameters, {options.steps} steps in {time.process_time() - start:.0f} s of processor"
    )
    print(history.iloc[:: max(1, len(history) // 10)].to_string(index=False))
    model.save_pretrained(options.output)
    clock_of_its_own(config).save_pretrained(options.output)
    for one in sets:
        if one.data is not None:
            judge(model, one, most=options.most, start_hours=options.start_hours)


if __name__ == "__main__":
    main()
