"""M-STAR (arXiv 2512.07314): generates weeks of hourly cells, scale by scale, for people with a given home, second
place and movement attribute.

Unusual: a level's input is the codec's reconstruction from the coarser levels, carried to that level, and never the
level's own codes, so all positions of a level are predicted in one pass. The paper draws them independently; with
`within_level_steps` above 1 a position sees the codes on its two sides that were drawn before it (`passes_mstar`), and
with `copy_places` the codes that put a known place at a position have scores of their own (`copies_mstar`). The codec
lies inside the model and its checkpoint, is frozen, and always runs in evaluation mode.

(No `from __future__ import annotations` here: transformers reads the class of `config` from its annotation.)

Shapes: N weeks, R spatial resolutions, S levels, L hours, T_k codes of level k and T their sum, C cells, V codes,
D width of the codec, d width of this model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput, logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .blocks_mstar import mark
from .codec_mstar import MstarCodecModel, MstarCodecOutput, MstarPreTrainedModel
from .configuration_mstar import MstarConfig
from .copies_mstar import Copies, KnownPlaces, MstarCopies
from .loss_mstar import fits_head_loss, head_loss, mean_per_level, position_losses
from .path_mstar import best_path, clamp_to_known, fit_arrivals, fit_stay_probability, sample_path, week_arrivals
from .sampling_mstar import SamplingOptions, draw_codes, draw_from
from .star_mstar import Modulation, MstarAttention, MstarCache, MstarLayer, MstarModulation, adaptive_norm

WEEKS_AT_ONCE = 64  # of `generate`, where `batch_size` is not given


@dataclass
class MstarOutput(ModelOutput):
    """Output of `MstarForTrajectoryGeneration`.

    loss: mean cross-entropy over the codes that count. level_losses (S,): the same per level, without gradients.
    logits (N, T, V): scores of every code; `None` in training mode, where the loss is made without keeping them.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    level_losses: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class MstarConditions(nn.Module):
    """Condition vector (N, d): home and second place, half the width each from one table, plus the movement attribute.
    `null` stands in for a hidden condition.
    """

    def __init__(self, config: MstarConfig) -> None:
        super().__init__()
        self.probability = float(config.condition_dropout)
        self.place_embedding = nn.Embedding(config.codec.num_cells, config.hidden_size // 2)
        self.attribute_embedding = nn.Embedding(config.num_attributes, config.hidden_size)
        mark(self.attribute_embedding, init_std=config.attribute_init)
        self.null = nn.Parameter(torch.zeros(config.hidden_size)) if self.probability else None

    def forward(self, home_ids: torch.Tensor, commute_ids: torch.Tensor, attribute_ids: torch.Tensor) -> torch.Tensor:
        places = self.place_embedding(torch.stack([home_ids, commute_ids], dim=1)).flatten(1)
        condition = places + self.attribute_embedding(attribute_ids)
        if self.training and self.null is not None:
            hidden = torch.rand(len(condition), 1, device=condition.device) < self.probability
            condition = torch.where(hidden, self.null, condition)
        return condition


@dataclass
class _KnownHours:
    """Hours that are given at generation. features: F_k of each level; mask (N, L) bool; cells (N, L)."""

    features: list[torch.Tensor]
    mask: torch.Tensor
    cells: torch.Tensor

    def positions(self, length: int) -> torch.Tensor:
        """(N, length) bool: positions of a level whose hours are all known."""
        return F.adaptive_avg_pool1d(self.mask.float().unsqueeze(1), length).squeeze(1) == 1


class _Numbers:
    """Hands out the uniform numbers of a batch, (N, n) at a time."""

    def __init__(self, numbers: torch.Tensor) -> None:
        self.numbers, self.used = numbers, 0

    def take(self, count: int) -> torch.Tensor:
        self.used += count
        return self.numbers[:, self.used - count : self.used]


class MstarForTrajectoryGeneration(MstarPreTrainedModel):
    """The STAR-Transformer, with its frozen codec as `.codec`.

    For half precision load it so, `from_pretrained(..., dtype=torch.bfloat16)`: the codebook and what `fit_transition`
    learned then stay in float32, which `.to(torch.bfloat16)` would round.
    """

    config: MstarConfig  # type: ignore[assignment]
    level_ids: torch.Tensor
    pass_ids: torch.Tensor
    positions: torch.Tensor
    places: torch.Tensor
    sides: torch.Tensor
    copyable: torch.Tensor
    stay_probability: torch.Tensor
    arrival_share: torch.Tensor
    return_share: torch.Tensor
    main_input_name = "code_ids"
    _no_split_modules = ["MstarLayer", "MstarCodecLayer"]
    _keep_in_fp32_modules_strict = ["stay_probability", "arrival_share", "return_share"]  # and the codec's
    _can_record_outputs = {"hidden_states": MstarLayer, "attentions": OutputRecorder(MstarAttention, index=1)}

    def __init__(self, config: MstarConfig) -> None:
        super().__init__(config)
        codec, width = config.codec, config.hidden_size
        self.codec = MstarCodecModel(codec).eval().requires_grad_(False)
        self.conditions = MstarConditions(config)
        self.start = nn.Parameter(torch.zeros(width))
        self.slot_embedding = nn.Parameter(torch.zeros(codec.num_codes_per_week, width))
        self.level_embedding = nn.Embedding(len(codec.level_lengths), width)
        self.in_proj = nn.Linear(codec.hidden_size, width)
        self.order = config.drawing_order
        self.sides_proj = None
        if self.order.max_steps > 1:
            self.sides_proj = nn.Linear(2 * codec.hidden_size, width, bias=False)
        self.attention_modulation = MstarModulation(config)
        self.mlp_modulation = MstarModulation(config)
        self.layers = nn.ModuleList(MstarLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm_modulation = MstarModulation(config)
        self.lm_head = nn.Linear(width, codec.codebook_size)
        self.copies = MstarCopies(config) if config.copy_places else None
        for name, values in self._make_order().items():
            self.register_buffer(name, values, persistent=False)
        # 0 = never fitted; see `fit_transition`
        self.register_buffer("stay_probability", torch.zeros(codec.num_hours - 1))
        self.register_buffer("arrival_share", torch.zeros(codec.num_cells))
        self.register_buffer("return_share", torch.zeros(()))
        self.post_init()

    @classmethod
    def from_codec(
        cls, codec: MstarCodecModel, size: str = "base", *, variant: str = "corrected", **overrides: Any
    ) -> "MstarForTrajectoryGeneration":
        """A new generator around a copy of a trained codec; other arguments are those of `MstarConfig.from_preset`."""
        values = {name: value for name, value in codec.config.to_dict().items() if name != "_name_or_path"}
        config = MstarConfig.from_preset(size, variant=variant, codec_config=values, **overrides)
        model = cls(config)
        model.to(device=codec.device)  # type: ignore[call-arg]
        model.codec.load_state_dict(codec.state_dict())
        return model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        bound = getattr(module, "init_bound", None)
        if isinstance(module, nn.Linear) and bound is not None:
            init.uniform_(module.weight, -bound, bound)
            init.constant_(module.bias, getattr(module, "init_bias", 0.0))
        elif isinstance(module, MstarConditions):
            if module.null is not None:
                init.normal_(module.null, mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, MstarCopies):
            init.constant_(module.cell_map, -1)
        elif isinstance(module, MstarForTrajectoryGeneration):
            init.zeros_(module.start)
            init.zeros_(module.slot_embedding)
            for name, values in module._make_order().items():
                init.copy_(getattr(module, name), values)
            for fitted in (module.stay_probability, module.arrival_share, module.return_share):
                init.zeros_(fitted)
        else:
            super()._init_weights(module)

    def train(self, mode: bool = True) -> "MstarForTrajectoryGeneration":
        """Training mode, except for the codec: its codes are the targets and must not move. It is frozen here as well
        as in `__init__`, because loading a checkpoint makes every parameter trainable and then calls `eval()`.
        """
        super().train(mode)
        self.codec.eval().requires_grad_(False)
        return self

    def get_input_embeddings(self) -> nn.Module:
        """The table of places: the nearest thing to an input embedding of a model that reads a codec's features."""
        return self.conditions.place_embedding

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Nothing to resize, cells and codes are the codec's; PEFT asks for it where a tokenizer lies beside an
        adapter.
        """
        return self.get_input_embeddings()

    def fit_places(self, cell_map: Any) -> None:
        """Learn which cells lie in one another, for `copy_places`; without that there is nothing to learn.

        Args:
            cell_map: (C, R) integers, array or tensor, `cell_map` of the tokenizer.

        Raises:
            ValueError: if it does not have the codec's cells and resolutions.
        """
        if self.copies is None:
            return
        known, given = self.copies.cell_map, torch.as_tensor(cell_map)
        limits = given.new_tensor(self.config.codec.cells_per_resolution)
        if given.shape != known.shape or bool(((given < 0) | (given >= limits)).any()):
            raise ValueError(
                f"cell_map must be {tuple(known.shape)}, for each finest cell those of every resolution, which has "
                f"{limits.tolist()}; got {tuple(given.shape)}, values {int(given.min())} to {int(given.max())}."
            )
        known.copy_(given)

    def fit_transition(self, cells: torch.Tensor) -> None:
        """Learn how often people stay from one hour to the next, where moves lead, and how many lead back, for
        `decoding="viterbi"` and `"sample"`.

        Args:
            cells: (N, L) integer finest cells of training weeks, -1 = unknown.

        Raises:
            ValueError: if the weeks do not have L hours, or name cells outside the grid.
        """
        cells = torch.as_tensor(cells, device=self.stay_probability.device)
        hours, places = self.config.codec.num_hours, self.config.codec.num_cells
        if cells.dim() != 2 or cells.shape[1] != hours:
            raise ValueError(f"cells must be weeks of {hours} hours, (N, {hours}), got {tuple(cells.shape)}.")
        outside = cells >= places
        if bool(outside.any()):
            raise ValueError(
                f"cells must lie in the model's grid, 0 to {places - 1}, or be -1 = unknown; {int(outside.sum())} do "
                f"not, the first ones {cells[outside][:3].tolist()}."
            )
        self.stay_probability.copy_(fit_stay_probability(cells))
        arrivals, returns = fit_arrivals(cells, places)
        self.arrival_share.copy_(arrivals)
        self.return_share.copy_(returns)

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        code_ids: torch.Tensor | None = None,
        home_ids: torch.Tensor | None = None,
        commute_ids: torch.Tensor | None = None,
        attribute_ids: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_loss: bool = True,
        **kwargs: Any,
    ) -> MstarOutput:
        """Predict every code of every level from the coarser ones and those of earlier passes, all at once.

        Logits and losses are in the order of `code_ids`; hidden states and attentions, if asked for, in the order of
        drawing (`order.positions`), which differs where a level takes several passes.

        Args:
            code_ids: (N, T) int64 codes of the weeks, coarse to fine, as `codec.encode` gives them; encode once and
                keep them. Or `input_ids` (N, R, L), which are encoded here.
            home_ids, commute_ids, attribute_ids: (N,) int64 finest cells and class of the movement attribute.
            attention_mask: (N, L), 1 = the hour is known. Codes that cover no known hour do not count in the loss.
            labels: (N, T) int64 codes to predict, -100 = none; by default the codes themselves. They differ where the
                input codes are noisy (`codec.encode_noisy`).
            return_loss: whether to compute the loss.

        Raises:
            ValueError: if an input is missing, contradicts another, or has the wrong shape.
        """
        code_ids, labels, features = self._codes(code_ids, input_ids, attention_mask, labels)
        self._check_shapes(code_ids, labels, home_ids, commute_ids, attribute_ids)
        condition = self.conditions(home_ids, commute_ids, attribute_ids)
        modulations = self._modulate(condition)
        known = self._known_places(home_ids, commute_ids)
        if features is not None:
            code_ids, labels = self._mix_in_own_codes(code_ids, features, condition, modulations, known)
        with torch.no_grad():
            inputs, _ = self.codec.teacher_inputs(code_ids)
        hidden, copies = self._read(inputs, code_ids, condition, modulations, known, **kwargs)

        counted = labels >= 0
        if attention_mask is not None:
            counted = counted & self._covered(attention_mask)
        shares = counted / counted.sum().clamp(min=1)
        targets = labels.clamp(min=0)
        if self.training and return_loss and fits_head_loss(self.lm_head, hidden.device):
            loss, losses = head_loss(self.lm_head, hidden, targets, shares, copies)
            return MstarOutput(loss=loss, level_losses=self._level_losses(losses, counted))
        logits = self._score(hidden, copies)
        if not return_loss:
            return MstarOutput(logits=logits)
        losses = position_losses(logits, targets)
        return MstarOutput(
            loss=(losses * shares).sum(),
            logits=None if self.training else logits,
            level_losses=self._level_losses(losses.detach(), counted),
        )

    def _read(
        self,
        features: torch.Tensor,
        code_ids: torch.Tensor,
        condition: torch.Tensor,
        modulations: list[Modulation],
        known: KnownPlaces | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, Copies | None]:
        """Last hidden states (N, T, d) of all codes at once, from the codec's u (N, T, D), and what may be copied."""
        tokens, codes = self._embed(features, code_ids, condition, known, slice(0, code_ids.shape[1]))
        hidden = self._run(tokens, modulations, self._block_causal_mask(), None, **kwargs)
        copies = self._copy(hidden, codes)
        if self.sides_proj is not None:  # from the order of drawing
            hidden, copies = hidden[:, self.places], copies and copies[self.places]
        return hidden, copies

    def _known_places(self, home_ids: torch.Tensor, commute_ids: torch.Tensor) -> KnownPlaces | None:
        return None if self.copies is None else self.copies.known_places(self.codec, home_ids, commute_ids)

    def _copy(self, hidden: torch.Tensor, codes: tuple[torch.Tensor, torch.Tensor] | None) -> Copies | None:
        return None if self.copies is None else self.copies(hidden, *codes)

    def _score(self, hidden: torch.Tensor, copies: Copies | None) -> torch.Tensor:
        """Logits (N, T', V)."""
        logits = self.lm_head(hidden)
        return logits if copies is None else copies.raise_in(logits)

    @torch.no_grad()
    def _mix_in_own_codes(
        self,
        code_ids: torch.Tensor,
        features: list[torch.Tensor],
        condition: torch.Tensor,
        modulations: list[Modulation],
        known: KnownPlaces | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes (N, T) in which whole levels are what the model draws given the week's coarser codes, pass after pass,
        and what would be right instead. The finest level is left alone, nothing follows it.
        """
        lengths = self.config.codec.level_lengths
        inputs, _ = self.codec.teacher_inputs(code_ids)
        drawn = code_ids
        for step in range(self.order.max_steps):
            mine = torch.cat([self.positions[part.start : part.end] for part in self.order.passes if part.step == step])
            hidden, copies = self._read(inputs, drawn, condition, modulations, known)
            logits = self._score(hidden[:, mine], copies and copies[mine])
            noise = torch.rand(code_ids.shape, device=code_ids.device)[:, mine]
            drawn = drawn.index_copy(1, mine, draw_from(logits.float().softmax(-1), noise))
        own = torch.rand(len(code_ids), len(lengths), device=code_ids.device) < self.config.own_codes
        own[:, -1] = False
        levels = zip(drawn.split(lengths, dim=1), own.split(1, dim=1))

        def spoil(ids: torch.Tensor) -> torch.Tensor:
            replacement, chosen = next(levels)
            return torch.where(chosen, replacement, ids)

        return self.codec.encode_spoilt(features, spoil)

    def _level_losses(self, losses: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        return mean_per_level(losses, counted, self.config.codec.level_lengths)

    def _codes(
        self,
        code_ids: torch.Tensor | None,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        labels: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor] | None]:
        """Input codes, the codes to predict, and, where the model's own codes are to be mixed in, the features F_k that
        these are corrected by.
        """
        noise, own = (self.config.code_noise, self.config.own_codes) if self.training else (0, 0)
        if own and input_ids is None:
            raise ValueError(f"own_codes={own} needs input_ids, the weeks: codes cannot be corrected.")
        if (code_ids is None) == (input_ids is None):
            raise ValueError("give either code_ids, the codes of the weeks, or input_ids, the weeks themselves.")
        if code_ids is not None:
            if noise and labels is None:
                raise ValueError(
                    f"code_noise={noise} needs labels beside code_ids (both from codec.encode_noisy), or input_ids."
                )
            return code_ids, code_ids if labels is None else labels, None
        if labels is not None:
            raise ValueError("labels are codes and go with code_ids; with input_ids they are made by the codec.")
        with torch.no_grad():
            if noise:
                return *self.codec.encode_noisy(input_ids, attention_mask, flip=noise), None
            features = self.codec.level_features(input_ids, attention_mask)
            code_ids = torch.cat(self.codec.quantiser(features).ids, dim=1)
        return code_ids, code_ids, features if own else None

    def _check_shapes(
        self,
        code_ids: torch.Tensor,
        labels: torch.Tensor,
        *conditions: torch.Tensor | None,
    ) -> None:
        length = self.config.codec.num_codes_per_week
        if code_ids.dim() != 2 or code_ids.shape[1] != length:
            raise ValueError(f"code_ids must be (N, {length}), all levels coarse to fine, got {tuple(code_ids.shape)}.")
        if labels.shape != code_ids.shape:
            raise ValueError(f"labels has shape {tuple(labels.shape)}, code_ids has {tuple(code_ids.shape)}.")
        for name, value in zip(("home_ids", "commute_ids", "attribute_ids"), conditions):
            if value is None:
                raise ValueError(f"{name} is missing: home_ids, commute_ids and attribute_ids go together.")
            if value.shape != code_ids.shape[:1]:
                raise ValueError(
                    f"{name} must have one value for each of {len(code_ids)} weeks, got {tuple(value.shape)}."
                )

    def _covered(self, attention_mask: torch.Tensor) -> torch.Tensor:
        """(N, T) bool: positions that cover a known hour."""
        known = attention_mask.float().unsqueeze(1)
        levels = [F.adaptive_max_pool1d(known, length) for length in self.config.codec.level_lengths]
        return torch.cat(levels, dim=2).squeeze(1) > 0

    def _make_order(self) -> dict[str, torch.Tensor]:
        """Buffers by name, int64 (T,): of each position its level and its place in the order of drawing; of each place
        its pass, its position, the positions of the codes beside it (T, 2), and what may be copied (T, K) bool.
        """
        lengths, order = self.config.codec.level_lengths, self.order
        with torch.device("cpu"):
            sizes, positions = torch.tensor(order.lengths), torch.tensor(order.positions)
            sides = torch.tensor([order.before, order.after]).t()
            people = torch.ones(len(sides), 2, dtype=torch.bool)
            return {
                "level_ids": torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)),
                "places": positions.argsort(),
                "pass_ids": torch.arange(len(sizes)).repeat_interleave(sizes),
                "positions": positions,
                "sides": sides,
                "copyable": people if order.max_steps == 1 else torch.cat([people, sides < len(sides)], dim=1),
            }

    def _block_causal_mask(self) -> torch.Tensor:
        """(1, 1, T, T) bool, in the order of drawing: a place sees its own pass and the earlier ones."""
        passes = self.pass_ids
        return (passes.unsqueeze(1) >= passes).view(1, 1, len(passes), len(passes))

    def _modulate(self, condition: torch.Tensor) -> list[Modulation]:
        """What the condition does in every attention, every feed-forward network and the last norm."""
        return [net(condition) for net in (self.attention_modulation, self.mlp_modulation, self.norm_modulation)]

    def _embed(
        self,
        features: torch.Tensor,
        code_ids: torch.Tensor,
        condition: torch.Tensor,
        known: KnownPlaces | None,
        places: slice,
        offset: int = 0,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """Input tokens (N, T', d) of these places of the order of drawing, and the codes that may be copied there, with
        where they may. features (N, n, D), the codec's u, and code_ids (N, n) are of the n positions from `offset` on.
        The coarsest level, which has no u, starts from the condition.
        """
        positions = self.positions[places]
        own = features if self.sides_proj is None else features[:, positions - offset]
        tokens = self.in_proj(own.to(self.in_proj.weight.dtype))
        first = max(min(places.stop, self.config.codec.level_lengths[0]) - places.start, 0)
        if first:
            start = (condition + self.start).unsqueeze(1).expand(-1, first, -1)
            tokens = torch.cat([start.to(tokens.dtype), tokens[:, first:]], dim=1)
        tokens = tokens + (self.slot_embedding[positions] + self.level_embedding(self.level_ids[positions]))
        beside = features.new_empty(*tokens.shape[:2], 0, features.shape[-1])
        if self.sides_proj is not None:
            drawn = F.pad(features + self.codec.code_vectors(code_ids), (0, 0, 0, 1))  # 0 where there is none
            beside = drawn[:, (self.sides[places] - offset).clamp(max=features.shape[1])]
            tokens = tokens + self.sides_proj(beside.flatten(2).to(self.sides_proj.weight.dtype))
        if self.copies is None:
            return tokens, None
        lengths = self.order.lengths_between(places.start, places.stop)
        copied = self.copies.codes(self.codec, known, own, beside, lengths), self.copyable[places]
        return tokens + self.copies.read(*copied), copied

    def _run(
        self,
        hidden: torch.Tensor,
        modulations: list[Modulation],
        mask: torch.Tensor | None,
        cache: MstarCache | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        for layer in self.layers:
            hidden = layer(hidden, modulations[0], modulations[1], mask, cache, **kwargs)
        return adaptive_norm(hidden, modulations[2], self.config.layer_norm_eps)

    # Generation

    @torch.no_grad()
    def generate(
        self,
        home_ids: torch.Tensor | Sequence[int],
        commute_ids: torch.Tensor | Sequence[int],
        attribute_ids: torch.Tensor | Sequence[int],
        *,
        generator: torch.Generator | None = None,
        top_k: int | None = None,
        temperature: float | list[float] | str | None = None,
        guidance: float | None = None,
        smoothing_window: int | None = None,
        decoding: str | None = None,
        emission_scale: float | None = None,
        prefix_ids: torch.Tensor | None = None,
        prefix_mask: torch.Tensor | None = None,
        batch_size: int | None = None,
        return_codes: bool = False,
        progress: bool = False,
    ) -> Any:
        """Draw weeks for people with these conditions. Settings that are `None` come from the configuration.

        The numbers drawn do not depend on `batch_size` on a CPU.

        Args:
            home_ids, commute_ids, attribute_ids: (N,) integers; see `forward`.
            generator: source of all randomness; `None` = torch's global one.
            top_k: codes that may be drawn; the codebook's size = all.
            temperature: one value, one per level, or "confidence" = the paper's rule.
            guidance, smoothing_window, decoding, emission_scale: see `MstarConfig`.
            prefix_ids: (N, R, L) int64, known hours as the tokenizer's `input_ids`, coarse to fine.
            prefix_mask: (N, L), 1 = the hour is known. Known hours are kept exactly; a code whose hours are all known
                is not drawn but computed.
            batch_size: weeks at once; memory grows with it and not with N.
            return_codes: return the codes as well.
            progress: show a progress bar.

        Returns:
            (N, L) int64 finest cells; with `return_codes` also (N, T) int64 codes.

        Raises:
            ValueError: if conditions are missing, differ in number or lie outside the grid or the classes; if a
                setting makes no sense; if a path is asked for before `fit_transition`.
        """
        conditions = self._check_conditions(home_ids, commute_ids, attribute_ids)
        options = SamplingOptions.resolve(
            self.config,
            top_k=top_k,
            temperature=temperature,
            guidance=guidance,
            smoothing_window=smoothing_window,
            decoding=decoding,
            emission_scale=emission_scale,
        )
        if options.decoding != "argmax" and not bool(self.arrival_share.any()):
            raise ValueError(f"decoding={options.decoding!r} needs fit_transition(cells) of training weeks first.")
        weeks = conditions.shape[1]
        prefix_ids, prefix_mask = self._check_prefix(prefix_ids, prefix_mask, weeks)
        step = WEEKS_AT_ONCE if batch_size is None else batch_size
        if step < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")

        codec = self.config.codec
        count = options.numbers_per_week(codec.level_lengths)
        source = self.device if generator is None else generator.device
        cells = torch.empty(weeks, codec.num_hours, dtype=torch.int64, device=self.device)
        codes = torch.empty(weeks, codec.num_codes_per_week, dtype=torch.int64, device=self.device)
        was_training = self.training
        self.eval()
        try:
            for first in logging.tqdm(range(0, weeks, step), desc="weeks", unit="batch", disable=not progress):
                part = slice(first, min(first + step, weeks))
                drawn = torch.rand(part.stop - first, count, generator=generator, device=source)
                numbers = _Numbers(drawn.to(self.device))
                known = None if prefix_ids is None else self._known_hours(prefix_ids[part], prefix_mask[part])
                codes[part], fhat = self._draw_weeks(conditions[:, part], numbers, options, known)
                cells[part] = self._decode(fhat, numbers, options, known)
        finally:
            self.train(was_training)
        return (cells, codes) if return_codes else cells

    def _draw_weeks(
        self, people: torch.Tensor, numbers: _Numbers, options: SamplingOptions, known: _KnownHours | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw one batch, level by level: conditions (3, N) -> codes (N, T), reconstruction fhat_S (N, L, D)."""
        condition = self.conditions(*people)
        lengths = self.config.codec.level_lengths
        weeks, guided = len(condition), options.guidance != 1
        if guided:  # both branches in one batch
            condition = torch.cat([condition, self.conditions.null.expand(weeks, -1)])
        modulations = self._modulate(condition)
        cache = MstarCache(self.config.num_hidden_layers, sum(lengths))
        homes = self._known_places(*people[:2])
        drawn, fhat = [], None
        for level, length in enumerate(lengths):
            if level:
                features = self.codec.next_level(fhat, level - 1)
            else:
                features = condition.new_zeros(weeks, length, self.config.codec.hidden_size)
            codes, forced = self._forced(known, features, level)
            offset = cache.start
            for part in self.order.of_level(level):
                places = slice(part.start, part.end)
                given = (features.repeat(2, 1, 1), codes.repeat(2, 1)) if guided else (features, codes)
                tokens, copied = self._embed(*given, condition, homes, places, offset)
                hidden = self._run(tokens, modulations, None, cache)
                logits = self._score(hidden, self._copy(hidden, copied))
                cache.start = part.end
                if guided:
                    asked, unasked = logits.chunk(2)
                    logits = torch.lerp(unasked, asked, options.guidance)
                own = self.positions[places] - offset
                is_open = ~forced[:, own]
                found = draw_codes(logits, is_open, numbers.take(len(own)), options, level)
                codes = codes.index_copy(1, own, torch.where(is_open, found, codes[:, own]))
            drawn.append(codes)
            fhat = features + self.codec.code_vectors(codes)
        return torch.cat(drawn, dim=1), fhat

    def _forced(
        self, known: _KnownHours | None, features: torch.Tensor, level: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes (N, T_k) that bring u_k closest to what is known, and where they are to be used (N, T_k) bool."""
        if known is None:
            shape, device = features.shape[:2], features.device
            return torch.zeros(shape, dtype=torch.int64, device=device), torch.zeros(
                shape, dtype=torch.bool, device=device
            )
        return self.codec.quantise_level(known.features[level] - features), known.positions(features.shape[1])

    def _decode(
        self, fhat: torch.Tensor, numbers: _Numbers, options: SamplingOptions, known: _KnownHours | None
    ) -> torch.Tensor:
        """Cells (N, L) of the last reconstruction (N, L, D)."""
        logits = self.codec.decode_features(fhat, options.smoothing_window)
        if known is not None:
            logits = clamp_to_known(logits, known.cells, known.mask)
        if options.decoding == "argmax":
            return logits.max(-1).indices  # as `argmax`, and sooner on a CPU
        logits = logits.float() * options.emission_scale
        arrival = week_arrivals(logits, self.arrival_share, self.return_share)
        if options.decoding == "viterbi":
            return best_path(logits, self.stay_probability, arrival)
        noise = numbers.take(2 * logits.shape[1]).unflatten(1, (2, -1))
        return sample_path(logits, self.stay_probability, arrival, noise)

    def _known_hours(self, prefix_ids: torch.Tensor, prefix_mask: torch.Tensor) -> _KnownHours:
        features = self.codec.level_features(prefix_ids, prefix_mask)
        return _KnownHours(features=features, mask=prefix_mask.bool(), cells=prefix_ids[:, -1])

    def _check_conditions(self, *values: torch.Tensor | Sequence[int] | None) -> torch.Tensor:
        """(3, N) int64 on the model's device."""
        cells, classes = self.config.codec.num_cells, self.config.num_attributes
        checked: list[torch.Tensor] = []
        for name, value, limit in zip(
            ("home_ids", "commute_ids", "attribute_ids"), values, (cells, cells, classes), strict=True
        ):
            if value is None:
                raise ValueError(f"{name} is missing: home_ids, commute_ids and attribute_ids go together.")
            ids = torch.as_tensor(value, device=self.device)
            if ids.dim() != 1 or ids.is_floating_point():
                raise ValueError(f"{name} must be integers of shape (N,), got {ids.dtype} {tuple(ids.shape)}.")
            if checked and len(ids) != len(checked[0]):
                raise ValueError(f"{name} has {len(ids)} values, home_ids has {len(checked[0])}.")
            outside = (ids < 0) | (ids >= limit)
            if bool(outside.any()):
                what = "classes of the movement attribute" if name == "attribute_ids" else "cells of this model's grid"
                raise ValueError(
                    f"{name} must be {what}, 0 to {limit - 1}; {int(outside.sum())} are not, the first ones "
                    f"{ids[outside][:3].tolist()}."
                )
            checked.append(ids.long())
        return torch.stack(checked)

    def _check_prefix(
        self, prefix_ids: torch.Tensor | None, prefix_mask: torch.Tensor | None, weeks: int
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if (prefix_ids is None) != (prefix_mask is None):
            raise ValueError("prefix_ids, the cells, and prefix_mask, which of their hours are known, go together.")
        if prefix_ids is None:
            return None, None
        codec = self.config.codec
        rows = codec.cells_per_resolution
        ids, mask = (torch.as_tensor(value, device=self.device) for value in (prefix_ids, prefix_mask))
        if ids.shape != (weeks, len(rows), codec.num_hours) or mask.shape != (weeks, codec.num_hours):
            raise ValueError(
                f"prefix_ids must be ({weeks}, {len(rows)}, {codec.num_hours}), one row of cells per resolution, and "
                f"prefix_mask ({weeks}, {codec.num_hours}); got {tuple(ids.shape)} and {tuple(mask.shape)}."
            )
        outside = ((ids < 0) | (ids >= ids.new_tensor(rows).view(1, -1, 1))) & mask.bool().unsqueeze(1)
        if bool(outside.any()):
            raise ValueError(
                f"prefix_ids must lie inside the grids of {rows} cells in known hours; {int(outside.sum())} do not, "
                f"the first ones {ids[outside][:3].tolist()}."
            )
        return ids.long().masked_fill(~mask.bool().unsqueeze(1), 0), mask.long()


__all__ = [
    "MstarCodecModel",
    "MstarCodecOutput",
    "MstarForTrajectoryGeneration",
    "MstarOutput",
    "MstarPreTrainedModel",
]
