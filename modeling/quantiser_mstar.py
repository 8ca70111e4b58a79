"""Residual quantisation of M-STAR: one codebook for all levels, and Phi, which carries a reconstruction to the next
level.

Unusual: the codebook of variant `corrected` is a moving average of the residuals that chose each code (van den Oord et
al., arXiv 1711.00937, appendix A.1), with unused codes restarted from residuals; the published one, which is trained by
gradient, collapses to a few codes. All of it runs in float32 outside autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from .blocks_mstar import mark
from .configuration_mstar import MstarCodecConfig
from .resample_mstar import MstarResampler

SCORES_PER_CHUNK = 2**24  # bounds the memory of one search


@dataclass
class Quantised:
    """Per level, coarse to fine. targets (N, T_k) int64: the nearest codes; ids: those in use, the same unless spoilt;
    reconstructions fhat_k (N, T_k, D), with gradient to Phi; residuals r_k (N, T_k, D), without.
    """

    targets: list[torch.Tensor]
    ids: list[torch.Tensor]
    reconstructions: list[torch.Tensor]
    residuals: list[torch.Tensor]


def nearest_row(values: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Row of the table (V, D) that is nearest to each vector, (..., D) -> (...) int64."""
    return _best_row(values, table, table.square().sum(-1) / -2)


