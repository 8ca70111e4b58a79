"""What every model keeps through a file: values, types, frozen parts and embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import CASES, Case
from torch import nn

IN_FLOAT32 = {
    "raw": ["model.point_embedding.up_proj", "prediction_head.out_proj"],
    "raw body": ["point_embedding.up_proj"],
    "raw users": ["model.point_embedding.up_proj"],
    "mstar": ["codec.quantiser", "stay_probability", "arrival_share", "return_share"],
    "codec": ["quantiser"],
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.mark.parametrize("shard", ["50GB", "20KB"], ids=["one file", "shards"])
def test_a_saved_model_answers_as_before(case: Case, shard: str, tmp_path: Path) -> None:
    model = case.model()
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "20KB")
    loaded, report = case.model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[part] for part in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(case.answer(loaded), case.answer(model), rtol=0, atol=1e-6)


@pytest.mark.parametrize("keyword", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("name", IN_FLOAT32)
def test_half_precision_leaves_in_float32_what_needs_it(name: str, keyword: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.model().save_pretrained(tmp_path)
    loaded = case.model_class.from_pretrained(tmp_path, **{keyword: torch.bfloat16})
    made = case.model_class._from_config(case.config(), dtype=torch.bfloat16).eval()
    for model in (loaded, made):
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                exact = any(key == part or key.startswith(f"{part}.") for part in IN_FLOAT32[name])
                assert value.dtype == (torch.float32 if exact else torch.bfloat16), key
        assert torch.isfinite(case.answer(model)).any()


def test_parts_named_as_float32_exist(case: Case) -> None:
    model = case.model()
    names = list(model.state_dict())
    for part in model._keep_in_fp32_modules_strict:
        assert any(f".{part}." in f".{name}." for name in names), part


@pytest.mark.parametrize("whole, part", [("samoe", "samoe body"), ("raw", "raw body"), ("raw users", "raw body")])
def test_a_body_is_read_from_a_whole_model_and_the_other_way_round(whole: str, part: str, tmp_path: Path) -> None:
    model = CASES[whole].model()
    model.save_pretrained(tmp_path / "whole")
    body = CASES[part].model_class.from_pretrained(tmp_path / "whole")
    body.save_pretrained(tmp_path / "body")
    again = CASES[whole].model_class.from_pretrained(tmp_path / "body")
    for key, value in model.model.state_dict().items():
        torch.testing.assert_close(body.state_dict()[key], value, rtol=0, atol=0)
        torch.testing.assert_close(again.model.state_dict()[key], value, rtol=0, atol=0)


def test_no_weights_are_tied_and_resizing_tokens_changes_nothing(case: Case) -> None:
    model = case.model()
    if model.get_output_embeddings() is None and not isinstance(model, CASES["codec"].model_class):
        before = {key: value.clone() for key, value in model.state_dict().items()}
        model.resize_token_embeddings(50)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    weights = list(model.parameters())
    assert len({weight.data_ptr() for weight in weights}) == len(weights) and not model.all_tied_weights_keys


def test_input_embeddings_can_be_exchanged(case: Case) -> None:
    model, other = case.model(), nn.Linear(3, 3)
    assert isinstance(model.get_input_embeddings(), nn.Module)
    model.set_input_embeddings(other)
    assert model.get_input_embeddings() is other and other in list(model.modules())


def test_a_frozen_body_stays_frozen_through_a_file(tmp_path: Path) -> None:
    users: Any = CASES["raw users"].model(freeze_encoder=True)
    users.save_pretrained(tmp_path)
    loaded = CASES["raw users"].model_class.from_pretrained(tmp_path).train()
    trained = {name.split(".")[0] for name, weight in loaded.named_parameters() if weight.requires_grad}
    assert trained == {"classifier"} and not loaded.model.training and loaded.classifier.training


def test_what_asks_for_a_vocabulary_is_told_why_there_is_none(case: Case) -> None:
    config = case.config()
    assert not hasattr(config, "vocab_size") and getattr(config, "vocab_size", None) is None
    with pytest.raises(AttributeError, match=f"{type(config).__name__} has no vocab_size, as "):
        _ = config.get_text_config().vocab_size
    with pytest.raises(AttributeError, match="object has no attribute 'colour'"):
        _ = config.colour
