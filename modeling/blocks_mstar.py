"""Transformer blocks of the M-STAR codec: post-norm, without a causal mask, and fixed sine/cosine positions.

Unusual: whether to drop is an argument of the call, so that a codec can encode without dropout inside a model that
trains.

(No `from __future__ import annotations` here: layers are read by transformers.)
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_mstar import MstarCodecConfig


def mark(module: nn.Module, **values: float) -> None:
    """Set the marks (`init_bound`, `init_std`, `init_bias`) that `_init_weights` reads."""
    for name, value in values.items():
        setattr(module, name, value)


def drop(values: torch.Tensor, probability: float) -> torch.Tensor:
    """Dropout, whatever the mode. On a CPU torch's own takes most of a training step, as it draws once per element, on
    one thread. There 16 bits each come from numpy's fastest source, seeded by torch's; the probability is rounded to a
    multiple of 2^-16.
    """
    if not probability:
        return values
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(values, probability)
    count = values.numel()
    seed = int(torch.randint(2**62, (), device="cpu"))
    draws = np.random.Generator(np.random.SFC64(seed)).integers(2**64, size=(count + 3) // 4, dtype=np.uint64)
    kept = torch.from_numpy(draws.view(np.int16)[:count]).view(values.shape).ge_(round(probability * 2**16) - 2**15)
    return values * kept.to(values.dtype).mul_(1 / (1 - probability))


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
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, float("-inf"))
    elif attention_mask is not None:
        scores = scores + attention_mask.to(scores.dtype)
    weights = drop(F.softmax(scores, dim=-1), dropout)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class MstarCodecAttention(nn.Module):
    """Multi-head attention without a causal mask. To train on a CPU, `sdpa` gives way to the same sums written out: the
    backward pass of the fused kernel makes a step twice as long there, and with dropout it is not fused at all.
    """

    def __init__(self, config: MstarCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            mark(projection, init_bound=(6 / (4 * config.hidden_size)) ** 0.5)  # Xavier of the three as one matrix
        mark(self.o_proj, init_bound=config.hidden_size**-0.5)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, dropping: bool = False
    ) -> torch.Tensor:
        shape = (*hidden_states.shape[:-1], self.num_heads, self.head_dim)
        query, key, value = (
            proj(hidden_states).view(shape).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        name = self.config._attn_implementation
        if name == "sdpa" and self.training and query.requires_grad and query.device.type == "cpu":
            name = "eager"
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention_forward)
        dropout = float(self.config.attention_dropout) if dropping else 0.0
        output, _ = attention(self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling)
        return self.o_proj(output.reshape(hidden_states.shape))


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
        mark(self.up_proj, init_bound=config.hidden_size**-0.5)
        mark(self.down_proj, init_bound=config.intermediate_size**-0.5)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, dropping: bool = False
    ) -> torch.Tensor:
        dropout = self.dropout if dropping else 0.0
        attended = self.self_attn(hidden_states, attention_mask, dropping)
        hidden_states = self.post_attention_layernorm(hidden_states + drop(attended, dropout))
        inner = self.down_proj(drop(F.gelu(self.up_proj(hidden_states)), dropout))
        return self.post_feedforward_layernorm(hidden_states + drop(inner, dropout))


class MstarSinusoids(nn.Module):
    """Fixed sine/cosine positions (base 10000), added to (N, L, D)."""

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


__all__ = ["MstarCodecAttention", "MstarCodecLayer", "MstarSinusoids", "drop", "mark"]
