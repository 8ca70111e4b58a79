"""A training that was cut off goes on from its last whole checkpoint, to the weights of one without a break."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import Trainer

from hf_mobility import DataError, simulate_city
from hf_mobility.training.train import SYSTEMS, train
from hf_mobility.training.whole_checkpoints import checkpoints_in, is_whole, last_checkpoint, remove_after

ZONE = "Europe/Berlin"
STEPS = 7


@pytest.fixture(scope="module")
def visits() -> pd.DataFrame:
    return simulate_city(20, num_days=14, seed=1).visits


@pytest.fixture(scope="module")
def codec(visits: pd.DataFrame) -> Any:
    return train("mstar-codec", visits, timezone=ZONE, size="tiny", steps=2, batch_size=4)


class Cut(Exception):
    """The end of a process, as seen by the Trainer."""


def cut_off(patch: pytest.MonkeyPatch, *, at: int) -> None:
    """Writing the checkpoint of step `at` ends after its weights."""
    whole = Trainer._save_optimizer_and_scheduler

    def save(trainer: Any, folder: str) -> None:
        if trainer.state.global_step == at:
            raise Cut
        whole(trainer, folder)

    patch.setattr(Trainer, "_save_optimizer_and_scheduler", save)


def same_weights(model: Any, expected: Any) -> None:
    assert model.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_resumed_training_ends_with_the_very_same_weights(
    system: str, visits: pd.DataFrame, codec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a later epoch, for those that read few rows; and at the last step, where nothing is left to train."""
    options: dict[str, Any] = {"steps": STEPS, "seed": 4, "size": "tiny", "device": "cpu"}
    options |= {"codec": codec} if system == "mstar" else {"timezone": ZONE}
    options |= {} if system == "samoe" else {"batch_size": 16}
    whole = train(system, visits, **options)
    saving: dict[str, Any] = {"output_dir": tmp_path, "save_every": 2}
    with monkeypatch.context() as patch:
        cut_off(patch, at=6)
        with pytest.raises(Cut):
            train(system, visits, **options, **saving)
    assert [is_whole(path) for path in checkpoints_in(tmp_path)] == [True, True, False]
    torch.rand(5)  # the state of the caller plays no part
    resumed = train(system, visits, **options, **saving, resume=True)
    same_weights(resumed.model, whole.model)
    pd.testing.assert_frame_equal(resumed.history, whole.history)
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint-6", "checkpoint-7"]
    again = train(system, visits, **options, output_dir=tmp_path, resume=True)
    same_weights(again.model, whole.model)


# Which checkpoints are whole


