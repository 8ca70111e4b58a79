"""Training one SAMoE from scratch for the comparisons, without progress bars, returned in its own precision."""

from __future__ import annotations

import tempfile
from typing import Any

import pandas as pd
import torch
from transformers import set_seed

from hf_mobility import City, CityCorpus, SamoeConfig, SamoeForNextLocation, SamoeTokenizer
from hf_mobility import training_arguments as arguments_of
from hf_mobility.training.fit import fit


def train_samoe(
    pairs: list[tuple[pd.DataFrame, City]],
    config: SamoeConfig,
    *,
    epochs: float,
    seed: int,
    warmup_steps: int = 50,
    tokens_per_batch: int = 1024,
    **keywords: Any,
) -> SamoeForNextLocation:
    """Trained on (canonical visits, city) pairs; other keywords go to `MobilityTrainer`."""
    set_seed(seed)
    corpus = CityCorpus.from_visits([(visits, SamoeTokenizer.from_city(city, config)) for visits, city in pairs])
    model = SamoeForNextLocation(config)
    if not torch.cuda.is_available():
        model.set_attn_implementation("eager")  # faster to train on CPUs, see benchmarks/
    with tempfile.TemporaryDirectory() as folder:
        arguments = arguments_of(
            folder, num_train_epochs=epochs, warmup_steps=warmup_steps, seed=seed, save_strategy="no"
        )
        keywords = {"tokens_per_batch": tokens_per_batch, "max_candidates": 1500, **keywords}
        return fit(model, arguments, corpus, **keywords)[0]
