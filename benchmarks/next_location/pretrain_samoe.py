"""Pre-train SAMoE over many cities: one model, one tokenizer per city.

    HF_MOBILITY_DATA=... python -m benchmarks.next_location.pretrain_samoe --output runs/samoe-small            # open check-ins, 12 source cities
    python -m benchmarks.next_location.pretrain_samoe --simulate 4 --size tiny --epochs 1 --output runs/tiny   # simulated cities, a minute
    torchrun --nproc_per_node 2 -m benchmarks.next_location.pretrain_samoe --simulate 2 ...                    # several processes; see examples/accelerate/

The four target cities of the results are never among the sources, nor is a user who also occurs in one of them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import torch
from transformers import set_seed

from benchmarks.options import config_values
from hf_mobility import (
    City,
    CityCorpus,
    MobilityTrainer,
    SamoeConfig,
    SamoeForNextLocation,
    SamoeTokenizer,
    simulate_cities,
    simulate_city,
    training_arguments,
)
from hf_mobility.data.sequences import day_windows


def _open_cities(without: list[str]) -> list[tuple[pd.DataFrame, City]]:
    from benchmarks.open_data import source_pairs

    return source_pairs(without)


def simulated_cities(number: int, num_users: int, seed: int) -> list[tuple[pd.DataFrame, City]]:
    cities = simulate_cities(number, num_users=num_users, seed=seed)
    return [(c.visits, City.from_visits(c.visits, timezone=c.timezone, name=c.name, pois=c.pois)) for c in cities]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True)
    parser.add_argument("--size", default="small")
    parser.add_argument("--variant", default="extended")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="single config values, e.g. mixture=false"
    )
    parser.add_argument(
        "--simulate", type=int, default=0, metavar="CITIES", help="simulated cities instead of the open check-ins"
    )
    parser.add_argument("--users", type=int, default=300, help="people of each simulated city")
    parser.add_argument(
        "--without", nargs="*", default=[], metavar="CITY", help="leave these source cities out (for cross-validation)"
    )
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--tokens-per-batch", type=int, default=1024)
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--no-augment", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--save-steps", type=int, default=0)
    options = parser.parse_args()
    values = config_values(options.set, SamoeConfig)

    set_seed(options.seed)
    pairs = (
        simulated_cities(options.simulate, options.users, options.seed)
        if options.simulate
        else _open_cities(options.without)
    )
    config = SamoeConfig.from_preset(options.size, variant=options.variant, **values)
    tokenizers = [SamoeTokenizer.from_city(city, config) for _, city in pairs]
    corpus = CityCorpus.from_visits([(visits, tok) for (visits, _), tok in zip(pairs, tokenizers)])
    model = SamoeForNextLocation(config)
    if not torch.cuda.is_available():
        model.set_attn_implementation("eager")  # faster to train on CPUs, see benchmarks/
    print(f"{len(pairs)} cities, {len(corpus)} targets, {sum(p.numel() for p in model.parameters()):,} parameters")

    short_windows = options.variant != "extended"
    trainer = MobilityTrainer(
        model,
        training_arguments(
            options.output,
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            seed=options.seed,
            save_strategy="steps" if options.save_steps else "no",
            save_steps=options.save_steps or 500,
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=corpus,
        tokens_per_batch=options.tokens_per_batch,
        window=min(options.window, (config.max_position_embeddings or options.window + 1) - 1),
        window_rule=(lambda sequences, rng: day_windows(sequences)) if short_windows else None,
        augment=not options.no_augment,
        max_candidates=1500,
    )
    start = time.time()
    trainer.train(resume_from_checkpoint=options.resume or None)
    if trainer.is_world_process_zero():
        print(f"trained in {time.time() - start:.0f} s")
        model.config.use_cache = True  # the Trainer turned it off
        model.save_pretrained(options.output)
        # A checkpoint is loadable in one line only with a city beside it. The open check-ins carry no licence, so a
        # simulated one is saved.
        made = simulate_city(200, num_days=56, observe=0.3, seed=3)
        city = City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois)
        SamoeTokenizer.from_city(city, config).save_pretrained(options.output)
        Path(options.output, "sources.txt").write_text(
            "\n".join(city.name for _, city in pairs) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
