"""The encoded city is kept while the weights stay, and made again whatever changes them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from hf_mobility import SamoeTokenizer
from hf_mobility.pipelines.encoded_city import EncodedCity


@pytest.fixture
def world(toy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    _, city = toy.city(4)
    base = toy.model().eval()
    features = SamoeTokenizer.from_city(city, base.config).location_features
    rows: list[int] = []
    encode = type(base).encode_locations

    def counted(self: Any, features: torch.Tensor) -> Any:
        rows.append(len(features))
        return encode(self, features)

    monkeypatch.setattr(type(base), "encode_locations", counted)
    return SimpleNamespace(base=base, features=features, rows=rows, encoded=EncodedCity(features, base.config))


def table(world: SimpleNamespace, model: Any) -> torch.Tensor:
    """What is scored with, which must be that of the weights as they are."""
    with torch.no_grad():
        found = world.encoded.table(model).embeddings
        assert torch.equal(found, model.encode_locations(world.features).embeddings)
    return found


def test_a_city_is_encoded_once(world: SimpleNamespace) -> None:
    with torch.no_grad():
        first = world.encoded.table(world.base)
        assert world.encoded.table(world.base) is first
    assert world.rows.count(len(world.features)) == 1


def test_every_weight_of_the_encoder_is_noticed(world: SimpleNamespace) -> None:
    before = table(world, world.base)
    names = [name for name, _ in world.base.named_parameters() if "location_encoder" in name]
    assert names
    for name in names:
        parameter = world.base.get_parameter(name)
        for row in range(len(parameter)):
            kept = parameter.data[row].clone()
            parameter.data[row] += 0.05  # without a trace in the version of the parameter
            changed = table(world, world.base)
            parameter.data[row] = kept
            assert torch.equal(table(world, world.base), before), (name, row)
            del changed


def test_adapters_are_noticed_when_merged_switched_or_turned_off(world: SimpleNamespace) -> None:
    plain = table(world, world.base)
    targets = [name for name, module in world.base.named_modules() if "deep_up" in name and hasattr(module, "weight")]
    adapted = get_peft_model(world.base, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM")).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.3)
    with_adapter = table(world, adapted)
    assert not torch.equal(with_adapter, plain)
    with adapted.disable_adapter():
        assert torch.equal(table(world, adapted), plain)
    adapted.merge_adapter()
    torch.testing.assert_close(table(world, adapted), with_adapter)
    adapted.unmerge_adapter()
    torch.testing.assert_close(table(world, adapted), with_adapter)
