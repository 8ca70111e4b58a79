"""`training.json` beside checkpoints says of which training they are, so that another one does not go on from them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.training_record import KINDS, TrainingRecord
from ..tokenization.errors import DataError
from ..tokenization.whole_files import whole_file
from .whole_checkpoints import checkpoints_in

FILE = "training.json"


def check_checkpoints(output_dir: Any, *, saves: bool, resume: bool) -> None:
    """Before data are read; `saves` says that checkpoints are to be written.

    Raises:
        DataError: checkpoints of an earlier training, which would be mixed with new ones.
        FileNotFoundError: nothing to resume from.
    """
    found = checkpoints_in(output_dir)
    if resume and not found:
        raise FileNotFoundError(f"{output_dir} holds no checkpoint to go on from: leave resume out to begin anew.")
    if found and saves and not resume:
        raise DataError(
            f"{output_dir} holds checkpoints of a training, the last {found[-1].name}: pass resume=True to go on from "
            "it, or remove the folder."
        )


def describe_training(tables: Sequence[Any], **options: Any) -> dict[str, Any]:
    """What `training.json` holds: options that change the result, and a hash of users, times and whereabouts."""
    nothing = TrainingRecord("00" * 16, {kind: np.zeros(0, np.uint32) for kind in KINDS})
    hashes = TrainingRecord.of(tables, earlier=nothing).hashes  # by a fixed salt
    digest = hashlib.sha256(b"".join(hashes[kind].tobytes() for kind in KINDS)).hexdigest()
    return json.loads(json.dumps({**options, "records": digest}, default=str))  # type: ignore[no-any-return]


def check_same_training(folder: str | Path, training: Mapping[str, Any]) -> None:
    """Raises a `DataError` where the checkpoints of a folder are of a training with other options or data."""
    path = Path(folder, FILE)
    if not path.is_file():
        return
    try:
        saved = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is no description of a training: {error}.") from error
    other = [name for name in training if saved.get(name) != training[name]]
    if other:
        told = ", ".join(
            name if name == "records" else f"{name}={saved.get(name)} there and {training[name]} here" for name in other
        )
        raise DataError(f"The checkpoints in {folder} are of another training: other {told}.")


def remove_checkpoints(folder: str | Path) -> None:
    """Remove the checkpoints of a training and their description; what else lies in the folder stays."""
    for path in checkpoints_in(folder):
        shutil.rmtree(path, ignore_errors=True)
    Path(folder, FILE).unlink(missing_ok=True)
    if Path(folder).is_dir() and not any(Path(folder).iterdir()):
        Path(folder).rmdir()


def save_training(folder: str | Path, training: Mapping[str, Any]) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    with whole_file(Path(folder, FILE)) as file:
        file.write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")
