"""`convert`: weights in the authors' names and shapes give our models, and each fault is said in one sentence.

The authors' side is `benchmarks/authors.py`, plain torch that uses nothing of the package.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from waves import fill, wave

from benchmarks import authors
from hf_mobility import convert
from hf_mobility.hub.authors_layouts import LAYOUTS, Sizes

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "authors_tiny.safetensors"
LENGTHS = [1, 2, 3, 4, 6, 8, 12, 24]
CELLS = [25, 16, 9, 4]  # fine to coarse
HEADS = {"samoe": 2, "mstar-codec": 8, "mstar": 4, "raw": 2}
OPTIONS: dict[str, dict[str, Any]] = {"mstar-codec": {"level_lengths": LENGTHS}}
SYSTEMS = pytest.mark.parametrize("system", list(HEADS))
Change = Callable[[dict[str, torch.Tensor]], None]


def author(system: str) -> nn.Module:
    """A tiny model of the authors' layout; every weight is a function of its name."""
    if system == "samoe":
        model: nn.Module = authors.Samoe(width=16, layers=2, heads=2, length=12)
    elif system == "raw":
        model = authors.Raw(width=16, layers=2, heads=2, length=12)
    else:
        codec = authors.MstarCodec(codes=32, width=16, cells=CELLS, lengths=LENGTHS)
        model = codec if system == "mstar-codec" else authors.MstarGenerator(codec, width=24, layers=2, heads=4)
    return fill(model)


