"""A folder that was saved before, pushed as it is: `hf-mobility push`.

Unusual: what a training left beside the model (its own checkpoints, logs, pickled arguments) stays at home.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..hub.push import PushToHub

LEFT_AT_HOME = ("checkpoint-*", "runs", "training_args.bin", "*.pt", "*.pth", ".*", "__pycache__")


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

    def save_pretrained(self, folder: str | Path, *, base_model: str | None = None) -> None:
        """Copy the folder's files; an adapter can be given the Hub id of its base."""
        target = Path(folder)
        shutil.copytree(self.folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*LEFT_AT_HOME))
        _add_code(target)
        adapter = target / "adapter_config.json"
        if base_model is not None:
            if not adapter.is_file():
                raise ValueError(f"{self.folder} holds no adapter; leave base_model out.")
            config: dict[str, Any] = json.loads(adapter.read_text(encoding="utf-8"))
            text = json.dumps(config | {"base_model_name_or_path": base_model}, indent=2, sort_keys=True)
            adapter.write_text(text, encoding="utf-8")

    def _write_card(self, folder: Path, *, name: str, facts: Any) -> None:
        card = folder / "README.md"
        if (folder / "config.json").is_file():
            from transformers import AutoConfig

            from ..hub.cards import write_card

            write_card(folder, AutoConfig.from_pretrained(folder), name=name, facts=facts)
        if card.is_file():
            # The card may name the folder by the path that it had where it was written.
            own = rf'from_pretrained\("([^"]*/)?{re.escape(self.folder.resolve().name)}"\)'
            text = card.read_text(encoding="utf-8")
            card.write_text(re.sub(own, lambda _: f'from_pretrained("{name}")', text), encoding="utf-8")


def _add_code(folder: Path) -> None:
    """The code that `save_pretrained` writes beside weights and city, where it was left out: the checkpoints of this
    repository carry none."""
    import torch
    from transformers import AutoConfig

    model_class = _class_without_code(folder / "config.json", lambda saved: (saved.get("architectures") or [""])[0])
    if model_class is not None:
        with torch.device("meta"):  # its class is wanted, not its weights
            model_class(AutoConfig.from_pretrained(folder)).save_code(folder)
    tokenizer_class = _class_without_code(folder / "tokenizer_config.json", lambda saved: saved.get("tokenizer_class"))
    if tokenizer_class is not None:
        tokenizer_class.from_pretrained(folder).save_pretrained(folder)


def _class_without_code(config: Path, name_of: Callable[[dict[str, Any]], str | None]) -> Any:
    """The class of this package that a saved configuration names, unless it names code as well."""
    from .. import modeling, tokenization

    if not config.is_file():
        return None
    saved = json.loads(config.read_text(encoding="utf-8"))
    name = name_of(saved)
    home = next((folder for folder in (modeling, tokenization) if name in folder.__all__), None)
    return getattr(home, str(name)) if home is not None and "auto_map" not in saved else None
