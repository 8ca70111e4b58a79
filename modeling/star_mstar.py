"""Blocks of the STAR-Transformer of M-STAR (arXiv 2512.07314): adaptive norms driven by the condition, attention over
levels, and the cache of generation.

Unusual: the two nets that turn the condition into gates, scales and shifts are shared by all layers, so a model runs
them once per call and hands the results down. On a CPU in half precision the fused attention kernel takes most of a
training step; `LevelAttention` replaces it there (same result, three times as fast).

Shapes: N weeks, T positions, H heads, d head size, C width.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .blocks_mstar import drop, mark
from .configuration_mstar import MstarConfig

Modulation = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # gate, 1 + scale, shift, each (N, 1, C)
SCORES_AT_ONCE = 2**20  # of `LevelAttention`
MASKED_SHARE = 0.25  # levels within this share of all positions are one masked block of `LevelAttention`


class MstarModulation(nn.Module):
    """AdaLN net: condition (N, C) -> gate, 1 + scale, shift, each (N, 1, C): W2 SiLU(W1 c), in thirds."""

    def __init__(self, config: MstarConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.down_proj = nn.Linear(3 * config.hidden_size, 3 * config.hidden_size)

    def forward(self, condition: torch.Tensor) -> Modulation:
        values = self.down_proj(F.silu(self.up_proj(condition))).to(condition.dtype).unsqueeze(1)
        gate, scale, shift = values.chunk(3, dim=-1)
        return gate, 1 + scale, shift


def adaptive_norm(hidden: torch.Tensor, modulation: Modulation, eps: float) -> torch.Tensor:
    """LayerNorm without parameters of its own, then the condition's scale and shift, (N, T, C) -> (N, T, C)."""
    normed = F.layer_norm(hidden, hidden.shape[-1:], eps=eps)
    return torch.addcmul(modulation[2].to(normed.dtype), normed, modulation[1].to(normed.dtype))


def drop_path(gate: torch.Tensor, probability: float, training: bool) -> torch.Tensor:
    """Stochastic depth on a branch's gate (N, 1, C): the branch of a week is skipped as a whole."""
    if not training or not probability:
        return gate
    kept = torch.rand(gate.shape[0], 1, 1, device=gate.device) >= probability
    return gate * kept / (1 - probability)


class MstarCache:
    """Keys and values of the positions generated so far, (layers, N, H, T, d) of exact size, allocated once.

    `start` is where the current pass begins.
    """

    def __init__(self, num_layers: int, length: int) -> None:
        self.num_layers, self.length, self.start = num_layers, length, 0
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def update(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the current pass's (N, H, T_k, d); return all up to its end."""
        batch, heads, steps, size = key.shape
        if self.keys is None:
            shape = (self.num_layers, batch, heads, self.length, size)
            self.keys, self.values = key.new_empty(shape), key.new_empty(shape)
        end = self.start + steps
        self.keys[layer, :, :, self.start : end] = key
        self.values[layer, :, :, self.start : end] = value
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class LevelAttention(torch.autograd.Function):
    """Block-causal attention as matrix products, few weeks at a time so that scores stay in the processor's cache.

    A level attends to itself and what is coarser, without a mask; the few positions of the coarsest levels are one
    masked block. Inputs (N, H, T, d), the query already scaled; returns (N, T, H, d). For CPUs; no dropout.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: tuple[int, ...]
    ) -> torch.Tensor:
        shape = query.shape
        query, key, value = (x.contiguous().flatten(0, 1) for x in (query, key, value))
        blocks, mask = attention_blocks(lengths)
        output = torch.empty_like(query)
        weights = [query.new_empty(len(query), end - start, end) for start, end in blocks]
        for rows in _few_weeks(shape):
            for (start, end), kept in zip(blocks, weights):
                scores = torch.bmm(query[rows, start:end], key[rows, :end].transpose(1, 2))
                if start == 0:
                    scores = scores.masked_fill_(mask, float("-inf"))
                torch.softmax(scores, -1, out=kept[rows])
                output[rows, start:end] = torch.bmm(kept[rows], value[rows, :end])
        ctx.save_for_backward(query, key, value, *weights)
        ctx.blocks, ctx.shape = blocks, shape
        return output.view(shape).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *weights = ctx.saved_tensors
        grad_output = grad_output.transpose(1, 2).contiguous().flatten(0, 1)
        grads = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for rows in _few_weeks(ctx.shape):
            grad_key = torch.zeros_like(key[rows], dtype=torch.promote_types(key.dtype, torch.float32))
            grad_value = torch.zeros_like(grad_key)
            for (start, end), kept in zip(ctx.blocks, weights):
                above = grad_output[rows, start:end]
                raw = torch.bmm(above, value[rows, :end].transpose(1, 2))
                scores = torch.ops.aten._softmax_backward_data(raw, kept[rows], -1, kept.dtype)
                grad_value[:, :end] += torch.bmm(kept[rows].transpose(1, 2), above)
                grad_key[:, :end] += torch.bmm(scores.transpose(1, 2), query[rows, start:end])
                grads[0][rows, start:end] = torch.bmm(scores, key[rows, :end])
            grads[1][rows], grads[2][rows] = grad_key, grad_value
        return *(grad.view(ctx.shape) for grad in grads), None


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


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, float("-inf"))
    weights = F.softmax(scores, dim=-1, dtype=torch.promote_types(query.dtype, torch.float32)).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class MstarAttention(nn.Module):
    """Multi-head attention; who may see whom is the mask's matter, or the cache's."""

    def __init__(self, config: MstarConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.pass_lengths = config.drawing_order.lengths
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)  # one product is faster than three
        mark(self.qkv_proj, init_bound=(6.0 / (4 * config.hidden_size)) ** 0.5)  # Xavier
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
        if cache is None and not probability and self._use_level_attention(query):
            output = LevelAttention.apply(query * self.scaling, key, value, self.pass_lengths)
        else:
            attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
                self.config._attn_implementation, eager_attention_forward
            )
            output, weights = attention(
                self, query, key, value, attention_mask, dropout=probability, scaling=self.scaling, **kwargs
            )
        return self.o_proj(output.reshape(hidden_states.shape)), weights

    def _use_level_attention(self, query: torch.Tensor) -> bool:
        return (
            query.requires_grad
            and query.device.type == "cpu"
            and query.dtype == torch.bfloat16
            and self.config._attn_implementation == "sdpa"
            and not torch.compiler.is_compiling()
        )


class MstarMLP(nn.Module):
    """Feed-forward network C -> 4 C -> C with GELU."""

    def __init__(self, config: MstarConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.gelu(self.up_proj(hidden_states)))


class MstarLayer(GradientCheckpointingLayer):
    """Pre-norm block whose norms, and the gates of its two branches, follow the condition."""

    def __init__(self, config: MstarConfig, layer_idx: int) -> None:
        super().__init__()
        self.eps = config.layer_norm_eps
        self.dropout = float(config.dropout)
        self.drop_path = config.drop_path * layer_idx / max(config.num_hidden_layers - 1, 1)
        self.self_attn = MstarAttention(config, layer_idx)
        self.mlp = MstarMLP(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_modulation: Modulation,
        mlp_modulation: Modulation,
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
        branch = drop(branch, self.dropout if self.training else 0.0)
        gate = drop_path(gate, self.drop_path, self.training)
        return torch.addcmul(hidden_states, branch.to(hidden_states.dtype), gate.to(hidden_states.dtype))


__all__ = [
    "LevelAttention",
    "Modulation",
    "MstarAttention",
    "MstarCache",
    "MstarLayer",
    "MstarModulation",
    "adaptive_norm",
]