def inputs_of(system: str) -> dict[str, torch.Tensor]:
    """Inputs of the authors' model, by the names of its `forward`."""

    def integers(name: str, top: int, *shape: int) -> torch.Tensor:
        return (wave(name, *shape).abs().double() * top).long().clamp(max=top - 1)

    if system == "raw":
        return {"points": wave("points", 3, 9, 2)}
    if system == "mstar":
        return {
            "codes": integers("codes", 32, 3, sum(LENGTHS)),
            "homes": integers("homes", 25, 3, 2),
            "clusters": integers("clusters", 8, 3),
        }
    if system == "mstar-codec":
        return {"weeks": torch.stack([integers(f"level {k}", CELLS[k // 2], 3, 24) for k in range(0, 8, 2)], 1)}
    table = wave("table", 12, 71).abs()
    table[:, 70] = torch.arange(12) % 9
    table[:2] = 0
    ids = 2 + integers("ids", 10, 3, 9)
    ids[1, 6], ids[1, 7:] = 1, 0  # the second person ends early: EOS, then padding
    real = ids > 1
    return {
        "ids": ids,
        "slots": integers("slots", 48, 3, 9) * real,
        "weekdays": (1 + integers("weekdays", 7, 3, 9)) * real,
        "stays": integers("stays", 96, 3, 9) * real,
        "table": table,
    }


def outputs_of(system: str, model: nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the authors' model gives."""
    if system == "samoe":
        logits, stays = model(**inputs)
        real = inputs["ids"] > 1
        return {"logits": logits[real][:, 1:], "stay_logits": stays[real]}
    if system == "raw":
        points, users = model(**inputs)
        return {"predictions": points, "user_embedding": users}
    if system == "mstar-codec":
        logits, codes, loss = model(inputs["weeks"].repeat_interleave(2, 1))  # two neighbouring scales read one grid
        return {"logits": logits, "code_ids": codes, "loss": loss}
    codes, cells = model.generate(inputs["homes"], inputs["clusters"], lambda logits: logits.argmax(-1))
    return {"logits": model(**inputs), "drawn": codes, "cells": cells}


def our_outputs(system: str, model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same, from the converted model."""
    if system == "samoe":
        table, ids = inputs["table"], inputs["ids"]
        output = model(
            input_ids=ids,
            attention_mask=(ids > 0).long(),
            time_ids=inputs["slots"],
            weekday_ids=inputs["weekdays"] - 1,
            stay_ids=inputs["stays"],
            location_features=torch.cat([table[:, :34], table[:, 68:]], 1),
        )
        real = ids > 1
        return {"logits": output.logits[real][:, 1:], "stay_logits": output.stay_logits[real]}
    if system == "raw":
        points = inputs["points"]
        return {"predictions": model(points).predictions, "user_embedding": model.model(points).user_embedding}
    if system == "mstar-codec":
        output = model(inputs["weeks"].flip(1))
        return {"logits": output.logits, "code_ids": output.code_ids, "loss": output.loss}
    people = (*inputs["homes"].unbind(1), inputs["clusters"])
    cells, codes = model.generate(*people, top_k=1, return_codes=True)
    return {"logits": model(inputs["codes"], *people).logits, "drawn": codes, "cells": cells}


def saved(system: str, folder: Path, change: Change | None = None) -> Path:
    """A file as the authors' code writes it: bare (SAMoE), or beside the optimizer."""
    tensors = author(system).state_dict()
    if change is not None:
        change(tensors)
    content: Any = tensors
    if system == "raw":
        parallel = {f"module.{name}": value for name, value in tensors.items()}
        content = {"model": parallel, "optimizer": {"state": {}}, "train_loss": [[0.5], [0.25]]}
    elif system != "samoe":
        content = {"epoch": 3, "model_state_dict": tensors, "config": {"training": {"epochs": 100}}, "loss": 0.5}
    file = folder / f"{system}.pt"
    torch.save(content, file)
    return file


def converted(system: str, file: Path) -> Any:
    return convert(file, system, num_attention_heads=HEADS[system], **OPTIONS.get(system, {}))


def assert_same(name: str, found: torch.Tensor, wanted: torch.Tensor, bound: float) -> None:
    torch.testing.assert_close(found, wanted, atol=bound, rtol=bound, msg=lambda text: f"{name}: {text}")


@SYSTEMS
@torch.no_grad()
def test_a_converted_checkpoint_gives_what_the_authors_model_gives(system: str, tmp_path: Path) -> None:
    inputs = inputs_of(system)
    wanted = outputs_of(system, author(system), inputs)
    model = converted(system, saved(system, tmp_path))
    found = our_outputs(system, model, inputs)
    assert not model.training and found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert value.dim() == 0 or value.float().std() > 0
        torch.testing.assert_close(
            found[name], value, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@SYSTEMS
@torch.no_grad()
def test_outputs_are_the_stored_numbers(system: str, tmp_path: Path) -> None:
    """`tests/golden/make_authors.py` wrote them from the authors' side alone."""
    stored = {
        name.removeprefix(f"{system}/"): value
        for name, value in load_file(GOLDEN).items()
        if name.startswith(f"{system}/")
    }
    inputs = {name.removeprefix("inputs/"): value for name, value in stored.items() if name.startswith("inputs/")}
    wanted = {name.removeprefix("outputs/"): value for name, value in stored.items() if name.startswith("outputs/")}
    found = our_outputs(system, converted(system, saved(system, tmp_path)), inputs)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(
            found[name], value, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_the_golden_file_stays_small() -> None:
    assert GOLDEN.stat().st_size < 100_000


@SYSTEMS
def test_every_weight_of_ours_has_a_source_and_every_tensor_of_theirs_a_use(system: str, tmp_path: Path) -> None:
    model = converted(system, saved(system, tmp_path))
    sources = LAYOUTS[system].sources(model.config)
    assert set(sources) == {name for name, _ in model.named_parameters()}
    used = {source.name for source in sources.values()}
    trained = {
        name for name, weight in author(system).named_parameters() if weight.requires_grad and "proj_to_emb" not in name
    }
    assert used == trained


@SYSTEMS
def test_a_converted_model_is_saved_and_loaded_as_any(system: str, tmp_path: Path) -> None:
    model = converted(system, saved(system, tmp_path))
    model.save_pretrained(tmp_path / "ours")
    again = type(model).from_pretrained(tmp_path / "ours")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    inputs = inputs_of(system)
    with torch.no_grad():
        wanted, found = our_outputs(system, model, inputs), our_outputs(system, again.eval(), inputs)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_the_base_sizes_are_read_off_the_weights() -> None:
    lengths = [1, 7, 14, 28, 56, 84, 112, 168]
    with torch.device("meta"):
        theirs = {
            "samoe": authors.Samoe(width=512, layers=4, heads=4, length=144),
            "raw": authors.Raw(width=768, layers=12, heads=16, length=960),
        }
    codec = authors.MstarCodec(codes=4096, width=256, cells=[900, 225, 64, 16], lengths=lengths)
    theirs |= {"mstar-codec": codec, "mstar": authors.MstarGenerator(codec, width=256, layers=4, heads=8)}
    for system, heads in {"samoe": 4, "raw": 16, "mstar-codec": 8, "mstar": 8}.items():
        sizes = Sizes(theirs[system].state_dict(), LAYOUTS[system].title)
        config = LAYOUTS[system].configure(sizes, {"num_attention_heads": heads})
        variant = {} if system == "raw" else {"variant": "released"}
        assert config.to_dict() == type(config).from_preset("base", **variant).to_dict(), system


def test_safetensors_are_read_as_well(tmp_path: Path) -> None:
    tensors = author("raw").state_dict()
    save_file(tensors, tmp_path / "raw.safetensors")
    inputs = inputs_of("raw")
    with torch.no_grad():
        found = our_outputs("raw", converted("raw", tmp_path / "raw.safetensors"), inputs)
        torch.testing.assert_close(found["predictions"], author("raw")(**inputs)[0], atol=1e-5, rtol=1e-5)


# Refusals


def rename(old: str, new: str) -> Change:
    return lambda tensors: tensors.update({new: tensors.pop(old)})


def replace(name: str, value: torch.Tensor) -> Change:
    return lambda tensors: tensors.update({name: value})


@pytest.mark.parametrize(
    ("system", "change", "sentence"),
    [
        ("samoe", lambda t: t.pop("ts_head.weight"), "no checkpoint of the authors' SAMoE: tensor ts_head.weight is"),
        ("samoe", lambda t: t.pop("lm_head.weight"), r"SAMoE are missing, 1 \(first lm_head.weight\) of \d+"),
        ("raw", lambda t: t.pop("ln_head.bias"), r"RAW are missing, 1 \(first ln_head.bias\) of 45"),
        ("raw", replace("extra", torch.ones(2)), r"RAW has no tensors of these names, 1 \(first extra\)"),
        ("raw", replace("ln_head.bias", torch.ones(3)), r"ln_head.bias \(3,\) instead of \(16,\)"),
        ("raw", replace("positional_embedding.weight", torch.ones(3)), r"has 2 axes, not the shape \(3,\)"),
        ("raw", rename("transformers.0.ff.0.weight", "x"), "tensor transformers.0.ff.0.weight is missing"),
        (
            "samoe",
            replace("transformer.h.1.attn.in_proj_bias", torch.ones(16)),
            r"transformer.h.1.attn.in_proj_bias \(16,\) instead of \(48,\)",
        ),
        (
            "mstar-codec",
            replace("quantizer.quant_resi.convs.2.weight", torch.ones(16, 48)),
            r"convs.2.weight \(16, 48\) instead of \(16, 16, 3\)",
        ),
        ("mstar-codec", replace("pos_embedding2", torch.ones(1, 24, 16)), "pos_embedding2 .* sines and cosines"),
        ("mstar-codec", replace("pos_embedding1", torch.ones(1, 168, 16)), r"sines and cosines \(1, 24, 16\)"),
        ("mstar", replace("scale_ids", torch.ones(2, 2)), "scale_ids .* has 1 axes"),
        ("mstar", replace("home_pos_embed", torch.ones(24)), r"home_pos_embed \(24,\) instead of \(1, 24\)"),
        ("mstar", lambda t: t.pop("vae_proxy.final_proj.bias"), "first vae_proxy.final_proj.bias"),
    ],
)
def test_what_does_not_fit_is_named(system: str, change: Change, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        converted(system, saved(system, tmp_path, change))
    assert "\n" not in str(refused.value) and str(refused.value).startswith(str(tmp_path))


def test_a_checkpoint_of_another_system_is_refused(tmp_path: Path) -> None:
    for system in HEADS:
        file = saved(system, tmp_path)
        for other in set(HEADS) - {system}:
            with pytest.raises(ValueError, match="no checkpoint of the authors'"):
                convert(file, other, num_attention_heads=2)


def test_arguments_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    file = saved("raw", tmp_path)
    with pytest.raises(ValueError, match=r"unknown system 'gru'; choose one of samoe, mstar-codec, mstar, raw"):
        convert(file, "gru", num_attention_heads=2)
    with pytest.raises(ValueError, match="hiden_size: RawConfig has no such values"):
        convert(file, "raw", num_attention_heads=2, hiden_size=16)
    with pytest.raises(ValueError, match=r"raw\.pt could not be converted: hidden_size must be divisible by"):
        convert(file, "raw", num_attention_heads=3)
    with pytest.raises(ValueError, match=r"has no weights for 2 \(first model\.time_features\.proj\.bias"):
        convert(file, "raw", num_attention_heads=2, time_features=True)
    with pytest.raises(ValueError, match="variant: RawConfig has no such values"):
        convert(file, "raw", num_attention_heads=2, variant="extended")
    with pytest.raises(ValueError, match="num_attention_heads must be at least 1, got 0"):
        convert(file, "raw", num_attention_heads=0)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        convert(tmp_path / "none.pt", "raw", num_attention_heads=2)


class Opened:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trace, file = tmp_path / "ran", tmp_path / "evil.pt"
    for write in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))):
        write({"model": {"ln_head.bias": Opened(trace)}}, file)
        with pytest.raises(ValueError, match=r"evil\.pt could not be converted: it is damaged, or holds objects other"):
            convert(file, "raw", num_attention_heads=2)
        assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut off"])
@pytest.mark.parametrize("name", ["raw.pt", "raw.safetensors"])
def test_a_damaged_file_is_refused_in_one_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} (could not be converted|is no readable safetensors file)"):
        convert(tmp_path / name, "raw", num_attention_heads=2)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "there are no tensors in it"),
        ([torch.ones(2)], "there are no tensors in it"),
        ({0: torch.ones(2)}, r"1 \(first 0\) are no tensors in it"),
        ({"epoch": 3, "weights": torch.ones(2)}, r"1 \(first epoch\) are no tensors in it, nor under model_state_dict"),
    ],
)
def test_a_file_without_weights_is_refused(content: Any, sentence: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "raw.pt")
    with pytest.raises(ValueError, match=sentence):
        convert(tmp_path / "raw.pt", "raw", num_attention_heads=2)
