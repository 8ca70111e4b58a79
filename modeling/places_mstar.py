"""Place head of M-STAR: chooses the places of a city for users whose weeks name slots (home, work, recurring, single).

Not in the paper. The places of any city are known by the columns of `location_features`, as SAMoE reads them. A choice
goes from zones of 4 km to cells of 1 km to places. At each step a part b of the city has the score

    s_k(b) = w_k log sum_{i in b} exp(appeal_k(i)) + near_k(distances from home, work and the last place to b)

for the kind of place k, and parts are drawn by a softmax over the parts of what was chosen before. So the cost of a
choice grows with the zones, the cells of one zone and the places of one cell, and not with all places.

Shapes: P places, F columns, B choices, K = 4 kinds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .configuration_mstar import MstarConfig
from .generation_mstar import draw_from
from .layers import mark

KINDS = 4  # home, work, recurring, single
LEVELS_KM = (4.0, 1.0)  # sides of zones and cells
POPULARITY_LEVELS = 10  # 0 = none, 1 (most visited) to 8, 9 = never seen
ORIGINS = 3  # home, work, the place before
NEAR_KM = 0.5
WIDTH, NEAR_WIDTH = 32, 16
SCORES_AT_ONCE = 2**21  # of `choose`


@dataclass
class CityParts:
    """The parts of a city at one level. parent (n,): the part of the level above that holds each. pull (n, K): log sum
    of exp(appeal) of its places. km (n, 2): their mean position. size (n,): number of its places. first (m + 1,): where
    the children of each of the m parts above begin in this level, whose parts are sorted by parent.
    """

    pull: torch.Tensor
    km: torch.Tensor
    size: torch.Tensor
    first: torch.Tensor
    parent: torch.Tensor


@dataclass
class CityPlaces:
    """levels: zones, cells, places. ids (P,): the row of each place of the last level, whose order is by cell. rank
    (P,): the place of each row in that order. km (P, 2): by row.
    """

    levels: list[CityParts]
    ids: torch.Tensor
    rank: torch.Tensor
    km: torch.Tensor


class MstarPlaces(nn.Module):
    """The head; `MstarForTrajectoryGeneration.places` where the configuration has `num_poi_features`.

    Example:

        >>> places = model.places  # doctest: +SKIP
        >>> city = places.read_city(tokenizer.location_features)  # doctest: +SKIP
        >>> places.choose(city, kind, home, work, before, torch.rand(len(kind), 3))  # doctest: +SKIP
    """

    def __init__(self, config: MstarConfig) -> None:
        super().__init__()
        self.num_poi_features = config.num_poi_features
        columns = config.num_poi_features + POPULARITY_LEVELS
        self.appeal = nn.Sequential(nn.Linear(columns, WIDTH), nn.GELU(), nn.Linear(WIDTH, KINDS, bias=False))
        levels = range(len(LEVELS_KM) + 1)
        self.near = nn.ModuleList(nn.Linear(2 * ORIGINS, KINDS, bias=False) for _ in levels)
        self.bend = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * ORIGINS, NEAR_WIDTH), nn.GELU(), nn.Linear(NEAR_WIDTH, KINDS, bias=False))
            for _ in levels
        )
        self.weight = nn.Parameter(torch.ones(len(levels), KINDS - 1))  # homes lie by their places alone
        for layer in self.near:
            mark(layer, init_bound=0.0)

    def read_city(self, location_features: torch.Tensor) -> CityPlaces:
        """The places of a city.

        Args:
            location_features: (P + 2, F) float32, those of `SamoeTokenizer` with distances: POI columns, x and y,
                popularity level, east and north in km. The first two rows are no places.

        Raises:
            ValueError: columns of another number.
        """
        wanted = self.num_poi_features + 5
        if location_features.dim() != 2 or location_features.shape[1] != wanted:
            raise ValueError(
                f"location_features must be (P + 2, {wanted}), with distances, got {tuple(location_features.shape)}."
            )
        rows = location_features[2:].to(self.weight)
        level = rows[:, self.num_poi_features + 2].long().clamp(0, POPULARITY_LEVELS - 1)
        columns = torch.cat(
            [rows[:, : self.num_poi_features], nn.functional.one_hot(level, POPULARITY_LEVELS).to(rows)], 1
        )
        km = rows[:, -2:]
        return nested(km, self.appeal(columns))

    def log_probability(
        self,
        city: CityPlaces,
        kind: torch.Tensor,
        chosen: torch.Tensor,
        home: torch.Tensor,
        work: torch.Tensor,
        before: torch.Tensor,
    ) -> torch.Tensor:
        """log p of choices that were made, (B,) float32.

        Args:
            kind: (B,) int64, 0 home, 1 work, 2 recurring, 3 single.
            chosen, home, work, before: (B,) int64 rows of places; -1 = none. Home, work and the place before are never
                chosen.
        """
        origins = torch.stack([home, work, before], dim=1)
        path = self._path(city, city.rank[chosen])
        total = torch.zeros(len(kind), device=kind.device)
        inside = torch.zeros_like(kind)
        for number, part in enumerate(path):
            scores, parts = self._scores(city, number, inside, kind, origins)
            hit = parts == part.unsqueeze(1)
            total = total + (scores.masked_fill(~hit, float("-inf")).logsumexp(1) - scores.logsumexp(1)).float()
            inside = part
        return total

    @torch.no_grad()
    def appeals(self, city: CityPlaces, kind: int) -> torch.Tensor:
        """How a place draws for one kind apart from all distances, (P,) float64 by row; sums to 1."""
        return city.levels[-1].pull[city.rank, kind].double().softmax(0)

    @torch.no_grad()
    def choose(
        self,
        city: CityPlaces,
        kind: torch.Tensor,
        home: torch.Tensor,
        work: torch.Tensor,
        before: torch.Tensor,
        numbers: torch.Tensor,
    ) -> torch.Tensor:
        """One place for each choice, (B,) int64 rows; arguments as in `log_probability`.

        Args:
            numbers: (B, 3), uniform in [0, 1): one for each level.
        """
        rows = max(1, SCORES_AT_ONCE // (NEAR_WIDTH * max(widest(city), 1)))
        parts = [
            self._choose(city, *(x[start : start + rows] for x in (kind, home, work, before, numbers)))
            for start in range(0, len(kind), rows)
        ]
        return torch.cat(parts) if parts else kind

    def _choose(self, city: CityPlaces, kind: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        home, work, before, numbers = given
        origins = torch.stack([home, work, before], dim=1)
        inside = torch.zeros_like(kind)
        for number in range(len(city.levels)):
            scores, parts = self._scores(city, number, inside, kind, origins)
            drawn = draw_from(scores.float().softmax(1), numbers[:, number])
            inside = parts.gather(1, drawn.unsqueeze(1)).squeeze(1)
        return city.ids[inside]

    def _scores(
        self, city: CityPlaces, number: int, inside: torch.Tensor, kind: torch.Tensor, origins: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (B, M) of the parts of what was chosen, and the parts (B, M), -1 beyond their number."""
        level = city.levels[number]
        count = level.first[inside + 1] - level.first[inside]
        place = torch.arange(int(count.max()), device=kind.device)
        is_part = place < count.unsqueeze(1)
        parts = torch.where(is_part, level.first[inside].unsqueeze(1) + place, 0)
        given = origins >= 0
        at = city.km[origins.clamp(min=0)]  # (B, 3, 2)
        away = (level.km[parts].unsqueeze(2) - at.unsqueeze(1)).norm(dim=-1)  # (B, M, 3)
        features = torch.cat([(away + NEAR_KM).log(), away / 10], dim=-1) * given.repeat(1, 2).unsqueeze(1)
        near = self.near[number](features) + self.bend[number](features)
        weight = nn.functional.pad(self.weight[number], (1, 0), value=1.0)
        scores = weight * level.pull[parts] + near
        scores = scores.gather(2, kind.view(-1, 1, 1).expand(-1, scores.shape[1], 1)).squeeze(2)
        closed = self._closed(city, number, parts, origins)
        scores = scores.masked_fill(closed, -1e4)  # finite: where all are closed, one must do
        return scores.masked_fill(~is_part, float("-inf")), torch.where(is_part, parts, -1)

    def _closed(self, city: CityPlaces, number: int, parts: torch.Tensor, origins: torch.Tensor) -> torch.Tensor:
        """(B, M) bool: parts that hold nothing but home, work and the place before."""
        rank = torch.where(origins >= 0, city.rank[origins.clamp(min=0)], -1)
        again = (rank.unsqueeze(2) == rank.unsqueeze(1)).tril(-1).any(2)  # the same place twice
        part = self._path(city, rank.clamp(min=0))[number]
        part = torch.where((rank < 0) | again, -1, part)
        inside = (parts.unsqueeze(2) == part.unsqueeze(1)).sum(2)
        return inside >= city.levels[number].size[parts]

    @staticmethod
    def _path(city: CityPlaces, rank: torch.Tensor) -> list[torch.Tensor]:
        """Zone, cell and place (in the order of the last level) of places by their rank."""
        path = [rank]
        for level in reversed(city.levels[1:]):
            path.append(level.parent[path[-1]])
        return path[::-1]


