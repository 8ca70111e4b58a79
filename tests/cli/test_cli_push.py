"""`info` and `push`: what is in a folder, and the folder on a Hub of this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from command_line import ZONE, call
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoTokenizer

from hf_mobility.hub.folder import SavedFolder

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = [path.parent for path in sorted((ROOT / "checkpoints").glob("*/config.json"))]


def test_info_tells_what_files_and_folders_hold(town: SimpleNamespace, generator: Path, encoder: Path) -> None:
    told = call("info", town.visits).output
    assert re.search(r"users:\s+30\n", told) and re.search(r"places:\s+\d+", told)
    told = call("info", town.samoe).output
    assert "SamoeForNextLocation" in told and "simville" in told and ZONE in told
    assert "MstarForTrajectoryGeneration" in call("info", generator).output
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


def test_push_refuses_what_nobody_could_load(local: Path, tmp_path: Path) -> None:
    assert "There is no folder" in call("push", tmp_path / "nothing", "me/x", code=1).output
    assert "holds no saved model" in call("push", tmp_path, "me/x", code=1).output
    assert "which nobody else can load" in call("push", local, "me/x", code=1).output


def test_info_of_a_table_of_weeks(tmp_path: Path) -> None:
    pd.DataFrame({"user_id": [1, 1, 2], "cells": [[0] * 168] * 3}).to_parquet(tmp_path / "weeks.parquet")
    told = call("info", tmp_path / "weeks.parquet").output
    assert re.search(r"weeks: +3\n", told) and re.search(r"users: +2\n", told) and re.search(r"slots: +168\n", told)
