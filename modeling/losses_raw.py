"""Losses that RAW's models share: means over what counts, and the losses of transformers' sequence classifiers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .configuration_raw import RawConfig

IGNORED = -100  # a label that does not count, as everywhere in transformers; no coordinate is that far out


def mean_over(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Mean of the values that count; 0 if none does."""
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp(min=1)


def task_loss(logits: torch.Tensor, labels: torch.Tensor, config: RawConfig) -> torch.Tensor:
    """Mean squared error, cross-entropy or binary cross-entropy of logits (n, num_labels), by transformers' rules:
    `problem_type`, or what `num_labels` and the labels' type say. Labels that are -100 or NaN do not count.
    """
    kind: str | None = config.problem_type
    if kind is None:
        several = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
        kind = "regression" if config.num_labels == 1 else several
    if kind == "single_label_classification":
        labels = labels.view(-1).long()
        losses = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
        return mean_over(losses, labels != IGNORED)
    labels = labels.float().view_as(logits)
    counted = ~labels.isnan() & (labels != IGNORED)
    labels = torch.where(counted, labels, 0.0)
    if kind == "regression":
        return mean_over((logits - labels).square(), counted)
    return mean_over(F.binary_cross_entropy_with_logits(logits, labels, reduction="none"), counted)
