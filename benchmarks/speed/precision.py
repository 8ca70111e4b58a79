"""What weights in bfloat16, and linear layers in int8, do to SAMoE's answers and to their time.

    HF_MOBILITY_DATA=../shared/data python -m benchmarks.speed.precision checkpoints/samoe-small --output benchmarks/speed/precision.csv

Check-ins of Calgary: all places of the file, a part of the users, the last 20 % of their visits. int8 are the linear
layers of the body, by `torch.ao`'s dynamic quantization: weights for each layer beforehand, activations at each call.
The largest difference is over the probabilities of all places. Processor seconds are those of `evaluate`, a full pass.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
import torch

from benchmarks.next_location.evaluate_gaps import visits_of
from benchmarks.tables import GrowingTable
from hf_mobility import NextLocationPipeline, evaluate, make_task, summarize

CITY = "calgary"
SHOWN = ["weights", "n", "users", "acc@1", "mrr", "largest_difference", "cpu_s"]


def with_int8(pipe: NextLocationPipeline) -> NextLocationPipeline:
    """The linear layers of the body in int8."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao's is deprecated for torchao's, which is one library more
        layers: Any = torch.ao.quantization.quantize_dynamic(pipe.model.model.layers, {torch.nn.Linear}, torch.qint8)
    pipe.model.model.layers = layers
    return pipe


def largest_difference(first: NextLocationPipeline, second: NextLocationPipeline, task: Any) -> float:
    """Of the probability of any place, over all targets."""
    pairs = zip(first.probabilities(task), second.probabilities(task), strict=True)
    return max(float(np.abs(one - other).max()) for (_, one), (_, other) in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output")
    options = parser.parse_args()

    visits, city = visits_of(CITY, users=options.users, seed=options.seed)
    task, growing = make_task(visits, city), GrowingTable(SHOWN, options.output)

    def pipe(dtype: torch.dtype) -> NextLocationPipeline:
        return NextLocationPipeline.from_pretrained(options.checkpoint, city=city, dtype=dtype)

    exact = pipe(torch.float32)
    forms = {"float32": exact, "bfloat16": pipe(torch.bfloat16), "int8": with_int8(pipe(torch.float32))}
    for name, form in forms.items():
        start = time.process_time()
        result = evaluate(form, task)
        facts = {"weights": name, "cpu_s": time.process_time() - start, "places": len(city)}
        facts["largest_difference"] = largest_difference(exact, form, task)
        growing.add(summarize([result], bootstrap=0).assign(**facts, threads=torch.get_num_threads()).head(1))


if __name__ == "__main__":
    main()
