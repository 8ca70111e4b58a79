"""The MST-Tokenizer of M-STAR (arXiv 2512.07314): a week of hourly cells <-> codes on several time scales, coarse to
fine.

Unusual: the week is read at several spatial resolutions, each encoded once however many levels use it. Hours that are
not known (`attention_mask` 0) are no keys, enter no average and no loss. Randomness (dropout, the codebook's moving
average) happens in `forward` only: `encode` and the other methods answer alike in training and evaluation mode, so that
a frozen codec inside a training generator gives the same codes every time.

(No `from __future__ import annotations` here: transformers reads the class of `config` from its annotation.)

Shapes: N weeks, R spatial resolutions, S levels, L hours, T_k codes of level k (T_S = L), C cells, V codes, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .blocks_mstar import MstarCodecLayer, MstarSinusoids, drop, mark
from .configuration_mstar import MstarCodecConfig
from .quantiser_mstar import MstarCodebook, MstarQuantiser
from .resample_mstar import MstarResampler, widened
from .saving import SavedWithCode


@dataclass
class MstarCodecOutput(ModelOutput):
    """Output of `MstarCodecModel`.

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


class MstarPreTrainedModel(SavedWithCode, PreTrainedModel):
    config: MstarCodecConfig
    _auto_class = "AutoModel"
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean of its own batch
    _no_split_modules = ["MstarCodecLayer"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = ["quantiser", "position"]

    # transformers skips modules of custom code that hold no parameter of their own, so a matrix that starts differently
    # carries a mark (`blocks_mstar.mark`) that its owner sets. The codec's are torch's own initial values: with
    # small normal ones, positions drown the cells and training starts slowly.
    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            bound = getattr(module, "init_bound", None)
            if bound is None:
                init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            else:
                init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.zeros_(module.bias)
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
    """

    def __init__(self, config: MstarCodecConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.cell_embeddings = nn.ModuleList(nn.Embedding(cells, width) for cells in config.cells_per_resolution)
        self.position = MstarSinusoids(config.num_hours, width)
        self.encoder = nn.ModuleList(MstarCodecLayer(config) for _ in range(config.num_encoder_layers))
        self.quantiser = MstarQuantiser(config)
        self.decoder = nn.ModuleList(MstarCodecLayer(config) for _ in range(config.num_decoder_layers))
        self.cell_head = nn.Linear(width, config.num_cells)
        self.resolutions = sorted(set(config.level_resolutions))  # those that some level reads
        mark(self.cell_head, init_bound=width**-0.5)
        for index, table in enumerate(self.cell_embeddings):
            mark(table, init_std=0.5 if config.nested_cells and index else 1.0)  # beside positions of that size
        self._freeze_unused()
        self.post_init()

    def _freeze_unused(self) -> None:
        """What no output depends on needs no gradient; distributed training would wait for it."""
        for index, table in enumerate(self.cell_embeddings):
            if index not in self.resolutions and not (self.config.nested_cells and index < self.resolutions[-1]):
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

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool = True,
        **kwargs: Any,
    ) -> MstarCodecOutput:
        """Quantise weeks and reconstruct them. While the encoder is being trained, the codebook follows the batch
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
        known = self._known_positions(attention_mask)
        learns = self.training and self.quantiser.codebook.by_average and features[0].requires_grad
        if learns:
            self.quantiser.codebook.start(features, known)
        quantised = self.quantiser(features)
        if learns:
            self.quantiser.codebook.update(quantised.residuals, quantised.ids, known)

        last = quantised.reconstructions[-1].detach()
        carrier = self._gradient_carrier(encoded, features)
        logits = self._decode(last + (carrier - carrier.detach()) if carrier.requires_grad else last, self.training)
        output = MstarCodecOutput(logits=logits, code_ids=torch.cat(quantised.ids, dim=1))
        if return_loss:
            self._add_losses(output, input_ids[:, -1], attention_mask, features, quantised.reconstructions, known)
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
        """F_k (N, T_k, D) float32 of every level, coarse to fine, before quantisation; 0 where no hour is known."""
        return self._pool_levels(self._encode_hours(input_ids, attention_mask, dropping=False), attention_mask)

    def quantise_level(self, residual: torch.Tensor) -> torch.Tensor:
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

        def spoil(ids: torch.Tensor) -> torch.Tensor:
            device = ids.device if generator is None else generator.device
            flipped = torch.rand(ids.shape, generator=generator, device=device) < flip
            drawn = torch.randint(self.config.codebook_size, ids.shape, generator=generator, device=device)
            return torch.where(flipped.to(ids.device), drawn.to(ids.device), ids)

        return self.encode_spoilt(self.level_features(input_ids, attention_mask), spoil)

    @torch.no_grad()
    def encode_spoilt(
        self, features: list[torch.Tensor], spoil: Callable[[torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes of features F_k (N, T_k, D) and their corrections, as `encode_noisy` gives them: `spoil` is called with
        the codes (N, T_k) of each level, coarse to fine, and returns those to use instead.

        Raises:
            ValueError: if residuals are taken against continuous features, which know no codes.
        """
        if self.config.residual != "quantized":
            raise ValueError("noise in codes needs residual='quantized': other residuals do not follow the codes.")
        quantised = self.quantiser(features, spoil)
        return torch.cat(quantised.ids, dim=1), torch.cat(quantised.targets, dim=1)

    def decode_features(self, fhat: torch.Tensor, smoothing_window: int = 0) -> torch.Tensor:
        """Logits (N, L, C) of the last reconstruction fhat_S (N, L, D), after a moving average over `smoothing_window`
        hours with repeated ends (0 = none).

        Raises:
            ValueError: if the window is even.
        """
        if smoothing_window:
            if smoothing_window < 0 or smoothing_window % 2 == 0:
                raise ValueError(f"smoothing_window must be 0 or odd, got {smoothing_window}.")
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
        hidden_states = drop(self.position(hidden_states), self.config.dropout if dropping else 0.0)
        for layer in self.encoder:
            hidden_states = layer(hidden_states, mask, dropping)
        return hidden_states

    def _embed_cells(self, input_ids: torch.Tensor) -> list[torch.Tensor]:
        """(N, L, D) of every resolution that is read; nested, a cell's vector is added to those of cells around it."""
        if not self.config.nested_cells:
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

    def _known_positions(self, attention_mask: torch.Tensor | None) -> list[torch.Tensor] | None:
        """Per level (N, T_k) bool: positions that cover at least one known hour."""
        if attention_mask is None:
            return None
        resampler = self.quantiser.resampler
        return [resampler.known_hours(attention_mask, level) > 0 for level in range(len(resampler.lengths))]

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
        """(N, L, D): what receives the reconstruction's gradient in place of the quantised features."""
        if self.config.straight_through == "finest":
            return features[-1]
        levels = self.config.level_resolutions
        shares = [levels.count(resolution) / len(levels) for resolution in self.resolutions]
        return torch.stack([share * widened(hidden) for share, hidden in zip(shares, encoded)]).sum(0)

    def _decode(self, fhat: torch.Tensor, dropping: bool) -> torch.Tensor:
        hidden_states = self.position(fhat.to(self.cell_head.weight.dtype))
        hidden_states = drop(hidden_states, self.config.dropout if dropping else 0.0)
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
