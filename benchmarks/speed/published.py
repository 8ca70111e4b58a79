"""The three systems as published and ours on the same work: processor seconds of one thread, taken in turns.

    python -m benchmarks.speed.published --output benchmarks/speed/published.csv
    python -m benchmarks.speed.published --only samoe --quick        # tiny models, to see that it runs

The published form is `benchmarks/authors.py`: plain torch in float32, written by us from the equations, not the authors'
program. Ours has the same weights (`hf_mobility.convert`), and its outputs are compared first. Work of one row: a training
step (forward, backward, optimizer) of a batch, weeks drawn, or a series continued. `times as fast` is the published
time over a row's own. Random weights; seconds depend on the machine, ratios much less.

What differs between the forms: the published codec encodes a week once per level, ours once per grid. The published
generator encodes its weeks at every step; ours may keep their codes. The published lines of SAMoE are padded to 144 visits
and come in random order; ours are padded to the longest of a batch, and lines of like length share one (as
`CityBatchSampler` has it). The published roll-out of RAW computes all points again; ours keeps keys and values. The
published generation keeps keys and values, too.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import authors
from benchmarks.speed.raw_speed import CPU, in_turns
from benchmarks.tables import save_table
from hf_mobility import convert

LEVELS = [1, 7, 14, 28, 56, 84, 112, 168]
CELLS = [900, 225, 64, 16]  # fine to coarse
BASE: dict[str, Any] = {"width": 256, "codes": 4096, "layers": 4, "length": 168, "weeks": 8, "drawn": 32} | {
    "samoe": (512, 4), "lines": 16, "places": 2000, "raw": (384, 6), "points": 960, "steps": 10
}  # fmt: skip
TINY: dict[str, Any] = {"width": 16, "codes": 32, "layers": 2, "length": 24, "weeks": 2, "drawn": 2} | {
    "samoe": (16, 2), "lines": 4, "places": 20, "raw": (16, 2), "points": 24, "steps": 3
}  # fmt: skip
LINES_AT_ONCE, LONGEST = 8, 144
PLAIN, OURS, HALF = "published form", "ours, float32", "ours, bfloat16"
Run = Callable[[], Any]
Case = tuple[str, dict[str, Run]]


class CachedGenerator(authors.MstarGenerator):
    """The published generator drawing weeks with cached keys and values, in plain torch."""

    @torch.no_grad()
    def draw(self, homes: torch.Tensor, clusters: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes (N, T) and cells (N, L): level by level, each position from its `top_k` codes at its own temperature."""
        condition = self.home_embed(homes).flatten(1) + self.unique_id_count_embed(clusters)
        past: list[list[torch.Tensor]] = [[] for _ in self.blocks]
        codes: list[torch.Tensor] = []
        known, begin = torch.zeros(len(homes), 1, self.token_embed.in_features), 0
        for level, length in enumerate(self.lengths):
            x = condition.unsqueeze(1) if level == 0 else self.token_embed(known)
            x = x + self.scale_embed.weight[level] + self.pos_embed[:, begin : begin + length]
            for block, kept in zip(self.blocks, past):
                y, gate = self.shared_attn_norm(x, condition)
                x = x + self.attend(block["attn"], y, kept) * gate
                y, gate = self.shared_ffn_norm(x, condition)
                x = x + block["ffn"](y) * gate
            codes.append(sample(self.head(self.final_norm(x, condition)[0]), top_k))
            total = known + self.vae_quant_proxy.embedding(codes[-1])
            begin += length
            if level + 1 < len(self.lengths):
                known = self.vae_quant_proxy.quant_resi(total, level, self.lengths[level + 1])
        smooth = F.avg_pool1d(F.pad(total.transpose(1, 2), (1, 1), mode="replicate"), 3, stride=1).transpose(1, 2)
        return torch.cat(codes, 1), self.vae_proxy.decode(smooth).argmax(-1)

    @staticmethod
    def attend(attention: nn.MultiheadAttention, x: torch.Tensor, kept: list[torch.Tensor]) -> torch.Tensor:
        """x (N, T', d); `kept` are the keys and values (N, H, T, 2 d / H) of each level so far."""
        parts = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = (p.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for p in parts.chunk(3, -1))
        kept.append(torch.cat([k, v], -1))
        k, v = torch.cat(kept, 2).chunk(2, -1)
        return attention.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def sample(scores: torch.Tensor, top_k: int) -> torch.Tensor:
    """(N, T, V) -> (N, T): the temperature is 1.5 minus the best score, scaled to 0..1 over a level."""
    best, found = scores.topk(top_k, -1)
    low, high = best[..., 0].amin(-1, keepdim=True), best[..., 0].amax(-1, keepdim=True)
    sure = torch.where(high > low, (best[..., 0] - low) / (high - low), 0.0)
    shares = (best / (1.5 - sure).unsqueeze(-1)).softmax(-1)
    return found.gather(-1, shares.flatten(0, 1).multinomial(1).view(*sure.shape, 1)).squeeze(-1)


