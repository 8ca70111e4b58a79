"""What a model is loaded from: whole and finite weights, and adapters of a known size. Everything else is refused in
one sentence, where transformers would draw the missing weights anew and report it in a table.
"""

import json
import logging
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import find_adapter_config_file

SHOWN = 3
KINDS = ("LORA", "IA3", "OFT")  # of adapters that change layers which the model has
MAX_RANK, MAX_TARGETS = 1_024, 1_000
_MODULE = re.compile(r"[A-Za-z0-9_.]{1,200}")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Fields of an adapter's configuration that hold names of modules, ranks by name, and what may not be set: code to
# import, and weights of a size that nothing bounds.
_NAMES = ("exclude_modules", "layers_pattern", "modules_to_save", "feedforward_modules")
_PATTERNS = ("rank_pattern", "alpha_pattern")
_REFUSED = ("auto_mapping", "megatron_config", "target_parameters", "trainable_token_indices", "layer_replication")


class LoadedWhole:
    """A model that is loaded whole or not at all.

    A new head is a part of its own: it may be missing in a checkpoint that was saved from another class.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: damaged, missing, unknown, misshapen or non-finite weights; an adapter of another kind than
                LoRA, IA3 and OFT, or of an unbounded size.
        """
        where = pretrained_model_name_or_path
        if isinstance(where, (str, Path)) and (Path(where) / "adapter_config.json").is_file():
            check_adapter(where)  # before the base is read
        with _one_sentence(where):
            return super().from_pretrained(where, *args, **kwargs)  # type: ignore[misc]

    @staticmethod
    def _finalize_model_loading(model: Any, load_config: Any, loading_info: Any) -> Any:
        where = load_config.pretrained_model_name_or_path
        model._adjust_missing_and_unexpected_keys(loading_info)
        if loading_info.mismatched_keys and not load_config.ignore_mismatched_sizes:
            raise ValueError(_mismatch(where))
        for fault, names in (
            ("lack", _torn(model, loading_info.missing_keys, missing=True)),
            ("hold what the model does not have,", _torn(model, loading_info.unexpected_keys, missing=False)),
        ):
            _refuse(where, fault, names)
        loading_info = PreTrainedModel._finalize_model_loading(model, load_config, loading_info)
        refuse_non_finite(model, where)
        return loading_info

    def load_adapter(self, peft_model_id: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.load_adapter`.

        Raises:
            ValueError: as `from_pretrained`.
        """
        if peft_model_id is not None and kwargs.get("peft_config") is None:
            fetching = dict(getattr(kwargs.get("load_config"), "download_kwargs", None) or {})
            if fetching.get("revision") is not None:  # transformers has resolved it to a commit of the base
                fetching["revision"] = str(fetching["revision"])
            if kwargs.get("local_files_only"):
                fetching["local_files_only"] = True
            check_adapter(peft_model_id, **{**fetching, **(kwargs.get("adapter_kwargs") or {})})
        before = set(self.state_dict())  # type: ignore[attr-defined]
        with _one_sentence(peft_model_id), _no_table():
            info = super().load_adapter(peft_model_id, *args, **kwargs)  # type: ignore[misc]
        _refuse(peft_model_id, "lack", info.missing_keys)
        _refuse(peft_model_id, "hold what the adapter does not have,", info.unexpected_keys)
        new = {name for name in self.state_dict() if name not in before and ".base_layer." not in name}  # type: ignore[attr-defined]
        refuse_non_finite(self, peft_model_id, new)
        return info


def check_adapter(name_or_path: Any, **options: Any) -> dict[str, Any]:
    """An adapter's configuration, checked before anything is built from it; empty where there is no adapter.

    Raises:
        ValueError: another kind than LoRA, IA3 and OFT, a rank, scale or dropout outside its bounds, names that are
            regular expressions, or a field that names code.
    """
    path = find_adapter_config_file(str(name_or_path), **options)
    if path is None:
        return {}
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no readable JSON file: {error}.") from error
    fault = _adapter_fault(config) if isinstance(config, dict) else "it holds no object"
    if fault:
        raise ValueError(f"{path} is no adapter that can be loaded: {fault}.")
    return config  # type: ignore[no-any-return]


def refuse_non_finite(model: Any, where: Any, names: Container[str] | None = None) -> None:
    """Raises a `ValueError` that names weights, all or those of `names`, with NaN or infinite values."""
    state = model.state_dict().items()
    _refuse(
        where,
        "are not finite:",
        [name for name, values in state if (names is None or name in names) and not _is_finite(values)],
    )


def _is_finite(values: Any) -> bool:
    if not isinstance(values, torch.Tensor) or values.dtype not in _FLOATS or values.is_meta or not values.numel():
        return True
    return all(bool(side.isfinite()) for side in torch.aminmax(values.detach()))  # NaN is least and most


def _torn(model: Any, names: Any, *, missing: bool) -> list[str]:
    """Those of the missing or unexpected names that another class with another head does not explain."""
    saved = getattr(model.config, "architectures", None) or [type(model).__name__]
    parts = {name for name, _ in model.named_children()}
    body = model.base_model_prefix
    if type(model).__name__ in saved or body not in parts:
        return sorted(names)
    if not missing:
        return sorted(name for name in names if name.partition(".")[0] in parts)
    found = {name.partition(".")[0] for name in model.state_dict() if name not in names} | {body}
    return sorted(name for name in names if name.partition(".")[0] in found)


def _adapter_fault(config: dict[str, Any]) -> str:
    kind, dropout, targets = config.get("peft_type"), config.get("lora_dropout", 0), config.get("target_modules")
    if kind not in KINDS:
        return f"peft_type is {kind!r}, which is none of {', '.join(KINDS)}"
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        return f"lora_dropout must be at least 0 and below 1, got {dropout!r}"
    least = 1 if kind == "LORA" else 0
    for name, value in {"r": 8, "oft_block_size": 0, "lora_alpha": 8, **config}.items():
        if name in ("r", "oft_block_size") and not _is_rank(value, least if name == "r" else 0):
            return f"{name} must be at least {least} and at most {MAX_RANK:,}, got {value!r}"
        if name == "lora_alpha" and not _is_scale(value):
            return f"lora_alpha must be a number, got {value!r}"
        if name in _PATTERNS and value and (strange := _strange_pattern(name, value)):
            return strange
        if name in _NAMES and value and (strange := _strange_names(name, value)):
            return strange
    if config.get("bias", "none") != "none":
        return f"bias is {config['bias']!r}: an adapter must not change weights of its base"
    given = [name for name in _REFUSED if config.get(name)]
    return _strange_names("target_modules", targets) or (f"{', '.join(given)} must not be set" if given else "")


def _is_rank(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= MAX_RANK


def _is_scale(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < 1e9


def _strange_names(field: str, names: Any) -> str:
    """What is wrong with a list of names, none of which may be a regular expression; empty where nothing is."""
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_TARGETS:
        return f"{field} must be a list of 1 to {MAX_TARGETS:,} names, got {str(names)[:80]!r}"
    strange = [name for name in names if not isinstance(name, str) or not _MODULE.fullmatch(name)]
    return f"{field} holds {str(strange[0])[:80]!r}, which is no name" if strange else ""


def _strange_pattern(field: str, values: Any) -> str:
    if not isinstance(values, dict):
        return f"{field} must hold a number by name, got {str(values)[:80]!r}"
    fits = (lambda value: _is_rank(value, 1)) if field == "rank_pattern" else _is_scale
    wrong = [name for name, value in values.items() if not fits(value)]
    return f"{field} of {str(wrong[0])[:80]!r} is out of bounds" if wrong else _strange_names(field, list(values))


def _refuse(where: Any, fault: str, names: Any) -> None:
    if names:
        first, more = ", ".join(sorted(names)[:SHOWN]), f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise ValueError(f"{where} could not be loaded: its weights {fault} {first}{more}.")


def _mismatch(where: Any) -> str:
    return (
        f"{where} could not be loaded: weights and configuration, or an adapter and its base, have other shapes and do "
        "not belong together."
    )


@contextmanager
def _no_table() -> Iterator[None]:
    """transformers logs a table of an adapter's faults; what it holds is refused in one sentence."""
    log = logging.getLogger("transformers.integrations.peft")

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    log.addFilter(is_other)
    try:
        yield
    finally:
        log.removeFilter(is_other)


@contextmanager
def _one_sentence(where: Any) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise ValueError(f"{where} could not be loaded: damaged weights ({str(error).strip().rstrip('.')}).") from error
    except RuntimeError as error:
        if "size mismatch" not in str(error) and "mismatched" not in str(error):
            raise
        raise ValueError(_mismatch(where)) from error
