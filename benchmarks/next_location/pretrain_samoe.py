"""Pre-train SAMoE over many cities: one model, one tokenizer per city.

    HF_MOBILITY_DATA=... python -m benchmarks.next_location.pretrain_samoe --output runs/check-ins              # open check-ins, 12 source cities
    python -m benchmarks.next_location.pretrain_samoe --simulate 4 --size tiny --epochs 1 --output runs/tiny   # simulated cities, a minute
    torchrun --nproc_per_node 2 -m benchmarks.next_location.pretrain_samoe --simulate 2 ...                    # several processes; see examples/accelerate/
    HF_MOBILITY_DATA=... python -m benchmarks.next_location.pretrain_samoe --start runs/check-ins --mixed --windows-per-user 1 --epochs 4 --learning-rate 6e-4 --output runs/samoe-small   # the second step of checkpoints/samoe-small

The four target cities of the results are never among the sources, nor is a user who also occurs in one of them. `--mixed`
adds six simulated cities of different laws, half of them observed in part, and 120 cabs that no evaluation uses.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import set_seed

from benchmarks.next_location.other_kind import simulated_pairs, source_cabs
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
from hf_mobility.data.sequences import CitySequences, WindowRule, day_windows


def _open_cities(without: list[str]) -> list[tuple[pd.DataFrame, City]]:
    from benchmarks.open_data import source_pairs

    return source_pairs(without)


def mixed_cities(seed: int) -> list[tuple[pd.DataFrame, City]]:
    """Other kinds of data than check-ins: cities known in full and at 30 %, and cabs on a grid."""
    pairs = []
    for number, observe in enumerate((1.0, 0.3)):
        cities = simulate_cities(3, num_users=300, num_days=42, seed=seed + 40 + number, observe=observe, varied=True)
        pairs += simulated_pairs(cities, f", {observe:.0%} of the visits")
    cabs, _, grid = source_cabs()
    return [*pairs, (cabs, grid.with_popularity(cabs))]


def few_windows(number: int, length: int) -> WindowRule:
    """At most `number` windows of a user in an epoch, so that users with long histories do not outweigh the others."""

    def cut(sequences: CitySequences, rng: np.random.Generator) -> np.ndarray:
        windows = sequences.windows(length, rng)
        order = rng.permutation(len(windows))
        user = np.searchsorted(sequences.offsets, windows[order, 0], side="right")
        rank = pd.Series(user).groupby(user).cumcount().to_numpy()
        return windows[np.sort(order[rank < number])]

    return cut


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
    parser.add_argument("--start", metavar="FOLDER", help="weights to go on from")
    parser.add_argument("--mixed", action="store_true", help="simulated cities and cabs besides the open check-ins")
    parser.add_argument("--windows-per-user", type=int, default=0, help="in an epoch; 0 = all")
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
        simulated_pairs(simulate_cities(options.simulate, num_users=options.users, seed=options.seed))
        if options.simulate
        else _open_cities(options.without)
    )
    if options.mixed:
        pairs += mixed_cities(options.seed)
    if options.start:
        model = SamoeForNextLocation.from_pretrained(options.start)
    else:
        model = SamoeForNextLocation(SamoeConfig.from_preset(options.size, variant=options.variant, **values))
    config = model.config
    tokenizers = [SamoeTokenizer.from_city(city, config) for _, city in pairs]
    corpus = CityCorpus.from_visits([(visits, tok) for (visits, _), tok in zip(pairs, tokenizers)])
    if not torch.cuda.is_available():
        model.set_attn_implementation("eager")  # faster to train on CPUs, see benchmarks/
    print(f"{len(pairs)} cities, {len(corpus)} targets, {sum(p.numel() for p in model.parameters()):,} parameters")

    window = min(options.window, (config.max_position_embeddings or options.window + 1) - 1)
    rule: WindowRule | None = None
    if options.windows_per_user:
        rule = few_windows(options.windows_per_user, window)
    elif options.variant != "extended":
        rule = lambda sequences, rng: day_windows(sequences)  # noqa: E731
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
        window=window,
        window_rule=rule,
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
