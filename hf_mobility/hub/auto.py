"""The one table of systems, and its registration with transformers' Auto classes, its `pipeline`, and PEFT's default
targets.

What is registered are stand-ins: each has the name of a class and imports it when something of it is asked for. So
`import hf_mobility` costs users of transformers next to nothing, and a system that cannot be imported is an error of
that system only. A finder waits for the modules that registration needs, because importing transformers takes seconds
that somebody who only reads a file should not wait.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
# Auto class -> model classes, per model type; of several, the `architectures` of a checkpoint choose, and where they do
# not, the first of the configuration's variant.
SYSTEMS: dict[str, dict[str, Any]] = {
    "mobility_samoe": {
        "config": "SamoeConfig",
        "tokenizer": "SamoeTokenizer",
        "models": {"AutoModel": ["SamoeModel"], "AutoModelForCausalLM": ["SamoeForNextLocation"]},
        "lora_targets": ATTENTION,
    },
    "mobility_mstar_codec": {
        "config": "MstarCodecConfig",
        "tokenizer": "MstarTokenizer",
        "models": {"AutoModel": ["MstarCodecModel"]},
        "lora_targets": ATTENTION,
    },
    "mobility_mstar": {
        "config": "MstarConfig",
        "tokenizer": "MstarTokenizer",
        "other_tokenizers": ["MstarSlotTokenizer"],
        "models": {"AutoModel": ["MstarForTrajectoryGeneration"]},
        "lora_targets": ["qkv_proj"],  # which the frozen codec inside does not have
    },
    "mobility_raw": {
        "config": "RawConfig",
        "tokenizer": "RawTokenizer",
        "models": {
            "AutoModel": ["RawModel", "RawExtendedModel"],
            "AutoModelForSequenceClassification": ["RawForUserProfiling", "RawForRegionAnalysis"],
            "AutoModelForTimeSeriesPrediction": ["RawForTrajectoryPrediction", "RawExtendedForTrajectoryPrediction"],
        },
        "lora_targets": ATTENTION,
    },
}

# Task of transformers' `pipeline` -> pipeline and Auto class.
TASKS = {
    "next-location": ("HubNextLocationPipeline", "AutoModelForCausalLM"),
    "trajectory-generation": ("HubTrajectoryGenerationPipeline", "AutoModel"),
    "trajectory-prediction": ("HubTrajectoryPredictionPipeline", "AutoModelForTimeSeriesPrediction"),
    "mobility-embedding": ("HubMobilityEmbeddingPipeline", "AutoModel"),
}

_PACKAGE = __package__.rpartition(".")[0]


def register() -> None:
    """Register every system, each part as soon as the module that keeps it is loaded, now or later."""
    waiting: dict[str, Callable[[Any], None]] = {
        "transformers.models.auto.configuration_auto": _register_configs,
        "transformers.models.auto.modeling_auto": _register_models,
        "transformers.models.auto.tokenization_auto": _register_tokenizers,
        "transformers.pipelines": _register_pipelines,
        "peft.utils.constants": _register_lora_targets,
    }
    for name in [name for name in waiting if name in sys.modules]:
        if _is_complete(sys.modules[name]):
            _attempt(waiting.pop(name), sys.modules[name])
    sys.meta_path.insert(0, _AfterImport(waiting))


def _attempt(action: Callable[[Any], None], module: ModuleType) -> None:
    try:
        action(module)
    except Exception as error:  # importing transformers works all the same
        logging.getLogger(__name__).warning("%s is not registered with %s: %r", _PACKAGE, module.__name__, error)


def _register_configs(module: Any) -> None:
    for model_type, system in SYSTEMS.items():
        module.AutoConfig.register(model_type, _config_stand_in(system["config"]))


def _config_stand_in(name: str) -> type:
    def from_dict(config_dict: dict[str, Any], **kwargs: Any) -> Any:
        if isinstance(tasks := config_dict.get("custom_pipelines"), dict):
            config_dict = {**config_dict, "custom_pipelines": _Tasks(tasks)}
        return _load("modeling", name).from_dict(config_dict, **kwargs)

    return _stand_in("modeling", name, from_dict=staticmethod(from_dict))


class _Tasks(dict[str, Any]):
    """`custom_pipelines` of a saved configuration. transformers' `pipeline` infers the task from it, and takes the
    registered pipeline, as the folder's own code is not run where the package is installed: no task is "in" it."""

    def __contains__(self, task: object) -> bool:
        return False


