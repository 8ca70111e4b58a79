"""Adapters of weeks and of positions: tuned for a number of steps, which two halves of the users choose."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig

from .adaptation import NO_REPORT, compare, with_lora
from .fit import callers_random_state, fit, on_device
from .presets import training_arguments

RANK = 8
LEAST_USERS = 4  # for two halves
Choice = tuple[pd.DataFrame, str, str]  # report, strength and reason of an `Adaptation`


def tune_steps(
    base: Any,
    rows: Any,
    steps: int,
    *,
    frozen: Sequence[str],
    batch_size: int,
    seed: int,
    device: Any = None,
    **fields: Any,
) -> tuple[Any, pd.DataFrame]:
    """A PEFT model around a copy of `base` after so many steps, and its history; the identity adapter after none.

    Args:
        rows: what `fit` trains on.
        frozen: names of modules whose linear layers, and those inside them, get no adapter.
        device: by default where the model is.
        fields: of `training_arguments`.
    """
    with callers_random_state():
        torch.manual_seed(seed)
        layers = [name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)]
        targets = [name for name in layers if not set(frozen) & set(name.split("."))]
        adapted = with_lora(base, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets))
        if not steps:
            return adapted, pd.DataFrame()
        where = {"use_cpu": base.device.type == "cpu"} if device is None else on_device(device)
        with tempfile.TemporaryDirectory() as scratch:
            arguments = training_arguments(
                scratch,
                max_steps=steps,
                warmup_steps=min(5, steps // 10),
                per_device_train_batch_size=batch_size,
                seed=seed,
                save_strategy="no",
                logging_steps=10,
                logging_first_step=True,
                **where,
                **fields,
            )
            return fit(adapted, arguments, rows)


def without_check(strength: str, users: int) -> Choice | None:
    """The choice where a strength was asked for, or there are too few users to check any; else None."""
    if strength != "auto":
        return NO_REPORT.copy(), strength, f"strength {strength!r} was asked for."
    if users < LEAST_USERS:
        reason = f"{users} users are too few for a two-fold check (it needs {LEAST_USERS}), so 'weak' was used."
        return NO_REPORT.copy(), "weak", reason
    return None


def two_fold(
    halves: Sequence[Any],
    strengths: Mapping[str, int],
    tune: Callable[[Any, int], Any],
    score: Callable[[Any, Any], np.ndarray],
    *,
    better: str,
    unit: str,
    digits: int,
    tell: Callable[[str], None],
) -> Choice:
    """Each strength is tuned on one half of the users and scored on the other, both ways.

    Args:
        halves: two of what `tune` and `score` take.
        strengths: steps by name.
        tune: a half and steps -> the model.
        score: a model and a half -> (U, 2) summed nats of each user and their number.
        better, unit, digits: for the reason: what no strength did, what the nats are of, and how exactly.
    """
    scores: dict[str, list[np.ndarray]] = {name: [] for name in strengths}
    for number, (training, held_out) in enumerate(permutations(halves), 1):
        for name, steps in strengths.items():
            tell(f"trying strength {name!r} on half {number} of the users")
            scores[name].append(score(tune(training, steps).eval(), held_out))
    report = compare(scores)
    chosen = str(report["strength"][report["chosen"]].item())
    if chosen == "none":
        return report, chosen, f"no strength {better}, so the adapter is the identity."
    best = report.set_index("strength").loc[chosen]
    gain, error = (f"{best[name]:.{digits}f}" for name in ("gain", "gain_se"))
    return report, chosen, f"{chosen!r} gained {gain} nats a {unit} on held-out users (standard error {error})."
