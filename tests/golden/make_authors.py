"""Writes the golden outputs of the authors' layouts: `python tests/golden/make_authors.py`, from the root of the
repository.

Weights and inputs come from sines. The outputs are those of `benchmarks/authors.py`, without the package; the
codec's loss and codes, and the weeks that M-STAR draws without chance, are among them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from hub.test_convert import GOLDEN, HEADS, author, inputs_of, outputs_of  # noqa: E402

if __name__ == "__main__":
    tensors = {}
    for system in HEADS:
        inputs = inputs_of(system)
        with torch.no_grad():
            outputs = outputs_of(system, author(system), inputs)
        tensors |= {f"{system}/inputs/{name}": value.contiguous() for name, value in inputs.items()}
        tensors |= {f"{system}/outputs/{name}": value.contiguous() for name, value in outputs.items()}
    save_file(tensors, GOLDEN)
