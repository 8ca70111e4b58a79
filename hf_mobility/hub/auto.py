"""The one table: config <-> model <-> tokenizer, and its registration with transformers' Auto classes and PEFT's
default targets. It also makes `save_pretrained` write the code of what is saved, so that `trust_remote_code=True` loads
it where this package is not installed, and `push_to_hub` of a model send a card that says what it is.

Unusual: registration waits until transformers' Auto module is really loaded. Loading it eagerly would make `import
hf_mobility` cost the several seconds that `import torch` and the modeling code take, even for somebody who only reads a
check-in file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
# Auto class -> model classes, per system; of several, the `architectures` of a checkpoint choose, and the first is for
# fresh weights. Modules are named relative to this package.
SYSTEMS: dict[str, dict[str, Any]] = {
    "samoe": {
        "config": ("modeling.configuration_samoe", "SamoeConfig"),
        "tokenizer": ("tokenization.tokenization_samoe", "SamoeTokenizer"),
        "models": {
            "AutoModel": ("modeling.modeling_samoe", "SamoeModel"),
            "AutoModelForCausalLM": ("modeling.modeling_samoe", "SamoeForNextLocation"),
        },
        "lora_targets": ATTENTION,
    },
    "mstar_codec": {
        "config": ("modeling.configuration_mstar", "MstarCodecConfig"),
        "tokenizer": ("tokenization.tokenization_mstar", "MstarTokenizer"),
        "models": {"AutoModel": ("modeling.codec_mstar", "MstarCodecModel")},
        "lora_targets": ATTENTION,
    },
    "mstar": {
        "config": ("modeling.configuration_mstar", "MstarConfig"),
        "tokenizer": ("tokenization.tokenization_mstar", "MstarTokenizer"),
        "models": {"AutoModel": ("modeling.modeling_mstar", "MstarForTrajectoryGeneration")},
        "lora_targets": ["qkv_proj"],  # which the frozen codec inside does not have
    },
    "raw": {
        "config": ("modeling.configuration_raw", "RawConfig"),
        "tokenizer": ("tokenization.tokenization_raw", "RawTokenizer"),
        "models": {
            "AutoModel": ("modeling.modeling_raw", "RawModel"),
            "AutoModelForSequenceClassification": (
                "modeling.modeling_raw",
                *("RawForUserProfiling", "RawForRegionAnalysis"),
            ),
            "AutoModelForTimeSeriesPrediction": ("modeling.modeling_raw", "RawForTrajectoryPrediction"),
        },
        "lora_targets": ATTENTION,
    },
}

_PACKAGE = __package__.rpartition(".")[0]
_AUTO = "transformers.models.auto.modeling_auto"
_LAYERS = "transformers.modeling_layers"


def register() -> None:
    """Register every system: each part as soon as the modules of transformers or PEFT that it concerns are loaded,
    now or later."""
    _when_loaded("transformers.models.auto.configuration_auto", _register_configs)
    _when_loaded("transformers.models.auto.tokenization_auto", _register_tokenizers)
    _when_loaded("peft.utils.constants", _register_lora_targets)
    for name in {system["tokenizer"] for system in SYSTEMS.values()}:
        _when_loaded(f"{_PACKAGE}.{name[0]}", partial(_save_tokenizer_with_code, name))
    # transformers' layers import the Auto classes half-way through their own import, and ours import those layers:
    # whichever of the three is finished last brings the registration about.
    for module in (_AUTO, _LAYERS, *_model_modules()):
        _when_loaded(module, _register_models)


def _load(name: tuple[str, str]) -> Any:
    return getattr(import_module(f".{name[0]}", _PACKAGE), name[1])


def _model_modules() -> list[str]:
    """Every file of `modeling`: a sibling that is imported first must be complete too before its model is loaded."""
    package = find_spec(f"{_PACKAGE}.modeling")
    folders = list(package.submodule_search_locations or []) if package else []
    return [f"{_PACKAGE}.modeling.{module.name}" for module in iter_modules(folders)]


def _register_configs() -> None:
    from transformers import AutoConfig

    for system in SYSTEMS.values():
        config = _load(system["config"])
        AutoConfig.register(config.model_type, config)


def _register_tokenizers() -> None:
    """Each under a stand-in for a configuration; saved tokenizers are found by the name of their class. Under their own
    configuration a folder's code would be run in their place by `trust_remote_code=True`, which models never allow."""
    from transformers import AutoTokenizer, PreTrainedConfig

    for name in {system["tokenizer"] for system in SYSTEMS.values()}:
        tokenizer = _load(name)
        AutoTokenizer.register(type(f"{name[1]}Key", (PreTrainedConfig,), {}), tokenizer_class=tokenizer)


