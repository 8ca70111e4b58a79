"""Single-city neural baselines with a vocabulary of places: a GRU and a small causal transformer.

They are trained on all training visits of the very city they are tested in, which the transfer models never see in
full, and must be trained again for every city. The number of epochs is chosen on the last tenth of each user's training
visits; the network is then trained afresh for that long on all training visits. The task's targets are never looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..data.tasks import NextLocationTask
from ..modeling.precision import fast_bfloat16
from ..tokenization.clock import epoch_seconds, to_local, weekday
from .fit import Fit, TrainingOptions, cosine

SCORED_SHARE = 4  # a window's last quarter is scored, so a target sees 3/4 to 4/4 of the context length
VALIDATION_SHARE = 0.1
LAST_RATE = 0.05  # at the end of the cosine
PATIENCE = 6  # epochs without a better validation MRR


class _Network(nn.Module):
    """Embeddings of place, local hour and weekday -> causal body -> tied scores over the places."""

    def __init__(self, places: int, users: int, width: int, dropout: float) -> None:
        super().__init__()
        self.place = nn.Embedding(places + 1, width)  # the last row stands for places that the city does not list
        self.hour = nn.Embedding(24, 16)
        self.weekday = nn.Embedding(7, 8)
        self.user = nn.Embedding(users, width) if users else None
        self.dropout = nn.Dropout(dropout)
        self.bias = nn.Parameter(torch.zeros(places))
        for table in (self.place, self.hour, self.weekday):
            nn.init.normal_(table.weight, std=0.1)
        if self.user is not None:
            nn.init.zeros_(self.user.weight)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(
        self, place: torch.Tensor, hour: torch.Tensor, weekday: torch.Tensor, user: torch.Tensor
    ) -> torch.Tensor:
        """Hidden states (B, L, width) from int64 inputs (B, L); user is (B,)."""
        x = torch.cat([self.place(place), self.hour(hour), self.weekday(weekday)], dim=-1)
        hidden = self.body(self.dropout(x))
        if self.user is not None:
            hidden = hidden + self.user(user)[:, None]
        return self.dropout(hidden)

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores (m, N) of hidden states (m, width); the large product runs in bfloat16 where that is fast."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast_bfloat16()):
            product = hidden @ self.place.weight[:-1].T
        return product.float() + self.bias


class _GRUNetwork(_Network):
    def __init__(self, places: int, users: int, width: int, dropout: float) -> None:
        super().__init__(places, users, width, dropout)
        self.gru = nn.GRU(width + 24, width, batch_first=True)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.gru(x)[0]


class _TransformerNetwork(_Network):
    def __init__(self, places: int, users: int, width: int, dropout: float, context: int, layers: int) -> None:
        super().__init__(places, users, width, dropout)
        self.project = nn.Linear(width + 24, width)
        self.position = nn.Parameter(torch.randn(context, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        return self.encoder(self.project(x) + self.position[:length], mask=mask, is_causal=True)


class _NeuralBaseline:
    """What the two baselines share: windows, training, scoring."""

    name = ""

    def __init__(self, *, context: int, width: int, dropout: float, user_embedding: bool, options: TrainingOptions):
        self.context, self.width, self.dropout = context, width, dropout
        self.user_embedding = user_embedding
        self.options = options
        self.network: _Network | None = None
        self.best_epoch = 0
        self.validation_mrr = math.nan

    def _build(self, places: int, users: int) -> _Network:
        raise NotImplementedError

    def fit(self, task: NextLocationTask, *, seed: int = 0, epochs: int = 30, refit: bool = True) -> _NeuralBaseline:
        """Train on the visits of `task` that are no target and return self.

        Args:
            task: gives the city, the users and their training visits.
            seed: of initialisation, dropout and batches.
            epochs: at most; the schedule (cosine) is laid out for this many.
            refit: train again for the best number of epochs with the validation visits included.
        """
        data = _Arrays.build(task)
        length = np.bincount(task.user[~task.target], minlength=task.users)
        held_out = np.where(length >= 5, np.maximum(1, (VALIDATION_SHARE * length).astype(np.int64)), 0)
        self._train(data, length - held_out, length, seed, epochs, stop=True)
        if refit:
            self._train(data, length, length, seed, epochs, stop=False)
        return self

    def probabilities(self, task: NextLocationTask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows (m,), p (m, N) float32) for the targets of the task it was fitted on (its city and users)."""
        if self.network is None:
            raise ValueError(f"{self.name} is not fitted; call fit(task) first.")
        if len(task.city.location_ids) != len(self.network.bias):
            raise ValueError(
                f"{self.name} knows {len(self.network.bias)} places; the task's city has {len(task.city.location_ids)}."
            )
        if self.network.user is not None and task.users != self.network.user.num_embeddings:
            raise ValueError(f"{self.name} has user embeddings of other users than the task's; fit it on this task.")
        yield from self._score(_Arrays.build(task), task.rows)

    def _train(
        self, data: _Arrays, length: np.ndarray, known: np.ndarray, seed: int, epochs: int, *, stop: bool
    ) -> None:
        """Train on the first `length` visits of each user; with `stop`, keep the epoch that is best up to `known`."""
        rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = self._build(data.places, len(length) if self.user_embedding else 0)
            self._start_from_popularity(data, length)
            held_out = np.concatenate(
                [np.arange(s + a, s + b) for s, a, b in zip(data.starts[:-1], length, known, strict=True)]
            )
            fit = Fit(
                self.network,
                learning_rate=self.options.learning_rate,
                weight_decay=self.options.weight_decay,
                schedule=cosine(epochs, warmup_epochs=self.options.warmup_epochs, last=LAST_RATE),
            )
            steps = math.ceil(len(_windows(data.starts, length, self.context, 0)) / self.options.batch_size)
            best, best_state = -1.0, None
            last = epochs if stop else self.best_epoch
            for epoch in range(last):
                windows = _windows(data.starts, length, self.context, int(rng.integers(self.context)))
                batches = np.array_split(rng.permutation(windows), max(1, steps))
                for i, batch in enumerate(batches):
                    fit.step(self._loss(data, batch), epoch + i / len(batches))
                if not stop:
                    continue
                mrr = self._validate(data, held_out)
                if mrr > best:
                    best, self.best_epoch = mrr, epoch + 1
                    best_state = {k: v.clone() for k, v in self.network.state_dict().items()}
                elif epoch + 1 - self.best_epoch >= PATIENCE:
                    break
            if best_state is not None:
                self.network.load_state_dict(best_state)
                self.validation_mrr = best

    def _start_from_popularity(self, data: _Arrays, length: np.ndarray) -> None:
        assert self.network is not None
        rows = np.arange(data.starts[-1])
        seen = data.place[rows - data.starts[data.user] < length[data.user]]
        counts = np.bincount(seen, minlength=data.places + 1)[:-1] + 0.5
        with torch.no_grad():
            self.network.bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))

    def _loss(self, data: _Arrays, windows: np.ndarray) -> torch.Tensor:
        assert self.network is not None
        self.network.train()
        inputs, valid = data.batch(windows)
        target = torch.from_numpy(data.place[np.minimum(inputs + 1, len(data.place) - 1)])
        mask = torch.from_numpy(valid) & (target < data.places)
        hidden = self.network(*data.tensors(inputs))
        return F.cross_entropy(self.network.scores(hidden[mask]), target[mask])

    def _validate(self, data: _Arrays, rows: np.ndarray) -> float:
        total, count = 0.0, 0
        for some, p in self._score(data, rows):
            truth = data.place[some]
            listed = truth < data.places
            own = p[np.arange(len(some)), np.where(listed, truth, 0)]
            total += float((listed / (1 + (p > own[:, None]).sum(axis=1))).sum())
            count += len(some)
        return total / max(count, 1)

    def _score(self, data: _Arrays, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Distributions at `rows` (ascending), each from at most `context` earlier visits of the user."""
        assert self.network is not None
        self.network.eval()
        stride = max(1, self.context // SCORED_SHARE)
        start = data.starts[data.user[rows]]
        end = start + (rows - start - 1) // stride * stride + stride  # end of the input block that holds row - 1
        windows, group = np.unique(
            np.column_stack([np.maximum(start, end - self.context), np.minimum(end, data.starts[data.user[rows] + 1])]),
            axis=0,
            return_inverse=True,
        )
        group = group.ravel()
        for low in range(0, len(windows), 32):
            chosen = (group >= low) & (group < low + 32)
            if not chosen.any():
                continue
            inputs, _ = data.batch(windows[low : low + 32])
            at = rows[chosen] - 1 - windows[group[chosen], 0]
            with torch.inference_mode():
                hidden = self.network(*data.tensors(inputs))[group[chosen] - low, at]
                p = torch.softmax(self.network.scores(hidden), dim=-1)
            yield rows[chosen], p.numpy()


class GRUBaseline(_NeuralBaseline):
    """GRU over place, local hour and weekday embeddings, with tied output.

    Args:
        context: visits a target sees at most.
        width: of the place embedding and the GRU.
        dropout: on the inputs and on the output.
        user_embedding: add a learned vector per user to the output. Only possible where the test users are known.
        options: of the training.
    """

    name = "GRU"

    def __init__(
        self,
        *,
        context: int = 128,
        width: int = 96,
        dropout: float = 0.5,
        user_embedding: bool = True,
        options: TrainingOptions | None = None,
    ) -> None:
        options = options or TrainingOptions(learning_rate=6e-3)
        super().__init__(context=context, width=width, dropout=dropout, user_embedding=user_embedding, options=options)

    def _build(self, places: int, users: int) -> _Network:
        return _GRUNetwork(places, users, self.width, self.dropout)


class TransformerBaseline(_NeuralBaseline):
    """Causal transformer over the same embeddings, with learned positions and tied output; arguments as GRUBaseline."""

    name = "Transformer"

    def __init__(
        self,
        *,
        context: int = 128,
        width: int = 96,
        layers: int = 2,
        dropout: float = 0.3,
        user_embedding: bool = True,
        options: TrainingOptions | None = None,
    ) -> None:
        options = options or TrainingOptions(learning_rate=2e-3)
        super().__init__(context=context, width=width, dropout=dropout, user_embedding=user_embedding, options=options)
        self.layers = layers

    def _build(self, places: int, users: int) -> _Network:
        return _TransformerNetwork(places, users, self.width, self.dropout, self.context, self.layers)


@dataclass(frozen=True, eq=False)
class _Arrays:
    """A task as plain arrays over its n visits; `place` has N for places the city does not list."""

    place: np.ndarray
    hour: np.ndarray
    weekday: np.ndarray
    user: np.ndarray
    starts: np.ndarray
    places: int

    @classmethod
    def build(cls, task: NextLocationTask) -> _Arrays:
        places = len(task.city.location_ids)
        local = to_local(epoch_seconds(task.visits["time"]), task.city.timezone)
        return cls(
            place=np.where(task.location >= 0, task.location, places),
            hour=local // 3600 % 24,
            weekday=weekday(local),
            user=task.user,
            starts=task.user_starts,
            places=places,
        )

    def batch(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers (B, L) of windows [first, last), the last row repeated as padding, and which are no padding."""
        offsets = np.arange((windows[:, 1] - windows[:, 0]).max())
        rows = windows[:, :1] + offsets
        return np.minimum(rows, windows[:, 1:] - 1), rows < windows[:, 1:]

    def tensors(self, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        arrays = (self.place[rows], self.hour[rows], self.weekday[rows], self.user[rows[:, 0]])
        return tuple(torch.from_numpy(a) for a in arrays)


def _windows(starts: np.ndarray, length: np.ndarray, context: int, offset: int) -> np.ndarray:
    """Input windows [first, last) that cover all visits of each user but the last one, int64 (w, 2).

    Cuts lie at `offset` modulo `context`, so a new offset each epoch shows each visit in other contexts.
    """
    out = []
    for start, count in zip(starts[:-1], length, strict=True):
        if count < 2:
            continue
        cuts = np.unique(np.r_[0, np.arange(offset or context, count - 1, context), count - 1])
        out.append(start + np.column_stack([cuts[:-1], cuts[1:]]))
    return np.concatenate(out) if out else np.empty((0, 2), dtype=np.int64)
