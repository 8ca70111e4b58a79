"""Train M-STAR's weeks of slots on simulated cities: codec, generator and place head.

    python -m benchmarks.generation.train_slots --output runs/slots
    python -m benchmarks.generation.train_slots --start runs/slots --steps 2500 --learning-rate 3e-4 --seed 1 --output checkpoints/mstar-small

Cities differ in shape, size, places, laws of distance, shift work and habits (`simulate_cities(varied=True)`); none of
them is one of `evaluate_slots`. The first training ends at a tenth of its learning rate. The second one goes on with
the generator alone, down to zero.
"""

from __future__ import annotations

import argparse
import time
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.next_location.other_kind import simulated_pairs
from hf_mobility import TrajectoryGenerationPipeline, simulate_cities, train, training_arguments
from hf_mobility.training.slots import encoded_slots, fit_generator, read_weeks_of, rows_of

SEED = 11  # of the cities


def go_on(folder: str, pairs: list[Any], *, steps: int, batch_size: int, learning_rate: float, seed: int) -> Any:
    """The pipeline of a folder, whose generator is trained further; codec, place head and traits stay as they are."""
    pipe = TrajectoryGenerationPipeline.from_pretrained(folder)
    model, tokenizer = pipe.model, pipe.tokenizer
    read = [read_weeks_of(visits, city) for visits, city in pairs]
    slots, traits = (np.concatenate([getattr(part, name) for part in read]) for name in ("slots", "traits"))
    rows = rows_of(model, tokenizer, encoded_slots(tokenizer, slots), traits)
    with TemporaryDirectory() as scratch:
        arguments = training_arguments(
            scratch,
            preset="mstar",
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            lr_scheduler_kwargs={"min_lr_rate": 0.0},
            seed=seed,
            save_strategy="no",
        )
        fit_generator(model, arguments, rows)
    return pipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, help="folder of the model")
    parser.add_argument("--cities", type=int, default=80)
    parser.add_argument("--users", type=int, default=130, help="of a typical city")
    parser.add_argument("--days", type=int, default=35)
    parser.add_argument("--steps", type=int, default=12_000, help="of the generator")
    parser.add_argument("--batch-size", type=int, default=32, help="weeks")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--size", default="small", help="of a new model")
    parser.add_argument("--start", help="folder of a model to go on with, in place of a new one")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    options = parser.parse_args()
    made = simulate_cities(options.cities, num_users=options.users, num_days=options.days, seed=SEED, varied=True)
    pairs, start = simulated_pairs(made), time.process_time()
    asked = {name: getattr(options, name) for name in ("steps", "batch_size", "learning_rate", "seed")}
    if options.start:
        trained = go_on(options.start, pairs, **asked)
    else:
        trained = train("mstar", pairs, vocabulary="slots", size=options.size, progress=True, **asked)
    print(f"{time.process_time() - start:.0f} s of one processor")
    trained.save_pretrained(options.output)


if __name__ == "__main__":
    main()
