"""Diaries against one loop over hours, written from the definition of slots."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hf_mobility.tokenization.diaries import KIND_OF_SLOT, SLOT_MAP, Stays, to_places, to_slots

WEEKS = arrays(np.int64, (3, 72), elements=st.integers(-1, 9))


def slots_by_hand(week: list[int], home: int, work: int) -> list[int]:
    days: dict[int, set[int]] = {}
    for hour, place in enumerate(week):
        if place >= 0 and place not in (home, work):
            days.setdefault(place, set()).add(hour // 24)
    often = [place for place, seen in days.items() if len(seen) > 1]
    often.sort(key=lambda place: (-week.count(place), week.index(place)))
    slots, last_slot, last_place = [], -1, -1
    for place in week:
        if place < 0:
            slots.append(-1)
            continue
        if place in (home, work):
            slot = 0 if place == home else 1
        elif place in often[:5]:
            slot = 2 + often.index(place)
        elif place == last_place:
            slot = last_slot
        else:
            slot = 8 if last_slot == 7 else 7
        slots.append(slot)
        last_slot, last_place = slot, place
    return slots


@given(WEEKS)
def test_slots_are_those_of_the_definition(places: np.ndarray) -> None:
    home, work = np.array([0, 1, 2]), np.array([1, 1, 0])
    slots = to_slots(places, home, work)
    wanted = [slots_by_hand(week.tolist(), *pair) for week, *pair in zip(places, home.tolist(), work.tolist())]
    assert slots.tolist() == wanted


@given(WEEKS)
def test_places_of_stays_give_the_weeks_back(places: np.ndarray) -> None:
    slots = to_slots(places, np.array([0, 1, 2]), np.array([1, 1, 0]))
    stays = Stays.of_weeks(places)
    assert Stays.of_weeks(slots).of_hour.tolist() == stays.of_hour.tolist()
    assert np.array_equal(to_places(slots, stays.value), places)


def test_unknown_hours_between_the_same_place_do_not_end_a_stay() -> None:
    stays = Stays.of_weeks(np.array([[5, -1, 5, 6, -1, -1], [6, 6, -1, 5, 5, 5]]))
    assert stays.row.tolist() == [0, 0, 1, 1] and stays.value.tolist() == [5, 6, 6, 5]
    assert stays.first.tolist() == [0, 3, 0, 3] and stays.last.tolist() == [2, 3, 1, 5]
    assert stays.follow().tolist() == [False, True, False, True]


def test_resolutions_are_nested() -> None:
    for fine, coarse in ((2, 1), (1, 0)):
        assert all(len(set(SLOT_MAP[SLOT_MAP[:, fine] == value, coarse])) == 1 for value in SLOT_MAP[:, fine])
    assert SLOT_MAP[:, 1].tolist() == KIND_OF_SLOT.tolist()
