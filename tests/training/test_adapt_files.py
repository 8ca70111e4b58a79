"""A saved adapter is a plain PEFT one: it loads by every usual way, in another process too, and merges."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from hf_mobility import Adaptation, NextLocationPipeline, SamoeForNextLocation, SamoeTokenizer, adapt

pytestmark = pytest.mark.usefixtures("short_strong")


def test_a_base_without_a_name_must_be_named(local: SimpleNamespace, automatic: Adaptation, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="save it and adapt from its folder, or pass base_model="):
        automatic.save_pretrained(tmp_path / "unnamed")
    assert not (tmp_path / "unnamed").exists()
    local.base.save_pretrained(tmp_path / "base")
    made = adapt(local.base, local.visits, city=local.city, strength="weak", **local.small)
    made.save_pretrained(tmp_path / "named", base_model=str(tmp_path / "base"))
    config = json.loads((tmp_path / "named" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "base")


def test_merged_is_unmerged(local: SimpleNamespace) -> None:
    made = adapt(local.base, local.visits, city=local.city, strength="strong", **local.small)
    unmerged = local.logits(made.model, made.tokenizer, local.visits)
    merged = made.model.merge_and_unload()
    assert isinstance(merged, SamoeForNextLocation)
    places = slice(2, None)
    found = local.logits(merged, made.tokenizer, local.visits)[..., places]
    torch.testing.assert_close(found.softmax(-1), unmerged[..., places].softmax(-1), atol=1e-5, rtol=0)


def test_peft_finds_the_layers_by_itself(local: SimpleNamespace, toy: SimpleNamespace) -> None:
    adapted = get_peft_model(toy.model(), LoraConfig())
    found = {name.split(".lora_A")[0].rpartition(".")[2] for name, _ in adapted.named_modules() if "lora_A" in name}
    assert found == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert local.logits(adapted, SamoeTokenizer.from_city(local.city, local.base.config), local.visits).isfinite().any()


ELSEWHERE = """
import json, os, sys
from pathlib import Path
import hf_mobility
import numpy as np, pandas as pd, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from hf_mobility import NextLocationPipeline, adapt

base, folder, table, expected = sys.argv[1:]
visits, expected = pd.read_parquet(table), np.load(expected)
tokenizer = AutoTokenizer.from_pretrained(folder)
inputs = tokenizer(visits, padding=True, return_tensors="pt")
loaded = {
    "AutoModelForCausalLM": AutoModelForCausalLM.from_pretrained(folder),
    "PeftModel": PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder),
    "load_adapter": AutoModelForCausalLM.from_pretrained(base),
}
loaded["load_adapter"].load_adapter(folder)
pipe = NextLocationPipeline.from_pretrained(folder)
loaded["NextLocationPipeline"] = pipe.model
with torch.no_grad():
    found = {name: model.eval()(**inputs).logits[..., 2:].softmax(-1).numpy() for name, model in loaded.items()}
errors = {name: float(np.abs(value - expected["p"]).max()) for name, value in found.items()}
guesses = pipe.predict(visits, top_k=3)
errors["predict"] = float(np.abs(guesses["probability"].to_numpy() - expected["top"]).max())

# Adapting writes nothing at all, saving only into its folder.
before = sorted(str(path) for path in Path.cwd().rglob("*"))
made = adapt(base, visits, city=tokenizer.city, strength="weak")
after_adapting = sorted(str(path) for path in Path.cwd().rglob("*"))
made.save_pretrained("only-here")
after = {str(path.relative_to(Path.cwd())) for path in Path.cwd().rglob("*")}
written = [name for name in after if name.split(os.sep)[0] != "only-here" and str(Path.cwd() / name) not in before]
print(json.dumps({"errors": errors, "adapting": [p for p in after_adapting if p not in before], "written": written}))
"""


@pytest.mark.slow
def test_a_saved_adapter_predicts_the_same_in_a_new_process_however_it_is_loaded(
    local: SimpleNamespace, tmp_path: Path, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    base, folder, script = tmp_path / "base", tmp_path / "adapter", tmp_path / "script.py"
    local.base.save_pretrained(base)
    made = adapt(base, local.visits, city=local.city, strength="strong", **local.small)
    made.save_pretrained(folder)
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "city.json", "city.safetensors"} <= names
    assert {"tokenizer_config.json", "adaptation.csv"} <= names
    assert all("lora_" in name for name in load_file(folder / "adapter_model.safetensors"))

    probability = local.logits(made.model, made.tokenizer, local.visits)[..., 2:].softmax(-1)
    top = NextLocationPipeline(made.model, made.tokenizer).predict(local.visits, top_k=3)["probability"]
    np.savez(tmp_path / "expected.npz", p=probability.numpy(), top=top.to_numpy())
    local.visits.to_parquet(tmp_path / "visits.parquet")
    script.write_text(ELSEWHERE)
    home = tmp_path / "home"
    (home / "tmp").mkdir(parents=True)
    arguments = [str(script), str(base), str(folder), str(tmp_path / "visits.parquet"), str(tmp_path / "expected.npz")]
    result = run_python(*arguments, home=home, TMPDIR=str(home / "tmp"))
    found = json.loads(result.stdout.splitlines()[-1])
    assert len(found["errors"]) == 5
    assert max(found["errors"].values()) < 1e-6, found["errors"]
    assert found["adapting"] == found["written"] == []


def test_the_report_is_saved_beside_the_adapter(local: SimpleNamespace, automatic: Adaptation, tmp_path: Path) -> None:
    local.base.save_pretrained(tmp_path / "base")
    automatic.save_pretrained(tmp_path / "adapter", base_model=str(tmp_path / "base"))
    saved = pd.read_csv(tmp_path / "adapter" / "adaptation.csv")
    pd.testing.assert_frame_equal(saved, automatic.report, check_exact=False, rtol=1e-9)


def test_an_adapter_of_one_seed_is_byte_equal(local: SimpleNamespace, tmp_path: Path) -> None:
    """PEFT keeps target modules in a set, whose order differs from process to process."""
    for name in ("first", "second"):
        made = adapt(local.base, local.visits, city=local.city, strength="weak", seed=5, **local.small)
        made.save_pretrained(tmp_path / name, base_model="user/base")
    for file in ("adapter_config.json", "adapter_model.safetensors", "city.json", "city.safetensors"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file
    config = json.loads((tmp_path / "first" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
