"""From the codec's scores of each hour to a week of cells: the best cell per hour, or a path on which people stay and
return.

Unusual: the chain's transition matrix is stay * I + (1 - stay) * arrival, where one distribution of arrivals serves
every origin, so one step costs O(C) instead of O(C x C), and both the best path and an exact draw need no
approximation. That distribution is the week's own: a move leads back to a place in proportion to the hours that the
week spends there, or anywhere in proportion to the arrivals of all people (preferential return and exploration, Song
et al. 2010, doi 10.1038/nphys1760). The codec's scores are posteriors of each hour; with a flat prior over cells they
act as likelihoods of the chain, and `emission_scale` (their exponent) says how much they weigh against it: above 1 a
single odd hour is believed sooner.

Shapes: N weeks, L hours, C cells. `stay` (L - 1,): probability that an hour's cell is kept in the next. `arrival`
(N, C): where those go who do not stay; rows sum to 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

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


def fit_arrivals(cells: torch.Tensor, num_cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where moves lead, (N, L) with -1 = unknown -> share of the arrivals of each cell (C,) float32, and the share of
    arrivals at a place where the week stays more than once () float32.

    One arrival spread over all cells, and one of either kind, are added, so that nothing is impossible.
    """
    known = cells >= 0
    moved = F.pad(known[:, 1:] & known[:, :-1] & (cells[:, 1:] != cells[:, :-1]), (1, 0))
    starts = known & (moved | ~F.pad(known[:, :-1], (1, 0)))
    place = torch.arange(len(cells), device=cells.device).unsqueeze(1) * num_cells + cells
    _, stay, stays = place[starts].unique(return_inverse=True, return_counts=True)
    returns = (stays[stay[moved[starts]]] > 1).sum()
    counts = torch.bincount(cells[moved], minlength=num_cells) + 1 / num_cells
    return (counts / counts.sum()).float(), ((returns + 1.0) / (moved.sum() + 2.0)).float()


def week_arrivals(logits: torch.Tensor, arrival: torch.Tensor, return_share: torch.Tensor) -> torch.Tensor:
    """Distribution (N, C) of each week's arrivals: the hours it spends in each cell as its scores (N, L, C) have it,
    mixed with the arrivals (C,) of all people.
    """
    return torch.lerp(arrival.to(logits), logits.softmax(-1).mean(1), return_share.to(logits))


def clamp_to_known(logits: torch.Tensor, cells: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Scores (N, L, C) that leave an hour marked `known` (N, L) nothing but its cell (N, L)."""
    place = torch.arange(logits.shape[-1], device=logits.device)
    closed = known.unsqueeze(-1) & (place != cells.unsqueeze(-1))
    return logits.masked_fill(closed, float("-inf"))


def best_path(logits: torch.Tensor, stay: torch.Tensor, arrival: torch.Tensor) -> torch.Tensor:
    """The most probable path (Viterbi), (N, L, C) -> (N, L) int64, exact."""
    emission = logits.log_softmax(-1)
    stay, arrival = stay.to(emission), arrival.to(emission)
    moved = 1 - stay
    log_arrival, log_moved = arrival.log(), moved.log()
    score = emission[:, 0]
    stays, sources = [], []
    for hour in range(1, logits.shape[1]):
        best, source = score.max(-1, keepdim=True)
        from_best = best + log_moved[hour - 1] + log_arrival
        from_here = score + (stay[hour - 1] + moved[hour - 1] * arrival).log()
        stays.append(from_here >= from_best)
        sources.append(source)
        score = torch.maximum(from_here, from_best) + emission[:, hour]
    path = [score.argmax(-1, keepdim=True)]
    for staying, source in zip(reversed(stays), reversed(sources)):
        path.append(torch.where(staying.gather(-1, path[-1]), path[-1], source))
    return torch.cat(path[::-1], dim=1)


def sample_path(logits: torch.Tensor, stay: torch.Tensor, arrival: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """A path drawn from the chain given the scores (forward filtering, backward sampling), (N, L, C) -> (N, L) int64.

    Args:
        noise: (N, 2, L), uniform in [0, 1).
    """
    emission = logits.softmax(-1)
    stay, arrival = stay.to(emission), arrival.to(emission)
    moved = 1 - stay
    filtered = [emission[:, 0]]
    for hour in range(1, logits.shape[1]):
        predicted = stay[hour - 1] * filtered[-1] + moved[hour - 1] * arrival
        joint = predicted * emission[:, hour]
        filtered.append(joint / joint.sum(-1, keepdim=True))
    candidates = draw_from(
        torch.stack(filtered, dim=1), noise[:, 0]
    )  # where an hour would be if the next came by a move
    path = [candidates[:, -1:]]
    for hour in range(logits.shape[1] - 2, -1, -1):
        by_staying = stay[hour] * filtered[hour].gather(-1, path[-1])
        by_moving = moved[hour] * arrival.gather(-1, path[-1])
        stays = noise[:, 1, hour : hour + 1] * (by_staying + by_moving) < by_staying
        path.append(torch.where(stays, path[-1], candidates[:, hour : hour + 1]))
    return torch.cat(path[::-1], dim=1)


__all__ = [
    "best_path",
    "clamp_to_known",
    "fit_arrivals",
    "fit_stay_probability",
    "sample_path",
    "week_arrivals",
]
