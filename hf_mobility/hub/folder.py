"""Push a folder that was saved before. Only the files of a saved model go up: see `known_files`."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.listed import ListedCity
from ..tokenization.city_files import CITY_FILE, MIN_USERS, TABLE_FILE, read_city_files, write_city_files
from ..tokenization.conditions_mstar import TABLES, ConditionTables
from .known_files import known_files
from .push import PushToHub


class SavedFolder(PushToHub):
    """`push_to_hub` for a folder; the card gets the new name in its snippet, and is written where there is none.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing in it that could be loaded.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}.")
        if not any(
            (folder / name).is_file() for name in ("config.json", "adapter_config.json", "tokenizer_config.json")
        ):
            raise ValueError(f"{folder} holds no saved model, tokenizer or adapter; push what save_pretrained wrote.")
        self.folder = folder

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        base_model: str | None = None,
        base_revision: str | None = None,
        min_users: int = MIN_USERS,
    ) -> None:
        """Copy the folder's known files, and say on stderr which others are left out.

        Args:
            min_users: homes, pairs of home and work and classes of M-STAR that fewer users share are left out.
            base_model: Hub id of an adapter's base.
            base_revision: of that base (branch, tag or commit), to which the adapter is pinned.

        Raises:
            ValueError: as `known_files`; for a base where there is no adapter; `min_users` leaves nothing.
        """
        target = Path(folder)
        files, others = known_files(self.folder)
        for path in files:
            shutil.copyfile(path, target / path.name)
        if others:
            names = ", ".join(others[:10]) + (f" and {len(others) - 10} more" if len(others) > 10 else "")
            sys.stderr.write(f"Not sent from {self.folder}: {names}.\n")
        _add_code(target)
        _keep_shared(target, min_users)
        _drop_paths(target)
        base = {"base_model_name_or_path": base_model, "revision": base_revision}
        changes = {name: value for name, value in base.items() if value is not None}
        if changes:
            adapter = target / "adapter_config.json"
            if not adapter.is_file():
                raise ValueError(f"{self.folder} holds no adapter; leave base_model and base_revision out.")
            _change_json(adapter, changes)

    def _write_card(self, folder: Path, *, name: str, facts: Any) -> None:
        card = folder / "README.md"
        if (folder / "config.json").is_file() and not card.is_file():
            from transformers import AutoConfig

            from .cards import write_card

            write_card(folder, AutoConfig.from_pretrained(folder), name=name, facts=facts)
        if card.is_file():
            _tell_of_the_city(card, ListedCity.of_folder(self.folder), ListedCity.of_folder(folder))
            # The card may name the folder by the path that it had where it was written.
            own = rf'from_pretrained\("([^"]*/)?{re.escape(self.folder.resolve().name)}"\)'
            text = card.read_text(encoding="utf-8")
            card.write_text(re.sub(own, lambda _: f'from_pretrained("{name}")', text), encoding="utf-8")


def _tell_of_the_city(card: Path, before: ListedCity | None, after: ListedCity | None) -> None:
    """What a card says that the city lists, where fewer is sent than was saved."""
    if before is None or after is None:
        return
    text = card.read_text(encoding="utf-8")
    for old, new in zip(before.sentences(), after.sentences()):
        text = text.replace(old, new)
    card.write_text(text, encoding="utf-8")


def _drop_paths(folder: Path) -> None:
    """Out of the configurations, where a model was loaded from: other versions of transformers write it."""
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        if (folder / name).is_file():
            _change_json(folder / name, {"_name_or_path": None, "name_or_path": None})


def _change_json(path: Path, changes: dict[str, Any]) -> None:
    """Set fields of a JSON file; those that are to be None are removed. A file that has nothing to change stays."""
    before = json.loads(path.read_text(encoding="utf-8"))
    after = {name: value for name, value in {**before, **changes}.items() if name not in changes or value is not None}
    if after != before:
        path.write_text(json.dumps(after, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _add_code(folder: Path) -> None:
    """The code that `save_pretrained` writes beside weights and city, where it was left out: the checkpoints of this
    repository carry none."""
    import torch
    from transformers import AutoConfig

    from .. import modeling, tokenization

    def first_architecture(saved: dict[str, Any]) -> str:
        return (saved.get("architectures") or [""])[0]

    model_class = _class_without_code(folder / "config.json", modeling, first_architecture)
    if model_class is not None:
        with torch.device("meta"):  # its class is wanted, not its weights
            model_class(AutoConfig.from_pretrained(folder)).save_code(folder)
    config = folder / "tokenizer_config.json"
    tokenizer_class = _class_without_code(config, tokenization, lambda saved: saved.get("tokenizer_class"))
    if tokenizer_class is not None:
        tokenizer_class.from_pretrained(folder).save_pretrained(folder, min_users=1)


def _keep_shared(folder: Path, min_users: int) -> None:
    """Out of the city's files, what fewer than `min_users` people share. Files that have nothing of it stay."""
    files = folder / CITY_FILE, folder / TABLE_FILE
    if not all(path.is_file() for path in files):
        return
    header, arrays = read_city_files(*files)
    conditions = ConditionTables.from_contents(header, arrays)
    if conditions is None:
        return
    shared = conditions.shared_by(min_users, arrays["cell_map"])
    kept = shared.to_arrays()
    if any(not np.array_equal(kept[name], arrays[name]) for name in TABLES):
        fields = {
            name: value for name, value in header.items() if name not in ("format_version", "kind", "content_hash")
        }
        fields["same_share"] = shared.same_share
        write_city_files(*files, kind=header["kind"], header=fields, arrays=arrays | kept)


def _class_without_code(config: Path, package: Any, name_of: Callable[[dict[str, Any]], str | None]) -> Any:
    """The class of `package` that a saved configuration names, unless it names code as well."""
    if not config.is_file():
        return None
    saved = json.loads(config.read_text(encoding="utf-8"))
    name = name_of(saved)
    found = getattr(package, str(name)) if name in dir(package) and "auto_map" not in saved else None
    return found if isinstance(found, type) else None
