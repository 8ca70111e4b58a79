"""The count mix as an expert beside SAMoE: the average of two distributions over the places of a city.

Users with short histories gain nothing from the network alone, and both err on different visits. The share is a
constant: 0.3 and 0.5 were looked at in Calgary and Chicago (docs/results/next_location.md).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from ..baselines.mix import ContextMix
from ..baselines.mix_weights import MixWeights
from ..data.tasks import NextLocationTask
from ..tokenization.tokenization_samoe import SamoeTokenizer
from .scores import visits_task
from .visits import read_visits

SHARE = 0.3  # of the count mix
Average = Callable[[np.ndarray, torch.Tensor], torch.Tensor]  # rows (m,) and the model's (m, N) for them


class CountMix:
    """The count mix of one city.

    Args:
        counts: visits whose popularity and transitions are counted, as `read_visits` reads them.
        tokenizer: the city.
    """

    def __init__(self, counts: pd.DataFrame, tokenizer: SamoeTokenizer) -> None:
        self.tokenizer = tokenizer
        visits = read_visits(counts, tokenizer, timezone=tokenizer.timezone, columns={})
        self.mix = ContextMix(MixWeights.shipped(), visits)

    def beside(self, task: NextLocationTask) -> Average:
        """How to average what the model says of rows of a task with what the mix says."""
        read = self.mix.reader(task)

        def average(rows: np.ndarray, shares: torch.Tensor) -> torch.Tensor:
            counted = np.empty(tuple(shares.shape), np.float32)
            counted[np.argsort(rows)] = np.concatenate([p for _, p in read(rows)])  # which come by ascending row
            return (1 - SHARE) * shares + SHARE * torch.from_numpy(counted)

        return average

    def after(self, frame: pd.DataFrame, unknown: str) -> Average:
        """The same for the next visit of users (numbers in canonical order) after all visits of a frame."""
        task, _ = visits_task(frame, self.tokenizer, unknown, following=True)
        average = self.beside(task)
        return lambda users, shares: average(task.rows[users], shares)