def widest(city: CityPlaces) -> int:
    """The most parts that one choice of a city looks at."""
    return max(int((level.first[1:] - level.first[:-1]).max()) for level in city.levels)


def nested(km: torch.Tensor, appeal: torch.Tensor) -> CityPlaces:
    """Zones, cells and places of positions (P, 2) in km and their appeal (P, K)."""
    low = km.amin(0)
    zone, cell = (((km - low) / side).floor().long() for side in LEVELS_KM)
    codes = torch.cat([zone, cell], dim=1)
    order = lexsorted(codes)
    codes, count = codes[order], len(km)
    new_zone = changes(codes[:, :2])
    new_cell = changes(codes)
    of_zone, of_cell = new_zone.cumsum(0) - 1, new_cell.cumsum(0) - 1
    city_of_zone = torch.zeros(int(new_zone.sum()), dtype=torch.int64, device=km.device)
    places = torch.arange(count, device=km.device)
    levels = [
        parts_of(of_zone, city_of_zone, km[order], appeal[order]),
        parts_of(of_cell, of_zone[new_cell], km[order], appeal[order]),
        parts_of(places, of_cell, km[order], appeal[order]),
    ]
    rank = torch.empty_like(order)
    rank[order] = places
    return CityPlaces(levels, order, rank, km)