def _register_models(module: Any) -> None:
    for model_type, system in SYSTEMS.items():
        try:
            config = _load("modeling", system["config"])  # the key of every mapping
        except ImportError as error:
            logging.getLogger(__name__).warning("%s is not registered: %s", model_type, error)
            continue
        for auto, names in system["models"].items():
            getattr(module, auto).register(config, _stand_in("modeling", *names, config_class=config))


def _register_tokenizers(module: Any) -> None:
    """Each under a configuration of its own; saved tokenizers are found by the name of their class. Under their
    system's configuration a folder's code would be run in their place by `trust_remote_code=True`, which models never
    allow."""
    names = {name for system in SYSTEMS.values() for name in (system["tokenizer"], *system.get("other_tokenizers", ()))}
    for name in names:
        key = type(f"{name}Key", (module.PreTrainedConfig,), {})
        module.AutoTokenizer.register(key, tokenizer_class=_stand_in("tokenization", name))


def _register_pipelines(module: Any) -> None:
    from transformers.models.auto import modeling_auto

    for task, (name, auto) in TASKS.items():
        pipeline = _stand_in("modeling.pipelines_mobility", name)
        module.PIPELINE_REGISTRY.register_pipeline(task, pipeline, pt_model=getattr(modeling_auto, auto))


def _register_lora_targets(module: Any) -> None:
    for model_type, system in SYSTEMS.items():
        module.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING[model_type] = list(system["lora_targets"])


def _load(folder: str, name: str) -> Any:
    """A class by the table of `modeling` or `tokenization`, or of one file there.

    Raises:
        ImportError: whatever is wrong with its file, so that one system's fault is known as such.
    """
    try:
        return getattr(import_module(f".{folder}", _PACKAGE), name)
    except Exception as error:
        raise ImportError(f"{_PACKAGE}.{folder}.{name} cannot be imported: {error!r}") from error


def _stand_in(folder: str, *names: str, **attributes: Any) -> type:
    """A class with the name of the first of `names` that imports it when anything of it is asked for. Of several
    models, the `architectures` of a configuration choose. (transformers takes a tuple of models as well, but then
    cannot make fresh weights for a configuration without `architectures`.)"""

    def chosen(config: Any) -> Any:
        named = next((name for name in config.architectures or () if name in names), None)
        if named is None and (variant := getattr(config, "variant", None)) is not None:
            named = next((name for name in names if _load(folder, name).variant == variant), None)
        return _load(folder, named or names[0])

    def from_pretrained(where: Any, *args: Any, config: Any, **kwargs: Any) -> Any:
        return chosen(config).from_pretrained(where, *args, config=config, **kwargs)

    def from_config(config: Any, **kwargs: Any) -> Any:
        return chosen(config)._from_config(config, **kwargs)

    if len(names) > 1:
        attributes |= {"from_pretrained": staticmethod(from_pretrained), "_from_config": staticmethod(from_config)}
    attributes |= {"__module__": f"{_PACKAGE}.{folder}", "__doc__": f"Stands in for {' and '.join(names)}."}
    return _StandIn(names[0], (), attributes)


class _StandIn(type):
    """The type of stand-ins: calls, and attributes that one does not have, are those of the class of its name."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls._class(), name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._class()(*args, **kwargs)

    def _class(cls) -> Any:
        return _load(cls.__module__.removeprefix(f"{_PACKAGE}."), cls.__name__)


def _is_complete(module: ModuleType) -> bool:
    return not getattr(module.__spec__, "_initializing", False)


class _AfterImport(MetaPathFinder, Loader):
    """Calls an action with a module once, right after whoever imports that module has done so."""

    def __init__(self, waiting: dict[str, Callable[[Any], None]]) -> None:
        self.waiting = waiting
        self.loaders: dict[str, Any] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.waiting or fullname in self.loaders:
            return None
        self.loaders[fullname] = None  # whoever else finds it is asked next
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            del self.loaders[fullname]
            return None
        self.loaders[fullname], spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loaders[spec.name].create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        loader = self.loaders.pop(name)
        loader.exec_module(module)
        if module.__spec__ is not None:
            module.__spec__.loader = loader
        _attempt(self.waiting.pop(name), module)
