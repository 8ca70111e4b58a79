"""Named protocols: any model, ours or not, ranked beside baselines by one command."""

from __future__ import annotations

from .protocol import Protocol, protocol_names
from .results import Result
from .run import benchmark

__all__ = ["Protocol", "Result", "benchmark", "protocol_names"]
