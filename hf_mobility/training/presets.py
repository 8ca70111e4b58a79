"""Settings of models and trainings as visible dictionaries; the caller's values go before them.

The values are those that were measured; see docs/results/.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainingArguments

from ..modeling.precision import fast_bfloat16

_COMMON: dict[str, Any] = {
    "max_grad_norm": 1.0,
    "lr_scheduler_type": "cosine_with_min_lr",
    "prediction_loss_only": True,
    "remove_unused_columns": False,
    "report_to": "none",
    "logging_steps": 50,
    "disable_tqdm": True,
}
_NEXT_LOCATION: dict[str, Any] = {
    "adam_beta2": 0.95,
    "lr_scheduler_kwargs": {"min_lr_rate": 0.05},
    "label_names": ["labels", "stay_labels"],
}
_WEEKS: dict[str, Any] = {"per_device_train_batch_size": 64, "per_device_eval_batch_size": 256, "warmup_steps": 50}
_PRESETS: dict[str, dict[str, Any]] = {
    "pretrain": {
        **_NEXT_LOCATION,
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "warmup_steps": 50,
        "num_train_epochs": 3,
    },
    "adapt": {
        **_NEXT_LOCATION,
        "learning_rate": 3e-3,
        "weight_decay": 0.01,
        "warmup_steps": 5,
        "num_train_epochs": 1,
        "save_strategy": "no",
    },
    "mstar_codec": {
        **_WEEKS,
        "learning_rate": 1.5e-3,
        "weight_decay": 1e-5,
        "lr_scheduler_kwargs": {"min_lr_rate": 0.02},
    },
    "mstar": {
        **_WEEKS,
        "learning_rate": 2e-3,
        "weight_decay": 0.01,
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
        "label_names": [],  # the loss needs no labels
    },
    "raw": {  # the paper: 1e-4 falling to zero, no warm-up, no clipping, batches of 90, float32
        "learning_rate": 5e-4,
        "weight_decay": 0.01,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.05,  # of all steps
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 64,
        "label_names": ["labels"],
    },
}

# Of new models that `train` makes; the configurations' own defaults are the papers'.
MODEL_SETTINGS: dict[str, dict[str, Any]] = {
    "mstar-codec": {  # as the shipped codec
        "num_encoder_layers": 0,
        "hierarchical_cells": True,
        "level_lengths": [1, 7, 28, 168],
        "codebook_size": 1024,
        "dropout": 0.0,
    },
    "mstar-slots-codec": {
        "num_encoder_layers": 0,
        "num_decoder_layers": 1,
        "hierarchical_cells": True,
        "level_lengths": [1, 7, 28, 168],
        "hidden_size": 32,
        "num_attention_heads": 2,
        "codebook_size": 256,
        "dropout": 0.0,
    },
    "mstar-slots": {  # the best path of `viterbi` would drop short stays
        "within_level_steps": 6,
        "within_level_spacing": [1, 1, 4, 12],  # a day of windows, half a day of hours
        "within_level_context": 6,
        "pointer_head": True,
        "temperature": 1.0,
        "top_k": None,
        "smoothing_window": 0,
        "decoding": "argmax",
        "dropout": 0.0,
        "drop_path": 0.0,
    },
    "mstar": {  # decoding without a search: the best path over all codes
        "within_level_steps": 6,
        "temperature": 1.0,
        "top_k": None,
        "smoothing_window": 0,
        "decoding": "viterbi",
    },
}
SAMOE_BATCHES: dict[str, Any] = {"tokens_per_batch": 1024, "augment": True, "max_candidates": 1500}
RAW_WINDOW_DAYS = 7
TRAINING_PRESETS = {
    "samoe": "pretrain",
    "mstar-codec": "mstar_codec",
    "mstar": "mstar",
    "mstar-slots": "mstar",
    "raw": "raw",
    "raw-extended": "raw",
}


def training_arguments(output_dir: str, *, preset: str = "pretrain", **overrides: Any) -> TrainingArguments:
    """`TrainingArguments` for `pretrain`, `adapt` (both SAMoE), `mstar_codec`, `mstar` or `raw`; keywords override any
    field.

    bf16 autocast is on where the processor or accelerator computes in it (`fast_bfloat16`): it is several times faster
    than fp32 there, and many times slower elsewhere. Losses are computed in fp32 all the same.

    Raises:
        ValueError: for an unknown preset.
    """
    if preset not in _PRESETS:
        raise ValueError(f"unknown preset {preset!r}; choose one of {sorted(_PRESETS)}.")
    accelerator = torch.accelerator.is_available()
    used = torch.accelerator.current_accelerator() if accelerator and not overrides.get("use_cpu") else None
    half = fast_bfloat16(used.type if used else "cpu")
    device = {"bf16": half, "use_cpu": not accelerator, "dataloader_pin_memory": accelerator}
    return TrainingArguments(output_dir=output_dir, **{**_COMMON, **device, **_PRESETS[preset], **overrides})
