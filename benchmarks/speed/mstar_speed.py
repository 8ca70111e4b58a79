"""Paired speed measurements of M-STAR: what is compared is timed in turns in one run; medians and ratios are reported.

    python -m benchmarks.speed.mstar_speed --output benchmarks/speed/mstar_speed.csv
    python -m benchmarks.speed.mstar_speed --device cuda --output mstar_speed_gpu.csv
    python -m benchmarks.speed.mstar_speed --quick                                        # tiny models, to see that it runs

Generation of weeks (batches of 64 and 512) beside two baselines of equal width, depth and heads: the hour-by-hour
transformer with cached keys and values, and a denoising diffusion over the embedded cells of all hours, of which one
step is timed and multiplied by 1,000. M-STAR's form is the paper's; beside it stands that of the shipped checkpoint
(four levels, six decoding steps, the pointer) at the same width. Of the paper's also the linear layers alone and the
attention alone, with nothing between them: no implementation over torch's kernels is faster than these two together.
Then a training step of the codec and of the generator, with both kinds of attention. `times first` is a row's time over
that of the first row of its group. Beside each group runs a product of square matrices in the same precision; `share of
product` is the rate of a row's own matrix products, counted by torch, over that rate. Random weights; seconds depend on
the machine, ratios much less.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from benchmarks.tables import running_command
from hf_mobility import MstarCodecConfig, MstarCodecModel, MstarConfig, MstarForTrajectoryGeneration
from hf_mobility.baselines.generators import Conditions
from hf_mobility.baselines.hourly_transformer import HourlyTransformer

DIFFUSION_STEPS = 1_000
TRAINING_BATCH = 64
OURS, HOURLY = "generation, M-STAR", "generation, hour by hour"
HALF = "generation, M-STAR, weights in bfloat16"
SHIPPED = "generation, M-STAR, four levels, copied places"
LINEAR, ATTENTION = "of it, the linear layers alone", "of it, the attention alone"
DIFFUSION = f"generation, diffusion of {DIFFUSION_STEPS:,} steps (one timed)"
PRODUCT = "matrix product"

Run = Callable[[], Any]


class Layer(nn.Module):
    """Pre-norm attention, every hour to every hour, and feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if x.device.type == "cpu":  # the fused kernel is slower in bfloat16 there
            q, k, v = q.float(), k.float(), v.float()
        x = x + self.mixed(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


class Denoiser(nn.Module):
    """What a diffusion has to run at every step: a transformer over noisy embedded hours (B, L, D) that predicts their
    noise, told the step (B,) and the condition (B, D) by adding them to every hour.
    """

    def __init__(self, config: MstarConfig) -> None:
        super().__init__()
        width = config.hidden_size
        layers = [Layer(width, config.num_attention_heads) for _ in range(config.num_hidden_layers)]
        self.layers = nn.Sequential(*layers)
        self.step = nn.Embedding(DIFFUSION_STEPS, width)
        self.position = nn.Parameter(torch.randn(config.codec.num_hours, width))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, width)

    @torch.inference_mode()
    def reverse_step(self, x: torch.Tensor, condition: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """x_t -> x_{t-1}, (B, L, D), with constants of the middle of the chain (Ho et al., arXiv 2006.11239)."""
        hidden = x + self.position + (condition + self.step(step)).unsqueeze(1)
        noise = self.out(self.norm(self.layers(hidden)))
        return 1.005 * (x - 0.1 * noise) + 0.1 * torch.randn_like(x)


def shipped_form(codec: MstarCodecConfig, size: str) -> MstarForTrajectoryGeneration:
    """As `checkpoints/mstar-cells-small` but for the preset's size: four levels, drawn in passes, with places to copy."""
    hours, finest = codec.num_hours, len(codec.cells_per_resolution) - 1
    levels = {"level_lengths": [1, hours // 24, hours // 6, hours], "level_resolutions": [finest] * 4}
    short = MstarCodecModel(MstarCodecConfig.from_preset(size, **levels, num_encoder_layers=0, hierarchical_cells=True))
    model = MstarForTrajectoryGeneration.from_codec(short, size, within_level_steps=6, pointer_head=True)
    cells = torch.arange(codec.num_cells).unsqueeze(1)
    model.fit_places(cells * torch.tensor(codec.cells_per_resolution) // codec.num_cells)
    return model.eval()


class Bench:
    """Models of one size on one device, and functions that do one piece of work each."""

    def __init__(self, size: str, device: str) -> None:
        torch.manual_seed(0)
        self.device = torch.device(device)
        codec = MstarCodecConfig.from_preset(size)
        self.codec = MstarCodecModel(codec).to(self.device)  # type: ignore[arg-type]
        self.model = MstarForTrajectoryGeneration.from_codec(self.codec, size).eval()
        with tempfile.TemporaryDirectory() as folder:
            self.model.save_pretrained(folder)
            half = MstarForTrajectoryGeneration.from_pretrained(folder, dtype=torch.bfloat16)
        self.half = half.to(self.device).eval()
        self.shipped = shipped_form(codec, size).to(self.device)
        config = self.model.config
        self.hours, self.cells, self.classes = codec.num_hours, codec.num_cells, config.num_attributes
        self.rng = np.random.default_rng(0)
        some = self.rng.integers(0, self.cells, (self.classes, self.hours))
        self.hourly = HourlyTransformer(
            width=config.hidden_size, layers=config.num_hidden_layers, heads=config.num_attention_heads
        ).fit(some, num_cells=self.cells, attribute=np.arange(self.classes), epochs=0, device=self.device)
        self.denoiser = Denoiser(config).to(self.device).eval()

    def parameters(self) -> dict[str, int]:
        """Trained parameters; M-STAR has more at equal width: a table of codes and the layers its condition steers."""
        denoiser = sum(parameter.numel() for parameter in self.denoiser.parameters())
        ours = self.model.num_parameters(only_trainable=True)
        shipped = self.shipped.num_parameters(only_trainable=True)
        return {OURS: ours, HALF: ours, SHIPPED: shipped, HOURLY: self.hourly.num_parameters, DIFFUSION: denoiser}

    def precision(self, name: str) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if name == "bf16" else nullcontext()

    def conditions(self, batch: int) -> dict[str, np.ndarray]:
        places = {name: self.rng.integers(0, self.cells, batch) for name in ("home_ids", "work_ids")}
        return {**places, "attribute_ids": self.rng.integers(0, self.classes, batch)}

    def generation(self, model: MstarForTrajectoryGeneration, batch: int) -> Run:
        given = self.conditions(batch)

        def run() -> None:
            model.set_attn_implementation("sdpa")  # trainings change it
            model.generate(**given, batch_size=batch)

        return run

    def generation_in_half(self, batch: int) -> Run:
        """As `from_pretrained(..., dtype=torch.bfloat16)` runs: activations are as narrow as the weights."""
        given = self.conditions(batch)
        return torch.autocast(self.device.type, enabled=False)(lambda: self.half.generate(**given, batch_size=batch))

    def hour_by_hour(self, batch: int) -> Run:
        given = Conditions(**self.conditions(batch))
        return lambda: self.hourly.generate(given, seed=0, batch_size=batch)

    def diffusion_step(self, batch: int) -> Run:
        x = torch.randn(batch, self.hours, self.model.config.hidden_size, device=self.device)
        step = torch.full((batch,), DIFFUSION_STEPS // 2, device=self.device)
        return lambda: self.denoiser.reverse_step(x, x[:, 0], step)

    def linear_layers(self, batch: int, precision: str) -> Run:
        """The generator's linear layers at the positions of each level, on inputs that are there already."""
        model, dtype = (self.half, torch.bfloat16) if precision == "bf16" else (self.model, torch.float32)
        width, wide = model.config.hidden_size, model.config.intermediate_size
        levels = [torch.randn(batch, length, wide, device=self.device, dtype=dtype) for length in self._lengths()]
        inputs = [(level[..., :width].contiguous(), level) for level in levels]

        @torch.no_grad()
        def run() -> None:
            for narrow, whole in inputs:
                for layer in model.layers:
                    for linear in (layer.self_attn.qkv_proj, layer.self_attn.o_proj, layer.mlp.up_proj):
                        linear(narrow)
                    layer.mlp.down_proj(whole)
                model.lm_head(narrow)

        return torch.autocast(self.device.type, enabled=False)(run)

    def attention(self, batch: int, precision: str) -> Run:
        """The generator's attention of each level to itself and the coarser ones."""
        config, lengths = self.model.config, self._lengths()
        heads, dtype = config.num_attention_heads, torch.bfloat16 if precision == "bf16" else torch.float32
        shape = (3, batch, heads, sum(lengths), config.hidden_size // heads)
        query, key, value = torch.randn(shape, device=self.device, dtype=dtype)

        def run() -> None:
            for _ in range(config.num_hidden_layers):
                end = 0
                for length in lengths:
                    start, end = end, end + length
                    nn.functional.scaled_dot_product_attention(
                        query[:, :, start:end], key[:, :, :end], value[:, :, :end]
                    )

        return run

    def _lengths(self) -> list[int]:
        return self.codec.config.level_lengths

    def product(self, precision: str, side: int) -> Run:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        first, second = torch.randn(2, side, side, device=self.device).to(dtype)
        return lambda: first @ second

    def codec_training(self, batch: int, attention: str) -> Run:
        cells = self._integers(self.cells, batch, self.hours)
        rows = [cells % number for number in self.codec.config.cells_per_resolution]
        return training_step(self.codec, {"input_ids": torch.stack(rows, 1)}, attention)

    def generator_training(self, model: MstarForTrajectoryGeneration, batch: int, attention: str) -> Run:
        codec = model.config.codec
        given = {name: torch.as_tensor(ids, device=self.device) for name, ids in self.conditions(batch).items()}
        codes = self._integers(codec.codebook_size, batch, codec.num_codes_per_week)
        return training_step(model, {"code_ids": codes, **given}, attention)

    def _integers(self, limit: int, *shape: int) -> torch.Tensor:
        return torch.from_numpy(self.rng.integers(0, limit, shape)).to(self.device)


def training_step(model: PreTrainedModel, batch: dict[str, torch.Tensor], attention: str) -> Run:
    """Forward, backward and an optimiser step at learning rate 0, which costs the same and changes nothing."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.0)

    def run() -> None:
        model.train()
        model.set_attn_implementation(attention)
        model(**batch).loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return run


def in_turns(bench: Bench, runs: dict[str, Run], precision: str, repeats: int) -> dict[str, float]:
    """Median seconds of each, taken in turns, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            _wait(bench.device)
            start = time.perf_counter()
            with bench.precision(precision):
                run()
            _wait(bench.device)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def counted_flops(run: Run) -> int:
    """Operations of the matrix products of one run; others are few. Attention is written out, as torch does not count
    every fused kernel.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def group(
    bench: Bench, runs: dict[str, tuple[Run, Run, int]], *, batch: int, precision: str, repeats: int, side: int
) -> list[dict[str, Any]]:
    """Rows of one group. runs: name -> (what is timed, the same on one week to count, times it would be done)."""
    timed = {name: run for name, (run, _, _) in runs.items()}
    seconds = in_turns(bench, {**timed, PRODUCT: bench.product(precision, side)}, precision, repeats)
    rate = 2 * side**3 / seconds[PRODUCT]
    whole = {name: seconds[name] * times for name, (_, _, times) in runs.items()}
    first = next(iter(whole.values()))
    shared = {"batch": batch, "precision": precision}
    rows = []
    for name, (_, one_week, times) in runs.items():
        flops = times * counted_flops(one_week)
        speed = flops * batch / whole[name]
        measured = {"ms per week": 1e3 * whole[name] / batch, "times first": whole[name] / first}
        work = {"GFLOP per week": flops / 1e9, "GFLOP/s": speed / 1e9, "share of product": speed / rate}
        rows.append({"measurement": name, **shared, **measured, **work})
    rows.append({"measurement": f"{PRODUCT}, {side} x {side}", **shared, "GFLOP/s": rate / 1e9, "share of product": 1})
    return rows


def generations(bench: Bench, batch: int, precision: str) -> dict[str, tuple[Run, Run, int]]:
    kinds: dict[str, tuple[Callable[[int], Run], int]] = {
        OURS: (partial(bench.generation, bench.model), 1),
        **({HALF: (bench.generation_in_half, 1)} if precision == "bf16" else {}),
        LINEAR: (partial(bench.linear_layers, precision=precision), 1),
        ATTENTION: (partial(bench.attention, precision=precision), 1),
        SHIPPED: (partial(bench.generation, bench.shipped), 1),
        HOURLY: (bench.hour_by_hour, 1),
        DIFFUSION: (bench.diffusion_step, DIFFUSION_STEPS),
    }
    return {name: (make(batch), make(1), times) for name, (make, times) in kinds.items()}


def trainings(bench: Bench, batch: int) -> dict[str, dict[str, tuple[Run, Run, int]]]:
    """A group for each stage; the first row is the attention that the examples train with on this device."""
    kinds = ("eager", "sdpa") if bench.device.type == "cpu" else ("sdpa", "eager")
    found = {
        stage: {f"training step, {stage}, {kind} attention": (make(batch, kind), make(1, kind), 1) for kind in kinds}
        for stage, make in (
            ("codec", bench.codec_training),
            ("generator", partial(bench.generator_training, bench.model)),
        )
    }
    shipped, row = (
        partial(bench.generator_training, bench.shipped),
        "training step, generator, four levels, copied places",
    )
    found["generator"][row] = shipped(batch, "sdpa"), shipped(1, "sdpa"), 1
    return found


def measure(
    size: str, *, device: str, batches: list[int], training_batch: int, repeats: int, side: int
) -> pd.DataFrame:
    bench = Bench(size, device)
    rows: list[dict[str, Any]] = []
    for precision in ("fp32", "bf16"):
        options = {"precision": precision, "repeats": repeats, "side": side}
        for batch in batches:
            rows += group(bench, generations(bench, batch, precision), batch=batch, **options)  # type: ignore[arg-type]
        for runs in trainings(bench, training_batch).values():
            rows += group(bench, runs, batch=training_batch, **options)  # type: ignore[arg-type]
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else "CPU"
    table = pd.DataFrame(rows).round(4)
    table["parameters"] = table["measurement"].map(bench.parameters()).astype("Int64")
    return table.assign(threads=torch.get_num_threads(), device=name, torch=torch.__version__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", default="base")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 512], help="weeks generated at once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="tiny models, small batches, one repeat")
    parser.add_argument("--output")
    options = parser.parse_args()

    shape = {
        "batches": options.batches,
        "training_batch": TRAINING_BATCH,
        "repeats": options.repeats,
        "side": 2048 if options.device == "cpu" else 8192,
    }
    if options.quick:
        shape = {"batches": [2, 3], "training_batch": 2, "repeats": 1, "side": 128}
    table = measure("tiny" if options.quick else options.size, device=options.device, **shape)
    print(table.drop(columns=["threads", "device", "torch"]).to_string(index=False))
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(f"# {running_command()}\n")
            table.to_csv(file, index=False)


if __name__ == "__main__":
    main()
