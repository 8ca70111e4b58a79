"""The hour-by-hour transformer at tiny size: causal, the same with and without a cache, repeatable, and it learns."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hf_mobility.baselines import Conditions  # noqa: E402
from hf_mobility.baselines.fit import TrainingOptions  # noqa: E402
from hf_mobility.baselines.hourly_transformer import HourlyNetwork, HourlyTransformer  # noqa: E402

CELLS, LENGTH, CLASSES = 6, 12, 3
SMALL = {"width": 16, "layers": 2, "heads": 2, "slots_per_day": LENGTH}


def network() -> HourlyNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = HourlyNetwork(CELLS, LENGTH, CLASSES, 16, 2, 2, 0.1).eval()
        for parameter in made.parameters():  # nothing may hide behind a zero
            torch.nn.init.normal_(parameter, std=0.4)
    return made


def inputs(n: int = 5) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    cells = torch.randint(-1, CELLS, (n, LENGTH), generator=generator)
    return (cells, *(torch.randint(k, (n,), generator=generator) for k in (CELLS, CELLS, CLASSES)))


def walkers(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Home at the ends of the day, work in the middle; weeks, homes and works."""
    home, work = np.random.default_rng(seed).integers(CELLS, size=(2, n))
    at_work = (np.arange(LENGTH) >= 4) & (np.arange(LENGTH) < 9)
    return np.where(at_work, work[:, None], home[:, None]), home, work


def fitted(**options) -> HourlyTransformer:
    cells, home, work = walkers()
    return HourlyTransformer(**SMALL).fit(cells, num_cells=CELLS, home=home, work=work, **{"epochs": 2, **options})


def test_changing_a_later_hour_changes_no_earlier_score() -> None:
    model, (cells, *given) = network(), inputs()
    before = model(cells, *given)
    for hour in range(LENGTH):
        changed = cells.clone()
        changed[:, hour:] = (changed[:, hour:] + 2) % CELLS
        after = model(changed, *given)
        assert torch.equal(after[:, : hour + 1], before[:, : hour + 1])
        if hour + 1 < LENGTH:
            assert not torch.allclose(after[:, hour + 1 :], before[:, hour + 1 :])


def test_cached_steps_equal_one_full_pass() -> None:
    model, (cells, *given) = network(), inputs()
    cells = cells.clamp_min(0)
    with torch.inference_mode():
        stepwise = torch.stack(list(model.steps(*given, cells)), dim=1)
        assert torch.allclose(stepwise, model(cells, *given), atol=1e-5)


