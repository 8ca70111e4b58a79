"""Weeks of M-STAR and of its rivals for the tables of generated weeks, all with conditions of the training users."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.generation.evaluate_mstar import drawn, fitted_baselines
from benchmarks.generation.weeks import WeekSet, check_trained_on, load_weeks
from hf_mobility import TrajectoryGenerationPipeline

RIVALS = ("ResampledWeeks", "HourlyMarkov by home", "ExplorationReturn")


@dataclass(frozen=True)
class Made:
    """The weeks compared.

    Fields:
        weeks: all weeks and their parts. rows: (N,) of the test weeks that generators are compared with.
        sets: name -> draws, (N, L) each.
    """

    weeks: WeekSet
    rows: np.ndarray
    sets: dict[str, list[np.ndarray]]

    @property
    def real(self) -> np.ndarray:
        return self.weeks.cells[self.rows]

    @property
    def train(self) -> np.ndarray:
        return self.weeks.cells[self.weeks.train]


def arguments(doc: str | None, *, number: int, draws: int = 0) -> argparse.ArgumentParser:
    """The options that the scripts share, with `draws` also those of `make`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a folder of benchmarks/generation/train_mstar.py")
    parser.add_argument("--users", type=int, default=3_000)
    parser.add_argument("--number", type=int, default=number, help="test weeks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output")
    if draws:
        parser.add_argument("--draws", type=int, default=draws, help="of each generator")
        parser.add_argument("--keep", default="runs/made", help="folder of the checkpoint's weeks, for the next script")
    return parser


def opened(options: argparse.Namespace) -> tuple[WeekSet, TrajectoryGenerationPipeline, str]:
    """The simulated weeks, the checkpoint that was trained on their training part, and its name."""
    weeks = load_weeks("simulated", seed=options.seed, users=options.users)
    check_trained_on(weeks, options.checkpoint)
    pipe = TrajectoryGenerationPipeline.from_pretrained(options.checkpoint)
    return weeks, pipe, f"M-STAR {Path(options.checkpoint).name}"


def make(options: argparse.Namespace, *, one_per_user: bool = False) -> Made:
    """Draws of each generator, as many weeks as test weeks; with `one_per_user`, a test user has one week."""
    weeks, pipe, name = opened(options)
    rows = np.random.default_rng(options.seed).permutation(weeks.test)
    if one_per_user:
        rows = rows[np.sort(np.unique(weeks.users(rows), return_index=True)[1])]
    rows = rows[: options.number]
    rivals = fitted_baselines(weeks, seed=options.seed)
    conditions = [drawn(weeks, len(rows), draw) for draw in range(options.draws)]
    sets = {
        rival: [rivals[rival].generate(given, seed=draw) for draw, given in enumerate(conditions)] for rival in RIVALS
    }
    sets[name] = [_kept(Path(options.keep), pipe, name, len(rows), draw) for draw in range(options.draws)]
    return Made(weeks, rows, sets)


def real_samples(made: Made, draws: int) -> list[np.ndarray]:
    """As many training users as test weeks, one week each."""
    out = []
    for draw in range(draws):
        rows = np.random.default_rng(draw).permutation(made.weeks.train)
        rows = rows[np.sort(np.unique(made.weeks.users(rows), return_index=True)[1])]
        out.append(made.weeks.cells[rows[: len(made.rows)]])
    return out


def _kept(folder: Path, pipe: TrajectoryGenerationPipeline, name: str, number: int, seed: int) -> np.ndarray:
    """The weeks of a draw, read from the folder where another script left them; they take half a minute a thousand."""
    path = folder / f"{name.replace(' ', '-')}-{number}-{seed}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(path, pipe.generate(number, seed=seed, to="weeks"))
    return np.asarray(np.load(path, allow_pickle=False))
