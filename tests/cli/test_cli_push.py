"""`info` and `push`: what is in a folder, and the folder on a Hub of this machine."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from command_line import ZONE, call
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoTokenizer

from hf_mobility.cli.train import own_command
from hf_mobility.hub.folder import SavedFolder

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = [path.parent for path in sorted((ROOT / "checkpoints").glob("*/config.json"))]


def test_info_tells_what_files_and_folders_hold(town: SimpleNamespace, generator: Path, encoder: Path) -> None:
    told = call("info", town.visits).output
    assert re.search(r"users:\s+30\n", told) and re.search(r"places:\s+\d+", told)
    told = call("info", town.samoe).output
    assert "SamoeForNextLocation" in told and "simville" in told and ZONE in told
    told = call("info", generator).output
    assert "MstarForTrajectoryGeneration" in told and re.search(r"cells:\s+\d+\n", told) and "places" not in told
    assert "RawForTrajectoryPrediction" in call("info", encoder).output


def test_push_uploads_the_folder_and_its_card_names_the_repository(
    town: SimpleNamespace, local: Path, run_python: Callable[..., Any]
) -> None:
    hub_server = pytest.importorskip("hub_server", reason="the loopback hub is not there")
    (local / "checkpoint-3").mkdir()
    (local / "checkpoint-3" / "optimizer.pt").write_bytes(b"0")
    code = "from hf_mobility.cli.app import app\n"
    for command in (
        ["push", str(local), "mia/my-city", "--base-model", "mia/samoe", "--private"],
        ["push", str(town.samoe), "mia/samoe"],
    ):
        code += f"app({command!r}, standalone_mode=False)\n"
    with hub_server.HubServer() as hub:
        hub_at = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_mia", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        told = run_python("-c", code, **hub_at).stdout
        repository, base = hub.repositories["mia/my-city"], hub.repositories["mia/samoe"]
    assert f"{hub.url}/mia/my-city/commit/" in told
    arrived = repository.files()
    assert repository.private and not base.private and "checkpoint-3/optimizer.pt" not in arrived
    assert json.loads(arrived["adapter_config.json"])["base_model_name_or_path"] == "mia/samoe"
    assert 'from_pretrained("mia/my-city")' in arrived["README.md"].decode()
    card = ModelCard(base.files()["README.md"].decode())
    assert card.data.library_name == "hf_mobility" and 'from_pretrained("mia/samoe")' in card.text
    assert not (town.samoe / "README.md").exists()  # the folder itself stays as it is


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda folder: folder.name)
def test_a_folder_without_code_is_pushed_with_it(folder: Path, tmp_path: Path) -> None:
    """The shipped checkpoints carry none; everything else stays."""
    pushed = SavedFolder(folder)
    pushed.save_pretrained(tmp_path)
    pushed._write_card(tmp_path, name="mia/town", facts=None)
    for name, auto in (("config.json", "AutoModel"), ("tokenizer_config.json", "AutoTokenizer")):
        before, after = (json.loads((path / name).read_text()) for path in (folder, tmp_path))
        assert "auto_map" not in before
        reference = after.pop("auto_map")[auto]
        module = (reference if isinstance(reference, str) else reference[0]).split(".")[0]
        assert (tmp_path / f"{module}.py").is_file()
    before, after = (AutoConfig.from_pretrained(path).to_dict() for path in (folder, tmp_path))
    others = ("auto_map", "custom_pipelines", "use_cache", "_name_or_path", "codec_config")
    assert {key: after[key] for key in before if key not in others} == {
        key: value for key, value in before.items() if key not in others
    }
    one, two = (AutoTokenizer.from_pretrained(path) for path in (folder, tmp_path))
    assert one.city == two.city and one.model_max_length == two.model_max_length
    named = re.findall(r'from_pretrained\("(.*?)"', (tmp_path / "README.md").read_text())
    assert named and set(named) == {"mia/town"}


def spoil(folder: Path, kind: str) -> None:
    """Put something into a folder that must not be sent."""
    key = folder.parent / "id_rsa"
    key.write_text("PRIVATE KEY")
    if kind == "link under a known name":
        (folder / "README.md").symlink_to(key)
    elif kind == "link out":
        (folder / "notes.txt").symlink_to("../id_rsa")
    elif kind == "folder behind a link":
        (folder / "data").symlink_to(folder.parent)
    elif kind == "link to a secret in the folder":
        (folder / "key").write_text("PRIVATE KEY")
        (folder / "LICENSE").symlink_to(folder / "key")
    elif kind == "pickle by name":
        (folder / "pytorch_model.bin").write_bytes(b"")
    elif kind == "pickle under a known name":
        (folder / "model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    elif kind == "pickle under a name of its own":
        torch.save({"a": torch.zeros(1)}, folder / "weights")
    elif kind == "text under a known name":
        (folder / "generation_config.json").write_text("PRIVATE KEY")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("link under a known name", "README.md is a link out of the folder"),
        ("link out", "notes.txt is a link out of the folder"),
        ("folder behind a link", "data is a link out of the folder"),
        ("link to a secret in the folder", "LICENSE is a link to key, which is not sent"),
        ("pickle by name", "pytorch_model.bin is a pickle"),
        ("pickle under a known name", "model.safetensors is a pickle"),
        ("pickle under a name of its own", "weights is a pickle"),
        ("text under a known name", "generation_config.json is no readable JSON file"),
    ],
)
def test_push_refuses_links_that_lead_out_and_every_pickle(
    kind: str, sentence: str, town: SimpleNamespace, tmp_path: Path
) -> None:
    """Before a request to the Hub."""
    folder = tmp_path / "model"
    shutil.copytree(town.samoe, folder)
    spoil(folder, kind)
    told = call("push", folder, "me/x", code=1).output
    assert f"{folder}/{sentence}" in told and told.count("\n") == 2  # and that the command begins


def test_the_command_on_a_card_names_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of mia").mkdir()
    visits = tmp_path / "of mia" / "visits.csv"
    visits.touch()
    monkeypatch.chdir(tmp_path)
    given = ["adapt", "me/samoe", "of mia/visits.csv", str(visits), "--timezone=Europe/Berlin", "-o", "out/town"]
    monkeypatch.setattr("sys.argv", ["hf-mobility", *given, "--resume"])
    wanted = "hf-mobility adapt me/samoe visits.csv visits.csv --timezone=Europe/Berlin -o town"
    assert own_command(Path("out/town")) == wanted


def test_a_folder_is_named_in_the_commit_wherever_the_command_runs(
    town: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, Any] = {}
    answer = SimpleNamespace(commit_url="https://example.org/commit")
    monkeypatch.setattr(SavedFolder, "push_to_hub", lambda self, repo_id, **options: sent.update(options) or answer)
    monkeypatch.chdir(town.samoe)
    call("push", ".", "me/x")
    assert sent["commit_message"] == "Upload samoe"


def test_push_refuses_what_nobody_could_load(local: Path, tmp_path: Path) -> None:
    assert "There is no folder" in call("push", tmp_path / "nothing", "me/x", code=1).output
    assert "holds no saved model" in call("push", tmp_path, "me/x", code=1).output
    assert "which nobody else can load" in call("push", local, "me/x", code=1).output


def test_info_of_a_table_of_weeks(tmp_path: Path) -> None:
    pd.DataFrame({"user_id": [1, 1, 2], "cells": [[0] * 168] * 3}).to_parquet(tmp_path / "weeks.parquet")
    told = call("info", tmp_path / "weeks.parquet").output
    assert re.search(r"weeks: +3\n", told) and re.search(r"users: +2\n", told) and re.search(r"slots: +168\n", told)
