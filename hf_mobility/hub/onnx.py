"""SAMoE as one ONNX graph, for servers without torch. Needs the extra `onnx`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import Dim

from ..tokenization.tokenization_samoe import SamoeTokenizer
from ..tokenization.whole_files import whole_file

VISITS = tuple(SamoeTokenizer.model_input_names)
INPUTS = (*VISITS, "location_features")
OUTPUTS = ("logits", "stay_logits")
TOLERANCE = 1e-4  # of probabilities


class _LastVisit(torch.nn.Module):
    """What a model says after the last visit of each user."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.model(**dict(zip(INPUTS, inputs)), use_cache=False, logits_to_keep=1)
        return output.logits[:, -1], output.stay_logits[:, -1]


def export_onnx(pipe: Any, path: str | Path) -> float:
    """Write the model of a `NextLocationPipeline` as an ONNX graph and compare the two.

    The graph takes what `SamoeTokenizer` returns for visits of any number of users and any city, padded on the left:
    `input_ids`, `attention_mask`, `time_ids`, `weekday_ids`, `stay_ids`, `timestamps` (B, T) int64 and
    `location_features` (N + 2, F) float32. It returns, after the last visit, `logits` (B, N + 2) of the next place and
    `stay_logits` (B, classes) of the time to it. The softmax over `logits[:, 2:] / tokenizer.temperature` is what
    `predict` gives.

    Args:
        path: of the file, written whole or not at all.

    Returns:
        The largest difference of a probability between onnxruntime and the model, for visits that are made up.

    Raises:
        ImportError: without the extra `onnx`.
        ValueError: a model that needs the arrival time, or a difference above 0.0001.
    """
    runtime = _extra("onnxruntime")
    _extra("onnxscript")
    if pipe.arrival_time_given:
        raise ValueError("a model with arrival_time=True is not exported: each answer needs a time of its own.")
    merged = pipe.model.merge_and_unload() if hasattr(pipe.model, "merge_and_unload") else pipe.model
    model = _LastVisit(merged).eval()
    users, visits, places = (
        Dim("users", min=1, max=65_536),
        Dim("visits", min=2, max=4_096),
        Dim("places", min=4, max=1 << 24),
    )
    shapes = (*({0: users, 1: visits} for _ in VISITS), {0: places})
    some, other = (_made_up(pipe.tokenizer, users=number, visits=number + 3) for number in (3, 1))
    with torch.no_grad():
        names: dict[str, Any] = {"input_names": list(INPUTS), "output_names": list(OUTPUTS)}
        inputs = tuple(some.values())
        program: Any = torch.onnx.export(model, inputs, dynamo=True, verbose=False, dynamic_shapes=(shapes,), **names)
    with whole_file(path) as file:
        program.save(str(file))
        session = runtime.InferenceSession(str(file))
        difference = max(_difference(session, model, batch) for batch in (some, other))
        if not difference <= TOLERANCE:
            raise ValueError(f"the graph differs from the model by {difference:.2g} in a probability.")
    return difference


def _made_up(tokenizer: Any, *, users: int, visits: int) -> dict[str, torch.Tensor]:
    """Users with `visits` visits and, but for the first, one less than the user before."""
    rng = np.random.default_rng(0)
    count = np.maximum(visits - np.arange(users), 1)
    table = {
        "user_id": np.repeat(np.arange(users), count),
        "time": 1_700_000_000 + 7_200 * np.arange(count.sum()),
        "location_id": rng.choice(tokenizer.location_ids, count.sum()),
    }
    batch = tokenizer(table, padding=True, return_tensors="pt")
    return {name: batch[name] for name in INPUTS}


def _difference(session: Any, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> float:
    found = session.run(list(OUTPUTS), {name: values.numpy() for name, values in inputs.items()})
    with torch.no_grad():
        wanted = model(*inputs.values())
    pairs = zip(found, wanted)
    return max(float((torch.from_numpy(a).softmax(-1) - b.softmax(-1)).abs().max()) for a, b in pairs)


def _extra(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is missing: python -m pip install 'hf_mobility[onnx]'.") from error
