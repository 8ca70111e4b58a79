"""The files that belong to a saved model, tokenizer, adapter or pipeline, and whether each holds what its name says.

A push sends these and nothing else: what else lies in a folder (raw visits, keys, checkpoints of a training) stays.
"""

from __future__ import annotations

import json
import zipfile
from fnmatch import fnmatch
from pathlib import Path

from safetensors import SafetensorError, safe_open

KNOWN = (
    *("config.json", "generation_config.json", "model.safetensors", "model-?????-of-?????.safetensors"),
    *("model.safetensors.index.json", "adapter_config.json", "adapter_model.safetensors", "adaptation.csv"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "city.json", "city.safetensors"),
    *("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "sources.txt"),
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib")
# Pickles that a training leaves behind: never sent, and no reason to refuse the rest.
OF_TRAINING = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state*.pth")


def known_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The known files of a folder, and the names of all else in it. Subfolders and hidden files are never known.

    Raises:
        ValueError: a link that leads out of the folder or to a file that is not known, a pickle, or a known file that
            holds something else than its name says.
    """
    known, others = [], []
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and path.resolve().parent != folder.resolve():
            raise ValueError(f"{path} is a link out of the folder and is not sent: put a copy there, or remove it.")
        if path.is_file() and not _matches(path.name, OF_TRAINING) and _is_pickle(path):
            raise ValueError(f"{path} is a pickle, which runs code when it is opened, and is not sent: remove it.")
        if path.is_file() and _is_known(path.name):
            if not _is_known(path.resolve().name):
                raise ValueError(f"{path} is a link to {path.resolve().name}, which is not sent: remove it.")
            check_content(path)
            known.append(path)
        else:
            others.append(path.name)
    return known, others


def check_folder_content(folder: Path) -> None:
    """Check each known JSON and safetensors file of a folder, as `check_content`."""
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors") and _matches(path.name, KNOWN) and path.is_file():
            check_content(path)


def check_content(path: Path) -> None:
    """Raises a `ValueError` in one sentence for a file that is empty, cut off or of another kind than its name says."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="np"):
                return
        except SafetensorError as error:
            raise ValueError(f"{path} is no readable safetensors file: {error}.") from error
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json" and not isinstance(json.loads(text), dict):
            raise ValueError("it holds no object")
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "text"
        raise ValueError(f"{path} is no readable {kind} file: {error}.") from error


def _is_known(name: str) -> bool:
    return _matches(name, KNOWN) or name in _our_code()


def _our_code() -> set[str]:
    from .. import modeling, tokenization

    folders = (Path(folder) for package in (modeling, tokenization) for folder in package.__path__)
    return {path.name for folder in folders for path in folder.glob("[!_]*.py")}


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _is_pickle(path: Path) -> bool:
    if _matches(path.name.lower(), PICKLES):
        return True
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return True
    if start != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False
