"""A checkpoint to evaluate, and the check that it was not trained on its own test data.

`train` and `adapt` save a record of hashes beside the weights. A checkpoint without one (of the Hub, or older) is told
by what its tokenizer counted of the training data (popularity, homes). RAW's tokenizer has its bounds only.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.parts import split_records
from ..data.training_record import TrainingRecord
from ..tokenization.errors import DataError

SEEN_SHARE = 0.01  # of the test; less may be records that share a hash by chance


@dataclass(frozen=True)
class Checkpoint:
    """Where a model comes from, and how tables call it. `made` is a `Trained`, or None for a folder or Hub id."""

    name: str
    source: str
    made: Any
    device: Any
    batch_size: int | None

    @classmethod
    def opened(cls, model: Any, *, device: Any, batch_size: int | None) -> Checkpoint:
        if isinstance(model, (str, Path)):
            name = Path(model).resolve().name if Path(model).is_dir() else str(model).rpartition("/")[2]
            return cls(name, str(model), None, device, batch_size)
        if not (hasattr(model, "model") and hasattr(model, "tokenizer")):
            raise TypeError(
                f"model must be a folder, a Hub id, or what train or adapt returned, got {type(model).__name__}."
            )
        inner = model.model.get_base_model() if hasattr(model.model, "get_base_model") else model.model
        return cls(type(inner).__name__, "", model, device, batch_size)

    @property
    def timezone(self) -> str | None:
        """Of the city that lies beside the weights; None where there is none."""
        tokenizer = self.tokenizer()
        return None if tokenizer is None else str(tokenizer.timezone)

    def tokenizer(self) -> Any:
        """The tokenizer beside the weights; None for weights alone."""
        if self.made is not None:
            return self.made.tokenizer
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.source)
        except (OSError, ValueError):
            return None

    @cached_property
    def record(self) -> TrainingRecord | None:
        """Of the training; None for a repository of the Hub and for what was saved without one."""
        return TrainingRecord.load(self.source) if self.made is None else getattr(self.made, "record", None)

    def pipeline(self, pipeline_class: Any, **options: Any) -> Any:
        """The pipeline of a folder, Hub id or `Trained`, on the device that was asked for; the caller's own model stays
        where it is."""
        options["batch_size"] = self.batch_size
        if self.made is None:
            return pipeline_class.from_pretrained(self.source, device=self.device, **options)
        model = self.made.model
        if self.device is not None and torch.device(self.device) != model.device:
            model = copy.deepcopy(model).to(self.device)
        return pipeline_class(model, self.made.tokenizer, **options)


def notes_on_test(
    name: str, trained: TrainingRecord | None, system: str, records: Any, *, test_fraction: float, seed: int
) -> list[str]:
    """Sentences on the test part where it cannot be compared with the training, or shares people with it.

    Raises:
        DataError: records of the test were trained on.
    """
    if trained is None:
        return ["no record of the training lies beside the weights: what of the test it has seen cannot be told."]
    _, test = split_records(system, records, test_fraction=test_fraction, seed=seed)
    seen = trained.share_of(test)
    if seen["records"] > SEEN_SHARE:
        advice = f"evaluate its whole table with test_fraction={trained.test_fraction:g} and seed={trained.seed}"
        if not trained.test_fraction:
            advice = "train or adapt with a test_fraction"
        raise DataError(
            f"{name} was trained on about {seen['records']:.0%} of the test records: {advice}, or give records that it "
            "has not seen."
        )
    if np.isnan(seen["records"]):
        return ["the test is too small to tell from the sample of hashes whether it was trained on."]
    if system != "samoe" and seen["people"] > SEEN_SHARE:
        return [f"about {seen['people']:.0%} of the test users were in the training too, with other records."]
    return []


def refuse_seen(name: str, saved: Any, of_all: Any, of_training: Any) -> None:
    """Raise where the tokenizer saved what all the records give, and not what their training part gives."""
    if np.array_equal(of_all, saved) and not np.array_equal(of_training, saved):
        raise DataError(
            f"{name} was made from exactly these records, those of the test included: train or adapt with the same "
            "test_fraction (and seed), or give records that it has not seen."
        )
