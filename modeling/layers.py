"""What the three systems share: attention, marks of initial values, renamed arguments, the name of the key/value cache.

(No `from __future__ import annotations` here: layers are read by transformers.)

Shapes: B sequences, T positions, D `hidden_size`, H heads, d head size.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.import_utils import is_tracing

ROWS_AT_ONCE = 2**13  # rows that are one block, whatever they take
BLOCK_VALUES = 2**20  # intermediate values of a block where there are more rows, 4 MiB


def mark(module: nn.Module, **values: Any) -> None:
    """Set the marks (`init_std`, `init_bound`, `init_weight`, `init_bias`, `uniform_bias`) that `_init_weights` reads.

    transformers skips modules of custom code that hold no parameter of their own, so a matrix that starts differently
    carries marks that its owner sets.
    """
    for name, value in values.items():
        setattr(module, name, value)


def widened(values: torch.Tensor) -> torch.Tensor:
    """The values in float32, or in float64 if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def blocks(rows: torch.Tensor, values: int) -> list[slice]:
    """Blocks of many rows, each of which takes `values` intermediate values: bounded memory, in the processor's cache.

    All rows are one block while gradients are recorded, which keep every value in any case, and while a graph is
    traced.
    """
    if torch.is_grad_enabled() or is_tracing(rows) or len(rows) <= ROWS_AT_ONCE:
        return [slice(None)]
    step = max(64, BLOCK_VALUES // values)
    return [slice(start, start + step) for start in range(0, len(rows), step)]


def kept_numbers(shape: tuple[int, ...], probability: float) -> tuple[torch.Tensor, float]:
    """Which numbers dropout keeps, bool of this shape on the CPU, and the factor that keeps their mean.

    One random number of 64 bits gives four draws, which takes a fifth of the time of torch's Bernoulli draws. The
    probability, below 1, is rounded to 1/65,536, and the factor follows it.
    """
    count, dropped = math.prod(shape), min(round(probability * 2**16), 2**16 - 1)
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]
    return (draws >= dropped - 2**15).view(shape), 2**16 / (2**16 - dropped)


def drop(values: torch.Tensor, probability: float, training: bool) -> torch.Tensor:
    """Dropout: on the CPU with `kept_numbers`, elsewhere torch's own."""
    if not training or not probability:
        return values
    if values.device.type != "cpu" or probability == 1 or torch.compiler.is_compiling():
        return F.dropout(values, probability)
    kept, factor = kept_numbers(values.shape, probability)
    return (values * kept).mul_(factor)


