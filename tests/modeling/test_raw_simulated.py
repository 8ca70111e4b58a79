"""RAW learns: trained for seconds on simulated users, it beats the copied last point where users move.

An average over all users and times would hide that: most stand still, and then the last point is exact.
"""

from __future__ import annotations

import pytest
import torch

from hf_mobility.data.simulation.cities import simulate_city
from hf_mobility.modeling.configuration_raw import RawConfig
from hf_mobility.modeling.modeling_raw import RawForTrajectoryPrediction
from hf_mobility.tokenization.tokenization_raw import RawTokenizer

STEPS = 300
Trained = tuple[RawForTrajectoryPrediction, torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A tiny model of the paper's form, two days in half hours of people it has not seen, and metres of a box unit."""
    city = simulate_city(300, num_days=14, num_locations=150, seed=0)
    tokenizer = RawTokenizer.from_points(city.visits, timezone=city.timezone, interval_minutes=30, model_max_length=96)
    series = tokenizer.encode_points(city.visits)
    batch = tokenizer.to_batch(series, padding=True, return_tensors="pt")
    whole = batch["attention_mask"].bool().all(1)
    points, held_out = batch["coordinates"][whole], torch.from_numpy(series.user_ids % 5 == 0)[whole]
    torch.manual_seed(0)
    model = RawForTrajectoryPrediction(RawConfig.from_preset("tiny", max_position_embeddings=96, slots_per_day=48))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / STEPS)
    train, generator = points[~held_out], torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        x = train[torch.randint(len(train), (16,), generator=generator)]
        optimiser.zero_grad()
        model(x, labels=x).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.eval(), points[held_out], torch.tensor(tokenizer.metres_per_unit())


def mean_error(guess: torch.Tensor, truth: torch.Tensor, moved: torch.Tensor, metres: torch.Tensor) -> float:
    return ((guess - truth)[moved] * metres).abs().mean().item()


def test_the_next_point_is_better_guessed_than_copied_where_people_move(trained: Trained) -> None:
    model, x, metres = trained
    with torch.no_grad():
        guess = model(x).predictions[:, :-1]
    moved = ((x[:, 1:] - x[:, :-1]) * metres).norm(dim=-1) > 500
    assert moved.sum() > 1000
    assert mean_error(guess, x[:, 1:], moved, metres) < 0.95 * mean_error(x[:, :-1], x[:, 1:], moved, metres)


def test_three_hours_are_better_rolled_out_than_copied_for_people_who_move(trained: Trained) -> None:
    model, x, metres = trained
    known, truth = x[:, :80], x[:, 80:86]  # until 16:00 of the second day
    moved = ((truth - known[:, -1:]) * metres).norm(dim=-1).amax(1) > 500
    assert moved.sum() > 100
    copied = mean_error(known[:, -1:].expand_as(truth), truth, moved, metres)
    assert mean_error(model.generate(known, steps=6), truth, moved, metres) < 0.97 * copied
