"""Saving and loading SAMoE: configurations, weights in a new process, missing keys, remote code without hf_mobility."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from hf_mobility import City, SamoeConfig, SamoeForNextLocation, SamoeModel, SamoeTokenizer

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = ("extended", "released", "paper")


# Configuration


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_configuration_survives_a_round_trip(tmp_path: Path, variant: str) -> None:
    config = SamoeConfig.from_preset("small", variant=variant, stay_loss_weight=0.25, use_popularity=False)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is SamoeConfig
    assert loaded.to_dict() == config.to_dict() | {"_name_or_path": str(tmp_path)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden_size": "8"},
        {"selector": 1},
        {"pointer_head": "yes"},
        {"max_position_embeddings": 1.5},
        {"num_stay_bins": None},
    ],
    ids=str,
)
def test_a_value_of_the_wrong_type_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=next(iter(wrong))):
        SamoeConfig(**wrong)
    config = SamoeConfig()
    with pytest.raises(Exception, match=next(iter(wrong))):
        setattr(config, *next(iter(wrong.items())))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"hidden_size": 18, "num_attention_heads": 2, "num_pointer_heads": 1}, "divisible by 4"),
        ({"hidden_size": 128, "num_attention_heads": 3}, "divisible"),
        ({"stay_encoding": "hours"}, "stay_encoding must be one of"),
        ({"selector": "top-1"}, "selector must be one of"),
        ({"location_encoder": "none"}, "location_encoder must be one of"),
        ({"attention_init": "zeros"}, "attention_init must be one of"),
        ({"pointer_head": False, "arrival_time": True}, "arrival_time=True needs"),
        ({"num_pointer_heads": 3}, "num_pointer_heads"),
        ({"num_pointer_heads": 0}, "num_pointer_heads must be at least 1, got 0"),
        ({"num_attention_heads": 0}, "num_attention_heads must be at least 1, got 0"),
        ({"hidden_size": 0}, "hidden_size must be at least 1"),
        ({"max_position_embeddings": 0}, "max_position_embeddings must be at least 1"),
        ({"num_popularity_levels": 0}, "num_popularity_levels must be at least 1"),
        ({"num_stay_bins": 1}, "num_stay_bins must be at least 2"),
        ({"stay_loss_weight": -1}, "stay_loss_weight must be at least 0"),
        ({"attention_dropout": 2.0}, r"attention_dropout must be at least 0 and below 1, got 2\.0"),
        ({"activity_features": True, "relative_features": False}, "activity_features=True needs"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_contradictory_values_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words):
        SamoeConfig(**wrong)


def test_presets_are_a_size_and_a_variant() -> None:
    sizes = {
        size: (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
        for size in ("tiny", "small", "base", "ultra")
        for config in [SamoeConfig.from_preset(size)]
    }
    assert sizes == {
        "tiny": (2, 16, 2, 64),
        "small": (2, 128, 4, 512),
        "base": (4, 512, 4, 2048),
        "ultra": (12, 768, 6, 3072),
    }
    released, paper = (SamoeConfig.from_preset("base", variant=v) for v in ("released", "paper"))
    for config in (released, paper):
        assert (config.num_poi_features, config.num_popularity_levels, config.num_stay_bins) == (34, 9, 96)
        assert config.num_location_features == 37 and not config.pointer_head and not config.uses_distances
    assert (released.max_position_embeddings, released.selector, released.shared_router) == (144, "soft", True)
    assert (paper.max_position_embeddings, paper.selector, paper.shared_router) == (None, "hard", False)
    assert SamoeConfig.from_preset().to_dict() == SamoeConfig().to_dict()
    assert SamoeConfig().num_location_features == 65
    assert SamoeConfig.from_preset("base", variant="paper", selector="soft").selector == "soft"


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown size 'huge'; choose one of \['base', 'small', 'tiny', 'ultra'\]"):
        SamoeConfig.from_preset("huge")
    with pytest.raises(ValueError, match=r"unknown variant 'v1'"):
        SamoeConfig.from_preset("tiny", variant="v1")


# Weights


def make_town() -> tuple[City, pd.DataFrame]:
    rng = np.random.default_rng(0)
    visits = pd.DataFrame(
        {
            "user_id": np.repeat([3, 7, 9], [12, 8, 5]),
            "time": pd.to_datetime(1_700_000_000 + rng.integers(600, 40_000, 25).cumsum(), unit="s", utc=True),
            "location_id": rng.integers(0, 9, 25).astype(str),
        }
    )
    place = visits["location_id"].astype(int)
    visits = visits.assign(lat=48 + 0.01 * (place % 3), lon=11 + 0.01 * (place // 3))
    return City.from_visits(visits, timezone="Europe/Berlin", name="Town"), visits


def saved(folder: Path, model: SamoeForNextLocation) -> torch.Tensor:
    """Write model, tokenizer and visits into `folder`; the logits they give, loaded again."""
    city, visits = make_town()
    tokenizer = SamoeTokenizer.from_city(city, model.config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    plain = visits.assign(time=visits["time"].map(pd.Timestamp.timestamp).astype(int)).to_dict("list")
    (folder / "visits.json").write_text(json.dumps(plain))
    batch = tokenizer(visits, padding=True, return_tensors="pt")
    with torch.no_grad():
        # on some processors a product rounds by where in memory the weights lie
        logits = SamoeForNextLocation.from_pretrained(folder)(**batch).logits
        torch.testing.assert_close(logits, model(**batch).logits)
    return logits


def run(code: str, *, cwd: Path, home: Path) -> None:
    """Run code in a new process, off line."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    head = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    result = subprocess.run(
        [sys.executable, "-P", "-c", head + code], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]


