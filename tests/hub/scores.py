"""Answers of a saved model, everything found by the Auto classes: run as a script where hf_mobility is not installed,
and as a module by the test that compares.

`hf_mobility` must not be imported here, nor anything else of this repository.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# Folder -> Auto class of what was saved there. Of SAMoE's adapter the base is saved without its tokenizer's code.
AUTO_CLASSES = {
    "samoe-body": "AutoModel",
    "samoe": "AutoModelForCausalLM",
    "samoe-adapter": "AutoModelForCausalLM",
    "mstar-codec": "AutoModel",
    "mstar": "AutoModel",
    "raw-body": "AutoModel",
    "raw-prediction": "AutoModelForTimeSeriesPrediction",
    "raw-profiling": "AutoModelForSequenceClassification",
    "raw-regions": "AutoModelForSequenceClassification",
}
# Folder -> task that transformers' `pipeline` finds in it.
TASKS = {
    "samoe": "next-location",
    "mstar": "trajectory-generation",
    "raw-prediction": "trajectory-prediction",
    "raw-body": "mobility-embedding",
}


def load(folder: Path, **options: Any) -> tuple[Any, Any]:
    """(model, tokenizer)"""
    import transformers

    auto = getattr(transformers, AUTO_CLASSES[folder.name])
    model = auto.from_pretrained(folder, **options)
    return model, transformers.AutoTokenizer.from_pretrained(folder, **options)


def scores(kind: str, model: Any, tokenizer: Any, data: Path) -> dict[str, Any]:
    """All tensors that tokenizer and model make of the records in `data`."""
    import json

    import numpy as np
    import pandas as pd
    import torch

    torch.manual_seed(0)
    if kind.startswith("samoe"):
        batch = tokenizer(pd.read_parquet(data / "visits.parquet"), padding=True, return_tensors="pt")
        inputs = dict(batch)
    elif kind.startswith("mstar"):
        batch = tokenizer(np.load(data / "cells.npy"), return_tensors="pt")
        inputs = {"input_ids": batch["input_ids"]} if kind == "mstar-codec" else dict(batch)
    else:
        batch = tokenizer(json.loads((data / "points.json").read_text()), padding=True, return_tensors="pt")
        inputs = dict(batch)
    if kind == "raw-regions":
        inputs["visitors"] = torch.tensor([[0, 0], [0, 1], [1, 2], [1, 0]])
    with torch.no_grad():
        outputs = dict(model(**inputs))
        if kind == "mstar":
            people = [batch[name] for name in ("home_ids", "work_ids", "attribute_ids")]
            outputs["weeks"] = model.generate(*people, generator=torch.Generator().manual_seed(7))
    found = {f"tokenizer.{name}": value for name, value in batch.items()}
    found |= {f"model.{name}": value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
    return {name: value.contiguous().clone() for name, value in found.items()}


def answers(name: str, data: Path, **options: Any) -> list[dict[str, Any]]:
    """What the task of a folder says of the records in `data`; the task is inferred from the folder."""
    import json

    import numpy as np
    import pandas as pd
    from transformers import pipeline

    pipe = pipeline(model=str(data / name), device="cpu", **options)
    assert pipe.task == TASKS[name], pipe.task
    if name == "samoe":
        return pipe(pd.read_parquet(data / "visits.parquet"), top_k=3)
    if name == "mstar":
        cells = np.load(data / "cells.npy")
        cells[:, 10:20] = -1
        return pipe(3, seed=5) + pipe(cells, seed=5)
    return pipe(json.loads((data / "points.json").read_text()))


def request(name: str, data: Path) -> dict[str, Any]:
    """What is sent to an endpoint."""
    import json

    import pandas as pd

    if name == "samoe":
        visits = pd.read_parquet(data / "visits.parquet")
        times = [time.isoformat() for time in visits["time"]]
        records = visits[["user_id", "location_id"]].assign(time=times).to_dict("records")
        return {"inputs": records, "parameters": {"top_k": 3}}
    if name == "mstar":
        return {"inputs": 3, "parameters": {"seed": 5}}
    return {"inputs": json.loads((data / "points.json").read_text())}


def handled(name: str, data: Path) -> list[dict[str, Any]]:
    """What the handler in a folder answers."""
    import json
    import runpy

    handler = runpy.run_path(str(data / name / "handler.py"))["EndpointHandler"](str(data / name))
    return handler(json.loads(json.dumps(request(name, data))))


def main(data: Path) -> None:
    try:
        import hf_mobility  # noqa: F401
    except ImportError:
        pass
    else:
        raise SystemExit("hf_mobility can be imported here, so this shows nothing")
    import json

    from safetensors.torch import save_file
    from transformers import AutoModel

    for name in AUTO_CLASSES:
        model, tokenizer = load(data / name, trust_remote_code=True)
        for each in (model, tokenizer, model.config):
            assert type(each).__module__.startswith("transformers_modules."), f"{name}: {type(each)}"
        save_file(scores(name, model.eval(), tokenizer, data), data / f"{name}.safetensors")
    for name in TASKS:
        found = [answers(name, data, trust_remote_code=True), handled(name, data)]
        (data / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
    bodies = {
        name: AutoModel.from_pretrained(data / name, trust_remote_code=True) for name in ("samoe", "raw-prediction")
    }
    assert [type(body).__name__ for body in bodies.values()] == ["SamoeModel", "RawModel"]
    assert not any(name.split(".")[0] == "hf_mobility" for name in sys.modules)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
