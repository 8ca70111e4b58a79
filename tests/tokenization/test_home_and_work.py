"""Home and work: one definition for the conditions of M-STAR, the baselines, the privacy report and MATSim plans."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hf_mobility.data.io.exports import matsim_plans
from hf_mobility.tokenization.weeks import commonest_cell, home_and_work

NIGHT, OFFICE = range(0, 8), range(10, 18)


def commonest_by_hand(cells: list[int]) -> int:
    """Most hours; of equal ones the cell that was there first."""
    hours = Counter(cell for cell in cells if cell >= 0)
    return max(hours, key=lambda cell: (hours[cell], -cells.index(cell)), default=-1)


def by_hand(week: list[int], first_weekday: int) -> tuple[int, int]:
    hours = range(len(week))
    whole = len(week) % 168 == 0
    nights = [week[h] for h in hours if h % 24 in NIGHT]
    days = [week[h] for h in hours if h % 24 in OFFICE and (not whole or (first_weekday + h // 24) % 7 < 5)]
    home = commonest_by_hand(nights) if max(nights, default=-1) >= 0 else commonest_by_hand(week)
    return home, commonest_by_hand(days) if max(days, default=-1) >= 0 else home


def a_tie() -> np.ndarray:
    """A week whose nights are half in cell 9, half in cell 2, and begin in cell 9."""
    week = np.full(168, 5)
    week[np.arange(168) % 24 < 4] = 9
    week[(np.arange(168) % 24 >= 4) & (np.arange(168) % 24 < 8)] = 2
    return week[None]


@pytest.mark.parametrize("days", [7, 3])
@pytest.mark.parametrize("first_weekday", [0, 4])
def test_home_and_work_agree_with_a_plain_loop(days: int, first_weekday: int) -> None:
    rng = np.random.default_rng(days)
    weeks = rng.integers(-1, 4, (300, 24 * days))
    weeks[:20] = -1
    weeks[:10, 20] = 3  # one evening is all that is known
    expected = [by_hand(week, first_weekday) for week in weeks.tolist()]
    assert list(zip(*(x.tolist() for x in home_and_work(weeks, first_weekday=first_weekday)))) == expected
    halves = home_and_work(np.repeat(weeks, 2, axis=1), slots_per_day=48, first_weekday=first_weekday)
    assert list(zip(*(x.tolist() for x in halves))) == expected
    assert commonest_cell(weeks).tolist() == [commonest_by_hand(week) for week in weeks.tolist()]


def test_a_tie_goes_to_the_first_visited_cell_in_plans_and_conditions_alike(tmp_path: Path) -> None:
    week = a_tie()
    home, work = home_and_work(week)
    assert (home.tolist(), work.tolist()) == ([9], [5])
    slot = np.arange(168)
    frame = pd.DataFrame({"trajectory_id": 0, "slot": slot, "cell": week[0], "lat": 48.0 + week[0] / 100, "lon": 11.0})
    matsim_plans(frame, tmp_path / "plans.xml", project=lambda lat, lon: (lon, np.round(lat * 100 - 4800)))
    plans = (tmp_path / "plans.xml").read_text()
    kinds = {int(float(y)): kind for kind, y in re.findall(r'type="(\w+)" x="11.0" y="([\d.]+)"', plans)}
    assert kinds == {9: "home", 5: "work", 2: "other"}


def test_weeks_without_a_known_hour_have_no_home() -> None:
    assert [x.tolist() for x in home_and_work(np.full((2, 168), -1))] == [[-1, -1], [-1, -1]]
