"""What a SAMoE of a billion parameters would take on eight GPUs: reckoned from formulas, nothing of it was trained.

    python -m benchmarks.speed.plan --output benchmarks/speed/plan.csv

Parameters are counted on a model without storage. What a training step keeps for its backward pass is counted on small
models and grows by width, layers and candidates, in which it is linear.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import torch

from benchmarks.tables import save_table
from hf_mobility import SamoeConfig, SamoeForNextLocation

SIZE: dict[str, int] = {"hidden_size": 1024, "num_hidden_layers": 27, "num_attention_heads": 16}
GPUS, GPU_BYTES, GPU_FLOPS = 8, 80e9, 989e12  # H100 SXM, bfloat16 without sparsity (its data sheet)
UTILISATION = 0.35  # of that rate; a guess, not a measurement
VISITS_PER_PARAMETER = 20  # Hoffmann et al. 2022, arXiv 2203.15556, for texts
WINDOW, CANDIDATES = 128, 3_000  # visits of a window; places that are scored: those of a batch and 800 others
TOKENS = 16_384  # of a GPU in one step
STREAMS = 4
COUNTED: dict[str, int] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def parameters(config: SamoeConfig) -> tuple[int, int]:
    """Of the whole model, and of the attention of all its layers."""
    with torch.device("meta"):
        model = SamoeForNextLocation(config)
    attention = sum(weight.numel() for name, weight in model.named_parameters() if "self_attn" in name)
    return model.num_parameters(), attention


def flops_of_visit(config: SamoeConfig, *, window: int, candidates: int) -> float:
    """Of a training step: 6 for each weight that a visit meets, and the products of attention and of scores. The four
    streams share the weights of the attention, so a visit meets these four times."""
    total, attention = parameters(config)
    weights = total + (STREAMS - 1) * attention
    seen = STREAMS * config.num_hidden_layers * window  # half a window of the past on average, keys and values
    return 6.0 * (weights + config.hidden_size * (seen + candidates))


def kept_of_visit(size: dict[str, int], *, candidates: int, checkpointing: bool, window: int = 64) -> float:
    """Bytes that a step in bfloat16 keeps for its backward pass for one visit more. (Weights in bfloat16 are kept once
    for all.)"""
    few, many = (kept_bytes(size, (rows, window), candidates, checkpointing) for rows in (2, 6))
    return (many - few) / (4 * window)


def kept_bytes(size: dict[str, int], shape: tuple[int, int], candidates: int, checkpointing: bool) -> int:
    torch.manual_seed(0)
    config = SamoeConfig.from_preset("tiny", **size)
    model = SamoeForNextLocation(config).train()
    model.set_attn_implementation("sdpa")
    if checkpointing:
        model.gradient_checkpointing_enable()
    visits = {"input_ids": torch.randint(2, candidates + 2, shape)}
    visits["timestamps"] = (torch.arange(shape[1]) * 3600).expand(shape)
    features = torch.rand(candidates + 2, config.num_location_features)
    given = {weight.data_ptr() for weight in model.parameters()} | {features.data_ptr()}
    with kept(given) as sizes, torch.autocast("cpu", torch.bfloat16):
        model(**visits, labels=visits["input_ids"], location_features=features, use_cache=False)
    return sum(sizes.values())


@contextmanager
def kept(given: set[int]) -> Iterator[dict[int, int]]:
    """Bytes of each storage that is saved for a backward pass, those given left out."""
    sizes: dict[int, int] = {}
    held = []  # so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            sizes[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def bytes_of_visit(config: SamoeConfig, *, candidates: int, checkpointing: bool) -> tuple[float, float]:
    """Of the body's layers and of the heads, for one visit of a step, from small models: layers are linear in width and
    number, heads in the number of candidates."""
    few, many = 300, 600
    deep = {**COUNTED, "num_hidden_layers": 2 * COUNTED["num_hidden_layers"]}
    small = kept_of_visit(COUNTED, candidates=few, checkpointing=checkpointing)
    deeper = kept_of_visit(deep, candidates=few, checkpointing=checkpointing)
    wider = kept_of_visit(COUNTED, candidates=many, checkpointing=checkpointing)
    layer, candidate = (deeper - small) / COUNTED["num_hidden_layers"], (wider - small) / (many - few)
    width = config.hidden_size / COUNTED["hidden_size"]
    return layer * width * config.num_hidden_layers, candidate * candidates


def plan() -> pd.DataFrame:
    config = SamoeConfig.from_preset("tiny", **SIZE)
    total, attention = parameters(config)
    flops = flops_of_visit(config, window=WINDOW, candidates=CANDIDATES)
    visits = VISITS_PER_PARAMETER * total
    hours = flops * visits / (GPU_FLOPS * UTILISATION) / 3600
    body, heads = bytes_of_visit(config, candidates=CANDIDATES, checkpointing=False)
    short, _ = bytes_of_visit(config, candidates=CANDIDATES, checkpointing=True)
    states, layer = 16 * total / GPUS, 4 * total / config.num_hidden_layers
    needed = states + 2 * layer + TOKENS * (short + heads)
    size = f"width {config.hidden_size:,}, {config.num_hidden_layers} layers, {config.num_attention_heads} heads"
    rows: list[tuple[str, float, str, str]] = [
        ("parameters N", total / 1e9, "billion", size),
        ("of them attention, which four streams share", attention / 1e9, "billion", "met four times by each visit"),
        ("FLOPs of a visit, 6 N", 6 * total / 1e9, "GFLOP", "the rule for transformers"),
        ("FLOPs of a visit, with streams and scores", flops / 1e9, "GFLOP", f"{CANDIDATES:,} candidates"),
        ("visits to train on", visits / 1e9, "billion", f"{VISITS_PER_PARAMETER} a parameter, as for texts"),
        ("weights, gradients and AdamW a GPU", states / 1e9, "GB", f"16 bytes a parameter over {GPUS} GPUs"),
        ("layers gathered at one time", 2 * layer / 1e9, "GB", "two, in float32"),
        ("kept of a visit by the layers", body / 1e3, "kB", "without checkpointing"),
        ("kept of a visit by the layers", short / 1e3, "kB", "layers computed again in the backward pass"),
        ("kept of a visit by the heads", heads / 1e3, "kB", f"{CANDIDATES:,} candidates"),
        (f"memory of a GPU, {TOKENS:,} visits a step", needed / 1e9, "GB", f"of {GPU_BYTES / 1e9:.0f}, checkpointing"),
        ("steps", visits / (TOKENS * GPUS), "", f"of {TOKENS * GPUS:,} visits"),
        ("GPU hours", hours, "h", f"H100 at {UTILISATION:.0%} of {GPU_FLOPS / 1e12:.0f} TFLOP/s"),
        ("days on the eight", hours / GPUS / 24, "days", ""),
    ]
    return pd.DataFrame(rows, columns=["quantity", "value", "unit", "from"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="a CSV file")
    options = parser.parse_args()
    table = plan()
    print(table.round(3).to_string(index=False))
    if options.output:
        save_table(table, options.output)


if __name__ == "__main__":
    main()
