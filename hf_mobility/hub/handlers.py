"""The handler with which a pushed folder answers on Hugging Face Inference Endpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

HANDLER = "handler.py"


def write_handler(folder: Path) -> list[Path]:
    """Put `handler.py` beside a model that has a task, or an adapter with its city. Returns what was written."""
    config = folder / "config.json"
    has_task = config.is_file() and "custom_pipelines" in json.loads(config.read_text(encoding="utf-8"))
    is_adapter = (folder / "adapter_config.json").is_file() and (folder / "tokenizer_config.json").is_file()
    if not has_task and not is_adapter:
        return []
    shutil.copyfile(Path(__file__).with_name("endpoint_handler.py"), folder / HANDLER)
    return [folder / HANDLER]
