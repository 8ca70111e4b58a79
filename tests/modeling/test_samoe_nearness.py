"""Sums over the visits before the last one: as computed one by one, and taken by the model in their place."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from hf_mobility.modeling import modeling_samoe, pointer_samoe
from hf_mobility.modeling.pointer_samoe import nearness

KM = torch.tensor([[0.0, 0.0], [0.0, 0.0], *torch.rand(150, 2, generator=torch.Generator().manual_seed(3)) * 9])


def one_by_one(place_ids: torch.Tensor, km: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(len(place_ids), 3, len(km), dtype=torch.float64)
    for user, ids in enumerate(place_ids.tolist()):
        for place in ids:
            if place > 0:
                distance = (km.double() - km[place].double()).square().sum(-1).sqrt()
                total[user] += torch.exp(-distance / torch.tensor([[0.3], [1.0], [3.0]], dtype=torch.float64))
    return total


@pytest.mark.parametrize("block_values", [1, 2**20])
def test_it_is_the_sum_over_visits(block_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointer_samoe, "BLOCK_VALUES", block_values)
    ids = torch.randint(2, 152, (5, 9), generator=torch.Generator().manual_seed(0))
    ids[1, :6], ids[2], ids[3, 4:] = 0, 0, 7  # padded, no visits, the same place several times
    with torch.no_grad():
        found = nearness(ids, KM)
    torch.testing.assert_close(found.double(), one_by_one(ids, KM), rtol=1e-5, atol=1e-6)
    assert nearness(ids[:, :0], KM).eq(0).all()


@pytest.mark.parametrize("rows", ["one user", "all users"])
@pytest.mark.parametrize("overrides", [{}, {"num_pointer_heads": 4, "activity_features": True}], ids=str)
def test_the_model_takes_it_and_adds_the_last_visit(
    build: SimpleNamespace, overrides: dict, rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rows == "one user":
        monkeypatch.setattr(modeling_samoe, "BLOCK_VALUES", 1)
    model = build.model(**overrides)
    city, visits = build.city(model.config, 40), build.visits(model.config, 40)
    with torch.no_grad():
        table = model.encode_locations(city)
        wanted = model(**visits, location_table=table, logits_to_keep=1).logits
        near = model.nearness(visits["input_ids"][:, :-1], table)
        found = model(**visits, location_table=table, logits_to_keep=1, nearness=near).logits
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(near, model.nearness(visits["input_ids"], table), rtol=1e-5, atol=1e-5)
