"""Train M-STAR's weeks of slots on simulated cities: codec, generator and place head.

    python -m benchmarks.generation.train_slots --output checkpoints/mstar-small

Cities differ in shape, size, places, laws of distance, shift work and habits (`simulate_cities(varied=True)`); none of
them is one of `evaluate_slots`.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.next_location.other_kind import simulated_pairs
from hf_mobility import simulate_cities, train

SEED = 11  # of the cities


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, help="folder of the model")
    parser.add_argument("--cities", type=int, default=80)
    parser.add_argument("--users", type=int, default=130, help="of a typical city")
    parser.add_argument("--days", type=int, default=35)
    parser.add_argument("--steps", type=int, default=12_000, help="of the generator")
    parser.add_argument("--batch-size", type=int, default=32, help="weeks")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--size", default="small")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    options = parser.parse_args()
    made = simulate_cities(options.cities, num_users=options.users, num_days=options.days, seed=SEED, varied=True)
    start = time.process_time()
    trained = train(
        "mstar",
        simulated_pairs(made),
        vocabulary="slots",
        size=options.size,
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        progress=True,
    )
    print(f"{time.process_time() - start:.0f} s of one processor")
    trained.save_pretrained(options.output)


if __name__ == "__main__":
    main()