def parts_of(part: torch.Tensor, parent: torch.Tensor, km: torch.Tensor, appeal: torch.Tensor) -> CityParts:
    """The parts of one level: `part` (P,) numbers that of each place, `parent` (n,) what holds each part."""
    count = len(parent)
    size = torch.zeros(count, device=km.device).index_add(0, part, torch.ones_like(km[:, 0]))
    middle = torch.zeros(count, 2, device=km.device).index_add(0, part, km) / size.unsqueeze(1)
    highest = appeal.detach().amax(0)
    total = torch.zeros(count, appeal.shape[1], device=km.device).index_add(0, part, (appeal - highest).float().exp())
    first = torch.searchsorted(parent.contiguous(), torch.arange(int(parent.max()) + 2, device=km.device))
    return CityParts(total.clamp(min=1e-30).log() + highest, middle, size.long(), first, parent)


def lexsorted(codes: torch.Tensor) -> torch.Tensor:
    """Order of the rows of (P, n) integers, by the first column, then by the second, and so on."""
    order = torch.arange(len(codes), device=codes.device)
    for column in range(codes.shape[1] - 1, -1, -1):
        order = order[codes[order, column].argsort(stable=True)]
    return order


def changes(codes: torch.Tensor) -> torch.Tensor:
    """(P,) bool: where a row differs from the one before it."""
    new = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
    new[1:] = (codes[1:] != codes[:-1]).any(1)
    return new


__all__ = ["CityPlaces", "MstarPlaces"]