def same_weights(theirs: nn.Module, system: str, heads: int, **values: Any) -> Any:
    """Ours with the weights of the published form."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(theirs.state_dict(), Path(folder) / "theirs.pt")
        return convert(Path(folder) / "theirs.pt", system, num_attention_heads=heads, **values)


def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def stepper(model: nn.Module, *, half: bool = False, **options: Any) -> Callable[[Run], None]:
    """Training steps on a loss. Ours (`fused=True`) has the optimizer that `Trainer` takes by default."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5, **options)

    def step(loss: Run) -> None:
        model.train()
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def three(theirs: nn.Module, ours: Any, plain: Run, loss: Run) -> dict[str, Run]:
    """A training step of the published form, and of ours in both precisions."""
    full, half = stepper(ours, fused=True), stepper(ours, half=True, fused=True)
    return {PLAIN: partial(stepper(theirs), plain), OURS: partial(full, loss), HALF: partial(half, loss)}


# The cases: each checks that both forms say the same, and gives its runs


def lengths_of(size: dict[str, Any]) -> list[int]:
    return LEVELS if size["length"] == LEVELS[-1] else [1, 2, 3, 4, 6, 8, 12, size["length"]]


def codec_of(size: dict[str, Any]) -> tuple[authors.MstarCodec, torch.Tensor]:
    """The published codec, and weeks (N, 8, L) fine to coarse."""
    torch.manual_seed(0)
    codec = authors.MstarCodec(codes=size["codes"], width=size["width"], cells=CELLS, lengths=lengths_of(size)).eval()
    weeks = torch.stack([torch.randint(0, cells, (size["weeks"], size["length"])) for cells in CELLS], 1)
    return codec, weeks


def codec_cases(size: dict[str, Any]) -> Iterator[Case]:
    theirs, weeks = codec_of(size)
    ours = same_weights(theirs, "mstar-codec", 8, level_lengths=lengths_of(size))
    every_level, coarse_first = weeks.repeat_interleave(2, 1), weeks.flip(1)
    with torch.no_grad():
        same(ours(coarse_first).logits, theirs(every_level)[0])
    name = f"M-STAR codec, training step, {len(weeks)} weeks"
    yield name, three(theirs, ours, lambda: theirs(every_level)[2], lambda: ours(coarse_first).loss)


