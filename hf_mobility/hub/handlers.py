"""The handler with which a pushed folder answers on Hugging Face Inference Endpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

HANDLER = "handler.py"


def write_handler(folder: Path) -> list[Path]:
    """Put `handler.py` beside a model that has a task, or an adapter of SAMoE with its city. Returns what it wrote."""
    config = folder / "config.json"
    has_task = config.is_file() and "custom_pipelines" in json.loads(config.read_text(encoding="utf-8"))
    city = folder / "tokenizer_config.json"
    is_adapter = (folder / "adapter_config.json").is_file() and city.is_file()
    if is_adapter:  # other systems have no task for their forms of any city
        is_adapter = json.loads(city.read_text(encoding="utf-8")).get("tokenizer_class") == "SamoeTokenizer"
    if not has_task and not is_adapter:
        return []
    shutil.copyfile(Path(__file__).with_name("endpoint_handler.py"), folder / HANDLER)
    return [folder / HANDLER]
