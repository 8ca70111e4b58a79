"""Saving and loading M-STAR: one folder holds transformer and codec, in a new process, with missing keys, in half
precision, and under LoRA.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_mobility.modeling.configuration_mstar import MstarCodecConfig, MstarConfig
from hf_mobility.modeling.modeling_mstar import MstarForTrajectoryGeneration

PEOPLE = (torch.tensor([3, 0, 15]), torch.tensor([3, 9, 1]), torch.tensor([0, 7, 4]))
SETTINGS: dict[str, Any] = {
    "within_level_steps": [1, 2, 3],
    "condition_dropout": 0.1,
    "guidance": 1.5,
    "temperature": [1.0, 0.9, 0.8],
    "top_k": 4,
    "decoding": "sample",
}


def make_model(**overrides: Any) -> MstarForTrajectoryGeneration:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny", **overrides)).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.2)
        model.fit_transition(torch.randint(0, 3, (50, 24)))
    return model


def test_a_configuration_survives_a_round_trip(tmp_path: Path) -> None:
    config = MstarConfig.from_preset("tiny", **SETTINGS)
    config.save_pretrained(tmp_path)
    loaded = MstarConfig.from_pretrained(tmp_path)
    assert type(loaded.codec_config) is type(config.codec_config)
    found, wanted = loaded.to_dict(), config.to_dict()
    for values in (found, wanted):
        values.pop("_name_or_path", None)
    assert found == wanted


def test_one_folder_loaded_in_a_new_process_draws_the_same_weeks(
    tmp_path: Path, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    model = make_model(**SETTINGS)
    model.save_pretrained(tmp_path)
    people = [values.tolist() for values in PEOPLE]
    code = (
        "import torch\n"
        "from hf_mobility.modeling.modeling_mstar import MstarForTrajectoryGeneration\n"
        f"model = MstarForTrajectoryGeneration.from_pretrained({str(tmp_path)!r})\n"
        f"print(model.generate(*{people}, generator=torch.Generator().manual_seed(7)).tolist())\n"
    )
    found = run_python("-c", code).stdout.strip().splitlines()[-1]
    assert found == str(model.generate(*PEOPLE, generator=torch.Generator().manual_seed(7)).tolist())


def test_every_value_survives_and_the_codec_comes_back_frozen(tmp_path: Path) -> None:
    model = make_model(**SETTINGS)
    model.save_pretrained(tmp_path)
    loaded = MstarForTrajectoryGeneration.from_pretrained(tmp_path)
    buffers, wanted = dict(loaded.named_buffers()), dict(model.named_buffers())
    assert buffers.keys() == wanted.keys() and all(torch.equal(buffers[name], wanted[name]) for name in wanted)
    parameters = dict(loaded.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameters[name], parameter)
        assert parameters[name].requires_grad == parameter.requires_grad
    assert not any(p.requires_grad for p in loaded.codec.parameters())
    assert not loaded.train().codec.training


@pytest.mark.parametrize(
    "missing",
    [
        *("slot_embedding", "start", "conditions.null", "sides_proj.weight"),
        *("stay_probability", "arrival_share", "return_share"),
    ],
)
@pytest.mark.usefixtures("torn_weights_are_read")
def test_a_missing_value_gets_its_initial_one_and_nothing_else_moves(tmp_path: Path, missing: str) -> None:
    model = make_model(**SETTINGS)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[missing]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = MstarForTrajectoryGeneration.from_pretrained(tmp_path).state_dict()
    if missing in ("conditions.null", "sides_proj.weight"):
        assert 0 < loaded[missing].abs().max() < 0.2
    else:
        assert not loaded[missing].any()
    for name, value in model.state_dict().items():
        assert name == missing or torch.equal(loaded[name], value)


def test_half_precision_keeps_the_quantizer_and_the_chances_of_the_smoothing_exact(tmp_path: Path) -> None:
    model = make_model(**SETTINGS)
    model.save_pretrained(tmp_path)
    half = MstarForTrajectoryGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.slot_embedding.dtype == half.lm_head.weight.dtype == torch.bfloat16
    for name in ("stay_probability", "arrival_share", "return_share"):
        assert torch.equal(getattr(half, name), getattr(model, name))
    assert torch.equal(half.codec.quantiser.codebook.weight, model.codec.quantiser.codebook.weight)
    cells = half.generate(*PEOPLE)
    assert cells.shape == (3, 24) and cells.min() >= 0 and cells.max() < 16
    loss = half.train()(torch.randint(0, 32, (3, 29)), *PEOPLE).loss
    loss.backward()
    assert loss.isfinite()


def test_lora_trains_the_transformer_and_leaves_the_codec_alone(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = make_model()
    codes = torch.randint(0, 32, (3, 29))
    config = peft.LoraConfig(r=2, target_modules=["qkv_proj", "lm_head"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config).train()
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert len(trained) == 6 and not any("codec" in name for name in trained)
    adapted(codes, *PEOPLE).loss.backward()
    assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)
    wanted = adapted.eval()(codes, *PEOPLE).logits
    adapted.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(make_model(), tmp_path)
    torch.testing.assert_close(loaded(codes, *PEOPLE).logits, wanted)


def test_names_of_older_configurations_still_load() -> None:
    codec = {**MstarCodecConfig.from_preset("tiny", num_encoder_layers=0).to_dict(), "nested_cells": True}
    codec.pop("hierarchical_cells")
    config = MstarConfig.from_preset("tiny", codec_config=codec, copy_places=True, own_codes=0.25)
    assert config.pointer_head and config.scheduled_sampling == 0.25 and config.codec.hierarchical_cells
    assert not {"copy_places", "own_codes"} & config.to_dict().keys()
    assert "nested_cells" not in config.codec.to_dict()


def test_commute_ids_still_serve_as_work_ids() -> None:
    model = MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny")).eval()
    ids = torch.tensor([1, 2])
    given = {"code_ids": torch.zeros(2, 29, dtype=torch.int64), "home_ids": ids, "attribute_ids": ids}
    with pytest.warns(FutureWarning, match="commute_ids is now work_ids"):
        old = model(**given, commute_ids=ids + 3).logits
    assert torch.equal(old, model(**given, work_ids=ids + 3).logits)
    with pytest.warns(FutureWarning, match="commute_ids is now work_ids"):
        old = model.generate(ids, commute_ids=ids, attribute_ids=ids, generator=torch.Generator().manual_seed(0))
    assert torch.equal(old, model.generate(ids, ids, ids, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="two names of one argument"):
        model(**given, work_ids=ids, commute_ids=ids)
