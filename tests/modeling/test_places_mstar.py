"""The place head against sums over all places of a small city."""

from __future__ import annotations

import pytest
import torch

from hf_mobility.modeling import places_mstar
from hf_mobility.modeling.configuration_mstar import MstarConfig
from hf_mobility.modeling.places_mstar import CityPlaces, MstarPlaces

POI, PLACES = 4, 40


def make_head() -> MstarPlaces:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = MstarPlaces(MstarConfig.from_preset("tiny", num_poi_features=POI))
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    return head


def make_features(places: int = PLACES) -> torch.Tensor:
    source = torch.Generator().manual_seed(1)
    features = torch.rand(places + 2, POI + 5, generator=source)
    features[:, POI + 2] = torch.randint(1, 10, (places + 2,), generator=source).float()
    features[:, -2:] = torch.rand(places + 2, 2, generator=source) * 5
    return features


HEAD = make_head()
CITY = HEAD.read_city(make_features())
CONTEXTS = [(0, -1, -1, -1), (1, 3, -1, -1), (2, 3, 8, 5), (3, 3, 8, 8), (3, 3, -1, 3)]


def chances(head: MstarPlaces, city: CityPlaces, context: tuple[int, ...]) -> torch.Tensor:
    """(P,) probability of every place in one context."""
    kind, *origins = (torch.full((PLACES,), value) for value in context)
    return head.log_probability(city, kind, torch.arange(PLACES), *origins).exp().detach()


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
def test_probabilities_sum_to_one_over_the_places_that_are_open(context: tuple[int, ...]) -> None:
    found = chances(HEAD, CITY, context)
    closed = {place for place in context[1:] if place >= 0}
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert all((found[place] < 1e-6) == (place in closed) for place in range(PLACES))


def test_homes_follow_the_appeal_alone() -> None:
    assert torch.allclose(chances(HEAD, CITY, CONTEXTS[0]), HEAD.appeals(CITY, 0).float(), atol=1e-6)


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
def test_choices_are_drawn_by_their_probabilities(context: tuple[int, ...]) -> None:
    count = 30_000
    kind, *origins = (torch.full((count,), value) for value in context)
    numbers = torch.rand(count, 3, generator=torch.Generator().manual_seed(0))
    drawn = HEAD.choose(CITY, kind, *origins, numbers).bincount(minlength=PLACES) / count
    assert torch.allclose(drawn, chances(HEAD, CITY, context), atol=0.012)


def test_chunked_choices_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    kind, home = torch.arange(1, 4).repeat(20), torch.arange(60) % PLACES
    given = kind, home, (home + 1) % PLACES, (home + 2) % PLACES, torch.rand(60, 3)
    whole = HEAD.choose(CITY, *given)
    monkeypatch.setattr(places_mstar, "SCORES_AT_ONCE", 1)
    assert torch.equal(HEAD.choose(CITY, *given), whole)


def test_the_order_of_the_places_plays_no_part() -> None:
    features, order = make_features(), torch.randperm(PLACES, generator=torch.Generator().manual_seed(3))
    other = HEAD.read_city(torch.cat([features[:2], features[2:][order]]))
    back = order.argsort()
    context = CONTEXTS[2]
    moved = (context[0], *(int(back[place]) for place in context[1:]))
    assert torch.allclose(chances(HEAD, other, moved)[back], chances(HEAD, CITY, context), atol=1e-5)


def test_every_place_is_in_one_cell_of_one_zone() -> None:
    zones, cells, places = CITY.levels
    assert zones.size.sum() == cells.size.sum() == places.size.sum() == PLACES
    assert torch.equal(CITY.ids[CITY.rank], torch.arange(PLACES))
    for above, below in ((zones, cells), (cells, places)):
        assert torch.equal(
            torch.zeros(len(above.size), dtype=torch.int64).index_add(0, below.parent, below.size), above.size
        )


def test_a_city_of_two_places_leaves_the_other_one() -> None:
    city = HEAD.read_city(make_features(2))
    one = torch.zeros(5, dtype=torch.int64)
    assert HEAD.choose(city, one + 2, one, one - 1, one, torch.rand(5, 3)).tolist() == [1] * 5


def test_gradients_reach_every_weight() -> None:
    head = make_head()
    kind, *origins = (torch.tensor(column) for column in zip(*CONTEXTS))
    city = head.read_city(make_features())
    (-head.log_probability(city, kind, torch.tensor([1, 2, 4, 6, 7]), *origins).sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in head.parameters())


def test_a_table_of_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match=r"location_features must be \(P \+ 2, 9\), with distances"):
        HEAD.read_city(torch.zeros(5, 7))
