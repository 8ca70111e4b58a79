"""A folder that was saved before, pushed as it is: `hf-mobility push`.

Unusual: what a training left beside the model (its own checkpoints, logs, pickled arguments) stays at home.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from .hub import PushToHub

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

            from .cards import write_card

            write_card(folder, AutoConfig.from_pretrained(folder), name=name, facts=facts)
        if card.is_file():
            text, own = card.read_text(encoding="utf-8"), f'from_pretrained("{self.folder.resolve().name}")'
            card.write_text(text.replace(own, f'from_pretrained("{name}")'), encoding="utf-8")
