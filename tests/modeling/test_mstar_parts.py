"""The parts of M-STAR's generator against slow, dense computations: paths, draws, attention by levels, loss in
slices.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.modeling import modeling_mstar
from hf_mobility.modeling.configuration_mstar import MstarConfig
from hf_mobility.modeling.generation_mstar import (
    SamplingOptions,
    best_path,
    clamp_to_known,
    code_probabilities,
    draw_codes,
    draw_from,
    fit_arrivals,
    fit_stay_probability,
    sample_path,
    week_arrivals,
)
from hf_mobility.modeling.layers import drop, kept_numbers
from hf_mobility.modeling.modeling_mstar import LevelAttention, attention_blocks, mean_per_level

WEEK = (1, 7, 14, 28, 56, 84, 112, 168)


def options(**values: object) -> SamplingOptions:
    return SamplingOptions.resolve(MstarConfig.from_preset("tiny"), **{"top_k": 2, **values})


# Paths


def chain(hours: int, cells: int, *, weeks: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, probabilities of staying, and every week's own distribution of arrivals."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(weeks, hours, cells, generator=generator, dtype=torch.float64)
    stay = 0.1 + 0.8 * torch.rand(hours - 1, generator=generator, dtype=torch.float64)
    return logits, stay, torch.randn(weeks, cells, generator=generator, dtype=torch.float64).softmax(-1)


def matrices(stay: torch.Tensor, arrival: torch.Tensor) -> torch.Tensor:
    """The (C, C) transition matrix of each step of one week, written out."""
    cells = len(arrival)
    return torch.stack([s * torch.eye(cells) + (1 - s) * arrival.expand(cells, -1) for s in stay])


def path_probabilities(logits: torch.Tensor, steps: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Probability of every path of one week, from its (L - 1, C, C) matrices."""
    hours, cells = logits.shape
    emission = logits.softmax(-1)
    found = {}
    for path in itertools.product(range(cells), repeat=hours):
        value = emission[0, path[0]]
        for hour in range(1, hours):
            value = value * steps[hour - 1][path[hour - 1], path[hour]] * emission[hour, path[hour]]
        found[path] = float(value)
    total = sum(found.values())
    return {path: value / total for path, value in found.items()}


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 4), st.integers(2, 4), st.integers(0, 10_000))
def test_the_best_path_is_the_most_probable_of_all_paths(hours: int, cells: int, seed: int) -> None:
    logits, stay, arrival = chain(hours, cells, seed=seed)
    found = best_path(logits, stay, arrival)
    for week in range(2):
        probabilities = path_probabilities(logits[week], matrices(stay, arrival[week]))
        assert tuple(found[week].tolist()) == max(probabilities, key=probabilities.__getitem__)


def test_the_best_path_equals_viterbi_with_the_dense_matrix() -> None:
    logits, stay, arrival = chain(20, 30, weeks=3)
    log_matrix = torch.stack([matrices(stay, row) for row in arrival]).log()
    emission = logits.log_softmax(-1)
    score, back = emission[:, 0], []
    for hour in range(1, 20):
        score, source = (score.unsqueeze(-1) + log_matrix[:, hour - 1]).max(1)
        score = score + emission[:, hour]
        back.append(source)
    path = [score.argmax(-1)]
    for source in reversed(back):
        path.append(source.gather(1, path[-1].unsqueeze(1)).squeeze(1))
    assert torch.equal(best_path(logits, stay, arrival), torch.stack(path[::-1], dim=1))