def _register_models() -> None:
    waiting = [sys.modules.get(name) for name in (_AUTO, _LAYERS, *_model_modules())]
    if any(module is not None and not _is_complete(module) for module in waiting) or _AUTO not in sys.modules:
        return
    import transformers

    for system in SYSTEMS.values():
        config = _load(system["config"])
        for auto, names in system["models"].items():
            models = [_load((names[0], name)) for name in names[1:]]
            getattr(transformers, auto).register(config, models[0] if len(models) == 1 else _one_of(models))
            for model in models:
                model.register_for_auto_class(auto)
                _push_with_card(model)
        _save_with_code(config, system["models"]["AutoModel"])


def _one_of(models: list[Any]) -> type:
    """Stands in for several models under one Auto class. transformers takes a tuple as well, but then cannot make fresh
    weights: `from_config` fails where a configuration has no `architectures` yet."""
    by_name = {model.__name__: model for model in models}

    def chosen(config: Any) -> Any:
        return next((by_name[name] for name in config.architectures or () if name in by_name), models[0])

    def from_pretrained(where: Any, *args: Any, config: Any, **kwargs: Any) -> Any:
        return chosen(config).from_pretrained(where, *args, config=config, **kwargs)

    def from_config(config: Any, **kwargs: Any) -> Any:
        return chosen(config)._from_config(config, **kwargs)

    parts = {"from_pretrained": staticmethod(from_pretrained), "_from_config": staticmethod(from_config)}
    return type(models[0].__name__, (), {"__module__": models[0].__module__, **parts})


def _push_with_card(model: Any) -> None:
    """Let `model.push_to_hub` send our card in place of transformers' unfilled one; a card that is on the Hub stays."""
    upload = model._upload_modified_files
    if hasattr(upload, "__wrapped__"):
        return  # done: registration may be brought about several times

    @wraps(upload)
    def with_card(self: Any, working_dir: str, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        from .cards import write_card

        write_card(working_dir, self, name=repo_id)
        return upload(self, working_dir, repo_id, *args, **kwargs)

    model._upload_modified_files = with_card


def _save_tokenizer_with_code(name: tuple[str, str]) -> None:
    _load(name).register_for_auto_class()


def _save_with_code(config: Any, base: tuple[str, str]) -> None:
    """Let saved configurations name their code: their own and the saved model's, which transformers adds, and the
    base model's, which it would forget: `AutoModel` opens every checkpoint here, and so it must as remote code."""
    if config._auto_class is not None:
        return  # done: registration may be brought about several times
    config.register_for_auto_class()
    save = config.save_pretrained
    reference = f"{base[0].rpartition('.')[2]}.{base[1]}"

    @wraps(save)
    def save_pretrained(self: Any, *args: Any, **kwargs: Any) -> None:
        if getattr(self, "auto_map", None):  # set by a model whose code is there; a configuration alone has none
            self.auto_map = {"AutoModel": reference, **self.auto_map}
        save(self, *args, **kwargs)

    config.save_pretrained = save_pretrained


def _register_lora_targets() -> None:
    targets = import_module("peft.utils.constants").TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    for system in SYSTEMS.values():
        targets[_load(system["config"]).model_type] = list(system["lora_targets"])


def _is_complete(module: ModuleType) -> bool:
    return not getattr(module.__spec__, "_initializing", False)


def _when_loaded(module: str, action: Callable[[], None]) -> None:
    loaded = sys.modules.get(module)
    if loaded is not None and _is_complete(loaded):
        action()
    elif loaded is None:
        sys.meta_path.insert(0, _AfterImport(module, action))


class _AfterImport(MetaPathFinder, Loader):
    """Runs `action` once, right after `module` has been imported by whoever imports it."""

    def __init__(self, module: str, action: Callable[[], None]) -> None:
        self.module, self.action = module, action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            self.loader = spec.loader
            spec.loader = self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
            module.__spec__._initializing = False  # type: ignore[attr-defined]  # importlib clears it only after this returns
        self.action()
