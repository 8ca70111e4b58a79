"""Protocols: small files that name data, split, metrics and baselines, and whose hash covers what changes a number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hf_mobility.benchmark import Protocol, protocol_names
from hf_mobility.benchmark.protocol import FOLDER
from hf_mobility.benchmark.run import BENCHES


def content(name: str = "simulated-city") -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", protocol_names())
def test_shipped_protocols_are_named_as_their_files_and_have_a_bench(name: str) -> None:
    known = Protocol.load(name)
    assert known.name == name
    assert known.task in BENCHES
    assert known.question.endswith(("?", "."))
    assert all(one is None or len(one) == 64 for each in known.sets for one in each.files.values())


def test_the_hash_covers_what_changes_a_number_and_nothing_else() -> None:
    first = Protocol.of(content())
    assert (
        Protocol.of(content() | {"question": "Another one?", "notes": ["more"], "where": ["there"]}).hash == first.hash
    )
    changed = [{"version": 2}, {"draws": 2}, {"metrics": ["acc@1"]}, {"split": {"test_fraction": 0.3}}]
    assert len({Protocol.of(content() | one).hash for one in changed} | {first.hash}) == 5
    other = content()
    other["sets"][0]["options"]["seed"] = 99
    assert Protocol.of(other).hash != first.hash


def test_a_protocol_of_ones_own_is_read_from_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(content() | {"name": "mine"}))
    assert Protocol.load(tmp_path / "mine.json").name == "mine"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task": "weather"}, "task 'weather' is none of"),
        ({"reference": "Nobody"}, "is no baseline"),
        ({"metrics": []}, "no metric"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"sets": []}, "no set is for the test"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_faults_of_a_file_are_named(tmp_path: Path, change: dict, told: str) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(content() | change))
    with pytest.raises(ValueError, match=told):
        Protocol.load(tmp_path / "mine.json")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="simulated-city"):
        Protocol.load("nothing")