def test_drawn_paths_have_the_exact_distribution() -> None:
    logits, stay, arrival = chain(3, 3, weeks=1, seed=4)
    draws = 40_000
    noise = torch.rand(draws, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = sample_path(logits.expand(draws, -1, -1), stay, arrival.expand(draws, -1), noise)
    counts = torch.bincount((found * torch.tensor([9, 3, 1])).sum(1), minlength=27)
    for path, probability in path_probabilities(logits[0], matrices(stay, arrival[0])).items():
        share = counts[9 * path[0] + 3 * path[1] + path[2]] / draws
        assert abs(share - probability) < 4.5 * (probability * (1 - probability) / draws) ** 0.5 + 1e-4


def test_without_staying_the_best_path_is_the_best_cell_of_each_hour() -> None:
    logits, _, arrival = chain(12, 9)
    anywhere = torch.full_like(arrival, 1 / 9)
    assert torch.equal(best_path(logits, torch.zeros(11), anywhere), logits.argmax(-1))


def test_staying_removes_a_single_odd_hour_unless_the_scores_are_sure() -> None:
    logits = torch.zeros(1, 3, 4)
    logits[0, :, 1] = 5.0
    logits[0, 1, 2] = 8.0
    stay, anywhere = torch.full((2,), 0.9), torch.full((1, 4), 1 / 4)
    assert best_path(logits, stay, anywhere).tolist() == [[1, 1, 1]]
    assert best_path(4 * logits, stay, anywhere).tolist() == [[1, 2, 1]]


def test_an_odd_hour_is_believed_at_a_place_of_the_week_and_not_elsewhere() -> None:
    logits = torch.zeros(2, 8, 5)
    logits[:, :, 1] = 8.0  # hours at home ...
    logits[0, 5:, 1], logits[0, 5:, 2] = 0.0, 8.0  # ... and the first person's evening at 2,
    logits[:, 2, 2] = 13.0  # where one hour of the morning is put
    stay = torch.full((7,), 0.8)
    found = best_path(logits, stay, week_arrivals(logits, torch.full((5,), 1 / 5), torch.tensor(0.9)))
    assert found.tolist() == [[1, 1, 2, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 1, 1, 1]]


def test_known_hours_stay_and_pull_their_neighbours() -> None:
    logits, stay, anywhere = torch.zeros(1, 5, 6), torch.full((4,), 0.9), torch.full((1, 6), 1 / 6)
    cells = torch.tensor([[0, 0, 4, 0, 0]])
    known = torch.tensor([[False, False, True, False, False]])
    clamped = clamp_to_known(logits, cells, known)
    assert best_path(clamped, stay, anywhere).tolist() == [[4, 4, 4, 4, 4]]
    noise = torch.rand(500, 2, 5, generator=torch.Generator().manual_seed(0))
    drawn = sample_path(clamped.expand(500, -1, -1), stay, anywhere.expand(500, -1), noise)
    assert (drawn[:, 2] == 4).all()
    assert (drawn[:, 1] == 4).float().mean() > 0.85 > 0.6 > (drawn[:, 1] == 0).float().mean()


def test_extreme_scores_give_no_nan() -> None:
    logits = torch.full((2, 6, 5), -1e4)
    logits[:, ::2, 0], logits[:, 1::2, 3] = 1e4, 1e4
    stay, arrival = torch.full((5,), 0.999), week_arrivals(logits, torch.full((5,), 1 / 5), torch.tensor(0.9))
    noise = torch.rand(2, 2, 6, generator=torch.Generator().manual_seed(0))
    assert sample_path(logits, stay, arrival, noise).tolist() == [[0, 3, 0, 3, 0, 3]] * 2
    assert best_path(logits, stay, arrival).tolist() == [[0, 3, 0, 3, 0, 3]] * 2


def test_staying_is_counted_per_hour_over_known_pairs_only() -> None:
    cells = torch.tensor([[1, 1, 2], [3, 3, -1], [4, 5, 5], [-1, 6, 6]])
    torch.testing.assert_close(fit_stay_probability(cells), torch.tensor([3 / 5, 3 / 5]))


def test_arrivals_and_returns_are_counted_over_known_moves() -> None:
    # to 2, back to 1, to 3; to 4 from 4 across an unknown hour is no move, but a second stay there: 2 -> 4 returns
    cells = torch.tensor([[1, 2, 1, 3, 3], [4, -1, 4, 2, 4]])
    arrivals, returns = fit_arrivals(cells, 5)
    torch.testing.assert_close(arrivals, (torch.tensor([0.0, 1, 2, 1, 1]) + 1 / 5) / 6)
    torch.testing.assert_close(returns, torch.tensor((2 + 1) / (5 + 2)))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(2, 12), st.integers(0, 10_000))
def test_returns_equal_a_count_stay_by_stay(weeks: int, hours: int, seed: int) -> None:
    cells = torch.randint(-1, 4, (weeks, hours), generator=torch.Generator().manual_seed(seed))
    arrived, returned = torch.zeros(4), 0
    for week in cells.tolist():
        stays = [cell for hour, cell in enumerate(week) if cell >= 0 and (hour == 0 or week[hour - 1] != cell)]
        for before, cell in itertools.pairwise(week):
            if before >= 0 and cell >= 0 and before != cell:
                arrived[cell] += 1
                returned += stays.count(cell) > 1
    found, returns = fit_arrivals(cells, 4)
    torch.testing.assert_close(found, (arrived + 1 / 4) / (arrived.sum() + 1))
    torch.testing.assert_close(returns, (returned + 1) / (arrived.sum() + 2))


