"""Checkpoints of a training: which of them are whole, and a Trainer that goes on from those only.

A process that is killed while it writes leaves a folder without its last files, or with files that are cut off.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import TrainerState

STATE = "trainer_state.json"
WEIGHTS, ADAPTER, INDEX = "model.safetensors", "adapter_model.safetensors", "model.safetensors.index.json"
OF_TORCH = ("optimizer.*", "scheduler.pt", "rng_state*.pth")  # FSDP calls its optimizer .bin
_NAME = re.compile(r"checkpoint-(\d+)")


def checkpoints_in(folder: str | Path) -> list[Path]:
    """Folders `checkpoint-STEP`, by their steps."""
    found = [path for path in Path(folder).glob("checkpoint-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def is_whole(checkpoint: Path) -> bool:
    """Whether weights, optimizer, schedule, random states and state of the Trainer are there, none of them cut off."""
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        shards = [ADAPTER if (checkpoint / ADAPTER).is_file() else WEIGHTS]
        if (checkpoint / INDEX).is_file():
            shards = sorted(set(json.loads((checkpoint / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        for name in shards:
            with safe_open(checkpoint / name, framework="pt"):  # compares the header with the size of the file
                pass
    except (OSError, ValueError, KeyError, SafetensorError):
        return False
    archives = [list(checkpoint.glob(pattern)) for pattern in OF_TORCH]
    sharded = checkpoint.glob("pytorch_model_fsdp*")  # the weights once more; a folder of shards is no archive
    return all(archives) and all(map(zipfile.is_zipfile, chain(*archives, sharded)))


def is_finished(checkpoint: str | Path) -> bool:
    """Whether it holds the last step of its training."""
    state = json.loads(Path(checkpoint, STATE).read_text(encoding="utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


def last_checkpoint(folder: str | Path) -> Path:
    """The last whole checkpoint of a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    whole = next((path for path in reversed(checkpoints_in(folder)) if is_whole(path)), None)
    if whole is None:
        raise FileNotFoundError(f"{folder} holds no whole checkpoint to go on from: leave resume out to begin anew.")
    return whole


def remove_after(checkpoint: str | Path) -> None:
    """Remove the checkpoints after this one, whose steps are trained again."""
    checkpoint = Path(checkpoint)
    for path in checkpoints_in(checkpoint.parent):
        if step_of(path) > step_of(checkpoint):
            shutil.rmtree(path, ignore_errors=True)


class WholeCheckpoints:
    """What a `Trainer` gets beside its own: `resume_from_checkpoint=True` takes the last whole checkpoint, and one that
    cannot be written is an `OSError` of one sentence."""

    args: Any
    state: Any

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(last_checkpoint(self.args.output_dir))
            if self.args.should_save:  # one process of several
                remove_after(resume_from_checkpoint)
        return super().train(resume_from_checkpoint, *args, **kwargs)  # type: ignore[misc]

    def restore(self, checkpoint: str) -> None:
        """Weights and history of a checkpoint, without a step of training: `train` takes one beyond the last."""
        self._load_from_checkpoint(checkpoint)  # type: ignore[attr-defined]
        self.state = TrainerState.load_from_json(str(Path(checkpoint, STATE)))

    def _save(self, *args: Any, **kwargs: Any) -> None:
        with _own_class(self.model):  # type: ignore[attr-defined]
            super()._save(*args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._save_checkpoint(*args, **kwargs)  # type: ignore[misc]
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have errors of their own
            raise OSError(
                f"The checkpoint of step {self.state.global_step} could not be written to {self.args.output_dir}: "
                f"{error}. Those before it are whole: make room and resume."
            ) from error


@contextmanager
def _own_class(model: Any) -> Iterator[None]:
    """FSDP2 puts a model into a class of torch's, whose code would be saved in place of the model's."""
    kind = type(model)
    model.__class__ = next(base for base in kind.__mro__ if not base.__module__.startswith("torch."))
    try:
        yield
    finally:
        model.__class__ = kind
