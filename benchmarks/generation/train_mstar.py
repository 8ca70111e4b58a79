"""Stage 2 of M-STAR: train the next-scale transformer over a codec's codes, and choose how to draw from it.

    python -m benchmarks.generation.train_mstar --codec runs/codec --output runs/mstar
    python -m benchmarks.generation.train_mstar --codec runs/codec --settings paper --output runs/paper
    python -m benchmarks.generation.train_mstar --start runs/mstar --output runs/tuned    # continue with a trained generator
    python -m benchmarks.generation.train_mstar --start runs/mstar --steps 0 --output runs/drawn    # choose its settings again
    torchrun --nproc_per_node 2 -m benchmarks.generation.train_mstar ...    # several processes, --batch-size is of each

Few weeks are soon overfitted. `--shifted-copies` adds weeks that are moved over the grid as a whole (translation
augmentation): they keep when people stay, go and return. `--start` then continues on the weeks as they are.

The codes are computed once. The settings of drawing are chosen on the validation users, by the mean of the six
divergences with drawn conditions, over several draws: where weeks are few, one draw is off by more than settings
differ. `benchmarks/generation/evaluate_mstar.py` then evaluates on the test users.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from transformers import set_seed

from benchmarks.generation.weeks import NAMES, WeekSet, check_trained_on, load_weeks, shifted
from benchmarks.options import add_training, config_values, training_of
from benchmarks.tables import save_table
from hf_mobility import (
    ArrayRows,
    MstarCodecModel,
    MstarConfig,
    MstarForTrajectoryGeneration,
    MstarTokenizer,
    training_arguments,
)
from hf_mobility.evaluation.fidelity import fidelity, hide_hours
from hf_mobility.training.fit import fit

CONDITIONS = ("home_ids", "work_ids", "attribute_ids")
HOT, WARM, FLAT, COOL = 1.1, 1.05, 1.0, 0.95  # temperatures
FALLING = (1.0, 0.9)  # from the coarsest to the finest level
PAPER = {"temperature": "confidence", "top_k": 10, "smoothing_window": 3, "decoding": "argmax"}
EVERY = 10_000  # more codes than a codebook has
PLAIN = {"temperature": FLAT, "top_k": EVERY, "smoothing_window": 0, "decoding": "argmax", "emission_scale": 1.0}
START = PLAIN | {"decoding": "viterbi"}
# Changes that are tried one group after the other, each on top of the best so far.
SEARCH: list[list[dict[str, Any]]] = [
    [{"decoding": "argmax"}],
    [{"temperature": FALLING}, {"temperature": COOL}],
    [{"decoding": "viterbi", "emission_scale": 1.5}],
    [{"top_k": 100}],
    [{"smoothing_window": 3}],
    [PAPER],
    [{"temperature": HOT, "top_k": 30}, {"temperature": HOT, "top_k": 20}],
    [
        {"temperature": temperature, "top_k": k, "smoothing_window": 0, "decoding": "argmax"}
        for temperature, k in ((FLAT, 20), (FLAT, 50), (WARM, 20))
    ],
]
SETTINGS: dict[str, tuple[dict[str, Any], list[list[dict[str, Any]]]]] = {
    "paper": (PAPER, []),
    "paths": (START, []),
    "search": (START, SEARCH),
}


def coded(
    codec: MstarCodecModel, tokenizer: MstarTokenizer, cells: np.ndarray, *, noise: float = 0.0, copies: int = 1
) -> ArrayRows:
    """Codes and conditions of weeks (N, L); with `noise`, several copies with flipped codes and what would be right."""
    encoded = tokenizer(cells, return_tensors="pt")
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    columns = {name: encoded[name] for name in ("attention_mask", *CONDITIONS)}
    if not noise:
        return ArrayRows({"code_ids": codec.encode(ids, mask, batch_size=256), **columns})
    generator = torch.Generator().manual_seed(0)
    found = []
    for copy in range(copies):
        for part in zip(ids.split(256), mask.split(256)):
            given = (values.to(codec.device) for values in part)
            found.append(codec.encode_noisy(*given, flip=noise * copy / copies, generator=generator))
    code_ids, labels = (torch.cat(parts).cpu() for parts in zip(*found))
    columns = {name: torch.cat([values] * copies) for name, values in columns.items()}
    return ArrayRows({"code_ids": code_ids, "labels": labels, **columns})


def new_generator(
    codec: MstarCodecModel, weeks: WeekSet, *, size: str, variant: str, values: dict[str, Any], seed: int
) -> MstarForTrajectoryGeneration:
    """An untrained generator that knows the grid and how often people of the training weeks stay."""
    set_seed(seed)
    values = {"num_attributes": weeks.tokenizer.num_attributes, **values}
    model = MstarForTrajectoryGeneration.from_codec(codec, size, variant=variant, **values)
    model.fit_places(weeks.tokenizer.cell_map)
    model.fit_transition(torch.from_numpy(weeks.cells[weeks.train]))
    return model


def train(
    model: MstarForTrajectoryGeneration,
    weeks: WeekSet,
    *,
    copies: int = 0,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    folder: str,
) -> MstarForTrajectoryGeneration:
    """Train on the training weeks and as many `shifted` copies of each; the state of least validation loss."""
    arguments = training_arguments(
        folder,
        preset="mstar",
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        eval_strategy="steps",
        eval_steps=max(1, steps // 8),
        save_strategy="steps",
        save_steps=max(1, steps // 8),
        save_total_limit=1,
        load_best_model_at_end=True,  # few weeks are soon overfitted
        disable_tqdm=False,
        seed=seed,
    )
    model.to(arguments.device)  # where the codec is quick
    cells = shifted(weeks, copies=copies, seed=seed)
    if model.config.scheduled_sampling:  # the weeks themselves: their codes change from step to step
        rows = ArrayRows(dict(weeks.tokenizer(cells, return_tensors="pt")))
    else:
        rows = coded(model.codec, weeks.tokenizer, cells, noise=model.config.code_noise, copies=8)
    judged = coded(model.codec, weeks.tokenizer, weeks.cells[judged_weeks(weeks, 500)])
    model, history = fit(model, arguments, rows, eval_dataset=judged)
    if arguments.process_index == 0:
        for step, loss in history.dropna(subset="eval_loss")[["step", "eval_loss"]].itertuples(index=False):
            print(f"step {step}: validation loss {loss:.4f}")
    return model


def draw(model: MstarForTrajectoryGeneration, weeks: WeekSet, number: int, *, seed: int, **settings: Any) -> np.ndarray:
    """Weeks for drawn conditions, (number, L)."""
    conditions = weeks.tokenizer.sample_conditions(number, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.autocast(model.device.type, torch.bfloat16):
        return model.generate(**conditions, generator=generator, batch_size=128, **settings).cpu().numpy()


def choose(
    model: MstarForTrajectoryGeneration,
    weeks: WeekSet,
    start: dict[str, Any],
    search: list[list[dict[str, Any]]],
    *,
    number: int = 500,
    draws: int = 1,
) -> pd.DataFrame:
    """Try settings on validation weeks; the best by mean6, over so many draws, is written to the model's
    configuration."""
    rows = judged_weeks(weeks, number)
    found: list[dict[str, Any]] = []

    def best() -> dict[str, Any]:
        return min(found, key=lambda row: np.nan_to_num(row["mean6"], nan=np.inf))["settings"] if found else start

    for group in [[{}], *search]:
        base = best()
        for change in group:
            settings = base | change
            if settings in [row["settings"] for row in found]:
                continue
            found.append(
                {"settings": settings, **score(model, weeks, rows, draws=draws, **_spelled_out(settings, model))}
            )
            shown = {name: round(found[-1][name], 4) for name in ("mean6", "moves_per_day", "cpc")}
            print(settings, shown, flush=True)
    for name, value in _spelled_out(best(), model).items():
        setattr(model.config, name, None if value == "confidence" else value)
    return pd.DataFrame(found)


def judged_weeks(weeks: WeekSet, number: int) -> np.ndarray:
    """Rows of the validation weeks that choices are made on, always the same ones."""
    return np.random.default_rng(0).permutation(weeks.validation)[:number]


def score(
    model: MstarForTrajectoryGeneration, weeks: WeekSet, rows: np.ndarray, *, draws: int = 1, **settings: Any
) -> dict[str, float]:
    """Fidelity of as many drawn weeks as there are rows, see `over_draws`."""
    made = (draw(model, weeks, len(rows), seed=seed, **settings) for seed in range(1, draws + 1))
    return over_draws(compare(weeks, rows, cells) for cells in made)


def over_draws(found: Iterable[dict[str, float]]) -> dict[str, float]:
    """Means of several draws, their number and the spread of mean6; NaN where one draw has NaN."""
    table = pd.DataFrame(found)
    return {"draws": len(table), **table.mean(skipna=False).to_dict(), "mean6_sd": float(table["mean6"].std())}


def compare(weeks: WeekSet, rows: np.ndarray, made: np.ndarray) -> dict[str, float]:
    """Fidelity of weeks to these rows; hours that the real ones do not know are hidden."""
    real, grid = weeks.cells[rows], weeks.tokenizer
    return fidelity(real, hide_hours(made, real), lat=grid.lat, lon=grid.lon, slots_per_day=weeks.slots_per_day)


def _spelled_out(settings: dict[str, Any], model: MstarForTrajectoryGeneration) -> dict[str, Any]:
    """A falling temperature as one value per level."""
    temperature = settings["temperature"]
    if isinstance(temperature, tuple):
        levels = len(model.config.codec_config.level_lengths)
        temperature = np.linspace(*temperature, levels).round(3).tolist()
    return {**settings, "temperature": temperature}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    begin = parser.add_mutually_exclusive_group(required=True)
    begin.add_argument("--codec", help="folder of stage 1, for a new generator")
    begin.add_argument("--start", help="folder of a generator to go on with; --set changes its configuration")
    parser.add_argument("--output", required=True)
    parser.add_argument("--weeks", default="simulated", choices=NAMES)
    parser.add_argument("--users", type=int, default=3_000, help="people of the simulated city, as in stage 1")
    parser.add_argument("--size", help="of a new generator; small by default")
    parser.add_argument("--variant", help="of a new generator; corrected by default")
    add_training(parser, steps=2_000, batch_size=64, learning_rate=2e-3)
    parser.add_argument("--settings", default="search", choices=list(SETTINGS), help="of drawing: fixed or searched")
    parser.add_argument("--shifted-copies", type=int, default=0, help="of each training week, moved over the grid")
    parser.add_argument("--judged", type=int, default=500, help="validation weeks that the settings are judged on")
    parser.add_argument("--draws", type=int, default=3, help="of each setting, each of as many weeks")
    parser.add_argument("--training-seed", type=int, help="of the training alone, where it differs")
    parser.add_argument("--report", help="CSV for what was tried on the validation weeks")
    options = parser.parse_args()
    if options.start and (options.size or options.variant):
        parser.error("--size and --variant are of a new generator, --start goes on with a trained one")
    if not options.steps and (options.codec or options.shifted_copies):
        parser.error("--steps 0 chooses the settings of a trained generator: give it by --start, without copies")
    values = config_values(options.set, MstarConfig)

    weeks = load_weeks(options.weeks, seed=options.seed, users=options.users)
    check_trained_on(weeks, options.start or options.codec)
    seed = options.seed if options.training_seed is None else options.training_seed
    if options.start:
        model = MstarForTrajectoryGeneration.from_pretrained(options.start, **values)
    else:
        form = {"size": options.size or "small", "variant": options.variant or "corrected"}
        codec = MstarCodecModel.from_pretrained(options.codec)
        model = new_generator(codec, weeks, **form, values=values, seed=seed)
    start = time.perf_counter()
    if options.steps:
        asked = {"copies": options.shifted_copies, "seed": seed, "folder": options.output, **training_of(options)}
        model = train(model, weeks, **asked)
    if not PartialState().is_main_process:
        return
    print(f"{model.num_parameters(only_trainable=True):,} parameters, {time.perf_counter() - start:.0f} s")
    weeks.tokenizer.save_pretrained(options.output, min_users=1)  # all of it; a push lists what several share
    model.save_pretrained(options.output)  # whatever becomes of the search
    table = choose(model, weeks, *SETTINGS[options.settings], number=options.judged, draws=options.draws)
    model.save_pretrained(options.output)
    if options.report:
        save_table(table, options.report)


if __name__ == "__main__":
    main()
