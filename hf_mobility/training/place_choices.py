"""Which places users chose for the slots of their weeks, and how the place head of M-STAR learns them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ..modeling.places_mstar import MstarPlaces
from ..tokenization.diaries import RECURRING, SINGLE, Stays
from ..tokenization.poi import NEVER_SEEN

BATCH = 256  # choices of each kind in a step
LEARNING_RATE, WEIGHT_DECAY, WARMUP_STEPS = 5e-3, 0.01, 30
HIDDEN_POPULARITY = 0.5  # share of the steps in which nobody has been seen anywhere, as in a city known by its map


class CityChoices(NamedTuple):
    """location_features (P + 2, F), and for home, work, recurring and single places (5, M) int64 each: kind, chosen
    place, home, work and the place before; -1 = none."""

    location_features: torch.Tensor
    of_kind: list[torch.Tensor]


def choices_of(
    places: np.ndarray, slots: np.ndarray, home: np.ndarray, work: np.ndarray, users: np.ndarray
) -> list[torch.Tensor]:
    """The choices behind weeks: home and work once a user, a recurring place once a week, a single one once a stay.

    Args:
        places, slots: (N, L), -1 = unknown. home, work: (N,) places, equal without a second one. users: (N,).
    """
    stays = Stays.of_weeks(places.astype(np.int64))
    slot = slots[stays.row, stays.first].astype(np.int64)
    before = np.where(stays.follow(), np.append(-1, stays.value[:-1]), -1)
    second = np.where(work == home, -1, work)
    first_stay = np.zeros(len(slot), bool)
    first_stay[np.unique(np.stack([stays.row, slot]), axis=1, return_index=True)[1]] = True
    one = np.unique(users, return_index=True)[1]
    workers = one[second[one] >= 0]
    recurring = np.flatnonzero(first_stay & (slot >= RECURRING.start) & (slot < RECURRING.stop))
    single = np.flatnonzero(slot >= SINGLE.start)
    columns: list[tuple[Any, ...]] = [(home[one], None, None, None), (work[workers], home[workers], None, None)]
    columns += [(stays.value[at], home[stays.row[at]], second[stays.row[at]], before[at]) for at in (recurring, single)]
    return [_stacked(kind, *column) for kind, column in enumerate(columns)]


def _stacked(kind: int, chosen: np.ndarray, *origins: np.ndarray | None) -> torch.Tensor:
    none = np.full(len(chosen), -1)
    rows = [np.full(len(chosen), kind), chosen, *(none if origin is None else origin for origin in origins)]
    return torch.from_numpy(np.stack(rows).astype(np.int64))


def fit_places(head: MstarPlaces, cities: Sequence[CityChoices], *, steps: int, seed: int) -> float:
    """Train the head by the mean log-likelihood of the four kinds of choices, one city a step.

    Returns:
        Mean loss of the last tenth of the steps, nats a choice.
    """
    source = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = (
                LEARNING_RATE * min(1, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))
            )
        city = cities[int(torch.randint(len(cities), (1,), generator=source))]
        features = city.location_features.clone()
        if torch.rand(1, generator=source) < HIDDEN_POPULARITY:
            features[2:, head.num_poi_features + 2] = NEVER_SEEN
        places = head.read_city(features.to(head.weight.device))
        parts = []
        for choices in city.of_kind:
            if choices.shape[1]:
                some = choices[:, torch.randint(choices.shape[1], (BATCH,), generator=source)].to(head.weight.device)
                parts.append(-head.log_probability(places, *some).mean())
        loss = torch.stack(parts).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses[-max(1, steps // 10) :]))
