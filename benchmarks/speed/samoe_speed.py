"""Paired speed measurements of SAMoE: every pair is timed alternately in one run, medians and their ratio are reported.

    python -m benchmarks.speed.samoe_speed --output benchmarks/speed/samoe_speed.csv

Pairs: eager against SDPA attention and bf16 autocast against fp32 for a training step; cached against full
recomputation for a roll-out; a city encoded once against at every call for a query. Random weights and a simulated
city; seconds depend on the machine, ratios much less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pandas as pd
import torch

from hf_mobility import (
    City,
    CityCollator,
    CityCorpus,
    SamoeConfig,
    SamoeForNextLocation,
    SamoeTokenizer,
    simulate_city,
)
from hf_mobility.training.corpus import CityBatchSampler


def alternate(first: Callable[[], Any], second: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median seconds of each, after one warm-up of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for function, seconds in zip((first, second), times):
            start = time.perf_counter()
            function()
            if repeat:
                seconds.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def training_step(model: SamoeForNextLocation, batch: dict[str, torch.Tensor], *, attention: str, bf16: bool) -> None:
    model.train()
    model.set_attn_implementation(attention)
    with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
        loss = model(**batch).loss
    loss.backward()
    model.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--size", default="small")
    parser.add_argument("--output")
    options = parser.parse_args()

    torch.manual_seed(0)
    made = simulate_city(100, num_days=80, num_locations=1500, seed=0)
    city = City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois)
    config = SamoeConfig.from_preset(options.size)
    tokenizer, model = SamoeTokenizer.from_city(city, config), SamoeForNextLocation(config)
    corpus = CityCorpus.from_visits([(made.visits, tokenizer)])
    keys = next(iter(CityBatchSampler(corpus, tokens_per_batch=1024)))
    batch = CityCollator(corpus)([corpus[key] for key in keys])
    people = made.visits[made.visits["user_id"] < 8]
    query = dict(tokenizer(people, padding=True, truncation=True, max_length=64, return_tensors="pt"))

    def step(**kwargs: Any) -> Callable[[], None]:
        return lambda: training_step(model, batch, **kwargs)

    def roll_out(use_cache: bool) -> Callable[[], Any]:
        return lambda: model.eval().generate(**query, max_new_tokens=32, do_sample=False, use_cache=use_cache)

    def ask(encoded_once: bool) -> Callable[[], Any]:
        model.eval()
        table = model.encode_locations(query["location_features"]) if encoded_once else None
        inputs = {k: v for k, v in query.items() if k != "location_features" or not encoded_once}

        def run() -> None:
            with torch.no_grad():
                model(**inputs, location_table=table, logits_to_keep=1)

        return run

    pairs = {
        "training step, 1,024 tokens: SDPA / eager": (
            step(attention="sdpa", bf16=True),
            step(attention="eager", bf16=True),
        ),
        "training step, 1,024 tokens: fp32 / bf16": (
            step(attention="eager", bf16=False),
            step(attention="eager", bf16=True),
        ),
        "32 new visits for 8 people: full / cached": (roll_out(False), roll_out(True)),
        "query, 8 people x 64 visits: city encoded each time / once": (ask(False), ask(True)),
    }
    rows = []
    for name, (slow, fast) in pairs.items():
        first, second = alternate(slow, fast, options.repeats)
        rows.append({"pair": name, "first, ms": 1e3 * first, "second, ms": 1e3 * second, "ratio": first / second})
    table = pd.DataFrame(rows).round(2)
    table["threads"] = torch.get_num_threads()
    print(table.to_string(index=False))
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(f"# python -m benchmarks.speed.samoe_speed --repeats {options.repeats} --size {options.size}\n")
            table.to_csv(file, index=False)


if __name__ == "__main__":
    main()
