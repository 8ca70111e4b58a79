"""Hour-by-hour autoregressive transformer over cells: the baseline that a next-scale generator of equal size must beat.

One token per hour; the condition (home, work, attribute) is the first token, made as M-STAR makes its own. L passes
per week instead of one per scale, but nothing is drawn without knowledge of all hours before it. Measured on one CPU
core, a training step of 168 hours is fastest with bfloat16 products around fused attention in float32 without dropout
on its weights (90 weeks a second at width 96 and 4 layers; 50 with the attention in bfloat16 too, 44 written out with
dropout).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..data.week_arrays import check_weeks
from ..modeling.precision import fast_bfloat16
from .fit import Fit, TrainingOptions, cosine
from .generators import Conditions, _usable

CELL_STD = 0.1  # input and output share it, so that at first the cell of the hour before is the most probable
LAST_RATE = 0.1  # the cosine ends at this share of the learning rate


class HourlyTransformer:
    """Causal transformer over the hours of a week.

    Args:
        width, layers, heads, dropout: of the network; the feed-forward layers are 4 * width wide.
        options: of the training (AdamW, warm-up, cosine to a tenth).
        slots_per_day: columns per day.
        first_weekday: of column 0, 0 = Monday; both only for reading home and work from the weeks.
        warm_start: a second `fit` goes on with the network of the first, on weeks of the same hours and cells.

    Attributes after `fit`: network, train_loss and validation_loss (lists of nats per known hour, one per epoch),
    best_epoch.
    """

    name = "HourlyTransformer"

    def __init__(
        self,
        *,
        width: int = 96,
        layers: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
        options: TrainingOptions | None = None,
        slots_per_day: int = 24,
        first_weekday: int = 0,
        warm_start: bool = False,
    ) -> None:
        if width % heads or width % 2:
            raise ValueError(f"width must be even and a multiple of heads, not {width} with {heads} heads.")
        self.width, self.layers, self.heads, self.dropout = width, layers, heads, dropout
        self.options = options or TrainingOptions(learning_rate=2e-3, weight_decay=0.01, batch_size=64)
        self.slots_per_day, self.first_weekday = slots_per_day, first_weekday
        self.warm_start = warm_start
        self.network: HourlyNetwork | None = None
        self.conditions: Conditions | None = None

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self._fitted().parameters())

    def fit(
        self,
        cells: Any,
        *,
        num_cells: int,
        home: Any = None,
        work: Any = None,
        attribute: Any = None,
        validation: tuple[np.ndarray, Conditions] | None = None,
        epochs: int = 20,
        seed: int = 0,
        device: str | torch.device = "cpu",
        bfloat16: bool | None = None,
    ) -> HourlyTransformer:
        """Train on weeks and return self; the caller's generators are left alone.

        Args:
            cells: integer (N, L); unknown hours are read as such and not predicted.
            num_cells: C, cells of the grid.
            home, work: integer (N,); read from the weeks where None.
            attribute: integer (N,) classes from 0, or None.
            validation: held-out weeks and their conditions; the epoch with the least loss on them is kept. None keeps
                the last epoch.
            epochs: number of epochs.
            seed: of initialisation, dropout and batches.
            device: where to train and generate.
            bfloat16: matrix products in bfloat16 while training; by default where the device is fast in it.

        Raises:
            ValueError: with `warm_start`, on weeks of other cells, hours or classes than before.
        """
        cells = check_weeks(cells, num_cells=num_cells)
        clock = {"slots_per_day": self.slots_per_day, "first_weekday": self.first_weekday}
        cells, conditions = _usable(cells, home, work, num_cells, attribute=attribute, **clock)
        self.conditions, self.device = conditions, torch.device(device)
        self.bfloat16 = fast_bfloat16(self.device.type) if bfloat16 is None else bfloat16
        before = self.network if self.warm_start else None
        self.network = None
        attributes = 0 if attribute is None else int(conditions.attribute_ids.max()) + 1  # type: ignore[union-attr]
        if validation is not None:
            attributes = max(attributes, self._attributes_of(validation[1], attribute is not None))
            check_weeks(validation[0], name="validation", num_cells=num_cells, length=cells.shape[1])
            validation[1].check(num_cells, name="validation")
        rng = np.random.default_rng(seed)
        self.train_loss: list[float] = []
        self.validation_loss: list[float] = []
        self.best_epoch, best = epochs, math.inf
        state = None
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            network = HourlyNetwork(
                num_cells, cells.shape[1], attributes, self.width, self.layers, self.heads, self.dropout
            )
            if before is None:
                network.start_from_popularity(cells)
            elif before.shape != network.shape:
                raise ValueError(
                    f"warm_start goes on with cells, hours and attributes {before.shape}, these weeks have "
                    f"{network.shape}."
                )
            else:
                network.load_state_dict(before.state_dict())
            self.network = network.to(self.device)
            fit = Fit(
                network,
                learning_rate=self.options.learning_rate,
                weight_decay=self.options.weight_decay,
                schedule=cosine(epochs, warmup_epochs=self.options.warmup_epochs, last=LAST_RATE),
            )
            for epoch in range(epochs):
                self.train_loss.append(self._epoch(fit, cells, conditions, epoch, rng))
                if validation is None:
                    continue
                self.validation_loss.append(self.loss(*validation))
                if self.validation_loss[-1] < best:
                    best, self.best_epoch = self.validation_loss[-1], epoch + 1
                    state = {k: v.detach().clone() for k, v in network.state_dict().items()}
        if state is not None:
            network.load_state_dict(state)
        network.eval()
        return self

    def loss(self, cells: np.ndarray, conditions: Conditions, *, batch_size: int = 256) -> float:
        """Mean cross-entropy in nats of the known hours of other weeks."""
        network = self._fitted().eval()
        total, count = 0.0, 0
        for low in range(0, len(cells), batch_size):
            rows = np.arange(low, min(low + batch_size, len(cells)))
            target, *given = self._tensors(cells, conditions, rows)
            with torch.inference_mode():
                scores = network(target, *given)
            total += float(F.cross_entropy(scores.flatten(0, 1), target.flatten(), ignore_index=-1, reduction="sum"))
            count += int((target >= 0).sum())
        return total / max(count, 1)

    def generate(
        self,
        n: int | Conditions,
        *,
        seed: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        batch_size: int = 256,
    ) -> np.ndarray:
        """int32 (n, L) weeks, drawn hour by hour with cached keys and values.

        Args:
            n: number of weeks, or their conditions.
            seed: of the draws; the result does not depend on `batch_size` (but for rounding).
            temperature: divides the scores.
            top_k: draw among the k most probable cells only.
            batch_size: weeks at a time.
        """
        if not temperature > 0:
            raise ValueError(
                f"temperature must be positive, not {temperature}; for the most probable cell use top_k=1."
            )
        network = self._fitted().eval()
        if top_k is not None and not 1 <= top_k <= network.num_cells:
            raise ValueError(f"top_k must be in 1..{network.num_cells}, not {top_k}.")
        rng = np.random.default_rng(seed)
        wanted = self.conditions.draw(n, rng)  # type: ignore[union-attr]
        wanted.check(network.num_cells)
        self._attributes_of(wanted, network.attribute is not None)
        uniform = rng.random((len(wanted), network.length))
        out = np.zeros((len(wanted), network.length), dtype=np.int32)
        for low in range(0, len(wanted), batch_size):
            rows = np.arange(low, min(low + batch_size, len(wanted)))
            given = self._conditions(wanted, rows)
            draws = torch.from_numpy(uniform[rows]).to(self.device)
            out[rows] = network.draw(*given, draws, temperature=temperature, top_k=top_k).cpu().numpy()
        return out

    def _epoch(
        self,
        fit: Fit,
        cells: np.ndarray,
        conditions: Conditions,
        epoch: int,
        rng: np.random.Generator,
    ) -> float:
        network = self._fitted().train()
        batches = np.array_split(rng.permutation(len(cells)), math.ceil(len(cells) / self.options.batch_size))
        total, hours = 0.0, 0
        for i, rows in enumerate(batches):
            target, *given = self._tensors(cells, conditions, rows)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
                scores = network(target, *given)
            loss = F.cross_entropy(scores.float().flatten(0, 1), target.flatten(), ignore_index=-1)
            fit.step(loss, epoch + i / len(batches))
            known = int((target >= 0).sum())
            total, hours = total + loss.item() * known, hours + known
        return total / hours

    def _tensors(self, cells: np.ndarray, conditions: Conditions, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        week = torch.from_numpy(np.ascontiguousarray(cells[rows]).astype(np.int64)).to(self.device)
        return week, *self._conditions(conditions, rows)

    def _conditions(self, conditions: Conditions, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        attribute = np.zeros(len(rows), dtype=np.int64)
        if conditions.attribute_ids is not None:
            attribute = conditions.attribute_ids[rows]
        arrays = (conditions.home_ids[rows], conditions.work_ids[rows], attribute)
        return tuple(torch.from_numpy(a).to(self.device) for a in arrays)  # type: ignore[return-value]

    def _attributes_of(self, conditions: Conditions, needed: bool) -> int:
        """Number of attribute classes in use, 0 if none are needed."""
        if needed != (conditions.attribute_ids is not None):
            raise ValueError(f"attribute_ids must {'' if needed else 'not '}be given, as in the training weeks.")
        if not needed:
            return 0
        ids = conditions.attribute_ids
        assert ids is not None
        table = None if self.network is None else self.network.attribute
        classes = None if table is None else table.num_embeddings
        if len(ids) and (ids.min() < 0 or (classes is not None and ids.max() >= classes)):
            raise ValueError(
                f"attribute_ids must be in 0..{(classes or ids.max() + 1) - 1}; first: {ids[:5].tolist()}."
            )
        return int(ids.max(initial=0)) + 1

    def _fitted(self) -> HourlyNetwork:
        if self.network is None:
            raise ValueError(f"{self.name} is not fitted; call fit(cells, num_cells=...) first.")
        return self.network


class HourlyNetwork(nn.Module):
    """[condition, cell of hour 0, ..., cell of hour L - 2] -> scores of the cells of hours 0 .. L - 1.

    Embeddings of cells are shared with the output. Cells are int64 in [0, C), -1 = unknown.
    """

    def __init__(
        self, num_cells: int, length: int, attributes: int, width: int, layers: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_cells, self.length = num_cells, length
        self.shape = num_cells, length, attributes
        self.cell = nn.Embedding(num_cells + 1, width)  # the last row stands for an unknown hour
        self.place = nn.Embedding(num_cells, width // 2)  # home and work, half of the condition each
        self.attribute = nn.Embedding(attributes, width) if attributes else None
        self.position = nn.Parameter(torch.zeros(length, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(num_cells))
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if name.endswith("out.weight") else 0.02)
        nn.init.normal_(self.cell.weight, std=CELL_STD)

    def start_from_popularity(self, cells: np.ndarray) -> None:
        """Set the output bias to the logarithm of the cells' shares of the known hours."""
        counts = np.bincount(cells[cells >= 0], minlength=self.num_cells) + 0.5
        with torch.no_grad():
            self.bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))

    def forward(
        self, cells: torch.Tensor, home: torch.Tensor, work: torch.Tensor, attribute: torch.Tensor
    ) -> torch.Tensor:
        """Scores (B, L, C) from cells (B, L); hour t sees the condition and the hours before t."""
        before = self.cell(torch.where(cells[:, :-1] < 0, self.num_cells, cells[:, :-1]))
        x = torch.cat([self.condition(home, work, attribute)[:, None], before], dim=1)
        x = self.dropout(x + self.position)
        for block in self.blocks:
            x = block(x)
        return self.scores(x)

    def condition(self, home: torch.Tensor, work: torch.Tensor, attribute: torch.Tensor) -> torch.Tensor:
        """First token (B, width): the two halves are home and work, as in M-STAR."""
        token = torch.cat([self.place(home), self.place(work)], dim=-1)
        return token if self.attribute is None else token + self.attribute(attribute)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.norm(x), self.cell.weight[:-1], self.bias)

    @torch.inference_mode()
    def draw(
        self,
        home: torch.Tensor,
        work: torch.Tensor,
        attribute: torch.Tensor,
        uniform: torch.Tensor,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> torch.Tensor:
        """Cells (B, L) by inversion of each hour's distribution at `uniform`, float64 (B, L) in [0, 1)."""
        out = torch.zeros(uniform.shape, dtype=torch.int64, device=uniform.device)
        for t, scores in enumerate(self.steps(home, work, attribute, out)):
            scores = scores / temperature
            if top_k is not None:
                least = scores.topk(top_k, dim=-1).values[:, -1:]
                scores = scores.masked_fill(scores < least, -torch.inf)
            # In double precision and scaled by the last sum, so that rounding does not lead past the last cell.
            total = scores.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
            out[:, t] = torch.searchsorted(total, uniform[:, t : t + 1] * total[:, -1:], right=True).squeeze(-1)
            out[:, t].clamp_(max=self.num_cells - 1)
        return out

    def steps(self, home: torch.Tensor, work: torch.Tensor, attribute: torch.Tensor, cells: torch.Tensor) -> Any:
        """Yield scores (B, C) hour by hour; before the next step, `cells` (B, L) must hold what was drawn."""
        caches = [block.cache(len(home), self.length) for block in self.blocks]  # type: ignore[operator]
        token = self.condition(home, work, attribute)
        for t in range(self.length):
            x = (token + self.position[t])[:, None]
            for block, cache in zip(self.blocks, caches, strict=True):
                x = block(x, cache, t)
            yield self.scores(x[:, 0])
            token = self.cell(cells[:, t])


class _Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def cache(self, batch: int, length: int) -> torch.Tensor:
        """Room for the keys and values of all hours, (2, B, heads, L, width / heads)."""
        width = self.attention_out.in_features
        return self.qkv.weight.new_empty(2, batch, self.heads, length, width // self.heads)

    def forward(self, x: torch.Tensor, cache: torch.Tensor | None = None, t: int = 0) -> torch.Tensor:
        """(B, T, width); with a cache, T = 1 and x is hour `t`, which is written into it."""
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            cache[0, :, :, t], cache[1, :, :, t] = k[:, :, 0], v[:, :, 0]
            k, v = cache[:, :, :, : t + 1]
        if x.device.type == "cpu":  # the fused kernel is slower in bfloat16 there
            q, k, v = q.float(), k.float(), v.float()
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        x = x + self.dropout(self.attention_out(mixed.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)))))
