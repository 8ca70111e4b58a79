"""Adaptation of RAW's `extended` variant to a city: a LoRA adapter on records of some of its users.

The features of records and the weights that single past records start from stay as they are. Two halves of the users
are tuned on and scored in turns, as for SAMoE.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data.io.records import as_records
from ..data.parts import training_part
from ..data.record_contexts import RecordHistories
from ..data.weeks import refuse_weeks
from ..hub.loading import load_model
from ..modeling.destinations_raw import negative_log_density
from ..modeling.modeling_raw_extended import RawExtendedForTrajectoryPrediction
from ..tokenization.city import City
from ..tokenization.errors import DataError
from ..tokenization.tokenization_raw import RawTokenizer
from .adaptation import Adaptation
from .fit import nothing, on_stderr
from .records import RecordRows, following, keys_of, later_records, owners_of
from .result import earlier_record
from .step_tuning import Choice, tune_steps, two_fold, without_check

STEPS = {"none": 0, "weak": 60, "strong": 240}
LEARNING_RATE, BATCH = 1e-3, 32
MOST_USERS = 400  # of the check, in two halves
HORIZONS = (1, 4, 10, 24, 96)  # slots, that held-out users are scored at
ORIGINS = 40  # records of a held-out user that are scored, spread over all of them
FROZEN = ("record_embedding", "pair_weights")
USERS_AT_ONCE = 128


def adapt_records(
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
    """What `adapt` does for positions in any city; arguments as there.

    Args:
        model: a `RawExtendedForTrajectoryPrediction`, a folder or a Hub id.
        data: points, or visits with `lat` and `lon`. Of the city only the clock is used.
        strength: `auto`, `none`, `weak` (60 steps of 32 records) or `strong` (240).
        test_fraction: of the users, left out for a test.

    Raises:
        DataError: a model of another kind, an unknown strength, no time zone, or nobody whose record another follows.
    """
    if strength != "auto" and strength not in STEPS:
        raise DataError(f"strength of positions must be auto, {', '.join(STEPS)}, not {strength!r}.")
    start = time.perf_counter()
    base = model
    if not isinstance(model, RawExtendedForTrajectoryPrediction):
        base = load_model(RawExtendedForTrajectoryPrediction, model, reader="adapt", kwargs={})
    points: Any = as_records(data, timezone=timezone or getattr(city, "timezone", None), **columns)
    refuse_weeks(points, "adapted")
    points = training_part("raw", points, test_fraction=test_fraction, seed=seed)
    tokenizer = _tokenizer(points, city, timezone, base.config)
    histories = RecordHistories.of_points(
        points, timezone=tokenizer.timezone, interval_minutes=tokenizer.interval_minutes
    )
    histories = histories.of_users(np.isin(np.arange(len(histories.users)), owners_of(histories)[following(histories)]))
    if not len(histories.users):
        raise DataError(f"none of {points['user_id'].nunique()} users has a record that another one follows in a day.")
    tell = on_stderr if progress else nothing
    report, chosen, reason = _choose(base, histories, strength, seed, device, tell)
    tell(f"strength: {chosen}; {reason}")
    adapted, history = tune_records(base, histories, STEPS[chosen], seed=seed, device=device)
    return Adaptation.of(
        *(adapted, tokenizer, history),
        choice=(report, chosen, reason),
        visits=points,
        learned=f"{len(points):,} records of {points['user_id'].nunique():,} users",
        earlier=earlier_record(base),
        split={"system": "raw", "test_fraction": test_fraction, "seed": seed},
        start=start,
    )


def tune_records(
    base: RawExtendedForTrajectoryPrediction, histories: RecordHistories, steps: int, *, seed: int, device: Any = None
) -> tuple[Any, pd.DataFrame]:
    """What `tune_steps` makes of the records."""
    rows = RecordRows([histories], rows=steps * BATCH, records=base.config.context_records, seed=seed)
    return tune_steps(
        base,
        rows,
        steps,
        frozen=FROZEN,
        preset="raw",
        learning_rate=LEARNING_RATE,
        batch_size=BATCH,
        bf16=False,
        seed=seed,
        device=device,
    )


@torch.no_grad()
def nll_by_user(model: Any, histories: RecordHistories) -> np.ndarray:
    """(U, 2) float64: the summed negative log-likelihood of each user's later records (nats, per square km), and their
    number."""
    ends, slots, found = _asked(histories)
    user, total = owners_of(histories), np.zeros((len(histories.users), 2))
    for first in range(0, len(ends), USERS_AT_ONCE):
        part = slice(first, first + USERS_AT_ONCE)
        counted = slots[part] >= 0
        asked = np.where(counted, slots[part], histories.slots[ends[part]][:, None] + 1)
        given = histories.before(ends[part], model.config.context_records)
        answer = model(
            **{name: values.to(model.device) for name, values in given.items()},
            target_slots=torch.from_numpy(asked).to(model.device),
        )
        wanted = torch.from_numpy(histories.km[found[part]]).to(model.device)
        nats = negative_log_density(answer.destinations, wanted).double().cpu().numpy()
        for column, values in enumerate((nats * counted, counted)):
            total[:, column] += np.bincount(user[ends[part]], values.sum(1), len(total))
    return total


def _asked(histories: RecordHistories) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Records (E,) that are scored, and of each the slots and rows (E, H) of what was recorded at `HORIZONS`, slot -1 =
    nothing. Records with nothing are left out.
    """
    rows = following(histories)
    user = owners_of(histories)[rows]
    of_user = np.split(rows, np.searchsorted(user, np.arange(1, len(histories.users))))
    ends = np.concatenate([own[:: -(-len(own) // ORIGINS) or 1] for own in of_user])
    ahead = np.broadcast_to(HORIZONS, (len(ends), len(HORIZONS)))
    slots, found = later_records(histories, keys_of(histories), ends, ahead)
    some = (slots >= 0).any(axis=1)
    return ends[some], slots[some], found[some]


def _tokenizer(points: pd.DataFrame, city: City | None, timezone: str | None, config: Any) -> RawTokenizer:
    if city is not None:
        return RawTokenizer.from_city(city, config)
    if timezone is None:
        raise DataError("The time zone is missing: pass timezone=, such as 'Europe/Berlin', or city=.")
    return RawTokenizer.from_points(points, timezone=timezone, config=config)


def _choose(base: Any, histories: RecordHistories, strength: str, seed: int, device: Any, tell: Any) -> Choice:
    scored = np.unique(owners_of(histories)[_asked(histories)[0]])
    settled = without_check(strength, len(scored))
    if settled is not None:
        return settled
    order = np.random.default_rng(seed).permutation(scored)[:MOST_USERS]
    halves = [histories.of_users(np.isin(np.arange(len(histories.users)), half)) for half in np.array_split(order, 2)]
    return two_fold(
        halves,
        STEPS,
        lambda half, steps: tune_records(base, half, steps, seed=seed, device=device)[0],
        nll_by_user,
        better="predicted held-out users better",
        unit="record",
        digits=3,
        tell=tell,
    )
