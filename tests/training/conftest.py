"""What the tests of training and adaptation share: a base model, a city new to it, and one adaptation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from hf_mobility import Adaptation, SamoeTokenizer, adapt
from hf_mobility.training.adapt import STRENGTHS

# Few visits: small batches, so that even one epoch has several steps.
SMALL = {"tokens_per_batch": 64, "window": 16}


def logits(model: Any, tokenizer: SamoeTokenizer, visits: pd.DataFrame) -> torch.Tensor:
    """(people, T, N + 2) scores, padded on the left."""
    with torch.no_grad():
        return model(**tokenizer(visits, padding=True, return_tensors="pt")).logits


@pytest.fixture(scope="module")
def short_strong() -> Iterator[None]:
    """One epoch of `strong` instead of ten, where the outcome of tuning plays no part."""
    module = sys.modules["hf_mobility.training.adapt"]  # `hf_mobility.adapt` is the function
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module.STRENGTHS, "strong", replace(STRENGTHS["strong"], epochs=1))
        yield


@pytest.fixture(scope="module")
def local(toy: SimpleNamespace) -> SimpleNamespace:
    """A base model, visits of twelve people in a city that it does not know, and how to adapt and to compare."""
    visits, city = toy.city(12, seed=3)
    return SimpleNamespace(base=toy.model(), visits=visits, city=city, small=SMALL, logits=logits)


@pytest.fixture(scope="module")
def automatic(local: SimpleNamespace, short_strong: None) -> Adaptation:
    return adapt(local.base, local.visits, city=local.city, seed=5, **SMALL)
