"""What the city of a saved or pushed checkpoint lists: said before a push and in the card; of few people, left out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from samoe_town import CONFIG, TOKENIZER

from hf_mobility import (
    City,
    MstarConfig,
    MstarForTrajectoryGeneration,
    MstarTokenizer,
    NextLocationPipeline,
    SamoeForNextLocation,
    TrajectoryGenerationPipeline,
)
from hf_mobility.evaluation.listed import ListedCity
from hf_mobility.hub.card_facts import with_rare_places
from hf_mobility.hub.folder import SavedFolder
from hf_mobility.hub.push import _announce

BOX = (47.9, 10.9, 48.1, 11.2)
HOUR = np.arange(24)


@pytest.fixture(scope="module")
def pipe() -> TrajectoryGenerationPipeline:
    """Six users live in cell 0 and work in 5; one, of many days, lives in 10 and works in 15."""
    tokenizer = MstarTokenizer.from_grid(BOX, timezone="Europe/Berlin", rows=4, columns=4, factors=(2, 1), num_hours=24)
    working = (HOUR >= 10) & (HOUR < 18)
    cells = np.stack([np.where(working, 5, 0)] * 6 + [np.where(working, 15, 10)] * 9)
    users = [*"abcdef", *"z" * 9]
    tokenizer.fit_conditions(cells, users=users, method="distinct_cells", num_attributes=2)
    model = MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny"))
    model.fit_transition(torch.randint(0, 3, (50, 24)))
    return TrajectoryGenerationPipeline(model, tokenizer)


def listed(folder: Path) -> list[list[int]]:
    return MstarTokenizer.from_pretrained(folder).conditions.pairs.tolist()


def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_a_saved_pipeline_lists_what_five_users_share(pipe: TrajectoryGenerationPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "k")
    pipe.save_pretrained(tmp_path / "all", min_users=1)
    assert listed(tmp_path / "k") == [[0, 5, 6]] and listed(tmp_path / "all") == [[0, 5, 6], [10, 15, 9]]
    text = "saved here list 1 homes, 1 pairs of home and work, 1 movement classes. The smallest count "
    assert f"{text}is of 6 people." in card(tmp_path / "k")
    assert "list 2 homes, 2 pairs of home and work, 1 movement classes. The smallest count is of 1 person." in card(
        tmp_path / "all"
    )
    with pytest.raises(ValueError, match="min_users=7 leaves no home"):
        pipe.save_pretrained(tmp_path / "none", min_users=7)
    assert not (tmp_path / "none").exists()


def test_a_pushed_folder_lists_what_five_users_share(pipe: TrajectoryGenerationPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "all", min_users=1)
    for name, options in {"pushed": {}, "pushed whole": {"min_users": 1}}.items():
        (tmp_path / name).mkdir()
        SavedFolder(tmp_path / "all").save_pretrained(tmp_path / name, **options)
    assert listed(tmp_path / "pushed") == [[0, 5, 6]]
    tables = MstarTokenizer.from_pretrained(tmp_path / "pushed").conditions
    assert not tables.home_counts[:, 10].any() and tables.pair_users.tolist() == [6]
    for file in ("city.json", "city.safetensors"):
        assert (tmp_path / "pushed whole" / file).read_bytes() == (tmp_path / "all" / file).read_bytes()
    (tmp_path / "never").mkdir()
    with pytest.raises(ValueError, match="min_users=7 leaves no home"):
        SavedFolder(tmp_path / "all").save_pretrained(tmp_path / "never", min_users=7)


def test_before_a_push_stderr_says_what_the_city_lists(
    pipe: TrajectoryGenerationPipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe.save_pretrained(tmp_path / "weeks")
    NextLocationPipeline(SamoeForNextLocation(CONFIG), TOKENIZER).save_pretrained(tmp_path / "places")
    repository = SimpleNamespace(id="mia/city", private=False)
    for name in ("weeks", "places"):
        _announce([tmp_path / name / "city.json"], ListedCity.of_folder(tmp_path / name), repository, private=None)
    said = capsys.readouterr().err
    assert "list 1 homes, 1 pairs of home and work, 1 movement classes. The smallest count is of 6 people.\n" in said
    number = len(TOKENIZER.location_ids)
    visited = int((TOKENIZER.city.popularity < 9).sum())
    sentence = f"The city saved here lists {number} places by id and coordinates, {visited} of them with a level of how"
    assert sentence in said and "The files do not say by how many people. A place may be one person's home: do" in said
    assert sentence in card(tmp_path / "places")
    assert ListedCity.of_folder(tmp_path) is None


def test_a_box_alone_lists_nobody(tmp_path: Path) -> None:
    City.from_bounds(BOX, timezone="Europe/Berlin").save(tmp_path)
    city = ListedCity.of_folder(tmp_path)
    assert city is not None and city.sentences() == []


def test_the_card_of_a_trained_city_counts_the_places_of_few_users() -> None:
    visits = pd.DataFrame({"location_id": [*"aaaaa", *"bb"], "user_id": [1, 2, 3, 4, 5, 1, 1]})
    said = with_rare_places([visits, visits.assign(user_id=1)])
    assert said.endswith("In the training visits, 3 of 4 places were those of fewer than 5 users.")


def test_the_city_that_is_pushed_keeps_its_other_fields(pipe: TrajectoryGenerationPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "all", min_users=1)
    (tmp_path / "pushed").mkdir()
    SavedFolder(tmp_path / "all").save_pretrained(tmp_path / "pushed")
    before, after = (json.loads((tmp_path / name / "city.json").read_text()) for name in ("all", "pushed"))
    assert before.keys() == after.keys() and before["content_hash"] != after["content_hash"]
    assert {name for name in before if before[name] != after[name]} == {"content_hash"}