def test_a_week_arrives_where_it_stays_or_where_all_people_go() -> None:
    logits, _, _ = chain(6, 4)
    everywhere = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    found = week_arrivals(logits, everywhere, torch.tensor(0.75, dtype=torch.float64))
    torch.testing.assert_close(found, 0.75 * logits.softmax(-1).mean(1) + 0.25 * everywhere)


# Draws


def test_a_draw_follows_the_probabilities_and_never_takes_an_impossible_entry() -> None:
    probabilities = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
    noise = torch.cat([torch.linspace(0, 1, 10_000)[:-1], torch.tensor([1 - 2**-24])])
    drawn = draw_from(probabilities.expand(len(noise), -1), noise)
    shares = torch.bincount(drawn, minlength=6) / len(noise)
    torch.testing.assert_close(shares, probabilities, atol=1e-3, rtol=0)


def test_all_codes_are_candidates_in_their_own_order_and_drawn_by_their_probability() -> None:
    logits = torch.tensor([1.0, 3.0, 0.0, 2.0]).expand(4000, 1, -1)
    noise = torch.rand(4000, 1, generator=torch.Generator().manual_seed(0))
    is_open = torch.ones(4000, 1, dtype=torch.bool)
    _, codes = code_probabilities(logits, is_open, options(top_k=4, temperature=1.0), 0)
    assert codes[7, 0].tolist() == [0, 1, 2, 3]
    drawn = draw_codes(logits, is_open, noise, options(top_k=4, temperature=1.0), 0)
    shares = torch.bincount(drawn.flatten(), minlength=4) / 4000
    torch.testing.assert_close(shares, logits[0, 0].softmax(-1), atol=0.03, rtol=0)


def test_top_k_comes_before_the_temperature_and_the_softmax_sees_the_k_only() -> None:
    logits = torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0]).expand(4000, 1, -1)
    noise = torch.rand(4000, 1, generator=torch.Generator().manual_seed(0))
    is_open = torch.ones(4000, 1, dtype=torch.bool)
    setting = options(top_k=2, temperature=0.5)
    drawn = draw_codes(logits, is_open, noise, setting, 0)
    wanted = (torch.tensor([3.0, 2.0]) / 0.5).softmax(0)
    assert set(drawn.unique().tolist()) == {0, 1}
    assert abs((drawn == 0).float().mean() - wanted[0]) < 0.03
    probability, codes = code_probabilities(logits, is_open, setting, 0)
    torch.testing.assert_close(probability[0, 0], wanted)
    assert codes[0, 0].tolist() == [0, 1]


def test_the_confidence_rule_scales_the_best_logits_of_a_level_to_its_temperatures() -> None:
    logits = torch.tensor([[[4.0, 0.0], [2.0, 0.0], [0.5, 0.0]]])
    is_open = torch.ones(1, 3, dtype=torch.bool)
    probability, _ = code_probabilities(logits, is_open, options(temperature="confidence"), 1)
    confidence = torch.tensor([1.0, 1.5 / 3.5, 0.0])
    torch.testing.assert_close(probability[0], (logits[0] / (1.5 - confidence).unsqueeze(1)).softmax(-1))
    single, _ = code_probabilities(logits[:, :1], is_open[:, :1], options(), 0)
    torch.testing.assert_close(single[0], (logits[0, :1] / 1.5).softmax(-1))


def test_known_positions_do_not_change_the_confidence_of_the_others() -> None:
    logits = torch.tensor([[[4.0, 0.0], [2.0, 0.0], [1.0, 0.0], [90.0, 0.0]]])
    is_open = torch.tensor([[True, True, True, False]])
    with_known, _ = code_probabilities(logits, is_open, options(), 1)
    without, _ = code_probabilities(logits[:, :3], is_open[:, :3], options(), 1)
    torch.testing.assert_close(with_known[:, :3], without)


# Attention and loss


def level_mask(lengths: tuple[int, ...]) -> torch.Tensor:
    levels = torch.tensor([level for level, length in enumerate(lengths) for _ in range(length)])
    return levels.unsqueeze(1) >= levels


