"""`train` is killed and resumed, and what it trained outlives an output that cannot be written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import ZONE, call
from safetensors.numpy import load_file

from hf_mobility import RawForTrajectoryPrediction
from hf_mobility.cli import files
from hf_mobility.training.whole_checkpoints import checkpoints_in, is_whole

ROOT = Path(__file__).resolve().parents[2]
# The command in a process that waits while it writes the second checkpoint: its weights are there, the rest is not.
KILLED = """
import sys, time
from pathlib import Path
from transformers import Trainer

whole = Trainer._save_optimizer_and_scheduler

def save(trainer, folder):
    if trainer.state.global_step == 4:
        Path(sys.argv.pop()).touch()
        time.sleep(600)
    whole(trainer, folder)

Trainer._save_optimizer_and_scheduler = save
from hf_mobility.cli.app import app
app(sys.argv[1:-1])
"""


def same_weights(folder: Path, other: Path) -> None:
    one, two = (load_file(path / "model.safetensors") for path in (folder, other))
    assert one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one)


def test_a_training_that_is_killed_while_it_writes_goes_on_from_the_last_whole_checkpoint(
    town: SimpleNamespace, tmp_path: Path
) -> None:
    out, reached = tmp_path / "out", tmp_path / "reached"
    how = ["--system", "raw", "--timezone", ZONE, "--size", "tiny", "--steps", "6", "--batch-size", "4"]
    command = ["train", str(town.points), *how, "--device", "cpu", "--save-every", "2", "-o", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([sys.executable, "-c", KILLED, *command, str(reached)], env=environment)
    try:
        while not reached.exists() and process.poll() is None:
            time.sleep(0.1)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert [is_whole(path) for path in checkpoints_in(out / "checkpoints")] == [True, False]

    fault = call(*command, code=1).stderr
    assert "holds checkpoints of a training, the last checkpoint-4" in fault and "(Here: --resume.)" in fault
    assert "other seed=0 there and 1 here" in call(*command, "--seed", 1, "--resume", code=1).stderr
    assert "going on from step 2" in call(*command, "--resume").stderr
    call(*command[:-1], tmp_path / "whole")
    same_weights(out, tmp_path / "whole")
    for folder in ("out", "whole"):
        assert not (tmp_path / folder / "checkpoints").exists()
    assert "out/checkpoints holds no checkpoint to go on from" in call(*command, "--resume", code=1).stderr


def test_a_full_disk_keeps_what_was_trained_elsewhere(
    town: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the checkpoint of the last step, from which the model is saved later without further training."""
    whole, out, spare = RawForTrajectoryPrediction.save_pretrained, tmp_path / "out", tmp_path / "spare"
    spare.mkdir()

    def save(model: Any, folder: Any, *args: Any, **options: Any) -> None:
        if str(folder).startswith(str(full)) and "checkpoints" not in str(folder):
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        whole(model, folder, *args, **options)

    monkeypatch.setattr(RawForTrajectoryPrediction, "save_pretrained", save)
    monkeypatch.setattr("tempfile.tempdir", str(spare))
    how = ("--system", "raw", "--timezone", ZONE, "--size", "tiny", "--steps", 3, "--batch-size", 4, "-o", out)
    full = out
    fault = call("train", town.points, *how, code=1).stderr.splitlines()[-1]
    (kept,) = spare.glob("hf-mobility-*")
    told = f"hf-mobility: {out} could not be written (No space left on device): what was trained lies in"
    assert fault == f"{told} {kept}."
    full = tmp_path
    fault = call("train", town.points, *how, "--resume", code=1).stderr.splitlines()[-1]
    assert fault == f"{told} {out / 'checkpoints'}, from where --resume saves it."
    assert list(spare.glob("hf-mobility-*")) == [kept]
    full = tmp_path / "nothing"
    call("train", town.points, *how, "--resume")
    same_weights(out, kept)
    assert not (out / "checkpoints").exists()


def test_a_full_disk_is_found_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**options: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files.check_folder(tmp_path / "new" / "folder")
    files.check_output(tmp_path / "new.csv")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(files, "TemporaryFile", full)
    for check, path in ((files.check_folder, tmp_path / "new" / "folder"), (files.check_output, tmp_path / "new.csv")):
        with pytest.raises(OSError, match=f"{path} cannot be written: No space left on device"):
            check(path)


def test_only_the_checkpoints_of_the_training_are_removed(town: SimpleNamespace, tmp_path: Path) -> None:
    own = tmp_path / "out" / "checkpoints" / "samoe-small"
    own.mkdir(parents=True)
    (own / "model.safetensors").touch()
    how = ("--system", "raw", "--timezone", ZONE, "--size", "tiny", "--steps", 2, "--batch-size", 4, "--save-every", 1)
    call("train", town.points, *how, "-o", tmp_path / "out")
    assert [path.name for path in own.parent.iterdir()] == ["samoe-small"] and (own / "model.safetensors").exists()
