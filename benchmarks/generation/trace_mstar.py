"""Fidelity by level: every level drawn from some level on, the coarser ones taken from real weeks.

    HF_MOBILITY_DATA=... python -m benchmarks.generation.trace_mstar runs/mstar-days --weeks geolife_days --output levels.csv

One row per level: the norms of the codec's features and residuals, what the generator knows of the level's codes given
the true coarser ones, and the weeks that come out where this level and all finer ones are drawn, for the same
conditions. If a level comes out well only when the coarser ones are true, the divergences grow in the rows that start
above it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.generation.train_mstar import CONDITIONS, compare
from benchmarks.generation.weeks import NAMES, WeekSet, check_trained_on, load_weeks
from benchmarks.tables import save_table
from hf_mobility import MstarForTrajectoryGeneration
from hf_mobility.evaluation.fidelity import hide_hours


def stay_shares(cells: np.ndarray) -> dict[str, float]:
    """Of all stays, those that last one slot and those that last two; -1 is no stay."""
    ends = np.concatenate([cells[:, 1:] != cells[:, :-1], np.ones((len(cells), 1), dtype=bool)], axis=1).ravel()
    place = np.flatnonzero(ends)  # a week's last slot ends its last stay
    lengths = np.diff(place, prepend=-1)[cells.ravel()[place] >= 0]
    return {"stays of one slot": float((lengths == 1).mean()), "stays of two slots": float((lengths == 2).mean())}


@torch.no_grad()
def drawn_from(
    model: MstarForTrajectoryGeneration, codes: torch.Tensor, given: dict[str, torch.Tensor], first: int
) -> torch.Tensor:
    """Codes (N, T) whose levels from `first` on are drawn, pass by pass, without any change of probabilities."""
    codes = codes.clone()
    for part in model.order.steps:
        if part.level >= first:
            drawn = model.order.positions[part.start : part.end]
            codes[:, drawn] = torch.distributions.Categorical(logits=model(codes, **given).logits[:, drawn]).sample()
    return codes


@torch.no_grad()
def level_rows(model: MstarForTrajectoryGeneration, weeks: WeekSet, rows: np.ndarray) -> Iterator[dict[str, Any]]:
    """The real weeks and the codec's round trip first, then from the finest level to the coarsest."""
    encoded = weeks.tokenizer(weeks.cells[rows], return_tensors="pt")
    given = {name: encoded[name] for name in (*CONDITIONS, "attention_mask")}
    features = model.codec.level_features(encoded["input_ids"], encoded["attention_mask"])
    codes = model.codec.encode(encoded["input_ids"], encoded["attention_mask"])
    lengths = model.config.codec.level_lengths
    known = model.codec.teacher_inputs(codes)[0].split(lengths, dim=1)
    output = model(codes, **given)
    right = (output.logits.argmax(-1) == codes).float().split(lengths, dim=1)

    def decoded(made: torch.Tensor) -> np.ndarray:
        return model.codec.decode(made).argmax(-1).numpy()

    def outcome(cells: np.ndarray) -> dict[str, float]:
        found = compare(weeks, rows, cells)
        shown = {name: found[name] for name in ("moves_per_day", "duration", "periodicity", "mean6")}
        return {**shown, **stay_shares(hide_hours(cells, weeks.cells[rows]))}

    yield {"drawn from level": "none, real weeks", **outcome(weeks.cells[rows])}
    yield {"drawn from level": "none, round trip", **outcome(decoded(codes))}
    for level in reversed(range(len(lengths))):
        residual = features[level] - known[level]
        yield {
            "drawn from level": level + 1,
            "codes": lengths[level],
            "length of features": float(features[level].norm(dim=-1).mean()),
            "length of residual": float(residual.norm(dim=-1).mean()),
            "loss": float(output.level_losses[level]),
            "accuracy": float(right[level].mean()),
            **outcome(decoded(drawn_from(model, codes, given, level))),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder of benchmarks/generation/train_mstar.py")
    parser.add_argument("--weeks", default="simulated", choices=NAMES)
    parser.add_argument("--users", type=int, default=3_000)
    parser.add_argument("--part", default="train", choices=["train", "validation"], help="whose weeks")
    parser.add_argument("--number", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output")
    options = parser.parse_args()

    weeks = load_weeks(options.weeks, seed=options.seed, users=options.users)
    check_trained_on(weeks, options.checkpoint)
    rows = np.random.default_rng(options.seed).permutation(getattr(weeks, options.part))[: options.number]
    model = MstarForTrajectoryGeneration.from_pretrained(options.checkpoint).eval()
    torch.manual_seed(options.seed)
    table = pd.DataFrame(level_rows(model, weeks, rows)).assign(part=options.part)
    print(table.round(3).to_string(index=False))
    if options.output:
        save_table(table, options.output)


if __name__ == "__main__":
    main()