def test_draws_follow_the_scores() -> None:
    model, (_, *given) = network(), inputs(1)
    many = [x.expand(4000) for x in given]
    uniform = torch.rand(4000, LENGTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = model.draw(*many, uniform)
    with torch.inference_mode():
        p = model(drawn, *many).softmax(-1)
    share = torch.nn.functional.one_hot(drawn, CELLS).float().mean(0)
    assert torch.allclose(share, p.mean(0), atol=0.03)
    greedy = model.draw(*many, uniform, top_k=1)
    assert (greedy == greedy[:1]).all()
    assert torch.equal(model.draw(*many, uniform, temperature=1e-4), greedy)


@pytest.mark.parametrize("index", [1, 2, 3])
def test_every_condition_reaches_every_hour(index) -> None:
    model, given = network(), list(inputs())
    before = model(*given)
    given[index] = (given[index] + 1) % CLASSES
    assert ((model(*given) - before).abs().amax(-1) > 1e-4).all()


def test_parameters_are_counted() -> None:
    width, classes = 16, 3
    block = (
        2 * 2 * width
        + (width + 1) * 3 * width
        + (width + 1) * width
        + (width + 1) * 4 * width
        + (4 * width + 1) * width
    )
    expected = (
        (CELLS + 1) * width + CELLS * width // 2 + classes * width + LENGTH * width + 2 * block + 2 * width + CELLS
    )
    model = fitted(attribute=np.arange(300) % classes, epochs=1)
    assert model.num_parameters == expected


def test_the_pattern_is_learned_and_the_conditions_hold() -> None:
    cells, home, work = walkers()
    held_out = walkers(100, seed=1)
    options = TrainingOptions(learning_rate=1e-2, weight_decay=0.01, batch_size=32)
    model = HourlyTransformer(**SMALL, dropout=0.0, options=options).fit(
        cells, num_cells=CELLS, home=home, work=work, validation=(held_out[0], Conditions(*held_out[1:])), epochs=22
    )
    assert model.train_loss[-1] < 0.1 * model.train_loss[0]
    assert model.loss(held_out[0], Conditions(*held_out[1:])) == pytest.approx(min(model.validation_loss), abs=1e-5)
    made = model.generate(Conditions(*held_out[1:]), seed=0)
    assert made.dtype == np.int32 and (made == held_out[0]).mean() > 0.9


def test_one_seed_gives_one_result_whatever_the_batches_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    model, again = fitted(seed=1), fitted(seed=1)
    made = model.generate(40, seed=3)
    assert torch.equal(torch.rand(1), expected)
    assert np.array_equal(made, again.generate(40, seed=3, batch_size=7))
    assert not np.array_equal(made, model.generate(40, seed=4))
    assert not np.array_equal(made, fitted(seed=2).generate(40, seed=3))


def test_a_warm_start_goes_on_with_the_network_of_before() -> None:
    cells, home, work = walkers()
    given = {"num_cells": CELLS, "home": home, "work": work}
    model = HourlyTransformer(**SMALL, warm_start=True).fit(cells, **given, epochs=4, seed=0)
    before = {name: values.clone() for name, values in model.network.state_dict().items()}
    model.fit(cells[:30], **given | {"home": home[:30], "work": work[:30]}, epochs=0)
    for name, values in model.network.state_dict().items():
        assert torch.equal(values, before[name]), name
    again = model.fit(cells, **given, epochs=1)
    assert again.train_loss[0] < 0.8 * fitted(epochs=1).train_loss[0]
    with pytest.raises(ValueError, match=r"warm_start goes on with .* \(6, 12, 0\), these weeks have \(7, 12, 0\)"):
        model.fit(cells, **given | {"num_cells": CELLS + 1}, epochs=1)


def test_unknown_hours_are_not_predicted() -> None:
    cells, home, work = walkers()
    gaps = np.where(np.random.default_rng(0).random(cells.shape) < 0.3, -1, cells)
    gaps[0] = -1
    model = HourlyTransformer(**SMALL).fit(gaps, num_cells=CELLS, home=home, work=work, epochs=2)
    assert len(model.conditions) == 299  # a week without a known hour is left out
    made = model.generate(50, seed=0)
    assert made.min() >= 0 and made.max() < CELLS
    some = Conditions(home[1:4], work[1:4])
    hidden = gaps[1:4].copy()
    scores = model.network(
        torch.from_numpy(hidden), *(torch.from_numpy(x[1:4]) for x in (home, work)), torch.zeros(3, dtype=torch.int64)
    )
    known = torch.from_numpy(hidden >= 0)
    by_hand = torch.nn.functional.cross_entropy(scores[known], torch.from_numpy(hidden)[known])
    assert model.loss(hidden, some) == pytest.approx(by_hand.item(), abs=1e-5)


def test_the_training_loss_is_a_mean_over_known_hours() -> None:
    cells, home, work = walkers(8)
    cells[2:, 1:] = -1
    still = TrainingOptions(batch_size=1, learning_rate=0.0)
    model = HourlyTransformer(**SMALL, dropout=0.0, options=still)
    model.fit(cells, num_cells=CELLS, home=home, work=work, epochs=1)
    assert model.train_loss[0] == pytest.approx(model.loss(cells, Conditions(home, work)), rel=1e-2)


def test_bad_input_gets_one_sentence() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        HourlyTransformer(width=10, heads=4)
    with pytest.raises(ValueError, match="not fitted"):
        HourlyTransformer().generate(3, seed=0)
    model = fitted()
    with pytest.raises(ValueError, match="temperature must be positive"):
        model.generate(3, seed=0, temperature=0)
    with pytest.raises(ValueError, match=r"top_k must be in 1\.\.6"):
        model.generate(3, seed=0, top_k=7)
    with pytest.raises(ValueError, match="must not be given"):
        model.generate(Conditions([0], [0], [0]), seed=0)
    with pytest.raises(ValueError, match=r"outside 0\.\.5"):
        model.generate(Conditions([6], [0]), seed=0)
    classed = fitted(attribute=np.arange(300) % 3, epochs=1)
    with pytest.raises(ValueError, match="must be given"):
        classed.generate(Conditions([0], [0]), seed=0)
    with pytest.raises(ValueError, match=r"in 0\.\.2"):
        classed.generate(Conditions([0], [0], [3]), seed=0)
