"""What a model has read of many users, kept in tensors, so that a new visit costs one step of the model.

Shapes: U rows, one for each user; C visits of a row; B rows of a step; N places of the city.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from ..data.sequences import FIELDS, pad_visits
from ..modeling.layers import CACHE
from .gaps import gap_shares, past_gaps


class Read(NamedTuple):
    """scores (B, N + 2) of the next place; last, expected, own (B, classes): what `gaps_of` takes."""

    scores: torch.Tensor
    last: torch.Tensor
    expected: torch.Tensor
    own: torch.Tensor


class UserStates:
    """Rows of users, numbered by the caller: written by `read`, continued by `step`.

    Args:
        model: a `SamoeForNextLocation`.
        context: visits that are kept when a row is read.
        capacity: visits that a row has room for.
    """

    def __init__(self, model: Any, context: int, capacity: int) -> None:
        self.model, self.context, self.capacity = model, context, capacity
        self.visits = {name: np.zeros((0, capacity), np.int64) for name in FIELDS}
        self.length = np.zeros(0, np.int64)
        self._layers: list[list[torch.Tensor]] = []  # keys and values, (U, C + 1, heads, d); the last visit is zero
        self._gaps: list[torch.Tensor] = []  # last, expected, own of `Read`, (U, classes)
        self._near: torch.Tensor | None = None  # (U, 3, N + 2), see `SamoeForNextLocation.nearness`

    def grow(self, rows: int) -> None:
        """Have at least so many rows."""
        more = rows - len(self.length)
        if more <= 0:
            return
        self.length = np.concatenate([self.length, np.zeros(more, np.int64)])
        for name, values in self.visits.items():
            self.visits[name] = np.concatenate([values, np.zeros((more, self.capacity), np.int64)])
        self._layers = [[_longer(part, more) for part in layer] for layer in self._layers]
        self._gaps = [_longer(part, more) for part in self._gaps]
        self._near = None if self._near is None else _longer(self._near, more)

    @property
    def bytes_per_row(self) -> int:
        """Of the tensors; 0 before anything was read."""
        tensors = [*(part for layer in self._layers for part in layer), *self._gaps]
        tensors += [] if self._near is None else [self._near]
        return sum(part[0].numel() * part.element_size() for part in tensors)

    def read(self, rows: np.ndarray, new: list[dict[str, np.ndarray]], city: Any) -> Read:
        """Read the last `context` visits of each row at one time: those it has and new ones behind them.

        Args:
            new: of each row, `FIELDS` of its new visits.
            city: the `LocationTable`.
        """
        visits = []
        for row, one in zip(rows, new):
            had = slice(int(self.length[row]))
            visits.append({n: np.append(v[row, had], one[n])[-self.context :] for n, v in self.visits.items()})
            self.length[row] = len(visits[-1]["input_ids"])
            for name, values in self.visits.items():
                values[row, : self.length[row]] = visits[-1][name]
        batch = self._on_device(pad_visits(visits, fields=FIELDS, left=True))
        known = batch["attention_mask"].bool()
        near = self.model.nearness(batch["input_ids"], city)
        output = self._forward(batch, city, DynamicCache(config=self.model.config), near)
        made = [
            [part.transpose(1, 2) for part in (layer.keys, layer.values)] for layer in getattr(output, CACHE).layers
        ]
        shares = gap_shares(output.stay_logits)
        sums = past_gaps(shares[:, :-1], batch["timestamps"], known, self.model.config)
        gaps = [shares[:, -1], *(part.to(shares.dtype) for part in sums)]
        self._allocate(made, gaps, near)

        line, column = known.nonzero(as_tuple=True)
        kept, at = self._index(rows), column - (~known).sum(1)[line]
        for pools, parts in zip(self._layers, made):
            for pool, part in zip(pools, parts):
                pool[kept[line], at] = part[line, column]
        self._keep(kept, gaps, near)
        return Read(output.logits[:, -1], *gaps)

    def step(self, rows: np.ndarray, visit: dict[str, np.ndarray], city: Any) -> Read:
        """One more visit of each row, which has visits and room for it; `visit`: `FIELDS` with (B,) values."""
        before = self.visits["timestamps"][rows, self.length[rows] - 1]
        for name, values in self.visits.items():
            values[rows, self.length[rows]] = visit[name]
        kept, length = self._index(rows), self._index(self.length[rows])
        place = torch.arange(int(length.max()) + 1, device=length.device) - (length.max() - length)[:, None]
        batch = self._on_device({name: visit[name][:, None] for name in FIELDS})
        batch["attention_mask"] = (place >= 0).long()
        place = torch.where(place >= 0, place, self.capacity)  # where every row is zero
        cache = DynamicCache(config=self.model.config)
        cache.layers = [_KeptLayer(own, kept, place) for own in self._layers]
        near = self.model.nearness(batch["input_ids"], city)
        near = None if near is None or self._near is None else self._near[kept] + near
        output = self._forward(batch, city, cache, near)

        last, expected, own = (part[kept] for part in self._gaps)
        times = torch.stack([self._index(before), batch["timestamps"][:, 0]], dim=1)
        sums = past_gaps(last[:, None], times, torch.ones_like(times, dtype=torch.bool), self.model.config)
        gaps = [gap_shares(output.stay_logits)[:, -1], expected + sums[0], own + sums[1]]
        self.length[rows] += 1
        self._keep(kept, gaps, near)
        return Read(output.logits[:, -1], *gaps)

    def _forward(self, batch: dict[str, torch.Tensor], city: Any, cache: Any, near: torch.Tensor | None) -> Any:
        return self.model(
            **batch, location_table=city, nearness=near, use_cache=True, logits_to_keep=1, **{CACHE: cache}
        )

    def _allocate(self, layers: list[list[torch.Tensor]], gaps: list[torch.Tensor], near: torch.Tensor | None) -> None:
        if self._gaps:
            return
        rows = len(self.length)
        self._layers = [[part.new_zeros(rows, self.capacity + 1, *part.shape[2:]) for part in one] for one in layers]
        self._gaps = [part.new_zeros(rows, *part.shape[1:]) for part in gaps]
        self._near = None if near is None else near.new_zeros(rows, *near.shape[1:])

    def _keep(self, rows: torch.Tensor, gaps: list[torch.Tensor], near: torch.Tensor | None) -> None:
        for pool, part in zip(self._gaps, gaps):
            pool[rows] = part
        if near is not None and self._near is not None:
            self._near[rows] = near

    def _index(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.model.device)

    def _on_device(self, batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return {name: self._index(values) for name, values in batch.items()}


class _KeptLayer(DynamicLayer):
    """A layer of the cache that lies in `UserStates`: one visit more is written there, and all are gathered."""

    def __init__(self, pools: list[torch.Tensor], rows: torch.Tensor, place: torch.Tensor) -> None:
        """place (B, T): of each visit in its row, the new one last."""
        super().__init__()
        self.pools, self.rows, self.place, self.is_initialized = pools, rows, place, True
        self.past = place.shape[1] - 1

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.past += 1
        keys, values = self.pools
        return self._with(keys, key_states[:, :, 0]), self._with(values, value_states[:, :, 0])

    def _with(self, pool: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """(B, heads, T, d): the visits of the rows, the new one written."""
        flat = pool.flatten(0, 1)
        index = self.rows[:, None] * pool.shape[1] + self.place
        flat[index[:, -1]] = new
        return flat.index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2)

    def get_seq_length(self) -> int:
        return self.past


def _longer(values: torch.Tensor, more: int) -> torch.Tensor:
    return torch.cat([values, values.new_zeros(more, *values.shape[1:])])
