"""The MST-Tokenizer of M-STAR (arXiv 2512.07314): a week of hourly cells <-> codes on several time scales, coarse to
fine.

A transformer encodes the week once per spatial resolution; a level pools the hours of its resolution to its positions.
A residual quantizer with one codebook turns the levels into codes, coarse to fine: Phi carries the reconstruction of
each level to the next one's positions. A transformer decodes the last reconstruction into the cell of each hour.

Notes:
    Hours that are not known (`attention_mask` 0) are no keys, enter no average and no loss. Randomness (dropout, the
    codebook's moving average) happens in `forward` only: `encode` and the other methods answer alike in training and
    evaluation mode, so that a frozen codec inside a training generator gives the same codes every time. The codebook of
    variant `corrected` is a moving average of the residuals that chose each code (van den Oord et al., arXiv
    1711.00937, appendix A.1), with unused codes restarted from residuals; the published one, trained by gradient,
    collapses to a few codes. The quantizer runs in float32 outside autocast.

(No `from __future__ import annotations` here: transformers reads the class of `config` from its annotation.)

Shapes: N weeks, R spatial resolutions, S levels, L hours, T_k codes of level k (T_S = L), C cells, V codes, D width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_checks import check_smoothing_window
from .configuration_mstar import MstarCodecConfig
from .layers import SelfAttention, drop, mark, widened
from .saving import SavedWithCode

SCORES_PER_CHUNK = 2**24  # bounds the memory of one search


@dataclass
class MstarCodecOutput(ModelOutput):
    """Output of `MstarCodecModel.forward`.

    loss: reconstruction_loss + weighted codebook_loss + weighted commitment_loss; its terms are given unweighted:
    reconstruction_loss: cross-entropy per known hour. codebook_loss: mean squared difference of fhat_k and F_k, summed
    over levels (or the last level's). commitment_loss: the same sum over all levels, with its gradient in F_k.
    logits (N, L, C): scores of the finest cells. code_ids (N, sum T_k) int64.
    """

    loss: torch.Tensor | None = None
    reconstruction_loss: torch.Tensor | None = None
    codebook_loss: torch.Tensor | None = None
    commitment_loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    code_ids: torch.Tensor | None = None


# Transformer blocks


class MstarCodecAttention(SelfAttention):
    """Multi-head attention without a causal mask.

    To train in bfloat16 or with dropout on a CPU, `sdpa` gives way to the same sums written out: the backward pass of
    the fused kernel takes longer there (benchmarks/speed/kernels.csv), and with dropout torch has none.
    """

    def __init__(self, config: MstarCodecConfig) -> None:
        super().__init__(config, is_causal=False)
        self.mark_xavier()
        mark(self.o_proj, init_bound=config.hidden_size**-0.5)

    def attend(
        self, query: torch.Tensor, *args: Any, kernel: str | None = None, dropout: float = 0.0, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        trains = self.training and query.requires_grad and query.device.type == "cpu"
        slow = query.dtype == torch.bfloat16 or dropout > 0
        if trains and slow and self.config._attn_implementation == "sdpa":
            kernel = "eager"
        return super().attend(query, *args, kernel=kernel, dropout=dropout, **kwargs)


class MstarCodecLayer(GradientCheckpointingLayer):
    """Post-norm transformer block."""

    def __init__(self, config: MstarCodecConfig) -> None:
        super().__init__()
        self.dropout = float(config.dropout)
        self.self_attn = MstarCodecAttention(config)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.post_feedforward_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        uniform = config.bias_init == "uniform"
        mark(self.up_proj, init_bound=config.hidden_size**-0.5, uniform_bias=uniform)
        mark(self.down_proj, init_bound=config.intermediate_size**-0.5, uniform_bias=uniform)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, dropping: bool = False
    ) -> torch.Tensor:
        attended, _ = self.self_attn(hidden_states, attention_mask, dropping=dropping)
        hidden_states = self.post_attention_layernorm(hidden_states + drop(attended, self.dropout, dropping))
        inner = self.down_proj(drop(F.gelu(self.up_proj(hidden_states)), self.dropout, dropping))
        return self.post_feedforward_layernorm(hidden_states + drop(inner, self.dropout, dropping))


class MstarSinusoids(nn.Module):
    """Fixed sine/cosine positions (base 10000), added to (N, L, D); as in the authors' code."""

    table: torch.Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.length, self.width = length, width
        self.register_buffer("table", self.make_table(), persistent=False)

    def make_table(self) -> torch.Tensor:
        """(L, D) float32, made afresh: `_init_weights` refills the buffer, because a loaded model starts on "meta"."""
        time = torch.arange(self.length, dtype=torch.float64, device="cpu").unsqueeze(1)
        rate = torch.exp(
            torch.arange(0, self.width, 2, dtype=torch.float64, device="cpu") * (-math.log(1e4) / self.width)
        )
        return torch.stack([torch.sin(time * rate), torch.cos(time * rate)], dim=-1).flatten(1)[:, : self.width].float()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + self.table.to(values.dtype)


# Resampling in time is linear: each is a fixed matrix, read off torch's own functions by applying them to the identity.


def pooling_windows(length: int, target: int) -> torch.Tensor:
    """(target, length) float32 of 0 and 1: which steps `F.adaptive_avg_pool1d` averages for each position."""
    identity = torch.eye(length, dtype=torch.float64, device="cpu")
    return (F.adaptive_avg_pool1d(identity.unsqueeze(0), target)[0].T > 0).float()


def upsampling_matrix(length: int, target: int) -> torch.Tensor:
    """(target, length) float32: `F.interpolate(mode="bicubic", align_corners=False)` along the time axis of a 4-D
    tensor. A single step becomes a constant.
    """
    if length == 1:
        return torch.ones(target, 1, dtype=torch.float32, device="cpu")
    identity = torch.eye(length, dtype=torch.float64, device="cpu").view(1, length, length, 1)
    return F.interpolate(identity, size=(target, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T.float()


class MstarResampler(nn.Module):
    """The matrices of one list of level lengths T_1 .. T_S, coarse to fine; T_S = L, the number of hours."""

    def __init__(self, level_lengths: list[int]) -> None:
        super().__init__()
        self.lengths = list(level_lengths)
        for name, matrix in self.matrices().items():
            self.register_buffer(name, matrix, persistent=False)

    def matrices(self) -> dict[str, torch.Tensor]:
        """Every buffer by name, made afresh: `_init_weights` refills them, because a loaded model starts on "meta"."""
        levels = len(self.lengths)
        found = {f"windows_{k}": pooling_windows(self.lengths[-1], self.lengths[k]) for k in range(levels)}
        found |= {f"up_{k}": upsampling_matrix(self.lengths[k], self.lengths[k + 1]) for k in range(levels - 1)}
        return found

    def known_hours(self, known: torch.Tensor, level: int) -> torch.Tensor:
        """How many known hours each position covers: known (N, L) 0/1 -> (N, T_k) float."""
        windows = self._windows(level)
        return F.linear(known.to(windows.dtype), windows)

    def pool(self, features: torch.Tensor, level: int, known: torch.Tensor | None = None) -> torch.Tensor:
        """Average over the (known) hours of each position, (N, L, D) -> (N, T_k, D) in float32; 0 where none is known.

        Args:
            known: (N, L), 1 = known. The caller has already zeroed the features of the other hours.
        """
        features = widened(features)
        if self.lengths[level] == self.lengths[-1]:
            return features
        windows = self._windows(level)
        hours = windows.sum(1) if known is None else self.known_hours(known, level).clamp(min=1)
        return torch.matmul(windows, features) / hours.unsqueeze(-1)

    def _windows(self, level: int) -> torch.Tensor:
        """Float32 even where the model was moved to half precision as a whole."""
        return widened(getattr(self, f"windows_{level}"))

    def up(self, values: torch.Tensor, level: int) -> torch.Tensor:
        """From level k to k + 1: (N, T_k, D) -> (N, T_{k+1}, D)."""
        return torch.matmul(getattr(self, f"up_{level}"), values)


# Residual quantization


@dataclass
class Quantized:
    """Per level, coarse to fine. targets (N, T_k) int64: the nearest codes; ids: those in use, the same unless
    perturbed; reconstructions fhat_k (N, T_k, D), with gradient to Phi; residuals r_k (N, T_k, D), without.
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
            self.register_buffer("weight", torch.zeros(shape, dtype=torch.float32))
            self.register_buffer("sums", torch.zeros(shape, dtype=torch.float32))
            self.register_buffer("counts", torch.zeros(shape[0], dtype=torch.float32))
            self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        else:
            self.weight = nn.Parameter(torch.zeros(shape, dtype=torch.float32))

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
            drawn = _rows_of(features)[_draw(features, known, len(self.weight))].to(self.weight.dtype)
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
        rows = _rows_of(residuals).to(self.weight.dtype)
        chosen = torch.cat([level.flatten() for level in ids])
        spare = rows[_draw(residuals, known, len(self.weight))]
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


def _rows_of(levels: list[torch.Tensor]) -> torch.Tensor:
    """The vectors of all levels one after the other, (sum of N T_k, D)."""
    return torch.cat([level.detach().flatten(0, 1) for level in levels])


def _draw(levels: list[torch.Tensor], known: list[torch.Tensor] | None, number: int) -> torch.Tensor:
    """(number,) int64 rows of `_rows_of(levels)`: each level as likely, with replacement, known positions only."""
    if known is None:
        known = [torch.ones(level.shape[:2], dtype=torch.bool, device=level.device) for level in levels]
    shares = torch.cat([(flags / flags.sum().clamp(min=1)).flatten() for flags in known]).clamp(min=1e-20)
    return torch.multinomial(shares, number, replacement=True)


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
        self.conv_proj = nn.Linear(3 * width, width, dtype=torch.float32)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps, dtype=torch.float32)
        self.up_proj = nn.Linear(width, width, dtype=torch.float32)
        self.down_proj = nn.Linear(width, width, dtype=torch.float32)
        uniform = config.bias_init == "uniform"
        mark(self.conv_proj, init_bound=(3 * width) ** -0.5, uniform_bias=uniform)
        mark(self.up_proj, init_bound=width**-0.5, uniform_bias=uniform)
        mark(self.down_proj, init_bound=width**-0.5, uniform_bias=uniform)
        self.use_norm = config.refiner_norm

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        padded = F.pad(hidden, (0, 0, 1, 1))
        neighbours = torch.cat([padded[:, :-2], hidden, padded[:, 2:]], dim=-1)
        mixed = hidden + 0.5 * self.conv_proj(neighbours)
        normed = self.norm(mixed) if self.use_norm else mixed
        return mixed + self.down_proj(F.gelu(self.up_proj(normed)))


class MstarQuantizer(nn.Module):
    """Residual quantization, coarse to fine: fhat_k = u_k + C[q_k], u_{k+1} = Phi_k(Up(fhat_k)), u_1 = 0."""

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
        self, features: list[torch.Tensor], perturb: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> Quantized:
        """Quantize F_k (N, T_k, D), coarse to fine. `perturb` may replace the codes (N, T_k) of a level; finer levels
        then follow the replaced ones.
        """
        found = Quantized([], [], [], [])
        with torch.autocast(features[0].device.type, enabled=False):
            for level, values in enumerate(features):
                known = self.next_level(found.reconstructions[-1], level - 1) if level else torch.zeros_like(values)
                with torch.no_grad():
                    reference = self.next_level(features[level - 1], level - 1) if level and self.continuous else known
                    residual = values.detach() - reference
                target = self.codebook.nearest(residual)
                ids = target if perturb is None else perturb(target)
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


class MstarPreTrainedModel(SavedWithCode, PreTrainedModel):
    """What the codec and the generator share: initial values, and what stays in float32."""

    config: MstarCodecConfig
    _auto_class = "AutoModel"
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean of its own batch
    _no_split_modules = ["MstarCodecLayer"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = ["quantiser"]

    # The marks of the codec (`layers.mark`) are torch's own initial values: with small normal ones, positions drown the
    # cells and training starts slowly.
    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            bound = getattr(module, "init_bound", None)
            if bound is None:
                init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            else:
                init.uniform_(module.weight, -bound, bound)
            if module.bias is not None and getattr(module, "uniform_bias", False):
                init.uniform_(module.bias, -bound, bound)
            elif module.bias is not None:
                init.constant_(module.bias, getattr(module, "init_bias", 0.0))
        elif isinstance(module, nn.Embedding):
            std = getattr(module, "init_std", None)
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range if std is None else std)
        elif isinstance(module, nn.LayerNorm):
            if module.elementwise_affine:
                init.ones_(module.weight)
                init.zeros_(module.bias)
        elif isinstance(module, MstarCodebook):
            init.normal_(module.weight)
            if module.by_average:
                init.zeros_(module.sums)
                init.zeros_(module.counts)
                init.zeros_(module.num_updates)
        elif isinstance(module, MstarResampler):
            for name, matrix in module.matrices().items():
                init.copy_(getattr(module, name), matrix)
        elif isinstance(module, MstarSinusoids):
            init.copy_(module.table, module.make_table())


class MstarCodecModel(MstarPreTrainedModel):
    """The codec: weeks -> codes -> weeks.

    Methods other than `forward` use no dropout and change nothing. `encode` and `encode_noisy` keep no gradient and
    give the same codes in training and in evaluation mode.

    Example:

        >>> codec = MstarCodecModel(MstarCodecConfig.from_preset("tiny")).eval()
        >>> weeks = torch.zeros(3, 2, 24, dtype=torch.int64)  # 3 weeks, cells of 2 resolutions, 24 hours
        >>> codes = codec.encode(weeks)
        >>> codes.shape, codec.decode(codes).shape
        (torch.Size([3, 29]), torch.Size([3, 24, 16]))
    """

    def __init__(self, config: MstarCodecConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.cell_embeddings = nn.ModuleList(nn.Embedding(cells, width) for cells in config.cells_per_resolution)
        self.position = MstarSinusoids(config.num_hours, width)
        self.encoder = nn.ModuleList(MstarCodecLayer(config) for _ in range(config.num_encoder_layers))
        self.quantiser = MstarQuantizer(config)  # spelled as in saved weights
        self.decoder = nn.ModuleList(MstarCodecLayer(config) for _ in range(config.num_decoder_layers))
        self.cell_head = nn.Linear(width, config.num_cells)
        self.resolutions = sorted(set(config.level_resolutions))  # those that some level reads
        mark(self.cell_head, init_bound=width**-0.5, uniform_bias=config.bias_init == "uniform")
        for index, table in enumerate(self.cell_embeddings):
            mark(table, init_std=0.5 if config.hierarchical_cells and index else 1.0)  # beside positions of that size
        self._freeze_unused()
        self.post_init()

    def _freeze_unused(self) -> None:
        """What no output depends on needs no gradient; distributed training would wait for it."""
        for index, table in enumerate(self.cell_embeddings):
            if index not in self.resolutions and not (self.config.hierarchical_cells and index < self.resolutions[-1]):
                table.requires_grad_(False)
        for refiner in self.quantiser.refiners:
            if not refiner.use_norm:
                refiner.norm.requires_grad_(False)

    def train(self, mode: bool = True) -> "MstarCodecModel":
        """Training or evaluation mode. Unused weights are frozen again, as loading makes every parameter trainable."""
        super().train(mode)
        self._freeze_unused()
        return self

    def get_input_embeddings(self) -> nn.Module:
        """The table of the finest cells."""
        return self.cell_embeddings[-1]

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another table of the finest cells in its place."""
        self.cell_embeddings[-1] = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool = True,
        **kwargs: Any,
    ) -> MstarCodecOutput:
        """Quantize weeks and reconstruct them. While the encoder is being trained, the codebook follows the batch
        (`codebook_update="ema"`); on several processes all of them must then take part in every call.

        Args:
            input_ids: (N, R, L) int64 cells of each resolution, coarse to fine; `input_ids[:, -1]` are the finest.
            attention_mask: (N, L), 1 = the hour is known. `None` = all.
            return_loss: whether to compute the loss.

        Raises:
            ValueError: if a shape does not fit the configuration.
        """
        encoded = self._encode_hours(input_ids, attention_mask, self.training)
        features = self._pool_levels(encoded, attention_mask)
        known = None if attention_mask is None else self.known_positions(attention_mask)
        learns = self.training and self.quantiser.codebook.by_average and features[0].requires_grad
        if learns:
            self.quantiser.codebook.start(features, known)
        quantized = self.quantiser(features)
        if learns:
            self.quantiser.codebook.update(quantized.residuals, quantized.ids, known)

        last = quantized.reconstructions[-1].detach()
        carrier = self._gradient_carrier(encoded, features)
        logits = self._decode(last + (carrier - carrier.detach()) if carrier.requires_grad else last, self.training)
        output = MstarCodecOutput(logits=logits, code_ids=torch.cat(quantized.ids, dim=1))
        if return_loss:
            self._add_losses(output, input_ids[:, -1], attention_mask, features, quantized.reconstructions, known)
        return output

    @torch.no_grad()
    def encode(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, *, batch_size: int | None = None
    ) -> torch.Tensor:
        """Codes of weeks, (N, R, L) int64 -> (N, sum T_k) int64, coarse to fine, on the device of `input_ids`.

        Args:
            batch_size: weeks encoded at once, which bounds the memory of many; each part is taken to the device of the
                model. `None` = all.

        Raises:
            ValueError: if a shape does not fit the configuration, or `batch_size` is below 1.
        """
        self._check_inputs(input_ids, attention_mask)
        size = max(1, len(input_ids)) if batch_size is None else batch_size
        if size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        # One tensor that parts are written to: a list of small ones keeps blocks of memory apart.
        codes = input_ids.new_empty(len(input_ids), self.config.num_codes_per_week, dtype=torch.int64)
        for first in range(0, len(input_ids), size):
            part = slice(first, first + size)
            mask = None if attention_mask is None else attention_mask[part].to(self.device)
            features = self.level_features(input_ids[part].to(self.device), mask)
            codes[part] = torch.cat(self.quantiser(features).ids, dim=1)
        return codes

    def decode(self, code_ids: torch.Tensor) -> torch.Tensor:
        """Logits of codes, (N, sum T_k) int64 -> (N, L, C): exactly what `forward` gives in evaluation mode.

        Raises:
            ValueError: if `code_ids` does not have sum T_k columns.
        """
        return self.decode_features(self.teacher_inputs(code_ids)[1])

    def level_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> list[torch.Tensor]:
        """F_k (N, T_k, D) float32 of every level, coarse to fine, before quantization; 0 where no hour is known."""
        return self._pool_levels(self._encode_hours(input_ids, attention_mask, dropping=False), attention_mask)

    def quantize_level(self, residual: torch.Tensor) -> torch.Tensor:
        """Nearest codes of residuals, (N, T, D) -> (N, T) int64."""
        return self.quantiser.codebook.nearest(residual)

    def code_vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """Vectors of codes, (...) int64 -> (..., D)."""
        return self.quantiser.codebook(ids)

    def cell_vectors(self, cell_map: torch.Tensor) -> list[torch.Tensor]:
        """Vectors (C, D) float32 of all cells as each level reads them, before the encoder's layers. cell_map (C, R):
        the cell of every resolution that holds each finest cell, coarse to fine, as the tokenizer has it.
        """
        of_resolution = self._embed_cells(cell_map.t().unsqueeze(0))
        return [widened(of_resolution[self.resolutions.index(r)][0]) for r in self.config.level_resolutions]

    def next_level(self, fhat: torch.Tensor, level: int) -> torch.Tensor:
        """u_{k+1} = Phi_k(Up(fhat_k)): (N, T_k, D) -> (N, T_{k+1}, D) float32; `level` k counts from 0."""
        return self.quantiser.next_level(fhat, level)

    def teacher_inputs(self, code_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a generator reads under teacher forcing: codes (N, sum T_k) -> (u_1 .. u_S one after the other (N, sum
        T_k, D) with u_1 = 0, fhat_S (N, L, D)), float32. u_k knows the codes of levels before k only.

        Raises:
            ValueError: if `code_ids` does not have sum T_k columns.
        """
        if code_ids.dim() != 2 or code_ids.shape[1] != self.config.num_codes_per_week:
            raise ValueError(
                f"code_ids must be (weeks, {self.config.num_codes_per_week}), all levels one after the other, got "
                f"{tuple(code_ids.shape)}."
            )
        inputs, reconstruction = self.quantiser.rebuild(code_ids)
        return torch.cat(inputs, dim=1), reconstruction

    @torch.no_grad()
    def encode_noisy(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        flip: float,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes with errors, and their corrections. At each level the target is the code of what is left to explain,
        given the coarser codes as they are; then a share `flip` of the positions gets a random code instead.

        Returns:
            (input_code_ids, target_code_ids), both (N, sum T_k) int64. With `flip=0` both equal `encode`.

        Raises:
            ValueError: if `flip` is no share, or residuals are taken against continuous features, which know no codes.
        """
        if not 0 <= flip <= 1:
            raise ValueError(f"flip is a share between 0 and 1, got {flip}.")

        def perturb(ids: torch.Tensor) -> torch.Tensor:
            device = ids.device if generator is None else generator.device
            flipped = torch.rand(ids.shape, generator=generator, device=device) < flip
            drawn = torch.randint(self.config.codebook_size, ids.shape, generator=generator, device=device)
            return torch.where(flipped.to(ids.device), drawn.to(ids.device), ids)

        return self.encode_perturbed(self.level_features(input_ids, attention_mask), perturb)

    @torch.no_grad()
    def encode_perturbed(
        self, features: list[torch.Tensor], perturb: Callable[[torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes of features F_k (N, T_k, D) and their corrections, as `encode_noisy` gives them: `perturb` is called
        with the codes (N, T_k) of each level, coarse to fine, and returns those to use instead.

        Raises:
            ValueError: if residuals are taken against continuous features, which know no codes.
        """
        if self.config.residual != "quantized":
            raise ValueError("noise in codes needs residual='quantized': other residuals do not follow the codes.")
        quantized = self.quantiser(features, perturb)
        return torch.cat(quantized.ids, dim=1), torch.cat(quantized.targets, dim=1)

    def decode_features(self, fhat: torch.Tensor, smoothing_window: int = 0) -> torch.Tensor:
        """Logits (N, L, C) of the last reconstruction fhat_S (N, L, D), after a moving average over `smoothing_window`
        hours with repeated ends (0 = none).

        Raises:
            ValueError: if the window is even.
        """
        check_smoothing_window(smoothing_window)
        if smoothing_window:
            half = smoothing_window // 2
            first, last = (end.expand(-1, half, -1) for end in (fhat[:, :1], fhat[:, -1:]))
            padded = torch.cat([first, fhat, last], dim=1)
            fhat = padded.unfold(1, smoothing_window, 1).mean(-1)  # avg_pool1d is slow on CPUs
        return self._decode(fhat, dropping=False)

    def code_usage(self, code_ids: torch.Tensor) -> torch.Tensor:
        """Perplexity of the codes of each level, (N, sum T_k) -> (S,) float32: how many codes are in effective use."""
        found = []
        for ids in code_ids.split(self.config.level_lengths, dim=1):
            shares = torch.bincount(ids.flatten(), minlength=self.config.codebook_size).float() / ids.numel()
            found.append(torch.special.entr(shares).sum().exp())
        return torch.stack(found)

    # The encoder

    def _encode_hours(
        self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, dropping: bool
    ) -> list[torch.Tensor]:
        """H (N, L, D) of every resolution that is read, in one batch; unknown hours are not yet zeroed."""
        self._check_inputs(input_ids, attention_mask)
        hidden_states = torch.cat(self._embed_cells(input_ids))
        if self.encoder:
            hidden_states = self._contextualise(hidden_states, attention_mask, dropping)
        return list(hidden_states.chunk(len(self.resolutions)))

    def _contextualise(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, dropping: bool
    ) -> torch.Tensor:
        """Positions and the encoder's layers, (R N, L, D) -> (R N, L, D)."""
        mask = None
        if attention_mask is not None:
            known = attention_mask.bool().repeat(len(self.resolutions), 1)
            hidden_states = hidden_states * known.unsqueeze(-1)
            keys = known | ~known.any(-1, keepdim=True)  # somebody must be attended to
            mask = create_bidirectional_mask(self.config, inputs_embeds=hidden_states, attention_mask=keys)
        hidden_states = self._drop_inputs(self.position(hidden_states), dropping)
        for layer in self.encoder:
            hidden_states = layer(hidden_states, mask, dropping)
        return hidden_states

    def _drop_inputs(self, hidden_states: torch.Tensor, dropping: bool) -> torch.Tensor:
        return drop(hidden_states, self.config.dropout, dropping and self.config.input_dropout)

    def _embed_cells(self, input_ids: torch.Tensor) -> list[torch.Tensor]:
        """(N, L, D) of every resolution that is read; hierarchical, a cell's vector is added to those of cells around
        it.
        """
        if not self.config.hierarchical_cells:
            return [self.cell_embeddings[index](input_ids[:, index]) for index in self.resolutions]
        own = [table(input_ids[:, index]) for index, table in enumerate(self.cell_embeddings)]
        return [torch.stack(own[: index + 1]).sum(0) for index in self.resolutions]

    def _pool_levels(self, encoded: list[torch.Tensor], attention_mask: torch.Tensor | None) -> list[torch.Tensor]:
        """F_k (N, T_k, D) float32."""
        resampler = self.quantiser.resampler
        with torch.autocast(encoded[0].device.type, enabled=False):
            if attention_mask is not None:
                encoded = [widened(hidden) * attention_mask.unsqueeze(-1) for hidden in encoded]
            return [
                resampler.pool(encoded[self.resolutions.index(resolution)], level, attention_mask)
                for level, resolution in enumerate(self.config.level_resolutions)
            ]

    def known_positions(self, attention_mask: torch.Tensor) -> list[torch.Tensor]:
        """Per level (N, T_k) bool: positions that cover at least one known hour of the mask (N, L), 0 = unknown."""
        resampler = self.quantiser.resampler
        return [resampler.known_hours(attention_mask, level) > 0 for level in range(len(resampler.lengths))]

    def complete_positions(self, attention_mask: torch.Tensor, level: int) -> torch.Tensor:
        """(N, T_k) bool: positions of a level all of whose hours are known in the mask (N, L), 0 = unknown."""
        return self.quantiser.resampler.known_hours(attention_mask == 0, level) == 0

    def _check_inputs(self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None) -> None:
        resolutions, hours = len(self.config.cells_per_resolution), self.config.num_hours
        shape = None if input_ids is None else tuple(input_ids.shape)
        if shape is None or len(shape) != 3 or shape[1] != resolutions or shape[2] != hours:
            raise ValueError(f"input_ids must be (weeks, resolutions {resolutions}, hours {hours}), got {shape}.")
        if attention_mask is not None and tuple(attention_mask.shape) != (shape[0], hours):
            raise ValueError(
                f"attention_mask must be (weeks {shape[0]}, hours {hours}), got {tuple(attention_mask.shape)}."
            )

    # The decoder and the losses

    def _gradient_carrier(self, encoded: list[torch.Tensor], features: list[torch.Tensor]) -> torch.Tensor:
        """(N, L, D): what receives the reconstruction's gradient in place of the quantized features."""
        if self.config.straight_through == "finest":
            return features[-1]
        levels = self.config.level_resolutions
        shares = [levels.count(resolution) / len(levels) for resolution in self.resolutions]
        return torch.stack([share * widened(hidden) for share, hidden in zip(shares, encoded)]).sum(0)

    def _decode(self, fhat: torch.Tensor, dropping: bool) -> torch.Tensor:
        hidden_states = self._drop_inputs(self.position(fhat.to(self.cell_head.weight.dtype)), dropping)
        for layer in self.decoder:
            hidden_states = layer(hidden_states, None, dropping)
        return self.cell_head(hidden_states)

    def _add_losses(
        self,
        output: MstarCodecOutput,
        cells: torch.Tensor,
        attention_mask: torch.Tensor | None,
        features: list[torch.Tensor],
        reconstructions: list[torch.Tensor],
        known: list[torch.Tensor] | None,
    ) -> None:
        levels = len(features)
        labels = cells if attention_mask is None else cells.masked_fill(attention_mask == 0, -100)
        total = F.cross_entropy(widened(output.logits).flatten(0, 1), labels.flatten(), reduction="sum")
        counted = labels.numel() if attention_mask is None else (labels != -100).sum().clamp(min=1)
        output.reconstruction_loss = total / counted

        def difference(level: int, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return _mean_square(first - second, None if known is None else known[level])

        pairs = list(enumerate(zip(features, reconstructions)))
        coded = pairs if self.config.code_loss == "all" else pairs[-1:]
        output.codebook_loss = torch.stack([difference(k, fhat, value.detach()) for k, (value, fhat) in coded]).sum()
        output.commitment_loss = torch.stack([difference(k, value, fhat.detach()) for k, (value, fhat) in pairs]).sum()
        output.loss = (
            output.reconstruction_loss
            + self.config.code_loss_weight / len(coded) * output.codebook_loss
            + self.config.commitment_weight / levels * output.commitment_loss
        )


def _mean_square(values: torch.Tensor, known: torch.Tensor | None) -> torch.Tensor:
    """Mean of the squares of (N, T, D) over known positions, 0 if there are none."""
    squares = values.square().mean(-1)
    return squares.mean() if known is None else (squares * known).sum() / known.sum().clamp(min=1)


__all__ = ["MstarCodecModel", "MstarCodecOutput", "MstarPreTrainedModel"]
