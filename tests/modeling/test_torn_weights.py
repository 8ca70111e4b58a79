"""A model is loaded whole or not at all: by its class, by the Auto classes, by transformers' and our pipelines, by
`adapt` and by the command line. Each refusal is one sentence that names the folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import call
from peft import IA3Config, LoraConfig, OFTConfig, get_peft_model
from safetensors.numpy import load_file, save_file
from samoe_town import CITY, make_visits
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, pipeline

from hf_mobility import (
    MobilityEmbeddingPipeline,
    MstarCodecModel,
    MstarForTrajectoryGeneration,
    NextLocationPipeline,
    RawForTrajectoryPrediction,
    RawForUserProfiling,
    RawModel,
    SamoeForNextLocation,
    SamoeModel,
    TrajectoryGenerationPipeline,
    TrajectoryPredictionPipeline,
    adapt,
)
from hf_mobility.modeling.loading import check_adapter

ROOT = Path(__file__).resolve().parents[2]
READERS: dict[str, list[Callable[..., Any]]] = {
    "samoe-small": [
        SamoeForNextLocation.from_pretrained,
        AutoModelForCausalLM.from_pretrained,
        NextLocationPipeline.from_pretrained,
        lambda folder: adapt(folder, make_visits(), city=CITY, strength="none"),
    ],
    "raw-released-small": [
        RawForTrajectoryPrediction.from_pretrained,
        AutoModel.from_pretrained,
        TrajectoryPredictionPipeline.from_pretrained,
        MobilityEmbeddingPipeline.from_pretrained,
    ],
    "mstar-cells-small": [MstarForTrajectoryGeneration.from_pretrained, TrajectoryGenerationPipeline.from_pretrained],
    "mstar-codec-small": [MstarCodecModel.from_pretrained, AutoModel.from_pretrained],
}


def middle(arrays: dict[str, np.ndarray]) -> str:
    """A weight of the body, in the middle of the file."""
    names = [name for name, array in sorted(arrays.items()) if array.dtype == np.float32 and "layers" in name]
    return names[len(names) // 2] if names else sorted(arrays)[len(arrays) // 2]


def spoil(arrays: dict[str, np.ndarray], value: float) -> None:
    arrays[middle(arrays)] = arrays[middle(arrays)].copy()
    arrays[middle(arrays)].flat[0] = value


FAULTS: dict[str, tuple[Callable[[dict[str, np.ndarray]], Any], str]] = {
    "missing": (lambda arrays: arrays.pop(middle(arrays)), "its weights lack "),
    "unknown": (
        lambda arrays: arrays.update({f"{middle(arrays)}_not_there": np.zeros(3, np.float32)}),
        "its weights hold what the model does not have, ",
    ),
    "NaN": (lambda arrays: spoil(arrays, np.nan), "its weights are not finite: "),
    "infinite": (lambda arrays: spoil(arrays, -np.inf), "its weights are not finite: "),
    "another shape": (
        lambda arrays: arrays.update({middle(arrays): np.zeros((7, 7), np.float32)}),
        "weights and configuration, or an adapter and its base, have other shapes",
    ),
}


def changed(source: Path, target: Path, change: Callable[[dict[str, np.ndarray]], Any], name: str) -> Path:
    shutil.copytree(source, target)
    arrays = load_file(target / name)
    change(arrays)
    save_file(arrays, target / name)
    return target


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("checkpoint", READERS)
def test_torn_weights_are_refused_by_every_reader(checkpoint: str, fault: str, tmp_path: Path) -> None:
    change, sentence = FAULTS[fault]
    folder = changed(ROOT / "checkpoints" / checkpoint, tmp_path / "torn", change, "model.safetensors")
    for read in READERS[checkpoint]:
        with pytest.raises(ValueError, match=f"^{folder} could not be loaded: {sentence}") as caught:
            read(folder)
        assert "\n" not in str(caught.value)


def test_the_pipeline_of_transformers_reports_the_sentence(tmp_path: Path) -> None:
    change, sentence = FAULTS["NaN"]
    folder = changed(ROOT / "checkpoints" / "samoe-small", tmp_path / "torn", change, "model.safetensors")
    with pytest.raises(ValueError, match=f"ValueError: {folder} could not be loaded: {sentence}"):
        pipeline("next-location", model=str(folder))


def test_the_command_line_shows_no_traceback(tmp_path: Path) -> None:
    make_visits().to_csv(tmp_path / "visits.csv", index=False)
    for fault, (change, sentence) in FAULTS.items():
        folder = changed(ROOT / "checkpoints" / "samoe-small", tmp_path / fault, change, "model.safetensors")
        result = call("predict", folder, tmp_path / "visits.csv", "-o", tmp_path / "out.csv", code=1)
        assert f"hf-mobility: {folder} could not be loaded: {sentence}" in result.stderr


# Another head


def test_a_head_may_be_new_and_a_body_may_not_be_torn(tmp_path: Path) -> None:
    whole = ROOT / "checkpoints" / "raw-released-small"
    profiling = RawForUserProfiling.from_pretrained(whole, num_labels=3)
    wanted = RawModel.from_pretrained(whole).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in profiling.model.state_dict().items())
    profiling.save_pretrained(tmp_path / "profiling")
    body = changed(whole, tmp_path / "body", FAULTS["missing"][0], "model.safetensors")
    head = changed(
        tmp_path / "profiling",
        tmp_path / "head",
        lambda arrays: arrays.pop(next(name for name in arrays if name.startswith("classifier."))),
        "model.safetensors",
    )
    for folder in (body, head):
        with pytest.raises(ValueError, match="its weights lack"):
            RawForUserProfiling.from_pretrained(folder, num_labels=3)
    assert not SamoeModel.from_pretrained(ROOT / "checkpoints" / "samoe-small").training


# Adapters


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, toy: Any) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    visits, city = toy.city(4, seed=3)
    toy.model().save_pretrained(folder / "base")
    adapt(folder / "base", visits, city=city, strength="none").save_pretrained(folder / "adapter")
    return folder


OF_ADAPTERS = [NextLocationPipeline.from_pretrained, AutoModelForCausalLM.from_pretrained]
ADAPTER_FAULTS = {name: change for name, (change, _) in FAULTS.items() if name != "another shape"}
ADAPTER_FAULTS["another shape"] = lambda arrays: arrays.update({min(arrays): np.zeros((3, 3), np.float32)})
ADAPTER_FAULTS["another file"] = lambda arrays: (arrays.clear(), arrays.update(lat=np.zeros(3)))


@pytest.mark.parametrize("fault", ADAPTER_FAULTS)
def test_torn_adapters_are_refused(fault: str, adapter: Path, tmp_path: Path) -> None:
    folder = changed(adapter / "adapter", tmp_path / "torn", ADAPTER_FAULTS[fault], "adapter_model.safetensors")
    for read in OF_ADAPTERS:
        with pytest.raises(ValueError, match=f"^{folder} could not be loaded: ") as caught:
            read(folder)
        assert "\n" not in str(caught.value)


def test_a_torn_base_under_an_adapter_is_refused(adapter: Path, tmp_path: Path) -> None:
    base = changed(adapter / "base", tmp_path / "base", FAULTS["missing"][0], "model.safetensors")
    folder = configured(adapter / "adapter", tmp_path / "adapter", base_model_name_or_path=str(base))
    for read in OF_ADAPTERS:
        with pytest.raises(ValueError, match=f"^{base} could not be loaded: its weights lack"):
            read(folder)


def configured(source: Path, target: Path, *, file: str = "adapter_config.json", **fields: Any) -> Path:
    shutil.copytree(source, target)
    path = target / file
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return target


SLOW = "((a|[a-z_.])+)+!$"  # would be tried for longer than anybody waits
CONFIGURATIONS: dict[str, Any] = {
    "target_modules": [SLOW, [SLOW], [], 5, None, ["q_proj"] * 10_000, [5]],
    "exclude_modules": [SLOW],
    "rank_pattern": [{SLOW: 4}, {"q_proj": 10**9}, ["q_proj"]],
    "alpha_pattern": [{SLOW: 4}, {"q_proj": "x"}],
    "layers_pattern": [SLOW],
    "modules_to_save": [SLOW, [SLOW]],
    "r": [10**9, 0, -4, "x", True, 1.5],
    "lora_alpha": [float("nan"), "x", 1e300],
    "lora_dropout": [5, -1, float("nan"), "x"],
    "peft_type": ["PROMPT_TUNING", 5, None],
    "bias": ["all", "lora_only", 5],
    "auto_mapping": [{"parent_library": "this", "base_model_class": "x"}],
    "megatron_config": [{"a": 1}],
}


@pytest.mark.parametrize("field", CONFIGURATIONS)
def test_adapter_configurations_are_checked_before_anything_is_built(field: str, adapter: Path, tmp_path: Path) -> None:
    for number, value in enumerate(CONFIGURATIONS[field]):
        folder = configured(adapter / "adapter", tmp_path / str(number), **{field: value})
        for read in OF_ADAPTERS if number == 0 else [check_adapter]:
            with pytest.raises(ValueError, match=f"^{folder}/adapter_config.json is no adapter that can be loaded"):
                read(folder)


@pytest.mark.parametrize(
    "config",
    [
        IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"),
        OFTConfig(target_modules=["q_proj"], oft_block_size=4, task_type="CAUSAL_LM"),
        LoraConfig(r=2, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 4}, task_type="CAUSAL_LM"),
        LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["stay_head"], task_type="CAUSAL_LM"),
    ],
    ids=["IA3", "OFT", "ranks by name", "a whole layer"],
)
def test_other_adapters_of_peft_are_loaded(config: Any, adapter: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = get_peft_model(SamoeForNextLocation.from_pretrained(adapter / "base"), config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    made.save_pretrained(tmp_path)
    try:
        read = SamoeForNextLocation.from_pretrained(tmp_path)
    except ValueError as error:  # rather than an answer without that layer, as in transformers 5.10
        assert config.modules_to_save and "its weights lack stay_head.modules_to_save" in str(error)
        pytest.skip(str(error))
    for name, values in made.get_base_model().state_dict().items():
        torch.testing.assert_close(read.state_dict()[name], values, msg=name)


# Configurations

SIZES: dict[str, dict[str, Any]] = {
    "samoe-small": {
        "hidden_size": [-1, 0, 10**9, "x", 8.5],
        "num_hidden_layers": [10**7, -1],
        "num_attention_heads": [0, 10**9],
        "num_pointer_heads": [0],
        "num_poi_features": [10**12],
        "max_position_embeddings": [10**12, 0],
        "attention_dropout": [5.0, float("nan")],
        "layer_norm_eps": [float("nan"), -1.0],
        "initializer_range": [-1.0, float("inf")],
        "num_labels": [10**9],
        "architectures": [5, [5]],
        "custom_pipelines": [5],
        "dtype": ["floaty"],
    },
    "raw-released-small": {
        "num_hidden_layers": [10**7],
        "max_position_embeddings": [10**13],
        "slots_per_day": [10**9, 0],
        "mixture_components": [10**9],
        "head_hidden_size": [10**13],
    },
    "mstar-codec-small": {
        "num_cells": [10**12],
        "codebook_size": [10**13, 0],
        "level_lengths": [[], [1, 10**12], [0, 168], "x"],
        "cells_per_resolution": [[], [0], [10**12]],
        "num_decoder_layers": [10**7],
    },
    "mstar-cells-small": {
        "num_hidden_layers": [10**7],
        "within_level_steps": [[], 0],
        "codec_config": [5, {"level_lengths": []}, {"cells_per_resolution": []}],
        "num_attributes": [10**13],
    },
}


@pytest.mark.parametrize("checkpoint", SIZES)
def test_configurations_are_bounded_before_anything_is_built(checkpoint: str, tmp_path: Path) -> None:
    for field, values in SIZES[checkpoint].items():
        for number, value in enumerate(values):
            source = ROOT / "checkpoints" / checkpoint
            folder = configured(source, tmp_path / f"{field}{number}", file="config.json", **{field: value})
            for read in (AutoConfig.from_pretrained, READERS[checkpoint][0]):
                if field == "custom_pipelines":
                    read(folder)
                    continue
                with pytest.raises(ValueError) as caught:
                    read(folder)
                assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
