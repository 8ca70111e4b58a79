"""Smoke test of an installed wheel.

tools/check_wheel.py runs it with `python -P` from an empty folder; arguments: site-packages, then checkpoint folders.
It checks where the package lies, that all its modules import, that the declared requirements are what is there, that
every tiny model is saved and loaded unchanged, that the given checkpoints load completely, and that the small ones
predict, roll out, adapt, generate and embed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import torch
import transformers
from packaging.requirements import Requirement
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

import hf_mobility
from hf_mobility import (
    City,
    MobilityEmbeddingPipeline,
    NextLocationPipeline,
    TrajectoryGenerationPipeline,
    TrajectoryPredictionPipeline,
    adapt,
    simulate_city,
)


def check(condition: bool, sentence: str) -> None:
    if not condition:
        raise SystemExit(f"wheel_smoke: {sentence}")


def check_place(site: Path) -> list[ModuleType]:
    """The package and all of its modules come from the clean environment; no stray top-level folders are importable."""
    check(Path(hf_mobility.__file__).is_relative_to(site), f"hf_mobility is {hf_mobility.__file__}, not below {site}")
    for name in ("modeling", "tokenization"):
        check(importlib.util.find_spec(name) is None, f"`import {name}` works: a second copy of every class")
    modules = [
        importlib.import_module(found.name) for found in pkgutil.walk_packages(hf_mobility.__path__, "hf_mobility.")
    ]
    for module in modules:
        check(Path(module.__file__ or "").is_relative_to(site), f"{module.__name__} is {module.__file__}")
    for name in hf_mobility.__all__:
        check(hasattr(hf_mobility, name), f"hf_mobility.__all__ names {name}, which does not exist")
    return modules


def check_requirements() -> None:
    """What setup.cfg asks for is what runs here."""
    distribution = importlib.metadata.distribution("hf_mobility")
    check(
        distribution.version == hf_mobility.__version__,
        f"metadata says {distribution.version}, __version__ says {hf_mobility.__version__}",
    )
    for text in distribution.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            version = importlib.metadata.version(requirement.name)
            check(requirement.specifier.contains(version, prereleases=True), f"{text} is asked for, {version} is here")


def model_classes(modules: list[ModuleType]) -> list[type[PreTrainedModel]]:
    return [
        value
        for module in modules
        for name, value in sorted(vars(module).items())
        if name in getattr(module, "__all__", ())  # not the bases that task heads share
        if isinstance(value, type) and issubclass(value, PreTrainedModel) and value.__module__ == module.__name__
        if not name.endswith("PreTrainedModel")
    ]


def check_models(models: list[type[PreTrainedModel]]) -> None:
    """Every model survives saving and loading with equal weights, and AutoConfig knows its configuration."""
    check(bool(models), "no model class was found")
    for model_class in models:
        form = {"variant": "extended"} if "Extended" in model_class.__name__ else {}
        model = model_class(model_class.config_class.from_preset("tiny", **form))
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            loaded = model_class.from_pretrained(folder)
            check(type(AutoConfig.from_pretrained(folder)) is model_class.config_class, f"{model_class}: AutoConfig")
        state = loaded.state_dict()
        for key, value in model.state_dict().items():
            check(torch.equal(value, state[key]), f"{key} of {model_class.__name__} changed by saving and loading")


def check_checkpoint(folder: Path, models: list[type[PreTrainedModel]]) -> None:
    """All weights of a committed checkpoint find their place, and its tokenizer is ours."""
    (name,) = AutoConfig.from_pretrained(folder).architectures
    model_class = next((model for model in models if model.__name__ == name), None)
    check(model_class is not None, f"{folder.name} was saved by {name}, which the package does not have")
    _, report = model_class.from_pretrained(folder, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        check(not report[kind], f"{folder.name}: {kind.replace('_', ' ')} {sorted(report[kind])[:5]}")
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        check(type(tokenizer).__module__.startswith("hf_mobility."), f"{folder.name}: tokenizer is {type(tokenizer)}")


def check_verbs(samoe: Path, mstar: Path, raw: Path) -> None:
    """The small checkpoints do their work for eight simulated people."""
    made = simulate_city(8, num_days=10, num_locations=60, seed=5)
    city = City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois)
    local = adapt(samoe, made.visits, city=city, strength="weak")
    with tempfile.TemporaryDirectory() as adapted:
        local.save_pretrained(adapted)
        for folder, options in ((samoe, {"city": city}), (adapted, {})):
            pipe = NextLocationPipeline.from_pretrained(folder, **options)
            found = pipe.predict(made.visits, top_k=3)
            check(len(found) == 24 and found["probability"].between(0, 1).all(), f"predictions of {folder}: {found}")
    visits = pipe.tokenizer(made.visits, padding=True, truncation=True, return_tensors="pt")
    rolled = pipe.model.generate(**visits, max_new_tokens=2, do_sample=False)
    check(rolled.shape[1] == visits["input_ids"].shape[1] + 2, f"two more visits, but {tuple(rolled.shape)}")

    weeks = TrajectoryGenerationPipeline.from_pretrained(mstar).generate(3, seed=0)
    check(weeks["trajectory_id"].nunique() == 3 and weeks["cell"].min() >= 0, f"generated weeks: {weeks}")
    people = MobilityEmbeddingPipeline.from_pretrained(raw).embed_users(made.visits)
    check(len(people) == 8 and people.notna().all(axis=None), f"embeddings: {people}")
    ahead = TrajectoryPredictionPipeline.from_pretrained(raw).predict(made.visits, horizon=["30min"])
    check(len(ahead) == 8 and ahead[["lat", "lon"]].notna().all(axis=None), f"positions: {ahead}")


def main(site: str, *checkpoints: str) -> None:
    logging.disable_progress_bar()
    modules = check_place(Path(site))
    check_requirements()
    models = model_classes(modules)
    check_models(models)
    for checkpoint in checkpoints:
        check_checkpoint(Path(checkpoint), models)
    named = {Path(checkpoint).name: Path(checkpoint) for checkpoint in checkpoints}
    check_verbs(named["samoe-small"], named["mstar-cells-small"], named["raw-released-small"])
    print(
        f"wheel smoke test with transformers {transformers.__version__}: {len(modules)} modules, {len(models)} models, "
        f"{len(checkpoints)} checkpoints; they predict, roll out, adapt, generate and embed"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
