"""A checkpoint for one of our pipelines: what was saved there is found out before a weight is read.

Only safetensors are opened, where transformers by itself would fall back to a pickle. A model of another kind is
refused by its name, where transformers would fill a model of this kind with fresh numbers and report which.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..modeling.loading import check_adapter
from .requests import HUB_ID, check_folder, loading

# Keywords of `from_pretrained` that say where and how to fetch, not what to build.
FETCHING = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


def fetching(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Those of `kwargs` that the tokenizer's `from_pretrained` needs as well as the model's."""
    return {name: kwargs[name] for name in FETCHING if name in kwargs}


def load_model(
    model_class: Any,
    name_or_path: str | Path,
    *,
    reader: str,
    kwargs: dict[str, Any],
    form: Callable[[Any], Any] | None = None,
) -> Any:
    """`model_class.from_pretrained` of a folder or Hub id that holds such a model, or an adapter of one. An encoder may
    be taken out of a model with a head, but not the other way round.

    Args:
        reader: who reads, for the refusal.
        kwargs: of `from_pretrained`; `revision` is that of the adapter where there is one, and `base_revision` that
            of its base, by default the `revision` that the adapter's configuration names.
        form: configuration -> the class of a system's form that takes the place of `model_class`, once the system is
            known to be right.

    Raises:
        ValueError: if another model was saved there, or files are damaged or do not fit one another.
        OSError: if it cannot be loaded, the base of an adapter included, or holds no safetensors.
    """
    from transformers import AutoConfig

    where, options = str(name_or_path), fetching(kwargs)
    kwargs = dict(kwargs)
    pinned = kwargs.pop("base_revision", None)
    with loading(where):
        base, adapter = _adapter(where, options)
        if base is None:
            config = AutoConfig.from_pretrained(where, **options)
        else:
            _file(where, "adapter_model.safetensors", options)
            pinned = pinned or adapter.get("revision")
    if base is None and pinned is not None:
        raise ValueError(f"{where} is no adapter, so that base_revision={pinned!r} means nothing; leave it out.")
    rest = {name: value for name, value in kwargs.items() if name != "revision"}
    if base is not None:
        with loading(base, f", the base model of {where},"):
            config = AutoConfig.from_pretrained(base, **{**fetching(rest), "revision": pinned})
        if kwargs.get("revision") is not None:
            # It is one of the adapter; transformers would look for it in the base model's repository too.
            kwargs = rest | {"adapter_kwargs": {**rest.get("adapter_kwargs", {}), "revision": kwargs["revision"]}}
    found = (getattr(config, "architectures", None) or [""])[0]
    wanted, other_type = model_class.__name__, config.model_type != model_class.config_class.model_type
    if other_type or (found.endswith("Model") and not wanted.endswith("Model")):
        raise ValueError(f"{where} holds a {found or type(config).__name__}; {reader} needs a {wanted}.")
    model_class = model_class if form is None else form(config)
    if base is None or pinned is None:
        with loading(where):
            return model_class.from_pretrained(where, use_safetensors=True, **kwargs)
    with loading(base, f", the base model of {where},"):
        model = model_class.from_pretrained(base, use_safetensors=True, revision=pinned, **rest)
    with loading(where):
        model.load_adapter(where, adapter_kwargs=options)
    return model.eval()


def saved_config(name_or_path: str | Path) -> Any:
    """The configuration of a folder or Hub id; no weight is read.

    Raises:
        ValueError, OSError: as `load_model`.
    """
    from transformers import AutoConfig

    with loading(str(name_or_path)):
        return AutoConfig.from_pretrained(str(name_or_path))


def adapter_base(name_or_path: str | Path, **options: Any) -> str | None:
    """The base model that an adapter's folder or repository names; None where there is no adapter.

    Raises:
        FileNotFoundError: if the folder, or that of the base, is not there.
    """
    return _adapter(name_or_path, options)[0]


def _adapter(name_or_path: str | Path, options: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """`adapter_base`, and the adapter's configuration."""
    check_folder(name_or_path)
    config = check_adapter(name_or_path, **options)
    if not config or _file(name_or_path, "config.json", options, must_exist=False):
        return None, {}  # a whole model, with or without an adapter in it
    base = str(config.get("base_model_name_or_path") or "")
    if not HUB_ID.fullmatch(base) and not (base and Path(base).is_dir()):
        raise FileNotFoundError(
            f"{name_or_path} is an adapter whose base model {base!r} is not there: write where it lies into "
            "base_model_name_or_path of its adapter_config.json."
        )
    return base, config


def _file(name_or_path: str | Path, name: str, options: dict[str, Any], *, must_exist: bool = True) -> str | None:
    from transformers.utils import cached_file

    return cached_file(str(name_or_path), name, _raise_exceptions_for_missing_entries=must_exist, **options)