@torch.no_grad()
def _best_row(values: torch.Tensor, table: torch.Tensor, offset: torch.Tensor | None) -> torch.Tensor:
    """Row with the largest product, plus `offset` (V,)."""
    with torch.autocast(values.device.type, enabled=False):
        rows = values.to(table.dtype).flatten(0, -2)
        step = max(1, SCORES_PER_CHUNK // len(table))
        # `max` finds the same entry as `argmax`, and sooner on a CPU
        found = [F.linear(part, table, offset).max(-1).indices for part in rows.split(step)]
        return torch.cat(found).view(values.shape[:-1])


class MstarCodebook(nn.Module):
    """V vectors of width D. `weight` is a parameter (`gradient`), or a buffer (`ema`) beside those of its moving
    average: sums (V, D) and counts (V,) of the residuals that chose each code, and the number of updates so far.
    """

    weight: torch.Tensor
    sums: torch.Tensor
    counts: torch.Tensor
    num_updates: torch.Tensor

    def __init__(self, config: MstarCodecConfig) -> None:
        super().__init__()
        self.cosine = config.search == "cosine"
        self.by_average = config.codebook_update == "ema"
        self.decay = float(config.ema_decay)
        self.restart_share = float(config.restart_share)
        shape = (config.codebook_size, config.hidden_size)
        self._started = False  # a copy of `num_updates > 0`, which is not read on every step
        if self.by_average:
            self.register_buffer("weight", torch.zeros(shape))
            self.register_buffer("sums", torch.zeros(shape))
            self.register_buffer("counts", torch.zeros(shape[0]))
            self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        else:
            self.weight = nn.Parameter(torch.zeros(shape))

    def nearest(self, residuals: torch.Tensor) -> torch.Tensor:
        """Code of each vector, (N, T, D) -> (N, T) int64. The length of a residual does not change the best cosine, and
        its square is the same in every Euclidean distance: neither is computed.
        """
        codes = self.weight.detach()
        if self.cosine:
            return _best_row(residuals, F.normalize(codes, dim=-1), None)
        return nearest_row(residuals, codes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Vectors of codes, (...) int64 -> (..., D)."""
        return F.embedding(ids, self.weight)

    @torch.no_grad()
    def start(self, features: list[torch.Tensor], known: list[torch.Tensor] | None) -> None:
        """Fill a codebook that was never updated with features of this batch, once. Arguments as in `update`."""
        if self._started:
            return
        if not int(self.num_updates):
            drawn = _draw_rows(features, known, len(self.weight)).to(self.weight.dtype)
            self.weight.copy_(_from_first_process(drawn))
        self._started = True

    @torch.no_grad()
    def update(
        self, residuals: list[torch.Tensor], ids: list[torch.Tensor], known: list[torch.Tensor] | None = None
    ) -> None:
        """One step of the moving average, over all levels and all processes, then the restart of unused codes.

        Args:
            residuals: per level (N, T_k, D); ids: their codes (N, T_k).
            known: per level (N, T_k) bool, positions that count. `None` = all.
        """
        rows = torch.cat([level.detach().flatten(0, 1) for level in residuals]).to(self.weight.dtype)
        chosen = torch.cat([level.flatten() for level in ids])
        spare = _draw_rows(residuals, known, len(self.weight), rows)
        uses = torch.ones_like(chosen, dtype=rows.dtype)
        if known is not None:
            uses = torch.cat([level.flatten() for level in known]).to(rows.dtype)
            rows = rows * uses.unsqueeze(-1)
        sums = torch.zeros_like(self.sums).index_add_(0, chosen, rows)
        counts = torch.zeros_like(self.counts).index_add_(0, chosen, uses)
        totals = torch.cat([sums, counts.unsqueeze(-1)], dim=1)
        totals, spare = _over_processes(totals, spare)

        self.sums.mul_(self.decay).add_(totals[:, :-1], alpha=1 - self.decay)
        self.counts.mul_(self.decay).add_(totals[:, -1], alpha=1 - self.decay)
        least = self.restart_share * self.counts.mean()
        unused = (self.counts < least).unsqueeze(-1)
        average = self.sums / self.counts.clamp(min=1e-12).unsqueeze(-1)
        average = torch.where((self.counts > 1e-6).unsqueeze(-1), average, self.weight)
        self.weight.copy_(torch.where(unused, spare, average))
        # A restarted code counts as just used enough: it follows its first residuals quickly, or is restarted again.
        self.sums.copy_(torch.where(unused, spare * least, self.sums))
        self.counts.copy_(torch.where(unused.squeeze(-1), least, self.counts))
        self.num_updates += 1


def _draw_rows(
    levels: list[torch.Tensor], known: list[torch.Tensor] | None, number: int, rows: torch.Tensor | None = None
) -> torch.Tensor:
    """(number, D): vectors of random levels, each level as likely, with replacement, known positions only. `rows` may
    hold the vectors of all levels one after the other.
    """
    if rows is None:
        rows = torch.cat([level.detach().flatten(0, 1) for level in levels])
    if known is None:
        known = [torch.ones(level.shape[:2], dtype=torch.bool, device=level.device) for level in levels]
    shares = torch.cat([(flags / flags.sum().clamp(min=1)).flatten() for flags in known]).clamp(min=1e-20)
    return rows[torch.multinomial(shares, number, replacement=True)]


def _num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _from_first_process(values: torch.Tensor) -> torch.Tensor:
    if _num_processes() > 1:
        dist.broadcast(values, src=0)
    return values


def _over_processes(totals: torch.Tensor, spare: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Totals summed over processes, spare vectors of the first process, in one message."""
    if _num_processes() == 1:
        return totals, spare
    message = torch.cat([totals, spare if dist.get_rank() == 0 else torch.zeros_like(spare)], dim=1)
    dist.all_reduce(message)
    return message.split([totals.shape[1], spare.shape[1]], dim=1)


class MstarRefiner(nn.Module):
    """Phi (N, T, D) -> (N, T, D): m = h + Conv(h) / 2 over three steps, then m + W2 GELU(W1 m). With `refiner_norm` W1
    reads LayerNorm(m); without, the norm is there, as in the released code, and does nothing. The convolution is one
    product with each step and its neighbours side by side, which is faster than `nn.Conv1d` on a CPU.
    """

    def __init__(self, config: MstarCodecConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.conv_proj = nn.Linear(3 * width, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.up_proj = nn.Linear(width, width)
        self.down_proj = nn.Linear(width, width)
        mark(self.conv_proj, init_bound=(3 * width) ** -0.5)
        mark(self.up_proj, init_bound=width**-0.5)
        mark(self.down_proj, init_bound=width**-0.5)
        self.use_norm = config.refiner_norm

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        padded = F.pad(hidden, (0, 0, 1, 1))
        neighbours = torch.cat([padded[:, :-2], hidden, padded[:, 2:]], dim=-1)
        mixed = hidden + 0.5 * self.conv_proj(neighbours)
        normed = self.norm(mixed) if self.use_norm else mixed
        return mixed + self.down_proj(F.gelu(self.up_proj(normed)))


class MstarQuantiser(nn.Module):
    """Residual quantisation, coarse to fine: fhat_k = u_k + C[q_k], u_{k+1} = Phi_k(Up(fhat_k)), u_1 = 0."""

    def __init__(self, config: MstarCodecConfig) -> None:
        super().__init__()
        self.lengths = list(config.level_lengths)
        self.continuous = config.residual == "continuous"
        self.codebook = MstarCodebook(config)
        self.resampler = MstarResampler(self.lengths)
        self.refiners = nn.ModuleList(MstarRefiner(config) for _ in self.lengths[1:])

    def next_level(self, reconstruction: torch.Tensor, level: int) -> torch.Tensor:
        """u_{k+1} (N, T_{k+1}, D) from fhat_k (N, T_k, D); `level` k counts from 0."""
        with torch.autocast(reconstruction.device.type, enabled=False):
            values = reconstruction.to(self.codebook.weight.dtype)
            return self.refiners[level](self.resampler.up(values, level))

    def forward(
        self, features: list[torch.Tensor], spoil: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> Quantised:
        """Quantise F_k (N, T_k, D), coarse to fine. `spoil` may replace the codes (N, T_k) of a level; finer levels
        then follow the replaced ones.
        """
        found = Quantised([], [], [], [])
        with torch.autocast(features[0].device.type, enabled=False):
            for level, values in enumerate(features):
                known = self.next_level(found.reconstructions[-1], level - 1) if level else torch.zeros_like(values)
                with torch.no_grad():
                    reference = self.next_level(features[level - 1], level - 1) if level and self.continuous else known
                    residual = values.detach() - reference
                target = self.codebook.nearest(residual)
                ids = target if spoil is None else spoil(target)
                found.targets.append(target)
                found.ids.append(ids)
                found.residuals.append(residual)
                found.reconstructions.append(known + self.codebook(ids))
        return found

    def rebuild(self, code_ids: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """([u_1 .. u_S], fhat_S) of codes (N, sum T_k)."""
        inputs: list[torch.Tensor] = []
        reconstruction = None
        with torch.autocast(code_ids.device.type, enabled=False):
            for level, ids in enumerate(code_ids.split(self.lengths, dim=1)):
                vectors = self.codebook(ids)
                inputs.append(torch.zeros_like(vectors) if level == 0 else self.next_level(reconstruction, level - 1))
                reconstruction = inputs[-1] + vectors
        return inputs, reconstruction


__all__ = ["MstarCodebook", "MstarQuantiser", "MstarRefiner", "Quantised", "nearest_row"]
