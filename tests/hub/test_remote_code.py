"""Every saved folder carries the code that it needs: it loads in an environment that does not have hf_mobility, with
the same answers. Where the package is installed, that code is never run.

The clean environment is real; it borrows the heavy dependencies through a `.pth` file. Files named `.pth` in a borrowed
folder are not read, so an editable installation of hf_mobility there stays invisible.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sysconfig
import venv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mstar_town import BOX, ZONE
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from samoe_town import CONFIG, TOKENIZER, make_visits
from transformers import AutoConfig, AutoModel, AutoTokenizer

from hf_mobility import (
    MstarCodecConfig,
    MstarCodecModel,
    MstarConfig,
    MstarForTrajectoryGeneration,
    MstarTokenizer,
    RawConfig,
    RawForRegionAnalysis,
    RawForTrajectoryPrediction,
    RawForUserProfiling,
    RawModel,
    RawTokenizer,
    SamoeConfig,
    SamoeForNextLocation,
    SamoeModel,
    SamoeTokenizer,
)
from hf_mobility.hub.handlers import write_handler

SCRIPT = Path(__file__).with_name("scores.py")
SCORES = SimpleNamespace(**runpy.run_path(str(SCRIPT), run_name="scores"))
RAW = RawConfig.from_preset("tiny", num_labels=3)
MODELS: dict[str, tuple[type, Any]] = {
    "samoe-body": (SamoeModel, CONFIG),
    "samoe": (SamoeForNextLocation, CONFIG),
    "mstar-codec": (MstarCodecModel, MstarCodecConfig.from_preset("tiny")),
    "mstar": (MstarForTrajectoryGeneration, MstarConfig.from_preset("tiny")),
    "raw-body": (RawModel, RAW),
    "raw-prediction": (RawForTrajectoryPrediction, RAW),
    "raw-profiling": (RawForUserProfiling, RAW),
    "raw-regions": (RawForRegionAnalysis, RAW),
}


def make_model(name: str) -> Any:
    """A tiny model in which no parameter is zero."""
    model_class, config = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(type(config)(**config.to_dict())).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        if name == "mstar":
            model.fit_transition(torch.randint(0, 3, (50, 24)))
    return model


def write_records(data: Path) -> dict[str, Any]:
    """Visits, weeks and points; and a tokenizer per system."""
    rng = np.random.default_rng(0)
    make_visits().to_parquet(data / "visits.parquet")
    cells = rng.integers(0, 16, (6, 4))[:, np.arange(24) // 6].astype(np.int32)
    np.save(data / "cells.npy", cells)
    points = {
        "user_id": np.repeat([3, 7, 9], 20).tolist(),
        "time": (1_709_500_000 + rng.integers(0, 3 * 86_400, 60)).tolist(),
        "lat": rng.uniform(52.4, 52.6, 60).tolist(),
        "lon": rng.uniform(13.2, 13.6, 60).tolist(),
    }
    (data / "points.json").write_text(json.dumps(points))
    weeks = MstarTokenizer.from_grid(BOX, timezone=ZONE, rows=4, columns=4, factors=(2, 1), num_hours=24)
    weeks.fit_conditions(cells, num_attributes=2)
    return {
        "samoe": TOKENIZER,
        "mstar": weeks,
        "raw": RawTokenizer.from_points(points, timezone="Europe/Berlin", config=RAW),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The folder of all checkpoints, and what each of their models answers here."""
    data = tmp_path_factory.mktemp("remote")
    tokenizers = write_records(data)
    models = {name: make_model(name) for name in MODELS}
    for name, model in models.items():
        model.save_pretrained(data / name)
    adapted = get_peft_model(make_model("samoe"), LoraConfig(r=2, task_type="CAUSAL_LM"))
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key:
            torch.nn.init.ones_(parameter)
    adapted.peft_config["default"].base_model_name_or_path = str(data / "samoe")
    adapted.save_pretrained(str(data / "samoe-adapter"))
    for name in SCORES.AUTO_CLASSES:
        tokenizers[name.split("-")[0]].save_pretrained(data / name, min_users=1)
    assert {name for name in SCORES.AUTO_CLASSES if write_handler(data / name)} == {*SCORES.TASKS, "samoe-adapter"}
    # Loaded, because adapters in memory add up their tiny matrices in another order than loaded ones, and because some
    # processors round a product by where in memory the weights lie.
    answers = {}
    for name in [*models, "samoe-adapter"]:
        tokenizer = tokenizers[name.split("-")[0]]
        answers[name] = SCORES.scores(name, SCORES.load(data / name)[0].eval(), tokenizer, data)
        if name in models:
            assert_near(SCORES.scores(name, models[name], tokenizer, data), answers[name])
    told = {name: SCORES.answers(name, data) for name in SCORES.TASKS}
    return SimpleNamespace(data=data, answers=answers, told=told)


def assert_near(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}")


def assert_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert any(name.startswith("model.") for name in wanted)
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


