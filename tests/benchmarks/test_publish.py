"""The shipped checkpoints hold what the Hub reads of their results by protocol."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import EvalResult

from benchmarks.protocols import publish
from hf_mobility.benchmark.predictors import resolve

FOLDERS = sorted(path for path in publish.CHECKPOINTS.iterdir() if path.is_dir())
TOLD = "run python -m benchmarks.protocols.publish"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_checkpoint_holds_its_results_by_protocol(folder: Path) -> None:
    wanted = publish.eval_results(folder.name)
    found = {path.name: path.read_text(encoding="utf-8") for path in (folder / ".eval_results").glob("*")}
    assert found == wanted, TOLD
    card = ModelCard((folder / "README.md").read_text(encoding="utf-8"))
    entries = {_key(one) for one in card.data.eval_results or []}
    assert {_key(one) for one in publish.model_index(folder.name)} <= entries, TOLD


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_the_hub_reads_is_the_main_metric_of_each_case(folder: Path) -> None:
    for protocol, results in publish.results_of(folder.name):
        (own,) = [one for one in results if one.model == folder.name]
        entries = yaml.safe_load(publish.eval_results(folder.name)[f"{protocol.name}.yaml"])
        main = [one for one in own.scores if one.metric == protocol.metrics[0] and one.value is not None]
        shown = [one.value for one in main if one.subset.startswith("all")]
        assert [entry["value"] for entry in entries] == shown and shown
        assert len({entry["dataset"]["task_id"] for entry in entries}) == len(entries)
        assert all(entry["dataset"]["id"] == publish.DATASET for entry in entries)


def test_cards_keep_their_other_entries_and_get_those_of_protocols_once() -> None:
    other = EvalResult("weeks", "of-my-own", "Of my own", "mean6", 0.5, metric_name="mean6: mine")
    card = ModelCard("---\nlibrary_name: hf_mobility\n---\n# mine\n")
    card.data.model_name, card.data.eval_results = "samoe-small", [other]
    once = publish.with_index(card, "samoe-small").data.eval_results
    twice = publish.with_index(card, "samoe-small").data.eval_results
    assert once[0] == other and len(once) == len(twice) == 1 + len(publish.model_index("samoe-small"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_results_are_of_the_checkpoints_as_they_are(folder: Path) -> None:
    for protocol, results in publish.results_of(folder.name):
        (own,) = [one for one in results if one.model == folder.name]
        now = resolve(folder).hash
        assert own.model_hash == now, f"run python -m benchmarks.protocols.rank {protocol.name}"


def _key(one: EvalResult) -> tuple[object, ...]:
    return one.dataset_type, one.metric_type, one.metric_name, one.metric_value
