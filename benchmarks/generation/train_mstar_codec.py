"""Stage 1 of M-STAR: train the codec that turns weeks into codes on several time scales, and evaluate its round trip.

    python -m benchmarks.generation.train_mstar_codec --output runs/codec                                  # simulated weeks
    HF_MOBILITY_DATA=... python -m benchmarks.generation.train_mstar_codec --weeks geolife_days --output runs/codec-days
    torchrun --nproc_per_node 2 -m benchmarks.generation.train_mstar_codec ...    # several processes, --batch-size is of each

50 % of the users train, 20 % validate, 30 % test, in both stages.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from transformers import set_seed

from benchmarks.generation.weeks import NAMES, WeekSet, load_weeks, shifted
from benchmarks.options import add_training, config_values, training_of
from benchmarks.tables import save_table
from hf_mobility import ArrayRows, MstarCodecConfig, MstarCodecModel, training_arguments
from hf_mobility.training.fit import fit


def codec_config(weeks: WeekSet, size: str, variant: str, **values: object) -> MstarCodecConfig:
    """A preset with the shape of these weeks."""
    cell_map = weeks.tokenizer.cell_map
    shape = {
        "num_cells": len(cell_map),
        "cells_per_resolution": (cell_map.max(axis=0) + 1).tolist(),
        "level_lengths": weeks.level_lengths,
    }
    if variant != "released":  # whose assignment of levels to grids is its own
        shape["level_resolutions"] = None
    return MstarCodecConfig.from_preset(size, variant=variant, **{**shape, **values})


def train(
    weeks: WeekSet,
    config: MstarCodecConfig,
    *,
    copies: int = 0,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    folder: str,
) -> MstarCodecModel:
    set_seed(seed)
    model = MstarCodecModel(config)
    cells = shifted(weeks, copies=copies, seed=seed)
    encoded = weeks.tokenizer(cells, conditions=False, return_tensors="pt")
    arguments = training_arguments(
        folder,
        preset="mstar_codec",
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        save_strategy="no",
        disable_tqdm=False,
        seed=seed,
    )
    rows = ArrayRows({name: encoded[name] for name in ("input_ids", "attention_mask")})
    return fit(model, arguments, rows)[0]


@torch.no_grad()
def round_trip(model: MstarCodecModel, weeks: WeekSet, rows: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
    """(cells after encoding and decoding (n, L), codes)."""
    cells, codes = [], []
    for part in np.array_split(rows, max(1, len(rows) // 256)):
        encoded = weeks.tokenizer(weeks.cells[part], conditions=False, return_tensors="pt").to(model.device)
        codes.append(model.encode(encoded["input_ids"], encoded["attention_mask"]))
        cells.append(model.decode(codes[-1]).argmax(-1).cpu().numpy())
    return np.concatenate(cells), torch.cat(codes)


def judge(model: MstarCodecModel, weeks: WeekSet, rows: np.ndarray) -> dict[str, object]:
    """Round trip of held-out weeks, over known hours; moves are counted between two known hours."""
    real = weeks.cells[rows]
    made, codes = round_trip(model, weeks, rows)
    known = real >= 0
    right = (made == real)[known].mean()
    pair = known[:, 1:] & known[:, :-1]
    moved = (real[:, 1:] != real[:, :-1]) & pair
    days = pair.sum() / weeks.slots_per_day
    moves, made_moves = moved.sum() / days, ((made[:, 1:] != made[:, :-1]) & pair).sum() / days
    near = np.zeros_like(known)
    near[:, 1:] |= moved
    near[:, :-1] |= moved
    usage = model.code_usage(codes)
    return {
        "weeks": len(rows),
        "accuracy": right,
        "accuracy near moves": (made == real)[near].mean(),
        "whole week exact": ((made == real) | ~known).all(1).mean(),
        "moves per day": moves,
        "moves per day, round trip": made_moves,
        "codes in use, finest level": float(usage[-1]),
        "codes in use, mean level": float(usage.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True)
    parser.add_argument("--weeks", default="simulated", choices=NAMES)
    parser.add_argument("--users", type=int, default=3_000, help="people of the simulated city")
    parser.add_argument("--size", default="small")
    parser.add_argument("--variant", default="corrected")
    add_training(parser, steps=1_500, batch_size=64, learning_rate=1.5e-3)
    parser.add_argument("--shifted-copies", type=int, default=0, help="of each training week, moved over the grid")
    parser.add_argument("--report", help="CSV for the round trip of the test weeks")
    options = parser.parse_args()
    values = config_values(options.set, MstarCodecConfig)

    weeks = load_weeks(options.weeks, seed=options.seed, users=options.users)
    config = codec_config(weeks, options.size, options.variant, **values)
    start = time.perf_counter()
    asked = {"copies": options.shifted_copies, "seed": options.seed, "folder": options.output, **training_of(options)}
    model = train(weeks, config, **asked)
    seconds = time.perf_counter() - start
    if not PartialState().is_main_process:
        return
    model.save_pretrained(options.output)
    weeks.tokenizer.save_pretrained(options.output, min_users=1)  # all of it; a push lists what several share
    table = pd.DataFrame(
        [
            {"data": options.weeks, "part": part, **judge(model, weeks, getattr(weeks, part))}
            for part in ("validation", "test")
        ]
    ).assign(parameters=model.num_parameters(), seconds=round(seconds))
    print(table.round(4).T.to_string())
    if options.report:
        save_table(table, options.report)


if __name__ == "__main__":
    main()
