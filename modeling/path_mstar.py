"""From the codec's scores of each hour to a week of cells: the best cell per hour, or a path on which people stay.

Unusual: the chain's transition matrix is stay * I + (1 - stay) / C, so one step costs O(C) instead of O(C x C), and
both the best path and an exact draw need no approximation. The codec's scores are posteriors of each hour; with a flat
prior over cells they act as likelihoods of the chain, and `emission_scale` (their exponent) says how much they weigh
against it: above 1 a single odd hour is believed sooner.

Shapes: N weeks, L hours, C cells. `stay` (L - 1,): probability that an hour's cell is kept in the next.
"""

from __future__ import annotations

import torch

from .sampling_mstar import draw_from


def fit_stay_probability(cells: torch.Tensor) -> torch.Tensor:
    """Share of people who keep their cell from hour t to t + 1, (N, L) -> (L - 1,) float32.

    Hours of cell -1 are unknown and do not count. One week that stays and one that moves are added, so that no step is
    certain.
    """
    before, after = cells[:, :-1], cells[:, 1:]
    known = (before >= 0) & (after >= 0)
    stayed = known & (before == after)
    return ((stayed.sum(0) + 1.0) / (known.sum(0) + 2.0)).float()


def clamp_to_known(logits: torch.Tensor, cells: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Scores (N, L, C) that leave an hour marked `known` (N, L) nothing but its cell (N, L)."""
    place = torch.arange(logits.shape[-1], device=logits.device)
    closed = known.unsqueeze(-1) & (place != cells.unsqueeze(-1))
    return logits.masked_fill(closed, float("-inf"))


def best_path(logits: torch.Tensor, stay: torch.Tensor) -> torch.Tensor:
    """The most probable path (Viterbi), (N, L, C) -> (N, L) int64, exact."""
    emission = logits.log_softmax(-1)
    stay = stay.to(emission)
    kept, moved = _pair_probabilities(stay, logits.shape[-1])
    log_kept, log_moved = kept.log(), moved.log()
    score = emission[:, 0]
    stays, sources = [], []
    for hour in range(1, logits.shape[1]):
        best, source = (score + log_moved[hour - 1]).max(-1, keepdim=True)
        from_here = score + log_kept[hour - 1]
        stays.append(from_here >= best)
        sources.append(source)
        score = torch.maximum(from_here, best) + emission[:, hour]
    path = [score.argmax(-1, keepdim=True)]
    for staying, source in zip(reversed(stays), reversed(sources)):
        path.append(torch.where(staying.gather(-1, path[-1]), path[-1], source))
    return torch.cat(path[::-1], dim=1)


def sample_path(logits: torch.Tensor, stay: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """A path drawn from the chain given the scores (forward filtering, backward sampling), (N, L, C) -> (N, L) int64.

    Args:
        noise: (N, 2, L), uniform in [0, 1).
    """
    emission = logits.softmax(-1)
    kept, moved = _pair_probabilities(stay.to(emission), logits.shape[-1])
    filtered = [emission[:, 0]]
    for hour in range(1, logits.shape[1]):
        predicted = (kept[hour - 1] - moved[hour - 1]) * filtered[-1] + moved[hour - 1]
        joint = predicted * emission[:, hour]
        filtered.append(joint / joint.sum(-1, keepdim=True))
    candidates = draw_from(
        torch.stack(filtered, dim=1), noise[:, 0]
    )  # where an hour would be if the next came by a move
    path = [candidates[:, -1:]]
    for hour in range(logits.shape[1] - 2, -1, -1):
        here = filtered[hour].gather(-1, path[-1])
        by_staying = (kept[hour] - moved[hour]) * here
        stays = noise[:, 1, hour : hour + 1] * (by_staying + moved[hour]) < by_staying
        path.append(torch.where(stays, path[-1], candidates[:, hour : hour + 1]))
    return torch.cat(path[::-1], dim=1)


def _pair_probabilities(stay: torch.Tensor, cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Entries of the transition matrix of each step, on and off its diagonal, each (L - 1,)."""
    moved = (1 - stay) / cells
    return stay + moved, moved


__all__ = ["best_path", "clamp_to_known", "fit_stay_probability", "sample_path"]
