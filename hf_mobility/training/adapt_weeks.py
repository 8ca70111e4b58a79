"""Adaptation of M-STAR's weeks of slots to a city: a LoRA adapter of the generator on weeks of a few users.

Codec and place head stay as they are; the traits of users are matched to those of these users. Two halves of the
users are tuned on and scored in turns, as for SAMoE.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data.parts import training_part
from ..modeling.modeling_mstar import MstarForTrajectoryGeneration
from ..pipelines.slot_generation import SlotGenerationPipeline
from ..pipelines.trajectory_generation import TrajectoryGenerationPipeline
from ..tokenization.city import City
from ..tokenization.errors import DataError
from ..tokenization.traits import NAMES, TraitModel
from .adaptation import Adaptation, visits_and_city
from .fit import nothing, on_stderr
from .result import earlier_record
from .rows import ArrayRows
from .slots import encoded_slots, read_weeks_of, rows_of
from .step_tuning import Choice, tune_steps, two_fold, without_check

FROZEN = ("codec", "places", "lm_head")
STEPS = {"none": 0, "weak": 40, "strong": 120}
LEARNING_RATE, BATCH = 2e-3, 64
MIN_USERS = 5  # whose mean traits, or whose shares of a class, are kept


def adapt_weeks(
    model: Any,
    data: Any,
    *,
    city: City | None = None,
    timezone: str | None = None,
    strength: str = "auto",
    test_fraction: float = 0.0,
    seed: int = 0,
    device: Any = None,
    progress: bool = False,
    **columns: str,
) -> Adaptation:
    """What `adapt` does for a generator of weeks of slots; arguments as there.

    Args:
        model: a folder or Hub id, or a `SlotGenerationPipeline`: the traits of users lie with its tokenizer.
        data: visits that cover whole weeks, at least half of the hours of a week.
        strength: `auto`, `none`, `weak` (40 steps of 64 weeks) or `strong` (120).
        test_fraction: of the users, left out for a test.

    Raises:
        DataError: a model of another kind, an unknown strength, or no week that is known well enough.
    """
    if strength != "auto" and strength not in STEPS:
        raise DataError(f"strength of weeks must be auto, {', '.join(STEPS)}, not {strength!r}.")
    start = time.perf_counter()
    pipe = model if isinstance(model, SlotGenerationPipeline) else TrajectoryGenerationPipeline.from_pretrained(model)
    if not isinstance(pipe, SlotGenerationPipeline):
        raise DataError("adapt reads generators of weeks of slots; this one belongs to the cells of its city.")
    visits, city = visits_and_city(data, city, timezone, columns)
    visits = training_part("mstar", visits, test_fraction=test_fraction, seed=seed)
    weeks = read_weeks_of(visits, city)
    if not len(weeks.places):
        raise DataError("no user has a week of which half of the hours are known.")
    encoded = encoded_slots(weeks.tokenizer, weeks.slots)
    rows = rows_of(pipe.model, weeks.tokenizer, encoded, weeks.traits)
    tell = on_stderr if progress else nothing
    report, chosen, reason = _choose(pipe.model, rows, weeks.users, strength, seed, device, tell)
    tell(f"strength: {chosen}; {reason}")
    adapted, history = tune(pipe.model, rows, STEPS[chosen], seed=seed, device=device)
    tokenizer = weeks.tokenizer
    tokenizer.traits = traits_like(pipe.tokenizer.traits, weeks.traits, weeks.users)
    learned = f"{len(weeks.places):,} weeks of {len(np.unique(weeks.users)):,} users"
    return Adaptation.of(
        *(adapted, tokenizer, history),
        choice=(report, chosen, reason),
        visits=visits,
        learned=learned,
        earlier=earlier_record(pipe.model),
        split={"system": "mstar", "test_fraction": test_fraction, "seed": seed},
        start=start,
    )


def traits_like(traits: TraitModel | None, measured: np.ndarray, users: np.ndarray) -> TraitModel | None:
    """`traits`, moved to the means of users whose weeks were measured, (N, 10), then matched to their classes. Means
    and classes of fewer than `MIN_USERS` users, and means that are out of reach, are left as they are.
    """
    if traits is None or len(np.unique(users)) < MIN_USERS:
        return traits
    by_user = pd.DataFrame(measured, columns=list(NAMES)).groupby(users).mean()
    enough, means = by_user.count() >= MIN_USERS, by_user.mean()
    moved = traits.moved(
        {name: float(means[name]) for name in NAMES if enough[name] and traits.reaches(name, means[name])}
    )
    return moved.matched(measured, users=users, min_users=MIN_USERS)


def tune(
    base: MstarForTrajectoryGeneration, rows: dict[str, torch.Tensor], steps: int, *, seed: int, device: Any = None
) -> tuple[Any, pd.DataFrame]:
    """What `tune_steps` makes of the weeks in `rows`."""
    return tune_steps(
        base,
        ArrayRows(rows),
        steps,
        frozen=FROZEN,
        preset="mstar",
        learning_rate=LEARNING_RATE,
        batch_size=BATCH,
        seed=seed,
        device=device,
    )


@torch.no_grad()
def nll_by_user(model: Any, rows: dict[str, torch.Tensor], users: np.ndarray) -> np.ndarray:
    """(U, 2) float64: summed loss of each user's weeks (nats a code), and their number."""
    found = []
    for user in np.unique(users):
        own = torch.from_numpy(np.flatnonzero(users == user))
        inputs = {name: values[own].to(model.device) for name, values in rows.items()}
        found.append((float(model(**inputs).loss) * len(own), len(own)))
    return np.asarray(found, dtype=np.float64)


def _choose(
    base: Any, rows: dict[str, torch.Tensor], users: np.ndarray, strength: str, seed: int, device: Any, tell: Any
) -> Choice:
    names = np.random.default_rng(seed).permutation(np.unique(users))
    settled = without_check(strength, len(names))
    if settled is not None:
        return settled
    in_first = np.isin(users, names[: len(names) // 2])
    halves = [
        ({key: values[torch.from_numpy(half)] for key, values in rows.items()}, users[half])
        for half in (in_first, ~in_first)
    ]
    return two_fold(
        halves,
        STEPS,
        lambda half, steps: tune(base, half[0], steps, seed=seed, device=device)[0],
        lambda model, half: nll_by_user(model, *half),
        better="wrote weeks of held-out users better",
        unit="code",
        digits=4,
        tell=tell,
    )
