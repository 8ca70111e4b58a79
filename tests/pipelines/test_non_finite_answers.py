"""An answer with NaN or infinite values is an error, never a row of a table. Finite weights can overflow into one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import pipeline

from hf_mobility import (
    MobilityEmbeddingPipeline,
    NextLocationPipeline,
    TrajectoryGenerationPipeline,
    TrajectoryPredictionPipeline,
    simulate_city,
)

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"


@pytest.fixture(scope="module")
def visits() -> pd.DataFrame:
    return simulate_city(3, num_days=3, num_locations=60, seed=1).visits


@torch.no_grad()
def overflowing(pipe: Any) -> Any:
    """The same pipeline with every weight of the body near the largest float32."""
    for name, weight in pipe.model.named_parameters():
        if "codec" not in name and weight.dim() > 1:
            weight.fill_(3e38)
    return pipe


VERBS: dict[str, tuple[str, Any, Callable[[Any, pd.DataFrame], Any]]] = {
    "predict places": ("samoe-small", NextLocationPipeline, lambda pipe, visits: pipe.predict(visits)),
    "forecast": ("samoe-small", NextLocationPipeline, lambda pipe, visits: pipe.forecast(visits, steps=2)),
    "predict positions": (
        "raw-released-small",
        TrajectoryPredictionPipeline,
        lambda pipe, visits: pipe.predict(visits, horizon=1),
    ),
    "embed": ("raw-released-small", MobilityEmbeddingPipeline, lambda pipe, visits: pipe.embed_users(visits)),
    "generate": ("mstar-cells-small", TrajectoryGenerationPipeline, lambda pipe, visits: pipe.generate(2, seed=0)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_an_answer_that_overflows_is_one_sentence(verb: str, visits: pd.DataFrame, toy: SimpleNamespace) -> None:
    checkpoint, pipe_class, ask = VERBS[verb]
    pipe = pipe_class.from_pretrained(CHECKPOINTS / checkpoint)
    if pipe_class is NextLocationPipeline:
        _, city = toy.city(3)
        visits, city = toy.city(3)
        pipe = pipe.for_city(city)
    assert len(ask(pipe, visits))
    with pytest.raises(
        ValueError, match=r"answered [\d,]+ of [\d,]+ values that are not finite: its weights"
    ) as caught:
        ask(overflowing(pipe), visits)
    assert "\n" not in str(caught.value)


def test_the_pipelines_of_transformers_refuse_them_too(visits: pd.DataFrame) -> None:
    points = visits[["user_id", "time", "lat", "lon"]].assign(time=visits["time"].astype("int64") // 10**6)
    for task in ("trajectory-prediction", "mobility-embedding"):
        pipe = overflowing(pipeline(task, model=str(CHECKPOINTS / "raw-released-small")))
        with pytest.raises(ValueError, match="that are not finite"):
            pipe(points.to_dict("list"))
