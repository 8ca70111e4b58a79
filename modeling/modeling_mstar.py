"""M-STAR (arXiv 2512.07314): generates weeks of hourly cells, scale by scale, for users with a given home, work place
and movement attribute.

A transformer with norms that follow the condition (AdaLN) predicts the codes of `MstarCodecModel`. A level's input is
the codec's reconstruction from the coarser levels, carried to that level, and never the level's own codes, so all
positions of a level are predicted at once. The codec lies inside the model and its checkpoint, is frozen, and always
runs in evaluation mode.

Notes:
    The paper draws the positions of a level independently. With `within_level_steps` above 1 a level takes several
    decoding steps in a fixed order, and a position sees the codes on its two sides that were drawn before it
    (`DecodingOrder`); training is still one call, because who attends to whom is a matter of the mask. With
    `pointer_head` the codes that put a known place at a position have scores of their own (`pointer_mstar`). The nets
    that turn the condition into gates, scales and shifts are shared by all layers and run once per call.

(No `from __future__ import annotations` here: transformers reads the class of `config` from its annotation.)

Shapes: N weeks, R spatial resolutions, S levels, L hours, T_k codes of level k and T their sum, C cells, V codes,
D width of the codec, d width of this model, H heads. A rank is an index in the decoding order, a position one in the
week's codes.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_mstar import DecodingOrder, MstarConfig
from .generation_mstar import MstarCache, MstarGeneration, draw_from, fit_arrivals, fit_stay_probability
from .layers import MultiHeadAttention, drop, kept_numbers, mark, renamed_argument, widened
from .modeling_mstar_codec import MstarCodecModel, MstarCodecOutput, MstarPreTrainedModel
from .places_mstar import MstarPlaces
from .pointer_mstar import KnownPlaces, MstarPointer, PointerScores

SCORES_AT_ONCE = 2**20  # of `LevelAttention`
MASKED_SHARE = 0.25  # steps within this share of all positions are one masked block of `LevelAttention`


@dataclass
class MstarOutput(ModelOutput):
    """Output of `MstarForTrajectoryGeneration.forward`.

    loss: mean cross-entropy over the codes that count. level_losses (S,): the same per level, without gradients.
    logits (N, T, V): scores of every code; `None` in training mode, where they would take most of the memory.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    level_losses: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class MstarConditions(nn.Module):
    """Condition vector (N, d): home and work place, half the width each from one table, plus the attributes.
    `null` stands in for a hidden condition.
    """

    first_class: torch.Tensor

    def __init__(self, config: MstarConfig) -> None:
        super().__init__()
        self.probability = float(config.condition_dropout)
        self.place_embedding = nn.Embedding(config.codec.num_cells, config.hidden_size // 2)
        sizes = config.sizes_of_attributes
        self.attribute_embedding = nn.Embedding(sum(sizes), config.hidden_size)  # one attribute after the other
        self.register_buffer("first_class", first_classes(sizes), persistent=False)
        mark(self.attribute_embedding, init_std=config.attribute_init)
        self.null = nn.Parameter(torch.zeros(config.hidden_size)) if self.probability else None

    def forward(self, home_ids: torch.Tensor, work_ids: torch.Tensor, attribute_ids: torch.Tensor) -> torch.Tensor:
        places = self.place_embedding(torch.stack([home_ids, work_ids], dim=1)).flatten(1)
        classes = attribute_ids.reshape(len(attribute_ids), len(self.first_class)) + self.first_class  # (N, A)
        condition = places + self.attribute_embedding(classes).sum(1)
        if self.training and self.null is not None:
            hidden = torch.rand(len(condition), 1, device=condition.device) < self.probability
            condition = torch.where(hidden, self.null, condition)
        return condition


def first_classes(sizes: list[int]) -> torch.Tensor:
    """(A,) int64: the row of each attribute's first class in the table of all."""
    return torch.tensor([0, *sizes[:-1]], device="cpu").cumsum(0)


class MstarModulation(nn.Module):
    """AdaLN net: condition (N, d) -> modulation (3, N, 1, d): gate, 1 + scale, shift, the thirds of W2 SiLU(W1 c).

    One tensor, as reentrant checkpointing sees no gradient of tensors inside tuples.
    """

    def __init__(self, config: MstarConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.down_proj = nn.Linear(3 * config.hidden_size, 3 * config.hidden_size)

    def forward(self, condition: torch.Tensor) -> torch.Tensor:
        values = self.down_proj(F.silu(self.up_proj(condition))).to(condition.dtype).unsqueeze(1)
        gate, scale, shift = values.chunk(3, dim=-1)
        return torch.stack([gate, 1 + scale, shift])


def adaptive_norm(hidden: torch.Tensor, modulation: torch.Tensor, eps: float) -> torch.Tensor:
    """LayerNorm without parameters of its own, then the condition's scale and shift, (N, T, d) -> (N, T, d)."""
    normed = F.layer_norm(hidden, hidden.shape[-1:], eps=eps)
    return torch.addcmul(modulation[2].to(normed.dtype), normed, modulation[1].to(normed.dtype))


def drop_path(gate: torch.Tensor, probability: float, training: bool) -> torch.Tensor:
    """Stochastic depth on a branch's gate (N, 1, d): the branch of a week is skipped as a whole."""
    if not training or not probability:
        return gate
    kept = torch.rand(gate.shape[0], 1, 1, device=gate.device) >= probability
    return gate * kept / (1 - probability)


class LevelAttention(torch.autograd.Function):
    """Block-causal attention as matrix products, few weeks at a time so that scores stay in the processor's cache.

    In half precision the fused kernel takes most of a training step there (benchmarks/speed/kernels.csv), and with
    dropout torch has none. A decoding step attends to itself and the earlier ones, without a mask; the few positions of
    the first steps are one masked block. Inputs (N, H, T, d), the query already scaled; returns (N, T, H, d). For CPUs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: tuple[int, ...],
        dropout: float = 0.0,
    ) -> torch.Tensor:
        shape = query.shape
        query, key, value = (x.contiguous().flatten(0, 1) for x in (query, key, value))
        blocks, mask = attention_blocks(lengths)
        output = torch.empty_like(query)
        weights = [query.new_empty(len(query), end - start, end) for start, end in blocks]
        kept = [torch.empty(x.shape, dtype=torch.bool) for x in weights] if dropout else [None] * len(weights)
        factor = 1.0
        for rows in _few_weeks(shape):
            for (start, end), found, left in zip(blocks, weights, kept):
                scores = torch.bmm(query[rows, start:end], key[rows, :end].transpose(1, 2))
                if start == 0:
                    scores = scores.masked_fill_(mask, float("-inf"))
                torch.softmax(scores, -1, out=found[rows])
                if left is not None:
                    left[rows], factor = kept_numbers(scores.shape, dropout)
                output[rows, start:end] = torch.bmm(_left(found, left, rows), value[rows, :end])
        ctx.save_for_backward(query, key, value, *weights, *kept)
        ctx.blocks, ctx.shape, ctx.factor = blocks, shape, factor
        return output.mul_(factor).view(shape).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *saved = ctx.saved_tensors
        weights, kept = saved[: len(ctx.blocks)], saved[len(ctx.blocks) :]
        grad_output = (grad_output * ctx.factor).transpose(1, 2).contiguous().flatten(0, 1)
        grads = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for rows in _few_weeks(ctx.shape):
            grad_key = torch.zeros_like(key[rows], dtype=torch.promote_types(key.dtype, torch.float32))
            grad_value = torch.zeros_like(grad_key)
            for (start, end), found, left in zip(ctx.blocks, weights, kept):
                above = grad_output[rows, start:end]
                raw = torch.bmm(above, value[rows, :end].transpose(1, 2))
                if left is not None:
                    raw.mul_(left[rows])
                scores = torch.ops.aten._softmax_backward_data(raw, found[rows], -1, found.dtype)
                grad_value[:, :end] += torch.bmm(_left(found, left, rows).transpose(1, 2), above)
                grad_key[:, :end] += torch.bmm(scores.transpose(1, 2), query[rows, start:end])
                grads[0][rows, start:end] = torch.bmm(scores, key[rows, :end])
            grads[1][rows], grads[2][rows] = grad_key, grad_value
        return *(grad.view(ctx.shape) for grad in grads), None, None


def _left(weights: torch.Tensor, kept: torch.Tensor | None, rows: slice) -> torch.Tensor:
    """Weights of these rows, without those that dropout takes away."""
    return weights[rows] if kept is None else weights[rows] * kept[rows]


def _few_weeks(shape: tuple[int, ...]) -> list[slice]:
    """Parts of the N * H rows of an (N, H, T, d): as many weeks, at least one, as have `SCORES_AT_ONCE` together."""
    weeks, heads, length, _ = shape
    step = heads * max(1, SCORES_AT_ONCE // (heads * length**2))
    return [slice(first, first + step) for first in range(0, weeks * heads, step)]


def attention_blocks(lengths: tuple[int, ...]) -> tuple[list[tuple[int, int]], torch.Tensor]:
    """Blocks (start, end) of positions that `LevelAttention` handles at once, and what the first may not see, (end,
    end) bool.
    """
    ends = torch.tensor(lengths).cumsum(0).tolist()
    first = max((end for end in ends if end <= MASKED_SHARE * ends[-1]), default=ends[0])
    later = [end for end in ends if end > first]
    levels = torch.tensor([level for level, length in enumerate(lengths) for _ in range(length)])[:first]
    return list(zip([0, first, *later], [first, *later])), levels.unsqueeze(1) < levels


class MstarAttention(MultiHeadAttention):
    """Multi-head attention. Causality comes from the attention mask (training) or from the cache (generation)."""

    def __init__(self, config: MstarConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx, is_causal=False)
        self.step_lengths = config.decoding_order.lengths
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)  # one product is faster than three
        mark(self.qkv_proj, init_bound=(6 / (4 * config.hidden_size)) ** 0.5)  # Xavier
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        cache: MstarCache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        parts = self.qkv_proj(hidden_states).unflatten(-1, (3, self.num_heads, self.head_dim))
        query, key, value = parts.transpose(1, 3).unbind(2)  # each (N, H, T, d)
        if cache is not None:
            key, value = cache.update(self.layer_idx, key, value)
        probability = self.config.attention_dropout if self.training else 0.0
        weights = None
        if cache is None and self._use_level_attention(query, probability):
            output = LevelAttention.apply(query * self.scaling, key, value, self.step_lengths, probability)
        else:
            output, weights = self.attend(query, key, value, attention_mask, dropout=probability, **kwargs)
        return self.o_proj(output.reshape(hidden_states.shape)), weights

    def _use_level_attention(self, query: torch.Tensor, dropout: float) -> bool:
        return (
            query.requires_grad
            and query.device.type == "cpu"
            and (query.dtype == torch.bfloat16 or 0 < dropout < 1)
            and self.config._attn_implementation == "sdpa"
            and not torch.compiler.is_compiling()
        )


class MstarMLP(nn.Module):
    """Feed-forward network d -> 4 d -> d with GELU; `dropout` inside and behind it in the released form only."""

    def __init__(self, config: MstarConfig) -> None:
        super().__init__()
        self.dropout = float(config.dropout) if config.dropout_form == "released" else 0.0
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        inner = drop(F.gelu(self.up_proj(hidden_states)), self.dropout, self.training)
        return drop(self.down_proj(inner), self.dropout, self.training)


class MstarLayer(GradientCheckpointingLayer):
    """Pre-norm block whose norms, and the gates of its two branches, follow the condition."""

    def __init__(self, config: MstarConfig, layer_idx: int) -> None:
        super().__init__()
        self.eps = config.layer_norm_eps
        self.dropout = float(config.dropout)
        self.drop_path = config.drop_path * layer_idx / max(config.num_hidden_layers - 1, 1)
        self.released_form = config.dropout_form == "released"
        self.self_attn = MstarAttention(config, layer_idx)
        self.mlp = MstarMLP(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_modulation: torch.Tensor,
        mlp_modulation: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        cache: MstarCache | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        normed = adaptive_norm(hidden_states, attention_modulation, self.eps)
        attended, _ = self.self_attn(normed, attention_mask, cache, **kwargs)
        hidden_states = self._add(hidden_states, attended, attention_modulation[0])
        inner = self.mlp(adaptive_norm(hidden_states, mlp_modulation, self.eps))
        return self._add(hidden_states, inner, mlp_modulation[0])

    def _add(self, hidden_states: torch.Tensor, branch: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        if self.released_form and self.training:
            gated = branch.to(hidden_states.dtype) * gate.to(hidden_states.dtype)
            return hidden_states + drop(gated, self.drop_path, self.training)
        branch = drop(branch, self.dropout, self.training)
        gate = drop_path(gate, self.drop_path, self.training)
        return torch.addcmul(hidden_states, branch.to(hidden_states.dtype), gate.to(hidden_states.dtype))


class MstarForTrajectoryGeneration(MstarGeneration, MstarPreTrainedModel):
    """The STAR-Transformer, with its frozen codec as `.codec`.

    For half precision load it so, `from_pretrained(..., dtype=torch.bfloat16)`: the codebook and what `fit_transition`
    learned then stay in float32, which `.to(torch.bfloat16)` would round.

    Example:

        >>> model = MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny")).eval()
        >>> model.generate(home_ids=[0, 3], work_ids=[5, 5], attribute_ids=[1, 0]).shape  # cells of 24 hours
        torch.Size([2, 24])
    """

    config: MstarConfig  # type: ignore[assignment]
    level_ids: torch.Tensor
    step_ids: torch.Tensor
    positions: torch.Tensor
    ranks: torch.Tensor
    sides: torch.Tensor
    around: torch.Tensor
    usable: torch.Tensor
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
        self.order = config.decoding_order
        self.sides_proj = None
        if self.order.max_steps > 1:
            self.sides_proj = nn.Linear(2 * codec.hidden_size, width, bias=False)
        self.context_proj = None
        if config.within_level_context:
            self.context_proj = nn.Linear(2 * config.within_level_context * codec.hidden_size, width, bias=False)
        self.attention_modulation = MstarModulation(config)
        self.mlp_modulation = MstarModulation(config)
        self.layers = nn.ModuleList(MstarLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm_modulation = MstarModulation(config)
        self.lm_head = nn.Linear(width, codec.codebook_size)
        self.copies = MstarPointer(config) if config.pointer_head else None  # named as in saved weights
        self.places = MstarPlaces(config) if config.num_poi_features else None
        for name, values in self._make_order().items():
            self.register_buffer(name, values, persistent=False)
        # 0 = never fitted; see `fit_transition`
        self.register_buffer("stay_probability", torch.zeros(codec.num_hours - 1, dtype=torch.float32))
        self.register_buffer("arrival_share", torch.zeros(codec.num_cells, dtype=torch.float32))
        self.register_buffer("return_share", torch.zeros((), dtype=torch.float32))
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
        if isinstance(module, MstarConditions):
            init.copy_(module.first_class, first_classes(self.config.sizes_of_attributes))
            if module.null is not None:
                init.normal_(module.null, mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, MstarPointer):
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

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another table of places in its place."""
        self.conditions.place_embedding = value

    def fit_places(self, cell_map: Any) -> None:
        """Learn which cells lie in one another, for `pointer_head`; without that there is nothing to learn.

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
            ValueError: if the weeks do not have L hours, hold anything but cells of the grid and -1, or no known hour.
        """
        cells = torch.as_tensor(cells, device=self.stay_probability.device)
        hours, places = self.config.codec.num_hours, self.config.codec.num_cells
        if cells.dim() != 2 or cells.shape[1] != hours:
            raise ValueError(f"cells must be weeks of {hours} hours, (N, {hours}), got {tuple(cells.shape)}.")
        if cells.is_floating_point() or cells.is_complex():
            raise ValueError(f"cells must be integers, got {cells.dtype}.")
        outside = (cells < -1) | (cells >= places)
        if bool(outside.any()):
            raise ValueError(
                f"cells must lie in the model's grid, 0 to {places - 1}, or be -1 = unknown; {int(outside.sum())} do "
                f"not, the first ones {cells[outside][:3].tolist()}."
            )
        if not bool((cells >= 0).any()):
            raise ValueError(f"nothing can be learned from {len(cells)} weeks without a known hour.")
        self.stay_probability.copy_(fit_stay_probability(cells))
        arrivals, returns = fit_arrivals(cells, places)
        self.arrival_share.copy_(arrivals)
        self.return_share.copy_(returns)

    @renamed_argument("commute_ids", "work_ids")
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        code_ids: torch.Tensor | None = None,
        home_ids: torch.Tensor | None = None,
        work_ids: torch.Tensor | None = None,
        attribute_ids: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_loss: bool = True,
        **kwargs: Any,
    ) -> MstarOutput:
        """Predict every code of every level from the coarser ones and those of earlier decoding steps, all at once.

        Logits and losses are in the order of `code_ids`; hidden states and attentions, if asked for, in the decoding
        order (`order.positions`), which differs where a level takes several steps.

        Args:
            code_ids: (N, T) int64 codes of the weeks, coarse to fine, as `codec.encode` gives them; encode once and
                keep them. Or `input_ids` (N, R, L), which are encoded here.
            home_ids, work_ids: (N,) int64 finest cells.
            attribute_ids: (N,) int64 class of the movement attribute, or (N, A) of several (`attribute_sizes`).
            attention_mask: (N, L), 1 = the hour is known. Codes that cover no known hour do not count in the loss.
            labels: (N, T) int64 codes to predict, -100 = none; by default the codes themselves. They differ where the
                input codes are noisy (`codec.encode_noisy`).
            return_loss: whether to compute the loss. For a Trainer's `eval_loss` without labels among the rows, say
                `TrainingArguments(label_names=[])`; by default it looks for `labels`.

        Raises:
            ValueError: if an input is missing, contradicts another, or has the wrong shape.
        """
        code_ids, labels, features = self._codes(code_ids, input_ids, attention_mask, labels)
        self._check_shapes(code_ids, labels, home_ids, work_ids, attribute_ids)
        condition = self.conditions(home_ids, work_ids, attribute_ids)
        modulations = self._modulate(condition)
        known = self._known_places(home_ids, work_ids)
        if features is not None:
            code_ids, labels = self._mix_in_drawn_codes(code_ids, features, condition, modulations, known)
        with torch.no_grad():
            inputs, _ = self.codec.teacher_inputs(code_ids)
        hidden, pointer = self._read(inputs, code_ids, condition, modulations, known, **kwargs)

        counted = labels >= 0
        if attention_mask is not None:
            counted = counted & torch.cat(self.codec.known_positions(attention_mask), dim=1)
        logits = self._score(hidden, pointer)
        if not return_loss:
            return MstarOutput(logits=logits)
        targets = labels.clamp(min=0).flatten()
        losses = F.cross_entropy(widened(logits).flatten(0, 1), targets, reduction="none").view(labels.shape)
        return MstarOutput(
            loss=(losses * (counted / counted.sum().clamp(min=1))).sum(),
            logits=None if self.training else logits,
            level_losses=mean_per_level(losses.detach(), counted, self.config.codec.level_lengths),
        )

    def _read(
        self,
        features: torch.Tensor,
        code_ids: torch.Tensor,
        condition: torch.Tensor,
        modulations: list[torch.Tensor],
        known: KnownPlaces | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, PointerScores | None]:
        """Last hidden states (N, T, d) of all codes at once, from the codec's u (N, T, D), and the pointer's scores."""
        tokens, candidates = self._embed(features, code_ids, condition, known, slice(0, code_ids.shape[1]))
        hidden = self._run(tokens, modulations, self._block_causal_mask(), None, **kwargs)
        pointer = self._point(hidden, candidates)
        if self.sides_proj is not None:  # from the decoding order
            hidden, pointer = hidden[:, self.ranks], pointer and pointer[self.ranks]
        return hidden, pointer

    def _known_places(self, home_ids: torch.Tensor, work_ids: torch.Tensor) -> KnownPlaces | None:
        return None if self.copies is None else self.copies.known_places(self.codec, home_ids, work_ids)

    def _point(
        self, hidden: torch.Tensor, candidates: tuple[torch.Tensor, torch.Tensor] | None
    ) -> PointerScores | None:
        return None if self.copies is None else self.copies(hidden, *candidates)

    def _score(self, hidden: torch.Tensor, pointer: PointerScores | None) -> torch.Tensor:
        """Logits (N, T', V)."""
        logits = self.lm_head(hidden)
        return logits if pointer is None else pointer.add_to(logits)

    @torch.no_grad()
    def _mix_in_drawn_codes(
        self,
        code_ids: torch.Tensor,
        features: list[torch.Tensor],
        condition: torch.Tensor,
        modulations: list[torch.Tensor],
        known: KnownPlaces | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scheduled sampling: codes (N, T) in which whole levels are what the model draws given the week's coarser
        codes, step after step, and what would be right instead. The finest level is left alone, nothing follows it.
        """
        lengths = self.config.codec.level_lengths
        inputs, _ = self.codec.teacher_inputs(code_ids)
        drawn = code_ids
        for index in range(self.order.max_steps):
            ranges = [slice(step.start, step.end) for step in self.order.steps if step.step == index]
            positions = torch.cat([self.positions[ranks] for ranks in ranges])
            hidden, pointer = self._read(inputs, drawn, condition, modulations, known)
            logits = self._score(hidden[:, positions], pointer and pointer[positions])
            noise = torch.rand(code_ids.shape, device=code_ids.device)[:, positions]
            drawn = drawn.index_copy(1, positions, draw_from(logits.float().softmax(-1), noise))
        chosen = torch.rand(len(code_ids), len(lengths), device=code_ids.device) < self.config.scheduled_sampling
        chosen[:, -1] = False
        levels = zip(drawn.split(lengths, dim=1), chosen.split(1, dim=1))

        def perturb(ids: torch.Tensor) -> torch.Tensor:
            replacement, is_chosen = next(levels)
            return torch.where(is_chosen, replacement, ids)

        return self.codec.encode_perturbed(features, perturb)

    def _codes(
        self,
        code_ids: torch.Tensor | None,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        labels: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor] | None]:
        """Input codes, the codes to predict, and, for scheduled sampling, the features F_k that drawn codes are
        corrected by.
        """
        noise, share = (self.config.code_noise, self.config.scheduled_sampling) if self.training else (0, 0)
        if share and input_ids is None:
            raise ValueError(f"scheduled_sampling={share} needs input_ids, the weeks: codes cannot be corrected.")
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
        return code_ids, code_ids, features if share else None

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
        for name, value in zip(("home_ids", "work_ids", "attribute_ids"), conditions):
            if value is None:
                raise ValueError(f"{name} is missing: home_ids, work_ids and attribute_ids go together.")
            several = name == "attribute_ids" and self.config.attribute_sizes is not None
            shape = (len(code_ids), len(self.config.sizes_of_attributes)) if several else code_ids.shape[:1]
            if value.shape != shape:
                what = f"{shape[1]} values" if several else "one value"
                raise ValueError(
                    f"{name} must have {what} for each of {len(code_ids)} weeks, got {tuple(value.shape)}."
                )

    def _make_order(self) -> dict[str, torch.Tensor]:
        """Buffers by name, int64 (T,): of each position its level and its rank in the decoding order; of each rank its
        step, its position, the positions of the codes beside it (T, 2) and, of its context, of those that earlier steps
        decoded (T, 2 W), T = none; and which places a pointer may use (T, K) bool.
        """
        lengths, order = self.config.codec.level_lengths, self.order
        with torch.device("cpu"):
            sizes, positions = torch.tensor(order.lengths), torch.tensor(order.positions)
            sides = torch.tensor([order.before, order.after]).t()
            conditions = torch.ones(len(sides), 2, dtype=torch.bool)  # home and work: always
            return {
                "level_ids": torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)),
                "ranks": positions.argsort(),
                "step_ids": torch.arange(len(sizes)).repeat_interleave(sizes),
                "positions": positions,
                "sides": sides,
                "around": context_of(order, lengths, self.config.within_level_context),
                "usable": conditions if order.max_steps == 1 else torch.cat([conditions, sides < len(sides)], dim=1),
            }

    def _block_causal_mask(self) -> torch.Tensor:
        """(1, 1, T, T) bool, in the decoding order: a rank attends to its own step and the earlier ones."""
        steps = self.step_ids
        return (steps.unsqueeze(1) >= steps).view(1, 1, len(steps), len(steps))

    def _modulate(self, condition: torch.Tensor) -> list[torch.Tensor]:
        """What the condition does in every attention, every feed-forward network and the last norm."""
        return [net(condition) for net in (self.attention_modulation, self.mlp_modulation, self.norm_modulation)]

    def _embed(
        self,
        features: torch.Tensor,
        code_ids: torch.Tensor,
        condition: torch.Tensor,
        known: KnownPlaces | None,
        ranks: slice,
        offset: int = 0,
        add_start: bool = True,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """Input tokens (N, T', d) of these ranks, and the codes that a pointer may use there, with where it may.
        features (N, n, D), the codec's u, and code_ids (N, n) are of the n positions from `offset` on. The coarsest
        level, which has no u, starts from the condition.
        """
        positions = self.positions[ranks]
        inputs = features if self.sides_proj is None else features[:, positions - offset]
        tokens = self.in_proj(inputs.to(self.in_proj.weight.dtype))
        first = max(min(ranks.stop, self.config.codec.level_lengths[0]) - ranks.start, 0)
        if first:
            start = (condition + self.start if add_start else condition).unsqueeze(1).expand(-1, first, -1)
            tokens = torch.cat([start.to(tokens.dtype), tokens[:, first:]], dim=1)
        tokens = tokens + (self.slot_embedding[positions] + self.level_embedding(self.level_ids[positions]))
        beside = features.new_empty(*tokens.shape[:2], 0, features.shape[-1])
        if self.sides_proj is not None:
            drawn = F.pad(features + self.codec.code_vectors(code_ids), (0, 0, 0, 1))  # 0 where there is none
            beside = drawn[:, (self.sides[ranks] - offset).clamp(max=features.shape[1])]
            tokens = tokens + self.sides_proj(beside.flatten(2).to(self.sides_proj.weight.dtype))
            if self.context_proj is not None:
                near = drawn[:, (self.around[ranks] - offset).clamp(max=features.shape[1])]
                tokens = tokens + self.context_proj(near.flatten(2).to(self.context_proj.weight.dtype))
        if self.copies is None:
            return tokens, None
        lengths = self.order.lengths_between(ranks.start, ranks.stop)
        candidates = self.copies.codes(self.codec, known, inputs, beside, lengths), self.usable[ranks]
        return tokens + self.copies.read(*candidates), candidates

    def _run(
        self,
        hidden: torch.Tensor,
        modulations: list[torch.Tensor],
        mask: torch.Tensor | None,
        cache: MstarCache | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        for layer in self.layers:
            hidden = layer(hidden, modulations[0], modulations[1], mask, cache, **kwargs)
        return adaptive_norm(hidden, modulations[2], self.config.layer_norm_eps)


def context_of(order: DecodingOrder, lengths: list[int], reach: int) -> torch.Tensor:
    """(T, 2 reach) int64: of each rank the positions up to `reach` before and after it in its level that earlier steps
    decoded; T = none.
    """
    total = sum(lengths)
    found = torch.full((total, 2 * reach), total)
    shifts = torch.tensor([*range(-reach, 0), *range(1, reach + 1)], dtype=torch.int64)
    decoded = torch.zeros(total, dtype=torch.bool)
    for step in order.steps:
        first = sum(lengths[: step.level])
        own = torch.tensor(order.positions[step.start : step.end])
        near = own.unsqueeze(1) + shifts
        inside = (near >= first) & (near < first + lengths[step.level])
        found[step.start : step.end] = torch.where(inside & decoded[near.clamp(0, total - 1)], near, total)
        decoded[own] = True
    return found


def mean_per_level(losses: torch.Tensor, counted: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Mean over the counted positions of each level, (N, T) and bool (N, T) -> (S,); 0 where none counts."""
    sums = (losses * counted).sum(0).split(lengths)
    counts = counted.sum(0).split(lengths)
    return torch.stack([value.sum() / number.sum().clamp(min=1) for value, number in zip(sums, counts)])


__all__ = [
    "MstarCodecModel",
    "MstarCodecOutput",
    "MstarForTrajectoryGeneration",
    "MstarOutput",
    "MstarPreTrainedModel",
]
