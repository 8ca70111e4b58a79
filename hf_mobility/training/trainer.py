"""The Hugging Face Trainer over a `CityCorpus`: only where batches come from is different.

The data loader is not prepared by accelerate. Batches are cut by city and length for all processes at once, and each
process takes its share of every batch; accelerate would hand whole batches, of different cities, to the processes.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from ..data.sequences import WindowRule
from .corpus import SAMPLED_CANDIDATES, TOKENS_PER_BATCH, WINDOW, CityBatchSampler, CityCollator, CityCorpus
from .whole_checkpoints import WholeCheckpoints


class MobilityTrainer(WholeCheckpoints, Trainer):
    """`Trainer` for several cities.

    Args:
        train_dataset, eval_dataset: `CityCorpus`.
        tokens_per_batch: tokens of a step, padding included, over all processes. (`per_device_train_batch_size` has
            no effect.)
        window: longest context in training.
        window_rule: another way to cut windows, (sequences, generator) -> (W, 2), e.g. `lambda sequences, rng:
            day_windows(sequences)`.
        augment, max_candidates, sampled_candidates: see `CityCollator`.
        Everything else is the Trainer's.

    `eval_loss` is the mean per visit (the plain Trainer's is per batch, whatever a batch's size).
    `label_smoothing_factor` spreads over the places of the city; the model smooths (`smoothing` of its `forward`).
    `train(resume_from_checkpoint=True)` goes on from the last checkpoint that is whole.

    Raises:
        TypeError: if `train_dataset` or `eval_dataset` is no `CityCorpus`.
        ValueError: for several GPUs in one process (`DataParallel` would split the city's table).
        OSError: while training, if a checkpoint cannot be written.
    """

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        *,
        train_dataset: CityCorpus | None = None,
        tokens_per_batch: int = TOKENS_PER_BATCH,
        window: int = WINDOW,
        window_rule: WindowRule | None = None,
        augment: bool = False,
        max_candidates: int | None = None,
        sampled_candidates: int = SAMPLED_CANDIDATES,
        **kwargs: Any,
    ) -> None:
        if train_dataset is not None:
            _check_corpus(train_dataset, "train_dataset")
        self.tokens_per_batch, self.window, self.window_rule = tokens_per_batch, window, window_rule
        self._collating = {
            "augment": augment,
            "max_candidates": max_candidates,
            "sampled_candidates": sampled_candidates,
        }
        self._evaluated: list[torch.Tensor] = []
        super().__init__(model=model, args=args, train_dataset=train_dataset, **kwargs)
        self.label_smoother = None  # it would average over PAD, whose probability is 0
        if (plugin := getattr(self.accelerator.state, "fsdp_plugin", None)) is not None:
            plugin.mixed_precision_policy = None  # it rounds coordinates and loss, too; autocast computes in bfloat16
        if self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs in one process would split the city's table: "
                "launch with torchrun or accelerate."
            )

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        if self.train_dataset is None:
            raise ValueError("MobilityTrainer: training needs a train_dataset (a CityCorpus).")
        return self._loader(_check_corpus(self.train_dataset, "train_dataset"), shuffle=True, **self._collating)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> torch.utils.data.DataLoader:
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str) and isinstance(self.eval_dataset, dict):
            dataset = self.eval_dataset[dataset]
        if dataset is None:
            raise ValueError("MobilityTrainer: evaluation needs an eval_dataset (a CityCorpus).")
        return self._loader(_check_corpus(dataset, "eval_dataset"), shuffle=False)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self.args.label_smoothing_factor:
            inputs = {**inputs, "smoothing": self.args.label_smoothing_factor}
        return super().compute_loss(model, inputs, *args, **kwargs)

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss, logits, labels = super().prediction_step(model, inputs, *args, **kwargs)
        if loss is not None:
            counted = (inputs["labels"][:, 1:] != -100).sum().to(loss.device)
            counted = self.accelerator.gather(counted).sum()  # of the batch's shares on all processes
            self._evaluated.append(counted)
            loss = loss * counted
        return loss, logits, labels

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        self._evaluated = []
        output = super().evaluation_loop(*args, **kwargs)
        name = f"{kwargs.get('metric_key_prefix', 'eval')}_loss"
        if output.metrics is not None and name in output.metrics:
            output.metrics[name] /= float(torch.stack(self._evaluated).float().mean())
        return output

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


def _check_corpus(dataset: Any, name: str) -> CityCorpus:
    if not isinstance(dataset, CityCorpus):
        raise TypeError(f"{name} must be a CityCorpus, got {type(dataset).__name__}; see CityCorpus.from_visits.")
    return dataset
