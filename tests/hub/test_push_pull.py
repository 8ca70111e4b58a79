"""Push and pull by the real huggingface_hub client over HTTP, against a server on loopback: models, tokenizers, whole
pipelines and adapters; revisions, private repositories, refusals, interruptions.

One script (pushes.py) does everything in a process of its own. Each test looks at a part of what it found, or at what
the server received.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub_server import HubServer

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def found(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("user")
    (folder / "tmp").mkdir()
    (folder / "work").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "cache"),
        "HF_TOKEN": "hf_mia",
        # The server has no xet, and the client does not fall back by itself.
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).with_name("pushes.py"))],
        cwd=folder / "work",
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    answers: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answers | {"work": sorted(path.name for path in (folder / "work").iterdir())}


def test_a_model_and_its_tokenizer_come_back_as_they_went(hub: HubServer, found: dict[str, Any]) -> None:
    card = found["parts"].pop("card")
    assert "# parts" in card or "mia/parts" in card
    assert "library_name: hf_mobility" in card and "More Information Needed" not in card
    assert found["parts"] == {"model": True, "body": True, "city": True, "ours": True}
    assert b"class EndpointHandler" in hub.repositories["mia/parts"].files()["handler.py"]
    assert hub.repositories["mia/parts"].messages[1:] == ["Upload SamoeForNextLocation", "The city"]


def test_a_pipeline_is_one_commit_with_all_that_it_needs(hub: HubServer, found: dict[str, Any]) -> None:
    repository = hub.repositories["mia/next"]
    assert found["next"]["same"] is True
    address, oid, message = found["next"]["commit"]
    assert oid == repository.refs["main"] and address.endswith(f"/mia/next/commit/{oid}") and message == "First"
    assert repository.messages == ["initial commit", "First"]
    needed = {"model.safetensors", "config.json", "city.json", "city.safetensors", "tokenizer_config.json"}
    assert needed | {"modeling_samoe.py", "tokenization_samoe.py", "handler.py"} <= repository.files().keys()
    assert found["weeks"] is True and found["people"] is True
    assert hub.repositories["mia/weeks"].messages[1:] == ["Upload TrajectoryGenerationPipeline"]


def test_the_snippet_of_a_pushed_card_runs_by_its_id_in_an_empty_folder(found: dict[str, Any]) -> None:
    assert all(name in found["snippets"]["mia/next"] for name in ("location_id", "probability"))
    assert "trajectory_id" in found["snippets"]["mia/weeks"]
    assert found["snippets"]["mia/people"]


def test_large_files_take_the_large_file_path_and_small_ones_the_commit(hub: HubServer, found: dict[str, Any]) -> None:
    weights = hub.repositories["mia/next"].files()["model.safetensors"]
    assert hub.objects[hashlib.sha256(weights).hexdigest()] == weights
    assert hub.repositories["mia/next"].files()["config.json"] not in hub.objects.values()
    assert hub.asked("POST", "mia/next.git/info/lfs/objects/batch")


def test_branches_tags_and_commits_are_loaded_by_revision(hub: HubServer, found: dict[str, Any]) -> None:
    assert found["states"] == {"v1": True, "main": True, "dev": True, "commit": True}
    assert len({hub.repositories["mia/states"].refs[name] for name in ("v1", "main", "dev")}) == 3


def test_an_adapter_finds_its_base_on_the_hub_and_has_revisions_of_its_own(
    hub: HubServer, found: dict[str, Any]
) -> None:
    """The base has no tag v1; both repositories are private."""
    assert found["adapter"]["v1"] < 1e-6 and found["adapter"]["None"] > 1e-3
    files = hub.repositories["mia/town"].files()
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "mia/base"
    assert "model.safetensors" not in files and {"city.json", "adaptation.csv"} <= files.keys()
    assert b"the visits of a made town" in files["README.md"]


def test_an_adapter_whose_base_only_this_machine_has_is_not_pushed(hub: HubServer, found: dict[str, Any]) -> None:
    error = found["local base"]
    assert error["is"][0] == "ValueError" and "push the base model" in error["says"]
    assert "mia/leak" not in hub.repositories
    assert found["named base"] < 1e-6
    for repository in hub.repositories.values():
        for commit in repository.commits.values():
            assert not any(error["path"].encode() in data for data in commit.values())


def test_an_adapter_can_be_pinned_to_a_revision_of_its_base(hub: HubServer, found: dict[str, Any]) -> None:
    assert json.loads(hub.repositories["mia/pinned"].files()["adapter_config.json"])["revision"] == "v1"
    assert found["pinned base"]["as saved"] < 1e-6 and found["pinned base"]["asked for"] > 1e-3


def test_a_folder_sends_known_files_and_says_which_and_who_sees_them(hub: HubServer, found: dict[str, Any]) -> None:
    files = hub.repositories["mia/folder"].files()
    wanted = {"config.json", "model.safetensors", "city.json", "city.safetensors", "tokenizer_config.json", "README.md"}
    assert wanted | {"handler.py"} <= files.keys()
    assert not {"visits.csv", ".env", "training_args.bin", "data/model.safetensors"} & files.keys()
    assert not any(found["folder"]["path"].encode() in data for data in files.values())
    said = found["folder"]["said"]
    assert "work of mia: .env, data, training_args.bin, visits.csv.\n" in said
    assert "to mia/folder, which is public: everybody sees it:\n" in said
    assert f"  model.safetensors  {len(files['model.safetensors']):,} bytes\n" in said


REFUSALS = {
    "base of this machine by name": ("ValueError", "which nobody else can load"),
    "public, not private": ("ValueError", "mia/folder exists and is public"),
    "private with another's token": ("OSError", "mia/secret could not be loaded: there is no such folder or repo"),
    "private without a token": ("OSError", "mia/secret could not be loaded: there is no such folder or repo"),
    "missing": ("OSError", "mia/missing could not be loaded: there is no such folder or repository, or it is private"),
    "missing generator": ("OSError", "mia/missing could not be loaded: there is no such folder or repository"),
    "missing encoder": ("OSError", "mia/missing could not be loaded: there is no such folder or repository"),
    "no such revision": ("OSError", "mia/states could not be loaded: the repository has no such revision"),
    "read with a wrong token": ("OSError", "mia/next could not be loaded: the token is missing or not valid (401)"),
    "push with a wrong token": ("HfHubHTTPError", "push to mia/new was refused: the token is missing or not valid"),
    "push without a token": ("HfHubHTTPError", "push to mia/new was refused: the token is missing or not valid"),
    "push to another's": ("HfHubHTTPError", "push to other/new was refused: the token does not allow this (403)"),
    "bad name": ("ValueError", "'mia/a/b'"),
    "cut upload": ("ConnectionError", "The push to mia/cut was interrupted (Server disconnected"),
    "cut download": ("ConnectionError", "mia/cut could not be loaded: the Hub cannot be reached or broke off"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_one_clear_sentence(name: str, found: dict[str, Any]) -> None:
    kind, sentence = REFUSALS[name]
    assert kind in found[name]["is"] and ("OSError" in found[name]["is"] or kind == "ValueError")
    assert sentence in found[name]["says"] and "\n" not in found[name]["says"]


def test_refusals_leave_nothing_behind(hub: HubServer, found: dict[str, Any]) -> None:
    assert found["private with its token"] is True
    assert hub.repositories["mia/secret"].private and not hub.repositories["mia/next"].private
    assert found["cached of refused"] == found["left by refused"] == found["next"]["nothing left"] == []
    assert not {"mia/new", "other/new"} & hub.repositories.keys()
    assert found["work"] == ["base"]  # saved there by the script


def test_an_interrupted_push_commits_nothing_and_goes_on_where_it_stopped(
    hub: HubServer, found: dict[str, Any]
) -> None:
    assert found["files after cut upload"] == [".gitattributes"]
    assert found["left by cut upload"] == []
    assert found["resumed upload"] is True
    files = hub.repositories["mia/cut"].files()
    sent = SimpleNamespace(
        **{
            name: len(hub.asked("PUT", hashlib.sha256(files[f"{name}.safetensors"]).hexdigest()))
            for name in ("city", "model")
        }
    )
    assert sent.city == 1 and sent.model > 1


def test_an_interrupted_download_leaves_no_weights_and_the_next_call_completes_it(found: dict[str, Any]) -> None:
    assert found["weights after cut download"] == []
    assert found["resumed download"] is True
    assert found["left by downloads"] == []
