"""The M-STAR codec saved, loaded in another process, in bfloat16, compiled."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import recomputing

from hf_mobility.modeling.configuration_mstar import MstarCodecConfig
from hf_mobility.modeling.modeling_mstar_codec import MstarCodecModel

VARIANTS = ("corrected", "released")
RunPython = Callable[..., subprocess.CompletedProcess[str]]


def make_weeks(n: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    fine = torch.randint(16, (n, 24), generator=generator)
    return torch.stack([fine // 4, fine], dim=1)


def make_codec(variant: str = "corrected", **overrides: Any) -> MstarCodecModel:
    """A tiny codec after one step in training mode, so that its codebook has begun."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MstarCodecModel(MstarCodecConfig.from_preset("tiny", variant=variant, **overrides))
        model.train()(make_weeks())
    return model.eval()


LOAD = """
import sys, torch
from safetensors.torch import load_file, save_file
from hf_mobility.modeling.modeling_mstar_codec import MstarCodecModel
weeks = load_file(sys.argv[1] + "/weeks.safetensors")["weeks"]
for variant in sys.argv[2:]:
    model = MstarCodecModel.from_pretrained(f"{sys.argv[1]}/{variant}")
    assert not model.training
    codes, output = model.encode(weeks), model(weeks)
    found = {"codes": codes, "logits": model.decode(codes), "forward": output.logits, "loss": output.loss}
    found = {name: value.detach().contiguous() for name, value in found.items()}
    save_file(found, f"{sys.argv[1]}/{variant}.safetensors")
"""