def generator_cases(size: dict[str, Any]) -> Iterator[Case]:
    codec, weeks = codec_of(size)
    theirs = CachedGenerator(codec.requires_grad_(False), width=size["width"], layers=size["layers"], heads=8).eval()
    ours = same_weights(theirs, "mstar", 8)
    homes, clusters = torch.randint(0, CELLS[0], (len(weeks), 2)), torch.randint(0, 8, (len(weeks),))
    users = (*homes.unbind(1), clusters)
    every_level, coarse_first = weeks.repeat_interleave(2, 1), weeks.flip(1)

    @torch.no_grad()
    def encoded() -> torch.Tensor:
        codec.eval()
        return torch.cat(codec.quantizer(codec.streams(every_level))[0], 1)

    def plain(codes: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(theirs(codes, homes, clusters).flatten(0, 1), codes.flatten())

    codes = encoded()
    with torch.no_grad():
        same(ours(codes, *users).logits, theirs(codes, homes, clusters))
    kept = three(theirs, ours, lambda: plain(codes), lambda: ours(codes, *users).loss)
    name = f"M-STAR generator, training step, {len(weeks)} weeks"
    yield f"{name} as codes", kept
    anew = three(theirs, ours, lambda: plain(encoded()), lambda: ours(None, *users, input_ids=coarse_first).loss)
    yield f"{name} as cells", {**anew, f"{HALF}, codes kept": kept[HALF]}


def generation_cases(size: dict[str, Any]) -> Iterator[Case]:
    codec, _ = codec_of(size)
    theirs = CachedGenerator(codec, width=size["width"], layers=size["layers"], heads=8).eval()
    ours = same_weights(theirs, "mstar", 8)
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        rounded = type(ours).from_pretrained(folder, dtype=torch.bfloat16)
    homes, clusters = torch.randint(0, CELLS[0], (size["drawn"], 2)), torch.randint(0, 8, (size["drawn"],))
    users = (*homes.unbind(1), clusters)
    for found, wanted in zip(ours.generate(*users, top_k=1, return_codes=True)[::-1], theirs.draw(homes, clusters, 1)):
        assert (found == wanted).float().mean() > 0.9  # a near tie of scores changes the rest of a week

    def half(model: Any) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            model.generate(*users)

    yield (
        f"M-STAR, generation of {size['drawn']} weeks",
        {
            PLAIN: lambda: theirs.draw(homes, clusters, 10),
            OURS: lambda: ours.generate(*users),
            HALF: partial(half, ours),
            f"{HALF} weights": partial(half, rounded),
        },
    )


def samoe_cases(size: dict[str, Any]) -> Iterator[Case]:
    torch.manual_seed(0)
    (width, layers), lines = size["samoe"], size["lines"]
    theirs = authors.Samoe(width=width, layers=layers, heads=4, length=LONGEST).eval()
    ours = same_weights(theirs, "samoe", 4)
    table = torch.cat([torch.rand(size["places"], 70), torch.randint(1, 9, (size["places"], 1))], 1)
    table = F.pad(table, (0, 0, 2, 0))
    # As the published lines: 6 to 53 visits, 19 on average. What is read, and behind it what comes next.
    lengths = torch.empty(lines).exponential_(1 / 13).add(6).clamp(max=53).long()
    real = torch.arange(LONGEST + 1) <= lengths.unsqueeze(1)
    ids, slots, weekdays, stays = (
        torch.randint(low, high, real.shape) * real for low, high in ((2, len(table)), (0, 48), (1, 8), (1, 96))
    )

    def plain(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        read = (x[rows, :-1] for x in (ids, slots, weekdays, stays))
        return theirs(*read, table)

    def plain_loss(rows: torch.Tensor) -> torch.Tensor:
        targets = ids[rows, 1:], stays[rows, 1:]
        pairs = zip(plain(rows), targets)
        return sum(F.cross_entropy(scores.flatten(0, 1), x.flatten(), ignore_index=0) for scores, x in pairs)

    def our_output(rows: torch.Tensor, length: int) -> Any:
        read, target = slice(0, length), slice(1, length + 1)
        return ours(
            input_ids=ids[rows, read],
            attention_mask=real[rows, read].long(),
            time_ids=slots[rows, read],
            weekday_ids=weekdays[rows, read] - 1,
            stay_ids=stays[rows, read],
            shift_labels=ids[rows, target].masked_fill(ids[rows, target] == 0, -100),
            shift_stay_labels=stays[rows, target],
            location_features=torch.cat([table[:, :34], table[:, 68:]], 1),
        )

    first = torch.arange(min(LINES_AT_ONCE, lines))
    with torch.no_grad():
        known = real[first, :-1]
        same(our_output(first, LONGEST).logits[known][:, 1:], plain(first)[0][known][:, 1:])

    theirs_step, full, half = stepper(theirs), stepper(ours, fused=True), stepper(ours, half=True, fused=True)
    batches = torch.arange(lines).split(LINES_AT_ONCE)
    alike = lengths.argsort().split(LINES_AT_ONCE)

    def published() -> None:
        for rows in batches:
            theirs_step(partial(plain_loss, rows))

    def epoch(step: Callable[[Run], None], batches: tuple[torch.Tensor, ...], longest: bool) -> None:
        for rows in batches:
            step(lambda rows=rows: our_output(rows, int(lengths[rows].max()) if longest else LONGEST).loss)

    yield (
        f"SAMoE, training steps, {lines} lines of {int(lengths.sum())} visits",
        {
            PLAIN: published,
            OURS: partial(epoch, full, batches, False),
            HALF: partial(epoch, half, batches, False),
            f"{HALF}, padded to the longest": partial(epoch, half, batches, True),
            f"{OURS}, lines of like length": partial(epoch, full, alike, True),
            f"{HALF}, lines of like length": partial(epoch, half, alike, True),
        },
    )


def raw_cases(size: dict[str, Any]) -> Iterator[Case]:
    torch.manual_seed(0)
    (width, layers), length, steps = size["raw"], size["points"], size["steps"]
    theirs = authors.Raw(
        width=width, layers=layers, heads=width // 8 if width < 64 else width // 64, length=length
    ).eval()
    ours = same_weights(theirs, "raw", theirs.transformers[0].attn.heads)
    known = torch.rand(1, length - steps, 2)

    @torch.no_grad()
    def plain() -> torch.Tensor:
        points = known
        for _ in range(steps):
            points = torch.cat([points, theirs(points)[0][:, -1:]], 1)
        return points[:, -steps:]

    def half() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            ours.generate(known, steps=steps)

    same(ours.generate(known, steps=steps), plain())
    runs = {PLAIN: plain, OURS: lambda: ours.generate(known, steps=steps), HALF: half}
    yield f"RAW, roll-out of {steps} steps to {length} points", runs


CASES = {
    "codec": codec_cases,
    "generator": generator_cases,
    "generation": generation_cases,
    "samoe": samoe_cases,
    "raw": raw_cases,
}


def measure(size: dict[str, Any], names: list[str], repeats: int) -> pd.DataFrame:
    rows = []
    for name in names:
        for work, runs in CASES[name](size):
            seconds = in_turns(runs, repeats, CPU)
            for form, taken in seconds.items():
                rows.append({"work": work, "form": form, "s": taken, "times as fast": seconds[PLAIN] / taken})
                print(f"{work:60s} {form:45s} {taken:8.3f} {rows[-1]['times as fast']:6.2f}", flush=True)
    return pd.DataFrame(rows).assign(repeats=repeats, torch=torch.__version__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny models, one repeat")
    parser.add_argument("--output")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = measure(TINY if options.quick else BASE, options.only, 1 if options.quick else options.repeats)
    if options.output:
        save_table(table, options.output, update=("work", "form"))


if __name__ == "__main__":
    main()
