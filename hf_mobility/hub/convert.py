"""Checkpoints of the systems' authors as models of this package."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file

from ..tokenization.errors import SHOWN, listing
from .authors_layouts import LAYOUTS, Layout, Sizes, Sources, Tensors
from .known_files import check_content

CONTAINERS = ("model_state_dict", "model")  # where the authors keep weights beside those of the optimizer
OF_PARALLEL = "module."  # what training on several GPUs writes before every name


def convert(file: str | Path, system: str, *, num_attention_heads: int, **values: Any) -> Any:
    """A model of this package with the weights of a checkpoint that the authors' code wrote.

    Sizes are read off the weights. The model is of variant `released` and holds no city: a tokenizer of the city that
    the weights were trained in goes beside it.

    Args:
        file: `.safetensors`, or what `torch.save` wrote. The latter is opened with `weights_only=True`, which runs no
            code. Weights may lie bare, or under `model_state_dict` or `model`; names may begin with `module.`.
        system: "samoe" (MoveGPT), "mstar-codec", "mstar" (with its codec) or "raw".
        num_attention_heads: the weights do not tell it. The authors' base sizes: 4 for SAMoE, 8 for M-STAR and its
            codec, 16 for RAW. A wrong number that divides the width gives a wrong model.
        values: other fields of the configuration. `level_lengths` of a codec that was not trained on the published
            levels is one, because the weights do not tell it; `temperature_offset=1.4` of M-STAR in Shenzhen another.

    Returns:
        `SamoeForNextLocation`, `MstarCodecModel`, `MstarForTrajectoryGeneration` or `RawForTrajectoryPrediction`, in
        evaluation mode and float32. `save_pretrained` saves it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another system, a file that is damaged or holds more than tensors, tensors that are missing, unknown
            or of another shape, or values that no configuration takes.

    Source: the authors' published code, names and shapes only.

    Example:

        >>> model = convert("model_pretrain.pth", "samoe", num_attention_heads=4)  # doctest: +SKIP
        >>> model.save_pretrained("movegpt-base")  # doctest: +SKIP
    """
    if system not in LAYOUTS:
        raise ValueError(f"unknown system {system!r}; choose one of {listing(LAYOUTS)}.")
    if num_attention_heads < 1:
        raise ValueError(f"num_attention_heads must be at least 1, got {num_attention_heads}.")
    path, layout = Path(file), LAYOUTS[system]
    known = {field.name for field in fields(layout.model.config_class)}
    if strange := sorted(set(values) - known | {"variant"} & set(values)):
        raise ValueError(f"{listing(strange)}: {layout.model.config_class.__name__} has no such values.")
    tensors = _read(path)
    try:
        config = layout.configure(Sizes(tensors, layout.title), {**values, "num_attention_heads": num_attention_heads})
        sources = layout.sources(config)
        _check_names(tensors, layout, sources, config)
        model = layout.model(config)
        _check_shapes(tensors, sources, {name: value.shape for name, value in model.state_dict().items()})
        _check_fixed(tensors, layout, config)
        if extra := sorted(set(dict(model.named_parameters())) - set(sources)):
            raise ValueError(f"the authors' {layout.title} has no weights for {_some(extra)} of this configuration")
    except (ValueError, StrictDataclassError) as error:  # the latter wraps what a configuration refuses
        fault = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
        raise ValueError(f"{path} could not be converted: {str(fault).rstrip('.')}.") from error
    model.load_state_dict({name: source.read(tensors[source.name]) for name, source in sources.items()}, strict=False)
    return model.eval()


def _read(path: Path) -> Tensors:
    """Tensors by the authors' names."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix == ".safetensors":
        check_content(path)
        content: Any = load_file(path)
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever the bytes of a damaged file lead to
            raise ValueError(
                f"{path} could not be converted: it is damaged, or holds objects other than tensors, numbers and text, "
                "which are never loaded."
            ) from error
    for name in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    tensors = dict(content) if isinstance(content, Mapping) else {}
    others = [
        str(name) for name, value in tensors.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]
    if not tensors or others:
        found = f"{_some(others)} are no tensors" if others else "there are no tensors"
        raise ValueError(
            f"{path} could not be converted: {found} in it, nor under {' or '.join(CONTAINERS)}, where the authors' "
            "code keeps the weights."
        )
    if all(name.startswith(OF_PARALLEL) for name in tensors):
        tensors = {name.removeprefix(OF_PARALLEL): value for name, value in tensors.items()}
    return tensors


def _check_names(tensors: Tensors, layout: Layout, sources: Sources, config: Any) -> None:
    needed = {source.name for source in sources.values()} | set(layout.fixed(config))
    if missing := sorted(needed - set(tensors)):
        raise ValueError(f"tensors of the authors' {layout.title} are missing, {_some(missing)} of {len(needed)}")
    spare = re.compile("|".join(layout.unused) or r"(?!)")
    if unknown := sorted(name for name in set(tensors) - needed if not spare.fullmatch(name)):
        raise ValueError(f"the authors' {layout.title} has no tensors of these names, {_some(unknown)}")


def _check_shapes(tensors: Tensors, sources: Sources, shapes: Mapping[str, Any]) -> None:
    wrong = {}
    for name, source in sources.items():
        found, wanted = tuple(tensors[source.name].shape), source.shape(tuple(shapes[name]))
        if found != wanted:
            wrong[source.name] = f"{source.name} {found} instead of {wanted}"
    if wrong:
        raise ValueError(f"tensors have shapes that do not fit the others, {_some(wrong.values())}")


def _check_fixed(tensors: Tensors, layout: Layout, config: Any) -> None:
    for name, wanted in layout.fixed(config).items():
        found = tensors[name]
        if found.shape != wanted.shape or not torch.allclose(found.float(), wanted, atol=1e-4):
            raise ValueError(
                f"{name} {tuple(found.shape)} is not the table of sines and cosines {tuple(wanted.shape)} that this "
                "model computes"
            )


def _some(items: Iterable[str]) -> str:
    """How many, and the first of them."""
    listed = list(items)
    return f"{len(listed)} (first {listing(listed[:SHOWN])})"
