"""Roll-out of RAW: each predicted point is fed back as the next input (the paper's trajectory generation).

Nothing is drawn: the roll-out of a mean-squared-error head is one path. Series may be padded on either side; new points
are appended behind the padding, at the positions that follow each series' own last point.

Notes:
    With a key/value cache each step costs one point instead of the whole series; the points are the same. The cache has
    room for all points from the start, as how many will follow is known: to copy it at every step would cost more than
    the attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from .layers import CACHE, positions_of

# body(**inputs) -> output with `last_hidden_state` (B, T, D) and the cache.
Body = Callable[..., Any]
# predict(hidden (B, 1, D), points (B, 1, 2)) -> next points (B, 1, 2).
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class RoomyLayer(DynamicLayer):
    """Keys and values (B, heads, seen, head_dim) as views of tensors with `room` slots, which new ones are written into
    in place. More than `room` is an error of torch.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.space: tuple[torch.Tensor, ...] = ()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        given = (key_states, value_states)
        seen = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.space = tuple(x.new_empty(*x.shape[:2], self.room, x.shape[3]) for x in given)
        for space, new in zip(self.space, given):
            space.narrow(2, seen, new.shape[2]).copy_(new)
        self.keys, self.values = (space.narrow(2, 0, seen + key_states.shape[2]) for space in self.space)
        return self.keys, self.values


def roomy_cache(num_layers: int, room: int) -> Cache:
    """An empty cache for a series of at most `room` points."""
    return Cache(layers=[RoomyLayer(room) for _ in range(num_layers)])


def until_last_record(
    observed: torch.Tensor, attention_mask: torch.Tensor | None, shape: tuple[int, ...]
) -> torch.Tensor:
    """(B, T) int64: the attention mask without the slots behind each series' last record.

    Raises:
        ValueError: if `observed` is not (B, T), or a series has no record.
    """
    if tuple(observed.shape) != tuple(shape):
        raise ValueError(f"observed_mask has shape {tuple(observed.shape)}, the series have {tuple(shape)}.")
    known = observed.to(torch.bool)
    if attention_mask is not None:
        known = known & attention_mask.to(torch.bool)
    empty = int((~known.any(1)).sum())
    if empty:
        raise ValueError(f"{empty} of {len(known)} series have no record to start from; leave them or the mask out.")
    kept = known.flip(1).cumsum(1).flip(1) > 0
    return (kept if attention_mask is None else kept & attention_mask.to(torch.bool)).long()


def roll_out(
    body: Body,
    predict: Predict,
    coordinates: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    *,
    steps: int,
    max_positions: int,
    cache: Any = None,
    use_cache: bool = True,
    **inputs: Any,
) -> torch.Tensor:
    """(B, T, 2) known points -> (B, steps, 2) float32 points that follow.

    Raises:
        ValueError: if `steps` is below 1, a series is all padding, or the positions would leave the model's table.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    batch, length = coordinates.shape[:2]
    known = torch.ones(batch, length, dtype=torch.long, device=coordinates.device)
    if attention_mask is not None:
        known = attention_mask.to(known)
    padded = not bool(known.all())
    empty = int((known.sum(1) == 0).sum())
    if empty:
        raise ValueError(f"{empty} of {batch} series are all padding; there is nothing to roll out.")
    positions = positions_of(known) if position_ids is None else position_ids.expand(batch, length)
    rows = torch.arange(batch, device=coordinates.device)
    last = length - 1 - known.flip(1).argmax(1)
    last_position = positions[rows, last].unsqueeze(1)
    needed = int(last_position.max()) + steps
    if needed > max_positions:
        raise ValueError(
            f"{steps} steps after slot {needed - steps} need {needed} positions, this model has "
            f"max_position_embeddings={max_positions}; give a shorter series or fewer steps, or use "
            "TrajectoryPredictionPipeline, which slides the window."
        )

    mask = torch.cat([known, known.new_ones(batch, steps)], dim=1) if padded else None
    positions = torch.cat([positions, last_position + torch.arange(1, steps + 1, device=rows.device)], dim=1)
    points = coordinates
    found: list[torch.Tensor] = []
    for step in range(steps):
        seen = length + step
        whole = step == 0 or not use_cache
        fed = points if whole else found[-1]
        output = body(
            coordinates=fed,
            attention_mask=None if mask is None else mask[:, :seen],
            position_ids=positions[:, seen - fed.shape[1] : seen],
            cache=cache,
            use_cache=use_cache,
            **inputs,
        )
        cache = getattr(output, CACHE) if use_cache else None
        at = last if step == 0 else torch.full_like(last, fed.shape[1] - 1)
        point = predict(output.last_hidden_state[rows, at].unsqueeze(1), fed[rows, at].unsqueeze(1))
        found.append(point)
        if not use_cache:
            points = torch.cat([points, point.to(points.dtype)], dim=1)
    return torch.cat(found, dim=1)


def roll_windows(
    roll: Callable[..., torch.Tensor],
    series: list[torch.Tensor],
    weekday: torch.Tensor | None,
    *,
    steps: int,
    window: int,
    slots_per_day: int,
    device: torch.device,
) -> torch.Tensor:
    """Series (T, 2) that begin at midnight -> (B, steps, 2) on the CPU, the points that follow, window after window: a
    full window loses its oldest day, so that a slot's position stays its time of day.

    Args:
        roll: `generate` of a model, or another roll-out with its arguments.
        weekday: (B,) int64 of each series' first day, 0 = Monday, for models with `time_features`; else None.
        window: slots of a window, whole days.
        device: of the model.
    """
    parts: list[torch.Tensor] = []
    while steps:
        count = min(window + 1 - max(map(len, series)), steps)  # the last point needs no place in the window
        known = [torch.ones(len(one), dtype=torch.long) for one in series]
        coordinates, mask = (
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side="left").to(device)
            for rows in (series, known)
        )
        days = None if weekday is None else weekday.to(device)
        parts.append(roll(coordinates, attention_mask=mask, steps=count, start_weekday=days).cpu())
        series = [torch.cat(pair) for pair in zip(series, parts[-1])]
        full = torch.tensor([len(one) > window for one in series])
        series = [one[slots_per_day:] if is_full else one for one, is_full in zip(series, full)]
        weekday = None if weekday is None else (weekday + full) % 7
        steps -= count
    return torch.cat(parts, dim=1)
