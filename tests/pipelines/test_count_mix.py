"""The count mix beside SAMoE: an average of two distributions, the same in `predict` and for the evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from hf_mobility import (
    City,
    ContextMix,
    DataError,
    NextLocationPipeline,
    SamoeConfig,
    SamoeForNextLocation,
    make_task,
    simulate_city,
)
from hf_mobility.baselines import MixWeights
from hf_mobility.pipelines.count_mix import SHARE
from hf_mobility.tokenization.tokenization_samoe import SamoeTokenizer

MADE = simulate_city(12, num_days=14, num_locations=60, seed=4)
CITY = City.from_visits(MADE.visits, timezone=MADE.timezone, pois=MADE.pois, popularity_from=None)


def pipeline(**options: Any) -> NextLocationPipeline:
    config = SamoeConfig.from_preset("tiny", variant="extended")
    return NextLocationPipeline(SamoeForNextLocation(config).eval(), SamoeTokenizer.from_city(CITY, config), **options)


def by_row(predictor: Any, task: Any) -> np.ndarray:
    found = np.zeros((len(task.visits), len(CITY)))
    for rows, p in predictor.probabilities(task):
        found[rows] = p
    return found[task.rows]


def test_the_evaluator_sees_the_average_of_both() -> None:
    task = make_task(MADE.visits, CITY)
    known = task.train_visits()
    plain = pipeline()
    both = NextLocationPipeline(plain.model, plain.tokenizer, counts=known)
    wanted = (1 - SHARE) * by_row(plain, task) + SHARE * by_row(ContextMix(MixWeights.shipped(), known), task)
    np.testing.assert_allclose(by_row(both, task), wanted, atol=1e-6)


def test_predict_gives_what_the_evaluator_sees() -> None:
    """The last visit of each user as the one target: `predict` has read the visits before it."""
    last = ~MADE.visits["user_id"].duplicated(keep="last")
    before = MADE.visits[~last].reset_index(drop=True)
    pipe = pipeline(counts=before)
    told = pipe.predict(before, top_k=len(CITY)).pivot(index="user_id", columns="location_id", values="probability")
    task = make_task(MADE.visits, CITY, test_fraction=0.2)
    task = type(task)(task.city, task.visits, task.location, task.user, last.to_numpy())
    seen = pd.DataFrame(by_row(pipe, task), index=told.index, columns=CITY.location_ids)[told.columns]
    np.testing.assert_allclose(told.to_numpy(), seen.to_numpy(), atol=1e-5)
    assert np.allclose(told.sum(axis=1), 1, atol=1e-4)


def test_sets_and_scores_read_the_counts_and_rolling_out_refuses() -> None:
    plain, counts = pipeline(), MADE.visits
    both = NextLocationPipeline(plain.model, plain.tokenizer, counts=counts)
    assert (both.score(counts)["surprisal"] - plain.score(counts)["surprisal"]).abs().max() > 0.1
    first = MADE.visits["user_id"] < MADE.visits["user_id"].min() + 6
    few, others = MADE.visits[first], MADE.visits[~first]
    assert not both.predict_set(few, calibration=others).equals(plain.predict_set(few, calibration=others))
    for verb in (both.session, lambda: both.forecast(counts)):
        with pytest.raises(DataError, match="reads the model alone"):
            verb()
    assert both.for_city(CITY).predict(few).equals(plain.predict(few))  # counts belong to their city