def plus_product(total: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """total + one @ other, (B, M, N), (B, M, K), (B, K, N). Autocast rounds the product and not the total."""
    if torch.is_autocast_enabled(total.device.type):
        return total + torch.bmm(one, other)
    return torch.baddbmm(total, one, other)


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
    """Attention written out, (B, H, T, d) -> (B, T, H, d) and its weights (B, H, T, K); softmax in float32 at least. A
    mask is bool (`True` = seen) or is added to the scores.
    """
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, float("-inf"))
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1, dtype=torch.promote_types(query.dtype, torch.float32)).to(query.dtype)
    weights = drop(weights, dropout, module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class MultiHeadAttention(nn.Module):
    """Sizes of an attention and the choice of its kernel; projections are the subclass's.

    Args:
        config: has `hidden_size`, `num_attention_heads` and `attention_dropout`.
        layer_idx: the layer of the key/value cache.
        is_causal: what fused kernels assume where there is no mask.
    """

    def __init__(self, config: PreTrainedConfig, layer_idx: int = 0, *, is_causal: bool = True) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = is_causal

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        kernel: str | Callable | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, H, T, d) -> (B, T, H, d) and, where the kernel gives them, the weights. `kernel`: a name or a function
        like `eager_attention_forward`; by default the one that the configuration names.
        """
        attention = self.config._attn_implementation if kernel is None else kernel
        if not callable(attention):
            attention = ALL_ATTENTION_FUNCTIONS.get_interface(attention, eager_attention_forward)
        return attention(self, query, key, value, attention_mask, scaling=self.scaling, **kwargs)


class SelfAttention(MultiHeadAttention):
    """Multi-head self-attention with biases and four separate matrices, (B, T, D) -> (B, T, D).

    An axis between batch and time, (B, S, T, D), is folded into the heads: its entries share the weights and do not
    attend to one another.

    Example:

        >>> from hf_mobility import RawConfig
        >>> attention = SelfAttention(RawConfig.from_preset("tiny", attn_implementation="eager"))
        >>> attention(torch.zeros(2, 5, 16))[0].shape
        torch.Size([2, 5, 16])
    """

    def __init__(self, config: PreTrainedConfig, layer_idx: int = 0, *, is_causal: bool = True) -> None:
        super().__init__(config, layer_idx, is_causal=is_causal)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def mark_xavier(self) -> None:
        """Let query, key and value start with Xavier values of the three as one matrix (D, 3 D)."""
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            mark(projection, init_bound=(6 / (4 * self.config.hidden_size)) ** 0.5)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        dropping: bool | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """hidden_states (B, T, D) or (B, S, T, D). `dropping`: whether to drop attention weights; by default as the
        mode says.
        """
        shape = hidden_states.shape
        rows = hidden_states.flatten(1, -2)  # (B, S T, D): adapters know rows by the first of three axes

        def heads(x: torch.Tensor) -> torch.Tensor:  # (B, S T, D) -> (B, heads, T, d)
            return x.view(*shape[:-1], self.num_heads, self.head_dim).transpose(-3, -2).flatten(1, -3)

        query, key, value = (heads(proj(rows)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        dropping = self.training if dropping is None else dropping
        dropout = float(self.config.attention_dropout) if dropping else 0.0
        output, weights = self.attend(query, key, value, attention_mask, dropout=dropout, **kwargs)
        output = output.reshape(shape[0], shape[-2], -1, shape[-1]).transpose(1, 2)
        return self.o_proj(output.reshape(rows.shape)).view(shape), weights


class OwnGenerate:
    """A model whose `generate` is its own."""

    @classmethod
    def can_generate(cls) -> bool:
        """`False`, as `generate` is no `GenerationMixin`'s. Said here, because transformers adds that class to models
        that it loads by their own code.
        """
        return False


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """Positions counted from each series' first unpadded entry, (B, T) int64; padding before it counts as 0."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def positions_behind(
    cache: Cache | None, attention_mask: torch.Tensor | None, length: int, *, device: torch.device, entries: str
) -> torch.Tensor:
    """Positions (B or 1, length) int64 of new entries behind those in the cache, counted as in `positions_of`.

    Args:
        attention_mask: (B, past + length), 0 = padding; masks of other forms say nothing of padding.
        entries: what the sequences consist of, for the sentence.

    Raises:
        ValueError: if the mask has another number of columns.
    """
    past = cache.get_seq_length() if cache is not None else 0
    if attention_mask is None or attention_mask.dim() != 2:
        return (torch.arange(length, device=device) + past).unsqueeze(0)
    if isinstance(past, int) and attention_mask.shape[1] != past + length:
        raise ValueError(
            f"attention_mask has {attention_mask.shape[1]} columns; {past} {entries} in the cache and {length} new "
            f"ones need {past + length}."
        )
    return positions_of(attention_mask)[:, -length:]


def finite(values: torch.Tensor, model: Any) -> torch.Tensor:
    """The values as they are. Raises a `ValueError` for an answer with NaN or infinite values."""
    bad = int((~values.isfinite()).sum())
    if bad:
        raise ValueError(
            f"{type(model).__name__} answered {bad:,} of {values.numel():,} values that are not finite: its weights do "
            "not suit this input or dtype, so load it in float32 or train it again."
        )
    return values


def renamed_argument(old: str, new: str, *, warn: bool = True) -> Callable[[Callable], Callable]:
    """Decorator: the keyword argument `old` of a function still serves as `new`, by default with a FutureWarning.

    Raises:
        ValueError: at the call, if both are given.
    """

    def decorate(function: Callable) -> Callable:
        @wraps(function)
        def with_old_name(*args: Any, **kwargs: Any) -> Any:
            value = kwargs.pop(old, None)
            if value is not None:
                if kwargs.get(new) is not None:
                    raise ValueError(f"{new} and {old} are two names of one argument; give one of them.")
                if warn:
                    message = f"{old} is now {new}; the old name is accepted until version 0.2."
                    warnings.warn(message, FutureWarning, stacklevel=2)
                kwargs[new] = value
            return function(*args, **kwargs)

        return with_old_name

    return decorate


# transformers calls the key/value cache `cache` from 5.24 on and `past_key_values` before. Its generation, masks and
# gradient checkpointing look for the name of their version, in the arguments of a `forward` and in the fields of its
# output. Inside our models it is `cache`; `CACHE` is its name outside.
CACHE = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"
either_cache_name = renamed_argument("past_key_values", "cache", warn=False)


__all__ = [
    "CACHE",
    "MultiHeadAttention",
    "OwnGenerate",
    "SelfAttention",
    "drop",
    "eager_attention_forward",
    "either_cache_name",
    "finite",
    "kept_numbers",
    "mark",
    "positions_behind",
    "positions_of",
    "renamed_argument",
    "widened",
]
