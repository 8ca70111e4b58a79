"""Batches share the distances of their places, and answers do not depend on how they are grouped."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from samoe_town import CITY, make_visits

from hf_mobility import NextLocationPipeline, SamoeConfig, SamoeForNextLocation, SamoeTokenizer
from hf_mobility.pipelines import nearness, user_states
from hf_mobility.pipelines.nearness import _groups

LENGTHS = (6, 1, 4, 2, 9, 3, 3)


def make_pipe(variant: str = "extended") -> NextLocationPipeline:
    torch.manual_seed(0)
    config = SamoeConfig.from_preset("tiny", num_poi_features=5, variant=variant)
    return NextLocationPipeline(SamoeForNextLocation(config), SamoeTokenizer.from_city(CITY, config), context=5)


@pytest.mark.parametrize("most", [1, 3, 4, 100])
def test_groups_are_consecutive_batches_of_bounded_size(most: int) -> None:
    sizes = [2, 1, 1, 4, 3, 1]
    found = [list(range(6))[group] for group in _groups(sizes, most)]
    assert np.concatenate(found).tolist() == list(range(6))
    assert all(len(group) == 1 or sum(sizes[k] for k in group) <= most for group in found)
    assert all(sum(sizes[k] for k in first) + sizes[second[0]] > most for first, second in pairwise(found))


@pytest.mark.parametrize("variant", ["extended", "paper"])
@pytest.mark.parametrize("users", [1, 3, 1_024])
def test_answers_are_the_same_in_groups_of_any_size(variant: str, users: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, visits = make_pipe(variant), make_visits(LENGTHS)
    wanted = pd.concat([pipe.predict(one) for _, one in visits.groupby("user_id")], ignore_index=True)
    monkeypatch.setattr(nearness, "USERS", users)
    pd.testing.assert_frame_equal(pipe.predict(visits, batch_size=2), wanted, rtol=1e-4, atol=1e-6)


def test_answers_are_those_of_the_evaluation_where_nothing_is_shared() -> None:
    pipe, visits = make_pipe(), make_visits(LENGTHS)
    batch = pipe.tokenizer(visits.groupby("user_id").tail(5), padding=True, return_tensors="pt")
    with torch.no_grad():
        shares = pipe.model(**batch).logits[:, -1, 2:].softmax(-1).max(-1).values
    best = pipe.predict(visits, top_k=1)["probability"]
    # The first of the kept visits has no stay before it here, and may have one in the pipeline.
    short = np.asarray(LENGTHS) <= 5
    np.testing.assert_allclose(best[short], shares.numpy()[short], rtol=1e-4)


def test_a_session_gathers_few_users_at_one_time_and_answers_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_states, "ATTENDED_USERS", 2)
    pipe, visits = make_pipe(), make_visits((3, 5, 4, 5, 2))
    session, turn = pipe.session(), visits.groupby("user_id").cumcount(ascending=False)
    session.update(visits[turn > 0])
    made = session.update(visits[turn == 0])
    pd.testing.assert_frame_equal(made, pipe.predict(visits).drop(columns="expected_stay"), rtol=1e-4, atol=1e-6)