@pytest.mark.parametrize("lengths", [(1, 4, 24), (2, 2, 3), (5,), WEEK], ids=str)
def test_attention_by_levels_equals_masked_attention_with_its_gradients(lengths: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 3, sum(lengths), 4, generator=generator, dtype=torch.float64) for _ in range(3)]
    above = torch.randn(2, sum(lengths), 3, 4, generator=generator, dtype=torch.float64)
    results = []
    for by_levels in (True, False):
        query, key, value = (x.clone().requires_grad_() for x in inputs)
        if by_levels:
            output = LevelAttention.apply(query, key, value, lengths)
        else:
            output = F.scaled_dot_product_attention(query, key, value, attn_mask=level_mask(lengths), scale=1.0)
            output = output.transpose(1, 2)
        output.backward(above)
        results.append([output.detach(), query.grad, key.grad, value.grad])
    for found, wanted in zip(*results):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("lengths", [(1, 4, 24), (2, 2, 3)], ids=str)
def test_attention_by_levels_drops_weights_and_their_gradients(
    lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept depends on the place in the matrix only, so that it is known outside."""
    monkeypatch.setattr(modeling_mstar, "SCORES_AT_ONCE", 1)  # week by week
    length = sum(lengths)
    kept = torch.rand(length, length, generator=torch.Generator().manual_seed(1)) < 0.7
    blocks = iter(2 * attention_blocks(lengths)[0])  # of two weeks

    def known_numbers(shape: tuple[int, ...], probability: float) -> tuple[torch.Tensor, float]:
        start, end = next(blocks)
        assert probability == 0.25 and shape == (3, end - start, end)
        return kept[start:end, :end].expand(shape), 4 / 3

    monkeypatch.setattr(modeling_mstar, "kept_numbers", known_numbers)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 3, length, 4, generator=generator, dtype=torch.float64) for _ in range(3)]
    above = torch.randn(2, length, 3, 4, generator=generator, dtype=torch.float64)
    results = []
    for by_levels in (True, False):
        query, key, value = (x.clone().requires_grad_() for x in inputs)
        if by_levels:
            output = LevelAttention.apply(query, key, value, lengths, 0.25)
        else:
            scores = (query @ key.transpose(2, 3)).masked_fill(~level_mask(lengths), -math.inf)
            output = (scores.softmax(-1) * kept * 4 / 3 @ value).transpose(1, 2)
        output.backward(above)
        results.append([output.detach(), query.grad, key.grad, value.grad])
    for found, wanted in zip(*results):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("probability", [0.1, 0.25, 1 - 1e-9])
def test_own_dropout_keeps_its_share_independently_and_the_mean(probability: float) -> None:
    torch.manual_seed(0)
    kept, factor = kept_numbers((301, 333), probability)
    share = 1 / factor
    assert share == pytest.approx(1 - probability, abs=2**-16)
    deviation = (share * (1 - share) / kept.numel()) ** 0.5
    assert kept.double().mean() == pytest.approx(share, abs=4 * deviation)
    for distance in range(1, 5):  # four of them come of one number
        both = (kept.flatten()[distance:] & kept.flatten()[:-distance]).double().mean()
        assert both == pytest.approx(share**2, abs=8 * deviation)
    again = kept_numbers((301, 333), probability)[0]
    torch.manual_seed(0)
    assert not torch.equal(again, kept) or probability > 0.9
    assert torch.equal(kept_numbers((301, 333), probability)[0], kept)


def test_own_dropout_scales_what_it_keeps_and_so_the_gradient() -> None:
    values = torch.ones(50, 40, requires_grad=True)
    dropped = drop(values, 0.25, True)
    dropped.sum().backward()
    torch.testing.assert_close(dropped.detach().unique(), torch.tensor([0, 4 / 3]))
    assert torch.equal(values.grad, dropped.detach())
    assert drop(values, 0.25, False) is values and drop(values, 0.0, True) is values
    assert not drop(values, 1.0, True).any()


def test_the_coarsest_levels_share_one_block() -> None:
    blocks, mask = attention_blocks(WEEK)
    assert blocks == [(0, 106), (106, 190), (190, 302), (302, 470)]
    assert torch.equal(~mask, level_mask(WEEK)[:106, :106])


def test_means_per_level_leave_out_what_does_not_count() -> None:
    losses = torch.tensor([[1.0, 2.0, 3.0], [5.0, 6.0, 100.0]])
    counted = torch.tensor([[True, True, False], [True, True, False]])
    assert mean_per_level(losses, counted, [1, 1, 1]).tolist() == [3.0, 4.0, 0.0]