@pytest.fixture(scope="module")
def two(visits: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    train("raw", visits, timezone=ZONE, size="tiny", steps=4, batch_size=4, output_dir=folder, save_every=2)
    return folder


FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


@pytest.mark.parametrize("fault", ["missing", "empty", "cut off"])
@pytest.mark.parametrize("name", FILES)
def test_the_last_whole_checkpoint_is_taken_and_those_after_it_are_removed(
    name: str, fault: str, two: Path, tmp_path: Path
) -> None:
    """A killed process leaves files out, a full disk or a power cut leaves a part of them."""
    folder = Path(shutil.copytree(two, tmp_path / "copy"))
    assert last_checkpoint(folder).name == "checkpoint-4"
    path = folder / "checkpoint-4" / name
    content = path.read_bytes()
    path.unlink()
    if fault != "missing":
        path.write_bytes(content[: 0 if fault == "empty" else len(content) - 9])
    whole = last_checkpoint(folder)
    assert whole.name == "checkpoint-2" and len(checkpoints_in(folder)) == 2  # another training may yet be refused
    remove_after(whole)
    assert [path.name for path in checkpoints_in(folder)] == ["checkpoint-2"]
    shutil.copytree(two / "checkpoint-4", folder / "checkpoint-10")
    (folder / "checkpoint-last").mkdir()
    assert last_checkpoint(folder).name == "checkpoint-10"  # by number


def test_a_checkpoint_of_fsdp_is_whole_with_its_weights_in_one_file(two: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-4"
    shutil.copytree(two / "checkpoint-4", checkpoint)
    (checkpoint / "optimizer.pt").rename(checkpoint / "optimizer.bin")
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    weights = checkpoint / "pytorch_model_fsdp.bin"
    shutil.copy(checkpoint / "optimizer.bin", weights)
    assert is_whole(checkpoint)
    weights.write_bytes(weights.read_bytes()[:-9])
    assert not is_whole(checkpoint)
    weights.unlink()
    (checkpoint / "pytorch_model_fsdp_0").mkdir()  # of SHARDED_STATE_DICT, whose files are pickles
    assert not is_whole(checkpoint)


def test_where_none_is_whole_nothing_is_removed(two: Path, tmp_path: Path, visits: pd.DataFrame) -> None:
    folder = Path(shutil.copytree(two, tmp_path / "copy"))
    for checkpoint in checkpoints_in(folder):
        (checkpoint / "trainer_state.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds no whole checkpoint to go on from: leave resume out"):
        train("raw", visits, timezone=ZONE, size="tiny", steps=4, batch_size=4, output_dir=folder, resume=True)
    assert len(checkpoints_in(folder)) == 2


def test_a_checkpoint_that_cannot_be_written_is_one_sentence(
    visits: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"checkpoint of step 2 could not be written to .*: PytorchStreamWriter failed"):
        train("raw", visits, timezone=ZONE, size="tiny", steps=4, batch_size=4, output_dir=tmp_path, save_every=2)


# Which training goes on


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"steps": 5}, "other steps=4 there and 5 here"),
        ({"seed": 1, "learning_rate": 0.1}, "other seed=0 there and 1 here, learning_rate=None there and 0.1 here"),
        ({"bounds": (40.0, 0.0, 60.0, 20.0)}, r"other bounds=None there and \[40.0, 0.0, 60.0, 20.0\] here"),
        ({"hours": 1}, "other records"),
    ],
)
def test_another_training_does_not_go_on_from_it(
    other: dict[str, Any], sentence: str, two: Path, visits: pd.DataFrame
) -> None:
    data = visits.assign(time=visits["time"] + pd.Timedelta(hours=other.pop("hours", 0)))
    options = {"timezone": ZONE, "size": "tiny", "steps": 4, "batch_size": 4, **other}
    with pytest.raises(DataError, match=f"are of another training: {sentence}"):
        train("raw", data, **options, output_dir=two, resume=True)


@pytest.mark.parametrize("how", [{"save_every": 2}, {"arguments": {"save_strategy": "epoch"}}])
def test_checkpoints_of_two_trainings_are_not_mixed(how: dict[str, Any], two: Path) -> None:
    with pytest.raises(DataError, match="holds checkpoints of a training, the last checkpoint-4: pass resume=True"):
        train("raw", "no/such/file.parquet", output_dir=two, **how)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"save_every": 2}, DataError, "need output_dir="),
        ({"resume": True}, DataError, "need output_dir="),
        ({"save_every": 0, "output_dir": "x"}, DataError, "save_every must be a whole number from 1 on, not 0"),
        ({"resume": True, "output_dir": "no/folder"}, FileNotFoundError, "no/folder holds no checkpoint to go on from"),
        ({"arguments": {"resume_from_checkpoint": "x"}}, DataError, "has a keyword of its own, resume="),
    ],
)
def test_what_cannot_be_resumed_is_said_before_data_are_read(
    options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        train("raw", "no/such/file.parquet", **options)


def test_other_arguments_are_another_training_and_its_checkpoints_stay(
    two: Path, tmp_path: Path, visits: pd.DataFrame
) -> None:
    folder = Path(shutil.copytree(two, tmp_path / "copy"))
    (folder / "checkpoint-4" / "trainer_state.json").unlink()
    how: dict[str, Any] = {"timezone": ZONE, "size": "tiny", "steps": 4, "batch_size": 4, "output_dir": folder}
    with pytest.raises(DataError, match="of another training: other arguments"):
        train("raw", visits, **how, resume=True, arguments={"weight_decay": 0.5})
    assert len(checkpoints_in(folder)) == 2
