"""What a model has read of many users, kept in tensors, so that a new visit costs one step of the model.

Shapes: U rows, one for each user; C visits of a row; B rows of a step; N places of the city.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from transformers.cache_utils import DynamicCache, DynamicLayer

from ..data.sequences import FIELDS, pad_visits
from ..modeling.layers import CACHE
from .gaps import gap_shares, past_gaps

ATTENDED_USERS = 4  # whose keys and values are gathered at one time: about what a processor's cache holds


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
        city: the `LocationTable`.
        context: visits that are kept when a row is read.
        capacity: visits that a row has room for.
    """

    def __init__(self, model: Any, city: Any, context: int, capacity: int) -> None:
        self.model, self.city, self.context, self.capacity = model, city, context, capacity
        self.visits = {name: np.zeros((0, capacity), np.int64) for name in FIELDS}
        self.length = np.zeros(0, np.int64)
        self._layers: list[list[torch.Tensor]] = []  # keys and values, (U, heads, C + 1, d); the last visit is zero
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

    def forget(self, rows: list[int]) -> None:
        """Let rows be empty. What they held is overwritten, as NaN would reach others through a mask."""
        self.length[rows] = 0
        for pool in (part for layer in self._layers for part in layer):
            pool[rows] = 0

    @property
    def bytes_per_row(self) -> int:
        """Of the tensors; 0 before anything was read."""
        tensors = [*(part for layer in self._layers for part in layer), *self._gaps]
        tensors += [] if self._near is None else [self._near]
        return sum(part[0].numel() * part.element_size() for part in tensors)

    def read(self, rows: np.ndarray, new: list[dict[str, np.ndarray]]) -> Read:
        """Read the last `context` visits of each row at one time: those it has and new ones behind them.

        Args:
            new: of each row, `FIELDS` of its new visits.
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
        near = self.model.nearness(batch["input_ids"][:, :-1], self.city)
        output = self._forward(batch, DynamicCache(config=self.model.config), near)
        made = [[layer.keys, layer.values] for layer in getattr(output, CACHE).layers]
        shares = gap_shares(output.stay_logits)
        sums = past_gaps(shares[:, :-1], batch["timestamps"], known, self.model.config)
        gaps = [shares[:, -1], *(part.to(shares.dtype) for part in sums)]
        self._allocate(made, gaps, near)

        line, column = known.nonzero(as_tuple=True)
        kept, at = self._index(rows), column - (~known).sum(1)[line]
        for pools, parts in zip(self._layers, made):
            for pool, part in zip(pools, parts):
                pool[kept[line], :, at] = part[line, :, column]
        self._keep(kept, gaps, near)
        return Read(output.logits[:, -1], *gaps)

    def step(self, rows: np.ndarray, visit: dict[str, np.ndarray]) -> Read:
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
        read = self.model.config.num_hidden_layers  # the pointer's layer is behind them
        kinds = [_AttendedLayer] * read + [_KeptLayer] * (len(self._layers) - read)
        layers = [kind(own, kept, place) for kind, own in zip(kinds, self._layers)]
        cache.layers = list(layers)
        near = None if self._near is None else self._near.index_select(0, kept)  # a tenth of indexing's time
        output = self._forward(batch, cache, near, kernel=_attention(layers))

        last, expected, own = (part[kept] for part in self._gaps)
        times = torch.stack([self._index(before), batch["timestamps"][:, 0]], dim=1)
        sums = past_gaps(last[:, None], times, torch.ones_like(times, dtype=torch.bool), self.model.config)
        gaps = [gap_shares(output.stay_logits)[:, -1], expected + sums[0], own + sums[1]]
        self.length[rows] += 1
        self._keep(kept, gaps, near)
        return Read(output.logits[:, -1], *gaps)

    def _forward(self, batch: dict[str, torch.Tensor], cache: Any, near: torch.Tensor | None, **options: Any) -> Any:
        options |= {"use_cache": True, "logits_to_keep": 1, CACHE: cache}
        return self.model(**batch, location_table=self.city, nearness=near, **options)

    def _allocate(self, layers: list[list[torch.Tensor]], gaps: list[torch.Tensor], near: torch.Tensor | None) -> None:
        if self._gaps:
            return
        rows = len(self.length)
        self._layers = [
            [part.new_zeros(rows, part.shape[1], self.capacity + 1, part.shape[3]) for part in one] for one in layers
        ]
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
    """A layer of the cache that lies in `UserStates`. One visit more is written there; what is read is gathered."""

    def __init__(self, pools: list[torch.Tensor], rows: torch.Tensor, place: torch.Tensor) -> None:
        """place (B, T): of each visit in its row, the new one last."""
        super().__init__()
        self.pools, self.is_initialized, self.past = pools, True, place.shape[1] - 1
        self.rows, self.place = rows, place

    def write(self, *states: torch.Tensor) -> None:
        """Keys and values of the new visits, (B, heads, 1, d)."""
        self.past += 1
        for pool, new in zip(self.pools, states):
            pool[self.rows, :, self.place[:, -1]] = new[:, :, 0]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.write(key_states, value_states)
        keys, values = (pool[self.rows[:, None], :, self.place].transpose(1, 2) for pool in self.pools)
        return keys, values

    def get_seq_length(self) -> int:
        return self.past


class _AttendedLayer(_KeptLayer):
    """A layer of the body: `attend` reads it, few users at one time, so that a copy stays in the processor's cache."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.write(key_states, value_states)
        return key_states, value_states

    def attend(self, query: torch.Tensor, scaling: float) -> torch.Tensor:
        """Attention of new visits to all of their users, (B, heads, 1, d) -> (B, heads, 1, d). Their order does not
        matter, so rows are copied from their first visit on."""
        visits = torch.arange(self.past, device=query.device)
        seen = (visits <= self.place[:, -1:])[:, None, None]  # (B, 1, 1, T)
        parts = []
        for start in range(0, len(query), ATTENDED_USERS):
            some = slice(start, start + ATTENDED_USERS)
            keys, values = (pool[:, :, : self.past].index_select(0, self.rows[some]) for pool in self.pools)
            parts.append(F.scaled_dot_product_attention(query[some], keys, values, attn_mask=seen[some], scale=scaling))
        return torch.cat(parts)


def _attention(layers: list[Any]) -> Callable[..., tuple[torch.Tensor, None]]:
    """The kernel of `MultiHeadAttention.attend` that reads kept layers."""

    def attention(
        module: Any, query: torch.Tensor, *states: torch.Tensor, scaling: float, **kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        return layers[module.layer_idx].attend(query, scaling).transpose(1, 2), None

    return attention


def _longer(values: torch.Tensor, more: int) -> torch.Tensor:
    return torch.cat([values, values.new_zeros(more, *values.shape[1:])])
