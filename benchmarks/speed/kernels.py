"""What M-STAR's kernels for CPUs gain: training steps with each of them and with torch's or transformers' own, in turns.

    python -m benchmarks.speed.kernels --output benchmarks/speed/kernels.csv

A kernel stays in `modeling/` where it saves a tenth of a training step of a shipped size. Seconds are those of the
processor on one thread, so that other work on the machine matters little; `times as long` is the median over pairs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch

from benchmarks.tables import save_table
from hf_mobility import MstarCodecConfig, MstarCodecModel, MstarForTrajectoryGeneration
from hf_mobility.modeling.layers import SelfAttention
from hf_mobility.modeling.modeling_mstar import MstarAttention
from hf_mobility.modeling.modeling_mstar_codec import MstarCodecAttention

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
# Kernel -> a context without it
WITHOUT: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "attention by levels": lambda: patch.object(MstarAttention, "_use_level_attention", lambda *_: False),
    "codec's attention written out": lambda: patch.object(MstarCodecAttention, "attend", SelfAttention.attend),
}


def generator_step(model: MstarForTrajectoryGeneration, weeks: int) -> Callable[[], torch.Tensor]:
    codec = model.config.codec
    limits = {"home_ids": codec.num_cells, "work_ids": codec.num_cells, "attribute_ids": model.config.num_attributes}
    given = {name: torch.randint(limit, (weeks,)) for name, limit in limits.items()}
    codes = torch.randint(codec.codebook_size, (weeks, codec.num_codes_per_week))
    return lambda: model.train()(code_ids=codes, **given).loss


def codec_step(codec: MstarCodecModel, weeks: int) -> Callable[[], torch.Tensor]:
    rows = [torch.randint(cells, (weeks, codec.config.num_hours)) for cells in codec.config.cells_per_resolution]
    cells = torch.stack(rows, dim=1)
    return lambda: codec.train()(input_ids=cells).loss


def seconds(step: Callable[[], torch.Tensor]) -> float:
    """Processor time of a training step in bf16, the default."""
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16):
        loss = step()
    loss.backward()
    return time.process_time() - start


def compare(step: Callable[[], torch.Tensor], kernel: str, repeats: int) -> dict[str, float]:
    pairs = []
    for _ in range(repeats + 1):
        ours = seconds(step)
        with WITHOUT[kernel]():
            pairs.append((ours, seconds(step)))
    ours, plain = zip(*pairs[1:])  # the first is for warming up
    ratio = statistics.median(b / a for a, b in pairs[1:])
    milliseconds = {"with, ms": statistics.median(ours), "without, ms": statistics.median(plain)}
    return {name: round(1000 * value, 1) for name, value in milliseconds.items()} | {"times as long": round(ratio, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = MstarForTrajectoryGeneration.from_pretrained(CHECKPOINTS / "mstar-cells-small")
    codec = MstarCodecModel.from_pretrained(CHECKPOINTS / "mstar-codec-small")
    small = MstarCodecModel(MstarCodecConfig.from_preset("small"))
    cases = [
        ("mstar-cells-small", generator_step(generator, 32), "attention by levels"),  # the batch that trained it
        ("mstar-codec-small", codec_step(codec, 8), "codec's attention written out"),
        ("codec, preset small", codec_step(small, 8), "codec's attention written out"),
    ]
    rows = [
        {"model": model, "kernel": kernel, **compare(step, kernel, options.repeats)} for model, step, kernel in cases
    ]
    table = pd.DataFrame(rows).assign(torch=torch.__version__)
    print(table.to_string(index=False))
    if options.output:
        save_table(table, options.output)


if __name__ == "__main__":
    main()
