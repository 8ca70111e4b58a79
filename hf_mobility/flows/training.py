"""Training of a `FlowNetwork`: cross-entropy of the shares at first, and the common part of commuters itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .inputs import AreaInputs, batch_of
from .network import AreaBatch, FlowNetwork

CLIPPED_NORM = 1.0
AVERAGED = 0.995  # share of the running average of weights that a step keeps
WARM_EPOCHS = 1.0
_AREAS = 24  # in a batch at most
_SIZE_SPREAD = 0.1  # of the logarithm by which sizes are shuffled before areas of similar size come together


@dataclass(frozen=True)
class FlowTraining:
    """Hyper-parameters of a training.

    Args:
        epochs: passes over all areas.
        learning_rate, weight_decay: of AdamW; the rate falls linearly to zero.
        cross_entropy: share of the epochs over which the cross-entropy fades out.
        batch_pairs: pairs of regions in a batch.
        origins: of each area in a batch, drawn at random.
        known: share of areas whose outflows are given in a batch.
        hidden: share of areas that show only population and points of interest in a batch.
        seed: of initial weights, batches and dropout.
    """

    epochs: int = 12
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    cross_entropy: float = 0.5
    batch_pairs: int = 8_000
    origins: int = 32
    known: float = 0.5
    hidden: float = 0.1
    seed: int = 0


def train_network(
    network: FlowNetwork,
    areas: Sequence[AreaInputs],
    options: FlowTraining,
    census: np.ndarray,
    after_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Train in place; the network then holds the running average of its weights.

    Args:
        census: bool (K,), features of regions that some areas do not show.
        after_epoch: is told the number of the epoch and the mean common part in it.
    """
    rng = np.random.default_rng(options.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(AVERAGED))
    for epoch in range(options.epochs):
        network.train()
        found: list[float] = []
        batches = _batches(areas, options, rng)
        for number, chosen in enumerate(batches):
            done = epoch + number / len(batches)
            left = 1 - done / options.epochs
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * min(1.0, (done + 0.02) / WARM_EPOCHS) * left
            rows = [np.sort(rng.permutation(len(area))[: options.origins]) for area in chosen]
            batch = batch_of(chosen, rows, rng.random(len(chosen)) < options.known)
            hidden = torch.from_numpy(rng.random(len(chosen)) < options.hidden)
            batch.regions.masked_fill_(hidden[:, None, None] & torch.from_numpy(census), 0.0)
            log_shares, log_outflows = network(batch)
            entropy, common = flow_losses(log_shares, log_outflows, batch)
            weight = max(0.0, 1 - (1 - left) / options.cross_entropy) if options.cross_entropy else 0.0
            optimizer.zero_grad(set_to_none=True)
            (weight * entropy + 1 - common).mean().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIPPED_NORM)
            optimizer.step()
            average.update_parameters(network)
            found += common.detach().tolist()
        if after_epoch is not None:
            after_epoch(epoch, float(np.mean(found)))
    network.load_state_dict(average.module.state_dict())
    network.eval()


def flow_losses(log_shares: Tensor, log_outflows: Tensor, batch: AreaBatch) -> tuple[Tensor, Tensor]:
    """Per area (B,): cross-entropy of shares plus squared error of log outflows; common part of commuters."""
    is_row, flows = batch.is_row, batch.flows
    observed = flows.sum(dim=-1)
    total = observed.sum(dim=1)
    predicted = log_outflows.gather(1, batch.rows)
    outflows = torch.where(batch.known[:, None], observed, predicted.exp()) * is_row
    expected = outflows[..., None] * log_shares.exp()
    both = (total + expected.sum(dim=(1, 2))).clamp(min=1e-6)
    common = 2 * torch.minimum(expected, flows).sum(dim=(1, 2)) / both
    entropy = -(flows * log_shares.clamp(min=-30)).sum(dim=(1, 2)) / total.clamp(min=1)
    error = ((predicted - (observed + 1).log()).square() * is_row).sum(dim=1) / is_row.sum(dim=1)
    return entropy + error, common


def _batches(areas: Sequence[AreaInputs], options: FlowTraining, rng: np.random.Generator) -> list[list[AreaInputs]]:
    """Areas of similar size together, in random order."""
    sizes = np.array([len(area) for area in areas])
    batches: list[list[AreaInputs]] = [[]]
    for number in np.argsort(sizes * np.exp(rng.normal(0, _SIZE_SPREAD, len(sizes)))):
        current = batches[-1]
        largest = max(sizes[number], *map(len, current), 0)
        pairs = (len(current) + 1) * min(largest, options.origins) * largest
        if current and (pairs > options.batch_pairs or len(current) == _AREAS):
            batches.append([])
        batches[-1].append(areas[number])
    return [batches[i] for i in rng.permutation(len(batches))]
