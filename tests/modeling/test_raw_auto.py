"""RAW through transformers' Auto classes and PEFT: everything is found by its type, here, in a new process, and as
remote code without hf_mobility.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

import hf_mobility  # noqa: F401  (registers)
from hf_mobility.modeling.configuration_raw import RawConfig
from hf_mobility.modeling.modeling_raw import RawForUserProfiling, RawModel
from hf_mobility.tokenization.tokenization_raw import RawTokenizer

ROOT = Path(__file__).resolve().parents[2]


def make_points() -> dict[str, list]:
    """Three people, three days in Berlin."""
    rng = np.random.default_rng(0)
    return {
        "user_id": np.repeat([3, 7, 9], 20).tolist(),
        "time": (1_709_500_000 + rng.integers(0, 3 * 86_400, 60)).tolist(),
        "lat": rng.uniform(52.4, 52.6, 60).tolist(),
        "lon": rng.uniform(13.2, 13.6, 60).tolist(),
    }


def save(folder: Path) -> torch.Tensor:
    """A profiling model, its tokenizer and points in a folder; the logits they give."""
    torch.manual_seed(0)
    model = RawForUserProfiling(RawConfig.from_preset("tiny", num_labels=3)).eval()
    model.fit_standardiser(torch.randn(20, 16))
    tokenizer = RawTokenizer.from_points(make_points(), timezone="Europe/Berlin", config=model.config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "points.json").write_text(json.dumps(make_points()))
    with torch.no_grad():
        return model(**tokenizer(make_points(), padding=True, return_tensors="pt")).logits


def test_auto_classes_find_the_right_ones(tmp_path: Path) -> None:
    save(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is RawConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is RawModel
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(model) is RawForUserProfiling
    assert {name.split(".")[0] for name, weight in model.named_parameters() if weight.requires_grad} == {"classifier"}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert type(tokenizer) is RawTokenizer and tokenizer.timezone == "Europe/Berlin"


def test_a_folder_with_the_tokenizer_only_is_enough(tmp_path: Path) -> None:
    RawTokenizer.from_bounds(timezone="Asia/Shanghai").save_pretrained(tmp_path)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is RawTokenizer


def run(code: str, *, cwd: Path) -> None:
    """Run code in a new process, off line."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cwd / "home"), "OMP_NUM_THREADS": "1"}
    head = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport hf_mobility\n"
    result = subprocess.run(
        [sys.executable, "-P", "-c", head + code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]


LOAD_AND_SCORE = """
import json, torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("model")
model = AutoModelForSequenceClassification.from_pretrained("model")
with torch.no_grad():
    batch = tokenizer(json.load(open("model/points.json")), padding=True, return_tensors="pt")
    save_file({"logits": model(**batch).logits}, "out.safetensors")
"""


def test_a_new_process_gives_the_same_logits(tmp_path: Path) -> None:
    logits = save(tmp_path / "model")
    run(LOAD_AND_SCORE, cwd=tmp_path)
    torch.testing.assert_close(load_file(tmp_path / "out.safetensors")["logits"], logits, atol=1e-6, rtol=1e-6)


def test_peft_knows_where_to_put_adapters(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    save(tmp_path / "base")
    base: Any = RawForUserProfiling.from_pretrained(tmp_path / "base")
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, task_type="SEQ_CLS"))
    adapted = {name.split(".lora_A")[0].split(".")[-1] for name, _ in model.named_parameters() if "lora_A" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj"}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                weight.normal_(generator=torch.Generator().manual_seed(len(name)))
    model.eval()
    model.base_model.model.fit_standardiser(torch.randn(30, 16) + 2)
    x = torch.rand(2, 9, 2)
    model.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(
        RawForUserProfiling.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(coordinates=x).logits, model(coordinates=x).logits)
