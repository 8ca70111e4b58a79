"""Resampling in time for M-STAR: area pooling from hours to a level's positions, bicubic upsampling between levels.

Unusual: both are linear, so each is a fixed matrix, read off torch's own functions once by applying them to the
identity; a matrix product is much faster than interpolating. Pooling divides sums by counts, so that leaving hours out
needs no second matrix and a mask without gaps changes no bit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


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


def widened(values: torch.Tensor) -> torch.Tensor:
    """The values in float32, or in float64 if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


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


__all__ = ["MstarResampler", "pooling_windows", "upsampling_matrix", "widened"]
