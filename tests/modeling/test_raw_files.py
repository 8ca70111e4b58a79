"""Saving and loading RAW: configurations, weights in a new process, missing weights. Auto classes: test_raw_auto.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_mobility.modeling.configuration_raw import RawConfig
from hf_mobility.modeling.modeling_raw import RawForTrajectoryPrediction, RawModel

ROOT = Path(__file__).resolve().parents[2]


def make_model(**overrides: Any) -> RawForTrajectoryPrediction:
    torch.manual_seed(0)
    return RawForTrajectoryPrediction(RawConfig.from_preset("tiny", **overrides)).eval()


# Configuration


def test_a_configuration_survives_a_round_trip(tmp_path: Path) -> None:
    config = RawConfig.from_preset("small", delta_targets=True, user_pooling="last_day", num_labels=5)
    config.save_pretrained(tmp_path)
    loaded = RawConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "mobility_raw"


@pytest.mark.parametrize(
    "wrong",
    [{"hidden_size": "8"}, {"output_head": 1}, {"time_features": "yes"}, {"max_position_embeddings": None}],
    ids=str,
)
def test_a_value_of_the_wrong_type_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=next(iter(wrong))):
        RawConfig(**wrong)
    with pytest.raises(Exception, match=next(iter(wrong))):
        setattr(RawConfig(), *next(iter(wrong.items())))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"num_attention_heads": 3}, "hidden_size must be divisible"),
        ({"output_head": "gru"}, "output_head must be one of"),
        ({"user_pooling": "max"}, "user_pooling must be one of"),
        ({"user_pooling": "day_parts", "slots_per_day": 6}, "day_parts' needs slots_per_day in fours, got 6"),
        ({"region_pooling": "max"}, "region_pooling must be one of"),
        ({"mixture_components": -1}, "mixture_components must be at least 0"),
        ({"input_noise": -0.1}, "input_noise must be at least 0"),
        ({"mixture_components": 2, "mixture_min_scale": 0.0}, "mixture_min_scale must be positive"),
        ({"mixture_prediction": "mode"}, "mixture_prediction='mode' needs mixture_components above 0"),
        ({"num_attention_heads": 0}, "num_attention_heads must be at least 1, got 0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1, got 0"),
        ({"dropout": 1.5}, r"dropout must be at least 0 and below 1, got 1\.5"),
        ({"attention_dropout": -0.5}, r"attention_dropout must be at least 0 and below 1, got -0\.5"),
        ({"head_dropout": float("nan")}, "head_dropout must be at least 0 and below 1, got nan"),
        ({"max_position_embeddings": 0}, "max_position_embeddings must be at least 1"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_contradictory_values_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words):
        RawConfig(**wrong)


def test_sizes_are_the_documented_ones() -> None:
    sizes = {
        size: (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
        for size in ("tiny", "small", "base", "large", "1b")
        for config in [RawConfig.from_preset(size)]
    }
    assert sizes == {
        "tiny": (2, 16, 2, 64),
        "small": (4, 128, 4, 512),
        "base": (12, 768, 16, 3072),
        "large": (24, 1280, 16, 5120),
        "1b": (36, 1536, 24, 6144),
    }
    assert RawConfig.from_preset().to_dict() == RawConfig().to_dict()
    with pytest.raises(ValueError, match="unknown size 'medium'; choose one of"):
        RawConfig.from_preset("medium")


def test_what_is_not_in_the_paper_is_off() -> None:
    config = RawConfig.from_preset("base")
    assert not config.time_features and not config.delta_targets and config.mixture_components == 0
    assert (config.output_head, config.user_pooling, config.region_pooling) == ("mlp", "mean", "sum")
    assert config.freeze_encoder and config.dropout == 0 and config.max_position_embeddings == 960


# Weights


def test_a_tiny_model_is_a_small_file(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".py"} == {"config.json", "model.safetensors"}
    assert (tmp_path / "model.safetensors").stat().st_size < 120_000


def test_a_new_process_gives_the_same_points(tmp_path: Path) -> None:
    model, x = make_model(), 2 * torch.rand(3, 9, 2, generator=torch.Generator().manual_seed(0)) - 1
    model.save_pretrained(tmp_path / "model")
    save_file({"x": x}, tmp_path / "x.safetensors")
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import torch
from safetensors.torch import load_file, save_file
from hf_mobility.modeling.modeling_raw import RawForTrajectoryPrediction, RawModel
x = load_file("x.safetensors")["x"]
model, body = RawForTrajectoryPrediction.from_pretrained("model"), RawModel.from_pretrained("model")
with torch.no_grad():
    save_file({{"points": model(x).predictions, "ahead": model.generate(x, steps=3),
               "users": body(x).user_embedding}}, "out.safetensors")
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = load_file(tmp_path / "out.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(found["points"], model(x).predictions, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(found["users"], model.model(x).user_embedding, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found["ahead"], model.generate(x, steps=3), atol=1e-6, rtol=1e-6)


def test_a_body_saved_alone_can_be_given_a_head(tmp_path: Path) -> None:
    model = make_model()
    model.model.save_pretrained(tmp_path)
    whole = RawForTrajectoryPrediction.from_pretrained(tmp_path)
    assert all(torch.equal(whole.model.state_dict()[name], value) for name, value in model.model.state_dict().items())
    assert all(torch.isfinite(parameter).all() for parameter in whole.parameters())


@pytest.mark.usefixtures("torn_weights_are_read")
def test_whatever_a_checkpoint_lacks_is_initialised_as_in_a_new_model(tmp_path: Path) -> None:
    """Every third weight is missing, from three starts, so that each is missing once."""
    make_model(time_features=True).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    fresh = make_model(time_features=True).state_dict()
    for start in range(3):
        missing = set(sorted(weights)[start::3])
        kept = {name: value for name, value in weights.items() if name not in missing}
        save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
        loaded, info = RawForTrajectoryPrediction.from_pretrained(tmp_path, output_loading_info=True)
        assert set(info["missing_keys"]) == missing
        for name, value in loaded.state_dict().items():
            if name not in missing:
                assert torch.equal(value, weights[name]), name
            elif value.numel() > 100:
                assert value.std().item() == pytest.approx(fresh[name].std().item(), rel=0.35), name
            elif "norm" in name:
                assert torch.equal(value, fresh[name]), name
            else:
                assert torch.isfinite(value).all() and value.abs().max() < 1, name


def test_there_is_no_table_that_loading_could_leave_unfilled() -> None:
    assert list(RawModel(RawConfig.from_preset("tiny", time_features=True)).buffers()) == []
