"""Regions of RAW: the pooled embeddings of a region's distinct visitors, as one sparse product.

User embeddings are an operand of the product and are never written to. (The authors' code adds visitors into the first
visitor's own vector, which changes that user and every other region that begins with the same user.)
"""

from __future__ import annotations

import warnings

import torch
from transformers.utils.generic import maybe_autocast


def visitor_matrix(
    visitors: torch.Tensor, *, num_regions: int | None = None, num_users: int, min_visits: int = 1
) -> torch.Tensor:
    """Who was where, as a sparse (R, U) float32 matrix of ones: each user counts once per region.

    Args:
        visitors: (V, 2) int64 pairs of (region index, user index), in any order, repeated or not; or a sparse (R, U)
            matrix of visit counts (COO or CSR).
        num_regions: R; by default the largest region index + 1, or the rows of the matrix.
        min_visits: pairs that occur less often are left out (the authors' code: 1).

    Raises:
        ValueError: for another shape, or for indices outside 0..R-1 and 0..U-1.
    """
    counts = _as_sparse(visitors, num_regions, num_users).coalesce()
    kept = counts.values() >= min_visits
    indices = counts.indices()[:, kept]
    ones = torch.ones(indices.shape[1], device=indices.device)
    return torch.sparse_coo_tensor(indices, ones, counts.shape, is_coalesced=True, check_invariants=False)


def _as_sparse(visitors: torch.Tensor, num_regions: int | None, num_users: int) -> torch.Tensor:
    if visitors.layout != torch.strided:
        matrix = visitors.to_sparse_coo()
        rows = matrix.shape[0] if num_regions is None else num_regions
        if tuple(matrix.shape) != (rows, num_users):
            raise ValueError(f"visitors is a matrix {tuple(matrix.shape)}, needed is ({rows}, {num_users}).")
        return matrix
    if visitors.dim() != 2 or visitors.shape[1] != 2 or visitors.is_floating_point():
        raise ValueError(
            f"visitors must be integer pairs (region index, user index), (V, 2), or a sparse (R, U) matrix, got "
            f"{visitors.dtype} {tuple(visitors.shape)}."
        )
    if num_regions is None:
        num_regions = int(visitors[:, 0].max()) + 1 if len(visitors) else 0
    size = torch.tensor([num_regions, num_users], device=visitors.device)
    strange = ((visitors < 0) | (visitors >= size)).any(1)
    if strange.any():
        raise ValueError(
            f"visitors: {int(strange.sum())} of {len(visitors)} pairs lie outside {num_regions} regions and "
            f"{num_users} users, first {visitors[strange][:5].tolist()}; indices count from 0."
        )
    ones = torch.ones(len(visitors), device=visitors.device)
    shape = (num_regions, num_users)
    return torch.sparse_coo_tensor(visitors.t().long(), ones, shape, check_invariants=False)


def pool_visitors(
    matrix: torch.Tensor, user_embeddings: torch.Tensor, *, pooling: str = "sum"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of every region (R, D), or (R, D + 1) with `log`, and its number of distinct visitors (R,), float32.

    pooling: `sum` (the paper; grows with the number of visitors), `mean`, or `log` = the mean and log(1 + number). A
    region without visitors is zero.
    """
    counts = torch.bincount(matrix.indices()[0], minlength=matrix.shape[0]).float()
    # Sparse products exist in float32 on every device, and a sum over thousands of people needs it.
    with maybe_autocast(user_embeddings.device.type, enabled=False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR")  # "beta"; four times as fast as COO on a CPU
        total = torch.sparse.mm(matrix.to_sparse_csr(), user_embeddings.float())
    if pooling == "sum":
        return total, counts
    mean = total / counts.clamp(min=1).unsqueeze(1)
    if pooling == "mean":
        return mean, counts
    return torch.cat([mean, counts.log1p().unsqueeze(1)], dim=1), counts
