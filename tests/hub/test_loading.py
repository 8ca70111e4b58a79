"""What pipelines and `adapt` accept from a folder: safetensors of the right kind of model, and adapters whose base is
there. Everything else is one sentence that names the folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hf_mobility import (
    MobilityEmbeddingPipeline,
    MstarCodecConfig,
    MstarCodecModel,
    MstarConfig,
    MstarForTrajectoryGeneration,
    NextLocationPipeline,
    RawConfig,
    RawForTrajectoryPrediction,
    RawModel,
    SamoeConfig,
    SamoeForNextLocation,
    SamoeModel,
    SamoeTokenizer,
    TrajectoryGenerationPipeline,
    TrajectoryPredictionPipeline,
    adapt,
)

READERS: dict[str, Callable[..., Any]] = {
    "adapt": lambda folder: adapt(folder, None),
    "MobilityEmbeddingPipeline": MobilityEmbeddingPipeline.from_pretrained,
    "NextLocationPipeline": NextLocationPipeline.from_pretrained,
    "TrajectoryGenerationPipeline": TrajectoryGenerationPipeline.from_pretrained,
    "TrajectoryPredictionPipeline": TrajectoryPredictionPipeline.from_pretrained,
}
NEEDED = {
    "adapt": "SamoeForNextLocation",
    "MobilityEmbeddingPipeline": "RawModel",
    "NextLocationPipeline": "SamoeForNextLocation",
    "TrajectoryGenerationPipeline": "MstarForTrajectoryGeneration",
    "TrajectoryPredictionPipeline": "RawForTrajectoryPrediction",
}
SAVED = {
    "SamoeForNextLocation": ["adapt", "NextLocationPipeline"],
    "SamoeModel": [],
    "MstarCodecModel": [],
    "MstarForTrajectoryGeneration": ["TrajectoryGenerationPipeline"],
    "RawForTrajectoryPrediction": ["MobilityEmbeddingPipeline", "TrajectoryPredictionPipeline"],
}


def make_model(name: str, toy: SimpleNamespace) -> Any:
    return {
        "SamoeForNextLocation": toy.model,
        "SamoeModel": lambda: SamoeModel(toy.model().config),
        "MstarCodecModel": lambda: MstarCodecModel(MstarCodecConfig.from_preset("tiny")),
        "MstarForTrajectoryGeneration": lambda: MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny")),
        "RawForTrajectoryPrediction": lambda: RawForTrajectoryPrediction(RawConfig.from_preset("tiny")),
    }[name]()


@pytest.fixture(scope="module")
def adapted(toy: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base` and, tuned from it by a relative path, `adapter`."""
    folder = tmp_path_factory.mktemp("adapted")
    visits, city = toy.city(4, seed=3)
    toy.model().save_pretrained(folder / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        adapt("base", visits, city=city, strength="none").save_pretrained("adapter")
    return folder


@pytest.mark.parametrize("saved", SAVED)
def test_another_kind_of_model_is_named_before_a_weight_is_read(
    saved: str, toy: SimpleNamespace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_model(saved, toy).save_pretrained(tmp_path)
    capfd.readouterr()
    for reader in READERS.keys() - SAVED[saved]:
        sentence = f"^{tmp_path} holds a {saved}; {reader} needs a {NEEDED[reader]}.$"
        with pytest.raises(ValueError, match=sentence):
            READERS[reader](tmp_path)
    assert not any(capfd.readouterr())  # no report of weights that are missing


@pytest.mark.parametrize("name", ["gone", "./gone", "runs/city/gone", "/gone/away", "~/gone"])
@pytest.mark.parametrize("reader", READERS)
def test_a_folder_that_is_not_there_is_no_request_to_the_hub(
    reader: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("the Hub was asked")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.get_session", refuse)
    with pytest.raises(FileNotFoundError, match=f"^{name} could not be loaded: there is no such folder"):
        READERS[reader](name)


@pytest.mark.parametrize("reader", READERS)
def test_a_pickle_is_never_opened(reader: str, toy: SimpleNamespace, tmp_path: Path) -> None:
    saved = next(name for name, readers in SAVED.items() if reader in readers)
    model = make_model(saved, toy)
    model.config.architectures = [saved]
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        READERS[reader](tmp_path)


def test_a_pickled_adapter_is_never_opened(adapted: Path, tmp_path: Path) -> None:
    shutil.copytree(adapted / "adapter", tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    torch.save({}, tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(OSError, match=r"adapter_model\.safetensors"):
        NextLocationPipeline.from_pretrained(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("bare", "whole"), [(RawModel, "RawForTrajectoryPrediction"), (SamoeModel, "SamoeForNextLocation")]
)
def test_an_encoder_is_taken_out_of_a_whole_model_without_a_report(
    bare: Any, whole: str, toy: SimpleNamespace, tmp_path: Path
) -> None:
    model = make_model(whole, toy)
    model.save_pretrained(tmp_path)
    loaded, report = bare.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    wanted = model.model.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())


def test_an_adapter_finds_its_base_from_another_folder(
    adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((adapted / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(adapted / "base")
    monkeypatch.chdir(tmp_path)
    assert isinstance(NextLocationPipeline.from_pretrained(adapted / "adapter").model, SamoeForNextLocation)


def test_a_base_that_is_not_there_is_named(adapted: Path, tmp_path: Path) -> None:
    shutil.copytree(adapted / "adapter", tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    for base in (str(tmp_path / "gone"), ""):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))
        with pytest.raises(
            FileNotFoundError, match=f"{tmp_path}/adapter is an adapter whose base model '{base}' is not"
        ):
            NextLocationPipeline.from_pretrained(tmp_path / "adapter")


DAMAGES: dict[str, tuple[str, bytes]] = {
    "config.json": ("no readable JSON", b""),
    "adapter_config.json": ("no readable JSON", b"[" * 100_000),
    "tokenizer_config.json": ("no readable JSON", b"[1]"),
    "adapter_model.safetensors": ("no readable safetensors", b"<html>"),
    "model.safetensors": ("no readable safetensors", b"\x80\x04pickle"),
    "city.safetensors": ("no readable safetensors", b""),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_named_in_one_sentence(name: str, adapted: Path, tmp_path: Path) -> None:
    shutil.copytree(adapted, tmp_path / "all")
    own = "base" if name in ("config.json", "model.safetensors") else "adapter"
    path = tmp_path / "all" / own / name
    config = tmp_path / "all" / "adapter" / "adapter_config.json"
    saved = json.loads(config.read_text()) | {"base_model_name_or_path": str(tmp_path / "all" / "base")}
    config.write_text(json.dumps(saved))
    sentence, content = DAMAGES[name]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path} is {sentence} file: ") as caught:
        NextLocationPipeline.from_pretrained(tmp_path / "all" / "adapter")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["header", "values"])
def test_weights_that_are_cut_off_are_named(part: str, toy: SimpleNamespace, tmp_path: Path) -> None:
    toy.model().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[: 100 if part == "header" else -100])
    with pytest.raises(ValueError, match=f"^{path} is no readable safetensors file"):
        NextLocationPipeline.from_pretrained(tmp_path)


def test_another_models_adapter_is_one_sentence(
    adapted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(adapted / "adapter", tmp_path / "adapter")
    config = json.loads((adapted / "base" / "config.json").read_text()) | {"hidden_size": 32}
    SamoeForNextLocation(SamoeConfig.from_dict(config)).save_pretrained(tmp_path / "base")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(tmp_path / "base")}))
    with pytest.raises(ValueError, match="or an adapter and its base, have other shapes") as caught:
        NextLocationPipeline.from_pretrained(tmp_path / "adapter")
    assert "\n" not in str(caught.value) and caplog.text == ""


def test_a_base_revision_is_that_of_an_adapters_base(adapted: Path) -> None:
    with pytest.raises(ValueError, match="is no adapter, so that base_revision='v1' means nothing"):
        NextLocationPipeline.from_pretrained(adapted / "base", base_revision="v1")


def test_an_adapter_is_no_base_to_adapt_from(adapted: Path, toy: SimpleNamespace) -> None:
    visits, city = toy.city(4, seed=3)
    with pytest.raises(
        ValueError, match=f"adapter is an adapter: adapt from its base model '{adapted}/base', or merge"
    ):
        adapt(adapted / "adapter", visits, city=city)
    carrying = NextLocationPipeline.from_pretrained(adapted / "adapter").model
    with pytest.raises(ValueError, match="the model carries an adapter already"):
        adapt(carrying, visits, city=city)


def test_the_city_of_an_adapter_is_its_own(adapted: Path) -> None:
    assert isinstance(NextLocationPipeline.from_pretrained(adapted / "adapter").tokenizer, SamoeTokenizer)
