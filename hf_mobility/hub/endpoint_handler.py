"""Handler of Hugging Face Inference Endpoints, sent as `handler.py`. It answers by transformers' `pipeline` and the
code beside the weights, so nothing else has to be installed.

A request is `{"inputs": ..., "parameters": {...}}`. Inputs are records (a list of objects, or an object of columns), or
a number of weeks to draw; parameters are the task's options, such as `top_k`. Times are ISO 8601 with an offset, or
epoch seconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from transformers import pipeline


class EndpointHandler:
    """`path`: the folder of the repository."""

    def __init__(self, path: str = "") -> None:
        self.pipeline = pipeline(model=path, tokenizer=path, trust_remote_code=True)  # type: ignore[call-overload]

    def __call__(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        """The records of the answer.

        Raises:
            ValueError: in one sentence, for faults in the records or parameters.
        """
        inputs, parameters = data["inputs"], data.get("parameters") or {}
        return self.pipeline(_with_times(inputs, parameters.get("time", "time")), **parameters)  # type: ignore[no-any-return]


def _with_times(inputs: Any, name: str) -> Any:
    """Times that are text become moments."""
    if isinstance(inputs, list):
        return [_with_times(record, name) for record in inputs]
    if not isinstance(inputs, dict) or name not in inputs:
        return inputs
    return {**inputs, name: _moment(inputs[name])}


def _moment(value: Any) -> Any:
    if isinstance(value, list):
        return [_moment(one) for one in value]
    return datetime.fromisoformat(value) if isinstance(value, str) else value