@pytest.fixture(scope="module")
def elsewhere(saved: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the clean environment wrote its answers, one file per checkpoint."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    site = next((folder / "env" / "lib").glob("python*/site-packages"))
    (site / "lent_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "HOME": str(folder)}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # the same sums in the same order
    result = subprocess.run(
        [str(folder / "env" / "bin" / "python"), "-P", str(SCRIPT), str(saved.data)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return saved.data


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORES.AUTO_CLASSES)
def test_a_folder_answers_the_same_where_the_package_is_not_installed(
    name: str, saved: SimpleNamespace, elsewhere: Path
) -> None:
    assert_equal(load_file(elsewhere / f"{name}.safetensors"), saved.answers[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORES.TASKS)
def test_the_task_of_a_folder_answers_the_same_where_the_package_is_not_installed(
    name: str, saved: SimpleNamespace, elsewhere: Path
) -> None:
    told, handled = json.loads((elsewhere / f"{name}.json").read_text(encoding="utf-8"))
    assert told and told == json.loads(json.dumps(saved.told[name]))
    assert handled and handled == told[: len(handled)]
    assert len(handled) == (len(told) if name != "mstar" else 3 * 24)


@pytest.mark.parametrize("name", SCORES.AUTO_CLASSES)
def test_with_the_package_the_code_beside_the_weights_is_never_run(name: str, saved: SimpleNamespace) -> None:
    files = list((saved.data / name).glob("*.py"))
    assert files
    texts = {path: path.read_text() for path in files}
    try:
        for path in files:
            path.write_text("raise SystemExit('this file was run')\n")
        model, tokenizer = SCORES.load(saved.data / name)
        # Even one who says that the code may be run gets the package's classes.
        trusted = AutoTokenizer.from_pretrained(saved.data / name, trust_remote_code=True)
        assert type(trusted) is type(tokenizer) and type(trusted).__module__.startswith("hf_mobility.tokenization.")
        if name != "samoe-adapter":
            assert type(AutoConfig.from_pretrained(saved.data / name, trust_remote_code=True)) is type(model.config)
            body = AutoModel.from_pretrained(saved.data / name, trust_remote_code=True)
            assert type(body).__module__.startswith("hf_mobility.modeling.")
        if name in SCORES.TASKS:
            assert SCORES.answers(name, saved.data, trust_remote_code=True) == saved.told[name]
    finally:
        for path, text in texts.items():
            path.write_text(text)
    assert_equal(SCORES.scores(name, model.eval(), tokenizer, saved.data), saved.answers[name])


def test_a_folder_names_all_the_code_that_it_can_be_opened_with(saved: SimpleNamespace) -> None:
    config = json.loads((saved.data / "raw-prediction" / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_raw.RawConfig",
        "AutoModel": "modeling_raw.RawModel",
        "AutoModelForTimeSeriesPrediction": "modeling_raw.RawForTrajectoryPrediction",
    }
    assert config["custom_pipelines"] == {
        "trajectory-prediction": {
            "impl": "pipelines_mobility.HubTrajectoryPredictionPipeline",
            "pt": ["AutoModelForTimeSeriesPrediction"],
        }
    }
    assert (saved.data / "raw-prediction" / "pipelines_mobility.py").is_file()
    for name in SCORES.AUTO_CLASSES:
        tokenizer = json.loads((saved.data / name / "tokenizer_config.json").read_text())
        (found, _) = tokenizer["auto_map"]["AutoTokenizer"]
        assert (saved.data / name / f"{found.split('.')[0]}.py").is_file()


def test_a_body_of_a_model_with_a_task_names_no_task(tmp_path: Path) -> None:
    model = make_model("samoe")
    for part, named in ((model, True), (model.model, False), (model, True)):
        part.save_pretrained(tmp_path)
        assert ("custom_pipelines" in json.loads((tmp_path / "config.json").read_text())) is named


def test_a_configuration_alone_brings_its_own_code_only(tmp_path: Path) -> None:
    SamoeConfig.from_preset("tiny").save_pretrained(tmp_path)
    own = {"configuration_samoe.py", "configuration_checks.py"}
    assert {path.name for path in tmp_path.glob("*.py")} == own
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_samoe.SamoeConfig"
    }


def test_both_task_heads_are_told_apart(saved: SimpleNamespace) -> None:
    """They share one Auto class and their weights have the same names and shapes."""
    from transformers import AutoModelForSequenceClassification

    for name in ("raw-profiling", "raw-regions"):
        model = AutoModelForSequenceClassification.from_pretrained(saved.data / name)
        assert type(model) is MODELS[name][0]
    assert type(AutoModelForSequenceClassification.from_config(RawConfig.from_preset("tiny"))) is RawForUserProfiling


def test_a_tokenizer_saved_without_any_model_brings_its_code(tmp_path: Path) -> None:
    assert isinstance(TOKENIZER, SamoeTokenizer)
    TOKENIZER.save_pretrained(tmp_path)
    shared = {"city", "city_files", "city_tokenizer", "clock", "errors", "grid", "poi", "records", "tables"}
    shared |= {"table_files", "text_lines", "texts", "whole_files"}
    assert {path.stem for path in tmp_path.glob("*.py")} == {"tokenization_samoe", "places_samoe", *shared}
