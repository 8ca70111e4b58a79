"""The Hugging Face Trainer over a `CityCorpus`: only where batches come from is different.

Unusual: the data loader is not prepared by accelerate, because batches are cut by city and length for all processes
at once and each process
takes its share of every batch (accelerate would hand out whole batches, of different cities, to different processes).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer

from ..data.sequences import WindowRule
from .corpus import CityBatchSampler, CityCollator, CityCorpus


class MobilityTrainer(Trainer):
    """`Trainer` for several cities.

    Args:
        train_dataset, eval_dataset: `CityCorpus`.
        tokens_per_batch: tokens of a step, padding included, over all processes. (`per_device_train_batch_size` has
            no effect.)
        window: longest context in training.
        window_rule: another way to cut windows, e.g. `day_windows`; (sequences, generator) -> (W, 2).
        augment, max_candidates, sampled_candidates: see `CityCollator`.
        Everything else is the Trainer's.

    Raises:
        TypeError: if `train_dataset` is no `CityCorpus`.
    """

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        *,
        train_dataset: CityCorpus | None = None,
        tokens_per_batch: int = 2048,
        window: int = 128,
        window_rule: WindowRule | None = None,
        augment: bool = False,
        max_candidates: int | None = None,
        sampled_candidates: int = 800,
        **kwargs: Any,
    ) -> None:
        if train_dataset is not None and not isinstance(train_dataset, CityCorpus):
            raise TypeError(
                f"train_dataset must be a CityCorpus, got {type(train_dataset).__name__}; see CityCorpus.from_visits."
            )
        self.tokens_per_batch, self.window, self.window_rule = tokens_per_batch, window, window_rule
        self._collating = {
            "augment": augment,
            "max_candidates": max_candidates,
            "sampled_candidates": sampled_candidates,
        }
        super().__init__(model=model, args=args, train_dataset=train_dataset, **kwargs)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        if self.train_dataset is None:
            raise ValueError("MobilityTrainer: training needs a train_dataset (a CityCorpus).")
        return self._loader(self.train_dataset, shuffle=True, **self._collating)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> torch.utils.data.DataLoader:
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str):
            dataset = self.eval_dataset[dataset]
        if dataset is None:
            raise ValueError("MobilityTrainer: evaluation needs an eval_dataset (a CityCorpus).")
        return self._loader(dataset, shuffle=False)

    def _loader(self, corpus: CityCorpus, *, shuffle: bool, **collating: Any) -> torch.utils.data.DataLoader:
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        sampler = CityBatchSampler(
            corpus,
            tokens_per_batch=self.tokens_per_batch,
            window=self.window,
            window_rule=self.window_rule,
            shuffle=shuffle,
            seed=seed,
            rank=self.args.process_index,
            world_size=self.args.world_size,
        )
        return torch.utils.data.DataLoader(
            corpus,
            batch_sampler=sampler,
            collate_fn=CityCollator(corpus, seed=seed, **collating),
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
