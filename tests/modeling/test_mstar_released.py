"""Variant `released` of M-STAR trains as the authors' code does: dropout in the same places, the same initial values.

The authors' side is `benchmarks/authors.py`. Dropout is made the same on both sides: a mask that depends on
the shape only, so that losses and gradients agree only where the masks meet the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from waves import fill

from benchmarks import authors
from hf_mobility import MstarCodecConfig, MstarCodecModel, MstarConfig, MstarForTrajectoryGeneration, convert
from hf_mobility.hub.authors_layouts import LAYOUTS
from hf_mobility.modeling import layers, modeling_mstar, modeling_mstar_codec

LENGTHS = [1, 2, 3, 4, 6, 8, 12, 24]
CELLS = [25, 16, 9, 4]


def make_dropout(shape_of: Callable[[torch.Tensor], tuple[int, ...]]) -> Callable[..., torch.Tensor]:
    def dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        if not training or not p:
            return x
        shape = shape_of(x)
        seed = math.prod(shape) + round(1000 * p)
        kept = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) >= p
        return x * (kept if x.shape[1:] == shape else kept.view(x.shape)) / (1 - p)

    return dropout


def use_dropout(monkeypatch: pytest.MonkeyPatch, dropout: Callable[..., torch.Tensor]) -> None:
    """On both sides: that of torch, and ours, which draws its own numbers on a CPU."""
    monkeypatch.setattr(F, "dropout", dropout)
    for module in (layers, modeling_mstar, modeling_mstar_codec):
        monkeypatch.setattr(module, "drop", dropout)


def make_pair(system: str, folder: Path, **values: Any) -> tuple[nn.Module, Any]:
    """The authors' model and ours with its weights, both in training mode."""
    codec = authors.MstarCodec(codes=32, width=16, cells=CELLS, lengths=LENGTHS)
    theirs = codec if system == "mstar-codec" else authors.MstarGenerator(codec, width=24, layers=3, heads=4)
    fill(theirs)
    torch.save(theirs.state_dict(), folder / "theirs.pt")
    heads = 8 if system == "mstar-codec" else 4
    ours = convert(folder / "theirs.pt", system, num_attention_heads=heads, **values)
    ours.set_attn_implementation("eager")
    return theirs.train(), ours.train()


def assert_same_gradients(system: str, ours: Any, theirs: nn.Module) -> None:
    found, wanted = dict(ours.named_parameters()), dict(theirs.named_parameters())
    compared = 0
    for name, source in LAYOUTS[system].sources(ours.config).items():
        if name.startswith("codec.") or found[name].grad is None:
            continue
        compared += 1
        gradient = source.read(wanted[source.name].grad)
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(found[name].grad, gradient, atol=1e-5, rtol=1e-4, msg=lambda t, n=name: f"{n}: {t}")
    assert compared > 30


def test_the_generator_drops_what_the_authors_drop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theirs, ours = make_pair("mstar", tmp_path)
    theirs.vae_proxy.eval()
    use_dropout(monkeypatch, make_dropout(lambda x: (x.numel(),)))
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 32, (3, sum(LENGTHS)), generator=generator)
    homes, clusters = torch.tensor([[3, 9], [0, 0], [24, 7]]), torch.tensor([0, 7, 3])
    wanted = F.cross_entropy(theirs(codes, homes, clusters).flatten(0, 1), codes.flatten())
    found = ours(codes, *homes.unbind(1), clusters).loss
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    wanted.backward()
    found.backward()
    assert_same_gradients("mstar", ours, theirs)


def test_the_codec_drops_what_the_authors_drop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without dropout of attention weights, which torch's layer does inside its kernel."""
    theirs, ours = make_pair("mstar-codec", tmp_path, level_lengths=LENGTHS, attention_dropout=0.0)
    for stack in (theirs.transformer_encoder, theirs.transformer_decoder):
        for layer in stack.layers:
            layer.self_attn.dropout = 0.0
    use_dropout(monkeypatch, make_dropout(lambda x: tuple(x.shape[1:])))
    generator = torch.Generator().manual_seed(0)
    weeks = torch.stack([torch.randint(0, cells, (3, 24), generator=generator) for cells in CELLS], 1)
    logits, codes, wanted = theirs(weeks.repeat_interleave(2, 1))
    output = ours(weeks.flip(1))
    assert torch.equal(output.code_ids, codes)
    torch.testing.assert_close(output.logits, logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.loss, wanted, atol=1e-5, rtol=1e-5)
    wanted.backward()
    output.loss.backward()
    assert_same_gradients("mstar-codec", ours, theirs)


def test_the_corrected_variant_drops_elsewhere() -> None:
    released, corrected = (MstarConfig.from_preset("tiny", variant=v) for v in ("released", "corrected"))
    assert (released.dropout_form, corrected.dropout_form) == ("released", "branches")
    assert (released.codec.input_dropout, corrected.codec.input_dropout) == (False, True)
    with pytest.raises(Exception, match="dropout_form must be one of"):
        MstarConfig(dropout_form="none")


@pytest.mark.parametrize("inside", [False, True])
def test_biases_of_the_codec_start_as_torchs(inside: bool) -> None:
    config = MstarCodecConfig.from_preset("small", variant="released")
    torch.manual_seed(0)
    if inside:
        codec = MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny", codec_config=config)).codec
    else:
        codec = MstarCodecModel(config)
    for name, module in codec.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        if "self_attn" in name:
            assert not module.bias.any(), name
        else:
            bound = module.in_features**-0.5
            assert 0.8 * bound < module.bias.abs().max() <= bound, name
    corrected = MstarCodecModel(MstarCodecConfig.from_preset("tiny"))
    assert not any(module.bias.any() for module in corrected.modules() if isinstance(module, nn.Linear))


def test_the_published_generation_leaves_the_start_vector_out() -> None:
    """The training adds it. `test_convert.py` compares whole weeks."""
    people = (torch.tensor([3, 1]), torch.tensor([2, 1]), torch.tensor([0, 5]))
    drawn = {}
    for start_at_generation in (False, True):
        torch.manual_seed(0)
        config = MstarConfig.from_preset("tiny", start_at_generation=start_at_generation)
        model = MstarForTrajectoryGeneration(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.3)
            first = model.generate(*people, top_k=1, return_codes=True)[1]
            scores = model(first, *people).logits
            model.start.zero_()
            without = model.generate(*people, top_k=1, return_codes=True)[1]
        drawn[start_at_generation] = first, without, scores.argmax(-1)
    first, without, _ = drawn[False]
    assert torch.equal(first, without)
    first, without, parallel = drawn[True]
    assert torch.equal(first, parallel) and not torch.equal(first, without)
