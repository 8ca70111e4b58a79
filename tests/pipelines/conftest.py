"""What the pipeline's tests share: a small world, and the model's answers by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from hf_mobility import NextLocationPipeline, SamoeTokenizer


@pytest.fixture(scope="module")
def world(toy: SimpleNamespace) -> SimpleNamespace:
    """A model, a city, its visits of twelve people and their pipeline; and how to compare."""
    visits, city = toy.city(12, seed=1)
    model = toy.model()
    pipe = NextLocationPipeline(model, SamoeTokenizer.from_city(city, model.config))
    return SimpleNamespace(visits=visits, city=city, model=model, pipe=pipe, of=of, by_hand=by_hand, matrix=matrix)


def of(visits: pd.DataFrame, position: int) -> pd.DataFrame:
    """The visits of one person."""
    return visits[visits["user_id"] == np.unique(visits["user_id"])[position]]


@torch.no_grad()
def by_hand(
    pipe: NextLocationPipeline, history: pd.DataFrame, rows: slice = slice(None), **inputs: torch.Tensor
) -> torch.Tensor:
    """(N,) probabilities after the last of the given rows of one person's history, from the model alone."""
    encoded = pipe.tokenizer(history, return_tensors="pt")
    table = encoded.pop("location_features")
    encoded = {name: value[:, rows] for name, value in encoded.items()}
    return pipe.model(**encoded, location_features=table, **inputs).logits[0, -1, 2:].softmax(-1)


def matrix(pipe: NextLocationPipeline, table: pd.DataFrame) -> np.ndarray:
    """(people, N) from a prediction of all places."""
    wide = table.pivot(index="user_id", columns="location_id", values="probability")
    return wide[pipe.tokenizer.location_ids].to_numpy()


@pytest.fixture(scope="module")
def timed(toy: SimpleNamespace, world: SimpleNamespace) -> NextLocationPipeline:
    model = toy.model(arrival_time=True)
    return NextLocationPipeline(model, SamoeTokenizer.from_city(world.city, model.config))
