"""Traits of a week written by hand, and the mixture of users against sums over all users that there can be."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from hf_mobility.tokenization.errors import DataError
from hf_mobility.tokenization.traits import NAMES, TRAIT_SIZES, TRAITS, TraitModel, measure_traits, trait_classes

SIZE = max(TRAIT_SIZES)


def week() -> np.ndarray:
    """At work 9-17 h on three days, once with lunch elsewhere; two evenings out; one outing on the weekend."""
    slots = np.zeros((7, 24), np.int64)
    slots[:3, 9:17] = 1
    slots[0, 12] = 7
    slots[1, 19:21] = 2
    slots[4, 20:23] = 2
    slots[5, 10:12], slots[5, 12:14] = 7, 8
    return slots.reshape(1, -1)


def some_model() -> TraitModel:
    """Two groups in which every trait has two classes, the second with a value 1 above the first."""
    tables, values = np.zeros((2, len(TRAITS), SIZE)), np.full((len(TRAITS), SIZE), np.nan)
    values[:, 1], values[:, 2] = np.arange(10.0), np.arange(10.0) + 1
    for trait in range(len(TRAITS)):
        tables[0, trait, 1:3], tables[1, trait, 1:3] = (0.8, 0.2), (0.3, 0.7)
    return TraitModel(np.array([0.6, 0.4]), tables, values)


def everybody(model: TraitModel) -> tuple[np.ndarray, np.ndarray]:
    """(1024, 10) classes of all users with classes 1 and 2, and their probabilities."""
    users = np.array(list(product((1, 2), repeat=len(TRAITS))))
    by_group = np.prod(model.tables[:, np.arange(len(TRAITS)), users], axis=2)
    return users, model.share @ by_group


def in_units(classes: np.ndarray) -> np.ndarray:
    """(N, 10) measured traits of these classes."""
    return np.stack(
        [np.array([0.0, *trait.edges])[classes[:, j] - trait.optional] for j, trait in enumerate(TRAITS)], axis=1
    )


def test_traits_of_a_week() -> None:
    measured = dict(zip(NAMES, measure_traits(week(), np.array([4.5]))[0]))
    assert measured == {
        **{"arrival": 9.0, "leaving": 17.0, "days_at_work": 3.0, "commute_km": 4.5, "places": 6.0},
        **{"lunches": 1.0, "evenings": 2.0, "weekend_outings": 2.0, "lunch_hour": 12.0, "evening_hour": 19.5},
    }


def test_a_user_who_never_leaves_home_has_no_commute_and_no_clock_hours() -> None:
    measured = measure_traits(np.zeros((1, 168), np.int64), np.array([3.0]))
    none = [column for column, trait in enumerate(TRAITS) if trait.optional]
    assert np.isnan(measured[0, none]).all() and (trait_classes(measured)[0, none] == 0).all()


def test_counts_are_raised_where_hours_are_unknown() -> None:
    slots = week()
    slots.reshape(7, 24)[2:5] = -1  # one of three days at work, and one of two evenings
    measured = dict(zip(NAMES, measure_traits(slots, np.array([4.5]))[0]))
    assert measured["days_at_work"] == pytest.approx(2 / 0.4) and measured["evenings"] == pytest.approx(1 / (4 / 7))


def test_classes_lie_below_their_sizes() -> None:
    measured = np.random.default_rng(0).uniform(0, 30, (500, len(TRAITS)))
    assert (trait_classes(measured).max(axis=0) < TRAIT_SIZES).all()


def test_means_are_those_of_all_users() -> None:
    model = some_model()
    users, chance = everybody(model)
    wanted = chance @ np.take_along_axis(model.values.T, users, axis=0)
    assert list(model.means().values()) == pytest.approx(wanted.tolist())


def test_moved_means_tilt_the_chance_of_every_user() -> None:
    model = some_model()
    moved = model.moved({"arrival": 0.2, "evenings": 6.9})
    assert moved.means()["arrival"] == pytest.approx(0.2) and moved.means()["evenings"] == pytest.approx(6.9)
    users, before = everybody(model)
    after = everybody(moved)[1]
    # log(after / before) must be a sum of a term for each of the two traits
    columns = np.stack([np.ones(len(users)), users[:, 0], users[:, NAMES.index("evenings")]], axis=1)
    rest = np.linalg.lstsq(columns, np.log(after / before), rcond=None)[1]
    assert rest.item() == pytest.approx(0, abs=1e-8)


def test_matched_classes_are_those_of_the_users_and_what_traits_have_to_do_with_each_other_is_kept() -> None:
    model = some_model()
    drawn = np.where(np.random.default_rng(0).random((200, len(TRAITS))) < 0.7, 2, 1)
    found = model.matched(in_units(drawn), min_users=5, prior_users=1e-9)
    shares = np.einsum("g,gjk->jk", found.share, found.tables)
    assert shares[:, 2] == pytest.approx((drawn == 2).mean(axis=0), abs=1e-6)
    users, before = everybody(model)
    after = everybody(found)[1]
    # log(after / before) must be a sum of a term for each trait
    columns = np.concatenate([np.ones((len(users), 1)), users], axis=1)
    rest = np.linalg.lstsq(columns, np.log(after / before), rcond=None)[1]
    assert rest.item() == pytest.approx(0, abs=1e-8)


def test_classes_of_few_users_share_what_they_had() -> None:
    model = some_model()
    drawn = np.full((20, len(TRAITS)), 2, np.int64)
    drawn[:4] = 1
    found = model.matched(in_units(drawn), min_users=5)  # 4 of 20 users have the other class: nothing is told of them
    assert np.allclose(found.tables, model.tables) and np.allclose(found.share, model.share)
    found = model.matched(in_units(drawn), min_users=4, prior_users=1e-9)
    shares = np.einsum("g,gjk->jk", found.share, found.tables)
    assert shares[:, 1:3] == pytest.approx(np.tile([0.2, 0.8], (len(TRAITS), 1)), abs=1e-6)
    nobody = model.matched(in_units(drawn[:4]), min_users=5)
    assert np.allclose(nobody.tables, model.tables) and np.allclose(nobody.share, model.share)
    with pytest.raises(DataError, match="prior_users must be above 0, not 0"):
        model.matched(in_units(drawn), prior_users=0)


def test_the_weeks_of_a_user_count_once_when_classes_are_matched() -> None:
    model = some_model()
    drawn = np.repeat(np.where(np.arange(20)[:, None] < 10, 1, np.full((20, len(TRAITS)), 2)), 3, axis=0)
    users = np.repeat(np.arange(20), 3)
    more = np.concatenate([drawn, np.tile(drawn[:1], (5, 1))]), np.concatenate([users, np.zeros(5, np.int64)])
    one, other = model.matched(in_units(drawn), users=users), model.matched(in_units(more[0]), users=more[1])
    assert np.allclose(one.tables, other.tables) and np.allclose(one.share, other.share)


def test_draws_follow_the_mixture() -> None:
    model = some_model()
    drawn = model.draw(40_000, np.random.default_rng(0))
    users, chance = everybody(model)
    code = (drawn - 1) @ 2 ** np.arange(len(TRAITS))[::-1]
    assert np.abs(np.bincount(code, minlength=1024) / len(drawn) - chance).max() < 0.004
    assert users[code].tolist() == drawn.tolist()


def test_draws_with_a_given_commute_follow_the_rest() -> None:
    model = some_model()
    drawn = model.draw(40_000, np.random.default_rng(0), commute=np.full(40_000, 2))
    near = model.share * model.tables[:, 3, 2]
    wanted = near @ model.tables[:, 0, 2] / near.sum()
    assert (drawn[:, 3] == 2).all() and (drawn[:, 0] == 2).mean() == pytest.approx(wanted, abs=0.01)


def test_a_fit_finds_two_ways_of_life() -> None:
    rng = np.random.default_rng(0)
    drawn = some_model().draw(4_000, rng)
    measured = in_units(drawn)
    model = TraitModel.fit(measured, groups=2, seed=0)
    corr = np.corrcoef(trait_classes(measured).T)
    again = np.corrcoef(model.draw(20_000, rng).T)
    assert np.abs(corr - again)[np.triu_indices(len(TRAITS), 1)].max() < 0.07


def test_classes_of_few_users_are_left_out() -> None:
    measured = np.tile(measure_traits(week(), np.array([4.5])), (60, 1))
    measured[:3, 3] = 20.0  # three users far from work
    model = TraitModel.fit(measured, min_users=5)
    assert (model.tables[:, 3, TRAITS[3].size - 1] == 0).all()
    with pytest.raises(DataError, match="3 users cannot be fitted with min_users=5"):
        TraitModel.fit(measured[:3], min_users=5)


def test_means_out_of_reach_are_refused() -> None:
    with pytest.raises(DataError, match="a mean arrival of 3 is out of reach"):
        some_model().moved({"arrival": 3.0})
    with pytest.raises(DataError, match="unknown trait"):
        some_model().moved({"arrivals": 3.0})


def test_files_give_the_same_distribution_back() -> None:
    model = TraitModel.from_arrays(some_model().to_arrays())
    assert model is not None and np.allclose(model.tables, some_model().tables, atol=1e-6)
    with pytest.raises(DataError, match="no distributions"):
        TraitModel.from_arrays({**some_model().to_arrays(), "trait_tables": np.zeros((2, 8, SIZE), np.float32)})
