"""The order in which the codes of a week are decoded: examples by hand, and what holds for every shape."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hf_mobility.modeling.configuration_mstar import DecodingStep, MstarConfig, decoding_order, max_decoding_steps

lengths_of_levels = st.lists(st.integers(1, 40), min_size=1, max_size=4).map(sorted)
shapes = lengths_of_levels.flatmap(
    lambda lengths: st.tuples(
        st.just(lengths),
        st.tuples(*(st.integers(1, max_decoding_steps(length)) for length in lengths)),
        st.tuples(*(st.integers(1, 15) for _ in lengths)),
    )
)


def test_one_step_is_the_paper() -> None:
    order = decoding_order([1, 3], [1, 1])
    assert order.steps == [DecodingStep(0, 0, 0, 1), DecodingStep(1, 0, 1, 4)] and order.max_steps == 1
    assert order.positions == [0, 1, 2, 3] and order.before == order.after == [4] * 4


def test_two_steps_decode_the_even_positions_and_then_those_between_them() -> None:
    order = decoding_order([1, 5], [1, 2])
    assert order.steps == [DecodingStep(0, 0, 0, 1), DecodingStep(1, 0, 1, 4), DecodingStep(1, 1, 4, 6)]
    assert order.positions == [0, 1, 3, 5, 2, 4]
    assert order.before == [6, 6, 6, 6, 1, 3] and order.after == [6, 6, 6, 6, 3, 5]


def test_each_step_halves_the_distance() -> None:
    order = decoding_order([12], [3])
    assert order.lengths == (3, 3, 6)
    assert order.positions == [0, 4, 8, 2, 6, 10, 1, 3, 5, 7, 9, 11]
    assert order.before[3:] == [0, 4, 8, 0, 2, 4, 6, 8, 10]
    assert order.after[3:] == [4, 8, 12, 2, 4, 6, 8, 10, 12], "12 = none: the week ends"


def test_a_level_takes_no_more_steps_than_it_has_room_for() -> None:
    assert [max_decoding_steps(length) for length in (1, 2, 3, 4, 5, 8, 9, 48)] == [1, 2, 3, 3, 4, 4, 5, 7]
    config = MstarConfig.from_preset("tiny", within_level_steps=9)
    assert config.decoding_order.lengths == (1, 1, 1, 2, 1, 1, 1, 3, 6, 12)
    config = MstarConfig.from_preset("tiny", within_level_steps=[1, 9, 2])
    assert config.decoding_order.lengths == (1, 1, 1, 2, 12, 12)


@given(shapes)
def test_every_code_is_drawn_once_beside_the_nearest_that_were_drawn_before_it(
    shape: tuple[list[int], tuple[int, ...], tuple[int, ...]],
) -> None:
    lengths, steps, spacing = shape
    order, total = decoding_order(lengths, list(steps), list(spacing)), sum(lengths)
    assert sorted(order.positions) == list(range(total)) and sum(order.lengths) == total
    taken = [len(order.of_level(level)) for level in range(len(lengths))]
    assert all(found >= least if apart > 1 else found == least for found, least, apart in zip(taken, steps, spacing))
    assert all(size > 0 for size in order.lengths)
    for step in order.steps:
        together = order.positions[step.start : step.end]
        assert all(b - a >= spacing[step.level] for a, b in pairwise(together))
    for step in order.steps:
        low, high = sum(lengths[: step.level]), sum(lengths[: step.level + 1])
        earlier = {position for position in order.positions[: step.start] if low <= position < high}
        for rank in range(step.start, step.end):
            position = order.positions[rank]
            assert low <= position < high
            assert order.before[rank] == max((i for i in earlier if i < position), default=total)
            assert order.after[rank] == min((i for i in earlier if i > position), default=total)


def test_positions_that_lie_too_near_take_turns() -> None:
    order = decoding_order([12], [3], [6])
    assert order.lengths == (2, 1, 2, 1, 2, 2, 2)
    assert order.positions == [0, 8, 4, 2, 10, 6, 1, 7, 3, 9, 5, 11]
    assert order.after[:6] == [12, 12, 8, 4, 12, 8] and order.before[:6] == [12, 12, 0, 0, 8, 4]


def test_codes_of_each_level_in_a_stretch_of_the_order() -> None:
    order = decoding_order([1, 4, 12], [1, 2, 1])
    assert order.lengths_between(0, 17) == {0: 1, 1: 4, 2: 12}
    assert order.lengths_between(0, 1) == {0: 1} and order.lengths_between(3, 5) == {1: 2}
    assert order.lengths_between(4, 9) == {1: 1, 2: 4} and order.lengths_between(5, 5) == {}
