"""The loss of the STAR-Transformer: cross-entropy of every position over the whole codebook.

In training, `head_loss` makes logits and their gradient a slice at a time and never keeps them.

Notes:
    At the paper's size the logits of 64 weeks are 490 MB in float32, and reading and writing them several times takes
    longer than the products they come from (benchmarks/speed/kernels.csv). Not in float16, where gradients made before
    the loss is scaled would vanish.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .pointer_mstar import PointerScores

ROWS_PER_SLICE = {"cpu": 1024}  # others: 32,768, as starting a kernel costs more there


class _HeadLoss(torch.autograd.Function):
    """sum_i w_i CE(h_i W^T + b, y_i), with the gradient computed on the way forward. With a pointer, the
    logits of `codes` (n, K) are raised by `raised`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        raised: torch.Tensor | None,
        codes: torch.Tensor | None,
        targets: torch.Tensor,
        shares: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        losses = shares.new_empty(len(targets), dtype=wide)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=wide)
        grad_bias = torch.zeros_like(bias, dtype=wide)
        grad_raised = None if raised is None else torch.empty_like(raised)
        step = ROWS_PER_SLICE.get(hidden.device.type, 2**15)
        for start in range(0, len(targets), step):
            part = slice(start, start + step)
            rows, wanted = hidden[part], targets[part].unsqueeze(1)
            logits = torch.addmm(bias, rows, weight.t())
            if raised is not None:
                logits.scatter_add_(1, codes[part], raised[part])
            probability = torch.softmax(logits, dim=-1)
            found = probability.gather(1, wanted)
            losses[part] = -found.to(wide).clamp(min=torch.finfo(wide).tiny).log().squeeze(1)
            probability.scatter_(1, wanted, found - 1)
            probability.mul_(shares[part].unsqueeze(1).to(probability.dtype))
            if grad_raised is not None:
                grad_raised[part] = probability.gather(1, codes[part])
            grad_hidden[part] = torch.mm(probability, weight)
            grad_weight += torch.mm(probability.t(), rows)
            grad_bias += torch.mm(torch.ones_like(probability[:, :1]).t(), probability)[0]  # faster than sum(0)
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), grad_raised)
        ctx.mark_non_differentiable(losses)
        return (losses * shares).sum(), losses

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grads = ctx.saved_tensors
        return *(None if grad is None else grad * grad_loss.to(grad.dtype) for grad in grads), None, None, None


def fits_head_loss(head: nn.Module, device: torch.device) -> bool:
    """Whether `head_loss` serves here: a plain layer (no adapter), not compiled, and not in float16."""
    return (
        type(head) is nn.Linear
        and not torch.compiler.is_compiling()
        and _working_dtype(head, device.type) != torch.float16
    )


def _working_dtype(head: nn.Linear, device: str) -> torch.dtype:
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype


def head_loss(
    head: nn.Linear,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    shares: torch.Tensor,
    pointer: PointerScores | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of `head(hidden)`, raised by `pointer`, without keeping logits.

    Args:
        head: C -> V with a bias. hidden: (N, T, C). targets: (N, T) int64 in [0, V).
        shares: (N, T) float, weight of each position in the loss; 0 = none.
        pointer: codes (N, T, K) whose logits are raised, and by how much.

    Returns:
        The weighted sum, with gradients; the loss of each position (N, T), without. In half precision (autocast) the
        latter carry its rounding, about 0.2 % of a probability.
    """
    device = hidden.device.type
    dtype = _working_dtype(head, device)
    with torch.autocast(device, enabled=False):
        loss, losses = _HeadLoss.apply(
            hidden.to(dtype).flatten(0, 1),
            head.weight.to(dtype),
            head.bias.to(dtype),
            None if pointer is None else pointer.scores.to(dtype).flatten(0, 1),
            None if pointer is None else pointer.codes.flatten(0, 1),
            targets.flatten(),
            shares.flatten(),
        )
    return loss, losses.view(targets.shape)


def position_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each position, logits (N, T, V), targets (N, T) -> (N, T) float32."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


def mean_per_level(losses: torch.Tensor, counted: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Mean over the counted positions of each level, (N, T) and bool (N, T) -> (S,); 0 where none counts."""
    sums = (losses * counted).sum(0).split(lengths)
    counts = counted.sum(0).split(lengths)
    return torch.stack([value.sum() / number.sum().clamp(min=1) for value, number in zip(sums, counts)])


__all__ = ["fits_head_loss", "head_loss", "mean_per_level", "position_losses"]
