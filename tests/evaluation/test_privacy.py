"""The numbers of the privacy audit, counted by hand on weeks of one day and on a handful of visits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hf_mobility.data import DataError
from hf_mobility.evaluation import audit
from hf_mobility.evaluation.privacy import SAMPLE, nearest_distance, unicity, unique_pairs
from hf_mobility.tokenization.tokenization_mstar import MstarTokenizer


def day(home: int, work: int, **other: int) -> list[int]:
    """24 hours at home, but for 10 to 17 at work; `h20=5` puts hour 20 elsewhere."""
    hours = [work if 10 <= hour < 18 else home for hour in range(24)]
    for name, cell in other.items():
        hours[int(name[1:])] = cell
    return hours


TRAIN = np.array([day(0, 1), day(0, 1), day(0, 2), day(3, 1)])
USERS = np.array(["a", "a", "b", "c"])
MADE = np.array([day(0, 1), day(0, 2, h20=5), day(4, 4)])
REAL = np.array([day(0, 1, h8=5), day(7, 8)])


def values(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    return {row.measure: (row.value, row.reference) for row in table.itertuples()}


def test_copies_distances_and_pairs_stand_beside_those_of_unseen_people() -> None:
    found = values(audit(MADE, train=TRAIN, held_out=REAL, train_users=USERS))
    assert found["copied weeks"] == (0.5, 0.0)  # of the two generated days with a move
    # Distances are 0, 1/24, 1 for the generated days, and 1/24, 1 for the held-out ones.
    assert found["distance to training, median"] == pytest.approx((1 / 24, (1 / 24 + 1) / 2))
    assert found["distance to training, nearest 5 %"] == pytest.approx((0.1 / 24, 1 / 24 + 0.05 * 23 / 24))
    assert found["nearer than held-out"] == pytest.approx(((1 + 1 + 0.5 + 1 + 0 + 0.5) / 6, 0.5))
    # (0, 1) and (0, 2) belong to one person each; nobody has (4, 4) or (7, 8).
    assert found["unique home and work"] == pytest.approx((2 / 3, 1 / 2))


def test_without_people_every_training_week_is_another_persons() -> None:
    found = values(audit(MADE, train=TRAIN, held_out=REAL))
    assert found["unique home and work"] == pytest.approx((1 / 3, 0.0))
    assert unique_pairs(MADE, TRAIN, USERS).tolist() == [True, True, False]


def test_distances_agree_with_comparing_every_pair_of_weeks() -> None:
    rng = np.random.default_rng(0)
    weeks, train = rng.integers(-1, 3, (40, 24)), rng.integers(-1, 3, (70, 24))
    known = weeks[:, None] >= 0
    different = (weeks[:, None] != train[None]) & known
    expected = (different.sum(-1) / known.sum(-1)).min(1)
    np.testing.assert_allclose(nearest_distance(weeks, train), expected)


def test_copying_the_training_weeks_is_seen() -> None:
    table = audit(TRAIN, train=TRAIN, held_out=REAL)
    found = values(table)
    assert found["copied weeks"][0] == 1.0
    assert found["distance to training, median"][0] == 0.0
    assert found["nearer than held-out"][0] == 1.0
    assert table["sentence"][0].startswith("100.0 % of the generated weeks with a move")


def test_weeks_of_unseen_people_are_neither_nearer_nor_farther() -> None:
    rng = np.random.default_rng(1)
    people = rng.integers(0, 4, (600, 24))
    found = values(audit(people[:200], train=people[200:400], held_out=people[400:]))
    assert found["nearer than held-out"][0] == pytest.approx(0.5, abs=0.1)


def test_a_long_frame_of_weeks_is_the_same_as_its_array_and_gaps_of_the_real_weeks_are_hidden() -> None:
    long = pd.DataFrame(
        {"trajectory_id": np.repeat([0, 1, 2], 24), "slot": np.tile(np.arange(24), 3), "cell": MADE.ravel()}
    )
    expected = audit(MADE, train=TRAIN, held_out=REAL)
    pd.testing.assert_frame_equal(audit(long.sample(frac=1, random_state=0), train=TRAIN, held_out=REAL), expected)
    gaps = REAL.copy()
    gaps[:, 20] = -1  # where the second generated day differs from the training day
    assert values(audit(MADE, train=TRAIN, held_out=gaps))["distance to training, median"][0] == 0.0


def visits(rows: list[tuple[int, str, int]]) -> pd.DataFrame:
    user, place, hour = zip(*rows)
    time = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(np.array(hour) * 60 + 7, unit="min")
    return pd.DataFrame({"user_id": user, "time": time, "location_id": place, "lat": 48.0, "lon": 11.0})


ROWS = [(1, "a", 0), (1, "b", 1), (1, "c", 2), (2, "a", 0), (2, "b", 1), (2, "c", 3), (3, "a", 0), (3, "a", 0)]


def test_rare_locations_and_who_was_there_are_counted() -> None:
    found = values(audit(visits([*ROWS, (3, "d", 9)]), min_users=3))
    assert found["rare locations"] == (3 / 4, 0.0)  # a has three people; b, c and d fewer
    assert found["people at rare locations"] == (1.0, 0.0)
    found = values(audit(visits(ROWS), min_users=2))
    assert found["rare locations"] == (0.0, 0.0)
    with pytest.warns(FutureWarning, match="min_people is now min_users"):
        assert values(audit(visits(ROWS), min_people=3))["rare locations"] == (2 / 3, 0.0)


def test_points_single_out_whom_nobody_else_shares_them_with() -> None:
    table = audit(visits(ROWS))
    found = values(table)
    # Two people have three points, (a, 0) and (b, 1) and one of their own; the third has one.
    assert found["unicity, 3 points"][0] == 1.0
    assert np.isnan(found["unicity, 4 points"][0])
    assert found["unicity, 4 points"][1] == 0.95
    assert table["sentence"].iloc[-2].startswith("3 random points (location and hour) single out 100.0 % of 2 people")


def test_unicity_is_the_mean_over_all_choices_of_points() -> None:
    user = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    point = np.array([0, 1, 2, 0, 1, 3, 0, 1])
    # Of the three pairs of persons 0 and 1 two are theirs alone; the pair of person 2 is everybody's.
    drawn = [unicity(user, point, points=2, seed=seed) for seed in range(400)]
    assert {people for _, people in drawn} == {3}
    assert np.mean([share for share, _ in drawn]) == pytest.approx(4 / 9, abs=0.03)
    assert unicity(user, point, points=2, seed=5) == unicity(user[::-1], point[::-1], points=2, seed=5)


def test_of_many_people_a_sample_is_drawn_and_compared_with_all() -> None:
    user = np.arange(3 * SAMPLE)
    assert unicity(user, user // 2, points=1) == (0.0, SAMPLE)
    assert unicity(user, user, points=1) == (1.0, SAMPLE)


def test_the_callers_data_are_not_changed_and_shuffled_rows_give_the_same_table() -> None:
    frame = visits(ROWS)
    before = frame.copy(deep=True)
    table = audit(frame)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(audit(frame.sample(frac=1, random_state=1)), table)
    copy = MADE.copy()
    audit(MADE, train=TRAIN, held_out=REAL)
    assert (copy == MADE).all()


def test_requests_that_make_no_sense_are_answered_by_one_sentence() -> None:
    with pytest.raises(ValueError, match="give train= and held_out="):
        audit(MADE, train=TRAIN)
    with pytest.raises(ValueError, match="belong to weeks"):
        audit(visits(ROWS), held_out=REAL)
    with pytest.raises(ValueError, match="at least 2"):
        audit(visits(ROWS), min_users=1)
    with pytest.raises(DataError, match="24 are needed"):
        audit(MADE[:, :12], train=TRAIN, held_out=REAL)
    with pytest.raises(DataError, match="one person for each of the 4 weeks"):
        audit(MADE, train=TRAIN, held_out=REAL, train_users=USERS[:2])
    with pytest.raises(DataError, match="location_id"):
        audit(visits(ROWS).drop(columns="location_id"))
    with pytest.raises(DataError, match="No hour is known"):
        audit(np.full((2, 24), -1), train=TRAIN, held_out=REAL)


CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"


def test_a_folder_is_audited_for_what_its_city_lists(tmp_path: Path) -> None:
    """Two people live in cell 0 and work in cell 3, one lives and works in cell 2."""
    tokenizer = MstarTokenizer.from_grid(
        (47.9, 10.9, 48.1, 11.2), timezone="Europe/Berlin", rows=2, columns=2, factors=(1,)
    )
    hour = np.arange(168)
    away = np.where((hour % 24 >= 10) & (hour % 24 < 18), 3, 0)
    cells, people = np.stack([away, away, away, np.full(168, 2)]), ["a", "a", "b", "c"]
    tokenizer.fit_conditions(cells, users=people, method="distinct_cells", num_attributes=2)
    tokenizer.save_pretrained(tmp_path, min_users=1)
    table = audit(tmp_path, min_users=2)
    assert dict(zip(table["measure"], table["value"])) == {
        "places": 0, "visited places": 0, "homes": 2, "rare homes": 1, "pairs of home and work": 1,
        "rare pairs of home and work": 0, "movement classes": 2, "rare movement classes": 1, "typical weeks": 0,
    }  # fmt: skip
    assert "1 of 2 homes are of fewer than 2 people." in table["sentence"].tolist()
    tokenizer.save_pretrained(tmp_path, min_users=2)
    found = values(audit(str(tmp_path), min_users=2))
    assert found["homes"][0] == 1 and all(value == 0 for name, (value, _) in found.items() if name.startswith("rare "))


def test_a_folder_of_an_earlier_release_is_audited_by_weeks() -> None:
    sentences = audit(CHECKPOINTS / "mstar-cells-small", min_users=2)["sentence"].tolist()
    assert (
        "10 of 710 pairs of home and work are of fewer than 2 weeks, the files do not say of how many people."
        in sentences
    )
    found = values(audit(CHECKPOINTS / "samoe-small"))
    assert found["places"][0] == 400 and found["visited places"][0] == 380


def test_a_folder_without_a_city_cannot_be_audited(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no city"):
        audit(tmp_path)
    with pytest.raises(ValueError, match="belong to weeks"):
        audit(tmp_path, train=TRAIN)
