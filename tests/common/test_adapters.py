"""PEFT: adapters of several kinds start, learn, merge, are saved, exchanged and switched off."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, OFTConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from small_models import CASES, Case, recomputing
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
ADAPTED = ["samoe", "samoe one stream", "raw", "raw users", "mstar"]


def attention(name: str) -> str:
    return "qkv_proj" if name == "mstar" else "k_proj"


def forward_parts(name: str) -> str:
    """Feed-forward matrices of the layers (and not of M-STAR's codec or modulations)."""
    return r"layers\.\d+\.mlp\..*down_proj|layers\.\d+\.mlp\.down_proj" if name == "mstar" else r".*layers.*down_proj"


KINDS: dict[str, Callable[[str], Any]] = {
    "lora": lambda name: LoraConfig(r=2, target_modules=[attention(name), "o_proj"]),
    "dora": lambda name: LoraConfig(r=2, target_modules=[attention(name)], use_dora=True),
    "ia3": lambda name: IA3Config(target_modules=[attention(name)], feedforward_modules=[]),
    "ia3 feed-forward": lambda name: IA3Config(
        target_modules=forward_parts(name), feedforward_modules=forward_parts(name)
    ),
    "oft": lambda name: OFTConfig(oft_block_size=8, target_modules=["o_proj"]),
}


@torch.no_grad()
def learned(model: Any, seed: int = 1) -> Any:
    """The adapter's weights as after training: moved at random."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model


def adapted(name: str, kind: str) -> tuple[Case, Any]:
    case = CASES[name]
    torch.manual_seed(0)
    return case, get_peft_model(case.model(), KINDS[kind](name)).eval()


def assert_same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


def answer(case: Case, model: Any) -> torch.Tensor:
    with torch.no_grad():
        return getattr(model(**case.batch(model)), case.output)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ADAPTED)
def test_an_adapter_starts_learns_merges_and_comes_back(name: str, kind: str, tmp_path: Path) -> None:
    case, model = adapted(name, kind)
    base = case.answer(case.model())
    assert_same(answer(case, model), base)
    model.train()(**case.batch(model, labels=True)).loss.backward()
    with_gradient = {key for key, weight in model.named_parameters() if weight.grad is not None}
    assert with_gradient == {key for key, weight in model.named_parameters() if weight.requires_grad}
    changed = answer(case, learned(model.eval()))
    assert not torch.allclose(changed, base, atol=1e-3)
    with model.disable_adapter():
        assert_same(answer(case, model), base)
    model.save_pretrained(tmp_path)
    assert_same(answer(case, PeftModel.from_pretrained(case.model(), tmp_path).eval()), changed)
    model.merge_adapter()
    assert_same(answer(case, model), changed)
    model.unmerge_adapter()
    assert_same(answer(case, model), changed)
    assert_same(answer(case, copy.deepcopy(model).merge_and_unload(safe_merge=True)), changed)
    assert_same(answer(case, model.unload()), base)


@pytest.mark.parametrize("name", ADAPTED)
def test_several_adapters_are_switched_combined_and_deleted(name: str) -> None:
    case, model = adapted(name, "lora")
    base = answer(case, model)
    first = answer(case, learned(model))
    model.add_adapter("other", KINDS["lora"](name))
    model.set_adapter("other")
    assert_same(answer(case, model), base)
    second = answer(case, learned(model, seed=2))
    model.set_adapter("default")
    assert_same(answer(case, model), first)
    model.add_weighted_adapter(["default", "other"], [0.0, 1.0], "mixed", combination_type="linear")
    model.set_adapter("mixed")
    assert_same(answer(case, model), second)
    model.delete_adapter("mixed")
    model.set_adapter("other")
    assert_same(answer(case, model), second)


@pytest.mark.parametrize("name", ADAPTED)
def test_every_row_of_a_batch_may_have_an_adapter_of_its_own(name: str) -> None:
    case, model = adapted(name, "lora")
    model.add_adapter("other", KINDS["lora"](name))
    rows = ["__base__", "default", "other"]
    for seed, adapter in enumerate(rows[1:]):
        model.set_adapter(adapter)
        learned(model, seed)
    batch = case.batch(model)

    def answers(adapters: list[str]) -> torch.Tensor:
        return getattr(model(**batch, adapter_names=adapters), case.output)

    def generated(adapters: list[str]) -> torch.Tensor:
        return model.generate(**batch, adapter_names=adapters, max_new_tokens=3, do_sample=False)

    for ask in (answers, generated) if "samoe" in name else (answers,):
        with torch.no_grad():
            wanted = torch.stack([ask([adapter] * 3)[row] for row, adapter in enumerate(rows)])
            assert_same(ask(rows), wanted)
    model.set_adapter("other")
    assert_same(answer(case, model)[2], answers(rows)[2])


@pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])
@pytest.mark.parametrize("name", ["samoe", "raw", "mstar"])
def test_recomputed_activations_give_an_adapter_the_same_gradients(name: str, reentrant: bool) -> None:
    found = []
    for recompute in (False, True):
        case, model = adapted(name, "lora")
        learned(model).train()
        if recompute:
            recomputing(model, reentrant=reentrant).enable_input_require_grads()
        model(**case.batch(model, labels=True)).loss.backward()
        found.append([weight.grad for weight in model.parameters() if weight.requires_grad])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [*ADAPTED, "samoe paper", "raw mixture", "mstar pointer"])
def test_lora_takes_every_matrix_and_every_table(name: str) -> None:
    """All at once, popularity (`pop`) too; the codec inside M-STAR is left out, its codes are the targets."""
    case = CASES[name]
    model = case.model()
    targets = [
        key
        for key, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Embedding)) and not key.startswith("codec.")
    ]
    base = case.answer(model)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=targets, init_lora_weights=True)).eval()
    assert_same(answer(case, wrapped), base)
    changed = answer(case, learned(wrapped))
    assert not torch.allclose(changed, base, atol=1e-3)
    assert_same(answer(case, wrapped.merge_and_unload()), changed)


@pytest.mark.parametrize("kind", [PromptTuningConfig, PrefixTuningConfig])
@pytest.mark.parametrize("name, task", [("samoe", "CAUSAL_LM"), ("raw users", "SEQ_CLS"), ("mstar", "CAUSAL_LM")])
def test_virtual_tokens_are_refused_in_a_sentence(name: str, task: str, kind: Any) -> None:
    with pytest.raises(AttributeError, match=r"has no vocab_size, as .* does not apply"):
        get_peft_model(CASES[name].model(), kind(num_virtual_tokens=2, task_type=task))
