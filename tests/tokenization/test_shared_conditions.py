"""Files of M-STAR's conditions list what several people share: tables are compared with a count over the weeks."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.tokenization.conditions_mstar import ConditionTables
from hf_mobility.tokenization.tokenization_mstar import MstarTokenizer

BOX = (47.9, 10.9, 48.1, 11.2)
CELLS, CLASSES = 30, 3
CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"


def make_tokenizer() -> MstarTokenizer:
    return MstarTokenizer.from_grid(BOX, timezone="Europe/Berlin", rows=6, columns=5, factors=(4, 2, 1))


def week(home: int, work: int) -> np.ndarray:
    """Nights at home, working hours at work."""
    hour = np.arange(168)
    return np.where((hour % 24 >= 10) & (hour % 24 < 18) & (hour < 120), work, home)


def town(people: dict[tuple[int, int], int], weeks: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """`weeks` weeks of each of so many people per pair (home, work), and whose they are."""
    pairs = [pair for pair, number in people.items() for _ in range(number)]
    cells = np.array([week(*pair) for pair in pairs for _ in range(weeks)])
    return cells, np.repeat([f"u{number}" for number in range(len(pairs))], weeks)


def fitted(cells: np.ndarray, users: Any) -> MstarTokenizer:
    tokenizer = make_tokenizer()
    tokenizer.fit_conditions(cells, users=users, method="distinct_cells", num_attributes=CLASSES)
    return tokenizer


def saved(tokenizer: MstarTokenizer, folder: Path, **options: Any) -> MstarTokenizer:
    tokenizer.save_pretrained(folder, **options)
    return MstarTokenizer.from_pretrained(folder)


COMMON = {(3, 8): 6, (14, 8): 5, (3, 3): 7}


def test_the_weeks_of_one_person_are_one_person(tmp_path: Path) -> None:
    """Forty weeks of one person pass no threshold of five people."""
    cells, users = town(COMMON)
    alone = np.array([week(20, 21)] * 40)
    tokenizer = fitted(np.concatenate([cells, alone]), [*users, *["alone"] * 40])
    assert [20, 21, 40] in tokenizer.conditions.pairs.tolist() and tokenizer.conditions.home_counts[0, 20] == 40
    tables = saved(tokenizer, tmp_path).conditions
    assert tables.pairs.tolist() == [[3, 8, 6], [14, 8, 5]] and tables.pair_users.tolist() == [6, 5]
    assert tables.home_counts[:, 20].tolist() == [0, 0] and tables.home_users[:, 3].tolist() == [6, 7]
    assert [20, 21, 40] in tokenizer.conditions.pairs.tolist()  # memory keeps everything


def test_min_users_is_an_option_of_saving(tmp_path: Path) -> None:
    cells, users = town({**COMMON, (20, 21): 2}, weeks=3)
    tokenizer = fitted(cells, users)
    everything = saved(tokenizer, tmp_path / "1", min_users=1)
    wanted, found = (one.sample_conditions(500, seed=3) for one in (tokenizer, everything))
    assert all(np.array_equal(wanted[name], found[name]) for name in wanted)
    assert saved(tokenizer, tmp_path / "6", min_users=6).conditions.pairs[:, :2].tolist() == [[3, 8]]
    assert saved(everything, tmp_path / "5").conditions.pairs[:, :2].tolist() == [[3, 8], [14, 8]]
    with pytest.raises(
        ValueError, match=r"min_users=9 leaves no home or .* at most 7 people share a home and 6 a pair"
    ):
        tokenizer.save_pretrained(tmp_path / "9", min_users=9)
    assert not (tmp_path / "9").exists()
    with pytest.raises(ValueError, match="min_users must be a whole number from 1 on, got 0"):
        tokenizer.save_pretrained(tmp_path / "0", min_users=0)


def test_without_users_each_week_counts_as_another_persons(tmp_path: Path) -> None:
    cells, _ = town({(3, 8): 1, (14, 8): 1}, weeks=5)
    tokenizer = fitted(cells, None)
    assert not tokenizer.conditions.knows_people
    assert saved(tokenizer, tmp_path).conditions.pairs.tolist() == [[3, 8, 5], [14, 8, 5]]
    with pytest.raises(ValueError, match=r"at most 5 weeks \(nobody knows of how many people\) share a home"):
        tokenizer.save_pretrained(tmp_path, min_users=6)


def test_records_and_weeks_say_whose_they_are() -> None:
    cells, users = town({(3, 8): 2, (14, 8): 1}, weeks=2)
    tokenizer = make_tokenizer()
    rows = np.repeat(np.arange(len(cells)), 168)
    frame = {"user_id": users[rows], "trajectory_id": rows, "slot": np.tile(np.arange(168), len(cells))}
    frame["cell"] = cells.reshape(-1)
    for data in (frame, tokenizer.weeks(frame)):
        report = tokenizer.fit_conditions(data, method="distinct_cells", num_attributes=CLASSES)
        assert report["users"] == 3 and tokenizer.conditions.pair_users.tolist() == [2, 1]
    with pytest.raises(ValueError, match="users names 2 people for 6 weeks"):
        tokenizer.fit_conditions(cells, users=["a", "b"], method="distinct_cells", num_attributes=CLASSES)


def test_a_group_without_shared_homes_lives_where_the_others_do(tmp_path: Path) -> None:
    """Five people work at home, each elsewhere: their share is kept, their homes are not."""
    cells, users = town({(3, 8): 6, **{(cell, cell): 1 for cell in range(20, 25)}})
    loaded = saved(fitted(cells, users), tmp_path)
    assert loaded.conditions.same_share == 5 / 11 and not loaded.conditions.home_counts[1].any()
    drawn = loaded.sample_conditions(300, seed=0)
    assert set(drawn["home_ids"]) == {3} and 0 < (drawn["home_ids"] == drawn["work_ids"]).mean() < 1
    cells, users = town({(3, 8): 6, (20, 20): 1})  # one alone is not even a share
    assert saved(fitted(cells, users), tmp_path).conditions.same_share == 0.0


WEEKS = st.lists(st.tuples(*(st.integers(0, limit) for limit in (11, 5, 5, 2))), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(WEEKS, st.integers(1, 4), st.integers(0, 29))
def test_everything_listed_is_shared(weeks: list[tuple[int, int, int, int]], least: int, home: int) -> None:
    """Each week is looked up in the finest count that lists it; people are counted there."""
    person, home_ids, work_ids, kind = np.array(weeks).T
    home_ids, work_ids = home_ids * 5 + 1, work_ids * 4 + 2
    cell_map = make_tokenizer().cell_map
    whole = ConditionTables.fit(
        home_ids, work_ids, kind, users=person.astype(str), num_cells=CELLS, num_attributes=CLASSES
    )
    try:
        tables = whole.shared_by(least, cell_map)
    except ValueError:
        return
    left, found = set(range(len(weeks))), {}
    left -= set(np.flatnonzero(home_ids == work_ids))
    for level in (2, 1, 0, -1):
        at: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row in left:
            near = np.flatnonzero(cell_map[:, level] == cell_map[home_ids[row], level]) if level >= 0 else [0]
            at[int(near[0]), int(work_ids[row])].append(row)
        shared = {pair: rows for pair, rows in at.items() if len(set(person[rows])) >= least}
        found |= {(level, *pair): (len(rows), len(set(person[rows]))) for pair, rows in shared.items()}
        left -= {row for rows in shared.values() for row in rows}
    listed = zip(tables.pair_levels.tolist(), tables.pairs.tolist(), tables.pair_users.tolist())
    assert {(level, a, b): (n, people) for level, (a, b, n), people in listed} == found
    for row, group in ((0, home_ids != work_ids), (1, home_ids == work_ids)):
        for ids, counts, users in (
            (home_ids, tables.home_counts, tables.home_users),
            (kind, tables.attribute_counts, tables.attribute_users),
        ):
            for value in range(counts.shape[1]):
                people = len(set(person[group & (ids == value)]))
                wanted = (int((group & (ids == value)).sum()), people) if people >= least else (0, 0)
                assert (counts[row, value], users[row, value]) == wanted
    p = tables.work_probabilities(home, cell_map)
    assert abs(p.sum() - 1) < 1e-9 and p[home] == 0
    again = tables.shared_by(least, cell_map)  # nothing more is lost or counted twice
    assert sorted(again.pairs.tolist()) == sorted(tables.pairs.tolist())


def test_pooled_pairs_are_drawn_around_the_home_only() -> None:
    """Five people of one coarse cell work in cell 29; nobody of the other corner does."""
    cells, users = town({**{(home, 29): 1 for home in (0, 1, 2, 5, 6)}, (28, 20): 5})
    tokenizer = fitted(cells, users)
    shared = tokenizer.conditions.shared_by(5, tokenizer.cell_map)
    assert shared.pairs.tolist() == [[28, 20, 5], [0, 29, 5]] and shared.pair_levels.tolist() == [2, 0]
    near, far = (shared.work_probabilities(home, tokenizer.cell_map)[29] for home in (7, 28))
    city = 0.5
    assert near == pytest.approx((5 + 5 * city) / 10)  # the coarse cell; the finer ones know nothing
    assert far == pytest.approx(city * (5 / 10) ** 3)


def test_tables_of_earlier_releases_load_and_draw_as_before() -> None:
    tokenizer = MstarTokenizer.from_pretrained(CHECKPOINTS / "mstar-cells-small")
    assert not tokenizer.conditions.knows_people
    drawn = tokenizer.sample_conditions(1000, seed=0)
    assert {name: int(ids.sum()) for name, ids in drawn.items()} == {
        "home_ids": 132403,
        "work_ids": 142756,
        "attribute_ids": 1744,
    }
