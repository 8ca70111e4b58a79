"""One training with the Hugging Face Trainer, and the model handed back as it came."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from ..hub.device import check_device
from .corpus import CityCorpus
from .records import RecordRows
from .rows import ArrayRows
from .trainer import MobilityTrainer
from .whole_checkpoints import WholeCheckpoints, is_finished

HISTORY = ["step", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm"]
_WHOLE_BATCHES: Any = ArrayRows.collate  # the Trainer's type is that of collators of lists


class _Trainer(WholeCheckpoints, Trainer):
    """The plain one."""


def fit(
    model: Any,
    arguments: TrainingArguments,
    train_dataset: CityCorpus | ArrayRows | RecordRows,
    **options: Any,
) -> tuple[Any, pd.DataFrame]:
    """Train `model` and return it with its history; nothing is printed where there is no bar (`disable_tqdm`).

    Args:
        model: a model of this package, or a PEFT model around one.
        arguments: see `training_arguments`; `resume_from_checkpoint` is the checkpoint to go on from.
        train_dataset: a `CityCorpus` for SAMoE (trained by `MobilityTrainer`), `RecordRows` for RAW's variant
            `extended`, `ArrayRows` for the others. SAMoE trains with plain attention on CPUs, where that is faster.
        options: of `MobilityTrainer` or `Trainer`, such as `augment`, `eval_dataset`, `callbacks`.

    Returns:
        The model in evaluation mode, in its own precision and with its own attention; and a frame with one row per
        logged step: `step`, `epoch`, `loss`, `eval_loss`, `learning_rate`, `grad_norm`, as far as they were logged.
    """
    implementation, use_cache = model.config._attn_implementation, getattr(model.config, "use_cache", None)
    if isinstance(train_dataset, CityCorpus):
        if arguments.device.type == "cpu":
            model.set_attn_implementation("eager")
        trainer: MobilityTrainer | _Trainer = MobilityTrainer(model, arguments, train_dataset=train_dataset, **options)
    else:
        trainer = _Trainer(model, arguments, train_dataset=train_dataset, data_collator=_WHOLE_BATCHES, **options)
    trainer.remove_callback(PrinterCallback)
    checkpoint = arguments.resume_from_checkpoint
    if checkpoint is not None and is_finished(checkpoint):
        trainer.restore(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    # The Trainer leaves autocast wrapped around forward; a model that is handed out computes in its own precision.
    trained = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    if implementation != trained.config._attn_implementation:
        trained.set_attn_implementation(implementation)
    if use_cache is not None:
        trained.config.use_cache = use_cache  # the Trainer turns it off
    return trained.eval(), _history(trainer.state.log_history)


def _history(log: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame([line for line in log if "loss" in line or "eval_loss" in line])
    return table[[name for name in HISTORY if name in table]]


def on_device(device: Any) -> dict[str, Any]:
    """Fields of `TrainingArguments` for `cpu`, `cuda`, or None, which is the accelerator where there is one.

    Raises:
        ValueError: see `check_device`.
    """
    check_device(device)
    if device is None or torch.device(device).type != "cpu":
        return {}
    return {"use_cpu": True, "dataloader_pin_memory": False}


@contextmanager
def callers_random_state() -> Iterator[None]:
    """The Trainer seeds the global generators; give the caller theirs back."""
    python, legacy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


def on_stderr(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def nothing(sentence: str) -> None:
    """Nobody asked for progress."""
