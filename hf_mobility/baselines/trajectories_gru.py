"""A recurrent baseline of trajectory prediction with RAW's input and output layers."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..data.trajectory_tasks import TrajectoryTask
from .fit import Fit, linear


class _Network(nn.Module):
    """2 -> 2 D -> D with ReLU plus a learned position, GRU layers, and the head D -> 4 D -> D -> 2."""

    def __init__(self, slots: int, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(2, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.position = nn.Embedding(slots, width)
        nn.init.normal_(self.position.weight, std=0.02)
        self.gru = nn.GRU(width, width, num_layers=layers, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width), nn.ReLU(), nn.Linear(width, 2)
        )

    def forward(
        self, points: torch.Tensor, start: int = 0, state: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, 2) from slot `start` on -> the point after each (B, T, 2), and the state behind the last one."""
        slots = torch.arange(start, start + points.shape[1], device=points.device)
        hidden, state = self.gru(self.embed(points) + self.position(slots), state)
        return self.head(hidden), state


class GRUTrajectory:
    """A two-layer GRU over points, trained like RAW: mean squared error of the next point, teacher forcing.

    Args:
        width: D. layers: of the GRU. learning_rate: the highest one; it rises over the first tenth of the steps and
            falls linearly to zero.
        batch_size: series of a training step. device: where to compute.
    """

    name = "GRU"

    def __init__(
        self,
        *,
        width: int = 64,
        layers: int = 2,
        learning_rate: float = 2e-3,
        batch_size: int = 32,
        device: str | torch.device = "cpu",
    ) -> None:
        self.width, self.layers, self.learning_rate, self.batch_size = width, layers, learning_rate, batch_size
        self.device = torch.device(device)
        self.network: _Network | None = None

    def fit(self, points: np.ndarray, *, steps: int = 500, seed: int = 0) -> GRUTrajectory:
        """Train on whole series and return self; the caller's generators are left alone.

        Args:
            points: float (N, T, 2) box units from a local midnight; predictions may reach to slot T.
            steps: training steps.
            seed: of initialisation and batches.
        """
        if points.ndim != 3 or points.shape[2] != 2 or points.shape[1] < 2 or not len(points):
            raise ValueError(f"points must be (series, slots, 2) with two slots or more, got {points.shape}.")
        data = torch.as_tensor(points, dtype=torch.float32)
        draws = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            network = _Network(data.shape[1], self.width, self.layers).to(self.device)
        schedule = linear(steps, warmup_steps=max(1, steps // 10))
        fit = Fit(network, learning_rate=self.learning_rate, weight_decay=0.01, schedule=schedule)
        for step in range(steps):
            rows = torch.randint(len(data), (min(self.batch_size, len(data)),), generator=draws)
            batch = data[rows].to(self.device)
            fit.step((network(batch[:, :-1])[0] - batch[:, 1:]).square().mean(), step)
        self.network = network.eval()
        return self

    @torch.no_grad()
    def predict(self, task: TrajectoryTask) -> np.ndarray:
        """(N, H, 2) float32 box units, each prediction fed back."""
        length, steps = task.known.shape[1], int(task.steps[-1])
        network = self._fitted(length + steps - 1)
        parts = []
        for some in np.array_split(np.arange(len(task)), -(-len(task) // 256)):
            known = torch.as_tensor(task.known[some], dtype=torch.float32, device=self.device)
            made, state = network(known)
            found = [made[:, -1:]]
            for step in range(1, steps):
                made, state = network(found[-1], length + step - 1, state)
                found.append(made)
            parts.append(torch.cat(found, dim=1).cpu().numpy())
        return np.concatenate(parts)[:, task.steps - 1]

    @torch.no_grad()
    def next_points(self, points: np.ndarray) -> np.ndarray:
        """The point after each but the last: (N, T, 2) -> (N, T - 1, 2) float32."""
        network = self._fitted(points.shape[1] - 1)
        parts = []
        for some in np.array_split(np.arange(len(points)), -(-len(points) // 256)):
            known = torch.as_tensor(points[some, :-1], dtype=torch.float32, device=self.device)
            parts.append(network(known)[0].cpu().numpy())
        return np.concatenate(parts)

    def _fitted(self, slots: int) -> _Network:
        if self.network is None:
            raise ValueError(f"{self.name} is not fitted; call fit(points) first.")
        if slots > self.network.position.num_embeddings:
            raise ValueError(
                f"{self.name} was trained on series of {self.network.position.num_embeddings} slots; slot {slots - 1} "
                "is beyond them."
            )
        return self.network


__all__ = ["GRUTrajectory"]