def test_a_new_process_gives_the_same_codes_and_logits(tmp_path: Path, run_python: RunPython) -> None:
    weeks = make_weeks()
    save_file({"weeks": weeks}, tmp_path / "weeks.safetensors")
    outputs = {}
    for variant in VARIANTS:
        model = make_codec(variant)
        model.save_pretrained(tmp_path / variant)
        # loaded here too: on some processors a product rounds by where in memory the weights lie
        outputs[variant] = MstarCodecModel.from_pretrained(tmp_path / variant)(weeks)
        assert torch.equal(model.encode(weeks), outputs[variant].code_ids)
        torch.testing.assert_close(model(weeks).logits, outputs[variant].logits)
    run_python("-c", LOAD, str(tmp_path), *VARIANTS)
    for variant, output in outputs.items():
        found = load_file(tmp_path / f"{variant}.safetensors")
        wanted = {"codes": output.code_ids, "logits": output.logits, "forward": output.logits, "loss": output.loss}
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert torch.equal(found[name], value), (variant, name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_buffer_comes_back_and_fixed_ones_are_not_saved(tmp_path: Path, variant: str) -> None:
    model = make_codec(variant)
    model.save_pretrained(tmp_path)
    loaded, info = MstarCodecModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    buffers = dict(loaded.named_buffers())
    for name, value in model.named_buffers():
        assert torch.equal(buffers[name], value), name
    saved = load_file(tmp_path / "model.safetensors")
    assert not any("resampler" in name or "position" in name for name in saved)
    codebook = {name for name in saved if "codebook" in name and not name.endswith("codebook.weight")}
    assert len(codebook) == (3 if variant == "corrected" else 0)
    assert {n for n, p in loaded.named_parameters() if not p.requires_grad} == {
        n for n, p in model.named_parameters() if not p.requires_grad
    }


def test_a_loaded_codebook_goes_on_where_it_was(tmp_path: Path) -> None:
    model, weeks = make_codec(dropout=0.0), make_weeks()
    model.save_pretrained(tmp_path)
    loaded = MstarCodecModel.from_pretrained(tmp_path)
    for codec in (model, loaded):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            codec.train()(weeks)
    for name, value in model.quantiser.codebook.state_dict().items():
        assert torch.equal(value, loaded.quantiser.codebook.state_dict()[name]), name
    assert int(loaded.quantiser.codebook.num_updates) == 2


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.usefixtures("torn_weights_are_read")
def test_whatever_a_checkpoint_lacks_is_initialised_as_in_a_new_model(tmp_path: Path, variant: str) -> None:
    model = make_codec(variant)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    torch.manual_seed(0)  # of small vectors, two draws may differ by more
    fresh = MstarCodecModel(MstarCodecConfig.from_preset("tiny", variant=variant)).state_dict()
    names = sorted(weights)
    for start in range(3):
        missing = set(names[start::3])
        kept = {name: value for name, value in weights.items() if name not in missing}
        save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
        loaded, info = MstarCodecModel.from_pretrained(tmp_path, output_loading_info=True)
        assert set(info["missing_keys"]) == missing
        for name, value in loaded.state_dict().items():
            if name not in missing:
                assert torch.equal(value, weights[name]), name
            elif (fresh[name] == fresh[name].flatten()[0]).all():
                assert torch.equal(value, fresh[name]), name  # zeros and ones
            else:
                assert value.std().item() == pytest.approx(fresh[name].std().item(), rel=0.4), name


def test_weights_start_as_torchs_own() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MstarCodecModel(MstarCodecConfig(num_cells=400, hidden_size=64, num_attention_heads=4))
    state = model.state_dict()
    assert state["cell_embeddings.3.weight"].std().item() == pytest.approx(1, abs=0.02)
    assert state["quantiser.codebook.weight"].std().item() == pytest.approx(1, abs=0.02)
    for name, bound in (
        ("encoder.0.self_attn.q_proj", (6 / 256) ** 0.5),
        ("encoder.1.self_attn.o_proj", 1 / 8),
        ("decoder.0.up_proj", 1 / 8),
        ("decoder.1.down_proj", 1 / 16),
        ("quantiser.refiners.6.conv_proj", 192**-0.5),
        ("quantiser.refiners.0.down_proj", 1 / 8),
        ("cell_head", 1 / 8),
    ):
        assert state[f"{name}.weight"].abs().max().item() == pytest.approx(bound, rel=0.01), name
        assert not state[f"{name}.bias"].any(), name


def test_in_bfloat16_the_quantizer_stays_in_float32(tmp_path: Path) -> None:
    model, weeks = make_codec(), make_weeks()
    model.save_pretrained(tmp_path)
    loaded = MstarCodecModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    dtypes = {name: value.dtype for name, value in loaded.state_dict().items() if value.is_floating_point()}
    assert all(dtype == (torch.float32 if "quantiser" in name else torch.bfloat16) for name, dtype in dtypes.items())
    output = loaded(weeks)
    assert output.logits.dtype == torch.bfloat16 and torch.isfinite(output.loss)
    assert torch.equal(loaded.encode(weeks), output.code_ids)
    assert torch.equal(loaded.decode(output.code_ids), output.logits)
    torch.testing.assert_close(
        loaded.decode(output.code_ids).float(), model.decode(output.code_ids), atol=0.1, rtol=0.1
    )


@pytest.mark.parametrize("training", [False, True])
def test_the_codec_compiles_to_one_graph(training: bool) -> None:
    model, weeks = make_codec(dropout=0.0, restart_share=0.0).train(training), make_weeks()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    found = compiled(weeks)
    after = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    wanted = model(weeks)
    torch.testing.assert_close(found.logits, wanted.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.loss, wanted.loss)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(after[name], value)
    moved = [name for name in state if not torch.equal(state[name], after[name])]
    assert bool(moved) == training


def test_activation_checkpointing_changes_no_gradient_and_no_code() -> None:
    weeks, states = make_weeks(), []
    for checkpointing in (False, True):
        model = make_codec(dropout=0.3, attention_dropout=0.3).train()
        if checkpointing:
            recomputing(model)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            model(weeks).loss.backward()
        states.append([p.grad for p in model.parameters()] + list(model.quantiser.codebook.state_dict().values()))
    for plain, saved in zip(*states, strict=True):
        torch.testing.assert_close(plain, saved)