LOAD_AND_SCORE = """
import json, torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({folder!r})
model = AutoModelForCausalLM.from_pretrained({folder!r})
visits = json.load(open({folder!r} + "/visits.json"))
with torch.no_grad():
    save_file({{"logits": model(**tokenizer(visits, padding=True, return_tensors="pt")).logits}}, {out!r})
"""


def test_a_new_process_gives_the_same_logits(build: SimpleNamespace, tmp_path: Path) -> None:
    logits = saved(tmp_path / "model", build.model(num_poi_features=60, num_popularity_levels=10))
    code = "import hf_mobility\n" + LOAD_AND_SCORE.format(
        folder=str(tmp_path / "model"), out=str(tmp_path / "out.safetensors")
    )
    code += """
from transformers import AutoModel
from hf_mobility import SamoeForNextLocation, SamoeModel, SamoeTokenizer
body = AutoModel.from_pretrained({folder!r})
assert type(body) is SamoeModel and type(model) is SamoeForNextLocation and type(tokenizer) is SamoeTokenizer
pairs = zip(body.state_dict().items(), model.model.state_dict().items(), strict=True)
assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
""".format(folder=str(tmp_path / "model"))
    run(code, cwd=tmp_path, home=tmp_path / "home")
    assert torch.equal(load_file(tmp_path / "out.safetensors")["logits"], logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_loaded_weights_are_the_saved_ones(build: SimpleNamespace, tmp_path: Path, variant: str) -> None:
    model = build.model(variant)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for (name, value), (other, again) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == other and torch.equal(value, again)
    assert list(loaded.buffers()) == []
    files = {path.name for path in tmp_path.iterdir() if path.suffix != ".py"}
    assert files == {"config.json", "generation_config.json", "model.safetensors"}


def test_a_body_saved_alone_can_be_given_heads(build: SimpleNamespace, tmp_path: Path) -> None:
    model = build.model()
    model.model.save_pretrained(tmp_path)
    whole = SamoeForNextLocation.from_pretrained(tmp_path)
    for name, value in model.model.state_dict().items():
        assert torch.equal(whole.model.state_dict()[name], value)
    assert all(torch.isfinite(parameter).all() for parameter in whole.parameters())


COUNT_TABLES = ("pointer_head.pair_weights.bias", "pointer_head.offset_bias.weight")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.usefixtures("torn_weights_are_read")
def test_whatever_a_checkpoint_lacks_is_initialised_as_in_a_new_model(
    build: SimpleNamespace, tmp_path: Path, variant: str
) -> None:
    """Each parameter in turn would take a folder each; every third one, from three starts, covers them all."""
    model = build.model(variant)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    fresh = SamoeForNextLocation(build.config(variant)).state_dict()
    names = sorted(weights)
    for start in range(3):
        missing = set(names[start::3])
        save_file(
            {k: v for k, v in weights.items() if k not in missing}, tmp_path / "model.safetensors", {"format": "pt"}
        )
        loaded, info = SamoeForNextLocation.from_pretrained(tmp_path, output_loading_info=True)
        assert set(info["missing_keys"]) == missing
        for name, value in loaded.state_dict().items():
            if name not in missing:
                assert torch.equal(value, weights[name]), name
            elif (fresh[name] == fresh[name].flatten()[0]).all() or name in COUNT_TABLES:
                assert torch.equal(value, fresh[name]), name  # zeros, ones and count tables
            elif value.numel() > 100:
                assert value.std().item() == pytest.approx(fresh[name].std().item(), rel=0.35), name
            else:
                assert torch.isfinite(value).all() and value.abs().max() < 1, name


def test_the_tokenizer_of_another_feature_scheme_is_refused() -> None:
    city, _ = make_town()
    with pytest.raises(ValueError, match="the city has 60 POI columns, the model needs 34"):
        SamoeTokenizer.from_city(city, SamoeConfig.from_preset("tiny", variant="released"))


# Auto classes


def test_auto_classes_know_the_package(build: SimpleNamespace, tmp_path: Path) -> None:
    config = build.config()
    assert type(AutoModel.from_config(config)) is SamoeModel
    assert type(AutoModelForCausalLM.from_config(config)) is SamoeForNextLocation
    city, _ = make_town()
    SamoeTokenizer.from_city(city).save_pretrained(tmp_path)  # tokenizer files alone, without a configuration
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is SamoeTokenizer
