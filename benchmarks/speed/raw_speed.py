"""Paired speed measurements of RAW on one CPU thread or a GPU: what is compared runs in turns; medians are reported.

    python -m benchmarks.speed.raw_speed --output benchmarks/speed/raw_speed.csv
    python -m benchmarks.speed.raw_speed --device cuda --size base --batch 32 --output raw_speed_gpu.csv
    python -m benchmarks.speed.raw_speed --quick                                 # tiny models, to see that it runs

Three groups: roll-outs that end at the last of 960 points, with cached keys and values and with everything computed
again at every step (the same points are checked first); users embedded by RAW and by transformers' GPT-2 of the same
width, depth and heads, which is given its inputs embedded; a million points tokenized, beside pandas' own sorting and
grouping of the same frame, which a tokenizer that orders points cannot beat by much. `ratio` is the time of the group's
first row over a row's own. CPU seconds are used, not wall time, so that other processes count less. Random weights;
seconds depend on the machine, ratios much less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import GPT2Config, GPT2Model

from benchmarks.tables import running_command
from hf_mobility import RawConfig, RawForTrajectoryPrediction, RawModel, RawTokenizer

MIDDLE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6}
DAY = 96
CPU = torch.device("cpu")
Run = Callable[[], Any]


def config_of(size: str, length: int) -> RawConfig:
    if size == "middle":
        return RawConfig(**MIDDLE, max_position_embeddings=length)
    return RawConfig.from_preset(size, max_position_embeddings=length)


def now(device: torch.device) -> float:
    """Seconds of the processor, or of the clock once a GPU has done its work."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def in_turns(runs: dict[str, Run], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each, taken in turns, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = now(device)
            run()
            if repeat:
                seconds[name].append(now(device) - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def group(
    what: str,
    size: str,
    runs: dict[str, Run],
    *,
    number: int,
    unit: str,
    repeats: int,
    device: torch.device = CPU,
) -> list[dict[str, Any]]:
    """Rows of one comparison; `number` things of `unit` are done by each run."""
    seconds = in_turns(runs, repeats, device)
    first = next(iter(seconds.values()))
    return [
        {
            "measurement": what,
            "size": size,
            "variant": name,
            "ms": 1e3 * taken,
            "per second": number / taken,
            "unit": unit,
            "ratio": first / taken,
        }
        for name, taken in seconds.items()
    ]


def roll_outs(
    size: str, *, length: int, steps: int, batch: int, repeats: int, device: torch.device
) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    model = RawForTrajectoryPrediction(config_of(size, length)).eval().to(device)  # type: ignore[arg-type]
    known = torch.rand(batch, length - steps, 2, device=device) * 2 - 1

    def roll_out(use_cache: bool) -> torch.Tensor:
        return model.generate(known, steps=steps, use_cache=use_cache)

    torch.testing.assert_close(roll_out(True), roll_out(False), atol=1e-4, rtol=1e-4)
    runs = {"all computed again": lambda: roll_out(False), "with cache": lambda: roll_out(True)}
    what = f"roll-out of {steps} steps to {length} points, {batch} series"
    return group(what, size, runs, number=batch * steps, unit="points", repeats=repeats, device=device)


def embeddings(
    size: str, *, length: int, batch: int, precision: str, repeats: int, device: torch.device
) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    config = config_of(size, length)
    ours = RawModel(config).eval().to(device)  # type: ignore[arg-type]
    gpt2 = GPT2Model(
        GPT2Config(
            vocab_size=1,
            n_positions=length,
            n_embd=config.hidden_size,
            n_layer=config.num_hidden_layers,
            n_head=config.num_attention_heads,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    gpt2 = gpt2.eval().to(device)  # type: ignore[arg-type]
    points = torch.rand(batch, length, 2, device=device) * 2 - 1
    embedded = torch.randn(batch, length, config.hidden_size, device=device)

    @torch.inference_mode()
    def embed(model: torch.nn.Module, **inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext():
            return model(**inputs, use_cache=False).last_hidden_state.mean(dim=1)

    runs = {
        "GPT-2 of transformers": lambda: embed(gpt2, inputs_embeds=embedded),
        "RAW": lambda: embed(ours, coordinates=points),
    }
    what = f"embedding, {precision}, {batch} series of {length} points"
    return group(what, size, runs, number=batch, unit="series", repeats=repeats, device=device)


def many_points(number: int, *, per_person: int = 1_000, days: int = 10) -> pd.DataFrame:
    """Points at random seconds of `days` days, sorted by person and time."""
    rng = np.random.default_rng(0)
    user = np.arange(number) // per_person
    second = rng.integers(0, days * 86_400, number)
    order = np.lexsort((second, user))
    time_of = pd.to_datetime(1_677_600_000 + second[order], unit="s", utc=True)
    lat, lon = rng.uniform(39.5, 41.0, number), rng.uniform(115.5, 117.5, number)
    return pd.DataFrame({"user_id": user, "time": time_of, "lat": lat, "lon": lon})


def grouped(frame: pd.DataFrame) -> pd.DataFrame:
    """The last point of each person and quarter of an hour, by pandas alone."""
    frame = frame.sort_values(["user_id", "time"])
    return frame.groupby(["user_id", frame["time"].dt.floor("15min")])[["lat", "lon"]].last()


def tokenizing(number: int, repeats: int) -> list[dict[str, Any]]:
    tokenizer = RawTokenizer.from_bounds(timezone="Asia/Shanghai")
    frame = many_points(number)
    rows = []
    for order, points in (("sorted", frame), ("in random order", frame.sample(frac=1, random_state=0))):
        table = points.reset_index(drop=True)
        assert tokenizer.encode_points(table).observed.sum() == len(grouped(table))  # the same slots are filled
        runs: dict[str, Run] = {
            "pandas: sort and group": partial(grouped, table),
            "RawTokenizer": partial(tokenizer.encode_points, table),
        }
        rows += group(f"tokenizing {number:,} points, {order}", "", runs, number=number, unit="points", repeats=repeats)
    return rows


def measure(
    sizes: list[str], *, length: int, batch: int, points: int, repeats: int, device: torch.device = CPU
) -> pd.DataFrame:
    rows = tokenizing(points, repeats) if device.type == "cpu" else []
    few = {"repeats": max(1, repeats // 2), "device": device}
    for size in sizes:
        for precision in ("fp32", "bf16"):
            rows += embeddings(size, length=length, batch=batch, precision=precision, repeats=repeats, device=device)
        rows += roll_outs(size, length=length, steps=10, batch=batch, **few)  # type: ignore[arg-type]
    rows += roll_outs(sizes[0], length=length, steps=DAY // 2, batch=1, **few)  # type: ignore[arg-type]
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return pd.DataFrame(rows).round(3).assign(threads=torch.get_num_threads(), device=name, torch=torch.__version__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", nargs="+", default=["small", "middle"], help="presets, or middle: 6 layers of 384")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--device", default="cpu", help="a GPU tokenises nothing")
    parser.add_argument("--quick", action="store_true", help="tiny model, short series, few points, one repeat")
    parser.add_argument("--output")
    options = parser.parse_args()

    torch.set_num_threads(1)
    device = torch.device(options.device)
    if options.quick:
        table = measure(["tiny"], length=DAY, batch=2, points=2_000, repeats=1, device=device)
    else:
        table = measure(
            options.size,
            length=10 * DAY,
            batch=options.batch,
            points=options.points,
            repeats=options.repeats,
            device=device,
        )
    print(table.drop(columns=["torch"]).to_string(index=False))
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(f"# {running_command()}\n")
            table.to_csv(file, index=False)


if __name__ == "__main__":
    main()
